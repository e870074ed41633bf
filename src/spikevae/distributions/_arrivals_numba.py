"""Arrivals on a CPU, compiled: one pass over the cells, without NumPy's temporaries.

One random byte a cell, the leading digits of a uniform number, is held against the log-rate below which that byte
leaves no room for an arrival: cells without one, most of a sparse code, cost no exponential. The others multiply
uniform numbers until the product falls below exp(-expected), one factor an arrival; given their number, arrivals are
uniform in time. Where many are expected before the window, where each counts one, they are drawn as one number. Needs
Numba (`pip install "spikevae[fast]"`); without it `_arrivals_cpu.py` draws with NumPy.

Each block of cells has a random state of its own, so that the numbers are the same however many threads share them.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Contributions = Callable[[Array], tuple[Array, Array]]

BLOCK = 1 << 16
"""Cells that share a random state; a multiple of 8."""

EARLY = 2.0
"""Cells that expect more arrivals than this before the window get them as one Poisson count, not one after another."""

POWERS = 13
"""Poisson counts of means 1, 2, 4, ..., 4096 are drawn from tables; their sum, with the arrivals of what is left below
one, has any mean."""

HELD, ROOM = 1 << 14, 1 << 10
"""Arrivals held at once, and places kept free for each cell of a group, none of which expects more than EARLY + BUSY;
exp(-expected) of half as many more would underflow."""


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
    """Walker's tables (1977) of the Poisson laws of means 1, 2, 4, ...: in a column chosen uniformly of a power of two
    the lowest count stands with a given probability, else the column's alias.

    Returns
    -------
    first, shift, share, alias
        Of each law the place of its first column in `share` and `alias`, and how far 64 random bits are shifted to
        choose one of its columns; of each column the share of 2^32 below which it keeps its own count, and the count
        that it gives otherwise. The first column of a law has the count ``alias[first - 1]``. Left out is less than
        1e-11 of each law; shares are rounded to 2^-32, which moves less than 1e-10 of it.
    """
    first, shift, share, alias = [], [], [], []
    for mean in 2 ** np.arange(POWERS):
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
def _early(log_rate: Any, z: Any, block: int, states: Any, busy: float, start: float, tables: Any) -> None:
    """Write the Poisson counts of mean exp(log_rate) * start of cells above `busy`."""
    first, shift, share, alias = tables
    for at in range(len(states)):
        a, b, c, d = _load(states[at])
        for i in range(at * block, min((at + 1) * block, len(log_rate))):
            if log_rate[i] > busy:
                mean = math.exp(log_rate[i]) * start
                whole, power, count = int(mean), 0, 0
                end = math.exp(whole - mean)
                while whole > 0:
                    if whole & 1 or power == POWERS - 1:
                        bits_left, a, b, c, d = _bits(a, b, c, d)
                        column = np.int64(bits_left >> shift[power])
                        if (bits_left & np.uint64(0xFFFFFFFF)) < share[first[power] + column]:
                            count += alias[first[power] - 1] + column
                        else:
                            count += alias[first[power] + column]
                    if power < POWERS - 1:
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
def _arrivals(
    log_rate: Any, first: int, block: int, states: Any, room: Any, busy: float, window: Any, owner: Any, time: Any
) -> tuple[int, int]:
    """Write owners and times of arrivals from cell `first` on; returns the first cell left out and their number.

    `first` begins a group of 8 cells, which share a word of random bytes.
    """
    start, stop = window
    at, held, cell, full = first // block, 0, first, len(owner) - 8 * ROOM
    a, b, c, d = _load(states[at])
    while cell < len(log_rate) and held <= full:
        if cell == (at + 1) * block:
            at += 1
            a, b, c, d = _load(states[at])
        bytes_left, a, b, c, d = _bits(a, b, c, d)
        for i in range(cell, min(cell + 8, len(log_rate))):
            byte = bytes_left & np.uint64(255)
            bytes_left >>= np.uint64(8)
            if log_rate[i] > room[byte]:
                u, a, b, c, d = _uniform(a, b, c, d)
                if log_rate[i] > busy:
                    begin = start
                else:
                    begin = 0.0
                    u = (byte + u) * (1 / 256)
                product, end = 1.0 - u, math.exp(-math.exp(log_rate[i]) * (stop - begin))
                while product > end and held < len(owner):
                    u, a, b, c, d = _uniform(a, b, c, d)
                    owner[held] = i
                    time[held] = begin + (stop - begin) * u
                    held += 1
                    u, a, b, c, d = _uniform(a, b, c, d)
                    product *= u
        cell += 8
    _save(states[at], a, b, c, d)
    return min(cell, len(log_rate)), held


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
    room: Array,
    busy: float,
    window: tuple[float, float],
    contributions: Contributions,
) -> None:
    """Add the arrivals of some blocks to their counts and derivatives."""
    if busy < math.inf:
        _early(log_rate, z, BLOCK, states, busy, window[0], alias_tables())
    owner, time = np.empty(HELD, np.int32), np.empty(HELD, log_rate.dtype)
    cell = 0
    while cell < len(log_rate):
        cell, held = _arrivals(log_rate, cell, BLOCK, states, room, busy, window, owner, time)
        value, gradient = contributions(time[:held])
        _add(z, slope, owner, value, gradient)


def soft_counts(
    log_rate: Tensor, window: tuple[float, float], contributions: Contributions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Relaxed counts of flat log-rates and their derivative; no cell may expect more than BUSY arrivals."""
    start, stop = window
    z, slope = torch.zeros_like(log_rate), torch.zeros_like(log_rate)
    if len(z) == 0:
        return z, slope
    busy = math.log(EARLY / start) if start > 0 else math.inf
    numbers = [x.numpy() for x in (log_rate, z, slope)]
    with np.errstate(divide="ignore"):  # a byte of 0: always room
        room = np.log(-np.log1p(np.arange(256) / -256) / stop).clip(None, busy).astype(numbers[0].dtype)
    n_blocks = -(-len(z) // BLOCK)
    states = torch.empty(n_blocks, 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    n_threads = min(torch.get_num_threads(), n_blocks)
    each = -(-n_blocks // n_threads)
    shares = [
        (*(x[i * BLOCK : (i + each) * BLOCK] for x in numbers), states.numpy().view(np.uint64)[i : i + each])
        for i in range(0, n_blocks, each)
    ]
    draw = partial(_draw, room=room, busy=busy, window=window, contributions=contributions)
    if len(shares) == 1:
        draw(*shares[0])
    else:
        with ThreadPoolExecutor(len(shares) - 1) as pool:
            others = [pool.submit(draw, *share) for share in shares[1:]]
            draw(*shares[0])
            for other in others:
                other.result()  # so that an error is raised here
    return z, slope
