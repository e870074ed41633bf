"""A bar that moves over the receptive field, as in Hubel and Wiesel's films, and the spikes that it evokes."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._seeds import checked_seed
from ..data.sequences import bar, image_size
from ..progress import Report
from .neurons import Neurons, as_neurons, place


class BarResponse(NamedTuple):
    """Spikes of one unit and of all others while bars move in two directions: preferred and orthogonal."""

    unit: int
    """The unit that was recorded."""
    orientation: float
    """Its preferred orientation, the direction in which the first bar moves, radians."""
    width: float
    """Width of the bars, pixels."""
    speed: float
    """Speed of the bars, pixels per frame."""
    pictures: np.ndarray
    """(2, T, D) stimuli."""
    spikes: np.ndarray
    """(2, T, trials) spikes of the unit."""
    expected: np.ndarray
    """(2, T) its expected spikes per step, mean over trials."""
    population: np.ndarray
    """(2, T, K) spikes of every unit in the first trial."""


@torch.inference_mode()
def moving_bar(
    model: Neurons,
    unit: int,
    *,
    orientation: float,
    width: float = 2.0,
    speed: float = 0.25,
    contrast: float = 2.0,
    background: float = 0.0,
    trials: int = 20,
    margin: int = 16,
    seed: int = 0,
    progress: Report | None = None,
) -> BarResponse:
    """Move a bright bar over the stimulus, along `orientation` and at a right angle to it, and count spikes.

    Parameters
    ----------
    unit
        The unit that is recorded in every trial.
    orientation
        Direction of the first bar, radians: 0 to the right, rising clockwise; the second moves at a right angle to it.
    width, speed, contrast
        As in :func:`spikevae.data.sequences.bar`.
    trials
        Repetitions, which differ in their spikes.
    margin
        Frames before the bar enters the stimulus and after it has left.
    seed
        Seed of spikes.

    References
    ----------
    Hubel and Wiesel (1959), "Receptive fields of single neurones in the cat's striate cortex", J. Physiol. 148.

    Examples
    --------
    >>> from spikevae.data.sequences import grating
    >>> from spikevae.physiology import LinearNonlinear
    >>> (wave,) = grating((16, 16), 1, orientation=0.0, spatial_frequency=0.1)
    >>> film = moving_bar(LinearNonlinear(wave, (16, 16)), 0, orientation=0.0)
    >>> bool(film.expected[0].max() > 3 * film.expected[1].max())
    True
    """
    model = as_neurons(model)
    _check_arguments(model, unit, speed=speed, width=width, trials=trials, margin=margin)
    like = place(model)
    generator = torch.Generator(device=like.device).manual_seed(checked_seed(seed))
    state, steps = model.init_state(2 * trials), []
    frames = _two_bars(model.shape, orientation, width=width, speed=speed, contrast=contrast, margin=margin)
    for count, frame in enumerate(frames, 1):
        shown = frame.to(like) + background
        state = model.infer_step(state, shown.repeat_interleave(trials, 0), generator=generator)
        fired = model.law_of(state).sample(generator=generator).reshape(2, trials, -1)
        expected = model.codes(state).reshape(2, trials, -1)[..., unit].mean(1)
        steps.append((shown, fired[..., unit], expected, fired[:, 0]))
        if progress is not None:
            progress(count, len(frames), "moving bar")
    parts = (torch.stack(part, 1).cpu().numpy() for part in zip(*steps))
    return BarResponse(unit, orientation, width, speed, *parts)


def _check_arguments(model: Neurons, unit: int, *, speed: float, width: float, trials: int, margin: int) -> None:
    if not 0 <= unit < model.n_latents:
        raise ValueError(f"unit={unit}: the model has units 0 to {model.n_latents - 1}")
    if not (speed > 0 and width > 0) or trials < 1 or margin < 0:
        raise ValueError(
            f"speed={speed}, width={width}, trials={trials}, margin={margin}: give speed and width above zero, one "
            "trial or more and no negative margin"
        )


def _two_bars(
    shape: tuple[int, ...], orientation: float, *, width: float, speed: float, contrast: float, margin: int
) -> list[Tensor]:
    """Frames (2, D) of two bars, one that moves along the orientation and one at a right angle to it."""
    _, height, wide = image_size(shape)
    n = math.ceil((math.hypot(height, wide) + width) / speed) + 2 * margin
    angles = torch.tensor([orientation, orientation + math.pi / 2], dtype=torch.float64)
    return list(bar(shape, n, orientation=angles, width=width, speed=speed, contrast=contrast))
