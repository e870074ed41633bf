"""Bounds of the log of a mean of likelihoods: inequalities, closed forms, gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import T, draw, seeded
from scipy.stats import norm

from spikevae.ensembles import average, pac2, pac2_tight, pac2_weight, pac_m, repulsion
from spikevae.ensembles.bounds import BOUNDS, bound_of

REPULSIVE = ("pac2", "pac2_tight", "repulsion")


@pytest.mark.parametrize("objective", REPULSIVE)
def test_jensen_and_repulsion_stay_below_the_log_of_the_mean(objective) -> None:
    """Random sets of 2 to 8 members whose log-likelihoods spread by 0.1 to 5 nats, and by hundreds."""
    generator, closest = seeded(), math.inf
    for n_members, spread in itertools.product(range(2, 9), (0.1, 0.5, 1.0, 2.0, 5.0, 300.0)):
        log_p = spread * torch.randn(n_members, 1000, dtype=torch.float64, generator=generator) - 20
        low, found, high = average(log_p), BOUNDS[objective](log_p), pac_m(log_p)
        slack = 1e-12 * high.abs()
        assert (found >= low - slack).all() and (found <= high + slack).all()
        assert (found > low).all() if spread <= 5 else True
        closest = min(closest, float(((high - found) / (high - low)).min()))
    assert closest < 0.35  # somewhere each closes most of the gap: a factor of two more would break it


def test_the_tight_weight_is_the_least_upper_bound_of_the_remainder() -> None:
    """With a factor above h, two members near enough to each other break the bound."""
    log_p = T([[0.0], [-1e-3]])
    gap = pac_m(log_p) - average(log_p)
    assert float((pac2_tight(log_p) - average(log_p)) / gap) == pytest.approx(1, rel=1e-3)
    assert float((repulsion(log_p) - average(log_p)) / gap) == pytest.approx(1, rel=1e-3)
    assert float((pac2(log_p) - average(log_p)) / gap) == pytest.approx(1, rel=2e-3)


def test_the_tight_bound_is_above_the_plain_one() -> None:
    log_p = 2 * draw(5, 1000)
    assert (pac2_tight(log_p) > pac2(log_p)).all()


def test_weight_of_the_tight_bound() -> None:
    """1/2 at zero, and the remainder of log p of second order around the mean of p, at the largest p."""
    assert float(pac2_weight(T(0.0))) == 0.5
    assert float(pac2_weight(T(-1e-9))) == pytest.approx(0.5, abs=1e-9)
    alpha = np.array([-0.01, -0.1, -0.299999, -0.300001, -1.0, -3.0])
    with np.errstate(all="raise"):
        mean, largest = np.exp(alpha).astype(np.longdouble), np.longdouble(1)
        remainder = np.log(largest / mean) - (largest - mean) / mean
    direct = -(remainder * largest**2 / (largest - mean) ** 2).astype(float)
    np.testing.assert_allclose(pac2_weight(T(alpha)), direct, rtol=1e-9)
    np.testing.assert_allclose(pac2_weight(T(alpha).float()), direct, rtol=1e-5)


def test_one_member_without_robustness_is_the_mean_to_the_bit() -> None:
    log_p = (30 * draw(1, 50)).requires_grad_()
    plain = average(log_p)
    (gradient,) = torch.autograd.grad(plain.sum(), log_p)
    for bound in BOUNDS.values():
        found = bound(log_p)
        assert torch.equal(found, plain)
        assert torch.equal(torch.autograd.grad(found.sum(), log_p)[0], gradient)


def test_gaussian_likelihood_in_closed_form() -> None:
    """y under N(theta, s²) with theta from N(mu, v): the members are quantiles, so that means are quadrature."""
    y, s, mu, v, n = 1.3, 0.7, -0.4, 0.6, 40_000
    theta = mu + math.sqrt(v) * norm.ppf((np.arange(n) + 0.5) / n)
    log_p = T(norm.logpdf(y, theta, s))[:, None]
    mean = -0.5 * math.log(2 * math.pi * s**2) - ((y - mu) ** 2 + v) / (2 * s**2)
    assert float(average(log_p)) == pytest.approx(mean, rel=1e-4)
    marginal = norm.logpdf(y, mu, math.sqrt(s**2 + v))
    assert float(pac_m(log_p)) == pytest.approx(marginal, rel=1e-6)
    for t in (0.0, 0.5, 0.9):
        expected = (math.exp(marginal) ** (1 - t) - 1) / (1 - t)
        assert float(pac_m(log_p, t)) == pytest.approx(expected, rel=1e-6)
    second = norm.pdf(y, mu, math.sqrt(s**2 / 2 + v)) / math.sqrt(4 * math.pi * s**2)  # E p²
    variance = second - math.exp(marginal) ** 2
    largest = norm.pdf(0, 0, s) ** 2  # some member is at y
    assert float(pac2(log_p)) == pytest.approx(mean + variance / (2 * largest), rel=1e-4)
    alpha = marginal - 0.5 * math.log(largest)
    h = alpha / (1 - math.exp(alpha)) ** 2 + 1 / (math.exp(alpha) * (1 - math.exp(alpha)))
    assert float(pac2_tight(log_p)) == pytest.approx(mean + h * variance / largest, rel=1e-4)


def test_two_members_by_hand() -> None:
    log_p = T([[-1.0], [-4.0]])
    p = np.exp([-1.0, -4.0])
    assert float(pac2(log_p)) == pytest.approx(-2.5 + p.var() / (2 * p.max() ** 2), rel=1e-12)
    gain = math.log(1 + (0.5 * 1.5**2 + 0.5 * 1.5**2 * math.exp(-1.5)) / 2)
    assert float(repulsion(log_p)) == pytest.approx(-2.5 + gain, rel=1e-12)


def test_more_draws_raise_the_bound() -> None:
    """The mean over all subsets of m of six draws rises with m."""
    log_p = 2 * draw(6, 40)
    means = [
        torch.stack([pac_m(log_p[list(chosen)]) for chosen in itertools.combinations(range(6), m)]).mean(0)
        for m in range(1, 7)
    ]
    torch.testing.assert_close(means[0], average(log_p))
    assert all((more > fewer).all() for fewer, more in itertools.pairwise(means))


def test_robust_weights_of_data() -> None:
    """The derivative is p^(1 - t): one for the logarithm, and small for data that no member explains."""
    log_p = T([[-2.0, -40.0, -1000.0]]).requires_grad_()
    for t, expected in ((1.0, [1, 1, 1]), (0.9, [math.exp(-0.2), math.exp(-4), math.exp(-100)])):
        (weights,) = torch.autograd.grad(pac_m(log_p, t).sum(), log_p)
        np.testing.assert_allclose(weights[0], expected, rtol=1e-12, atol=1e-15)
    log_p = 3 * draw(4, 30)
    torch.testing.assert_close(pac_m(log_p, 1 - 1e-9), pac_m(log_p))
    assert (pac_m(log_p, 0.7) >= pac_m(log_p)).all()


@pytest.mark.parametrize("objective", BOUNDS)
@pytest.mark.parametrize("robustness", [1.0, 0.6])
def test_gradients_are_those_of_the_bounds(objective, robustness) -> None:
    if robustness == 1 or objective == "pac_m":
        log_p = (1.5 * draw(4, 6)).requires_grad_()
        assert torch.autograd.gradcheck(bound_of(objective, robustness), log_p)


def test_settings_out_of_range() -> None:
    for wrong in (-0.1, 1.1, float("nan"), True, "1"):
        with pytest.raises(ValueError, match=r"robustness is .*; give a number from 0 to 1"):
            bound_of("pac_m", wrong)  # type: ignore[arg-type]
    assert bound_of("pac_m", np.float32(0.5))(torch.zeros(2, 3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="objective is 'elbo'; give one of average, pac_m"):
        bound_of("elbo")
    with pytest.raises(ValueError, match=r"robustness is 0\.5, but objective 'pac2' has none"):
        bound_of("pac2", 0.5)
