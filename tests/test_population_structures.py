"""Low rank, sparse precisions and inflated zeros: gradients, values, recovery of parameters, against other code."""

import numpy as np
import pytest
from population_cases import drawn
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.special import expit, gammaln
from scipy.stats import norm, poisson

from spikevae.population import PoissonLogNormal
from spikevae.population._bound import Counts, Inflation
from spikevae.population._low_rank import LowRankBound
from spikevae.population._zero_inflation import ConditionalBound, log_zero_probability

INFLATIONS = ("global", "per_unit", "covariates")


def parts_of(n=5, p=3, inflation="global"):
    Y, X, offsets, _ = drawn(n, p, inflated=0.3)
    weights = np.ones((n, p))
    weights[1, 2] = weights[3, 0] = 0.0
    basis = np.linalg.qr(np.column_stack([np.ones(n), X]))[0]
    zeros = Inflation(inflation, basis * np.sqrt(n), p) if inflation else None
    return Counts(Y * weights, offsets * weights, weights), basis, zeros


def check_gradient(bound):
    x = 0.5 * np.random.default_rng(1).normal(size=bound.ends[-1])
    numerical = approx_fprime(x, lambda x: bound.value_and_gradient(x)[0], 1e-6)
    np.testing.assert_allclose(bound.value_and_gradient(x)[1], numerical, atol=2e-4)
    return x


@pytest.mark.parametrize("inflation", [None, *INFLATIONS])
def test_low_rank_bound_and_gradient(inflation):
    counts, basis, zeros = parts_of(inflation=inflation)
    bound = LowRankBound(counts, basis, 2, zeros)
    x = check_gradient(bound)
    if inflation:
        return
    scores, log_variance, B, C = bound.split(x)
    total = 0.0
    for i, j in np.argwhere(counts.weights > 0):
        mean = counts.offsets[i, j] + basis[i] @ B[:, j] + scores[i] @ C[j]
        rate = np.exp(mean + 0.5 * np.exp(log_variance[i]) @ C[j] ** 2)
        total += counts.Y[i, j] * mean - rate - gammaln(counts.Y[i, j] + 1)
    for m, v in zip(scores.ravel(), np.exp(log_variance).ravel()):  # the divergence from the standard normal
        density = lambda z, m=m, v=v: norm.pdf(z, m, np.sqrt(v)) * (norm.logpdf(z, m, np.sqrt(v)) - norm.logpdf(z))
        total -= quad(density, m - 10 * np.sqrt(v), m + 10 * np.sqrt(v))[0]
    assert bound.value_and_gradient(x)[0] == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("inflation", INFLATIONS)
@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical"])
def test_conditional_gradient(kind, inflation):
    counts, basis, zeros = parts_of(inflation=inflation)
    check_gradient(ConditionalBound(counts, basis, kind, zeros))


def test_conditional_bound_is_that_of_its_definition():
    """Expectations of the mixture posterior by draws: within four standard errors."""
    counts, basis, zeros = parts_of(inflation="per_unit")
    bound = ConditionalBound(counts, basis, "full", zeros)
    x = 0.5 * np.random.default_rng(4).normal(size=bound.ends[-1])
    r, log_v, own, B, log_t, prior = bound.split(x)
    P, V, T, mean = bound.probabilities(own), np.exp(log_v), np.exp(log_t), basis @ B
    covariance, rng, S = bound.scatter(x), np.random.default_rng(5), 400_000
    precision, log_determinant = np.linalg.inv(covariance), np.linalg.slogdet(2 * np.pi * covariance)[1]
    total, variance = 0.0, 0.0
    pi = np.broadcast_to(expit(prior), P.shape)
    for i in range(len(P)):
        w = rng.random((S, P.shape[1])) < P[i]
        centre, spread = np.where(w, 0, r[i]), np.where(w, T, V[i])
        z = centre + np.sqrt(spread) * rng.standard_normal(w.shape)  # less the regression
        value = (
            -0.5 * log_determinant - 0.5 * ((z @ precision) * z).sum(1) - norm.logpdf(z, centre, np.sqrt(spread)).sum(1)
        )
        for j in np.flatnonzero(counts.weights[i]):
            rate = np.exp(counts.offsets[i, j] + mean[i, j] + z[:, j])
            y = counts.Y[i, j]
            alive = y * np.log(rate) - rate - gammaln(y + 1) + np.log(1 - pi[i, j])
            if y == 0:
                alive = np.where(w[:, j], np.log(pi[i, j] / P[i, j]), alive - np.log(1 - P[i, j]))
            value = value + alive
        total, variance = total + value.mean(), variance + value.var() / S
    assert abs(bound.value_and_gradient(x)[0] - total) < 4 * np.sqrt(variance)
    assert np.sqrt(variance) < 0.05


