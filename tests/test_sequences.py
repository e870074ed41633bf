"""Feeders of frames: geometry by known pictures, motion by its displacement, randomness by its generator."""

import math

import numpy as np
import pytest
import torch
from helpers import seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevae.data.sequences import bar, grating, image_size, jitter, rotate, static
from spikevae.metrics.dictionary import fit_gabors


def stacked(frames):
    return torch.stack(list(frames))


def test_every_feeder_gives_frames_of_stimuli():
    x = torch.randn(3, 2 * 10 * 10, generator=seeded()).numpy()
    for frames, d in (
        (static(x, 4), 200),
        (jitter(x, (2, 10, 10), 4, patch=6, generator=seeded()), 72),
        (rotate(x, (2, 10, 10), 4), 200),
        (rotate(x, (2, 10, 10), 4, patch=7, generator=seeded()), 98),
        (grating((2, 6, 7), 4, orientation=torch.zeros(3), spatial_frequency=0.1), 84),
        (bar((2, 6, 7), 4, orientation=torch.zeros(3), width=2.0, speed=1.0), 84),
    ):
        values = stacked(frames)
        assert values.shape == (4, 3, d) and values.dtype == torch.float32


@given(
    angle=st.floats(0, 2 * math.pi),
    frequency=st.floats(0, 0.5),
    speed=st.floats(-0.5, 0.5),
    contrast=st.floats(0, 3),
    phase=st.floats(-4, 4),
)
@settings(max_examples=30, deadline=None)
def test_grating_is_its_formula(angle, frequency, speed, contrast, phase):
    given = {"orientation": angle, "spatial_frequency": frequency, "temporal_frequency": speed}
    ours = stacked(grating((5, 6), 7, **given, contrast=contrast, phase=phase))[:, 0].numpy()
    r, c = np.mgrid[:5, :6] - np.array([2.0, 2.5])[:, None, None]
    along = (c * math.cos(angle) + r * math.sin(angle)).ravel()
    wave = 2 * math.pi * (frequency * along - speed * np.arange(7)[:, None]) + phase
    np.testing.assert_allclose(ours, contrast * np.cos(wave), atol=2e-6 * (1 + contrast))


def test_gratings_and_gabor_fits_have_the_same_angle():
    r, c = np.mgrid[:16, :16] - 7.5
    window = np.exp(-(r**2 + c**2) / 18).ravel()
    angle = torch.tensor([0.3, 1.2, 2.5])
    waves = next(grating((16, 16), 1, orientation=angle, spatial_frequency=0.2))
    fits = fit_gabors(waves.numpy() * window, (16, 16))
    np.testing.assert_allclose(fits.orientation, angle, atol=1e-4)
    np.testing.assert_allclose(fits.frequency, 0.2, atol=1e-4)


def test_a_grating_drifts_along_its_wave_vector():
    """By one pixel a frame: frame t at column c is frame 0 at column c - t."""
    frames = stacked(grating((4, 12), 4, orientation=0.0, spatial_frequency=0.1, temporal_frequency=0.1))
    pictures = frames[:, 0].reshape(4, 4, 12)
    for t in range(4):
        torch.testing.assert_close(pictures[t, :, t:], pictures[0, :, : 12 - t], rtol=0, atol=1e-6)


def test_phases_stay_exact_over_long_streams():
    given = {"orientation": 0.7, "spatial_frequency": 0.13, "temporal_frequency": 1 / 7}
    first, *_, last = grating((8, 8), 70_001, **given)
    torch.testing.assert_close(last, first, rtol=0, atol=1e-6)


