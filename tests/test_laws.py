"""The laws of the code: one table of cases, each property one parametrised test.

References are SciPy distributions, enumeration and quadrature in float64. Seeds are fixed; goodness-of-fit
tests ask p > 1e-4. Formulas are compared by relative error alone (`same`), small values like large ones.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import T, seeded
from scipy import integrate, optimize, special, stats
from torch.distributions import kl_divergence

from spikevae.distributions import (
    LAWS,
    Bernoulli,
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    Gaussian,
    GaussianExp,
    GaussianSoftplus,
    GeneratorStack,
    Laplace,
    NegativeBinomial,
    NegativeBinomialFree,
    Poisson,
    RectifiedGaussian,
    ZeroInflatedPoisson,
    get_law,
)
from spikevae.distributions._law import Law, softclamp_above, softclamp_symmetric
from spikevae.distributions._negative_binomial import NegativeBinomialBase
from spikevae.distributions._random import poisson, standard_normal


def same(ours, reference, rtol):
    np.testing.assert_allclose(ours.detach().double().numpy(), reference, rtol=rtol, atol=0)


@dataclass
class Rectified:
    """SciPy twin of max(N(loc, scale^2), 0): a mass at zero and a density above it."""

    loc: float
    scale: float

    def __post_init__(self):
        self.before = stats.norm(self.loc, self.scale)

    def logpdf(self, z):
        return np.where(z > 0, self.before.logpdf(z), np.where(z < 0, -np.inf, self.before.logcdf(0)))

    def cdf(self, z):
        return np.where(z < 0, 0.0, self.before.cdf(z))

    def moment(self, order):
        """E z^order. The factor exp(-loc^2 / 2 scale^2) is taken out, so nothing cancels in the tail."""
        a = self.loc / self.scale
        shift = max(a, 0.0)  # peak of the integrand's exponent
        f = lambda u: u**order * math.exp(a * u - u * u / 2 - (a * shift - shift**2 / 2))
        top = shift + (40 if a > -1 else 60 / -a)
        integral = integrate.quad(f, 0, top, points=[shift] if shift else None, epsabs=0, epsrel=1e-12, limit=200)[0]
        factor = math.exp((a * shift - shift**2 / 2) - a * a / 2) / math.sqrt(2 * math.pi)
        return self.scale**order * factor * integral

    def mean(self):
        return self.moment(1)

    def var(self):
        return self.moment(2) - self.moment(1) ** 2


class Enumerated:
    """SciPy-like twin of a law of counts given by its log weights, normalised over 0 to 4999."""

    n = np.arange(5000.0)

    def __init__(self, log_weights):
        w = log_weights(self.n)
        self.p = np.exp(w - special.logsumexp(w))

    def logpmf(self, z):
        return np.log(self.p[np.asarray(z, int)])

    def pmf(self, z):
        return self.p[np.asarray(z, int)]

    def sf(self, z):
        return self.p[int(z) + 1 :].sum()

    def ppf(self, q):
        return np.searchsorted(self.p.cumsum(), q)

    def mean(self):
        return self.p @ self.n

    def var(self):
        return self.p @ (self.n - self.mean()) ** 2


def zero_inflated(rate, off):
    return Enumerated(lambda n: np.log((1 - off) * stats.poisson(rate).pmf(n) + off * (n == 0) + 1e-320))


def conway_maxwell(rate, shape):
    return Enumerated(lambda n: shape * (n * math.log(rate) - special.gammaln(n + 1)))


@dataclass
class Softplus:
    """SciPy twin of log(1 + exp(N(loc, scale^2)))."""

    loc: float
    scale: float

    def __post_init__(self):
        self.before = stats.norm(self.loc, self.scale)

    def logpdf(self, z):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.before.logpdf(np.log(np.expm1(z))) - np.log(-np.expm1(-z))
        return np.where(z > 0, value, -np.inf)

    def cdf(self, z):
        with np.errstate(divide="ignore"):
            return self.before.cdf(np.log(np.expm1(z)))

    def expect(self, f):
        ends = self.loc - 15 * self.scale, self.loc + 15 * self.scale
        density = lambda y: f(np.logaddexp(0, y)) * self.before.pdf(y)
        return integrate.quad(density, *ends, points=[self.loc], epsabs=0, epsrel=1e-12, limit=400)[0]

    def mean(self):
        return self.expect(lambda z: z)

    def var(self):
        mean = self.mean()
        return self.expect(lambda z: (z - mean) ** 2)


COUNTS = np.arange(400.0)
LINE = np.linspace(-6, 9, 61)  # holds zero
LOG_SHAPE = math.log(4) * math.atanh(math.log(0.6) / math.log(4))  # before its bound, of shape 0.6
CASES = {  # name: (law, parameters, SciPy twin, points)
    "poisson 0.001": (Poisson, {"log_rate": math.log(1e-3)}, stats.poisson(1e-3), COUNTS[:20]),
    "poisson 0.05": (Poisson, {"log_rate": math.log(0.05)}, stats.poisson(0.05), COUNTS[:30]),
    "poisson 2": (Poisson, {"log_rate": math.log(2.0)}, stats.poisson(2.0), COUNTS[:60]),
    "poisson 30": (Poisson, {"log_rate": math.log(30.0)}, stats.poisson(30.0), COUNTS),
    "negative binomial 0.05": (
        NegativeBinomial,
        {"log_rate": math.log(0.05), "log_dispersion": math.log(0.3)},
        stats.nbinom(0.3, 0.3 / 0.35),
        COUNTS[:40],
    ),
    "negative binomial 4": (
        NegativeBinomial,
        {"log_rate": math.log(4.0), "log_dispersion": math.log(7.5)},
        stats.nbinom(7.5, 7.5 / 11.5),
        COUNTS[:100],
    ),
    "negative binomial free 2": (
        NegativeBinomialFree,
        {"log_rate": math.log(2.0), "log_dispersion": 0.0},
        stats.nbinom(1.0, 1 / 3),
        COUNTS[:50],
    ),
    "zero-inflated 0.1": (
        ZeroInflatedPoisson,
        {"log_rate": math.log(0.1), "logit_off": special.logit(0.2)},
        zero_inflated(0.1, 0.2),
        COUNTS[:15],
    ),
    "zero-inflated 6": (
        ZeroInflatedPoisson,
        {"log_rate": math.log(6.0), "logit_off": special.logit(0.7)},
        zero_inflated(6.0, 0.7),
        COUNTS[:60],
    ),
    "conway-maxwell irregular": (
        ConwayMaxwellPoisson,
        {"log_rate": math.log(3.0), "log_shape": LOG_SHAPE},
        conway_maxwell(3.0, 0.6),
        COUNTS[:60],
    ),
    "conway-maxwell regular": (
        ConwayMaxwellPoisson,
        {"log_rate": math.log(0.7), "log_shape": -LOG_SHAPE},
        conway_maxwell(0.7, 1 / 0.6),
        COUNTS[:20],
    ),
    "binomial 0.1": (Binomial, {"logit": special.logit(0.1 / 8)}, stats.binom(8, 0.1 / 8), COUNTS[:9]),
    "binomial 5": (Binomial, {"logit": special.logit(5 / 8)}, stats.binom(8, 5 / 8), COUNTS[:9]),
    "laplace": (Laplace, {"loc": 1.3, "log_scale": -0.5}, stats.laplace(1.3, math.exp(-0.5)), LINE + 0.01),
    "gaussian exponential": (
        GaussianExp,
        {"loc": 0.3, "log_scale": -0.7},
        stats.lognorm(math.exp(-0.7), scale=math.exp(0.3)),
        LINE[LINE > 0],
    ),
    "gaussian softplus narrow": (
        GaussianSoftplus,
        {"loc": 1.0, "log_scale": -0.7},
        Softplus(1.0, math.exp(-0.7)),
        LINE[LINE > 0],
    ),
    "gaussian softplus silent": (
        GaussianSoftplus,
        {"loc": -4.0, "log_scale": 0.0},
        Softplus(-4.0, 1.0),
        LINE[LINE > 0],
    ),
    "bernoulli 0.01": (Bernoulli, {"logit": special.logit(0.01)}, stats.bernoulli(0.01), COUNTS[:2]),
    "bernoulli 0.7": (Bernoulli, {"logit": special.logit(0.7)}, stats.bernoulli(0.7), COUNTS[:2]),
    "gaussian standard": (Gaussian, {"loc": 0.0, "log_scale": 0.0}, stats.norm(0, 1), LINE),
    "gaussian narrow": (Gaussian, {"loc": 1.3, "log_scale": -1.5}, stats.norm(1.3, math.exp(-1.5)), LINE),
    "rectified standard": (RectifiedGaussian, {"loc": 0.0, "log_scale": 0.0}, Rectified(0.0, 1.0), LINE),
    "rectified silent": (
        RectifiedGaussian,
        {"loc": -1.5, "log_scale": -0.3},
        Rectified(-1.5, math.exp(-0.3)),
        LINE,
    ),
    "rectified active": (
        RectifiedGaussian,
        {"loc": 2.0, "log_scale": 0.4},
        Rectified(2.0, math.exp(0.4)),
        LINE,
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    law, parameters, twin, points = CASES[request.param]
    return law(**{key: T(value) for key, value in parameters.items()}), twin, points


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


def parameters_of(law, *shape, seed=0, dtype=torch.float64):
    """Random parameters of moderate size."""
    draws = torch.randn(len(law.prior_params), *shape, generator=seeded(seed), dtype=dtype)
    return dict(zip(law.prior_params, 0.7 * draws))


def test_the_table_holds_every_law():
    """Categorical units depend on each other: test_law_numerics.py has them against torch, by groups."""
    assert {law for law, *_ in CASES.values()} | {Categorical} == set(LAWS.values())


# Each property of the table -------------------------------------------------------------------------------


def test_log_prob_is_the_twin(case):
    ours, twin, points = case
    expected = twin.logpmf(points) if ours.is_count else twin.logpdf(points)
    inside = points if ours.support.check(T(points)).all() else points[points >= 0]
    np.testing.assert_allclose(ours.log_prob(T(inside)), expected[-len(inside) :], rtol=1e-11, atol=1e-13)


def test_probabilities_sum_to_one(case):
    ours, _, _ = case
    density = lambda z: ours.log_prob(T(z)).exp().item()
    if ours.is_count:
        counts = T(COUNTS)
        total = ours.log_prob(counts[ours.support.check(counts)]).exp().sum().item()
    elif ours.has_rate:
        total = density(0.0) + integrate.quad(density, 1e-300, 40, points=[2.0], epsabs=1e-12)[0]
    else:
        total = integrate.quad(density, -40, 40, points=[0, 1.3], epsabs=1e-12)[0]
    assert total == pytest.approx(1, abs=1e-10)


def test_moments_are_the_twin(case):
    ours, twin, _ = case
    same(ours.mean, twin.mean(), 1e-11)
    same(ours.variance, twin.var(), 1e-11)
    zero = twin.pmf(0) if ours.is_count else float(twin.cdf(0)) if ours.has_rate else 0.0
    same(ours.zero_probability, zero, 1e-12)


def test_samples_have_the_law(case):
    """Chi-square for counts; Kolmogorov-Smirnov for densities, and a test of the mass at zero."""
    ours, twin, _ = case
    n = 50_000
    z = ours.sample((n,), generator=seeded(1)).numpy()
    if ours.is_count:
        assert (z == z.round()).all() and (z >= 0).all()
        top = max(1, int(twin.ppf(1 - 20 / n)))
        seen = np.bincount(np.minimum(z.astype(int), top), minlength=top + 1)
        expected = n * np.append(twin.pmf(np.arange(top)), twin.sf(top - 1))
        keep = expected > 5  # too rare counts are judged together
        seen, expected = (np.append(v[keep], v[~keep].sum()) if (~keep).any() else v for v in (seen, expected))
        assert stats.chisquare(seen, expected).pvalue > 1e-4
    elif ours.has_rate:
        assert (z >= 0).all()
        zeros, mass = int((z == 0).sum()), float(twin.cdf(0))
        assert stats.binomtest(zeros, n, mass).pvalue > 1e-4
        assert stats.kstest(z[z > 0], lambda x: (twin.cdf(x) - mass) / (1 - mass)).pvalue > 1e-4
    else:
        assert stats.kstest(z, twin.cdf).pvalue > 1e-4


@pytest.mark.parametrize("what", ["log_prob", "mean", "variance", "zero_probability", "moments"])
def test_gradients_by_finite_differences(case, what):
    ours, _, points = case
    if what == "moments" and not ours.closed_form_prior:
        with pytest.raises(NotImplementedError, match="no closed form"):
            ours.moments()
        return
    values = T(points[points >= 0][:12])
    parameters = [getattr(ours, key).clone().requires_grad_() for key in ours.prior_params]

    def f(*parameters):
        law = type(ours)(*parameters)
        if what == "log_prob":
            return law.log_prob(values)
        return law.moments() if what == "moments" else getattr(law, what) + 0 * parameters[0]

    assert torch.autograd.gradcheck(f, parameters)


@pytest.mark.parametrize("law", [Gaussian, RectifiedGaussian, Laplace, GaussianExp, GaussianSoftplus])
def test_pathwise_gradients(law):
    """d E[z^2] / d parameter, estimated through samples, against the closed-form moments; |z| < 4.5."""
    n, parameters = 100_000, parameters_of(law)
    repeated = {key: value.repeat(n).requires_grad_() for key, value in parameters.items()}
    sample = law(**repeated).relaxed(temperature=1.0, indicator="cubic").rsample(generator=seeded(0))
    estimates = torch.autograd.grad(sample.square().sum(), list(repeated.values()))
    exact = {key: value.requires_grad_() for key, value in parameters.items()}
    second = law(**exact).variance + law(**exact).mean ** 2
    for estimate, truth in zip(estimates, torch.autograd.grad(second, list(exact.values()))):
        assert abs(estimate.mean() - truth) < 4.5 * estimate.std() / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shapes_and_types(law, shape, dtype):
    q = law(**parameters_of(law, *shape, dtype=dtype))
    assert q.batch_shape == shape and q.event_shape == ()
    sample = q.sample((4,), generator=seeded(0))
    assert sample.shape == (4, *shape) and sample.dtype == dtype
    for value in (q.mean, q.variance, q.zero_probability, kl_divergence(q, q)):
        assert value.shape == shape and value.dtype == dtype
    assert q.log_prob(sample).shape == (4, *shape) and q.log_prob(sample).dtype == dtype
    if law.closed_form_prior:
        assert q.moments().shape[1:] == shape
    wide = q.expand((5, *shape))
    assert wide.batch_shape == (5, *shape)
    if shape or law.independent:  # else five units become one group
        torch.testing.assert_close(wide.mean[0], q.mean)
    relaxed = q.relaxed(temperature=0.5, indicator="cubic").rsample((4,), generator=seeded(0))
    assert relaxed.shape == (4, *shape) and relaxed.dtype == dtype


def test_sampling_needs_a_generator_and_leaves_the_global_state(law):
    q = law(**parameters_of(law, 3))
    with pytest.raises(TypeError, match="generator"):
        q.sample((2,))
    with pytest.raises(TypeError, match=r"expected torch\.Generator"):
        q.sample((2,), generator=0)
    before = torch.get_rng_state()
    q.sample((2,), generator=seeded(0))
    q.relaxed(temperature=0.5, indicator="cubic").rsample(generator=seeded(0))
    law.initial_prior(3, -1.0, 0.5, seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_seeds_give_equal_samples(law):
    q = law(**parameters_of(law, 50))
    first, second, other = (q.sample(generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


# The noise is so for all; where functions of it follow, the last bit depends on where a lane starts in its vector.
BITWISE = (Poisson, Gaussian, RectifiedGaussian, Laplace, Binomial)


def test_lanes_are_the_calls_alone_bit_for_bit(law):
    """The whole of a training step on a law, stacked and alone."""
    raw = torch.randn(3, 6, 4 * law.n_params, generator=seeded(0)).requires_grad_()

    def loss(raw, generator):
        prior = law.from_prior({key: torch.full((4,), -0.5) for key in law.prior_params})
        q = law.from_encoder(raw, prior, clamp=5.0)
        z = q.relaxed(temperature=0.3, indicator="cubic").rsample(generator=generator)
        hard = q.sample(generator=generator)
        return z, hard, z.square() + kl_divergence(q, prior) + q.mean + q.variance

    z, hard, value = torch.func.vmap(lambda r: loss(r, GeneratorStack([seeded(i) for i in range(3)])))(raw)
    assert not hard.requires_grad
    value.sum().backward()
    for i in range(3):
        lane = raw[i].detach().requires_grad_()
        z_alone, hard_alone, value_alone = loss(lane, seeded(i))
        value_alone.sum().backward()
        assert torch.equal(hard[i], hard_alone)
        if law in BITWISE:
            assert torch.equal(z[i], z_alone)
        else:
            torch.testing.assert_close(z[i], z_alone)
        torch.testing.assert_close(raw.grad[i], lane.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-4)])
@pytest.mark.parametrize("clamp", [None, 3.0])
@pytest.mark.parametrize("residual", [True, False])
def test_encode_gives_what_the_laws_methods_give(law, residual, clamp, dtype, tolerance):
    """Averages of a batch and all their gradients, by the law's own pass and by its methods in float64; two lanes."""
    if not residual and not law.closed_form_prior:
        pytest.skip("outputs are always relative to this law's prior")
    drawn = 0.5 * torch.randn(2, 9, 16 * law.n_params, generator=seeded(0), dtype=torch.float64)
    before = {key: 0.3 * torch.randn(2, 16, generator=seeded(1), dtype=torch.float64) for key in law.prior_params}
    weights = torch.randn(4, 9, 16, generator=seeded(2), dtype=torch.float64)

    def total(encode, raw, prior):
        coded = encode(raw, law.from_prior(prior), residual=residual, clamp=clamp)
        w, q = weights.to(raw), coded.posterior
        value = 1.3 * coded.kl + (w[0, 0] * coded.mean).sum() + (w[0, 1] * coded.variance).sum()
        value = value + (w[1] * q.mean).sum()
        for own, key in zip(w[2:], law.prior_params):
            value = value + (own * getattr(q, key)).sum()
        known = () if coded.moments is None else (coded.moments,)
        return value, (coded.kl, coded.mean, coded.variance, *known)

    def both(encode, dtype):
        raw = drawn.to(dtype).requires_grad_()
        prior = {key: value.to(dtype).requires_grad_() for key, value in before.items()}
        value, shown = torch.func.vmap(lambda r, p: total(encode, r, p))(raw, prior)
        return [*shown[:3], *torch.autograd.grad(value.sum(), [raw, *prior.values()])], shown[3:]

    found, moments = both(law.encode, dtype)
    expected, _ = both(lambda *a, **k: Law.encode.__func__(law, *a, **k), torch.float64)
    for ours, reference in zip(found, expected):
        scale = float(reference.detach().abs().max())
        torch.testing.assert_close(ours.double(), reference, rtol=tolerance, atol=tolerance * scale)
    if moments:
        for lane in range(2):
            prior = law.from_prior({key: value[lane].to(dtype) for key, value in before.items()})
            q = law.from_encoder(drawn[lane].to(dtype), prior if residual else None, clamp=clamp)
            torch.testing.assert_close(moments[0][lane], q.moments().mean(-2), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("log_rate_0", [-30.0, -80.0, -100.0, -200.0])
def test_divergence_from_a_prior_that_underflows(log_rate_0):
    q, p = Poisson(torch.tensor([-5.0, 1.0])), Poisson(torch.tensor(log_rate_0))
    delta = q.log_rate.double() - log_rate_0
    expected = q.log_rate.double().exp() * (delta - 1) + math.exp(log_rate_0)
    torch.testing.assert_close(kl_divergence(q, p).double(), expected, rtol=1e-6, atol=0)


def test_integers_are_codes_and_expanded_laws_validate(law):
    parameters = parameters_of(law, 2)
    one = law(**parameters, validate_args=True)
    if law.is_count:
        whole = one.sample(generator=seeded(0)).long()
        torch.testing.assert_close(one.log_prob(whole), one.log_prob(whole.to(one.mean.dtype)))
        with pytest.raises(ValueError, match=r"support|Expected value"):
            one.expand((3, *one.batch_shape)).log_prob(torch.full_like(one.mean, -1.0))
    assert one.expand((3, *one.batch_shape))._validate_args


@pytest.mark.parametrize("residual", [True, False])
def test_outputs_far_above_the_clamp_are_finite(law, residual):
    """exp overflows in float32 at 88.7: the fast pass has to bound what the laws' own methods bound."""
    if not residual and not law.closed_form_prior:
        pytest.skip("outputs are always relative to this law's prior")
    raw = torch.tensor([-300.0, 0.0, 50.0, 93.0, 94.0, 1e4]).repeat_interleave(16 * law.n_params).view(1, 6, -1)
    raw = raw.clone().requires_grad_()
    prior = law.from_prior({key: torch.zeros(16) for key in law.prior_params})
    coded = law.encode(raw[0], prior, residual=residual, clamp=5.0)
    (gradient,) = torch.autograd.grad(coded.kl + coded.mean.sum() + coded.posterior.mean.sum(), raw)
    assert coded.kl.isfinite() and coded.posterior.mean.isfinite().all() and gradient.isfinite().all()
    expected = Law.encode.__func__(law, raw[0].double(), prior, residual=residual, clamp=5.0)
    torch.testing.assert_close(coded.posterior.mean.double(), expected.posterior.mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("draw", [standard_normal, poisson])
def test_draws_differ_between_lanes(draw):
    like = torch.ones(2, 50)
    joint = torch.func.vmap(lambda x: draw(x, seeded(0)))(like)
    assert torch.equal(joint, draw(like, seeded(0))) and not torch.equal(joint[0], joint[1])


def test_arguments_are_validated(law):
    parameters = parameters_of(law, 2)
    first = law.prior_params[0]
    with pytest.raises(ValueError, match=first):
        law(**{**parameters, first: T([0.0, math.nan])})
    if law.has_rate:
        with pytest.raises(ValueError, match="support"):
            law(**parameters).log_prob(T([-1.0, 0.0]))
    with pytest.raises(ValueError, match="prior takes"):
        law.from_prior({"rate": T([1.0])})


def test_rectified_density_below_zero_is_none():
    q = RectifiedGaussian(T([0.3]), T([0.0]), validate_args=False)
    assert q.log_prob(T([-1.0])).item() == -math.inf


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


# Extremes in float32 --------------------------------------------------------------------------------------

RATES = np.logspace(-12, 6, 19)


def test_extreme_poisson_rates_are_finite_and_right():
    log_rate = torch.tensor(np.log(RATES), dtype=torch.float32)
    rounded = np.exp(log_rate.double().numpy())
    q = Poisson(log_rate.clone().requires_grad_())
    counts = torch.tensor([0.0, 1.0, 2.0, 15.0, 16.0, 1e3, 1e6])[:, None]
    log_prob = q.log_prob(counts)
    expected = stats.poisson(rounded).logpmf(counts.numpy())
    # Relative to the log probability, plus what rounding log n costs: |n - rate| roundings.
    slack = 2e-6 + 2e-6 * abs(counts.numpy() - rounded)
    assert (abs(log_prob.detach().double().numpy() - expected) <= 2e-5 * abs(expected) + slack).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), q.log_rate)
    assert torch.isfinite(gradient).all()
    np.testing.assert_allclose(q.mean.detach(), rounded, rtol=1e-6)
    np.testing.assert_allclose(q.variance.detach(), rounded, rtol=1e-6)
    sample = q.sample((2000,), generator=seeded(0))
    assert torch.isfinite(sample).all()
    score = (sample.double().mean(0).numpy() - rounded) / np.sqrt(rounded / 2000)
    assert (abs(score[rounded > 1e-3]) < 4.5).all()
    assert (sample[:, rounded < 1e-8] == 0).all()