@pytest.mark.parametrize(("mean", "variance"), [(-3, 0.5), (0, 0.2), (0, 1.0), (1, 2.0), (-1, 4.0)])
def test_laplace_zero_probability_is_near_quadrature(mean, variance):
    sd = np.sqrt(variance)
    density = lambda z: poisson.pmf(0, np.exp(z)) * norm.pdf(z, mean, sd)
    exact = np.log(quad(density, mean - 12 * sd, mean + 12 * sd, limit=300)[0])
    assert log_zero_probability(np.array(float(mean)), np.array(variance)) == pytest.approx(exact, abs=0.06)


@pytest.fixture(scope="module")
def low_rank():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(8, 2))
    X = rng.normal(size=(400, 1))
    z = 1 + X @ rng.normal(size=(1, 8)) * 0.5 + rng.normal(size=(400, 2)) @ loadings.T
    return rng.poisson(np.exp(z)), X, loadings


def test_low_rank_recovers_the_covariance(low_rank):
    Y, X, loadings = low_rank
    model = PoissonLogNormal(rank=2).fit(Y, X)
    assert model.converged_ and model.latent_.shape == (400, 2) and model.loadings_.shape == (8, 2)
    truth = loadings @ loadings.T
    np.testing.assert_allclose(model.covariance_, truth, atol=0.2 * np.abs(truth).max())
    np.testing.assert_allclose(model.covariance_ @ model.precision_ @ model.covariance_, model.covariance_, atol=1e-8)
    assert model.n_parameters_ == 8 * 2 + 8 * 2 - 1
    np.testing.assert_allclose(model.transform(Y, X), model.latent_, atol=0.01)
    assert model.score(Y, X) == pytest.approx(model.bound_ / 400, abs=1e-4)


def test_rank_is_found_by_the_criterion(low_rank):
    Y, X, _ = low_rank
    found = {q: PoissonLogNormal(rank=q, n_starts=1).fit(Y, X).bic_ for q in (1, 2, 3)}
    assert min(found, key=found.get) == 2


def test_low_rank_gradient_is_zero_at_the_answer(low_rank):
    Y, X, _ = low_rank
    Y, X = Y[:30, :4], X[:30]
    model = PoissonLogNormal(rank=1, tol=1e-10).fit(Y, X)
    basis = np.column_stack([np.ones(30), X])
    bound = LowRankBound(Counts(Y.astype(float), np.zeros(Y.shape)), basis, 1)
    B = np.vstack([model.intercept_, model.coef_.T])
    x = bound.pack(model.latent_, np.log(model.latent_variance_), B, model.loadings_)
    assert bound.value_and_gradient(x)[0] == pytest.approx(model.bound_, rel=1e-10)
    numerical = approx_fprime(x, lambda x: bound.value_and_gradient(x)[0], 1e-6)
    assert np.abs(numerical).max() < 0.02


@pytest.mark.parametrize(
    ("posterior", "inflated"), [("conditional", 0.5), ("conditional", 0.8), ("conditional", 0.95), ("independent", 0.8)]
)
def test_recovers_inflated_zeros(posterior, inflated):
    """700 rows at a rate of about 20: probabilities of inflated zeros within 0.05, three standard errors of a share.

    Coefficients are within 0.3, and within 0.8 where 35 counts of a unit are left; variances are within 0.5 where there
    are over a hundred.
    """
    Y, X, offsets, truth = drawn(700, 3, level=3.0, inflated=inflated, seed=2)
    model = PoissonLogNormal(zero_inflation="per_unit", zero_inflation_posterior=posterior).fit(Y, X, offsets)
    assert model.converged_
    np.testing.assert_allclose(expit(model.inflation_intercept_), inflated, atol=0.05)
    assert np.abs(model.coef_ - truth["coef"]).max() < (0.3 if inflated < 0.9 else 0.8)
    if inflated < 0.9:
        np.testing.assert_allclose(np.diag(model.covariance_), np.diag(truth["covariance"]), atol=0.5)
    plain = PoissonLogNormal(n_starts=1).fit(Y, X, offsets)
    assert model.bound_ > plain.bound_ + 100 and model.bic_ < plain.bic_
    P = model.prob_zero_inflation_
    assert (P[Y > 0] == 0).all() and P[Y == 0].mean() > 0.7
    assert model.score(Y, X, offsets) > model.bound_ / 700 - 0.02
    assert model.predict(X, offsets).mean() == pytest.approx(Y.mean(), rel=0.2)


def test_conditional_family_is_tighter_where_most_zeros_are_inflated():
    Y, X, offsets, _ = drawn(800, 4, level=2.0, inflated=0.6, seed=3)
    independent, conditional = (
        PoissonLogNormal(zero_inflation="per_unit", zero_inflation_posterior=family).fit(Y, X, offsets)
        for family in ("independent", "conditional")
    )
    assert conditional.bound_ > independent.bound_ + 10


