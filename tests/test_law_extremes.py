"""Laws at extreme parameters in float32, and the published baselines."""

import math

import numpy as np
import pytest
import torch
from helpers import T, seeded
from law_cases import Rectified, same
from scipy import special, stats
from torch.distributions import kl_divergence

from spikevae.distributions import (
    Poisson,
    RectifiedGaussian,
)

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
    reference = Rectified(ratio * math.exp(log_scale), math.exp(log_scale))
    q = RectifiedGaussian(T(reference.loc), T(log_scale))
    variance = reference.var() if ratio < 5 else scale**2  # there the reference's subtraction is the worse
    same(q.mean, reference.mean(), 1e-11)
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
