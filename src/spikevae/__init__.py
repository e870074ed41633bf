"""Variational autoencoders whose code is made of spike counts and priced in energy.

The public names are loaded on first use, so that `import spikevae` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data as data
    from .config import FitConfig as FitConfig
    from .config import SweepConfig as SweepConfig
    from .count_fits import fit_counts as fit_counts
    from .distributions import LAWS as LAWS
    from .estimator import SpikeVAE as SpikeVAE
    from .estimator import load_model as load_model
    from .evaluate import Metrics as Metrics
    from .reporting import build_report as report  # noqa: F401 - the public name
    from .sparse_coder import SparseCoder as SparseCoder
    from .sweep import RunFolder as RunFolder
    from .sweep import Sweep as Sweep

__version__ = "0.1.0"

_HOME = {
    "FitConfig": ("config", "FitConfig"),
    "SweepConfig": ("config", "SweepConfig"),
    "LAWS": ("distributions", "LAWS"),
    "SpikeVAE": ("estimator", "SpikeVAE"),
    "SparseCoder": ("sparse_coder", "SparseCoder"),
    "load_model": ("estimator", "load_model"),
    "Metrics": ("evaluate", "Metrics"),
    "report": ("reporting", "build_report"),
    "RunFolder": ("sweep", "RunFolder"),
    "Sweep": ("sweep", "Sweep"),
    "fit_counts": ("count_fits", "fit_counts"),
    "data": ("data", None),
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spikevae' has no attribute {name!r}")
    from importlib import import_module

    home, attribute = _HOME[name]
    module = import_module(f"{__name__}.{home}")
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
