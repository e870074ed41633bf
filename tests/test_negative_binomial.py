"""Both negative binomial laws against SciPy, PyTorch and enumeration."""

import math

import numpy as np
import pytest
import torch
from helpers import SCORE, T, enumerated, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch.distributions import kl_divergence

from spikevae.distributions import (
    NegativeBinomial,
    NegativeBinomialFree,
    Poisson,
    negative_binomial,
)
from spikevae.distributions._random import log_standard_gamma

N = np.arange(20_000.0)


def log_nbinom(n, mean, r):
    """Exact up to rounding: log of the product (r + j) / (j + 1), j < n, instead of Gamma functions."""
    ratio = np.concatenate([[0.0], np.cumsum(np.log1p((r - 1) / np.arange(1, len(n))))])
    return ratio - r * np.log1p(mean / r) - n * np.log1p(r / mean)


MEANS = (1e-3, 0.1, 1.0, 5.0, 50.0)

DISPERSIONS = (1e-3, 0.02, 0.5, 1.0, 10.0, 1e3, 1e5, 1e7, 1e8)


@pytest.mark.parametrize("r", DISPERSIONS)
@pytest.mark.parametrize("mean", MEANS)
def test_negative_binomial_log_probability_in_float32(mean, r):
    """To 1e-5 of 1 + |log P| for counts up to 300; at dispersion 1e7 usual implementations are off by 1 and more."""
    q = NegativeBinomial(T(math.log(mean), torch.float32), T(math.log(r), torch.float32))
    rounded = (float(v.double().exp()) for v in (q.log_rate, q.log_dispersion))
    expected = log_nbinom(N[:300], *rounded)
    ours = q.log_prob(T(N[:300], torch.float32)).double().numpy()
    assert (abs(ours - expected) <= 1e-5 * (1 + abs(expected))).all()


def test_negative_binomial_log_probability_is_torchs_where_that_is_right():
    r, p, n = T(2.3), T(0.35), T(N[:50])
    theirs = torch.distributions.NegativeBinomial(r, probs=1 - p).log_prob(n)  # counts successes of 1 - p
    np.testing.assert_allclose(NegativeBinomial.from_r_p(r, p).log_prob(n), theirs, rtol=1e-10)


def test_negative_binomial_tends_to_poisson_at_rate_one_over_dispersion():
    n, mean = T(N[:20]), 5.0
    poisson = Poisson(T(math.log(mean))).log_prob(n)
    gaps = []
    for r in (1e3, 1e4, 1e5):
        gaps.append((NegativeBinomial(T(math.log(mean)), T(math.log(r))).log_prob(n) - poisson) * r)
    limit = ((n - mean) ** 2 - n) / 2  # of the difference in log-probability times r: the mean's excess variance
    for gap, tolerance in zip(gaps, (2.0, 0.2, 0.02)):
        np.testing.assert_allclose(gap, limit, atol=tolerance)


def test_negative_binomial_has_two_parametrisations():
    r, p = T([0.4, 3.0]), T([0.2, 0.9])
    q = NegativeBinomial.from_r_p(r, p)
    torch.testing.assert_close(q.mean, r * (1 - p) / p)
    torch.testing.assert_close(q.variance, r * (1 - p) / p**2)
    torch.testing.assert_close(q.r, r)
    torch.testing.assert_close(q.p, p)
    torch.testing.assert_close(q.variance / q.mean, 1 / p)


def test_shared_dispersion_divergence_of_the_paper():
    """r [log(q / p) + (1 - q) / q log((1 - q) / (1 - p))] = 0.300318 at r = 2.3, q = .35, p = .5."""
    q, p = (NegativeBinomial.from_r_p(T(2.3), T(v)) for v in (0.35, 0.5))
    assert kl_divergence(q, p).item() == pytest.approx(0.300318, abs=5e-7)


