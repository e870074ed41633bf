"""Differences of free energy: closed forms, quadrature, the library pymbar, and data that say nothing."""

import logging
import math
import warnings

import numpy as np
import pytest
import scipy.stats
from free_energy_cases import Chain, Well, gaussian_works, overlap_by_quadrature
from helpers import SCORE

from spikevae.free_energy import Difference, bar, difference, mbar, zwanzig


def standard_score(found: Difference, exact: float) -> float:
    return abs(found.estimate - exact) / found.standard_error


# Gaussian works


@pytest.mark.parametrize(("mean", "sigma"), [(2.0, 1.0), (-1.0, 0.5), (0.3, 1.5)])
def test_gaussian_works_have_their_difference(mean: float, sigma: float) -> None:
    """And obey Crooks: log p_F(w) - log p_R(-w) = w - difference."""
    exact = mean - sigma**2 / 2
    at = np.linspace(-3, 3, 7)
    ratio = scipy.stats.norm(mean, sigma).logpdf(at) - scipy.stats.norm(sigma**2 - mean, sigma).logpdf(-at)
    np.testing.assert_allclose(ratio, at - exact)
    forward, reverse = gaussian_works(mean, sigma, 40_000, 20_000)
    for found in (zwanzig(forward), bar(forward, reverse)):
        assert standard_score(found, exact) < SCORE and found.standard_error < 0.03 and found.flags == ()
    found = bar(forward, reverse)
    assert found.lower == pytest.approx(mean - sigma**2, abs=0.05) and found.upper == pytest.approx(mean, abs=0.05)
    assert found.lower < found.estimate < found.upper


def test_zwanzig_has_the_error_and_the_overlap_of_gaussian_works() -> None:
    n, sigma = 200_000, 0.8
    found = zwanzig(gaussian_works(0.0, sigma, n, 1)[0])
    assert found.standard_error == pytest.approx(math.sqrt((math.exp(sigma**2) - 1) / n), rel=0.05)
    assert found.overlap == pytest.approx(math.exp(-(sigma**2)), rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(4000, 4000), (6000, 1500)])
def test_bar_has_the_overlap_and_the_error_of_quadrature(n: int, m: int) -> None:
    mean, sigma, estimates = 1.0, 2.0, []
    overlap = overlap_by_quadrature(mean, sigma, n / (n + m))
    for seed in range(200):
        found = bar(*gaussian_works(mean, sigma, n, m, seed))
        estimates.append(found.estimate)
    assert found.overlap == pytest.approx(overlap, rel=0.05)
    expected = math.sqrt((1 / n + 1 / m) * (1 / overlap - 1))
    assert found.standard_error == pytest.approx(expected, rel=0.05)
    # The standard deviation of 200 estimates has a relative error of 5 %.
    assert np.std(estimates, ddof=1) == pytest.approx(expected, rel=0.2)
    assert abs(np.mean(estimates) - (mean - sigma**2 / 2)) < SCORE * expected / math.sqrt(200)


def test_bar_equals_pymbar() -> None:
    pymbar = pytest.importorskip("pymbar")
    for seed, (n, m) in enumerate([(500, 500), (900, 200), (30, 400)]):
        forward, reverse = gaussian_works(1.0 + seed, 1.5, n, m, seed)
        found = bar(forward, reverse)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pymbar.bar(forward, reverse, uncertainty_method="MBAR")
            overlap = pymbar.bar_overlap(forward, reverse)
        assert found.estimate == pytest.approx(theirs["Delta_f"], abs=1e-8)
        assert found.standard_error == pytest.approx(theirs["dDelta_f"], rel=1e-6)
        assert found.overlap == pytest.approx(overlap, rel=1e-6)


# Other states whose difference is known


def test_two_normalised_mixtures_differ_by_nothing() -> None:
    centres = {"A": np.array([-2.0, 0.0, 2.0]), "B": np.array([-1.5, 1.0])}
    log_p = {k: lambda x, c=c: np.log(scipy.stats.norm(c, 1.0).pdf(x[:, None]).mean(1)) for k, c in centres.items()}
    rng = np.random.default_rng(0)
    a, b = (rng.choice(c, 20_000) + rng.normal(size=20_000) for c in centres.values())
    found = difference(log_p["A"](a) - log_p["B"](a), log_p["B"](b) - log_p["A"](b))
    assert standard_score(found, 0.0) < SCORE and found.standard_error < 0.01


