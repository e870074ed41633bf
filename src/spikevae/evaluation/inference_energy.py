"""What inference costs as it goes: spikes and synaptic operations of each step, and until the code is good enough."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..metrics.reconstruction import r2_pooled_of_sums
from ..models.iterative.model import IterativeVAE
from ..networks import dense_macs
from .prices import PRICES, Prices, hardware_joules, synaptic_operations

SHARE = 0.95
"""Share of the final R2 at which inference counts as done."""


@dataclass(frozen=True)
class InferenceEnergy:
    """Means over stimuli; arrays have one entry a move of the state, `inner_steps` a step of inference."""

    r2: NDArray[np.float64]
    """Pooled R2 of the mean code after the step. Higher is better."""
    kl: NDArray[np.float64]
    """Divergence of the posterior after the step from the prior, nats per stimulus."""
    spikes: NDArray[np.float64]
    """Spikes per stimulus that the step emitted (in expected dynamics, expected ones; of real-valued codes, the sum of
    their values); NaN without a firing rate. The sum over steps is what inference emitted; `Metrics.spikes` counts
    the final code alone."""
    operations: NDArray[np.float64]
    """Synaptic operations per stimulus of the step: each spike once at every synapse it drives for counts that are
    sampled, each non-zero unit once otherwise."""
    macs: NDArray[np.float64]
    """Multiply-accumulates per stimulus that no spike gates: the stimulus' way in, once for a linear decoder; for
    others decoding behind the first layer and the error's way back, at each step."""
    joules: NDArray[np.float64]
    """Arithmetic of the step on digital hardware, J per stimulus; modelled."""
    steps_to_share: float
    """Moves until R2 first reaches `SHARE` of its last value; NaN where that is not above zero. Lower is better."""
    spikes_to_share: float
    """Spikes per stimulus until then."""
    operations_to_share: float
    """Synaptic operations per stimulus until then."""
    joules_to_share: float
    """Joules of arithmetic per stimulus until then."""


def steps_to_share(r2: NDArray[np.float64], share: float = SHARE) -> float:
    """Steps until a curve first reaches a share of its last value.

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
    """Follow inference of stimuli step by step and account for what it costs.

    Sampled counts reach their targets one by one: lateral synapses, K for each unit, of a linear decoder; the decoder's
    first layer otherwise. Expected dynamics and codes that are no counts send a graded value through the same synapses.

    Parameters
    ----------
    x
        (m, D) stimuli, numpy or torch.
    steps
        Steps to follow; the model's `evaluation_steps` if not given.
    seed
        Of sampled spikes.

    Raises
    ------
    ValueError
        If the stimuli are not a non-empty matrix with the model's number of pixels, or there are no steps.

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
    if not isinstance(model, IterativeVAE):
        raise TypeError(f"{type(model).__name__} does not infer step by step; give a model with inference='iterative'")
    stimuli = x if isinstance(x, Tensor) else torch.tensor(np.asarray(x))
    if stimuli.ndim != 2 or stimuli.shape[1] != model.n_features or not len(stimuli):
        raise ValueError(
            f"stimuli have shape {tuple(stimuli.shape)}; expected (m, {model.n_features}), with one or more rows"
        )
    if not stimuli.isfinite().all():
        raise ValueError("stimuli hold NaN or infinite values; drop or fill these rows first")
    n_steps = (model.evaluation_steps if steps is None else steps) * model.inner_steps
    if n_steps < 1:
        raise ValueError(f"steps={steps}: follow one step or more")
    weight = next(model.parameters())
    generator = torch.Generator(device=weight.device).manual_seed(seed)
    counts = model.sampled and model.law.is_count
    sums = np.zeros((n_steps, 4))  # kl, spikes, non-zero units, units that are one
    residual, contrast = np.zeros((n_steps, len(stimuli))), np.zeros(len(stimuli))
    prior, place = model.prior(), 0
    for batch in stimuli.split(batch_size):
        frames = batch.to(weight)
        rows = slice(place, place + len(frames))
        place += len(frames)
        contrast[rows] = (frames - frames.mean(1, keepdim=True)).square().sum(1).double().cpu().numpy()
        for step, state in enumerate(model.trajectory(frames, n_steps // model.inner_steps, generator=generator)):
            law, emitted = model.law_of(state), state.emitted
            error = (frames - model.decode(law.mean)).square().sum(1)
            residual[step, rows] = error.double().cpu().numpy()
            kl = torch.distributions.kl_divergence(law, prior).sum()
            parts = (kl, emitted.sum(), (emitted != 0).sum(), (emitted == 1).sum())
            sums[step] += [float(part) for part in parts]
    kl, spikes, nonzero, ones = (sums / len(stimuli)).T
    r2 = np.array([r2_pooled_of_sums(row, contrast) for row in residual])
    fan_out = model.n_latents if model.is_linear else model.decoder.fan_out
    assert isinstance(fan_out, int)
    acts = [synaptic_operations(s, n, o, fan_out) for s, n, o in zip(spikes, nonzero, ones)]
    operations = np.array([act.events if counts else act.nonzero for act in acts])
    macs = np.zeros(n_steps)
    if model.is_linear:
        macs[0] = model.n_features * model.n_latents
    else:
        macs += 2 * dense_macs(model.decoder, model.n_latents) - model.n_latents * fan_out
    gated = [(0.0, act.events) if counts else (act.macs, act.acs) for act in acts]
    joules = np.array([hardware_joules(m + dense, a, prices) for (m, a), dense in zip(gated, macs)])
    done = steps_to_share(r2)
    until = slice(0, int(done)) if math.isfinite(done) else None

    def total(values: NDArray[np.float64]) -> float:
        return math.nan if until is None else float(values[until].sum())

    emitted_spikes = spikes if model.law.has_rate else np.full(n_steps, math.nan)
    return InferenceEnergy(
        r2, kl, emitted_spikes, operations, macs, joules, done, total(emitted_spikes), total(operations), total(joules)
    )
