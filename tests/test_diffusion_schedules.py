"""Schedules and their divergences, against closed forms, enumeration, quadrature and simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from diffusion_cases import divergence_at_knots, gaussian_curve, points_curve, points_denoiser, points_mmse
from helpers import SCORE, T, seeded

from spikevae.diffusion import (
    SCHEDULES,
    NoiseBins,
    NoiseCurve,
    cosine,
    discretisation,
    edm,
    log_snr,
    loss_adaptive,
    optimal,
    run,
    simulated_discretisation,
    uniform,
)

POINTS, CHANCES = [-2.0, 0.0, 1.0, 3.0], [0.1, 0.4, 0.3, 0.2]


def of_gaussian(knots: np.ndarray) -> float:
    """Closed form for a standard normal X."""
    return 0.5 * float((np.diff(knots) / (1 + knots[:-1])).sum() - math.log1p(knots[-1]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uniform", (11.08, 5.18, 2.36, 1.06)),
        ("log_snr", (8.07, 1.80, 0.669, 0.294)),
        ("loss_adaptive", (2.033, 0.814, 0.367, 0.175)),
        ("optimal", (2.033, 0.815, 0.367, 0.175)),
    ],
)
def test_divergences_of_a_gaussian_are_those_computed_before(name: str, expected: tuple[float, ...]) -> None:
    curve = gaussian_curve(100)
    for steps, value in zip((4, 8, 16, 32), expected):
        knots = SCHEDULES[name](curve, steps)
        assert of_gaussian(knots) == pytest.approx(value, rel=2e-3)
        assert discretisation(curve, knots) == pytest.approx(of_gaussian(knots), rel=1e-3)


def test_half_the_integral_is_information() -> None:
    assert gaussian_curve(50, 2.0).information == pytest.approx(0.5 * math.log(101), abs=1e-5)
    assert points_curve([-1, 1], [0.5, 0.5], 60).information == pytest.approx(math.log(2), abs=1e-5)
    entropy = -sum(p * math.log(p) for p in CHANCES)
    assert points_curve(POINTS, CHANCES, 120).information == pytest.approx(entropy, abs=1e-5)


def test_errors_of_two_points_are_those_of_the_hyperbolic_tangent() -> None:
    from scipy.integrate import quad
    from scipy.stats import norm

    for snr in (0.3, 2.0, 7.0):
        mean, _ = quad(lambda z, s=snr: norm.pdf(z) * math.tanh(s + math.sqrt(s) * z), -12, 12)
        assert points_mmse(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), snr)[0] == pytest.approx(1 - mean, abs=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_divergence_is_that_of_the_joint_gaussians_at_the_knots(name: str) -> None:
    """KL of N(0, P) from N(0, Q): covariances at the knots of the exact process and of the chain with frozen drift."""
    curve = gaussian_curve(30)
    knots = SCHEDULES[name](curve, 6)
    low, high, steps = knots[:-1], knots[1:], np.diff(knots)
    exact = np.outer(high, high) + np.minimum.outer(high, high)
    mixing = np.zeros((6, 6))  # Y at the knots as a linear function of the noises of the steps
    row = np.zeros(6)
    for k in range(6):
        row = row * (1 + steps[k] / (1 + low[k]))
        row[k] = math.sqrt(steps[k])
        mixing[k] = row
    chain = mixing @ mixing.T
    determinants = np.linalg.slogdet(chain)[1] - np.linalg.slogdet(exact)[1]
    expected = 0.5 * (np.trace(np.linalg.solve(chain, exact)) - 6 + determinants)
    assert discretisation(curve, knots) == pytest.approx(expected, rel=2e-3)


def test_divergence_of_two_points_by_quadrature() -> None:
    """And with a linear denoiser in the chain: its loss takes the place of the least one in the sum."""
    knots = np.array([0.0, 0.4, 1.3, 2.5, 6.0])
    curve = points_curve([-1, 1], [0.5, 0.5], 6.0)
    assert discretisation(curve, knots) == pytest.approx(divergence_at_knots(knots, lambda y, _: np.tanh(y)), abs=2e-5)
    loss = 1 / (1 + knots[:-1])
    expected = 0.5 * loss @ np.diff(knots) - curve.information
    assert divergence_at_knots(knots, lambda y, snr: y / (1 + snr)) == pytest.approx(expected, abs=2e-5)
    matched = divergence_at_knots(knots, lambda y, _: np.tanh(y), variance=curve)
    assert discretisation(curve, knots, dimension=1) == pytest.approx(matched, abs=2e-5)


@pytest.mark.parametrize("n_points", [2, 5])
def test_simulated_divergence_is_that_of_the_formula(n_points: int) -> None:
    """100,000 paths: the standard error is below 1 % of the divergence, and the mean within 4.5 of them."""
    line = [-1.0, 1.0] if n_points == 2 else [-2.0, -0.5, 0.0, 1.0, 3.0]
    chances = [0.5, 0.5] if n_points == 2 else [0.1, 0.3, 0.1, 0.3, 0.2]
    points, weights = T(line)[:, None], T(chances)
    chosen = torch.multinomial(weights, 100_000, replacement=True, generator=seeded())
    knots = np.array([0.0, 0.5, 1.5, 4.0])
    found = simulated_discretisation(
        points[chosen], points_denoiser(points, weights), knots, generator=seeded(1)
    ).numpy()
    error = found.std() / math.sqrt(len(found))
    expected = discretisation(points_curve(line, chances, 4.0), knots)
    assert error < 0.01 * expected and abs(found.mean() - expected) < SCORE * error


def test_draws_of_the_exact_gaussian_denoiser_have_the_analytic_variance() -> None:
    """60,000 draws in two dimensions: the standard error of the variance is 0.4 %."""
    n, curve = 60_000, gaussian_curve(100)
    for name in ("loss_adaptive", "uniform"):
        knots = SCHEDULES[name](curve, 5)
        variance = 0.0
        for low, high in itertools.pairwise(knots):
            variance = variance * (1 + (high - low) / (1 + low)) ** 2 + high - low
        variance /= 101**2
        draws = run(lambda y, snr: y / (1 + snr), knots, n, 2, generator=seeded(), dtype=torch.float64)
        assert abs(draws.square().mean().item() / variance - 1) < SCORE / math.sqrt(n)
        assert variance < 0.99  # few steps draw too near the mean; the exact variance is 100 / 101
    assert abs(draws.mean(0)).max() < SCORE * math.sqrt(variance / n)


def test_matched_noise_makes_steps_of_a_gaussian_exact() -> None:
    """And of unequal variances, the divergence of the joint Gaussians at the knots is that of the formula."""
    knots = np.array([0.0, 3.0, 20.0])
    draws = run(
        lambda y, snr: y / (1 + snr),
        knots,
        60_000,
        1,
        generator=seeded(),
        variance=lambda snr: 1 / (1 + snr),
        dtype=torch.float64,
    )
    assert abs(draws.var().item() / (20 / 21) - 1) < SCORE * math.sqrt(2 / 60_000)
    variances = np.array([2.5, 0.5])
    curve = NoiseCurve.of_function(lambda snr: (variances / (1 + variances * snr[:, None])).sum(1), 20)
    expected = 0.0
    for low, high in itertools.pairwise(knots):
        inner = variances / (1 + variances * low)  # of X given Y, and of the next Y given this one
        exact, step = (high - low) * (1 + inner * (high - low)), high - low
        chain = step + inner.mean() * step**2
        expected += 0.5 * (exact / chain - 1 - np.log(exact / chain)).sum()
    assert discretisation(curve, knots, dimension=2) == pytest.approx(expected, rel=2e-3)
    assert discretisation(curve, knots, dimension=2) < 0.2 * discretisation(curve, knots)


def test_draws_of_points_have_their_probabilities() -> None:
    points, weights = T(POINTS)[:, None], T(CHANCES)
    knots = optimal(points_curve(POINTS, CHANCES, 60), 40)
    draws = run(points_denoiser(points, weights), knots, 20_000, 1, generator=seeded(), dtype=torch.float64)
    nearest = (draws - points.mT).abs().argmin(1)
    shares = torch.bincount(nearest, minlength=4) / 20_000
    # By Pinsker's inequality the divergence of the steps moves no share by more than its root over 2.
    slack = math.sqrt(discretisation(points_curve(POINTS, CHANCES, 60), knots) / 2)
    assert ((shares - weights).abs() < SCORE * (weights * (1 - weights) / 20_000).sqrt() + slack).all()
    assert (draws - points[nearest]).abs().mean() < 1e-3 and (shares - weights).abs().max() < 0.03


@pytest.mark.parametrize("dimension", [None, 3])
def test_optimal_knots_are_those_of_enumeration(dimension: int | None) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        snr = np.concatenate([[0], np.cumsum(rng.exponential(size=9))])
        curve = NoiseCurve(snr, np.sort(rng.exponential(size=10))[::-1])
        for steps in (1, 2, 4, 9):
            choices = [np.concatenate([[0], inner, snr[-1:]]) for inner in itertools.combinations(snr[1:-1], steps - 1)]
            best = min(choices, key=lambda knots, c=curve: discretisation(c, knots, dimension=dimension))
            np.testing.assert_array_equal(optimal(curve, steps, candidates=snr, dimension=dimension), best)


CURVES = {
    "gaussian": gaussian_curve(100),
    "wide and narrow": NoiseCurve.of_function(lambda snr: 9 / (1 + 9 * snr) + 0.1 / (1 + 0.1 * snr), 1000),
    "points": points_curve(POINTS, CHANCES, 40),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_optimal_is_below_all_others_and_divergences_fall_with_refinement(curve: NoiseCurve, steps: int) -> None:
    found = {name: schedule(curve, steps) for name, schedule in SCHEDULES.items()}
    values = {name: discretisation(curve, knots) for name, knots in found.items()}
    for name, knots in found.items():
        assert len(knots) == steps + 1 and knots[0] == 0 and knots[-1] == curve.snr_max and (np.diff(knots) > 0).all()
        assert values[name] >= values["optimal"] * (1 - 1e-2 * (name != "loss_adaptive")) > 0
        finer = np.sort(np.concatenate([knots, (knots[1:] + knots[:-1]) / 2]))
        assert discretisation(curve, finer) < values[name]
    best = discretisation(curve, optimal(curve, steps, dimension=4), dimension=4)
    adapted = discretisation(curve, loss_adaptive(curve, steps, dimension=4), dimension=4)
    others = [discretisation(curve, knots, dimension=4) for knots in found.values()]
    assert best <= min(adapted, *(1.01 * value for value in others)) * (1 + 1e-9)
    if steps == 32:
        assert values["loss_adaptive"] < 1.6 * values["optimal"]


def test_loss_adaptive_reaches_the_rate_of_many_steps() -> None:
    """(integral of the root of minus the slope)² / 4 K, and no schedule can do better."""
    curve, steps = NoiseCurve.of_function(lambda snr: 9 / (1 + 9 * snr) + 0.1 / (1 + 0.1 * snr), 1000), 300
    snr = np.concatenate([[0], np.geomspace(1e-6, 1000, 200_000)])
    slope = 81 / (1 + 9 * snr) ** 2 + 0.01 / (1 + 0.1 * snr) ** 2
    matched = slope - 0.5 * (9 / (1 + 9 * snr) + 0.1 / (1 + 0.1 * snr)) ** 2
    least = np.trapezoid(np.sqrt(matched), snr) ** 2 / (4 * steps)
    knots = loss_adaptive(curve, steps, dimension=2)
    assert discretisation(curve, knots, dimension=2) == pytest.approx(least, rel=0.03)
    assert discretisation(curve, loss_adaptive(curve, steps), dimension=2) > 1.2 * least
    rate = np.trapezoid(np.sqrt(slope), snr) ** 2 / (4 * steps)
    assert discretisation(curve, loss_adaptive(curve, steps)) == pytest.approx(rate, rel=0.03)
    assert discretisation(curve, uniform(curve, steps)) > 5 * rate
    logarithms = np.log1p(loss_adaptive(gaussian_curve(100), 8))
    np.testing.assert_allclose(np.diff(logarithms), math.log(101) / 8, rtol=2e-3)


def test_knots_of_published_schedules() -> None:
    curve, steps = gaussian_curve(400), 9
    i = np.arange(steps)
    sigma = (10 ** (1 / 7) + i / (steps - 1) * (0.05 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    np.testing.assert_allclose(edm(curve, steps)[1:], 1 / sigma**2)
    alpha = cosine(curve, steps) / (1 + cosine(curve, steps))  # of sqrt(alpha) X + sqrt(1 - alpha) Z
    angle = np.arccos(np.sqrt(alpha))
    np.testing.assert_allclose(np.diff(angle), np.diff(angle).mean())
    np.testing.assert_allclose(np.diff(np.log(log_snr(curve, steps, first=0.5)[1:])), math.log(800) / 8)


def test_measured_losses_become_a_falling_curve() -> None:
    rng = np.random.default_rng(0)
    snr = np.geomspace(1e-3, 100, 40)
    weight = rng.uniform(200, 2000, 40)
    exact = 3 / (1 + snr)
    loss = exact * (1 + rng.normal(size=40) / np.sqrt(weight))
    curve = NoiseCurve.of_losses(snr, loss, weight, variance=3.0, snr_max=120)
    assert curve.mmse[0] == 3 and curve.snr_max == 120
    at = np.geomspace(1e-3, 120, 500)
    np.testing.assert_allclose(curve(at), 3 / (1 + at), rtol=0.12)
    assert discretisation(curve, loss_adaptive(curve, 8)) == pytest.approx(
        3 * of_gaussian(np.expm1(np.linspace(0, math.log(121), 9))), rel=0.1
    )
    less = NoiseCurve.of_losses(snr, loss, np.where(snr > 5, 0, weight), variance=3.0, snr_max=120)
    np.testing.assert_allclose(less(snr[snr < 4]), curve(snr[snr < 4]), rtol=0.05)


def test_bins_forget_early_losses() -> None:
    bins = NoiseBins(0.01, 100, 20, memory=5)
    snr = np.geomspace(0.0101, 99, 400)
    for step in range(60):
        bins.add(snr, (2 / (1 + snr)) * (1 + 20 * (step < 10)))
    curve = bins.curve(2.0)
    np.testing.assert_allclose(curve(snr[40:360]), 2 / (1 + snr[40:360]), rtol=0.03)
    assert bins.weight.sum() == pytest.approx(400 * (1 - math.exp(-12)) / (1 - math.exp(-1 / 5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: NoiseCurve([0, 1], [1, math.nan]), "mmse has 1 entries that are not finite: leave them out"),
        (lambda c: NoiseCurve([0, 1], [[1, 0]]), r"mmse has shape \(1, 2\); give \(n,\) numbers"),
        (lambda c: NoiseCurve([0], [1]), r"snr and mmse have shapes \(1,\) and \(1,\); give two points or more"),
        (lambda c: NoiseCurve([1, 2], [1, 0]), "snr must rise from 0: sort the points"),
        (lambda c: NoiseCurve([0, 1, 2], [1, 0, 0.5]), "mmse must fall from the first to the last point"),
        (lambda c: NoiseCurve([0, 1], [1, 1]), "mmse must fall from the first to the last point"),
        (lambda c: NoiseCurve.of_function(lambda s: 1 / (1 + s), 0), "snr_max is 0; give a positive number"),
        (
            lambda c: NoiseCurve.of_losses([1, 2], [3, 3], [1, 1], variance=2.0, snr_max=2),
            "the loss is nowhere below the variance of X: the denoiser has learned nothing; take more steps",
        ),
        (
            lambda c: NoiseCurve.of_losses([0, 2], [1, 1], [1, 1], variance=2.0, snr_max=2),
            "the curve needs losses above 0 at signal-to-noise ratios above 0",
        ),
        (
            lambda c: NoiseCurve.of_losses([1, 2], [1, 1], [1], variance=2.0, snr_max=2),
            "snr, loss and weight have 2, 2 and 1 entries; give equal",
        ),
        (lambda c: uniform(c, 0), "steps is 0; give a whole number, 1 or more"),
        (lambda c: optimal(c, 2.5), "steps is 2.5; give a whole number, 1 or more"),
        (lambda c: log_snr(c, 3, first=100), "first is 100, and the curve ends at 100; give a lower one"),
        (lambda c: edm(c, 3, rho=-1), "rho is -1; give a positive number"),
        (lambda c: optimal(c, 3, candidates=[0, 1, 100]), "candidates must be 4 or more, and rise from 0 to 100"),
        (lambda c: optimal(c, 2, candidates=[0, 1, 99]), "candidates must be 3 or more, and rise from 0 to 100"),
        (lambda c: discretisation(c, [0, 1, 101]), "the last knot is 101, beyond the curve, which ends at 100"),
        (lambda c: discretisation(c, [0, 1], dimension=0), "dimension is 0; give a whole number, 1 or more"),
        (lambda c: discretisation(c, [1, 2]), "knots must be two or more and rise from 0"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(CURVES["gaussian"])
    assert len(str(caught.value).splitlines()) == 1


def test_samples_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of 3 samples are not finite: the denoiser gives estimates that are no num"):
        run(lambda y, snr: y / 0, [0, 1], 3, 2, generator=seeded())


def test_a_curve_keeps_its_numbers() -> None:
    snr, mmse = np.array([0.0, 1.0]), np.array([2.0, 1.0])
    curve = NoiseCurve(snr, mmse)
    snr[1] = mmse[1] = np.nan
    assert curve.information == pytest.approx(0.75)


def test_a_curve_of_losses_leaves_out_half_the_integral_of_what_they_exceed() -> None:
    """X = ±1 with a linear denoiser: the divergence is what steps add, and half the integral of loss minus mmse."""
    knots, exact = np.array([0.0, 0.4, 1.3, 2.5, 6.0]), points_curve([-1, 1], [0.5, 0.5], 6.0)
    losses = gaussian_curve(6.0)
    added = discretisation(losses, knots)
    whole = divergence_at_knots(knots, lambda y, snr: y / (1 + snr))
    assert whole == pytest.approx(added + losses.information - exact.information, abs=1e-4)
