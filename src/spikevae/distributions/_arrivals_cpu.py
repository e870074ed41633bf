"""Arrivals on a CPU: block by block, each block in cache, in NumPy, whose small operations cost a fifth of PyTorch's.

A cell's arrivals are drawn one after another, each an exponential gap after the one before, for all cells at once, and
only cells that had one go on to the next. Most cells of a sparse code have none at all: their first gap is read one
byte deep, and the rest of its digits drawn only where that byte leaves room for an arrival.

One thread does it all: small operations of NumPy hand its lock over more often than they run beside each other, and two
threads were slower than one. `_arrivals_numba.py` shares the work.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Contributions = Callable[[Array], tuple[Array, Array]]
"""What arrivals at given times add to the count and to its derivative."""

BLOCK = 1 << 16
"""Cells at a time: a block's numbers fit a core's cache, and the cost of calls (1 µs each) stays small beside them."""

EARLY = 2.0
"""Early arrivals, each of which counts one, are drawn like the others where a block's cells expect fewer than this on
average, and as one Poisson count where they expect more (15 ns an arrival against 25 to 50 ns a count)."""

MANY = 6.0
"""Blocks whose cells expect more arrivals than this are drawn as a Poisson count and as many places in the window."""

ROUNDS, FEW = 16, 200
"""Cells still waiting after this many arrivals, or when no more than this many are, get the rest of theirs that way."""

HELD = 1 << 18
"""Arrivals held at once."""


def uniform(n: int, dtype: Any, generator: torch.Generator) -> Array:
    """Numbers in [0, 1)."""
    drawn: Array = torch.rand(n, generator=generator, dtype=dtype).numpy()
    return drawn


def poisson(mean: Array, generator: torch.Generator) -> Array:
    """Counts, as floats."""
    counts: Array = torch.poisson(torch.from_numpy(mean), generator=generator).numpy()
    return counts


def by_counts(
    rate: Array, begin: Array, stop: float, contributions: Contributions, generator: torch.Generator
) -> tuple[Array, Array]:
    """What all arrivals between `begin` and `stop` add: their number is drawn, then their places."""
    dtype = torch.from_numpy(rate).dtype
    value, gradient = np.empty_like(rate), np.empty_like(rate)
    left = stop - begin
    ends = np.cumsum(rate * left, dtype=np.float64)
    cuts = np.searchsorted(ends, np.arange(HELD, ends[-1], HELD))
    for low, high in pairwise((0, *cuts, len(rate))):
        counts = poisson((rate * left)[low:high], generator).astype(np.int64)
        owner = np.repeat(np.arange(high - low), counts)
        time = begin[low:high][owner] + left[low:high][owner] * uniform(len(owner), dtype, generator)
        for total, part in zip((value, gradient), contributions(time)):
            total[low:high] = np.bincount(owner, part, high - low)
    return value, gradient


def first_arrivals(
    rate: Array, begin: float, stop: float, spare: Array, generator: torch.Generator
) -> tuple[Array, Array]:
    """Cells that may have an arrival, and the time of the first, which may lie beyond `stop`; writes over `spare`."""
    dtype, kind = torch.from_numpy(rate).dtype, rate.dtype.type
    words = torch.empty(-(-len(rate) // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    byte = words.numpy().view(np.uint8)[: len(rate)]
    # The gap's uniform number is (byte + rest) / 256; it has room below 1 - exp(-expected), and that is below expected.
    room = np.empty(len(rate), np.uint8)
    np.minimum(np.multiply(rate, kind(256 * (stop - begin)), out=spare), kind(255), out=spare)
    np.copyto(room, spare, casting="unsafe")
    cell = np.flatnonzero(np.less_equal(byte, room, out=room.view(np.bool_)))
    place = (uniform(len(cell), dtype, generator) + byte[cell]) * kind(-1 / 256)
    return cell, kind(begin) - np.log1p(place) / rate[cell]


def fill(
    log_rate: Array,
    z: Array,
    slope: Array,
    window: tuple[float, float],
    contributions: Contributions,
    generator: torch.Generator,
) -> None:
    """Write the counts `z` of one block and their derivative `slope`."""
    start, stop = window
    dtype = torch.from_numpy(z).dtype
    rate = np.exp(log_rate, out=slope)  # which is not needed before the rates are not
    mean = float(rate.sum()) / len(rate)
    begin = start if mean * start > EARLY else 0.0
    early = poisson(rate * z.dtype.type(begin), generator) if begin > 0 else None
    if mean * (stop - begin) > MANY:
        z[:], slope[:] = by_counts(rate, np.full_like(rate, begin), stop, contributions, generator)
    else:
        cell, time = first_arrivals(rate, begin, stop, z, generator)
        rate = rate[cell]
        z.fill(0)
        slope.fill(0)
        for k in range(ROUNDS):
            if k > 0:
                time -= np.log(uniform(len(cell), dtype, generator)) / rate
            arrived = np.flatnonzero(time < stop)
            cell, rate, time = cell[arrived], rate[arrived], time[arrived]
            value, gradient = contributions(time)
            z[cell] += value
            slope[cell] += gradient
            if len(cell) <= FEW:
                break
        if len(cell):
            value, gradient = by_counts(rate, time, stop, contributions, generator)
            z[cell] += value
            slope[cell] += gradient
    if early is not None:
        z += early


def soft_counts(
    log_rate: Tensor, window: tuple[float, float], contributions: Contributions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Relaxed counts of flat log-rates and their derivative; no cell may expect more than BUSY arrivals."""
    z, slope = torch.empty_like(log_rate), torch.empty_like(log_rate)
    with np.errstate(divide="ignore", invalid="ignore"):  # a uniform number of 0, a rate of 0: no arrival
        for block in zip(*(x.split(BLOCK) for x in (log_rate, z, slope))):
            if len(block[0]):
                log_rates, counts, slopes = (x.numpy() for x in block)
                fill(log_rates, counts, slopes, window, contributions, generator)
    return z, slope
