"""Divergences by enumeration and quadrature; priors from moments; where units start."""

import math

import numpy as np
import pytest
import torch
from helpers import T, seeded
from law_cases import COUNTS, Rectified, parameters_of, same
from scipy import integrate, optimize, special, stats
from torch.distributions import kl_divergence

from spikevae.distributions import (
    LAWS,
    Bernoulli,
    Binomial,
    Categorical,
    Gaussian,
    Poisson,
    RectifiedGaussian,
)
from spikevae.distributions._law import softclamp_above, softclamp_symmetric
from spikevae.distributions._negative_binomial import NegativeBinomialBase


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


# Divergences -----------------------------------------------------------------------------------------------


def test_poisson_divergence_of_the_paper():
    prior = Poisson(T(math.log(0.7)))
    posterior = Poisson.from_encoder(T([0.9]), prior)
    assert kl_divergence(posterior, prior).item() == pytest.approx(0.527828, abs=5e-7)


@pytest.mark.parametrize("prior_rate", [1e-3, 0.7, 5.0])
@pytest.mark.parametrize("rate", [1e-4, 0.3, 2.0, 20.0])
def test_poisson_divergence_by_enumeration(rate, prior_rate):
    q, p = stats.poisson(rate), stats.poisson(prior_rate)
    expected = (q.pmf(COUNTS[:150]) * (q.logpmf(COUNTS[:150]) - p.logpmf(COUNTS[:150]))).sum()
    ours = kl_divergence(Poisson(T(math.log(rate))), Poisson(T(math.log(prior_rate))))
    same(ours, expected, 1e-9)


@pytest.mark.parametrize("r0", [1e-6, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("r", [1e-9, 0.1000001, 0.3, 0.999])
def test_bernoulli_divergence_by_enumeration(r, r0):
    expected = r * math.log(r / r0) + (1 - r) * (math.log1p(-r) - math.log1p(-r0))
    if abs(r - 0.1) < 1e-3 and r0 == 0.1:  # the difference above has no digits left
        expected = (r - r0) ** 2 / (2 * r0 * (1 - r0))
    ours = kl_divergence(Bernoulli(T(special.logit(r))), Bernoulli(T(special.logit(r0))))
    same(ours, expected, 2e-6 if abs(r - 0.1) < 1e-3 and r0 == 0.1 else 1e-9)


def test_relaxed_spikes_tend_to_spikes():
    """At temperature 0.01 a relaxed spike is within 0.01 of 0 or 1 but for 2 r (1 - r) 0.046 of all."""
    q = Bernoulli(T([special.logit(0.2)]).expand(100_000))
    z = q.relaxed(temperature=0.01, indicator="cubic").rsample(generator=seeded(0))
    assert abs(z.mean().item() - 0.2) < 4.5 * math.sqrt(0.16 / 1e5)
    assert ((z - z.round()).abs() > 0.01).double().mean() < 0.02


@pytest.mark.parametrize("q", [(0.0, 0.0), (1.2, -1.0), (-0.5, 0.7)])
@pytest.mark.parametrize("p", [(0.0, 0.0), (0.8, 0.5)])
def test_gaussian_divergence_by_quadrature(q, p):
    a, b = stats.norm(q[0], math.exp(q[1])), stats.norm(p[0], math.exp(p[1]))
    expected = integrate.quad(lambda z: a.pdf(z) * (a.logpdf(z) - b.logpdf(z)), -25, 25, points=[q[0]], epsabs=1e-12)[0]
    ours = kl_divergence(Gaussian(T(q[0]), T(q[1])), Gaussian(T(p[0]), T(p[1])))
    assert ours.item() == pytest.approx(expected, abs=1e-9)


def test_rectified_divergence_is_the_published_one_and_bounds_that_of_the_codes():
    """Before the rectifier; a map cannot raise a divergence, so that of the mixed laws is smaller."""
    q, p = RectifiedGaussian(T(0.4), T(-0.7)), RectifiedGaussian(T(0.0), T(0.0))
    ours = kl_divergence(q, p).item()
    assert ours == kl_divergence(Gaussian(q.loc, q.log_scale), Gaussian(p.loc, p.log_scale)).item()
    a, b = Rectified(0.4, math.exp(-0.7)), Rectified(0.0, 1.0)
    density = lambda z: a.before.pdf(z) * (a.before.logpdf(z) - b.before.logpdf(z))
    mass = a.before.cdf(0)
    codes = mass * math.log(mass / b.before.cdf(0)) + integrate.quad(density, 0, 25)[0]
    assert 0 < codes < ours


def test_divergence_gradients_by_finite_differences(law):
    q, p = (parameters_of(law, 5, seed=seed) for seed in (0, 1))
    values = [v.requires_grad_() for v in (*q.values(), *p.values())]
    n = len(law.prior_params)
    f = lambda *v: kl_divergence(law(*v[:n]), law(*v[n:]))
    assert torch.autograd.gradcheck(f, values)
    assert torch.autograd.gradgradcheck(f, values)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.float64, 1e-13)])
