"""Arrivals on a CPU, compiled: one pass over the elements, without NumPy's temporary arrays.

One random byte per element, the leading digits of a uniform number, is drawn first. The log-rate of the element is
compared with the lowest one at which that byte allows an arrival, so elements without an arrival, most of a sparse
code, need no exponential. For the others, uniform numbers are multiplied until the product falls below exp(-expected),
one factor per arrival; given their number, arrivals are uniform in time. Before the window each arrival counts one;
where many are expected there, only their number is drawn. Needs Numba (`pip install "spikevae[fast]"`); without it
`_arrivals_cpu.py` draws with NumPy.

Each block of elements has its own random state, so the numbers do not depend on the number of threads.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ._threads import Result, in_shares

Array = np.ndarray[Any, Any]
Contributions = Callable[[Array], tuple[Array, Array]]

BLOCK = 1 << 16
"""Elements that share a random state; a multiple of 8."""

CHUNK = 512
"""Elements whose random bytes are drawn at once; a divisor of BLOCK and a multiple of 8."""

MAX_EARLY_ARRIVALS = 2.0
"""Where more than this are expected before the window, one Poisson count is drawn, else they are drawn one by one."""

N_TABLES = 13
"""Poisson counts of means 1, 2, 4, ..., 4096 are drawn from tables. Any mean is a sum of these and a rest below 1,
whose arrivals are drawn one by one."""

MAX_TABLED_RATE = 2.0**N_TABLES - 1
"""Largest rate whose counts are sums of those of the tables, at most one of each."""

MAX_ARRIVALS_IN_MEMORY, MAX_ARRIVALS_PER_ELEMENT = 1 << 14, 1 << 10
"""Most arrivals in memory at once, and the memory reserved for each element of a group. None expects more than
MAX_EARLY_ARRIVALS + MAX_WINDOW_ARRIVALS; exp(-expected) would underflow at one and a half times as many."""


@numba.njit(nogil=True, cache=True)
def _bits(a: Any, b: Any, c: Any, d: Any) -> Any:
    """64 random bits and the next state of xoshiro256++ (Blackman and Vigna 2021)."""
    total = a + d
    drawn = ((total << np.uint64(23)) | (total >> np.uint64(41))) + a
    shifted = b << np.uint64(17)
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    d = (d << np.uint64(45)) | (d >> np.uint64(19))
    return drawn, a, b, c, d


@numba.njit(nogil=True, cache=True)
def _uniform(a: Any, b: Any, c: Any, d: Any) -> Any:
    """A number in [0, 1) and the next state."""
    drawn, a, b, c, d = _bits(a, b, c, d)
    return np.float64(drawn >> np.uint64(11)) * 2.0**-53, a, b, c, d


@numba.njit(nogil=True, cache=True)
def _load(state: Any) -> Any:
    return state[0], state[1], state[2], state[3]


@numba.njit(nogil=True, cache=True)
def _save(state: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    state[0], state[1], state[2], state[3] = a, b, c, d


@cache
def alias_tables() -> tuple[Array, Array, Array, Array]:
    """Alias tables (Walker 1977) of the Poisson distributions of means 1, 2, 4, ....

    A column is chosen uniformly; it gives its own count with a given probability, else its alias. The number of columns
    is a power of two.

    Returns
    -------
    first, shift, share, alias
        For each distribution the index of its first column in `share` and `alias`, and by how many bits 64 random bits
        are shifted to choose a column. For each column the number out of 2^32 below which it gives its own count, and
        the count that it gives otherwise. The count of the first column is ``alias[first - 1]``. Less than 1e-11 of
        each distribution is left out; rounding to 2^-32 changes less than 1e-10 of it.
    """
    first, shift, share, alias = [], [], [], []
    for mean in 2 ** np.arange(N_TABLES):
        low = max(0, int(mean - 8 * math.sqrt(mean) - 12))
        n_columns = 1 << int(mean + 8 * math.sqrt(mean) + 12 - low).bit_length()
        counts = np.arange(low, low + n_columns)
        mass = np.exp(counts * math.log(mean) - mean - np.vectorize(math.lgamma)(counts + 1.0))
        mass *= n_columns / mass.sum()
        kept, other = np.ones(n_columns), counts.copy()
        small, large = ([int(i) for i in np.flatnonzero(side)] for side in (mass < 1, mass >= 1))
        while small and large:
            poor, rich = small.pop(), large.pop()
            kept[poor], other[poor] = mass[poor], counts[rich]
            mass[rich] -= 1 - mass[poor]
            (small if mass[rich] < 1 else large).append(rich)
        alias += [low, *other]
        share += [0, *np.minimum(np.rint(kept * 2.0**32), 2**32 - 1 + (kept == 1))]
        first.append(len(alias) - n_columns)
        shift.append(64 - int(n_columns).bit_length() + 1)
    return np.array(first), np.array(shift, np.uint64), np.array(share, np.uint64), np.array(alias)


@numba.njit(nogil=True, cache=True)
def _early(log_rate: Any, z: Any, block: int, states: Any, limit: float, start: float, tables: Any) -> None:
    """Write the Poisson counts of mean exp(log_rate) * start where `log_rate` is above `limit`."""
    first, shift, share, alias = tables
    for at in range(len(states)):
        a, b, c, d = _load(states[at])
        for i in range(at * block, min((at + 1) * block, len(log_rate))):
            if log_rate[i] > limit:
                mean = math.exp(log_rate[i]) * start
                whole, power, count = int(mean), 0, 0
                end = math.exp(whole - mean)
                while whole > 0:
                    if whole & 1 or power == N_TABLES - 1:
                        bits_left, a, b, c, d = _bits(a, b, c, d)
                        column = np.int64(bits_left >> shift[power])
                        if (bits_left & np.uint64(0xFFFFFFFF)) < share[first[power] + column]:
                            count += alias[first[power] - 1] + column
                        else:
                            count += alias[first[power] + column]
                    if power < N_TABLES - 1:
                        whole >>= 1
                        power += 1
                    else:
                        whole -= 1
                u, a, b, c, d = _uniform(a, b, c, d)
                product = 1.0 - u
                while product > end:
                    count += 1
                    u, a, b, c, d = _uniform(a, b, c, d)
                    product *= u
                z[i] = count
        _save(states[at], a, b, c, d)


@numba.njit(nogil=True, cache=True)
def _counts(rate: Any, z: Any, block: int, states: Any, lowest: Any, tables: Any) -> bool:
    """Write Poisson counts: one arrival after another up to MAX_EARLY_ARRIVALS, by tables above, none beyond.

    Returns whether all rates are such that counts were drawn; zero is written for the others.
    """
    first, shift, share, alias = tables
    complete = True
    words, owner = np.empty(CHUNK // 8, np.uint64), np.empty(CHUNK, np.int64)
    digits = words.view(np.uint8)
    for at in range(len(states)):
        a, b, c, d = _load(states[at])
        for start in range(at * block, min((at + 1) * block, len(rate)), CHUNK):
            for word in range(CHUNK // 8):
                words[word], a, b, c, d = _bits(a, b, c, d)
            n_possible = 0
            for place in range(min(CHUNK, len(rate) - start)):  # without a branch that depends on random numbers
                z[start + place] = 0
                owner[n_possible] = place
                n_possible += not rate[start + place] <= lowest[digits[place]]  # NaN too
            for which in range(n_possible):
                i = start + owner[which]
                if not rate[i] <= MAX_TABLED_RATE:
                    complete = False
                    continue
                u, a, b, c, d = _uniform(a, b, c, d)
                whole, power, count = 0, 0, 0
                if rate[i] > MAX_EARLY_ARRIVALS:
                    whole = int(rate[i])
                else:
                    u = (digits[owner[which]] + u) * (1 / 256)
                end = math.exp(whole - rate[i])
                while whole > 0:
                    if whole & 1:
                        bits_left, a, b, c, d = _bits(a, b, c, d)
                        column = np.int64(bits_left >> shift[power])
                        if (bits_left & np.uint64(0xFFFFFFFF)) < share[first[power] + column]:
                            count += alias[first[power] - 1] + column
                        else:
                            count += alias[first[power] + column]
                    whole >>= 1
                    power += 1
                product = 1.0 - u
                while product > end:
                    count += 1
                    u, a, b, c, d = _uniform(a, b, c, d)
                    product *= u
                z[i] = count
        _save(states[at], a, b, c, d)
    return complete


@numba.njit(nogil=True, cache=True)
def _arrivals(
    log_rate: Any, first: int, block: int, states: Any, lowest: Any, limit: float, window: Any, owner: Any, time: Any
) -> tuple[int, int]:
    """Write elements and times of arrivals from element `first` on.

    Returns the first element left out and the number of arrivals. `first` begins a group of 8 elements, which share a
    word of random bytes.
    """
    start, stop = window
    at, n_drawn, element, full = first // block, 0, first, len(owner) - 8 * MAX_ARRIVALS_PER_ELEMENT
    a, b, c, d = _load(states[at])
    while element < len(log_rate) and n_drawn <= full:
        if element == (at + 1) * block:
            at += 1
            a, b, c, d = _load(states[at])
        bytes_left, a, b, c, d = _bits(a, b, c, d)
        for i in range(element, min(element + 8, len(log_rate))):
            byte = bytes_left & np.uint64(255)
            bytes_left >>= np.uint64(8)
            if log_rate[i] > lowest[byte]:
                u, a, b, c, d = _uniform(a, b, c, d)
                if log_rate[i] > limit:
                    begin = start
                else:
                    begin = 0.0
                    u = (byte + u) * (1 / 256)
                product, end = 1.0 - u, math.exp(-math.exp(log_rate[i]) * (stop - begin))
                while product > end and n_drawn < len(owner):
                    u, a, b, c, d = _uniform(a, b, c, d)
                    owner[n_drawn] = i
                    time[n_drawn] = begin + (stop - begin) * u
                    n_drawn += 1
                    u, a, b, c, d = _uniform(a, b, c, d)
                    product *= u
        element += 8
    _save(states[at], a, b, c, d)
    return min(element, len(log_rate)), n_drawn


@numba.njit(nogil=True, cache=True)
def _add(z: Any, slope: Any, owner: Any, value: Any, gradient: Any) -> None:
    for i in range(len(value)):
        z[owner[i]] += value[i]
        slope[owner[i]] += gradient[i]


def _draw(
    log_rate: Array,
    z: Array,
    slope: Array,
    states: Array,
    lowest: Array,
    limit: float,
    window: tuple[float, float],
    contributions: Contributions,
) -> None:
    """Add the arrivals of some blocks to their counts and derivatives."""
    if limit < math.inf:
        _early(log_rate, z, BLOCK, states, limit, window[0], alias_tables())
    owner, time = np.empty(MAX_ARRIVALS_IN_MEMORY, np.int32), np.empty(MAX_ARRIVALS_IN_MEMORY, log_rate.dtype)
    element = 0
    while element < len(log_rate):
        element, n_drawn = _arrivals(log_rate, element, BLOCK, states, lowest, limit, window, owner, time)
        value, gradient = contributions(time[:n_drawn])
        _add(z, slope, owner, value, gradient)


def _in_blocks(draw: Callable[..., Result], arrays: list[Array], generator: torch.Generator) -> list[Result]:
    """What `draw(*parts, states)` returns for parts of flat arrays that are whole blocks, one part per thread."""
    n_blocks = -(-len(arrays[0]) // BLOCK)
    drawn = torch.empty(n_blocks, 4, dtype=torch.int64, device="cpu").random_(-(2**63), None, generator=generator)
    states = drawn.numpy().view(np.uint64)

    def part(first: int, last: int) -> Result:
        return draw(*(x[first * BLOCK : last * BLOCK] for x in arrays), states[first:last])

    return in_shares(part, n_blocks)


@cache
def _lowest(stop: float, limit: float) -> Array:
    """Rates above which each value of the first byte allows an arrival before `stop`, at most `limit`."""
    lowest: Array = (-np.log1p(np.arange(256) / -256) / stop).clip(None, limit)
    return lowest


def counts(rate: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Poisson counts of flat rates, and the indices of the rates, too large or NaN, whose counts are not drawn."""
    z, none = torch.empty_like(rate), torch.zeros(0, dtype=torch.int64, device="cpu")
    if len(z) == 0:
        return z, none
    numbers = [rate.detach().numpy(), z.numpy()]
    lowest = _lowest(1.0, MAX_EARLY_ARRIVALS).astype(numbers[0].dtype)

    def draw(rate: Array, z: Array, states: Array) -> bool:
        complete: bool = _counts(rate, z, BLOCK, states, lowest, alias_tables())
        return complete

    complete = all(_in_blocks(draw, numbers, generator))
    return z, none if complete else (~(rate <= MAX_TABLED_RATE)).nonzero()[:, 0]


def soft_counts(
    log_rate: Tensor, window: tuple[float, float], contributions: Contributions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Relaxed counts of flat log-rates and their derivative; at most MAX_WINDOW_ARRIVALS are expected per element."""
    start, stop = window
    z, slope = torch.zeros_like(log_rate), torch.zeros_like(log_rate)
    if len(z) == 0:
        return z, slope
    limit = math.log(MAX_EARLY_ARRIVALS / start) if start > 0 else math.inf
    numbers = [x.numpy() for x in (log_rate, z, slope)]
    with np.errstate(divide="ignore"):  # a byte of 0 always allows an arrival
        lowest = np.log(_lowest(stop, math.inf)).clip(None, limit).astype(numbers[0].dtype)
    draw = partial(_draw, lowest=lowest, limit=limit, window=window, contributions=contributions)
    _in_blocks(draw, numbers, generator)
    return z, slope
