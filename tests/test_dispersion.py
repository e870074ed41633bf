"""Fano factors and the dispersion test: exact for few spikes, uniform under Poisson."""

import math

import numpy as np
import pytest
from scipy import stats

from spikevae.count_fits import fit_counts
from spikevae.count_fits.dispersion import coincidences, dispersion_p
from spikevae.count_fits.moments import describe_units


def test_dispersion_test_is_uniform_under_poisson():
    """300 units of Poisson counts: p-values are uniform (Kolmogorov-Smirnov p > 1e-3), next to none is discovered."""
    found = fit_counts(np.random.default_rng(11).poisson(3.0, (200, 300)), ["poisson"])
    assert stats.kstest([row["p_value"] for row in found.units], "uniform").pvalue > 1e-3
    assert sum(row["dispersion"] != "neither" for row in found.units) <= 3
    z = np.random.default_rng(11).poisson(3.0, (200, 300))[:, 0]
    assert found.units[0]["index"] == pytest.approx(((z - z.mean()) ** 2).sum() / z.mean())


def test_coincidences_of_three_spikes():
    """By hand: none n - 1 times n - 2 of n^2, three pairs 1 of n^2."""
    law = coincidences(np.array([3]), 200)[3]
    np.testing.assert_allclose(law, [199 * 198 / 200**2, 3 * 199 / 200**2, 0, 1 / 200**2], atol=1e-13)


def test_coincidences_of_two_trials_are_binomial():
    """Of two trials one has z of T spikes, binomial; neighbouring totals come from one characteristic function."""
    for total, law in coincidences(np.arange(55, 70), 2).items():
        z = np.arange(total + 1)
        pairs = (z * (z - 1) + (total - z) * (total - z - 1)) // 2
        expected = np.bincount(pairs, weights=stats.binom(total, 0.5).pmf(z), minlength=len(law))
        np.testing.assert_allclose(law, expected[: len(law)], atol=1e-12)
        assert expected[len(law) :].sum() < 1e-12


def test_dispersion_test_is_exact_for_few_spikes():
    """Three spikes of which two coincide: p = 2 (1 - 199 * 198 / 200^2). Three alone are as Poisson has it."""
    z = np.zeros((200, 4), dtype=int)
    z[[0, 1], 0] = 2, 1
    z[:3, 1] = 1
    z[0, 2] = 3
    p = dispersion_p(z)
    assert p[:3] == pytest.approx([2 * (1 - 199 * 198 / 200**2), 1.0, 2 / 200**2])
    assert math.isnan(p[3])


def test_dispersion_test_goes_over_into_chi_squared():
    """Either side of 50 sqrt(n) spikes the exact p-values and chi-squared differ by a few per cent."""
    z = np.random.default_rng(2).poisson(6.5, (60, 40))
    z = z[:, z.sum(0) < 50 * math.sqrt(60)]
    index = ((z - z.mean(0)) ** 2).sum(0) / z.mean(0)
    theirs = np.minimum(1, 2 * np.minimum(stats.chi2.cdf(index, 59), stats.chi2.sf(index, 59)))
    assert z.shape[1] > 15
    np.testing.assert_allclose(dispersion_p(z), theirs, atol=0.03)
    assert (dispersion_p(z) != theirs).all()


@pytest.mark.parametrize(("n", "rate"), [(100, 0.02), (50, 0.2), (100, 0.2), (200, 0.05)])
def test_dispersion_test_holds_its_false_discovery_rate(n, rate):
    """40 runs of 200 Poisson units: six or more with a discovery have p = .014 at .05; chi-squared has ten and more."""
    runs = [describe_units(np.random.default_rng(seed).poisson(rate, (n, 200))) for seed in range(40)]
    assert sum(any(unit["dispersion"] != "neither" for unit in units) for units in runs) <= 5


def test_over_dispersion_of_sparse_units_is_found():
    """Mean .1, Fano factor 3, 400 trials: of 30 such units among 270 Poisson ones all but a few are found."""
    rng = np.random.default_rng(4)
    z = np.concatenate([rng.negative_binomial(0.05, 1 / 3, (400, 30)), rng.poisson(0.1, (400, 270))], 1)
    words = [unit["dispersion"] for unit in fit_counts(z, "poisson").units]
    assert words[:30].count("over") >= 24 and words[30:].count("neither") >= 266


def test_fano_errors_cover():
    rng = np.random.default_rng(13)
    found = fit_counts(rng.negative_binomial(3, 0.5, (2000, 150)), ["poisson"])
    score = [(row["fano"] - 2.0) / row["fano_se"] for row in found.units]
    assert 0.8 < np.std(score) < 1.25 and abs(np.mean(score)) < 0.4