def test_poisson_divergence_keeps_its_digits_near_zero(dtype, tolerance):
    """1 + e^x (x - 1) by its series in exact order, from x = 1e-7 to 0.5, at unit prior rate."""
    x = np.concatenate([np.logspace(-7, -0.3, 60), -np.logspace(-7, -0.3, 60)]).astype(np.float32)
    exact = sum(x.astype(float) ** (n + 2) / (math.factorial(n) * (n + 2)) for n in range(25))
    ours = kl_divergence(Poisson(T(x, dtype)), Poisson(torch.zeros(len(x), dtype=dtype)))
    np.testing.assert_allclose(ours.double(), exact, rtol=tolerance)


def test_silencing_costs_the_prior_rate_at_most():
    prior = Poisson(torch.full((3,), -2.0))
    q = Poisson(torch.tensor([-10.0, -50.0, -100.0]))
    torch.testing.assert_close(kl_divergence(q, prior), prior.rate, rtol=4e-3, atol=0)


# Priors and starts -----------------------------------------------------------------------------------------


def test_prior_from_moments_is_optimal(law):
    """SciPy's minimum of the mean divergence over the prior, from elsewhere, is the closed form."""
    if not law.closed_form_prior:
        with pytest.raises(NotImplementedError, match="no closed form"):
            law.prior_from_moments(torch.zeros(1, 1))
        return
    if law is Categorical:
        return  # below: its units come in groups
    q = law(**parameters_of(law, 40))
    best = law.prior_from_moments(q.moments().mean(1, keepdim=True))

    def mean_divergence(values):
        parameters = [T([v]).requires_grad_() for v in values]
        value = kl_divergence(q, law(*parameters)).mean()
        return value.item(), [g.item() for g in torch.autograd.grad(value, parameters)]

    found = optimize.minimize(mean_divergence, [0.5] * len(law.prior_params), jac=True, options={"gtol": 1e-9})
    np.testing.assert_allclose([best[key].item() for key in law.prior_params], found.x, atol=1e-7)


def test_prior_from_moments_of_nothing_is_finite(law):
    """A unit that never fires, or never varies, still has a prior."""
    if not law.closed_form_prior:
        return
    moments = torch.zeros_like(law(**parameters_of(law, 2, dtype=torch.float32)).moments())
    assert all(torch.isfinite(value).all() for value in law.prior_from_moments(moments).values())


def test_optimal_poisson_prior_costs_information_times_rate():
    """Mean divergence at the optimal prior is E[rate log(rate / mean rate)]."""
    q = Poisson(**parameters_of(Poisson, 30))
    prior = Poisson.from_prior(Poisson.prior_from_moments(q.moments().mean(1, keepdim=True)))
    expected = (q.rate * (q.rate / q.rate.mean()).log()).mean()
    assert kl_divergence(q, prior).mean().item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("log_rate", [math.log(1e-12), -5.0, -0.5, 0.0, 2.0, math.log(1e6)])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("law", [law for law in LAWS.values() if law.has_rate])
