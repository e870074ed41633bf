"""Parameters of a fitted model: what new rows need."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit


@dataclass(frozen=True)
class Parameters:
    """Parameters of a Poisson log-normal model, in the scale of the user's covariates.

    Attributes
    ----------
    intercept, coef
        (p,) and (p, d): log rates without offsets are ``intercept + X @ coef.T``.
    covariance
        (p, p), or the variances (p,) where it is diagonal.
    precision
        (p, p) or (p,), its inverse; the estimate itself where it is sparse; the pseudo-inverse at low rank.
    loadings
        (p, q) C with covariance C C'; None where the rank is full.
    inflation_intercept, inflation_coef
        (1,) or (p,), and (p, d): logits of an inflated zero; None without.
    """

    intercept: Float[np.ndarray, " p"]
    coef: Float[np.ndarray, "p d"]
    covariance: np.ndarray
    precision: np.ndarray
    loadings: Float[np.ndarray, "p q"] | None = None
    inflation_intercept: np.ndarray | None = None
    inflation_coef: Float[np.ndarray, "p d"] | None = None

    @property
    def n_units(self) -> int:
        """p."""
        return len(self.intercept)

    @property
    def variances(self) -> Float[np.ndarray, " p"]:
        """(p,) variances of the log rates."""
        return np.diagonal(self.covariance) if self.covariance.ndim == 2 else self.covariance

    @property
    def log_determinant(self) -> float:
        """Of the precision; at full rank."""
        if self.precision.ndim == 1:
            return float(np.log(self.precision).sum())
        return float(np.linalg.slogdet(self.precision)[1])

    def size(self, covariance: str, *, intercept: bool) -> int:
        """Number of free parameters; of a precision, the entries on and above its diagonal that are not zero."""
        p = self.n_units
        if self.loadings is not None:
            q = self.loadings.shape[1]
            of_covariance = p * q - q * (q - 1) // 2
        elif covariance == "full":
            of_covariance = (int(np.count_nonzero(self.precision)) + p) // 2
        else:
            of_covariance = p if covariance == "diagonal" else 1
        inflation = [x.size for x in (self.inflation_intercept, self.inflation_coef) if x is not None]
        return self.coef.size + intercept * p + of_covariance + sum(inflation)

    def mean(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n p"]:
        """Expected log rates without offsets."""
        return self.intercept + X @ self.coef.T

    def logits(self, X: Float[np.ndarray, "n d"]) -> np.ndarray | None:
        """Logits of an inflated zero, (n, p) or (1,) or (p,) in a row; None without inflation."""
        if self.inflation_intercept is None:
            return None
        if self.inflation_coef is None:
            return self.inflation_intercept[None]
        return self.inflation_intercept + X @ self.inflation_coef.T

    def expected_counts(self, X: Float[np.ndarray, "n d"], offsets: np.ndarray) -> Float[np.ndarray, "n p"]:
        """Expected counts of new rows: ``exp(o + mean + variance / 2)`` times the probability of no inflated zero."""
        rates = np.exp(offsets + self.mean(X) + self.variances / 2)
        logits = self.logits(X)
        return rates if logits is None else rates * expit(-logits)

    def draw(
        self, X: Float[np.ndarray, "n d"], offsets: np.ndarray, rng: np.random.Generator
    ) -> Int[np.ndarray, "n p"]:
        """Counts of new rows."""
        mean = self.mean(X)
        if self.loadings is not None:
            mean = mean + rng.standard_normal((len(X), self.loadings.shape[1])) @ self.loadings.T
        elif self.covariance.ndim == 1:
            mean = mean + rng.standard_normal(mean.shape) * np.sqrt(self.covariance)
        else:
            mean = mean + rng.standard_normal(mean.shape) @ np.linalg.cholesky(self.covariance).T
        counts = rng.poisson(np.exp(offsets + mean))
        logits = self.logits(X)
        return counts if logits is None else counts * (rng.random(counts.shape) >= expit(logits))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those that are None left out."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}