def test_a_harmonic_chain_has_its_closed_form() -> None:
    """N log(omega_B / omega_A): by BAR, and by MBAR with states between."""
    pytest.importorskip("pymbar")
    beads, omegas = 6, np.linspace(1.0, 1.6, 4)
    chains, n = [Chain(beads, omega) for omega in omegas], 4000
    x = [chain.samples(n, seed) for seed, chain in enumerate(chains)]
    exact = beads * np.log(omegas / omegas[0])
    first, last = chains[0], chains[-1]
    found = bar(last.energy(x[0]) - first.energy(x[0]), first.energy(x[-1]) - last.energy(x[-1]))
    assert standard_score(found, exact[-1]) < SCORE and found.standard_error < 0.1
    all_of_them = np.concatenate(x)
    staged = mbar([chain.energy(all_of_them) for chain in chains], [n] * 4)
    assert standard_score(staged, exact[-1]) < SCORE and staged.standard_error < found.standard_error
    assert (np.abs(staged.free_energies - exact)[1:] < SCORE * staged.standard_errors[1:]).all()
    assert staged.free_energies[0] == staged.standard_errors[0] == 0 and staged.flags == ()
    assert staged.lower < exact[-1] < staged.upper


def test_a_double_well_has_the_difference_of_quadrature() -> None:
    a, b = Well(2.0, 0.0), Well(3.0, 0.7)
    x, y = a.samples(50_000, 0), b.samples(50_000, 1)
    forward, reverse = b.energy(x) - a.energy(x), a.energy(y) - b.energy(y)
    exact = b.free_energy() - a.free_energy()
    for found in (difference(forward), difference(forward, reverse)):
        assert standard_score(found, exact) < SCORE and found.standard_error < 0.02


