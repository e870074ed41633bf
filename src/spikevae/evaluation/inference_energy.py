"""Costs of iterative inference per update: spikes, synaptic operations and joules, and their sums until R2 is high."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import plain
from .._seeds import checked_seed
from ..metrics.reconstruction import r2_pooled_of_sums
from ..models.iterative.model import IterativeVAE
from ..networks import dense_macs
from .prices import PRICES, Prices, hardware_joules, synaptic_operations

R2_SHARE = 0.95
"""Share of the last R2 at which inference counts as done."""


@dataclass(frozen=True)
class InferenceEnergy:
    """Means over stimuli; arrays have one entry per update of the state, `inner_steps` per step of inference."""

    r2: NDArray[np.float64]
    """Pooled R2 of the mean code after the update. Higher is better."""
    kl: NDArray[np.float64]
    """KL divergence from the prior to the posterior after the update, nats per stimulus."""
    spikes: NDArray[np.float64]
    """Spikes per stimulus that the update emitted (in expected dynamics, expected ones; of real-valued codes, the sum
    of their values); NaN without a firing rate. Their sum is what inference emitted; `Metrics.spikes` counts only the
    final code."""
    operations: NDArray[np.float64]
    """Synaptic operations per stimulus of the update: each spike once at every synapse it drives for counts that are
    sampled, each non-zero unit once otherwise."""
    macs: NDArray[np.float64]
    """Multiply-accumulates per stimulus that do not depend on spikes: for a linear decoder the feed-forward drive,
    once; for others decoding after the first layer and back-propagation of the error, at each update."""
    joules: NDArray[np.float64]
    """Arithmetic of the update on digital hardware, J per stimulus; modelled."""
    steps_to_share: float
    """Updates until R2 first reaches `R2_SHARE` of its last value; NaN if that is not above zero. Lower is better."""
    spikes_to_share: float
    """Spikes per stimulus until then."""
    operations_to_share: float
    """Synaptic operations per stimulus until then."""
    joules_to_share: float
    """Joules of arithmetic per stimulus until then."""


def steps_to_share(r2: NDArray[np.float64], share: float = R2_SHARE) -> float:
    """Number of entries until a curve first reaches a share of its last value.

    Examples
    --------
    >>> steps_to_share(np.array([0.1, 0.5, 0.96, 0.9, 1.0]))
    3.0
    >>> steps_to_share(np.array([-0.5, -0.1]))
    nan
    """
    if not r2[-1] > 0:
        return math.nan
    return float(np.argmax(r2 >= share * r2[-1]) + 1)


@torch.inference_mode()
def inference_energy(
    model: IterativeVAE,
    x: Any,
    *,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 1024,
    prices: Prices = PRICES,
) -> InferenceEnergy:
    """Costs of inference of stimuli, update by update.

    Each spike of sampled counts is sent by itself through the synapses of its unit: K lateral ones with a linear
    decoder, else those of the decoder's first layer. Expected dynamics and codes that are not counts send one
    real-valued message per non-zero unit through the same synapses.

    Parameters
    ----------
    x
        (m, D) stimuli, numpy or torch.
    steps
        Number of steps of inference; the model's `evaluation_steps` if not given.
    seed
        Seed of sampled spikes.

    Raises
    ------
    ValueError
        If the stimuli are not a finite, non-empty matrix with the model's number of pixels, or `steps` is below one.

    References
    ----------
    Steps, and their limit of 1,000 in evaluations: Vafaii, Galor and Yates (2025), arXiv 2410.19315. Operations:
    NeuroBench, as in :mod:`spikevae.evaluation.prices`.

    Examples
    --------
    >>> from spikevae.models import IterativeConfig
    >>> model = IterativeVAE((4,), IterativeConfig(n_latents=3), torch.Generator().manual_seed(0))
    >>> inference_energy(model, torch.ones(8, 4), steps=5).r2.shape
    (5,)
    """
    stimuli = _checked_stimuli(model, x)
    n_updates = (model.evaluation_steps if steps is None else steps) * model.inner_steps
    if n_updates < 1:
        raise ValueError(f"steps={steps}: give one step or more")
    r2, kl, code = _follow(model, stimuli, n_updates, seed, batch_size)
    operations, macs, joules = _arithmetic(model, code, prices)
    spikes = code.spikes if model.law.has_rate else np.full(n_updates, math.nan)
    n_to_share = steps_to_share(r2)

    def total(values: NDArray[np.float64]) -> float:
        return float(values[: int(n_to_share)].sum()) if math.isfinite(n_to_share) else math.nan

    return InferenceEnergy(
        r2, kl, spikes, operations, macs, joules, n_to_share, total(spikes), total(operations), total(joules)
    )


def _checked_stimuli(model: IterativeVAE, x: Any) -> Tensor:
    """(m, D) stimuli as a tensor; errors if the model or the stimuli are not as :func:`inference_energy` needs them."""
    if not isinstance(model, IterativeVAE):
        raise TypeError(f"{type(model).__name__} has no iterative inference; give a model with inference='iterative'")
    stimuli = x if isinstance(x, Tensor) else torch.tensor(np.asarray(plain(x, "stimuli")))
    if stimuli.ndim != 2 or stimuli.shape[1] != model.n_features or not len(stimuli):
        raise ValueError(
            f"stimuli have shape {tuple(stimuli.shape)}; expected (m, {model.n_features}), with one or more rows"
        )
    if not stimuli.isfinite().all():
        raise ValueError("stimuli hold NaN or infinite values; drop or fill these rows first")
    return stimuli


class _CodeCounts(NamedTuple):
    """Means per stimulus of the code that each update emits, one entry per update."""

    spikes: NDArray[np.float64]
    """Sum of the code over units."""
    nonzero: NDArray[np.float64]
    """Units that are not zero."""
    ones: NDArray[np.float64]
    """Units that are exactly one."""


def _follow(
    model: IterativeVAE, stimuli: Tensor, n_updates: int, seed: int, batch_size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], _CodeCounts]:
    """Pooled R2, KL divergence per stimulus and counts of the code, after each update of the state."""
    weight = next(model.parameters())
    generator = torch.Generator(device=weight.device).manual_seed(checked_seed(seed))
    sums = np.zeros((n_updates, 4))  # KL divergence, spikes, non-zero units, units that are one
    residual, contrast = np.zeros((n_updates, len(stimuli))), np.zeros(len(stimuli))
    prior, start = model.prior(), 0
    for batch in stimuli.split(batch_size):
        frames = batch.to(weight)
        rows = slice(start, start + len(frames))
        start += len(frames)
        contrast[rows] = (frames - frames.mean(1, keepdim=True)).square().sum(1).double().cpu().numpy()
        states = model.trajectory(frames, n_updates // model.inner_steps, generator=generator)
        for index, state in enumerate(states):
            law, emitted = model.law_of(state), state.emitted
            error = (frames - model.decode(law.mean)).square().sum(1)
            residual[index, rows] = error.double().cpu().numpy()
            kl = torch.distributions.kl_divergence(law, prior).sum()
            sums[index] += [float(part) for part in (kl, emitted.sum(), (emitted != 0).sum(), (emitted == 1).sum())]
    kls, spikes, nonzero, ones = (sums / len(stimuli)).T
    r2 = np.array([r2_pooled_of_sums(row, contrast) for row in residual])
    return r2, kls, _CodeCounts(spikes, nonzero, ones)


def _arithmetic(
    model: IterativeVAE, code: _CodeCounts, prices: Prices
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Synaptic operations, multiply-accumulates that do not depend on spikes, and joules, per stimulus and update."""
    counts = model.sampled and model.law.is_count
    fan_out = model.n_latents if model.is_linear else model.decoder.fan_out
    assert isinstance(fan_out, int)
    found = [synaptic_operations(*of_update, fan_out) for of_update in zip(*code)]
    operations = np.array([each.events if counts else each.nonzero for each in found])
    macs = np.zeros(len(found))
    if model.is_linear:
        macs[0] = model.n_features * model.n_latents
    else:
        macs += 2 * dense_macs(model.decoder, model.n_latents) - model.n_latents * fan_out
    synaptic = [(0.0, each.events) if counts else (each.macs, each.acs) for each in found]
    joules = np.array([hardware_joules(m + dense, a, prices) for (m, a), dense in zip(synaptic, macs)])
    return operations, macs, joules
