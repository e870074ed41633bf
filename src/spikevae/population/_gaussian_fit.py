"""Fits of the Gaussian bound, and posteriors of new rows under parameters that are known."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from ._bound import Counts, Inflation, Matrix, count_terms
from ._fits import ROUGH, Climbed, Report, climb, starting_points
from ._gaussian import Covariance, Fixed, GaussianBound
from ._newton import Vector, maximise
from ._parameters import Parameters
from ._tables import Design

FEW = -6.0
"""Logit of an inflated zero in the fit that starts without inflation."""
LOWER = 3.0
"""By how much lower the log rates of zeros are in the second start of new rows with inflation."""
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

    mean: Float[np.ndarray, "n l"]
    variance: Float[np.ndarray, "n l"]
    inflated: Matrix | None
    bounds: Float[np.ndarray, " n"]
    converged: bool

    def better_rows(self, other: "Posterior") -> "Posterior":
        """Of each row the one of greater bound."""
        better = other.bounds > self.bounds
        inflated = None
        if self.inflated is not None and other.inflated is not None:
            inflated = np.where(better[:, None], other.inflated, self.inflated)
        return Posterior(
            np.where(better[:, None], other.mean, self.mean),
            np.where(better[:, None], other.variance, self.variance),
            inflated,
            np.maximum(self.bounds, other.bounds),
            self.converged and other.converged,
        )

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
    """A fit.

    Attributes
    ----------
    parameters, posterior
        What the fitted model keeps.
    climbed
        How the search went.
    inflation
        Parameters of inflation in the scale of the basis; None without.
    """

    parameters: Parameters
    posterior: Posterior
    climbed: Climbed
    inflation: np.ndarray | None = None


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
    bound, climbed = climb_gaussian(
        counts, design, covariance, inflation, n_starts=n_starts, tolerance=tolerance, max_iter=max_iter, rng=rng,
        report=report,
    )  # fmt: skip
    return _fitted(bound, design, climbed)


def climb_gaussian(
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
) -> tuple[GaussianBound, Climbed]:
    """The bound and the best of its starts. With inflation, the first start is the fit without, hardly inflated."""
    bound = GaussianBound(counts, design.basis, covariance, inflation)
    means = starting_points(counts, design.basis, n_starts, rng)
    spread = np.full(counts.shape, LOG_VARIANCE)
    if inflation is None:
        starts = [bound.pack(mean, spread) for mean in means]
    else:
        starts = [_uninflated(counts, design, covariance, bound, means[0], max_iter=max_iter, report=report)]
        zeros = inflation.start(counts)
        starts += [bound.pack(mean, spread, zeros) for mean in means[: n_starts - 1]]
    return bound, climb(bound, starts, tolerance=tolerance, max_iter=max_iter, report=report)


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
    posterior = posterior_of(
        bound.counts, mean, variance, residual, precision, log_determinant, logits, climbed.maximum.converged
    )
    return Fitted(parameters, posterior, climbed, inflation)


def inflation_parameters(
    inflation: Inflation | None, found: np.ndarray | None, design: Design
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Intercept and coefficients of the logits in the user's scale; None without."""
    if inflation is None or found is None:
        return None, None
    if inflation.kind != "covariates":
        return found[0].copy(), None
    return design.in_user_scale(found * np.sqrt(len(design.basis)))


def inflated_probability(counts: Counts, mean: Matrix, variance: Matrix, logits: np.ndarray) -> Matrix:
    """(n, p) best probabilities that a zero is inflated, where it is independent of the rate; zero without a zero."""
    rates = np.exp(counts.offsets + mean + variance / 2)
    return np.where(counts.zeros, expit(logits + rates), 0.0)


def posterior_of(
    counts: Counts,
    mean: Matrix,
    variance: Matrix,
    residual: Matrix,
    precision: np.ndarray,
    log_determinant: float,
    logits: np.ndarray | None,
    converged: bool,
) -> Posterior:
    """The posterior with the bound of each row."""
    p = mean.shape[1]
    full = precision.ndim == 2
    pulled = residual @ precision if full else residual * precision
    diagonal = np.diagonal(precision) if full else precision
    gaussian = 0.5 * (np.log(variance).sum(1) + log_determinant + p - (residual * pulled).sum(1) - variance @ diagonal)
    rows = count_terms(counts, mean, variance, logits).rows
    inflated = None if logits is None else inflated_probability(counts, mean, variance, logits)
    return Posterior(mean, variance, inflated, gaussian + rows, converged)


def posterior_start(counts: Counts, expected: Matrix, parameters: Parameters) -> tuple[Matrix, Matrix]:
    """Means and log variances to start from under known parameters: of each entry alone, at rates near its count."""
    precision = parameters.precision
    diagonal = np.diagonal(precision) if precision.ndim == 2 else precision
    information = counts.Y + np.maximum(diagonal, 1.0)
    surprise = np.log(np.maximum(counts.Y, 1.0)) - counts.offsets - expected
    start = expected + counts.Y / information * surprise
    return np.minimum(start, np.log(counts.Y + 1.0) + 1.0 - counts.offsets), -np.log(information)


def infer_gaussian(
    counts: Counts, X: Float[np.ndarray, "n d"], parameters: Parameters, *, tolerance: float, max_iter: int
) -> Posterior:
    """Posterior of new rows under known parameters of full rank.

    Without inflation the problem is concave. With it, zeros start at the regression and, in a second search, far below,
    where they need no inflation; each row keeps the better.
    """
    logits, expected = parameters.logits(X), parameters.mean(X)
    precision, log_determinant = parameters.precision, parameters.log_determinant
    bound = GaussianBound(
        counts, np.zeros((len(X), 0)), "full", None, Fixed(precision, log_determinant, expected, logits)
    )
    start, log_variance = posterior_start(counts, expected, parameters)
    starts = [start] if logits is None else [start, np.where(counts.zeros, start - LOWER, start)]
    best: Posterior | None = None
    for mean in starts:
        found = maximise(bound, bound.pack(mean, log_variance), tolerance=tolerance, max_iter=max_iter)
        mean, fitted, _ = bound.unpack(found.x)
        posterior = posterior_of(
            counts, mean, np.exp(fitted), mean - expected, precision, log_determinant, logits, found.converged
        )
        best = posterior if best is None else best.better_rows(posterior)
    assert best is not None
    return best
