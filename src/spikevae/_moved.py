"""Former names of modules: importing one raises an error with the present name."""

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
"""Present name by former name, relative to the package."""


class _FormerNames(MetaPathFinder):
    """The last finder, for modules that no other finder knows."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        package, _, module = name.partition(".")
        if package == "spikevae" and module in MODULES:
            raise ModuleNotFoundError(f"{name} is now spikevae.{MODULES[module]}", name=name)


def add_former_names() -> None:
    """Make imports of former names raise an error with the present name."""
    sys.meta_path.append(_FormerNames())
