"""Prices against the arithmetic of the literature, operations against counting them one by one."""

import dataclasses
import math

import numpy as np
import pytest

from spikevae.evaluation.prices import (
    PRICES,
    Constant,
    atp_to_joules,
    hardware_joules,
    spikes_to_atp,
    synaptic_operations,
)

LEVELS = (PRICES.low, PRICES.central, PRICES.high)
CONSTANTS = [
    *(level.atp_per_spike for level in LEVELS),
    *(level.joules_per_atp for level in LEVELS),
    PRICES.joules_per_mac,
    PRICES.joules_per_ac,
]


def test_values_and_order():
    assert [p.atp_per_spike.value for p in LEVELS] == [3.84e8, 7.1e8, 2.4e9]
    # kJ/mol to joules: 44, 50, 60 thousand by 6.022e23
    for price, expected in zip(LEVELS, (7.306e-20, 8.303e-20, 9.963e-20)):
        assert price.joules_per_atp.value == pytest.approx(expected, rel=1e-3)
    assert PRICES.joules_per_mac.value == 4.6e-12 and PRICES.joules_per_ac.value == 0.9e-12


def test_a_spike_in_joules():
    """7.1e8 ATP at 50 kJ/mol is 5.9e-11 J; the levels span a factor of 8.5."""
    cost = [atp_to_joules(spikes_to_atp(1.0, p), p) for p in LEVELS]
    assert cost[1] == pytest.approx(5.9e-11, rel=2e-3)
    assert cost[2] / cost[0] == pytest.approx((2.4e9 * 60) / (3.84e8 * 44))
    assert spikes_to_atp(3.0, PRICES.low) == pytest.approx(3 * 3.84e8)
    assert math.isnan(atp_to_joules(spikes_to_atp(math.nan, PRICES.low), PRICES.low))


@pytest.mark.parametrize("constant", CONSTANTS)
def test_every_constant_names_unit_and_source(constant):
    assert constant.source == "modelled" and constant.unit and len(constant.citation) > 20
    with pytest.raises(dataclasses.FrozenInstanceError):
        constant.value = 1.0


def test_figures_not_read_in_their_source_say_so():
    assert all("unconfirmed" in level.atp_per_spike.citation for level in LEVELS)


def test_the_figure_above_high_is_named():
    """Levels do not bound the literature: the citation of the high one says which figure lies above it."""
    assert "3.84e9" in PRICES.high.atp_per_spike.citation and PRICES.high.atp_per_spike.value < 3.84e9


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_prices_are_refused(value):
    with pytest.raises(ValueError, match="finite positive"):
        Constant(value, "ATP per spike", "nobody")


def test_prices_as_a_dictionary():
    d = PRICES.to_dict()
    assert set(d) == {"low", "central", "high", "joules_per_mac", "joules_per_ac"}
    assert d["high"]["joules_per_atp"]["unit"] == "J per ATP"


def test_synaptic_operations_equal_those_performed():
    """Drive a 5-synapse layer by hand, spike by spike and message by message, and count."""
    counts, fan_out = np.random.default_rng(0).poisson(0.7, size=(50, 6)), 5
    added = multiplied = passed = 0
    for stimulus in counts:
        for z in stimulus:
            for _ in range(fan_out):
                added += z
                multiplied += z > 1
                passed += z == 1
    m = len(counts)
    ops = synaptic_operations(counts.sum(1).mean(), (counts > 0).sum(1).mean(), (counts == 1).sum(1).mean(), fan_out)
    assert ops.events == pytest.approx(added / m)
    assert ops.macs == pytest.approx(multiplied / m)
    assert ops.acs == pytest.approx(passed / m)
    assert ops.nonzero == pytest.approx((multiplied + passed) / m)


def test_hardware_joules():
    assert hardware_joules(1000, 0) == pytest.approx(4.6e-9)
    assert hardware_joules(0, 1000) == pytest.approx(0.9e-9)
    dearer = dataclasses.replace(PRICES, joules_per_mac=Constant(1.0, "J per multiply-accumulate", "a test"))
    assert hardware_joules(2, 0, dearer) == 2.0