def test_mbar_of_oscillators_has_their_free_energies() -> None:
    """On the test system of pymbar, whose analytic free energies are its own."""
    pytest.importorskip("pymbar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymbar.testsystems import HarmonicOscillatorsTestCase

        system = HarmonicOscillatorsTestCase(O_k=[0, 0.5, 1, 1.5], K_k=[1, 2, 4, 8])
        n = [1000, 2000, 0, 500]
        _, u, _, _ = system.sample(n, mode="u_kn", seed=3)
    found = mbar(u, n)
    exact = system.analytical_free_energies()
    np.testing.assert_allclose(exact, 0.5 * np.log([1, 2, 4, 8]))
    assert (np.abs(found.free_energies - exact)[1:] < SCORE * found.standard_errors[1:]).all()
    assert found.standard_error < 0.1 and found.samples == (1000, 2000, 0, 500)


def test_mbar_of_two_states_is_bar() -> None:
    pytest.importorskip("pymbar")
    forward, reverse = gaussian_works(1.0, 1.2, 700, 400)
    u = np.zeros((2, 1100))
    u[1, :700], u[0, 700:] = forward, reverse
    found, theirs = bar(forward, reverse), mbar(u, [700, 400])
    for name in ("estimate", "standard_error", "overlap", "lower", "upper"):
        assert getattr(theirs, name) == pytest.approx(getattr(found, name), rel=1e-5), name


# What says little


def test_states_without_overlap_are_flagged_with_the_number() -> None:
    rng = np.random.default_rng(0)
    forward, reverse = rng.normal(60.0, 1.0, 2000), rng.normal(40.0, 1.0, 2000)
    found = bar(forward, reverse)
    assert found.overlap < 1e-15 and found.standard_error > 1e5
    assert found.flags[0].startswith(f"overlap {found.overlap:.2g}") and "add states" in found.flags[0]
    sigma = 6.0  # the exponential average is that of one or two samples, and 10 kT too high
    alone = zwanzig(rng.normal(0.0, sigma, 1000))
    assert alone.estimate > -(sigma**2) / 2 + 4 and "overlap" in alone.flags[0]


def test_mbar_without_overlap_is_flagged(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pymbar")
    x = np.concatenate([np.random.default_rng(0).normal(c, 0.1, 300) for c in (0.0, 30.0, 60.0)])
    before = np.geterr()
    found = mbar([(x - c) ** 2 / 0.02 for c in (0.0, 30.0, 60.0)], [300] * 3)
    assert found.flags and "overlap" in found.flags[0] and found.overlap < 1e-6
    assert not found.standard_error < 10
    assert np.geterr() == before and logging.getLogger("pymbar").propagate and not caplog.records


def test_mbar_takes_samples_that_both_ends_forbid() -> None:
    """A state between that is wider than both: the difference of boxes [0, 1] and [2, 2.5] is log 2."""
    pytest.importorskip("pymbar")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 1, 400), rng.uniform(0, 3, 400), rng.uniform(2, 2.5, 400)])
    inside = np.stack([x < 1, x < 3, (x > 2) & (x < 2.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mbar(np.where(inside, 0.0, np.inf), [400] * 3)
    assert standard_score(found, math.log(2)) < SCORE and found.standard_error < 0.2
    assert found.upper == math.inf and found.lower == -math.inf


def test_single_samples_have_no_error() -> None:
    for found in (zwanzig([1.0]), bar([1.0], [-0.5]), bar([1.0], [-0.5, -0.4])):
        assert math.isinf(found.standard_error)
        assert any("1 sample of state A: too few" in flag for flag in found.flags)


def test_forbidden_samples_have_infinite_work() -> None:
    """B is A with x < 1 alone, so that the difference is minus the logarithm of its probability."""
    x = np.random.default_rng(0).exponential(1.0, 20_000)
    forward, reverse = np.where(x < 1, 0.0, np.inf), np.zeros(5000)
    exact = -math.log(1 - math.exp(-1))
    for found in (zwanzig(forward), bar(forward, reverse)):
        assert standard_score(found, exact) < SCORE and found.standard_error < 0.03
    assert bar(forward, reverse).upper == math.inf and bar(forward, reverse).lower == 0
    nothing = bar([np.inf] * 20, [0.0] * 20)
    assert math.isnan(nothing.estimate) and nothing.overlap == 0 and math.isinf(nothing.standard_error)
    assert zwanzig([np.inf] * 20).estimate == math.inf and zwanzig([np.inf] * 20).flags


def test_constant_works_have_no_error() -> None:
    found = bar(np.full(50, 3.0), np.full(20, -3.0))
    assert (
        found.estimate == 3.0
        and found.standard_error < 1e-7
        and found.overlap == pytest.approx(1)
        and found.flags == ()
    )
    assert zwanzig(np.full(50, 3.0)).standard_error == 0.0


def test_large_works_are_solved() -> None:
    forward, reverse = gaussian_works(1e6, 1.0, 500, 500)
    assert bar(forward, reverse).estimate == pytest.approx(1e6 - 0.5, abs=0.2)


def test_a_reverse_work_with_the_wrong_sign_is_flagged() -> None:
    forward, reverse = gaussian_works(5.0, 1.0, 500, 500)
    assert difference(forward, reverse).flags == ()
    assert any("bounds cross" in flag for flag in difference(forward, -reverse - 10).flags)


WRONG = {
    "forward is nan for 1 of 3 samples, first for sample 1": lambda: bar([1.0, np.nan, 2.0], [0.0]),
    "reverse is -inf": lambda: bar([1.0], [0.0, -np.inf]),
    "forward has shape (0,)": lambda: zwanzig([]),
    "forward has shape (1, 2)": lambda: zwanzig([[1.0, 2.0]]),
    "forward holds something other than numbers": lambda: zwanzig(["a"]),
    "reverse has 1 masked": lambda: bar([1.0], np.ma.masked_invalid([np.nan, 1.0])),
    "method is 'crooks'": lambda: difference([1.0], method="crooks"),
    "needs the works of samples of both": lambda: difference([1.0], method="bar"),
    "u_kn has shape (3,)": lambda: mbar(np.zeros(3), [3]),
    "n_k is [1.5, 0.5]": lambda: mbar(np.zeros((2, 2)), [1.5, 0.5]),
    "n_k sums to 3": lambda: mbar(np.zeros((2, 2)), [2, 1]),
    "samples of one state only": lambda: mbar(np.zeros((2, 2)), [2, 0]),
    "for sample 1, of state 0": lambda: mbar([[0.0, np.inf, 0.0], [0.0, 0.0, 0.0]], [2, 1]),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_named(message: str) -> None:
    with pytest.raises(ValueError) as error:
        WRONG[message]()
    assert message in str(error.value) and "\n" not in str(error.value)
