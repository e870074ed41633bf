"""Convergence flags: one case a rule, with the numbers of the pilots."""

import math

import pytest

from spikevae.sweep.convergence import flag_groups, relative_change


def row(objective, rate=1.0, start=0.5, steps=1000, half=None, **settings):
    shape = {"id": "x", "block": "a", "beta": 1.0, "seed": 0, "n_latents": 8, **settings}
    budget = {"start": start, "steps": steps, "epochs": None}
    result = {
        "objective": objective,
        "objective_half": half,
        "firing_rate": rate,
        "diverged": False,
        "r2": 0.1,
    }
    return {**shape, **budget, **result}


def flags(*rows):
    return [found.flag for found in flag_groups(rows)]


def test_relative_change_divides_by_the_second():
    assert relative_change(249.2, 196.9) == pytest.approx(52.3 / 196.9)
    assert relative_change(0.0, 0.0) == 0 and relative_change(1.0, 0.0) == math.inf


def test_starts_that_disagree_are_not_converged():
    low, high = flag_groups([row(249.2, 0.06, start=-5.0), row(196.9, 1.16)])
    assert low.flag == high.flag == "not converged"
    assert low.start_gap == high.start_gap == pytest.approx(52.3 / 196.9)
    assert (low.is_best, high.is_best) == (False, True) and low.group == high.group == 0


def test_equal_objective_with_another_firing_rate_is_not_identified():
    first, second = flag_groups([row(192.3, 1.18), row(192.5, 5.01, start=2.0)])
    assert first.flag == second.flag == "rate not identified"
    assert first.firing_rate_spread == pytest.approx((5.01 - 1.18) / 1.18)


def test_agreement_in_both_is_converged():
    assert flags(row(192.3, 1.00), row(192.5, 1.04, start=2.0)) == ["converged", "converged"]


@pytest.mark.parametrize(
    ("objective", "expected"), [(100.99, "converged"), (101.01, "not converged")], ids=["inside", "outside"]
)
def test_the_objective_may_differ_by_one_per_cent(objective, expected):
    assert set(flags(row(100.0), row(objective, start=-5.0))) == {expected}


@pytest.mark.parametrize(("rate", "expected"), [(1.049, "converged"), (1.051, "rate not identified")])
def test_the_rate_may_differ_by_five_per_cent(rate, expected):
    assert set(flags(row(100.0, 1.0), row(100.1, rate, start=-5.0))) == {expected}


def test_half_the_budget_is_compared_with_the_whole():
    (steady,) = flag_groups([row(100.0, half=100.9)])
    (falling,) = flag_groups([row(100.0, half=102.0)])
    assert steady.flag == "converged" and steady.budget_change == pytest.approx(0.009) and steady.start_gap is None
    assert falling.flag == "not converged" and falling.budget_change == pytest.approx(0.02)


def test_a_falling_fit_does_not_condemn_its_group():
    assert flags(row(100.0, half=100.1), row(100.5, half=103.0, start=-5.0)) == ["converged", "not converged"]


def test_nothing_to_compare_with_is_not_checked():
    (alone,) = flag_groups([row(100.0)])
    assert alone.flag == "not checked" and alone.is_best
    assert alone.budget_change is None and alone.start_gap is None and alone.firing_rate_spread is None


def test_longer_fits_decide_over_shorter_ones():
    short, middle, long = flag_groups([row(110.0, steps=500), row(100.2, steps=1000), row(100.0, steps=2000)])
    assert short.flag == "not converged" and short.budget_change == pytest.approx(0.1)
    assert middle.flag == "converged" and middle.budget_change == pytest.approx(0.002)
    assert long.flag == "converged" and long.budget_change == pytest.approx(0.002) and long.is_best


def test_starts_are_compared_at_their_longest_budget():
    found = flag_groups([row(150.0, steps=10), row(100.0, half=100.1), row(100.1, start=-5.0)])
    assert [f.flag for f in found] == ["not converged", "converged", "converged"]
    assert found[1].start_gap == pytest.approx(0.001)


def test_a_diverged_fit_is_not_converged_and_no_witness():
    broken = {**row(None, None, start=-5.0), "diverged": True}
    found = flag_groups([broken, row(100.0, half=100.1)])
    assert [f.flag for f in found] == ["not converged", "converged"]
    assert not found[0].is_best and found[1].is_best and found[1].start_gap is None
    assert flags({**row(99.0), "diverged": True}) == ["not converged"]


def test_signed_codes_have_no_rate_to_identify():
    found = flag_groups([row(100.0, math.nan), row(100.1, None, start=-5.0)])
    assert [f.flag for f in found] == ["converged"] * 2 and found[0].firing_rate_spread is None


def test_other_settings_part_groups_and_results_do_not():
    rows = [row(100.0), row(200.0, seed=1), row(100.1, start=-5.0), row(300.0, hidden=[3])]
    found = flag_groups(rows)
    assert [f.group for f in found] == [0, 1, 0, 2]
    assert [f.flag for f in found] == ["converged", "not checked", "converged", "not checked"]


def test_named_settings_alone_make_the_group():
    rows = [{**row(100.0), "novel_metric": 1}, {**row(100.1, start=-5.0), "novel_metric": 2}]
    assert flags(*rows) == ["not checked"] * 2
    assert [f.flag for f in flag_groups(rows, settings=("beta", "seed", "start", "steps"))] == ["converged"] * 2


def test_an_objective_of_zero_and_missing_fields():
    assert flags(row(0.0), row(0.0, start=-5.0)) == ["converged"] * 2
    assert flag_groups([]) == []
    with pytest.raises(ValueError, match="no 'objective'"):
        flag_groups([{"beta": 1.0}])