def test_initial_raw_gives_the_firing_rate(law, log_rate, residual):
    prior = law.from_prior(law.initial_prior(3, log_rate, 0.0, seeded(0)))
    raw = law.initial_raw(3, log_rate, residual)
    if not residual and issubclass(law, NegativeBinomialBase):
        with pytest.raises(ValueError, match="no prior"):
            law.from_encoder(raw, None)
        return
    assert raw.shape == (3 * law.n_params,)
    rate = law.from_encoder(raw, prior if residual else None).mean
    # float32 bias: the rate moves by up to |loc| = 7 times its rounding
    wanted = {
        Binomial: min(math.exp(log_rate), 4.0),
        Bernoulli: min(math.exp(log_rate), 0.5),
        Categorical: 1 / 3,
    }.get(law, math.exp(log_rate))
    np.testing.assert_allclose(rate, np.full(3, wanted), rtol=1e-5)


def test_gaussian_starts_at_the_standard_normal():
    q = Gaussian.from_encoder(Gaussian.initial_raw(3, -2.0, True), None)
    assert (q.mean == 0).all() and (q.variance == 1).all()


def test_initial_priors(law):
    prior = law.initial_prior(2000, -5.0, 1.0, seeded(0))
    assert set(prior) == set(law.prior_params) and all(value.shape == (2000,) for value in prior.values())
    if law in (Binomial, Bernoulli):
        middle = special.logit(math.exp(-5.0) / (8 if law is Binomial else 1))
        assert stats.kstest(prior["logit"].numpy(), stats.uniform(middle - 1, 2).cdf).pvalue > 1e-4
    elif law is Categorical:
        assert stats.kstest(prior["logit"].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4
    elif law.is_count:
        log_mean = law.from_prior(prior).mean.log()
        assert stats.kstest(log_mean.numpy(), stats.uniform(-6, 2).cdf).pvalue > 1e-4
    else:
        assert all((value == 0).all() for value in prior.values())


def test_encoder_blocks():
    """Parameters come in blocks of K; residuals add to the prior's log-rate; Gaussians are absolute."""
    raw = T([[1.0, 2.0, -1.0, 0.5]])
    q = Gaussian.from_encoder(raw, Gaussian(T([9.0, 9.0]), T([9.0, 9.0])))
    assert q.loc.tolist() == [[1, 2]] and q.log_scale.tolist() == [[-1, 0.5]]
    prior = Poisson(T([-1.0, -2.0, -3.0, -4.0]))
    assert Poisson.from_encoder(raw, prior).log_rate.tolist() == [[0, 0, -4, -3.5]]
    assert Poisson.from_encoder(raw, None).log_rate.tolist() == raw.tolist()
    with pytest.raises(ValueError, match="multiple of 2"):
        RectifiedGaussian.from_encoder(T([1.0, 2.0, 3.0]), None)


def test_soft_clamps_are_the_published_ones():
    x = torch.linspace(-40, 40, 81, dtype=torch.float64)
    np.testing.assert_allclose(softclamp_above(x, 5.3), 5.3 - np.logaddexp(0, 5.3 - x.numpy()), rtol=1e-9)
    np.testing.assert_allclose(softclamp_symmetric(x, 5.3), 5.3 * np.tanh(x.numpy() / 5.3), rtol=1e-12)
    prior = Poisson(T([0.0]))
    assert Poisson.from_encoder(T([100.0]), prior, clamp=50.0).log_rate.item() == pytest.approx(10, abs=1e-9)
    assert Poisson.from_encoder(T([100.0]), prior, clamp=5.0).log_rate.item() == pytest.approx(5, abs=0.01)
    assert Poisson.from_encoder(T([100.0]), None, clamp=50.0).log_rate.item() == pytest.approx(50, abs=1e-9)
    assert Poisson.from_encoder(T([-100.0]), prior, clamp=5.0).log_rate.item() == pytest.approx(-100)
    assert Gaussian.from_encoder(T([0.0, 100.0]), None, clamp=5.3).log_scale.item() == pytest.approx(5.3)
