"""Where modules of earlier checkouts are now: importing one is an error that says its new name."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

MODULES = {
    "energy": "evaluation",
    "estimator": "estimators",
    "evaluate": "evaluation",
    "inference_energy": "evaluation",
    "metrics.convergence": "sweep.convergence",
    "metrics.fields": "evaluation.metrics",
    "metrics.trend": "reporting.trend",
    "models.descent": "models.iterative.descent",
    "models.drive": "models.iterative.drive",
    "models.flows": "models.iterative.flows",
    "models.natural": "models.iterative.natural",
    "models.sparse_coding": "models.sparse",
    "models.sparse_model": "models.sparse",
    "sparse_coder": "estimators",
}
"""Former and present names, relative to the package."""


class _NewHomes(MetaPathFinder):
    """Asked last, for modules that no other finder knows."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        package, _, module = name.partition(".")
        if package == "spikevae" and module in MODULES:
            raise ModuleNotFoundError(f"{name} is now spikevae.{MODULES[module]}", name=name)


def name_new_homes() -> None:
    """Have imports of former names fail with the present one."""
    sys.meta_path.append(_NewHomes())