def test_extreme_poisson_divergences_are_finite_and_right():
    log_rate = torch.tensor(np.log(RATES), dtype=torch.float32)
    q, p = log_rate[:, None].clone().requires_grad_(), log_rate[None].clone().requires_grad_()
    ours = kl_divergence(Poisson(q), Poisson(p))
    a, b = (v.detach().double() for v in (q, p))
    exact = b.exp() - a.exp() + a.exp() * (a - b)
    np.testing.assert_allclose(ours.detach().double(), exact, rtol=1e-5, atol=1e-30)
    assert (ours >= 0).all()
    for gradient in torch.autograd.grad(ours.sum(), (q, p)):
        assert torch.isfinite(gradient).all()


def test_out_of_range_rates_pass_through_sampling():
    sample = Poisson(torch.tensor([math.nan, 200.0, 80.0, -200.0]), validate_args=False).sample(generator=seeded(0))
    assert sample[0].isnan() and sample[1].isinf() and sample[2].isfinite() and sample[3] == 0


@pytest.mark.parametrize("ratio", [-30.0, -12.0, -5.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rectified_tails(ratio, scale):
    """Float64 to 1e-11 down to loc / scale = -30 (variance 2e-10); normal float32 to rounding."""
    log_scale = math.log(scale)
    twin = Rectified(ratio * math.exp(log_scale), math.exp(log_scale))
    q = RectifiedGaussian(T(twin.loc), T(log_scale))
    variance = twin.var() if ratio < 5 else scale**2  # there the twin's subtraction is the worse
    same(q.mean, twin.mean(), 1e-11)
    same(q.variance, variance, 1e-11 + 3e-16 * ratio**4 if ratio < 5 else 1e-4)
    same(q.zero_probability, special.ndtr(-ratio), 1e-11)
    if ratio < 5:  # above, the mass below zero is less than a rounding of 1
        same(q.log_prob(T(0.0)), special.log_ndtr(-ratio), 1e-11)

    q32 = RectifiedGaussian(q.loc.float(), q.log_scale.float())
    # Rounding loc and log_scale moves the exponent a^2 / 2 by a^2 (1 + |log scale|) roundings.
    rtol = 4e-7 * (1 + ratio**2) * (1 + abs(log_scale))
    for narrow, wide in ((q32.mean, q.mean), (q32.variance, q.variance)):
        assert narrow.item() == pytest.approx(wide.item(), rel=rtol, abs=torch.finfo(torch.float32).tiny)


def test_rectified_gradients_at_extremes():
    loc = torch.tensor([-1e6, -30.0, 0.0, 30.0, 1e6]).repeat(3).requires_grad_()
    log_scale = torch.tensor([-14.0, 0.0, 14.0]).repeat_interleave(5).requires_grad_()
    q = RectifiedGaussian(loc, log_scale)
    prior = RectifiedGaussian(torch.zeros(15), torch.zeros(15))
    for value in (
        q.mean,
        q.variance,
        q.zero_probability,
        q.log_prob(torch.zeros(15)),
        kl_divergence(q, prior),
    ):
        assert torch.isfinite(value).all()
        for gradient in torch.autograd.grad(value.sum(), (loc, log_scale), retain_graph=True):
            assert torch.isfinite(gradient).all()


def test_rectified_mean_at_zero_has_its_two_sided_derivative():
    loc = torch.zeros(1, requires_grad=True)
    RectifiedGaussian(loc, torch.zeros(1)).mean.sum().backward()
    assert loc.grad.item() == pytest.approx(0.5)


# Baselines -------------------------------------------------------------------------------------------------


def lifetime_sparseness(law):
    """Vinje-Gallant, of infinitely many stimuli with one law."""
    return 1 - law.mean**2 / (law.variance + law.mean**2)


@pytest.mark.parametrize(
    "law, zeros, mean, sparseness",
    [
        (RectifiedGaussian(T(0.0), T(0.0)), 0.5, 0.39894, 0.68169),
        (Poisson(T(math.log(0.01))), 0.9900, 0.01, 0.9901),
        (Poisson(T(math.log(0.1))), 0.9048, 0.1, 0.9091),
        (Poisson(T(0.0)), 0.3679, 1.0, 0.5),
        (Poisson(T(math.log(2.0))), 0.1353, 2.0, 0.3333),
    ],
)
def test_published_baselines(law, zeros, mean, sparseness):
    assert law.zero_probability.item() == pytest.approx(zeros, abs=6e-5)
    assert law.mean.item() == pytest.approx(mean, abs=6e-6)
    assert lifetime_sparseness(law).item() == pytest.approx(sparseness, abs=5e-5)
    sample = law.sample((200_000,), generator=seeded(0))
    assert (sample == 0).double().mean().item() == pytest.approx(zeros, abs=4.5 * 0.5 / math.sqrt(2e5))


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


# The table itself ------------------------------------------------------------------------------------------


def test_every_law_describes_itself(law):
    assert LAWS[law.name] is law and get_law(law.name) is law
    assert law.label and law.formula and law.mean_formula and law.variance_formula and law.fano_formula
    assert law.divergence and ("arXiv" in law.citation or "doi" in law.citation)
    for heading in (".. math::", "Parameters", "References", "Examples"):
        assert heading in law.__doc__


def test_unknown_law_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown law 'poison'.*poisson, negative_binomial.*did you mean 'poisson'"):
        get_law("poison")
