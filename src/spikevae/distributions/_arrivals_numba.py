"""Arrivals on a CPU, compiled: one pass over the cells, without NumPy's temporaries.

One random byte a cell, the leading digits of a uniform number, is held against the log-rate below which that byte
leaves no room for an arrival: cells without one, most of a sparse code, cost no exponential. The others multiply
uniform numbers until the product falls below exp(-expected), one factor an arrival; given their number, arrivals are
uniform in time. Needs Numba (`pip install "spikevae[fast]"`); without it `_arrivals_cpu.py` draws with NumPy.

Each block of cells has a random state of its own, so that the numbers are the same however many threads share them.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Contributions = Callable[[Array], tuple[Array, Array]]

BLOCK = 1 << 16
"""Cells that share a random state; a multiple of 8."""

EARLY = 8.0
"""Cells that expect more arrivals than this before the window get them as one Poisson count."""

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
    if log_rate.max().item() > busy:
        loud = (log_rate > busy).nonzero().squeeze(1)
        z[loud] = torch.poisson(log_rate[loud].exp() * start, generator=generator)
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