@pytest.mark.parametrize("mean", [0.05, 1.0, 8.0])
@pytest.mark.parametrize("r", [0.05, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("r0", [0.05, 1.0, 30.0, 1e4])
def test_negative_binomial_divergence_by_enumeration(mean, r, r0):
    """1e-9 at one dispersion, where it is a closed form; 1e-6 of it and of 1 at others, as the quadrature states."""
    for prior_mean in (0.3, 1.7 * mean):
        expected = enumerated(log_nbinom(N, mean, r), log_nbinom(N, prior_mean, r0))
        tolerance = {"rel": 1e-8} if r == r0 else {"rel": 2e-6, "abs": 1e-6}
        for law in (NegativeBinomial, NegativeBinomialFree):
            q, p = law(T(math.log(mean)), T(math.log(r))), law(T(math.log(prior_mean)), T(math.log(r0)))
            assert kl_divergence(q, p).item() == pytest.approx(expected, **tolerance)


def test_encoded_negative_binomials_share_their_dispersion():
    """The closed form, which needs no quadrature, is what the general divergence gives."""
    prior = NegativeBinomial(T([0.3, -1.0]), T([0.5, 2.0]))
    q = NegativeBinomial.from_encoder(T([[0.7, -0.4]]), prior)
    torch.testing.assert_close(q.log_dispersion, prior.log_dispersion.expand(1, 2))
    alone = NegativeBinomial(q.log_rate, q.log_dispersion)
    torch.testing.assert_close(kl_divergence(q, prior), kl_divergence(alone, prior))
    assert q.shares_dispersion and q.expand((5, 1, 2)).shares_dispersion and not alone.shares_dispersion


def test_a_prior_built_again_gives_the_closed_form_too(monkeypatch):
    """An evaluation builds its prior a second time: the flag of the posterior counts, not the identity of tensors."""
    monkeypatch.setattr(negative_binomial, "unequal_dispersion_kl", lambda *_: pytest.fail("quadrature was used"))
    first, again = (NegativeBinomial(T([0.3, -1.0]), T([0.5, 2.0])) for _ in range(2))
    q = NegativeBinomial.from_encoder(T([[0.7, -0.4]]), first)
    assert torch.equal(kl_divergence(q, first), kl_divergence(q, again))


def test_large_dispersions_give_the_poisson_divergence():
    q, p = (NegativeBinomial(T(v, torch.float32), T(math.log(1e8), torch.float32)) for v in (0.9, -0.3))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(Poisson(q.log_rate), Poisson(p.log_rate)))


@settings(max_examples=60, deadline=None)
@given(*(st.floats(-6, 3) for _ in range(2)), *(st.floats(-6, 16) for _ in range(2)))
def test_negative_binomial_divergence_is_no_less_than_zero(log_m, log_m0, log_r, log_r0):
    q, p = (NegativeBinomialFree(T(m), T(r)) for m, r in ((log_m, log_r), (log_m0, log_r0)))
    assert kl_divergence(q, p).item() >= -2e-6 * (1 + math.exp(log_m))


@pytest.mark.parametrize("mean, r", [(0.5, 0.4), (3.0, 2.0), (2.0, 10.0)])
def test_fano_factor_is_recovered_from_counts(mean, r):
    """Maximum likelihood on 20,000 SciPy counts; error of log dispersion and mean from the observed information."""
    z = T(stats.nbinom(r, r / (r + mean)).rvs(20_000, random_state=1).astype(float))
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    loss = lambda v: -NegativeBinomial(v[0], v[1]).log_prob(z).sum()
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def closure():
        optimizer.zero_grad()
        value = loss(parameters)
        value.backward()
        return value

    optimizer.step(closure)
    found = parameters.detach()
    covariance = torch.linalg.inv(torch.autograd.functional.hessian(loss, found))
    ratio = torch.exp(found[0] - found[1])
    along = torch.stack([ratio, -ratio])  # Fano factor 1 + mean / r
    error = torch.sqrt(along @ covariance @ along).item()
    assert error < 0.05 * (1 + mean / r)
    assert abs(1 + ratio.item() - (1 + mean / r)) < 4 * error
    assert 1 + ratio.item() - 4 * error > 1


@pytest.mark.parametrize("r", [1e-3, 0.3, 1.0, 20.0, 1e6])
def test_log_gamma_numbers(r):
    """SciPy's law of log Gamma; the mean of the slope is d E log g / d log r = r psi'(r)."""
    n = 20_000
    value, slope = (v.numpy() for v in log_standard_gamma(T(np.full(n, math.log(r))), seeded(0)))
    assert stats.kstest(value, stats.loggamma(r).cdf).pvalue > 1e-3
    expected = r * special.polygamma(1, r)
    assert abs(slope.mean() - expected) < SCORE * slope.std() / math.sqrt(n)
