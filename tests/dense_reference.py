"""The published construction of relaxed Poisson counts, written out: a reference for tests and benchmarks.

It draws the same number of exponential gaps for every cell, enough for the largest rate, and sums softened
indicators of all arrival times; autograd does the rest. Memory and time are cells x gaps. The indicators are
spelt out here again, independently of the package.
"""

import math
from collections.abc import Callable

import scipy.stats
import torch
from torch import Tensor


def _clipped(x: Tensor) -> Tensor:
    return ((x + 1) / 2).clamp(0, 1)


def _smoothstep(u: Tensor) -> Tensor:
    return 3 * u**2 - 2 * u**3


def _smootherstep(u: Tensor) -> Tensor:
    return 6 * u**5 - 15 * u**4 + 10 * u**3


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "linear": _clipped,
    "cubic": lambda x: _smoothstep(_clipped(x)),
    "quintic": lambda x: _smootherstep(_clipped(x)),
    "cosine": lambda x: (1 - torch.cos(math.pi * _clipped(x))) / 2,
}


def n_gaps(largest_rate: float) -> int:
    """Gaps drawn for every cell: the 1 - 1e-5 quantile of the count of the largest rate."""
    return max(1, int(scipy.stats.poisson(largest_rate).ppf(1 - 1e-5)))


def dense_counts(
    log_rate: Tensor,
    *,
    temperature: float,
    indicator: str,
    generator: torch.Generator,
    gaps: int | None = None,
) -> Tensor:
    """Relaxed counts, shaped like `log_rate`, differentiable by autograd through every gap."""
    rate = log_rate.exp()
    gaps = n_gaps(rate.max().item()) if gaps is None else gaps
    unit = torch.empty(gaps, *log_rate.shape, dtype=log_rate.dtype, device=log_rate.device)
    times = (unit.exponential_(generator=generator) / rate).cumsum(0)
    return STEPS[indicator]((1 - times) / temperature).sum(0)
