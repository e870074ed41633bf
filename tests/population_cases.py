"""Counts from known Poisson log-normal models, and the bound written out entry by entry."""

import numpy as np
from scipy.special import gammaln


def drawn(
    n: int = 200, p: int = 4, *, level: float = 1.0, inflated: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Counts (n, p), covariates (n, 1), offsets (n, p) and the parameters that they were drawn from."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(p, p)) * 0.4
    truth = {
        "covariance": root @ root.T + 0.3 * np.eye(p),
        "coef": rng.normal(size=(p, 1)) * 0.5,
        "intercept": level + 0.3 * rng.normal(size=p),
    }
    X, offsets = rng.normal(size=(n, 1)), 0.3 * rng.normal(size=(n, p))
    noise = rng.multivariate_normal(np.zeros(p), truth["covariance"], size=n)
    counts = rng.poisson(np.exp(truth["intercept"] + X @ truth["coef"].T + offsets + noise))
    return counts * (rng.random((n, p)) >= inflated), X, offsets, truth


def bound_in_full(Y, offsets, mean, variance, fitted, covariance, *, prior=None, inflated=None, weights=None) -> float:
    """The bound of any posterior and parameters, entry by entry, from the definitions of its expectations."""
    n, p = Y.shape
    precision, total = np.linalg.inv(covariance), 0.0
    log_determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
    for i in range(n):
        residual = mean[i] - fitted[i]
        second = np.outer(residual, residual) + np.diag(variance[i])
        total += -0.5 * log_determinant - 0.5 * np.trace(precision @ second)  # E log p(Z)
        for j in range(p):
            total += 0.5 * np.log(2 * np.pi * np.e * variance[i, j])  # entropy
            if weights is not None and not weights[i, j]:
                continue
            rate = np.exp(offsets[i, j] + mean[i, j] + variance[i, j] / 2)
            poisson = Y[i, j] * (offsets[i, j] + mean[i, j]) - rate - gammaln(Y[i, j] + 1)
            if prior is None:
                total += poisson
                continue
            q, pi = inflated[i, j], prior[i, j]
            total += (1 - q) * poisson
            for probability, reference in ((q, pi), (1 - q, 1 - pi)):
                total += probability * np.log(reference / probability) if probability > 0 else 0.0
    return total
