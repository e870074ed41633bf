"""Arrivals on a CPU with NumPy, whose small operations take a fifth of the time of PyTorch's.

Elements are processed in blocks that fit the cache. For all elements of a block at once, arrivals are drawn one after
another, each an exponential gap after the one before; only elements with an arrival take part in the next round. Most
elements of a sparse code have none. So one random byte, the leading digits of a uniform number, is drawn for the first
gap, and the remaining digits only where an arrival is possible given that byte.

One thread does all the work: two threads were slower than one, because small operations of NumPy wait for its lock.
`_arrivals_numba.py` uses several threads.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Contributions = Callable[[Array], tuple[Array, Array]]
"""Function of arrival times: what they add to the count and to its derivative."""

BLOCK = 1 << 16
"""Elements per block: its numbers fit a core's cache, and the overhead of calls (1 µs each) stays small."""

MAX_EARLY_ARRIVALS = 2.0
"""Arrivals before the window count one each. A block whose elements expect more of them than this on average draws them
as one Poisson count per element (25 to 50 ns), any other block draws them one after another (15 ns per arrival)."""

MAX_SEQUENTIAL_ARRIVALS = 6.0
"""Blocks whose elements expect more arrivals than this on average draw a Poisson count per element, then that many
uniform times."""

MAX_ROUNDS, MIN_ELEMENTS_PER_ROUND = 16, 200
"""After so many rounds, or with no more than so many elements left, remaining arrivals are drawn in the same way."""

MAX_ARRIVALS_IN_MEMORY = 1 << 18
"""Most arrivals in memory at once."""


def uniform(n: int, dtype: Any, generator: torch.Generator) -> Array:
    """Numbers in [0, 1)."""
    drawn: Array = torch.rand(n, generator=generator, dtype=dtype, device="cpu").numpy()
    return drawn


def poisson(mean: Array, generator: torch.Generator) -> Array:
    """Counts, as floats."""
    counts: Array = torch.poisson(torch.from_numpy(mean), generator=generator).numpy()
    return counts


def by_counts(
    rate: Array, begin: Array, stop: float, contributions: Contributions, generator: torch.Generator
) -> tuple[Array, Array]:
    """What all arrivals between `begin` and `stop` add: their number is drawn, then their times."""
    dtype = torch.from_numpy(rate).dtype
    value, gradient = np.empty_like(rate), np.empty_like(rate)
    left = stop - begin
    ends = np.cumsum(rate * left, dtype=np.float64)
    cuts = np.searchsorted(ends, np.arange(MAX_ARRIVALS_IN_MEMORY, ends[-1], MAX_ARRIVALS_IN_MEMORY))
    for low, high in pairwise((0, *cuts, len(rate))):
        counts = poisson((rate * left)[low:high], generator).astype(np.int64)
        owner = np.repeat(np.arange(high - low), counts)
        time = begin[low:high][owner] + left[low:high][owner] * uniform(len(owner), dtype, generator)
        for total, part in zip((value, gradient), contributions(time)):
            total[low:high] = np.bincount(owner, part, high - low)
    return value, gradient


def first_arrivals(
    rate: Array, begin: float, stop: float, buffer: Array, generator: torch.Generator
) -> tuple[Array, Array]:
    """Elements that may have an arrival, and the first time, which may lie beyond `stop`; overwrites `buffer`."""
    dtype, kind = torch.from_numpy(rate).dtype, rate.dtype.type
    words = torch.empty(-(-len(rate) // 8), dtype=torch.int64, device="cpu").random_(
        -(2**63), None, generator=generator
    )
    byte = words.numpy().view(np.uint8)[: len(rate)]
    # The gap's uniform number is (byte + rest) / 256. There is an arrival if it is below 1 - exp(-expected) < expected.
    largest = np.empty(len(rate), np.uint8)
    np.minimum(np.multiply(rate, kind(256 * (stop - begin)), out=buffer), kind(255), out=buffer)
    np.copyto(largest, buffer, casting="unsafe")
    element = np.flatnonzero(np.less_equal(byte, largest, out=largest.view(np.bool_)))
    minus_uniform = (uniform(len(element), dtype, generator) + byte[element]) * kind(-1 / 256)
    return element, kind(begin) - np.log1p(minus_uniform) / rate[element]


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
    rate = np.exp(log_rate, out=slope)  # in the memory of `slope`, which is written later
    mean = float(rate.sum()) / len(rate)
    begin = start if mean * start > MAX_EARLY_ARRIVALS else 0.0
    early = poisson(rate * z.dtype.type(begin), generator) if begin > 0 else None
    if mean * (stop - begin) > MAX_SEQUENTIAL_ARRIVALS:
        z[:], slope[:] = by_counts(rate, np.full_like(rate, begin), stop, contributions, generator)
    else:
        element, time = first_arrivals(rate, begin, stop, z, generator)
        rate = rate[element]
        z.fill(0)
        slope.fill(0)
        for k in range(MAX_ROUNDS):
            if k > 0:
                time -= np.log(uniform(len(element), dtype, generator)) / rate
            arrived = np.flatnonzero(time < stop)
            element, rate, time = element[arrived], rate[arrived], time[arrived]
            value, gradient = contributions(time)
            z[element] += value
            slope[element] += gradient
            if len(element) <= MIN_ELEMENTS_PER_ROUND:
                break
        if len(element):
            value, gradient = by_counts(rate, time, stop, contributions, generator)
            z[element] += value
            slope[element] += gradient
    if early is not None:
        z += early


def soft_counts(
    log_rate: Tensor, window: tuple[float, float], contributions: Contributions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Relaxed counts of flat log-rates and their derivative; at most MAX_WINDOW_ARRIVALS are expected per element."""
    z, slope = torch.empty_like(log_rate), torch.empty_like(log_rate)
    with np.errstate(divide="ignore", invalid="ignore"):  # a uniform number of 0, a rate of 0: no arrival
        for block in zip(*(x.split(BLOCK) for x in (log_rate, z, slope))):
            if len(block[0]):
                log_rates, counts, slopes = (x.numpy() for x in block)
                fill(log_rates, counts, slopes, window, contributions, generator)
    return z, slope
