"""Slopes and trend tests against known answers, SciPy and full enumeration."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from spikevae.reporting.trend import inversion_law, monotonicity, slope_per_decade

BETAS = np.array([0.01, 0.1, 0.5, 1, 1.5, 2, 4, 8])


def table(rows, betas=BETAS):
    """Flat columns of a (seeds, betas) table."""
    rows = np.asarray(rows, dtype=float)
    seeds = np.repeat(np.arange(len(rows)), rows.shape[1])
    return np.tile(betas[: rows.shape[1]], len(rows)), rows.ravel(), seeds


def test_slope_is_per_tenfold_of_beta():
    line = 0.3 + 0.08 * np.log10(BETAS)
    slope = slope_per_decade(*table([line]))
    assert slope.estimate == pytest.approx(0.08, abs=1e-12)
    assert slope.interval == "regression over betas"
    assert (slope.low, slope.high) == pytest.approx((0.08, 0.08), abs=1e-9)


def test_interval_over_seeds_is_scipys_t_interval_of_the_slopes():
    rng = np.random.default_rng(0)
    rows = 0.1 * np.log10(BETAS) + rng.normal(scale=0.02, size=(5, len(BETAS)))
    slopes = [stats.linregress(np.log10(BETAS), row).slope for row in rows]
    expected = stats.t.interval(0.95, 4, loc=np.mean(slopes), scale=stats.sem(slopes))
    slope = slope_per_decade(*table(rows))
    assert slope.interval == "t over seeds" and slope.n_seeds == 5
    assert (slope.low, slope.high) == pytest.approx(expected, rel=1e-10)


def test_one_seed_gives_scipys_regression_interval():
    row = np.sin(np.arange(8.0))
    fit = stats.linregress(np.log10(BETAS), row)
    half = stats.t.ppf(0.975, 6) * fit.stderr
    slope = slope_per_decade(*table([row]))
    assert (slope.low, slope.high) == pytest.approx((fit.slope - half, fit.slope + half), rel=1e-10)
    assert "one seed" in slope.describe


def test_two_seeds_give_their_range_and_say_so():
    x = np.log10(BETAS)
    slope = slope_per_decade(*table([0.1 * x, 0.3 * x]))
    assert (slope.estimate, slope.low, slope.high) == pytest.approx((0.2, 0.1, 0.3))
    assert slope.interval == "range of seeds" and slope.describe == "range of 2 seeds"


def test_too_little_data_has_no_interval_and_does_not_raise():
    two = slope_per_decade([1, 10], [0.0, 3.0], [0, 0])
    assert two.estimate == pytest.approx(3.0) and two.interval == "none" and math.isnan(two.low)
    assert math.isnan(slope_per_decade([1], [0.5], [0]).estimate)
    one = monotonicity([1], [0.5], [0], "up")
    assert not one.holds and math.isnan(one.p_value) and one.violation == 0
    nothing = monotonicity([1.0], [math.nan], [0], "up")
    assert not nothing.holds and math.isnan(nothing.change)


def test_unfinished_fits_are_left_out():
    beta, value, seed = table([[0, 1, 2, 3.0], [0, 1, math.nan, 3.0]], betas=np.array([1e-2, 1e-1, 1, 10]))
    slope = slope_per_decade(beta, value, seed)
    assert slope.estimate == pytest.approx(1.0) and slope.n_seeds == 2
    assert monotonicity(beta, value, seed, "up").tau == 1.0


@pytest.mark.parametrize(
    ("beta", "seed", "message"), [([0.0, 1.0], [0, 0], "positive"), ([1.0, 1.0], [0, 0], "given twice")]
)
def test_bad_columns_are_named(beta, seed, message):
    for call in (slope_per_decade, lambda *a: monotonicity(*a, "up")):
        with pytest.raises(ValueError, match=message):
            call(beta, [1.0, 2.0], seed)
    with pytest.raises(ValueError, match="equal vectors"):
        slope_per_decade([1.0, 2.0], [1.0], [0, 0])


@pytest.mark.parametrize("ties", [[1] * 5, [2, 1, 1], [3, 2], [2, 2, 1], [4], [1]])
def test_inversion_law_equals_enumeration(ties):
    values = [group for group, count in enumerate(ties) for _ in range(count)]
    counts = np.zeros(len(inversion_law(ties)))
    for order in permutations(values):
        counts[sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))] += 1
    np.testing.assert_allclose(inversion_law(ties), counts / counts.sum(), atol=1e-15)


def test_one_seed_equals_scipys_exact_kendall():
    rng = np.random.default_rng(1)
    for _ in range(10):
        row = rng.normal(size=8) + 0.2 * np.arange(8)
        mine, theirs = monotonicity(*table([row]), "up"), stats.kendalltau(np.arange(8), row, method="exact")
        assert mine.tau == pytest.approx(theirs.statistic) and mine.p_value == pytest.approx(theirs.pvalue)


def score(rows):
    return sum(np.sign(r[j] - r[i]) for r in rows for i in range(len(r)) for j in range(i + 1, len(r)))


TABLES = [([1, 2, 4, 3], [1, 2, 3, 4]), ([0, 0, 1, 2], [0, 1, 1, 3]), ([1, 2, 3], [5, 4, 6, 8])]


@pytest.mark.parametrize("rows", TABLES)
def test_p_over_seeds_equals_enumeration_of_all_orders_within_seeds(rows):
    beta = np.concatenate([BETAS[: len(r)] for r in rows])
    seed = np.concatenate([np.full(len(r), i) for i, r in enumerate(rows)])
    seen = abs(score(rows))
    all_scores = [abs(score(orders)) for orders in product(*(list(permutations(r)) for r in rows))]
    expected = np.mean(np.array(all_scores) >= seen)
    assert monotonicity(beta, np.concatenate(rows), seed, "up").p_value == pytest.approx(expected, abs=1e-12)


def test_p_value_is_uniform_without_a_trend():
    """2,000 tables: the share below .05 is within four standard errors of the exact size of the test."""
    rng = np.random.default_rng(2)
    p = np.array([monotonicity(*table(rng.normal(size=(3, 8))), "up").p_value for _ in range(2000)])
    assert 0.03 < np.mean(p <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_monotone_means_and_the_largest_reversal():
    rising = np.linspace(0.4, 0.99, 8)
    clean = monotonicity(*table([rising, rising + 0.01]), "up")
    assert clean.holds and clean.tau == 1 and clean.violation == 0 and clean.violation_at is None
    assert clean.p_value == pytest.approx(2 / math.factorial(8) ** 2)
    assert clean.change == pytest.approx(0.59)
    assert not monotonicity(*table([rising]), "down").holds

    dipped = rising.copy()
    dipped[1] = rising[0] - 0.02  # published low end of the Poisson run: .7737 then .7560
    found = monotonicity(*table([dipped, rising]), "up")
    mean_dip = rising[0] - (dipped[1] + rising[1]) / 2
    if mean_dip > 0:
        assert found.violation == pytest.approx(mean_dip)
    both = monotonicity(*table([dipped, dipped]), "up")
    assert not both.holds
    assert both.violation == pytest.approx(0.02) and both.violation_at == (0.01, 0.1)
    assert both.violating_seeds == 2 and both.n_seeds == 2
    assert both.violation_share == pytest.approx(0.02 / (0.99 - 0.38))


def test_a_reversal_is_found_between_betas_that_are_not_neighbours():
    found = monotonicity([1, 2, 3, 4], [0.0, 3.0, 2.0, 1.0], [7] * 4, "up")
    assert found.violation == 2.0 and found.violation_at == (2.0, 4.0)
    falling = monotonicity([1, 2, 3, 4], [0.0, -3.0, -2.0, -1.0], [7] * 4, "down")
    assert falling.violation == 2.0 and falling.tau == pytest.approx(0.0)


def test_a_flat_quantity_is_not_monotone():
    flat = monotonicity(*table([[0.5] * 8, [0.5] * 8]), "up")
    assert not flat.holds and flat.p_value == 1.0 and flat.tau == 0 and math.isnan(flat.violation_share)


def test_rounding_is_no_trend():
    """A constant quantity from float32 sums neither rises nor falls."""
    m = monotonicity([0.5, 1, 2], [0.0625, 0.0625 - 3e-9, 0.0625 - 6e-9], [0, 0, 0], "down")
    assert (m.holds, m.tau, m.violation) == (False, 0.0, 0.0)
    assert monotonicity([0.5, 1, 2], [65.0, 0.0076, 0.0057], [0, 0, 0], "down").holds
