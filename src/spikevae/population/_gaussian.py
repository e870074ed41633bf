"""The bound with a Gaussian posterior for every entry, its parameters in closed form: full, diagonal, spherical."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack

from ._bound import FLOOR, Coarse, Counts, CountTerms, Inflation, Matrix, count_terms
from ._newton import Apply, Vector

Covariance = Literal["full", "diagonal", "spherical"]


def inverse_and_log_determinant(a: Float[np.ndarray, "p p"]) -> tuple[Float[np.ndarray, "p p"], float]:
    """Of a symmetric positive definite matrix; NaN where it is not."""
    factor, failed = lapack.dpotrf(a, lower=1, clean=1)
    if failed:
        return np.full_like(a, np.nan), np.nan
    log_determinant = 2.0 * float(np.log(np.diagonal(factor)).sum())
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse, -1)
    return lower + lower.T + np.diag(np.diagonal(inverse)), log_determinant


class Pulled(NamedTuple):
    """What the bound needs of a precision Omega.

    Attributes
    ----------
    residual
        (n, p) R Omega.
    diagonal
        (p,) of Omega.
    log_determinant
        Of Omega.
    """

    residual: Matrix
    diagonal: Float[np.ndarray, " p"]
    log_determinant: float


def pull(residual: Matrix, precision: np.ndarray, log_determinant: float) -> Pulled:
    """With a precision (p, p) or (p,) that is known."""
    if precision.ndim == 1:
        return Pulled(residual * precision, precision, log_determinant)
    return Pulled(residual @ precision, np.diagonal(precision), log_determinant)


def pull_by_scatter(residual: Matrix, spread: Float[np.ndarray, " p"]) -> Pulled:
    """With the inverse of ``R'R / n + diag spread``, through the smaller of R'R and RR'; NaN where it is singular.

    Examples
    --------
    >>> R = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]])
    >>> inverse = np.linalg.inv(R.T @ R / 2 + np.diag([1.0, 2.0, 3.0]))
    >>> found = pull_by_scatter(R, np.array([1.0, 2.0, 3.0]))
    >>> np.allclose(found.residual, R @ inverse), np.allclose(found.diagonal, np.diag(inverse))
    (True, True)
    """
    n, p = residual.shape
    if n >= p:
        scatter = residual.T @ residual / n
        scatter[np.diag_indices(p)] += spread
        inverse, log_determinant = inverse_and_log_determinant(scatter)
        return pull(residual, inverse, -log_determinant)
    scaled = residual / spread
    factor, failed = lapack.dpotrf(np.eye(n) + scaled @ residual.T / n, lower=1)
    if failed:
        return Pulled(np.full_like(residual, np.nan), np.full(p, np.nan), np.nan)
    pulled = lapack.dpotrs(factor, scaled, lower=1)[0]
    diagonal = (1 - np.einsum("ij,ij->j", residual, pulled) / n) / spread
    return Pulled(pulled, diagonal, -float(np.log(spread).sum()) - 2 * float(np.log(np.diagonal(factor)).sum()))


@dataclass(frozen=True)
class Fixed:
    """Parameters that a bound does not fit.

    Attributes
    ----------
    precision
        (p, p), or (p,) where it is diagonal.
    log_determinant
        Of the precision.
    mean
        (n, p) fitted log rates; None: the regression is fitted.
    logits
        Of an inflated zero, broadcast against (n, p); None without inflation.
    """

    precision: np.ndarray
    log_determinant: float
    mean: Matrix | None = None
    logits: np.ndarray | None = None


class GaussianBound:
    """The bound as a function of posterior means, log variances and the parameters of inflation.

    With ``R = M - X B``, ``D = sum_i S_i^2``, the covariance ``Sigma = (R'R + diag D) / n`` and ``B = (X'X)^-1 X'M`` at
    their best, it is the terms of the counts plus ``1/2 sum log S^2 - n/2 log det Sigma``.

    Parameters
    ----------
    counts
        Counts, offsets and weights.
    basis
        (n, d) orthonormal columns that span the covariates.
    covariance
        "full", "diagonal" or "spherical".
    inflation
        Inflated zeros; None without.
    fixed
        Parameters that stay as they are, as for new rows; None fits all.

    References
    ----------
    Chiquet, Mariadassou & Robin, Annals of Applied Statistics 12 (2018), for the bound; Batardiere, Chiquet, Gindraud &
    Mariadassou, arXiv 2405.14711, for inflated zeros.
    """

    def __init__(
        self,
        counts: Counts,
        basis: Float[np.ndarray, "n d"],
        covariance: Covariance,
        inflation: Inflation | None = None,
        fixed: Fixed | None = None,
    ):
        self.counts, self.basis, self.covariance = counts, basis, covariance
        self.inflation, self.fixed = inflation, fixed
        self._coarse = Coarse(basis)

    @property
    def size(self) -> int:
        """Number of variables."""
        n, p = self.counts.shape
        return 2 * n * p + (self.inflation.size if self.inflation else 0)

    def pack(self, mean: Matrix, log_variance: Matrix, inflation: np.ndarray | None = None) -> Vector:
        """All variables as one vector."""
        parts = [mean.ravel(), log_variance.ravel()]
        return np.concatenate(parts if inflation is None else [*parts, inflation.ravel()])

    def unpack(self, x: Vector) -> tuple[Matrix, Matrix, np.ndarray | None]:
        """Means, log variances and parameters of inflation."""
        n, p = self.counts.shape
        rest = x[2 * n * p :].reshape(self.inflation.shape) if self.inflation else None
        return x[: n * p].reshape(n, p), x[n * p : 2 * n * p].reshape(n, p), rest

    def logits(self, inflation: np.ndarray | None) -> np.ndarray | None:
        """Logits of an inflated zero, broadcast against (n, p); None without inflation."""
        if self.inflation is not None and inflation is not None:
            return self.inflation.logits(inflation)
        return self.fixed.logits if self.fixed else None

    def terms(self, x: Vector) -> CountTerms:
        """The terms of the counts."""
        mean, log_variance, inflation = self.unpack(x)
        return count_terms(self.counts, mean, np.exp(log_variance), self.logits(inflation))

    def residual(self, mean: Matrix) -> Matrix:
        """Posterior means less the fitted log rates."""
        if self.fixed is not None and self.fixed.mean is not None:
            return mean - self.fixed.mean
        return mean - self.basis @ (self.basis.T @ mean)

    def scatter(self, residual: Matrix, variance: Matrix) -> np.ndarray:
        """The best covariance: (p, p), or the variances (p,) where it is diagonal."""
        n, p = residual.shape
        if self.covariance == "full":
            scatter = residual.T @ residual / n
            scatter[np.diag_indices(p)] += variance.sum(0) / n
            return scatter
        variances = (np.einsum("ij,ij->j", residual, residual) + variance.sum(0)) / n
        return variances if self.covariance == "diagonal" else np.full(p, variances.mean())

    def precision(self, residual: Matrix, variance: Matrix) -> tuple[np.ndarray, float]:
        """The precision, (p, p) or (p,), and its log determinant."""
        if self.fixed is not None:
            return self.fixed.precision, self.fixed.log_determinant
        scatter = self.scatter(residual, variance)
        if scatter.ndim == 2:
            inverse, log_determinant = inverse_and_log_determinant(scatter)
            return inverse, -log_determinant
        return 1 / scatter, -float(np.log(scatter).sum())

    def pulled(self, residual: Matrix, variance: Matrix) -> Pulled:
        """Residuals times the precision, its diagonal and log determinant."""
        if self.fixed is None and self.covariance == "full":
            return pull_by_scatter(residual, variance.sum(0) / len(residual))
        return pull(residual, *self.precision(residual, variance))

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """The bound in nats and its gradient."""
        mean, log_variance, inflation = self.unpack(x)
        if not log_variance.max() < 500:
            return -np.inf, np.zeros_like(x)
        n, p = mean.shape
        variance, residual = np.exp(log_variance), self.residual(mean)
        terms = count_terms(self.counts, mean, variance, self.logits(inflation))
        pulled, diagonal, log_determinant = self.pulled(residual, variance)
        value = terms.value + 0.5 * float(log_variance.sum()) + 0.5 * n * log_determinant
        if self.fixed is not None:
            value += 0.5 * (n * p - float(np.vdot(residual, pulled)) - float(variance.sum(0) @ diagonal))
        by_variance = 0.5 - 0.5 * variance * (terms.rates + diagonal)
        parts = [self.counts.Y - terms.rates - pulled, by_variance]
        if self.inflation is not None and terms.logit_gradient is not None:
            parts.append(self.inflation.pull_back(terms.logit_gradient))
        return value, np.concatenate([part.ravel() for part in parts])

    def preconditioner(self, x: Vector) -> Apply:
        """Inverse of the diagonal of minus the Hessian, and the Newton step of the regression at fixed residuals."""
        mean, log_variance, inflation = self.unpack(x)
        n, p = mean.shape
        variance, terms = np.exp(log_variance), self.terms(x)
        diagonal = self.pulled(self.residual(mean), variance).diagonal
        by_mean = terms.rates + diagonal
        by_variance = 0.5 * variance * (terms.rates * (1 + variance / 2) + diagonal)
        inverse = [1 / by_mean.ravel(), 1 / by_variance.ravel()]
        if self.inflation is not None and inflation is not None:
            probability = 1 / (1 + np.exp(-np.clip(self.inflation.logits(inflation), -30, 30)))
            curvature = np.broadcast_to(probability * (1 - probability), (n, p))
            inverse.append(1 / (self.inflation.information(curvature).ravel() + FLOOR))
        scale = np.concatenate(inverse)
        regression = self.fixed is None or self.fixed.mean is None
        if regression:
            self._coarse.update(terms.rates)

        def apply(gradient: Vector) -> Vector:
            step = gradient * scale
            if regression:
                shift = self._coarse.apply(self.basis.T @ gradient[: n * p].reshape(n, p))
                step[: n * p] += (self.basis @ shift).ravel()
            return step

        return apply
