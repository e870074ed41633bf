"""Which fit, and which inference for new rows, the settings of the estimator stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ._bound import Counts, Inflation
from ._fits import Report
from ._gaussian import Covariance
from ._gaussian_fit import Fitted, Posterior, fit_gaussian, infer_gaussian
from ._low_rank import fit_low_rank, infer_low_rank
from ._parameters import Parameters
from ._sparse import fit_sparse
from ._tables import Design
from ._zero_inflation import fit_conditional, infer_conditional


@dataclass(frozen=True)
class Settings:
    """What is fitted, and how long the search may take."""

    covariance: Covariance
    rank: int | None
    penalty: float | None
    conditional: bool
    n_starts: int
    tolerance: float
    max_iter: int


def search(
    counts: Counts,
    design: Design,
    inflation: Inflation | None,
    settings: Settings,
    rng: np.random.Generator,
    report: Report | None,
) -> Fitted:
    """Fit all parameters."""
    common: dict[str, Any] = {
        "n_starts": settings.n_starts,
        "tolerance": settings.tolerance,
        "max_iter": settings.max_iter,
        "rng": rng,
        "report": report,
    }
    if settings.rank is not None:
        return fit_low_rank(counts, design, settings.rank, inflation, **common)
    if settings.penalty is not None:
        return fit_sparse(counts, design, settings.penalty, inflation, **common)
    if inflation is not None and settings.conditional:
        return fit_conditional(counts, design, settings.covariance, inflation, **common)
    return fit_gaussian(counts, design, settings.covariance, inflation, **common)


def infer(counts: Counts, X: Float[np.ndarray, "n d"], parameters: Parameters, settings: Settings) -> Posterior:
    """Posterior of rows under known parameters."""
    common: dict[str, Any] = {"tolerance": settings.tolerance, "max_iter": settings.max_iter}
    if parameters.loadings is not None:
        return infer_low_rank(counts, X, parameters, **common)
    if parameters.inflation_intercept is not None and settings.conditional:
        return infer_conditional(counts, X, parameters, **common)
    return infer_gaussian(counts, X, parameters, **common)
