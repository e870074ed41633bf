"""The bound at low rank: log rates that are linear in few latent variables."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ._bound import FLOOR, Counts, CountTerms, Inflation, Matrix, count_terms, with_ridge
from ._fits import Report, climb, starting_points
from ._gaussian_fit import Fitted, Posterior, inflated_probability, inflation_parameters
from ._newton import Apply, Vector, maximise
from ._parameters import Parameters
from ._tables import Design


@dataclass(frozen=True)
class Known:
    """Parameters that a bound at low rank does not fit.

    Attributes
    ----------
    loadings
        (p, q).
    mean
        (n, p) fitted log rates.
    logits
        Of an inflated zero, broadcast against (n, p); None without inflation.
    """

    loadings: Float[np.ndarray, "p q"]
    mean: Matrix
    logits: np.ndarray | None


class LowRankBound:
    """The bound as a function of posterior means W, log variances, coefficients B, loadings C and inflation.

    Log rates are ``O + X B + W C'`` with ``W ~ N(0, 1)`` beforehand; the posterior variances V of W give the log rates
    the variances ``V (C * C)'``. The bound is the terms of the counts less ``1/2 sum (W^2 + V - log V - 1)``.

    Parameters
    ----------
    counts
        Counts, offsets and weights.
    basis
        (n, d) orthonormal columns that span the covariates.
    rank
        q.
    inflation
        Inflated zeros; None without.
    known
        Parameters that stay as they are; None fits all.

    References
    ----------
    Chiquet, Mariadassou & Robin, Annals of Applied Statistics 12 (2018).
    """

    def __init__(
        self,
        counts: Counts,
        basis: Float[np.ndarray, "n d"],
        rank: int,
        inflation: Inflation | None = None,
        known: Known | None = None,
    ):
        self.counts, self.basis, self.rank, self.inflation, self.known = counts, basis, rank, inflation, known
        (n, p), d = counts.shape, basis.shape[1]
        shapes: list[tuple[int, ...]] = [(n, rank), (n, rank)]
        if known is None:
            shapes += [(d, p), (p, rank)]
            shapes += [inflation.shape] if inflation is not None else []
        self.shapes = shapes
        self.ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def pack(self, *parts: np.ndarray) -> Vector:
        """All variables as one vector."""
        return np.concatenate([part.ravel() for part in parts])

    def split(self, x: Vector) -> list[np.ndarray]:
        """W (n, q), log V (n, q), and B (d, p), C (p, q) and the parameters of inflation where they are fitted."""
        return [part.reshape(shape) for part, shape in zip(np.split(x, self.ends[:-1]), self.shapes)]

    def _terms(self, parts: list[np.ndarray]) -> tuple[CountTerms, np.ndarray]:
        scores, log_variance = parts[:2]
        if self.known is not None:
            loadings, mean, logits = self.known.loadings, self.known.mean, self.known.logits
        else:
            loadings, mean = parts[3], self.basis @ parts[2]
            logits = self.inflation.logits(parts[4]) if self.inflation is not None else None
        variance = np.exp(log_variance) @ (loadings**2).T
        return count_terms(self.counts, mean + scores @ loadings.T, variance, logits), loadings

    def row_bounds(self, x: Vector) -> Float[np.ndarray, " n"]:
        """(n,) the bound of each row, nats."""
        parts = self.split(x)
        return self._terms(parts)[0].rows - 0.5 * (parts[0] ** 2 + np.exp(parts[1]) - parts[1] - 1).sum(1)

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """The bound in nats and its gradient."""
        parts = self.split(x)
        scores, log_variance = parts[:2]
        if not log_variance.max() < 500:
            return -np.inf, np.zeros_like(x)
        variance = np.exp(log_variance)
        terms, loadings = self._terms(parts)
        error = self.counts.Y - terms.rates
        value = terms.value - 0.5 * float((scores**2 + variance - log_variance - 1).sum())
        gradient = [error @ loadings - scores, 0.5 - 0.5 * variance * (1 + terms.rates @ loadings**2)]
        if self.known is None:
            gradient += [self.basis.T @ error, error.T @ scores - (terms.rates.T @ variance) * loadings]
            if self.inflation is not None and terms.logit_gradient is not None:
                gradient.append(self.inflation.pull_back(terms.logit_gradient))
        return value, self.pack(*gradient)

    def corrected(self, x: Vector) -> Vector:
        """The variables after a Newton step of the scores of each row, and their variances at those rates."""
        parts = self.split(x)
        n, q = parts[0].shape
        terms, loadings = self._terms(parts)
        information = with_ridge((terms.rates @ _products(loadings)).reshape(n, q, q), 1.0)
        if not np.isfinite(information).all():
            return x
        gradient = (self.counts.Y - terms.rates) @ loadings - parts[0]
        scores = parts[0] + np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        return self.pack(scores, -np.log1p(terms.rates @ loadings**2), *parts[2:])

    def preconditioner(self, x: Vector) -> Apply:
        """Inverses of blocks of minus the Hessian: the scores of a row; the coefficients and loadings of a unit."""
        parts = self.split(x)
        (n, q), (p, d) = parts[0].shape, (self.counts.shape[1], self.basis.shape[1])
        variance = np.exp(parts[1])
        terms, loadings = self._terms(parts)
        rates = terms.rates
        by_row = np.linalg.inv(with_ridge((rates @ _products(loadings)).reshape(n, q, q), 1.0))
        curved = 0.5 * variance * (1 + rates @ loadings**2) + 0.25 * variance**2 * (rates @ loadings**4)
        by_unit, inflated = np.zeros((p, 0, 0)), np.zeros(0)
        if self.known is None:
            information = (rates.T @ _products(np.hstack([self.basis, parts[0]]))).reshape(p, d + q, d + q)
            own = np.arange(d, d + q)
            information[:, own, own] += rates.T @ variance
            by_unit = np.linalg.inv(with_ridge(information, FLOOR))
            if self.inflation is not None:
                logits = np.broadcast_to(self.inflation.logits(parts[4]), rates.shape)
                probability = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
                inflated = 1 / (self.inflation.information(probability * (1 - probability)) + FLOOR)

        def apply(gradient: Vector) -> Vector:
            by = self.split(gradient)
            step = [np.einsum("iab,ib->ia", by_row, by[0]), by[1] / curved]
            if self.known is None:
                joint = np.einsum("jab,jb->ja", by_unit, np.hstack([by[2].T, by[3]]))
                step += [joint[:, :d].T, joint[:, d:]]
                if self.inflation is not None:
                    step.append(inflated * by[4])
            return self.pack(*step)

        return apply


def _products(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n kk"]:
    """(n, k * k) products of the entries of each row."""
    return (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)


def _start(counts: Counts, basis: np.ndarray, mean: Matrix, rank: int) -> list[np.ndarray]:
    """Variables at the leading singular vectors of posterior means."""
    n, p = counts.shape
    B = basis.T @ mean
    left, size, right = np.linalg.svd(mean - basis @ B, full_matrices=False)
    k = min(rank, len(size))
    scores, loadings = np.zeros((n, rank)), np.full((p, rank), 1e-3)
    scores[:, :k], loadings[:, :k] = left[:, :k] * np.sqrt(n), right[:k].T * (size[:k] / np.sqrt(n))
    return [scores, -np.log(1 + counts.Y @ loadings**2), B, loadings]


def fit_low_rank(
    counts: Counts,
    design: Design,
    rank: int,
    inflation: Inflation | None,
    *,
    n_starts: int,
    tolerance: float,
    max_iter: int,
    rng: np.random.Generator,
    report: Report | None = None,
) -> Fitted:
    """Fit coefficients and loadings; the latent variables come in the order of the variance that they explain."""
    bound = LowRankBound(counts, design.basis, rank, inflation)
    starts = []
    for mean in starting_points(counts, design.basis, n_starts, rng):
        extra = [] if inflation is None else [inflation.start(counts)]
        starts.append(bound.pack(*_start(counts, design.basis, mean, rank), *extra))
    climbed = climb(bound, starts, tolerance=tolerance, max_iter=max_iter, report=report, correct=bound.corrected)
    x = climbed.maximum.x
    scores, log_variance, B, loadings, *rest = bound.split(x)
    order = np.argsort(-(loadings**2).sum(0))
    sign = np.where(loadings[np.abs(loadings).argmax(0), np.arange(rank)] < 0, -1.0, 1.0)[order]
    scores, log_variance, loadings = scores[:, order] * sign, log_variance[:, order], loadings[:, order] * sign
    covariance = loadings @ loadings.T
    left, size, _ = np.linalg.svd(loadings, full_matrices=False)
    kept = size > 1e-10 * size[0]
    precision = (left[:, kept] / size[kept] ** 2) @ left[:, kept].T
    intercept, coef = design.in_user_scale(B)
    zero_intercept, zero_coef = inflation_parameters(inflation, rest[0] if rest else None, design)
    parameters = Parameters(intercept, coef, covariance, precision, loadings, zero_intercept, zero_coef)
    inflated = None
    if inflation is not None:
        variance = np.exp(log_variance) @ (loadings**2).T
        mean = design.basis @ B + scores @ loadings.T
        inflated = inflated_probability(counts, mean, variance, inflation.logits(rest[0]))
    posterior = Posterior(scores, np.exp(log_variance), inflated, bound.row_bounds(x), climbed.maximum.converged)
    return Fitted(parameters, posterior, climbed)


def infer_low_rank(
    counts: Counts, X: Float[np.ndarray, "n d"], parameters: Parameters, *, tolerance: float, max_iter: int
) -> Posterior:
    """Posterior of the latent variables of new rows under known parameters."""
    loadings = parameters.loadings
    assert loadings is not None
    known = Known(loadings, parameters.mean(X), parameters.logits(X))
    q = loadings.shape[1]
    bound = LowRankBound(counts, np.zeros((len(X), 0)), q, None, known)
    start = bound.pack(np.zeros((len(X), q)), -np.log(1 + counts.Y @ loadings**2))
    found = maximise(bound, start, tolerance=tolerance, max_iter=max_iter)
    scores, log_variance = bound.split(found.x)
    inflated = None
    if known.logits is not None:
        variance = np.exp(log_variance) @ (loadings**2).T
        inflated = inflated_probability(counts, known.mean + scores @ loadings.T, variance, known.logits)
    return Posterior(scores, np.exp(log_variance), inflated, bound.row_bounds(found.x), found.converged)