@given(angle=st.floats(0, 2 * math.pi), width=st.floats(1, 5), place=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_bars_have_their_width_and_place(angle, width, place):
    """Brightness summed along the motion is the width times the bar's length; its centre of mass is its place, to
    an eighth of a pixel of width one, which is what covering pixels in part leaves."""
    angle = round(angle / (math.pi / 2)) * (math.pi / 2)  # along an axis the sums are exact
    frames = stacked(bar((21, 21), 3, orientation=angle, width=width, speed=place, contrast=2.0))
    assert torch.allclose(frames.sum(-1), torch.tensor(2.0 * width * 21), rtol=1e-4)
    r, c = np.mgrid[:21, :21] - 10.0
    along = torch.tensor((c * math.cos(angle) + r * math.sin(angle)).ravel(), dtype=torch.float32)
    centre = (frames[:, 0] @ along) / frames[:, 0].sum(-1)
    torch.testing.assert_close(centre, place * torch.tensor([-1.0, 0.0, 1.0]), atol=0.126, rtol=0)


def test_rotation_turns_the_orientation():
    grid = {"spatial_frequency": 0.1, "contrast": 1.0}
    (x,) = grating((33, 33), 1, orientation=0.4, **grid)
    turned = stacked(rotate(x, (33, 33), 4, patch=17, degrees=30.0))[:, 0]
    for t, frame in enumerate(turned):
        (wanted,) = grating((17, 17), 1, orientation=0.4 + math.radians(30 * t), **grid)
        assert np.corrcoef(frame, wanted[0])[0, 1] > 0.995


def test_a_full_turn_comes_back_and_first_angles_are_drawn():
    x = torch.rand(2, 81, generator=seeded())
    frames = stacked(rotate(x, (9, 9), 5, degrees=90.0))
    torch.testing.assert_close(frames[0], x, rtol=0, atol=1e-6)
    torch.testing.assert_close(frames[4], x, rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[1], torch.rot90(x.reshape(2, 9, 9), -1, (1, 2)).flatten(1), rtol=0, atol=1e-5)
    one, two = (stacked(rotate(x, (9, 9), 2, generator=seeded(1))) for _ in range(2))
    assert torch.equal(one, two) and not torch.allclose(one[0], x, atol=0.1)


def test_jitter_is_a_walk_of_its_step():
    """A ramp shows the window's place: its steps have the diffusion's spread, and it stays inside."""
    n, side, patch = 2000, 41, 5
    ramp = np.tile(np.arange(side, dtype=np.float32) - side // 2, (side, 1)).ravel()
    x = np.broadcast_to(ramp, (n, side * side))
    frames = stacked(jitter(x, (side, side), 12, patch=patch, diffusion=0.7, harmonic=0.0, generator=seeded()))
    place = frames.mean(-1)  # (frames, n), columns from the centre
    assert place[0].abs().max() < 1e-5
    steps = place.diff(dim=0)
    error = 0.7 / math.sqrt(2 * steps.numel())
    assert abs(float(steps.std()) - 0.7) < 4 * error  # mean reversion of 5 % or a variance in place of it would show
    bound = stacked(jitter(x[:20], (side, side), 50, patch=39, diffusion=3.0, generator=seeded()))
    assert bound.mean(-1).abs().max() <= 1 + 1e-5
    pulled = stacked(jitter(x, (side, side), 12, patch=patch, diffusion=0.7, harmonic=1.0, generator=seeded()))
    assert float(pulled[-1].mean(-1).std()) == pytest.approx(0.7, rel=0.1)  # back at the centre before each step


def test_feeders_leave_the_global_generator_alone_and_repeat():
    x, before = torch.rand(2, 64, generator=seeded()), torch.get_rng_state()
    one, two = (stacked(jitter(x, (8, 8), 5, patch=4, generator=seeded(3))) for _ in range(2))
    other = stacked(jitter(x, (8, 8), 5, patch=4, generator=seeded(4)))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: static(np.ones((1, 4)), 0), "frames=0"),
        (lambda: jitter(np.ones((1, 4)), (2, 2), 3, patch=3, generator=seeded()), "patch=3"),
        (lambda: jitter(np.ones((1, 5)), (2, 2), 3, patch=2, generator=seeded()), r"give \(n, 4\)"),
        (lambda: jitter(np.ones((1, 4)), (2, 2), 3, patch=2, harmonic=2.0, generator=seeded()), "harmonic=2.0"),
        (lambda: rotate(np.ones((1, 6)), (2, 3), 3), "give patch"),
        (lambda: grating((5,), 3, orientation=0.0, spatial_frequency=0.1), "are no images"),
        (lambda: grating((4, 4), 3, orientation=torch.zeros(2), spatial_frequency=torch.zeros(3)), "orientation has 2"),
        (lambda: bar((4, 4), 3, orientation=0.0, width=math.nan, speed=1.0), "width"),
    ],
)
def test_what_cannot_be_fed_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_flat_square_stimuli_are_images():
    assert image_size((9,)) == (1, 3, 3) and image_size((4, 5)) == (1, 4, 5)
