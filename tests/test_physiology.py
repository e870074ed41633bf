"""Experiments on units whose answers are known: Gabor dictionaries, filters without inhibition, indices by hand."""

import json
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevae._json import jsonable
from spikevae.config import FitConfig
from spikevae.data.sequences import grating
from spikevae.data.synthetic import gabor_dictionary
from spikevae.metrics.dictionary import fit_gabors
from spikevae.models import AmortisedConfig, AmortisedVAE, IterativeConfig, IterativeVAE, build_model
from spikevae.physiology import Gratings, LinearNonlinear, examine, is_neural, tuning
from spikevae.physiology.bars import moving_bar
from spikevae.physiology.fields import correlation, receptive_fields
from spikevae.physiology.neurons import mean_response
from spikevae.physiology.tuning import (
    circular_variance,
    contrast_tuning,
    cross_orientation,
    grating_tuning,
    selectivity,
    suppression_index,
)

SIDE, UNITS = 12, 32
SHAPE = (1, SIDE, SIDE)


def gabors(units=UNITS):
    return gabor_dictionary(units, SIDE, np.random.default_rng(0))


def network(dictionary, **given):
    options = {"latent": "poisson", "start": -3.0, "step_size": 0.5, "prior": "fixed", "beta": 1.0, "clamp": None}
    model = IterativeVAE(SHAPE, IterativeConfig(n_latents=len(dictionary), **{**options, **given}), seeded())
    model.decoder.head.weight.data.copy_(torch.tensor(dictionary.T))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def found():
    """Every experiment on an iterative model of a known dictionary."""
    return examine(network(gabors()), noise_frames=200)


# Indices --------------------------------------------------------------------------------------------------


def test_indices_by_hand():
    curve = np.array([[4.0, 0.0], [2.0, 1.0], [1.0, 4.0], [1.0, 1.0]])  # four orientations, two units
    np.testing.assert_allclose(selectivity(curve), [3 / 5, 1.0])
    # 4 + 2i - 1 - i = 3 + i of 8; 0 + i - 4 - i = -4 of 6
    np.testing.assert_allclose(circular_variance(curve), [1 - math.sqrt(10) / 8, 1 - 4 / 6])
    np.testing.assert_allclose(
        suppression_index(np.array([2.0, 1.0, 0.0]), np.array([1.0, 3.0, 1.0])), [0.5, -2, np.nan]
    )
    assert np.isnan(selectivity(np.zeros((4, 1)))).all() and np.isnan(circular_variance(np.zeros((4, 1)))).all()


