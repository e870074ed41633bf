"""Receptive fields by reverse correlation: the mean stimulus before a spike."""

import math
from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._seeds import checked_seed
from ..progress import Report
from .neurons import Neurons, as_neurons, place


class ReceptiveFields(NamedTuple):
    """Spike-triggered averages of K units."""

    average: np.ndarray
    """(L, K, D) mean stimulus l frames before a spike (l = 0: the last frame before it), minus the mean of all stimuli,
    in the units of the pixels; NaN for units that did not spike."""
    spikes: np.ndarray
    """(K,) number of spikes."""
    error: np.ndarray
    """(K,) standard error of a pixel of the average for a unit without tuning, noise sqrt(sum n^2) / sum n for n spikes
    per frame: more than noise / sqrt(spikes), since spikes of one frame have the same stimulus."""
    profile: np.ndarray
    """(K, L) weight of each lag in `field`, unit norm: time course of the best separable approximation of `average`."""
    field: np.ndarray
    """(K, D) its spatial part: the average over lags with these weights, in the units of the pixels."""
    lag: np.ndarray
    """(K,) the lag with the largest weight, frames; 0 for units that did not spike."""
    signal_to_noise: np.ndarray
    """(K,) norm of `field`, divided by about the largest norm that a unit without tuning would have,
    `error` (sqrt(L) + sqrt(D))."""


@torch.inference_mode()
def receptive_fields(
    model: Neurons,
    *,
    frames: int = 200,
    streams: int = 256,
    lags: int = 8,
    warm_up: int = 32,
    noise: float = 1.0,
    background: float = 0.0,
    seed: int = 0,
    progress: Report | None = None,
) -> ReceptiveFields:
    """Show Gaussian white noise, a new frame at every step, and average the frames before each spike.

    Parameters
    ----------
    frames
        Frames of a stream whose spikes are counted, after `warm_up` others.
    streams
        Number of independent streams, shown at once.
    lags
        Number of frames before a spike that are averaged.
    noise
        Standard deviation of a pixel.
    background
        Mean of a pixel.
    seed
        Seed of noise and spikes.

    References
    ----------
    de Boer and Kuyper (1968), IEEE Trans. Biomed. Eng. 15; Chichilnisky (2001), "A simple white noise analysis of
    neuronal light responses", Network 12: for a linear-nonlinear unit the average is its filter, up to a factor.
    Separable part by singular values: DeAngelis, Ohzawa and Freeman (1995), Trends Neurosci. 18.

    Examples
    --------
    >>> from spikevae.physiology import LinearNonlinear
    >>> model = LinearNonlinear(torch.tensor([[1.0, 0.0, -1.0, 0.0]]), (2, 2))
    >>> found = receptive_fields(model, frames=50, lags=2)
    >>> found.lag, np.sign(found.field[0, [0, 2]])
    (array([0]), array([ 1., -1.]))
    """
    model = as_neurons(model)
    if lags < 1 or frames < 1 or streams < 1 or warm_up < 0 or not noise > 0:
        raise ValueError(
            f"frames={frames}, streams={streams}, lags={lags}, warm_up={warm_up}, noise={noise}: give one frame, "
            "stream and lag or more, no negative warm-up and noise above zero"
        )
    sums = _show_noise(model, frames, streams, lags, warm_up, noise, background, seed, progress)
    spikes = sums.spikes.cpu().numpy()
    silent = spikes == 0
    average = (sums.stimuli.double() / sums.spikes.clamp_min(1)[:, None]).cpu().numpy()
    profile, field, lag = _separable_part(average)
    error = noise * sums.squares.sqrt().cpu().numpy() / np.where(silent, np.nan, spikes)
    average[:, silent], profile[silent], field[silent] = np.nan, np.nan, np.nan
    strength = np.linalg.norm(field, axis=1) / (error * (math.sqrt(lags) + math.sqrt(average.shape[-1])))
    return ReceptiveFields(average, spikes, error, profile, field, lag, strength)


class _Sums(NamedTuple):
    """Sums over frames and streams."""

    stimuli: Tensor
    """(L, K, D) stimuli l frames before, times spikes."""
    spikes: Tensor
    """(K,) spikes."""
    squares: Tensor
    """(K,) squared spikes per frame."""


def _show_noise(
    model: Neurons,
    frames: int,
    streams: int,
    lags: int,
    warm_up: int,
    noise: float,
    background: float,
    seed: int,
    progress: Report | None,
) -> _Sums:
    """Show white noise; sum the spikes and the stimuli before them."""
    like, generator = place(model), torch.Generator().manual_seed(checked_seed(seed))
    spiking = torch.Generator(device=like.device).manual_seed(checked_seed(seed))
    n_pixels = int(np.prod(model.shape))
    past: deque[Tensor] = deque(maxlen=lags)
    stimuli = torch.zeros(lags, model.n_latents, n_pixels, dtype=like.dtype, device=like.device)
    counts = torch.zeros(model.n_latents, dtype=torch.float64, device=like.device)
    squares = torch.zeros_like(counts)
    state, lead = model.init_state(streams), max(warm_up, lags - 1)
    for frame in range(lead + frames):
        past.appendleft(noise * torch.randn(streams, n_pixels, generator=generator).to(like))
        state = model.infer_step(state, past[0] + background, generator=spiking)
        if frame < lead:
            continue
        spikes = model.law_of(state).sample(generator=spiking)
        counts += spikes.sum(0).double()
        squares += spikes.square().sum(0).double()
        for lag, seen in enumerate(past):
            stimuli[lag].addmm_(spikes.mT, seen)
        if progress is not None:
            progress(frame - lead + 1, frames, "receptive fields")
    return _Sums(stimuli, counts, squares)


def _separable_part(average: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best approximation of averages (L, K, D) by products of a time course (K, L) and a spatial field (K, D), and the
    lag (K,) with the largest weight, which is made positive."""
    weights, sizes, pictures = np.linalg.svd(average.transpose(1, 0, 2), full_matrices=False)
    profile, field = weights[:, :, 0], sizes[:, :1] * pictures[:, 0]
    lag = np.abs(profile).argmax(1)
    sign = np.sign(profile[np.arange(len(profile)), lag])[:, None]
    return sign * profile, sign * field, lag


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(K,) Pearson correlation of the rows of (K, D) arrays; NaN for rows that are constant or undefined.

    Examples
    --------
    >>> correlation(np.array([[1.0, 2.0, 3.0]]), np.array([[-1.0, -2.0, -3.0]]))
    array([-1.])
    """
    a, b = (rows - rows.mean(1, keepdims=True) for rows in (one, other))
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(norm > 0, (a * b).sum(1) / np.where(norm > 0, norm, 1.0), np.nan)
