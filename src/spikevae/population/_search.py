"""Which fit, and which inference for new rows, the settings of the estimator stand for."""

import math
import numbers
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

COVARIANCES = ("full", "diagonal", "spherical")
INFLATIONS = (None, "global", "per_unit", "covariates")
POSTERIORS = ("auto", "independent", "conditional")


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


def settings_of(model: Any, tolerance: float) -> Settings:
    """The settings of an estimator; tolerance in nats over all rows."""
    conditional = model.zero_inflation_posterior != "independent" and model.rank is None and model.penalty is None
    return Settings(model.covariance, model.rank, model.penalty, conditional, model.n_starts, tolerance, model.max_iter)


def check_settings(model: Any) -> None:
    """Refuse settings of the estimator that cannot be fitted.

    Raises
    ------
    ValueError
        With the setting and its value.
    """
    if model.covariance not in COVARIANCES:
        raise ValueError(f"covariance is {model.covariance!r}; give one of {', '.join(COVARIANCES)}")
    if model.zero_inflation not in INFLATIONS:
        raise ValueError(f"zero_inflation is {model.zero_inflation!r}; give one of {', '.join(map(str, INFLATIONS))}")
    if model.zero_inflation_posterior not in POSTERIORS:
        given = model.zero_inflation_posterior
        raise ValueError(f"zero_inflation_posterior is {given!r}; give one of {', '.join(POSTERIORS)}")
    _check_structure(model)
    for name in ("n_starts", "max_iter"):
        value = getattr(model, name)
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number of one or more")
    if not isinstance(model.tol, numbers.Real) or not 0 < float(model.tol) < math.inf:
        raise ValueError(f"tol is {model.tol!r}; give nats per row above zero")


def _check_structure(model: Any) -> None:
    structured = [name for name in ("rank", "penalty") if getattr(model, name) is not None]
    if len(structured) > 1:
        raise ValueError("rank and penalty are given: give one of them")
    for name in structured:
        if model.covariance != "full":
            raise ValueError(f"{name} needs covariance='full', and it is {model.covariance!r}")
        if model.zero_inflation is not None and model.zero_inflation_posterior == "conditional":
            raise ValueError(f"{name} needs zero_inflation_posterior='independent'")
    if model.rank is not None and (not isinstance(model.rank, numbers.Integral) or model.rank < 1):
        raise ValueError(f"rank is {model.rank!r}; give a whole number of one or more")
    if model.penalty is not None and not (
        isinstance(model.penalty, numbers.Real) and 0 < float(model.penalty) < math.inf
    ):
        raise ValueError(f"penalty is {model.penalty!r}; give a finite number above zero")


def search(
    counts: Counts,
    design: Design,
    inflation: Inflation | None,
    settings: Settings,
    rng: np.random.Generator,
    report: Report | None,
) -> Fitted:
    """Fit all parameters.

    Raises
    ------
    ValueError
        Where there are fewer units than the rank, or one unit and a penalty.
    """
    n_units = counts.shape[1]
    if settings.rank is not None and settings.rank > n_units:
        raise ValueError(f"rank is {settings.rank}, but there are {n_units} units; give at most as many")
    if settings.penalty is not None and n_units == 1:
        raise ValueError("penalty is given, but there is one unit; give the counts of two or more, or no penalty")
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
