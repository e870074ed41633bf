"""Variational autoencoders whose code is made of spike counts and priced in energy.

The public names are imported on first use, so `import spikevae` is fast.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names as _lazy_names
from ._moved import MODULES as _MOVED
from ._moved import add_former_names as _add_former_names

if TYPE_CHECKING:
    from . import config as config
    from . import data as data
    from . import decoding as decoding
    from . import diffusion as diffusion
    from . import distributions as distributions
    from . import ensembles as ensembles
    from . import estimators as estimators
    from . import evaluation as evaluation
    from . import free_energy as free_energy
    from . import gradients as gradients
    from . import importance as importance
    from . import metrics as metrics
    from . import models as models
    from . import networks as networks
    from . import objectives as objectives
    from . import physiology as physiology
    from . import plot as plot
    from . import population as population
    from . import samplers as samplers
    from . import scorers as scorers
    from . import sweep as sweep
    from . import training as training
    from .config import FitConfig as FitConfig
    from .config import SweepConfig as SweepConfig
    from .count_fits import fit_counts as fit_counts
    from .distributions import LAWS as LAWS
    from .estimators import HistogramRegressor as HistogramRegressor
    from .estimators import SparseCoder as SparseCoder
    from .estimators import SpikeVAE as SpikeVAE
    from .estimators import load_model as load_model
    from .evaluation import Metrics as Metrics
    from .frontier import Frontier as Frontier
    from .models import sparse as sparse
    from .population import PoissonLogNormal as PoissonLogNormal
    from .reporting import build_report as report  # noqa: F401 - the public name
    from .sweep import RunFolder as RunFolder
    from .sweep import Sweep as Sweep

__version__ = "0.1.0"

_HOMES = {
    **{
        name: name
        for name in (
            "config",
            "data",
            "decoding",
            "diffusion",
            "distributions",
            "ensembles",
            "estimators",
            "evaluation",
            "free_energy",
            "gradients",
            "importance",
            "metrics",
            "models",
            "networks",
            "objectives",
            "physiology",
            "plot",
            "population",
            "samplers",
            "scorers",
            "sweep",
            "training",
        )
    },
    "sparse": "models.sparse",
    "FitConfig": "config:FitConfig",
    "SweepConfig": "config:SweepConfig",
    "LAWS": "distributions:LAWS",
    "SpikeVAE": "estimators:SpikeVAE",
    "SparseCoder": "estimators:SparseCoder",
    "HistogramRegressor": "estimators:HistogramRegressor",
    "load_model": "estimators:load_model",
    "Metrics": "evaluation:Metrics",
    "Frontier": "frontier:Frontier",
    "report": "reporting:build_report",
    "RunFolder": "sweep:RunFolder",
    "Sweep": "sweep:Sweep",
    "fit_counts": "count_fits:fit_counts",
    "PoissonLogNormal": "population:PoissonLogNormal",
}
__all__ = [*_HOMES, "__version__"]

__getattr__, __dir__ = _lazy_names(__name__, _HOMES, {old: f"spikevae.{new}" for old, new in _MOVED.items()})
_add_former_names()