@given(width=st.floats(0.2, 3), where=st.integers(0, 11), scale=st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_indices_do_not_depend_on_scale_or_preferred_orientation(width, where, scale):
    angles = np.arange(12) * math.pi / 12
    curve = np.exp((np.cos(2 * angles) - 1) / width)[:, None]
    moved = scale * np.roll(curve, where, 0)
    np.testing.assert_allclose(selectivity(moved), selectivity(curve), rtol=1e-9)
    np.testing.assert_allclose(circular_variance(moved), circular_variance(curve), rtol=1e-9)
    # Of a von Mises curve the resultant is I1(1/width) / I0(1/width).
    from scipy.special import i0e, i1e

    np.testing.assert_allclose(circular_variance(curve), 1 - i1e(1 / width) / i0e(1 / width), rtol=1e-3, atol=1e-5)


# Known dictionaries ---------------------------------------------------------------------------------------


def test_preferred_gratings_are_the_gabors_to_a_step_of_the_grid(found):
    fits = fit_gabors(gabors(), (SIDE, SIDE))
    step = math.pi / len(found.gratings.orientations)
    off = np.abs((found.tuning.orientation - fits.orientation + math.pi / 2) % math.pi - math.pi / 2)
    assert (off <= step).all(), np.degrees(off)
    octaves = np.abs(np.log2(found.tuning.frequency / fits.frequency))
    assert (octaves <= 0.5).all(), octaves
    assert found.tuning.responsive.all() and np.median(found.tuning.osi) > 0.8


def test_receptive_fields_are_the_dictionary(found):
    alike = correlation(found.fields.field, gabors())
    assert (alike > 0.9).all(), alike
    assert (found.fields.lag == 0).all() and (found.fields.signal_to_noise > 1).all()


def test_white_noise_recovers_rectified_filters():
    """Of a rectified filter of unit norm in unit noise the mean before a spike is sqrt(pi / 2) times the filter."""
    atoms = gabors(8)
    cells = LinearNonlinear(torch.tensor(atoms, dtype=torch.float32), SHAPE, gain=2.0)
    fields = receptive_fields(cells, frames=400, streams=100, lags=3, warm_up=0)
    assert (correlation(fields.field, atoms) > 0.97).all() and (fields.lag == 0).all()
    gain = (fields.average[0] * atoms).sum(1)
    np.testing.assert_allclose(gain, math.sqrt(math.pi / 2), rtol=0.03)
    assert (fields.spikes > 400 * 100 * 2 / math.sqrt(2 * math.pi) * 0.97).all()
    later = np.linalg.norm(fields.average[1:], axis=-1) / (SIDE * fields.error)
    np.testing.assert_allclose(later, 1.0, atol=5 / math.sqrt(2 * SIDE**2))  # frames before the last are noise


def test_units_that_never_fire_have_no_field():
    cells = LinearNonlinear(torch.stack([torch.zeros(144), torch.ones(144)]), SHAPE, gain=0.1)
    fields = receptive_fields(cells, frames=20, streams=10, lags=2)
    assert fields.spikes[0] == 0 and np.isnan(fields.field[0]).all() and np.isfinite(fields.field[1]).all()
    tuning = grating_tuning(cells)
    assert not tuning.responsive[0] and tuning.blank[0] == 0


def test_responses_of_a_filter_are_half_its_amplitude_by_pi():
    """Mean over a cycle of max(0, a cos) is a / pi, whatever the phase; proportional to contrast."""
    (wave,) = grating((SIDE, SIDE), 1, orientation=0.5, spatial_frequency=0.2)
    cell = LinearNonlinear(wave, (SIDE, SIDE))
    shown = Gratings(period=64, contrasts=(0.5, 1.0, 2.0))
    waves = {"orientation": 0.5, "spatial_frequency": 0.2, "temporal_frequency": 1 / 64}
    drive = torch.stack(list(grating((SIDE, SIDE), 64, **waves)))[:, 0] @ wave[0]
    frames = grating((SIDE, SIDE), 80, phase=0.3, **waves)
    mean = mean_response(cell, frames, skip=16, background=0.0, generator=seeded())
    assert mean.item() == pytest.approx(float(drive.abs().max()) / math.pi, rel=2e-3)
    curve = contrast_tuning(cell, grating_tuning(cell, shown), shown)
    np.testing.assert_allclose(curve.mean[:, 0] / curve.mean[1, 0], [0.5, 1.0, 2.0], rtol=1e-5)
    assert (curve.error[:, 0] < 1e-3 * curve.mean[:, 0]).all()


def test_standard_errors_are_over_trials():
    """Sampled inference differs from trial to trial; four times the trials halve the error.

    Steps are small: in larger ones a few trials diverge, and errors are those of single trials.
    """
    model = network(gabors(8), dynamics="sampled", step_size=0.1)
    errors = []
    for phases in (4, 16, 64):
        shown = Gratings(frequencies=(0.15,), phases=phases)
        errors.append(np.median(grating_tuning(model, shown, seed=1).response.error))
    assert 1.6 < errors[1] / errors[2] < 2.4 and errors[0] > errors[2] > 0


# Suppression ----------------------------------------------------------------------------------------------


def test_lateral_inhibition_suppresses_and_filters_alone_do_not():
    """Same dictionary: the iterative model is suppressed by an orthogonal mask, by 5 standard errors over units."""
    model = network(gabors(128), beta=0.3, step_size=0.3)
    shown = Gratings(phases=4)
    ours = cross_orientation(model, grating_tuning(model, shown), shown).suppression
    filters = LinearNonlinear.of(model)
    control = cross_orientation(filters, grating_tuning(filters, shown), shown).suppression
    assert np.abs(np.median(control)) < 0.01 and control.max() < 0.01
    error = ours.std() / math.sqrt(len(ours))
    assert ours.mean() > 5 * error and (ours - control).mean() > 5 * error
    # The index is of lateral inhibition: with units that do not overlap there is none.
    apart = np.linalg.qr(gabors(16).T)[0].T
    alone = network(apart, beta=0.3, step_size=0.3)
    index = cross_orientation(alone, grating_tuning(alone, shown), shown).suppression
    assert np.abs(np.median(index)) < ours.mean()


# Bars and the whole ---------------------------------------------------------------------------------------


def test_a_bar_that_moves_along_the_preferred_direction_makes_it_fire(found):
    film = found.bar
    n = film.pictures.shape[1]
    assert film.spikes.shape[:2] == film.expected.shape == (2, n) and film.population.shape == (2, n, UNITS)
    assert film.expected[0].max() > 3 * film.expected[1].max()
    assert film.pictures[:, 0].max() == film.pictures[:, -1].max() == 0  # before it enters, after it has left
    assert film.spikes[0].mean(1).sum() == pytest.approx(film.expected[0].sum(), rel=0.35)
    again = moving_bar(network(gabors()), film.unit, orientation=film.orientation, width=film.width)
    np.testing.assert_array_equal(again.spikes, film.spikes)


def test_the_table_is_plain_and_complete(found):
    facts = found.to_dict()
    assert json.loads(json.dumps(jsonable(facts)))["units"][3]["unit"] == 3
    assert len(facts["units"]) == UNITS and facts["summary"]["responsive_units"] == UNITS
    row = facts["units"][0]
    assert row["suppression_index"] == pytest.approx(1 - row["response_masked"] / found.suppression.test.mean[0])
    assert len(facts["curves"]["contrast"]["mean"]) == UNITS
    assert facts["summary"]["field_dictionary_correlation"] > 0.9
    assert facts["summary"]["suppression_index_control"] < 0.01
    assert found.tuning.responsive[found.order[0]] and sorted(found.order) == list(range(UNITS))


def test_equal_seeds_give_equal_experiments_and_the_global_generator_is_left_alone():
    model, before = network(gabors(6), dynamics="sampled"), torch.get_rng_state()
    shown = Gratings(frequencies=(0.1, 0.2), phases=2, period=8, warm_up=4)
    one, two = (examine(model, shown, noise_frames=10, seed=4).to_dict() for _ in range(2))
    assert str(one) == str(two) and torch.equal(before, torch.get_rng_state())
    assert str(examine(model, shown, noise_frames=10, seed=5).to_dict()) != str(one)


@pytest.mark.parametrize(
    "options",
    [
        {"latent": "bernoulli", "prior": "fixed"},
        {"latent": "rectified_gaussian"},
        {"latent": "poisson", "decoder": "mlp", "hidden": (8,)},
        {"latent": "poisson", "likelihood": "bernoulli"},
    ],
    ids=str,
)
def test_every_model_with_rates_can_be_examined(options):
    model = IterativeVAE((3, 8, 8), IterativeConfig(n_latents=5, start=-1.0, clamp=None, **options), seeded())
    model.requires_grad_(False)
    assert is_neural(model)
    shown = Gratings(frequencies=(0.1, 0.2), phases=2, period=8, warm_up=4, background=0.5, contrast=0.5)
    found = examine(model, shown, noise_frames=10)
    assert (found.control is None) == (model.dictionary is None)
    assert np.isfinite(found.tuning.response.mean).all()


def test_a_model_with_an_encoder_codes_each_frame_by_itself():
    """Spikes follow exp(w x), so the average of white noise before a spike is w, at the frame of the spike."""
    model = AmortisedVAE(SHAPE, AmortisedConfig(n_latents=4, start=-1.0, init="random", clamp=None), seeded())
    weights = torch.zeros(4, 144)
    for unit, place in enumerate((13, 40, 77, 130)):
        weights[unit, place : place + 2] = torch.tensor([0.5, -0.5])
    with torch.no_grad():
        model.encoder.get_parameter("head.weight").copy_(weights)
    model.requires_grad_(False)
    assert not is_neural(model)
    found = examine(model, Gratings(frequencies=(0.1, 0.2), phases=2, period=8, warm_up=4), noise_frames=60)
    assert (found.fields.lag == 0).all()
    cosine = correlation(found.fields.field, weights.numpy())
    assert (cosine > 0.95).all()
    assert np.isfinite(found.tuning.response.mean).all() and found.control is not None


def test_models_that_cannot_be_examined_say_why():
    iterative = {"n_latents": 4}
    signed = IterativeVAE(SHAPE, IterativeConfig(latent="gaussian", **iterative), torch.Generator())
    flat = IterativeVAE((10,), IterativeConfig(latent="poisson", **iterative), torch.Generator())
    amortised = AmortisedVAE(SHAPE, AmortisedConfig(latent="laplace", prior="fixed", **iterative), torch.Generator())
    sparse = build_model(FitConfig(latent="sparse", **iterative), SHAPE)
    cases = ((signed, "signed"), (flat, "no images"), (amortised, "signed"), (sparse, "no firing rates"))
    for model, message in cases:
        assert not is_neural(model)
        with pytest.raises(ValueError, match=message):
            examine(model)
    cells = LinearNonlinear(torch.ones(1, 144), SHAPE)
    for shown, message in (
        ({"orientations": (0.0, 1.0)}, "orientations"),
        ({"frequencies": (0.7,)}, "frequencies"),
        ({"contrasts": (0.0,)}, "contrasts"),
        ({"phases": 1}, "phases=1"),
    ):
        with pytest.raises(ValueError, match=message):
            Gratings(**shown)
    with pytest.raises(ValueError, match="unit=1"):
        moving_bar(cells, 1, orientation=0.0)
    with pytest.raises(ValueError, match="lags=0"):
        receptive_fields(cells, lags=0)


def test_the_mask_is_the_test_turned_by_a_right_angle():
    shown, angle = Gratings(), torch.tensor([0.3], dtype=torch.float64)
    frequency = torch.tensor([0.2], dtype=torch.float64)
    nothing, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    mask, turned, straight = (
        list(tuning._frames((12, 12), tuning._Conditions(*given), nothing, shown))
        for given in (
            (angle, frequency, nothing, one),
            (angle + math.pi / 2, frequency, one, nothing),
            (angle, frequency, one, nothing),
        )
    )
    for ours, theirs in zip(mask, turned, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert abs(float((mask[0] * straight[0]).mean())) < 0.05  # of 0.5 for parallel ones
