"""How units covary, from a fitted Poisson log-normal model: noise and signal correlations, dimensionality."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from .poisson_log_normal import PoissonLogNormal


@dataclass(frozen=True)
class Correlations:
    """Correlations of units, as :func:`correlations` returns them."""

    log_rate: Float[np.ndarray, "p p"]
    """Of the log rates given the covariates."""
    noise: Float[np.ndarray, "p p"]
    """Of the counts given the covariates, on average over rows: counting noise lowers them."""
    signal: Float[np.ndarray, "p p"] | None
    """Of the expected counts over rows, at equal offsets; NaN where a mean does not vary. None without covariates."""
    partial: Float[np.ndarray, "p p"]
    """Of the log rates of two units given those of all others."""
    dimensionality: float
    """Participation ratio of the covariance of the log rates, 1 to p."""
    signal_dimensionality: float | None
    """Participation ratio of the covariance of the expected log rates over rows, 1 to the number of covariates."""


def participation_ratio(covariance: Float[np.ndarray, "p p"]) -> float:
    """(sum of the eigenvalues)^2 over the sum of their squares: the number of directions that share the variance.

    References
    ----------
    Gao et al. 2017 (doi 10.1101/214262).

    Examples
    --------
    >>> participation_ratio(np.eye(5)), participation_ratio(np.ones((5, 5)))
    (5.0, 1.0)
    """
    total = float(np.trace(covariance))
    squares = float((covariance**2).sum())
    return total**2 / squares if squares > 0 else float("nan")


def count_covariance(
    rates: Float[np.ndarray, "n p"],
    covariance: Float[np.ndarray, "p p"],
    present: Float[np.ndarray, "n p"] | None = None,
) -> Float[np.ndarray, "p p"]:
    """Covariance of counts given the covariates, on average over rows.

    Parameters
    ----------
    rates
        l, expected rates: exp(offset + mean + variance / 2).
    covariance
        S, of the log rates.
    present
        a, probability that a zero is not inflated; 1 without inflation. Inflated zeros are independent among units.

    Notes
    -----
    Of two units, a_j a_k l_j l_k (exp(S_jk) - 1); of one unit, a l + a l^2 exp(S_jj) - (a l)^2 (Aitchison & Ho 1989,
    doi 10.1093/biomet/76.4.643, without inflation).
    """
    seen = rates if present is None else rates * present
    found = seen.T @ seen * np.expm1(covariance) / len(rates)
    second = (seen * rates).mean(0) * np.exp(np.diagonal(covariance))
    np.fill_diagonal(found, seen.mean(0) + second - (seen**2).mean(0))
    return found


def correlations(model: PoissonLogNormal, X: Any = None, offsets: Any = None) -> Correlations:
    """Correlations of the units of a fitted model in the rows with these covariates and offsets.

    Parameters
    ----------
    model
        Fitted.
    X, offsets
        As in the fit; without both, one row of a fit without covariates.

    Raises
    ------
    ValueError
        For other covariates than those of the fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> common, own = rng.normal(size=(400, 1)), rng.normal(size=(400, 2))
    >>> found = correlations(PoissonLogNormal(n_starts=1).fit(rng.poisson(np.exp(2 + 0.6 * common + 0.3 * own))))
    >>> found.log_rate.round(1)[0, 1], found.noise.round(1)[0, 1], round(found.dimensionality, 1)
    (np.float64(0.7), np.float64(0.5), 1.4)
    """
    covariates, shift = model._rows(X, offsets, None)
    parameters, covariance = model._parameters, model.covariance_
    logits = parameters.logits(covariates)
    present = None if logits is None else np.broadcast_to(expit(-logits), (len(covariates), len(covariance)))
    means = parameters.mean(covariates)
    at_offset = np.exp(shift + means + parameters.variances / 2)
    equal = np.exp(means + parameters.variances / 2) * (1.0 if present is None else present)
    varies = len(covariates) > 1 and covariates.shape[1] > 0
    precision = model.precision_
    with np.errstate(divide="ignore", invalid="ignore"):
        partial = -_scaled(precision)
    np.fill_diagonal(partial, 1.0)
    return Correlations(
        _scaled(covariance),
        _scaled(count_covariance(at_offset, covariance, present)),
        _scaled(np.cov(equal.T, bias=True).reshape(covariance.shape)) if varies else None,
        partial,
        participation_ratio(covariance),
        participation_ratio(np.cov(means.T, bias=True).reshape(covariance.shape)) if varies else None,
    )


def _scaled(covariance: np.ndarray) -> np.ndarray:
    """Correlations of a covariance; NaN where a variance is zero."""
    deviation = np.sqrt(np.diagonal(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = covariance / np.outer(deviation, deviation)
    found = np.clip(found, -1.0, 1.0)
    found[np.diag_indices_from(found)] = np.where(deviation > 0, 1.0, np.nan)
    return found


def clustered_order(correlation: Float[np.ndarray, "p p"]) -> np.ndarray:
    """Order of units in which similar ones are neighbours: average linkage of 1 - r, leaves in the best order."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    p = len(correlation)
    if p < 3:
        return np.arange(p)
    distance = 1.0 - np.nan_to_num(correlation)
    np.fill_diagonal(distance, 0.0)
    flat = squareform((distance + distance.T) / 2, checks=False)
    tree = linkage(flat, "average")
    return leaves_list(optimal_leaf_ordering(tree, flat) if p <= MAX_ORDERED else tree)


MAX_ORDERED = 500
"""Most units whose leaves are put in the optimal order, which takes time cubic in their number."""
