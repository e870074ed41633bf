"""One code of a path, measured on held-out stimuli."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation.evaluate import evaluate
from ..models.codes import get_code
from ..training import Stack
from ..training.fits import DIVERGED

REMEDY = "delete the folder and trace the path again"


@dataclass(frozen=True)
class Point:
    """A code of the path, on held-out stimuli."""

    beta: float
    """Weight of the coding rate."""
    spike_price: float
    """Nats per spike."""
    objective: float
    """Distortion + beta x coding rate, without the price, nats per stimulus."""
    free_energy: float
    """The same at beta = 1."""
    bits: float
    """Coding rate, bits per stimulus."""
    r2: float
    """Pooled R2 of sampled codes."""
    fraction_zeros: float
    """Share of zeros among code entries."""
    spikes: float
    """Per stimulus, all units together."""
    firing_rate: float
    """Spikes per unit per stimulus."""
    joules: float
    """Modelled, per stimulus, at the central energy cost of a spike; NaN for real-valued codes."""
    diverged: bool
    """Whether training ended in numbers that are not finite."""


def measured(stack: Stack, index: int, test: Tensor) -> Point:
    """Fit number `index` of a stack on held-out stimuli (m, D)."""
    result, config = stack.result(index), stack.configs[index]
    m = evaluate(result.model, test, beta=config.beta, seed=config.seed).metrics
    return Point(
        beta=config.beta,
        spike_price=config.spike_price,
        objective=m.distortion + config.beta * m.kl,
        free_energy=m.free_energy,
        bits=m.bits,
        r2=m.r2_pooled,
        fraction_zeros=m.fraction_zeros,
        spikes=m.spikes,
        firing_rate=m.firing_rate,
        joules=m.joules if get_code(config.latent).is_count else math.nan,
        diverged=result.status == DIVERGED,
    )


def read_point(entry: Any, path: Path, remedy: str = REMEDY) -> Point:
    """A point from a file, or a ValueError that names the file and the remedy."""
    names = [field.name for field in fields(Point)]
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise ValueError(f"{path} has a point that is {entry!r:.80}; {remedy}")
    values: dict[str, Any] = {name: math.nan if entry[name] is None else entry[name] for name in names}
    if not all(isinstance(value, int | float) for value in values.values()):
        raise ValueError(f"{path} has a point with text in place of a number; {remedy}")
    return Point(**values)
