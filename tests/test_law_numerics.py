"""What single laws promise beyond the table of tests/test_laws.py, against SciPy, enumeration and quadrature.

Statistical tests have fixed seeds; standard scores are held below 4.5 (two-sided p = 7e-6), calibration asks p > 1e-3.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import SCORE, T, enumerated, seeded
from scipy import integrate, optimize, special, stats
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.distributions import (
    LAWS,
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    GaussianExp,
    GaussianSoftplus,
    Laplace,
    Poisson,
    RectifiedGaussian,
    ZeroInflatedPoisson,
    monte_carlo_kl,
)
from spikevae.distributions._elementwise import elementwise
from spikevae.distributions.categorical import GROUP
from spikevae.distributions.conway_maxwell_poisson import LOG_SHAPE_LIMIT

N = np.arange(20_000.0)


# Divergences of the others -----------------------------------------------------------------------------------


def log_zip(rate, off):
    with np.errstate(divide="ignore"):
        return np.log((1 - off) * stats.poisson(rate).pmf(N[:300]) + off * (N[:300] == 0))


@pytest.mark.parametrize("q", [(0.01, 0.3), (0.8, 0.9), (6.0, 1e-4)])
@pytest.mark.parametrize("p", [(0.02, 0.5), (3.0, 0.1)])
def test_zero_inflated_divergence_by_enumeration(q, p):
    ours = kl_divergence(*(ZeroInflatedPoisson(T(math.log(a)), T(special.logit(b))) for a, b in (q, p)))
    log_q, log_p = log_zip(*q), log_zip(*p)
    keep = np.isfinite(log_q) & np.isfinite(log_p)
    assert ours.item() == pytest.approx(enumerated(log_q[keep], log_p[keep]), rel=1e-9)


def test_the_best_zero_inflated_prior_of_poissons_is_inflated():
    """Of any mixture, so the closed form is never out of bounds; it matches the silence and the mean."""
    q = ZeroInflatedPoisson(T(np.log([0.1, 1.0, 5.0, 12.0]))[:, None], T([-40.0]))
    best = ZeroInflatedPoisson.from_prior(ZeroInflatedPoisson.prior_from_moments(q.moments().mean(1)))
    torch.testing.assert_close(best.mean, q.mean.mean(0))
    torch.testing.assert_close(best.zero_probability, q.zero_probability.mean(0))
    assert best.on.item() < 0.9


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.1, 3.0, 30.0])
def test_zero_inflated_priors_survive_float32(rate):
    """A unit whose posterior is always the same has that as prior: mean and silence to 1e-5, whatever the rate."""
    q = ZeroInflatedPoisson(torch.tensor([math.log(rate)]), torch.tensor([0.3]))
    best = ZeroInflatedPoisson.from_prior(ZeroInflatedPoisson.prior_from_moments(q.moments()))
    torch.testing.assert_close(best.mean, q.mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(best._active, q._active, rtol=1e-5, atol=0)


@pytest.mark.parametrize("q", [1e-6, 0.2, 0.97])
@pytest.mark.parametrize("p", [1e-3, 0.5])
def test_binomial_divergence_by_enumeration(q, p):
    ours = kl_divergence(*(Binomial(T(special.logit(v))) for v in (q, p)))
    expected = enumerated(*(stats.binom(8, v).logpmf(N[:9]) for v in (q, p)))
    assert ours.item() == pytest.approx(expected, rel=1e-9)


def log_conway(rate, shape):
    w = shape * (N * math.log(rate) - special.gammaln(N + 1))
    return w - special.logsumexp(w)


def conway(rate, shape, dtype=torch.float64):
    log_shape = LOG_SHAPE_LIMIT * math.atanh(math.log(shape) / LOG_SHAPE_LIMIT)
    return ConwayMaxwellPoisson(T(math.log(rate), dtype), T(log_shape, dtype))


@pytest.mark.parametrize("shape", [0.2501, 0.5, 0.8, 1.0, 1.6, 3.999])
@pytest.mark.parametrize("rate", [1e-4, 0.5, 8.0, 39.9, 40.1, 150.0, 2000.0])
def test_conway_maxwell_sums_are_as_right_as_stated(rate, shape):
    log_p = log_conway(rate, shape)
    mean = np.exp(log_p) @ N
    q = conway(rate, shape)
    # stated where the expansion begins, its worst place; elsewhere the sum is exact to what is left out
    bound = 1.0 if shape < 0.7 and 30 < rate < 100 else 0.01
    assert q.mean.item() == pytest.approx(mean, rel=5e-6 * bound)
    assert q.variance.item() == pytest.approx(np.exp(log_p) @ (N - mean) ** 2, rel=3e-5 * bound)
    np.testing.assert_allclose(q.log_prob(T(N[[0, 1, 50]])), log_p[[0, 1, 50]], atol=1.1e-5 * bound, rtol=1e-9)
    q32 = conway(rate, shape, torch.float32)
    assert q32.mean.item() == pytest.approx(mean, rel=3e-5)
    assert q32.variance.item() == pytest.approx(q.variance.item(), rel=2e-4)


@pytest.mark.parametrize("q", [(0.3, 0.5), (5.0, 3.0), (60.0, 1.5)])
@pytest.mark.parametrize("p", [(0.5, 1.0), (4.0, 0.6), (50.0, 0.9)])
def test_conway_maxwell_divergence_by_enumeration(q, p):
    expected = enumerated(log_conway(*q), log_conway(*p))
    assert kl_divergence(conway(*q), conway(*p)).item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_conway_maxwell_is_poisson_at_shape_one():
    rates = T(np.log([1e-3, 0.5, 20.0, 39.0, 41.0, 500.0]))
    q, p = (ConwayMaxwellPoisson(r, torch.zeros(6, dtype=torch.float64)) for r in (rates, rates + 0.1))
    for ours, poisson in ((q.mean, rates.exp()), (q.variance, rates.exp())):
        torch.testing.assert_close(ours, poisson, rtol=1e-9, atol=0)
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(Poisson(rates), Poisson(rates + 0.1)))


@pytest.mark.parametrize("rate, shape", [(60.0, 0.4), (300.0, 3.0), (5e4, 0.5)])
def test_conway_maxwell_counts_at_large_rates(rate, shape):
    q, n = conway(rate, shape), 4000
    z = q.sample((n,), generator=seeded(0)).numpy()
    spread = q.variance.sqrt().item()
    assert abs(z.mean() - q.mean.item()) < SCORE * spread / math.sqrt(n)
    assert abs(z.var() / q.variance.item() - 1) < SCORE * math.sqrt(2 / n)
    assert (z == z.round()).all()


def test_conway_maxwell_samples_pass_on_what_is_no_rate():
    log_rate = torch.tensor([math.nan, 200.0, 80.0, -200.0])
    z = ConwayMaxwellPoisson(log_rate, torch.zeros(4), validate_args=False).sample(generator=seeded(0))
    assert z[0].isnan() and z[1].isinf() and z[2].isfinite() and z[3] == 0


@pytest.mark.parametrize("q", [(0.0, 0.0), (1.2, -1.0), (-0.5, 0.7)])
@pytest.mark.parametrize("p", [(0.0, 0.0), (0.8, 0.5)])
def test_laplace_divergence_is_torchs_and_that_by_quadrature(q, p):
    ours = kl_divergence(Laplace(T(q[0]), T(q[1])), Laplace(T(p[0]), T(p[1]))).item()
    a, b = (torch.distributions.Laplace(T(v[0]), T(v[1]).exp()) for v in (q, p))
    assert ours == pytest.approx(kl_divergence(a, b).item(), rel=1e-10, abs=1e-12)
    a, b = (stats.laplace(v[0], math.exp(v[1])) for v in (q, p))
    f = lambda z: a.pdf(z) * (a.logpdf(z) - b.logpdf(z))
    cuts = sorted({q[0], p[0]})
    expected = sum(integrate.quad(f, x, y, epsabs=1e-11)[0] for x, y in zip([-90, *cuts], [*cuts, 90]))
    assert ours == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("law", [GaussianExp, GaussianSoftplus])
def test_divergence_of_positive_codes_is_that_of_the_gaussians(law):
    """Quadrature over the codes themselves: a map that can be undone leaves the divergence as it is."""
    q, p = law(T(0.4), T(-0.7)), law(T(0.0), T(0.0))
    f = lambda z: (q.log_prob(T(z)).exp() * (q.log_prob(T(z)) - p.log_prob(T(z)))).item()
    expected = integrate.quad(f, 1e-12, 1.5, epsabs=1e-10)[0] + integrate.quad(f, 1.5, 60, epsabs=1e-10, limit=200)[0]
    assert kl_divergence(q, p).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.0, 1.99, 2.01, 10.0, 148.0])
@pytest.mark.parametrize("loc", [-20.0, -6.0, -1.0, 0.0, 3.0, 30.0, 1e3])
def test_softplus_moments_at_all_scales(loc, scale):
    """1e-6 as stated, where the standardised location is above -8; float32 to its rounding."""
    if loc / scale < -8 and scale >= 2:
        return
    q = GaussianSoftplus(T(loc), T(math.log(scale)))
    f = lambda x, power, shift: (np.logaddexp(0, loc + scale * x) - shift) ** power * stats.norm.pdf(x)
    cuts = sorted({-12.0, 14.0, *(x for k in (-6, 0, 6) if -12 < (x := (k - loc) / scale) < 14)})
    total = lambda *a: sum(
        integrate.quad(f, x, y, a, epsabs=0, epsrel=1e-11, limit=200)[0] for x, y in itertools.pairwise(cuts)
    )
    mean = total(1, 0.0)
    tolerance = 1e-9 if scale <= 1 else 2e-6
    assert q.mean.item() == pytest.approx(mean, rel=tolerance)
    assert q.variance.item() == pytest.approx(total(2, mean), rel=tolerance)
    q32 = GaussianSoftplus(T(loc, torch.float32), T(math.log(scale), torch.float32))
    assert q32.mean.item() == pytest.approx(mean, rel=2e-5)
    # a standard deviation below the rounding of the mean has none left
    assert q32.variance.item() == pytest.approx(
        q.variance.item(), rel=1e-4, abs=(4e-7 * mean) ** 2 + 1e-6 * mean * scale
    )


def groups_of(x):
    return [x[..., i : i + GROUP] for i in range(0, x.shape[-1], GROUP)]


@pytest.mark.parametrize("n_units", [5, GROUP, 2 * GROUP + 3])
def test_categorical_groups_are_torchs(n_units):
    """Probabilities, log probabilities and divergences summed over a group; shares are not negative."""
    logits = torch.randn(2, 7, n_units, generator=seeded(0), dtype=torch.float64)
    q, p = Categorical(logits[0]), Categorical(logits[1, 0])
    z = q.sample(generator=seeded(1))
    shares = kl_divergence(q, p)
    assert (shares >= 0).all()
    parts = [groups_of(v) for v in (logits[0], logits[1, 0], q.mean, z, q.log_prob(z), shares)]
    for own, prior, mean, codes, log_prob, share in zip(*parts):
        a, b = (torch.distributions.OneHotCategorical(logits=v) for v in (own, prior))
        assert ((codes == 0) | (codes == 1)).all() and (codes.sum(-1) == 1).all()
        torch.testing.assert_close(mean, a.probs)
        torch.testing.assert_close(log_prob.sum(-1), a.log_prob(codes))
        torch.testing.assert_close(share.sum(-1), kl_divergence(a, b))
        expected = stats.multinomial(1, a.probs[0].numpy()).logpmf(codes[0].numpy())
        assert log_prob[0].sum().item() == pytest.approx(expected, rel=1e-9)


def test_categorical_samples_have_the_law():
    q = Categorical(torch.randn(GROUP + 4, generator=seeded(0), dtype=torch.float64))
    n = 20_000
    z, mean = q.sample((n,), generator=seeded(1)), q.mean
    for seen, expected in zip(groups_of(z.sum(0)), groups_of(n * mean)):
        assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_the_best_categorical_prior_is_the_mean():
    """No other logits have a lower mean divergence: the gradient there is zero, and nearby is above."""
    q = Categorical(torch.randn(50, 20, generator=seeded(0), dtype=torch.float64))
    best = Categorical.prior_from_moments(q.moments().mean(1))["logit"].requires_grad_()
    value = kl_divergence(q, Categorical(best)).sum(-1).mean()
    (gradient,) = torch.autograd.grad(value, best)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    other = Categorical(best.detach() + 0.1 * torch.randn(20, generator=seeded(1), dtype=torch.float64))
    assert kl_divergence(q, other).sum(-1).mean() > value


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_divergence_from_samples(law):
    """Of every law: 40,000 samples, within 4.5 standard errors of the closed form or quadrature, and not vacuous."""
    if law is RectifiedGaussian:
        return  # its divergence is that before the rectifier; tests/test_laws.py
    draws = 0.5 * torch.randn(2, len(law.prior_params), 5, generator=seeded(3), dtype=torch.float64)
    q, p = (law(*values) for values in draws)
    value, error = monte_carlo_kl(q, p, 40_000, generator=seeded(4))
    if not law.independent:
        z = q.sample((40_000,), generator=seeded(4))
        ratio = (q.log_prob(z) - p.log_prob(z)).sum(-1)
        value, error = ratio.mean(), ratio.std() / 200
    exact = kl_divergence(q, p) if law.independent else kl_divergence(q, p).sum()
    assert (abs(value - exact) < SCORE * error).all() and (error < 0.1 * exact.mean()).all()


def test_divergence_from_one_sample_is_refused():
    with pytest.raises(ValueError, match="n_samples is 1"):
        monte_carlo_kl(Poisson(T(0.0)), Poisson(T(0.0)), 1, generator=seeded(0))


# Machinery ---------------------------------------------------------------------------------------------------


def test_elementwise_blocks_change_nothing(monkeypatch):
    """Values, gradients, batches and second derivatives, one element at a time and all at once."""
    nodes = torch.linspace(0.1, 2, 7, dtype=torch.float64)
    function = lambda x, y: ((torch.sin(x[:, None] * nodes) * y[:, None]).sum(-1), (x * y))
    x, y = torch.randn(2, 5, 3, generator=seeded(0), dtype=torch.float64).requires_grad_()
    whole = elementwise(function, 7, x, y)
    first = torch.autograd.grad(sum(v.sum() for v in whole), (x, y))
    monkeypatch.setattr("spikevae.distributions._elementwise.MAX_NODES_IN_MEMORY", 7)
    batched = torch.func.vmap(lambda a, b: elementwise(function, 7, a, b), (0, None))(x, y[0])
    torch.testing.assert_close(batched[0], function(x.reshape(-1), y[0].repeat(5))[0].view(5, 3))
    blocks = elementwise(function, 7, x, y)
    for a, b in zip(whole, blocks):
        assert torch.equal(a, b)
    for a, b in zip(first, torch.autograd.grad(sum(v.sum() for v in blocks), (x, y))):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(lambda *v: elementwise(function, 7, *v), (x, y))


@pytest.mark.parametrize("law", [law for law in LAWS.values() if not law.closed_form_prior], ids=lambda law: law.name)
def test_a_prior_without_closed_form_is_refused_and_not_the_default(law):
    assert FitConfig.from_recipe("default", latent=law.name).prior in ("learned", "fixed")
    with pytest.raises(ValueError, match=r"no closed form. Set prior='learned' or prior='fixed'"):
        FitConfig.from_recipe("default", latent=law.name, prior="closed_form")


def test_dependent_units_have_no_exact_objective():
    assert not FitConfig.from_recipe("default", latent="categorical").exact
    with pytest.raises(ValueError, match="independent units"):
        FitConfig.from_recipe("default", latent="categorical", estimator="exact")


@pytest.mark.parametrize("graded", [True, False])
def test_a_conway_maxwell_unit_that_hardly_fires_is_nearly_bernoulli(graded):
    """What is too small to count does not add up to more than the first spike's own probability."""
    log_rate = torch.tensor([-18.0, -12.0, -6.0]).requires_grad_(graded)
    with torch.set_grad_enabled(graded):
        q = ConwayMaxwellPoisson(log_rate, torch.tensor(6.0))
        torch.testing.assert_close(q.mean, (q.shape * log_rate).exp(), rtol=1e-3, atol=0)
        torch.testing.assert_close(q.variance, q.mean, rtol=1e-3, atol=0)
        silent = ConwayMaxwellPoisson(torch.full((1,), -25.0).requires_grad_(graded), torch.tensor(6.0))
        assert silent.mean == 0 and silent.variance == 0


@pytest.mark.parametrize(("mean", "least", "most"), [(0.05, 0.96, 1.03), (1.0, 0.36, 1.57), (10.0, 0.26, 3.3)])
def test_the_bounds_on_the_shape_bound_the_fano_factor(mean, least, most):
    """docs/counts.md: of Conway-Maxwell-Poisson counts of one mean at the shapes 4 and 1/4."""
    for log_shape, fano in ((math.log(4), least), (-math.log(4), most)):
        shape = math.exp(log_shape)
        n = np.arange(400)

        def moments(log_rate, shape=shape, n=n):
            weight = special.softmax(shape * (n * log_rate - special.gammaln(n + 1)))
            return weight @ n, weight @ n**2

        log_rate = optimize.brentq(lambda x, moments=moments: moments(x)[0] - mean, -30, 5)
        first, second = moments(log_rate)
        assert (second - first**2) / first == pytest.approx(fano, abs=0.01 + 0.01 * fano)
        law = ConwayMaxwellPoisson(torch.tensor(log_rate), torch.tensor(100.0 * log_shape))
        assert float(law.variance / law.mean) == pytest.approx((second - first**2) / first, rel=1e-3)
