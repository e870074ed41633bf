"""A sparse precision: posteriors by Newton steps, precisions by the graphical lasso, in turn."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.covariance import graphical_lasso

from ._bound import Counts, Inflation
from ._fits import Climbed, Report
from ._gaussian import Fixed, GaussianBound
from ._gaussian_fit import Fitted, climb_gaussian, inflation_parameters, posterior_of
from ._newton import Maximum, maximise
from ._parameters import Parameters
from ._tables import Design

MAX_ROUNDS = 200
"""Most turns of posterior and precision."""
TURN = 10.0
"""Tolerance of the turns over that of a Newton step: they converge linearly."""
ATTEMPTS = (("cd", 50, 1.0), ("cd", 200, 1.0), ("cd", 500, 0.01), ("lars", 100, 1.0), ("lars", 200, 0.01))
"""Solver, most iterations and part of the gap of the graphical lasso, until its result is positive definite."""
GAPS = (1e-2, 1e-3)
"""Duality gaps of the graphical lasso: each is used until a turn gains less than it leaves open."""


@dataclass(frozen=True)
class _Sparse:
    """A precision, its log determinant, and the weighted sum of its entries off the diagonal."""

    precision: np.ndarray
    log_determinant: float
    size: float


def _lasso(scatter: np.ndarray, scale: np.ndarray, penalty: float, gap: float) -> _Sparse:
    """The precision of greatest ``log det Omega - tr(S Omega) - penalty sum_(j != k) d_j d_k |Omega_jk|``, d the scale.

    Raises
    ------
    ValueError
        Where the solver of scikit-learn fails.
    """
    weights = np.outer(scale, scale)
    precision, reason = np.zeros(0), "no positive definite result"
    for mode, iterations, finer in ATTEMPTS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the turns go on from where it ends
                settings = {
                    "tol": gap * finer,
                    "max_iter": iterations,
                    "enet_tol": min(gap * finer, 1e-4),
                    "mode": mode,
                }
                _, precision = graphical_lasso(scatter / weights, penalty, **settings)
            precision = (precision + precision.T) / 2
            np.linalg.cholesky(precision)
        except (FloatingPointError, ValueError, np.linalg.LinAlgError) as error:
            reason = " ".join(str(error).split())
            continue
        size = float(np.abs(precision).sum() - np.abs(np.diagonal(precision)).sum())
        precision = precision / weights
        return _Sparse(precision, float(np.linalg.slogdet(precision)[1]), size)
    raise ValueError(f"the graphical lasso fails at penalty {penalty:g} ({reason:.80}); raise the penalty")


def fit_sparse(
    counts: Counts,
    design: Design,
    penalty: float,
    inflation: Inflation | None,
    *,
    n_starts: int,
    tolerance: float,
    max_iter: int,
    rng: np.random.Generator,
    report: Report | None = None,
) -> Fitted:
    """Maximise the bound less ``n / 2 penalty sum_(j != k) d_j d_k |precision_jk|``.

    The search starts from the fit without a penalty; d are its standard deviations, so that the penalty does not depend
    on the scale of a unit and compares with a correlation.
    """
    n = len(counts.Y)
    free, climbed = climb_gaussian(
        counts, design, "full", inflation, n_starts=n_starts, tolerance=max(tolerance, 1.0), max_iter=max_iter, rng=rng,
        report=report,
    )  # fmt: skip
    x, iterations, before, converged = climbed.maximum.x, climbed.iterations, -np.inf, False
    gaps, scale = list(GAPS), np.ones(counts.shape[1])
    for _ in range(MAX_ROUNDS):
        mean, log_variance, _zeros = free.unpack(x)
        scatter = free.scatter(free.residual(mean), np.exp(log_variance))
        scale = scale if np.isfinite(before) else np.sqrt(np.diagonal(scatter))
        sparse = _lasso(scatter, scale, penalty, gaps[0])
        fixed = Fixed(sparse.precision, sparse.log_determinant)
        bound = GaussianBound(counts, design.basis, "full", inflation, fixed)
        found = maximise(bound, x, tolerance=tolerance / 10, max_iter=max_iter)
        x, iterations = found.x, iterations + found.iterations
        value = found.value - 0.5 * n * penalty * sparse.size
        if report is not None:
            report(iterations, value)
        if value - before < max(TURN * tolerance, 0.1 * n * gaps[0]):
            if len(gaps) == 1:
                converged = found.converged
                break
            gaps.pop(0)
        before = value
    mean, log_variance, zeros = bound.unpack(x)
    residual, logits = bound.residual(mean), bound.logits(zeros)
    maximum = Maximum(x, found.value, found.gradient_norm, iterations, converged)
    climbed = Climbed(maximum, climbed.bounds, iterations)
    intercept, coef = design.in_user_scale(design.basis.T @ mean)
    zero_intercept, zero_coef = inflation_parameters(inflation, zeros, design)
    parameters = Parameters(
        intercept,
        coef,
        np.linalg.inv(sparse.precision),
        sparse.precision,
        inflation_intercept=zero_intercept,
        inflation_coef=zero_coef,
    )
    posterior = posterior_of(
        counts, mean, np.exp(log_variance), residual, sparse.precision, sparse.log_determinant, logits, converged
    )
    return Fitted(parameters, posterior, climbed, zeros)
