"""Fits of the Gaussian bound, and posteriors of new rows under parameters that are known."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ._bound import Counts, Inflation, Matrix, count_terms
from ._fits import ROUGH, Climbed, Report, climb, starting_points
from ._gaussian import Covariance, Fixed, GaussianBound
from ._newton import Vector, maximise
from ._parameters import Parameters
from ._tables import Design

FEW = -6.0
"""Logit of an inflated zero in the fit that starts without inflation."""
LOG_VARIANCE = float(np.log(0.2))
"""Log variance of the posterior that fits start from."""


@dataclass(frozen=True)
class Posterior:
    """What the counts of some rows say about their latent variables.

    Attributes
    ----------
    mean, variance
        (n, p), or (n, q) at low rank.
    inflated
        (n, p) probabilities that a zero is inflated; None without inflation.
    bounds
        (n,) nats of each row, log factorials included.
    converged
        Whether the search ended by its tolerance.
    """

    mean: Matrix
    variance: Matrix
    inflated: Matrix | None
    bounds: Float[np.ndarray, " n"]
    converged: bool

    @property
    def entropy(self) -> float:
        """``1/2 sum log(2 pi e S^2)``, and the entropy of the inflated zeros, in nats."""
        gaussian = 0.5 * float(np.log(2 * np.pi * np.e * self.variance).sum())
        if self.inflated is None:
            return gaussian
        p = np.clip(self.inflated, 1e-300, 1.0)
        q = np.clip(1 - self.inflated, 1e-300, 1.0)
        return gaussian - float((self.inflated * np.log(p) + (1 - self.inflated) * np.log(q)).sum())


@dataclass(frozen=True)
class Fitted:
    """A fit: parameters, posterior of its rows, and how the search went."""

    parameters: Parameters
    posterior: Posterior
    climbed: Climbed


def fit_gaussian(
    counts: Counts,
    design: Design,
    covariance: Covariance,
    inflation: Inflation | None,
    *,
    n_starts: int,
    tolerance: float,
    max_iter: int,
    rng: np.random.Generator,
    report: Report | None = None,
) -> Fitted:
    """Fit a full, diagonal or spherical covariance."""
    bound = GaussianBound(counts, design.basis, covariance, inflation)
    means = starting_points(counts, design.basis, n_starts, rng)
    spread = np.full(counts.shape, LOG_VARIANCE)
    if inflation is None:
        starts = [bound.pack(mean, spread) for mean in means]
    else:
        starts = [_uninflated(counts, design, covariance, bound, means[0], max_iter=max_iter, report=report)]
        zeros = inflation.start(counts)
        starts += [bound.pack(mean, spread, zeros) for mean in means[: n_starts - 1]]
    climbed = climb(bound, starts, tolerance=tolerance, max_iter=max_iter, report=report)
    return _fitted(bound, design, climbed)


def _uninflated(
    counts: Counts,
    design: Design,
    covariance: Covariance,
    inflated: GaussianBound,
    mean: Matrix,
    *,
    max_iter: int,
    report: Report | None,
) -> Vector:
    """The variables of the fit without inflation, with few inflated zeros: the bound is nearly that of this fit."""
    assert inflated.inflation is not None
    bound = GaussianBound(counts, design.basis, covariance)
    start = bound.pack(mean, np.full(counts.shape, LOG_VARIANCE))
    found, log_variance, _ = bound.unpack(maximise(bound, start, tolerance=ROUGH, max_iter=max_iter, report=report).x)
    parameters = inflated.inflation.constant(FEW)
    return inflated.pack(found, log_variance, parameters)


def _fitted(bound: GaussianBound, design: Design, climbed: Climbed) -> Fitted:
    x = climbed.maximum.x
    mean, log_variance, inflation = bound.unpack(x)
    variance, residual = np.exp(log_variance), bound.residual(mean)
    scatter = bound.scatter(residual, variance)
    precision, log_determinant = bound.precision(residual, variance)
    intercept, coef = design.in_user_scale(design.basis.T @ mean)
    logits = bound.logits(inflation)
    zero_intercept, zero_coef = inflation_parameters(bound.inflation, inflation, design)
    parameters = Parameters(
        intercept, coef, scatter, precision, inflation_intercept=zero_intercept, inflation_coef=zero_coef
    )
    posterior = posterior_of(bound.counts, mean, variance, residual, precision, log_determinant, logits, climbed)
    return Fitted(parameters, posterior, climbed)


def inflation_parameters(
    inflation: Inflation | None, found: np.ndarray | None, design: Design
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Intercept and coefficients of the logits in the user's scale; None without."""
    if inflation is None or found is None:
        return None, None
    if inflation.kind != "covariates":
        return found[0].copy(), None
    return design.in_user_scale(found * np.sqrt(len(design.basis)))


def posterior_of(
    counts: Counts,
    mean: Matrix,
    variance: Matrix,
    residual: Matrix,
    precision: np.ndarray,
    log_determinant: float,
    logits: np.ndarray | None,
    climbed: Climbed | None = None,
    converged: bool = True,
) -> Posterior:
    """The posterior with the bound of each row."""
    p = mean.shape[1]
    full = precision.ndim == 2
    pulled = residual @ precision if full else residual * precision
    diagonal = np.diagonal(precision) if full else precision
    gaussian = 0.5 * (np.log(variance).sum(1) + log_determinant + p - (residual * pulled).sum(1) - variance @ diagonal)
    rows = count_terms(counts, mean, variance, logits).rows
    inflated = None
    if logits is not None:
        rates = np.exp(counts.offsets + mean + variance / 2)
        inflated = np.where(counts.zeros, 1 / (1 + np.exp(np.minimum(-(logits + rates), 700))), 0.0)
    return Posterior(
        mean, variance, inflated, gaussian + rows, climbed.maximum.converged if climbed is not None else converged
    )


def infer_gaussian(
    counts: Counts, X: Float[np.ndarray, "n d"], parameters: Parameters, *, tolerance: float, max_iter: int
) -> Posterior:
    """Posterior of new rows under known parameters of full rank: a concave problem without inflation."""
    logits, expected = parameters.logits(X), parameters.mean(X)
    fixed = Fixed(parameters.precision, parameters.log_determinant, expected, logits)
    bound = GaussianBound(counts, np.zeros((len(X), 0)), "full", None, fixed)
    information = counts.Y + parameters.variances**-1  # a guess of the posterior's, from the counts alone
    surprise = np.log(np.maximum(counts.Y, 1.0)) - counts.offsets - expected
    start: Vector = bound.pack(expected + counts.Y / information * surprise, -np.log(information))
    found = maximise(bound, start, tolerance=tolerance, max_iter=max_iter)
    mean, log_variance, _ = bound.unpack(found.x)
    return posterior_of(
        counts,
        mean,
        np.exp(log_variance),
        mean - expected,
        parameters.precision,
        parameters.log_determinant,
        logits,
        converged=found.converged,
    )
