"""Arrivals on a GPU: one pass reads log-rates and writes counts and derivatives, without waiting for the CPU.

The arrivals of each element are drawn one after another to the end of the window; a block of elements takes as many
steps as its element with most arrivals. Elements that expect more than MAX_ARRIVALS get a Gaussian with the mean and
covariance of their sums. Needs Triton, which comes with PyTorch's CUDA builds; without it, or in float64, `arrivals.py`
draws with PyTorch alone.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
MAX_ARRIVALS = 5000.0
"""The distribution function of a sum over more arrivals is within 0.004 of that of a Gaussian."""

INDICATORS = {"sigmoid": 0, "linear": 1, "cubic": 2, "quintic": 3, "cosine": 4}


@triton.jit
def _fill_block(
    log_rate_at: Any,
    z_at: Any,
    slope_at: Any,
    seed_at: Any,
    n: Any,
    stop: Any,
    per_temperature: Any,
    max_arrivals: Any,
    mean: Any,
    spread: Any,
    along: Any,
    across: Any,
    INDICATOR: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    element = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = element < n
    rate = tl.exp(tl.load(log_rate_at + element, mask=inside, other=-float("inf")))
    seed = tl.load(seed_at)
    gaussian = rate * stop > max_arrivals
    time = tl.zeros([SIZE], tl.float32)
    z = tl.zeros([SIZE], tl.float32)
    slope = tl.zeros([SIZE], tl.float32)
    waiting = inside & (rate > 0) & (rate * stop <= max_arrivals)  # false for NaN
    step = 0
    while tl.max(waiting.to(tl.int32), 0) > 0:
        time -= tl.log(1 - tl.rand(seed + step, element)) / rate
        waiting = waiting & (time < stop)
        x = (1 - time) * per_temperature
        u = tl.minimum(tl.maximum((x + 1) * 0.5, 0.0), 1.0)
        if INDICATOR == 0:
            value = 1 / (1 + tl.exp(-x))
            change = value * (1 - value)
        elif INDICATOR == 1:
            value = u
            change = tl.where((u > 0) & (u < 1), 0.5, 0.0)
        elif INDICATOR == 2:
            value = u * u * (3 - 2 * u)
            change = 3 * u * (1 - u)
        elif INDICATOR == 3:
            value = u * u * u * ((6 * u - 15) * u + 10)
            change = 15 * u * u * (1 - u) * (1 - u)
        else:
            value = 0.5 - 0.5 * tl.cos(3.14159265358979 * u)
            change = 0.785398163397448 * tl.sin(3.14159265358979 * u)
        z += tl.where(waiting, value, 0.0)
        slope += tl.where(waiting, change * time * per_temperature, 0.0)
        step += 1
    if tl.max(gaussian.to(tl.int32), 0) > 0:
        root = tl.sqrt(rate)
        first, second = tl.randn(seed - 1, element), tl.randn(seed - 2, element)
        z = tl.where(gaussian, tl.maximum(rate * mean + root * spread * first, 0.0), z)
        slope = tl.where(gaussian, rate * mean + root * (along * first + across * second), slope)
    whole = rate < float("inf")  # false for NaN
    tl.store(z_at + element, tl.where(whole, z, rate), mask=inside)
    tl.store(slope_at + element, tl.where(whole, slope, rate), mask=inside)


def soft_counts(
    log_rate: Tensor,
    window: tuple[float, float],
    integrals: tuple[float, float, float],
    temperature: float,
    indicator: str,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Relaxed counts of flat float32 log-rates and their derivative, from one number of the generator.

    `integrals` are those of `window_integrals`.
    """
    z, slope = torch.empty_like(log_rate), torch.empty_like(log_rate)
    if len(z) == 0:
        return z, slope
    start, stop = window
    first, second, third = integrals
    variance = start + second  # arrivals before the window count one each
    along = 0.5 * variance / math.sqrt(variance)
    across = math.sqrt(max(third - along * along, 0.0))
    seed = torch.randint(2**62, (1,), generator=generator, device=log_rate.device)
    _fill_block[(triton.cdiv(len(z), BLOCK),)](
        log_rate.contiguous(),
        z,
        slope,
        seed,
        len(z),
        stop,
        1 / temperature,
        MAX_ARRIVALS,
        start + first,
        math.sqrt(variance),
        along,
        across,
        INDICATOR=INDICATORS[indicator],
        SIZE=BLOCK,
    )
    return z, slope