def test_independent_family_can_be_best_without_inflation():
    """Many zeros are inflated, and its bound is best with none. The conditional family finds them."""
    Y, X, offsets, _ = drawn(400, 3, level=2.0, inflated=0.4, seed=2)
    independent, conditional = (
        PoissonLogNormal(zero_inflation="global", zero_inflation_posterior=family).fit(Y, X, offsets)
        for family in ("independent", "conditional")
    )
    assert expit(independent.inflation_intercept_[0]) < 0.01
    assert expit(conditional.inflation_intercept_[0]) == pytest.approx(0.4, abs=0.06)
    assert conditional.bound_ > independent.bound_


def test_inflation_by_covariates_is_a_logistic_regression():
    rng = np.random.default_rng(0)
    Y, X, offsets, _ = drawn(800, 3, level=3.0, seed=4)
    Y = Y * (rng.random(Y.shape) >= expit(-0.5 + 1.5 * X))
    model = PoissonLogNormal(zero_inflation="covariates").fit(Y, X, offsets)
    np.testing.assert_allclose(model.inflation_coef_[:, 0], 1.5, atol=0.4)
    np.testing.assert_allclose(model.inflation_intercept_, -0.5, atol=0.25)
    assert model.n_parameters_ == 3 * 2 + 6 + 6


def test_sparse_precision_of_a_chain():
    """A chain of units: neighbours are kept, and the bound lies between those of diagonal and full."""
    rng = np.random.default_rng(1)
    p = 6
    precision = np.eye(p) * 1.5 + np.diag([-0.6] * (p - 1), 1) + np.diag([-0.6] * (p - 1), -1)
    z = rng.multivariate_normal(np.zeros(p) + 2, np.linalg.inv(precision), size=600)
    Y = rng.poisson(np.exp(z))
    fits = {penalty: PoissonLogNormal(penalty=penalty).fit(Y) for penalty in (0.02, 0.15, 5.0)}
    kept = np.abs(fits[0.15].precision_) > 0
    assert kept[np.arange(p - 1), np.arange(1, p)].all() and kept.sum() < 24
    assert (np.count_nonzero(fits[5.0].precision_)) == p  # a large penalty leaves the diagonal
    diagonal, full = PoissonLogNormal("diagonal").fit(Y).bound_, PoissonLogNormal().fit(Y).bound_
    assert fits[5.0].bound_ == pytest.approx(diagonal, abs=0.2)
    assert diagonal - 0.2 < fits[5.0].bound_ < fits[0.15].bound_ < fits[0.02].bound_ < full
    assert fits[0.15].converged_ and fits[0.15].n_parameters_ == p + (kept.sum() - p) // 2 + p
    np.testing.assert_allclose(fits[0.15].transform(Y), fits[0.15].latent_, atol=0.01)
    np.testing.assert_allclose(fits[0.02].precision_, precision, atol=0.35)


def test_sparse_precision_is_stationary():
    """No change of the precision raises the penalised bound, at the posterior of the fit."""
    Y, X, offsets, _ = drawn(200, 3)
    penalty = 0.2
    model = PoissonLogNormal(penalty=penalty, tol=1e-7).fit(Y, X, offsets)
    R = model.latent_ - model.intercept_ - X @ model.coef_.T
    S = (R.T @ R + np.diag(model.latent_variance_.sum(0))) / len(Y)
    free = PoissonLogNormal().fit(Y, X, offsets)
    d = np.sqrt(np.diag(free.covariance_))
    omega = model.precision_
    np.testing.assert_allclose(np.diag(np.linalg.inv(omega)), np.diag(S), rtol=1e-2)
    excess = (np.linalg.inv(omega) - S) / np.outer(d, d)
    for j, k in zip(*np.triu_indices(3, 1)):
        if omega[j, k]:
            assert excess[j, k] == pytest.approx(penalty * np.sign(omega[j, k]), abs=0.02)
        else:
            assert abs(excess[j, k]) < penalty + 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 2},
        {"penalty": 0.1},
        {"zero_inflation": "global"},
        {"zero_inflation": "covariates", "zero_inflation_posterior": "conditional"},
        {"rank": 1, "zero_inflation": "per_unit"},
    ],
    ids=str,
)
def test_files_hold_every_structure(tmp_path, settings):
    Y, X, offsets, _ = drawn(60, 3, inflated=0.3)
    model = PoissonLogNormal(**settings).fit(Y, X, offsets)
    model.save(tmp_path / "m")
    again = PoissonLogNormal.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(Y, X, offsets), model.transform(Y, X, offsets))
    np.testing.assert_array_equal(again.predict(X, offsets), model.predict(X, offsets))
    assert again.icl_ == pytest.approx(model.icl_, rel=1e-12) and np.isfinite(model.sample(X=X, random_state=0)).all()
