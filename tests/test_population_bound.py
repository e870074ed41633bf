"""The bound of the Poisson log-normal model, its gradient, and its maximum, against what does not use its code."""

import numpy as np
import pytest
from population_cases import bound_in_full, drawn
from scipy.integrate import quad
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit, gammaln
from scipy.stats import norm, poisson

from spikevae.population import PoissonLogNormal
from spikevae.population._bound import Counts, Inflation, count_terms
from spikevae.population._gaussian import GaussianBound
from spikevae.population._newton import maximise

KINDS = ("full", "diagonal", "spherical")


def basis_of(X, n):
    return np.linalg.qr(np.column_stack([np.ones(n), X]))[0]


def bound_of(n=5, p=3, kind="full", inflation=None, masked=False):
    Y, X, offsets, _ = drawn(n, p, inflated=0.3 if inflation else 0.0)
    weights = None
    if masked:
        weights = np.ones((n, p))
        weights[1, 2] = weights[3, 0] = 0.0
        Y, offsets = Y * weights, offsets * weights
    basis = basis_of(X, n)
    zeros = Inflation(inflation, basis * np.sqrt(n), p) if inflation else None
    return GaussianBound(Counts(Y.astype(float), offsets, weights), basis, kind, zeros)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("inflation", [None, "global", "per_unit", "covariates"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_finite_differences(kind, inflation, masked):
    bound = bound_of(kind=kind, inflation=inflation, masked=masked)
    x = 0.5 * np.random.default_rng(1).normal(size=bound.size)
    numerical = approx_fprime(x, lambda x: bound.value_and_gradient(x)[0], 1e-6)
    np.testing.assert_allclose(bound.value_and_gradient(x)[1], numerical, atol=2e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("inflation", [None, "global", "covariates"])
@pytest.mark.parametrize("kind", KINDS)
def test_value_is_that_of_its_definition(kind, inflation, masked):
    bound = bound_of(kind=kind, inflation=inflation, masked=masked)
    x = 0.5 * np.random.default_rng(2).normal(size=bound.size)
    mean, log_variance, parameters = bound.unpack(x)
    variance, counts = np.exp(log_variance), bound.counts
    fitted = bound.basis @ np.linalg.lstsq(bound.basis, mean, rcond=None)[0]
    covariance = bound.scatter(mean - fitted, variance)
    covariance = covariance if covariance.ndim == 2 else np.diag(covariance)
    prior = inflated = None
    if inflation:
        logits = np.broadcast_to(bound.logits(parameters), counts.shape)
        rates = np.exp(counts.offsets + mean + variance / 2)
        prior, inflated = expit(logits), np.where(counts.Y == 0, expit(logits + rates), 0.0)
    expected = bound_in_full(
        counts.Y, counts.offsets, mean, variance, fitted, covariance, prior=prior, inflated=inflated,
        weights=counts.weights,
    )  # fmt: skip
    assert bound.value_and_gradient(x)[0] == pytest.approx(expected, rel=1e-10)


def test_inflated_probability_is_the_best():
    """Of all P of an entry with count zero, the closed form has the greatest value of the bound as defined."""
    mean, variance, logit = np.array([[0.4]]), np.array([[0.3]]), np.array([[-0.5]])
    zero = np.zeros((1, 1))

    def value(q):
        unit = np.ones((1, 1))
        return bound_in_full(zero, zero, mean, variance, mean, variance, prior=expit(logit), inflated=q * unit)

    found = minimize(lambda t: -value(expit(t[0])), [0.0], tol=1e-12)
    closed = count_terms(Counts(zero, zero), mean, variance, logit).value
    assert closed == pytest.approx(-found.fun, abs=1e-9)  # the rest of the bound is zero here


@pytest.mark.parametrize(("y", "level", "variance"), [(0, 0.5, 1.0), (3, 0.5, 1.0), (40, 2.0, 0.5), (0, -3.0, 2.0)])
def test_marginal_bounds_the_objective_from_above(y, level, variance):
    """One unit: quadrature of the Poisson log-normal probability; the bound is below it, by less than 0.05 nats."""
    model = PoissonLogNormal("diagonal").fit(drawn(100, 1)[0])
    parameters = model._parameters
    replaced = type(parameters)(np.array([level]), np.zeros((1, 0)), np.array([variance]), np.array([1 / variance]))
    model._parameters = replaced
    density = lambda z: poisson.pmf(y, np.exp(z)) * norm.pdf(z, level, np.sqrt(variance))
    marginal = np.log(quad(density, level - 12, level + 12, limit=500, points=[np.log(y + 0.5)])[0])
    bound = model.score(np.array([[y]]))
    assert marginal - 0.05 < bound < marginal


def test_gradient_over_all_parameters_is_zero_at_the_answer():
    """Finite differences of the bound as defined, over means, variances, coefficients and covariance alike."""
    Y, X, offsets, _ = drawn(40, 3)
    model = PoissonLogNormal(tol=1e-10).fit(Y, X, offsets)
    n, p = Y.shape
    lower = np.tril_indices(p)
    design = np.column_stack([np.ones(n), X])

    def value(x):
        mean, log_variance, B = np.split(x, [n * p, 2 * n * p])[0], x[n * p : 2 * n * p], x[2 * n * p :]
        root = np.zeros((p, p))
        root[lower] = B[2 * p :]
        fitted = design @ B[: 2 * p].reshape(2, p)
        variance = np.exp(log_variance).reshape(n, p)
        return bound_in_full(Y, offsets, mean.reshape(n, p), variance, fitted, root @ root.T)

    coefficients = np.vstack([model.intercept_, model.coef_.T])
    root = np.linalg.cholesky(model.covariance_)[lower]
    x = np.concatenate([model.latent_.ravel(), np.log(model.latent_variance_).ravel(), coefficients.ravel(), root])
    assert value(x) == pytest.approx(model.bound_, rel=1e-10)
    gradient = np.array([(value(x + h) - value(x - h)) / 2e-5 for h in 1e-5 * np.eye(len(x))])
    assert np.abs(gradient).max() < 2e-3
    assert np.abs(np.array([value(x + 0.1 * h) - value(x) for h in np.eye(len(x))])).min() > 1e-6  # each one matters


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_brute_force_optimiser(kind):
    """3 x 3 counts, no covariate: the definition over everything by quasi-Newton from many starts."""
    Y = np.array([[3.0, 0, 7], [1, 2, 20], [6, 1, 9]])
    model = PoissonLogNormal(kind, tol=1e-9).fit(Y)

    def loss(x):
        mean, log_variance = x[:9].reshape(3, 3), x[9:18].reshape(3, 3)
        residual = mean - x[18:21]
        covariance = residual.T @ residual / 3 + np.diag(np.exp(log_variance).mean(0))
        if kind != "full":
            covariance = np.diag(np.diag(covariance))
        if kind == "spherical":
            covariance = np.eye(3) * np.trace(covariance) / 3
        return -bound_in_full(Y, 0 * Y, mean, np.exp(log_variance), np.tile(x[18:21], (3, 1)), covariance)

    rng = np.random.default_rng(0)
    starts = [rng.normal(size=21) for _ in range(3)]
    best = min(minimize(loss, x, method="BFGS", options={"gtol": 1e-6, "maxiter": 2000}).fun for x in starts)
    assert model.bound_ == pytest.approx(-best, abs=1e-3)


def test_large_counts_give_the_gaussian_of_their_logarithms():
    """Counting noise vanishes: the covariance is that of log Y, and coefficients are those of least squares."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 2))
    z = 12 + X @ [[0.5, -0.2], [0.1, 0.4]] + rng.multivariate_normal([0, 0], [[0.5, 0.3], [0.3, 0.6]], 300)
    Y = rng.poisson(np.exp(z))
    model = PoissonLogNormal().fit(Y, X)
    design = np.column_stack([np.ones(300), X])
    least, *_ = np.linalg.lstsq(design, np.log(Y), rcond=None)
    np.testing.assert_allclose(np.vstack([model.intercept_, model.coef_.T]), least, atol=1e-3)
    residual = np.log(Y) - design @ least
    np.testing.assert_allclose(model.covariance_, residual.T @ residual / 300, atol=2e-3)


def test_the_fixed_point_of_the_variances():
    """At the answer, S^2 = 1 / (A + precision_jj)."""
    Y, X, offsets, _ = drawn()
    model = PoissonLogNormal(tol=1e-9).fit(Y, X, offsets)
    rates = np.exp(offsets + model.latent_ + model.latent_variance_ / 2)
    expected = 1 / (rates + np.diag(model.precision_))
    np.testing.assert_allclose(model.latent_variance_, expected, rtol=1e-4)


def test_log_factorials_are_exact():
    Y = np.array([[0, 1, 2, 170, 5000]])
    counts = Counts(Y.astype(float), np.zeros(Y.shape))
    expected = poisson.logpmf(Y, 1.0).sum()
    assert count_terms(counts, np.zeros(Y.shape), np.zeros(Y.shape)).value == pytest.approx(expected, rel=1e-12)
    assert gammaln(1.0) == 0  # of zero counts


class Quadratic:
    """-1/2 x'Hx + b'x, ill-conditioned."""

    def __init__(self):
        self.H, self.b = np.diag(10.0 ** np.arange(-3, 4)), np.arange(1.0, 8)

    def value_and_gradient(self, x):
        return float(self.b @ x - 0.5 * x @ self.H @ x), self.b - self.H @ x

    def preconditioner(self, x):
        return lambda g: g


def test_newton_finds_the_maximum_of_a_quadratic():
    found = maximise(Quadratic(), np.zeros(7), tolerance=1e-10, max_iter=300)
    np.testing.assert_allclose(found.x, Quadratic().b / np.diag(Quadratic().H), rtol=1e-3)
    assert found.converged
    assert not maximise(Quadratic(), np.zeros(7), tolerance=1e-10, max_iter=1).converged
