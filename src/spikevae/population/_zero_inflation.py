"""Inflated zeros with a posterior of the log rate that depends on whether the zero is inflated."""

import numpy as np
from jaxtyping import Float
from scipy.special import expit, gammaln, lambertw, logit

from ._bound import FLOOR, Coarse, Counts, Inflation, Matrix
from ._fits import ROUGH, Report, climb
from ._gaussian import Covariance, Pulled, inverse_and_log_determinant, pull, pull_by_scatter
from ._gaussian_fit import Fitted, Posterior, climb_gaussian, inflation_parameters, posterior_start
from ._newton import Apply, Vector, maximise
from ._parameters import Parameters
from ._tables import Design

MOST = 12.0
"""Largest logit of a posterior probability at a start: beyond, its derivatives vanish."""


def log_zero_probability(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Laplace approximation of the log probability of the count zero under a Poisson log-normal distribution.

    With ``w = W(variance exp(mean))``, W the Lambert function, it is
    ``-(w^2 + 2 w) / (2 variance) - 1/2 log(1 + w)``.

    Examples
    --------
    >>> log_zero_probability(np.array(0.0), np.array(1e-6)).round(3)  # a Poisson count of rate 1
    np.float64(-1.0)
    """
    w = np.real(lambertw(variance * np.exp(mean)))
    return -(w**2 + 2 * w) / (2 * variance) - 0.5 * np.log1p(w)


def probable(counts: Counts, mean: Matrix, variances: np.ndarray, logits: np.ndarray) -> Matrix:
    """Probabilities that zeros are inflated, the log rates integrated out; zero without a zero."""
    return np.where(counts.zeros, expit(logits - log_zero_probability(counts.offsets + mean, variances)), 0.0)


class ConditionalBound:
    """The bound whose posterior of a log rate is the regression's where the zero is inflated.

    Where it is not, the log rate has mean ``X B + r`` and variance V; where it is, mean ``X B`` and a variance T of its
    unit. With P the probability of the first, ``R = (1 - P) r``, the covariance at its best is
    ``(R'R + diag sum_i [(1 - P) V + P T + P (1 - P) r^2]) / n``. T is fitted; its best is ``1 / precision_jj``.

    Variables are r (n, p), log V (n, p), the logits of P at the zeros, and, unless `parameters` are given, B (d, p),
    log T (p,) and the parameters of the inflation.

    References
    ----------
    Batardiere, Chiquet, Gindraud & Mariadassou, arXiv 2405.14711, the "enhanced" family; there T is the variance of
    the unit.
    """

    def __init__(
        self,
        counts: Counts,
        basis: Float[np.ndarray, "n d"],
        covariance: Covariance,
        inflation: Inflation | None,
        parameters: Parameters | None = None,
        X: np.ndarray | None = None,
    ):
        self.counts, self.basis, self.covariance, self.inflation = counts, basis, covariance, inflation
        self.parameters = parameters
        (n, p), d = counts.shape, basis.shape[1]
        self.n_zeros = int(counts.zeros.sum())
        self.shapes: list[tuple[int, ...]] = [(n, p), (n, p), (self.n_zeros,)]
        if parameters is None and inflation is not None:
            self.shapes += [(d, p), (p,), inflation.shape]
        elif parameters is not None and X is not None:
            self._mean, self._logits = parameters.mean(X), parameters.logits(X)
            self._log_determinant = parameters.log_determinant
        self.ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        self._log_factorials = gammaln(counts.Y + 1.0).sum(1)

    def split(self, x: Vector) -> list[np.ndarray]:
        """The variables in their shapes."""
        return [part.reshape(shape) for part, shape in zip(np.split(x, self.ends[:-1]), self.shapes)]

    def pack(self, *parts: np.ndarray) -> Vector:
        """All variables as one vector."""
        return np.concatenate([part.ravel() for part in parts])

    def probabilities(self, logits: np.ndarray) -> Matrix:
        """(n, p) posterior probabilities of inflated zeros."""
        P = np.zeros(self.counts.shape)
        P[self.counts.zeros] = expit(logits)
        return P

    def _given(self, parts: list[np.ndarray]) -> tuple[Matrix, np.ndarray, np.ndarray]:
        """Fitted log rates, log T and logits of the prior."""
        if self.parameters is not None:
            precision = self.parameters.precision
            diagonal = np.diagonal(precision) if precision.ndim == 2 else precision
            assert self._logits is not None
            return self._mean, -np.log(diagonal), self._logits
        assert self.inflation is not None
        return self.basis @ parts[3], parts[4], self.inflation.logits(parts[5])

    def scatter(self, x: Vector) -> np.ndarray:
        """The best covariance, (p, p) or (p,)."""
        parts = self.split(x)
        P = self.probabilities(parts[2])
        return self._scatter(parts[0], np.exp(parts[1]), P, np.exp(self._given(parts)[1]))

    def _scatter(self, r: Matrix, V: Matrix, P: Matrix, T: np.ndarray) -> np.ndarray:
        n, p = r.shape
        R, spread = (1 - P) * r, _spread(r, V, P, T)
        if self.covariance == "full":
            scatter = R.T @ R / n
            scatter[np.diag_indices(p)] += spread
            return scatter
        variances = (R**2).sum(0) / n + spread
        return variances if self.covariance == "diagonal" else np.full(p, variances.mean())

    def _pulled(self, r: Matrix, V: Matrix, P: Matrix, T: np.ndarray) -> Pulled:
        R = (1 - P) * r
        if self.parameters is not None:
            return pull(R, self.parameters.precision, self._log_determinant)
        if self.covariance == "full":
            return pull_by_scatter(R, _spread(r, V, P, T))
        scatter = self._scatter(r, V, P, T)
        return pull(R, 1 / scatter, -float(np.log(scatter).sum()))

    def _rates(self, mean: Matrix, r: Matrix, V: Matrix) -> Matrix:
        with np.errstate(over="ignore"):
            rates = np.exp(self.counts.offsets + mean + r + V / 2)
        return rates if self.counts.weights is None else rates * self.counts.weights

    def rows_and_gradient(self, x: Vector) -> tuple[Float[np.ndarray, " n"], list[np.ndarray]]:
        """(n,) nats of each row, and the gradient in the shapes of the variables."""
        parts = self.split(x)
        r, log_variance, own = parts[:3]
        mean, log_t, prior = self._given(parts)
        Y, zeros, V, T = self.counts.Y, self.counts.zeros, np.exp(log_variance), np.exp(log_t)
        P = self.probabilities(own)
        alive = 1 - P
        R = alive * r
        pulled, diagonal, log_determinant = self._pulled(r, V, P, T)
        rates = self._rates(mean, r, V)
        own_logits = np.zeros(Y.shape)
        own_logits[zeros] = own
        weights = 1.0 if self.counts.weights is None else self.counts.weights
        entropy = np.where(zeros, np.logaddexp(0, own_logits) - P * own_logits, 0.0)
        inflated = P * prior - weights * np.logaddexp(0, prior) + entropy
        spread = alive * V + P * T + P * alive * r**2
        gaussian = alive * log_variance + P * log_t - R * pulled - spread * diagonal + 1
        rows = (Y * (self.counts.offsets + mean + r) - alive * rates + inflated + 0.5 * gaussian).sum(1)
        rows = rows + 0.5 * log_determinant - self._log_factorials
        error = Y - alive * rates
        by_p = rates + prior - own_logits + 0.5 * (log_t - log_variance) + pulled * r
        by_p -= 0.5 * diagonal * (T - V + (1 - 2 * P) * r**2)
        gradient = [
            error - alive * pulled - P * alive * r * diagonal,
            0.5 * alive * (1 - V * (rates + diagonal)),
            (P * alive * by_p)[zeros],
        ]
        if self.parameters is None and self.inflation is not None:
            total = P.sum(0)
            gradient += [self.basis.T @ error, 0.5 * total * (1 - T * diagonal)]
            gradient.append(self.inflation.pull_back(P - weights * expit(prior)))
        return rows, gradient

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """The bound in nats and its gradient."""
        with np.errstate(over="ignore", invalid="ignore"):
            rows, gradient = self.rows_and_gradient(x)
            return float(rows.sum()), self.pack(*gradient)

    def preconditioner(self, x: Vector) -> Apply:
        """Inverse of the diagonal of minus the Hessian, and Newton steps of the regression at fixed residuals."""
        parts = self.split(x)
        r, V, P = parts[0], np.exp(parts[1]), self.probabilities(parts[2])
        mean, log_t, prior = self._given(parts)
        diagonal = self._pulled(r, V, P, np.exp(log_t)).diagonal
        rates = self._rates(mean, r, V)
        alive = 1 - P
        scale = [
            1 / (alive * (rates + diagonal) + FLOOR),
            1 / (0.5 * alive * V * (rates * (1 + V / 2) + diagonal) + FLOOR),
            1 / (P * alive)[self.counts.zeros].clip(FLOOR),
        ]
        coarse = Coarse(self.basis)
        if self.parameters is None and self.inflation is not None:
            coarse.update(alive * rates)
            p0 = np.broadcast_to(expit(prior), P.shape)
            scale += [np.zeros(0), 1 / (0.5 * P.sum(0) + FLOOR)]
            scale.append(1 / (self.inflation.information(p0 * (1 - p0)) + FLOOR))

        def apply(gradient: Vector) -> Vector:
            by = self.split(gradient)
            step = [coarse.apply(part) if i == 3 else scale[i] * part for i, part in enumerate(by)]
            return self.pack(*step)

        return apply


def _spread(r: Matrix, V: Matrix, P: Matrix, T: np.ndarray) -> Float[np.ndarray, " p"]:
    """What posterior variances add to the diagonal of the covariance."""
    return ((1 - P) * V + P * T + P * (1 - P) * r**2).sum(0) / len(r)


def fit_conditional(
    counts: Counts,
    design: Design,
    covariance: Covariance,
    inflation: Inflation,
    *,
    n_starts: int,
    tolerance: float,
    max_iter: int,
    rng: np.random.Generator,
    report: Report | None = None,
) -> Fitted:
    """Fit from where the starts of the independent family end."""
    independent, found = climb_gaussian(
        counts, design, covariance, inflation, n_starts=n_starts, tolerance=max(tolerance, ROUGH), max_iter=max_iter,
        rng=rng, report=report,
    )  # fmt: skip
    bound = ConditionalBound(counts, design.basis, covariance, inflation)
    starts = []
    for x in found.ends:
        mean, log_variance, zeros = independent.unpack(x)
        assert zeros is not None
        residual, V = independent.residual(mean), np.exp(log_variance)
        diagonal = independent.pulled(residual, V).diagonal
        own = (inflation.logits(zeros) + np.exp(counts.offsets + mean + V / 2))[counts.zeros]
        own = np.clip(own, -MOST, MOST)
        starts.append(bound.pack(residual, log_variance, own, design.basis.T @ mean, -np.log(diagonal), zeros))
    climbed = climb(bound, starts, tolerance=tolerance, max_iter=max_iter, report=report)
    x = climbed.maximum.x
    r, log_variance, own, B, _, zeros = bound.split(x)
    scatter = bound.scatter(x)
    precision = inverse_and_log_determinant(scatter)[0] if scatter.ndim == 2 else 1 / scatter
    zero_intercept, zero_coef = inflation_parameters(inflation, zeros, design)
    intercept, coef = design.in_user_scale(B)
    parameters = Parameters(
        intercept, coef, scatter, precision, inflation_intercept=zero_intercept, inflation_coef=zero_coef
    )
    rows, _ = bound.rows_and_gradient(x)
    posterior = Posterior(
        design.basis @ B + r, np.exp(log_variance), bound.probabilities(own), rows, climbed.maximum.converged
    )
    return Fitted(parameters, posterior, climbed, zeros)


def infer_conditional(
    counts: Counts, X: Float[np.ndarray, "n d"], parameters: Parameters, *, tolerance: float, max_iter: int
) -> Posterior:
    """Posterior of new rows under known parameters, from the probabilities with the log rates integrated out."""
    bound = ConditionalBound(counts, np.zeros((len(X), 0)), "full", None, parameters, X)
    mean, logits = parameters.mean(X), parameters.logits(X)
    assert logits is not None
    own = probable(counts, mean, parameters.variances, logits)[counts.zeros]
    own = np.clip(logit(np.clip(own, 1e-9, 1 - 1e-9)), -MOST, MOST)
    first, log_variance = posterior_start(counts, mean, parameters)
    start = bound.pack(first - mean, log_variance, own)
    found = maximise(bound, start, tolerance=tolerance, max_iter=max_iter)
    r, log_variance, own = bound.split(found.x)
    rows, _ = bound.rows_and_gradient(found.x)
    return Posterior(mean + r, np.exp(log_variance), bound.probabilities(own), rows, found.converged)
