"""The laws of the code: one table of cases, each property one parametrised test.

References are SciPy distributions, enumeration and quadrature in float64. Seeds are fixed; goodness-of-fit
tests ask p > 1e-4. Formulas are compared by relative error alone (`same`), small values like large ones.
"""

import math

import numpy as np
import pytest
import torch
from helpers import T, seeded
from law_cases import CASES, COUNTS, parameters_of, same
from scipy import integrate, stats
from torch.distributions import kl_divergence

from spikevae.distributions import (
    LAWS,
    Binomial,
    Categorical,
    Gaussian,
    GaussianExp,
    GaussianSoftplus,
    GeneratorStack,
    Laplace,
    Poisson,
    RectifiedGaussian,
    get_law,
)
from spikevae.distributions._law import Law
from spikevae.distributions._random import poisson, standard_normal


@pytest.fixture(params=CASES)
def case(request):
    law, parameters, reference, points = CASES[request.param]
    return law(**{key: T(value) for key, value in parameters.items()}), reference, points


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


def test_the_table_holds_every_law():
    """Categorical units depend on each other: test_law_numerics.py has them against torch, by groups."""
    assert {law for law, *_ in CASES.values()} | {Categorical} == set(LAWS.values())


# Each property of the table -------------------------------------------------------------------------------


def test_log_prob_agrees_with_the_reference(case):
    ours, reference, points = case
    expected = reference.logpmf(points) if ours.is_count else reference.logpdf(points)
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


def test_moments_agree_with_the_reference(case):
    ours, reference, _ = case
    same(ours.mean, reference.mean(), 1e-11)
    same(ours.variance, reference.var(), 1e-11)
    zero = reference.pmf(0) if ours.is_count else float(reference.cdf(0)) if ours.has_rate else 0.0
    same(ours.zero_probability, zero, 1e-12)


def test_samples_have_the_law(case):
    """Chi-square for counts; Kolmogorov-Smirnov for densities, and a test of the mass at zero."""
    ours, reference, _ = case
    n = 50_000
    z = ours.sample((n,), generator=seeded(1)).numpy()
    if ours.is_count:
        assert (z == z.round()).all() and (z >= 0).all()
        top = max(1, int(reference.ppf(1 - 20 / n)))
        seen = np.bincount(np.minimum(z.astype(int), top), minlength=top + 1)
        expected = n * np.append(reference.pmf(np.arange(top)), reference.sf(top - 1))
        keep = expected > 5  # too rare counts are judged together
        seen, expected = (np.append(v[keep], v[~keep].sum()) if (~keep).any() else v for v in (seen, expected))
        assert stats.chisquare(seen, expected).pvalue > 1e-4
    elif ours.has_rate:
        assert (z >= 0).all()
        zeros, mass = int((z == 0).sum()), float(reference.cdf(0))
        assert stats.binomtest(zeros, n, mass).pvalue > 1e-4
        assert stats.kstest(z[z > 0], lambda x: (reference.cdf(x) - mass) / (1 - mass)).pvalue > 1e-4
    else:
        assert stats.kstest(z, reference.cdf).pvalue > 1e-4


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


def test_sampling_with_a_generator_leaves_the_global_state(law):
    q = law(**parameters_of(law, 3))
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


# All noise is equal bit for bit; for functions of it the last bit depends on the position of an entry in memory.
BITWISE = (Poisson, Gaussian, RectifiedGaussian, Laplace, Binomial)


def test_batches_equal_single_calls_bit_for_bit(law):
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
        entry = raw[i].detach().requires_grad_()
        z_alone, hard_alone, value_alone = loss(entry, seeded(i))
        value_alone.sum().backward()
        assert torch.equal(hard[i], hard_alone)
        if law in BITWISE:
            assert torch.equal(z[i], z_alone)
        else:
            torch.testing.assert_close(z[i], z_alone)
        torch.testing.assert_close(raw.grad[i], entry.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-4)])
@pytest.mark.parametrize("clamp", [None, 3.0])
@pytest.mark.parametrize("residual", [True, False])
def test_encode_gives_what_the_laws_methods_give(law, residual, clamp, dtype, tolerance):
    """Averages of a batch and all their gradients, by `encode` and by the methods in float64; two batches."""
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
        for entry in range(2):
            prior = law.from_prior({key: value[entry].to(dtype) for key, value in before.items()})
            q = law.from_encoder(drawn[entry].to(dtype), prior if residual else None, clamp=clamp)
            torch.testing.assert_close(moments[0][entry], q.moments().mean(-2), rtol=tolerance, atol=tolerance)


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
def test_draws_differ_between_entries(draw):
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
