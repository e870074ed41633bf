"""Log-rates, rates and divergences of Poisson codes on a CPU, compiled: one pass over the elements, and one backward.

The same numbers as the tensor operations of `_poisson_units.py`, to rounding, without their temporary arrays.
Exponential and logarithm are polynomials that a compiler can do for several elements at once, which it cannot do with
calls of the C library. Needs Numba (`pip install "spikevae[fast]"`), and float32.

Sums over a batch are added block by block, so they do not depend on the number of threads.

References
----------
Moshier (1989), Methods and Programs for Mathematical Functions: the polynomials (Cephes library, `expf` and `logf`).
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ._log_rate import MAX_EXCESS, RESIDUAL_LIMIT
from ._threads import in_shares

Array = np.ndarray[Any, Any]

inner: Any = numba.njit(error_model="numpy", fastmath={"contract"})
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

BLOCK = 1 << 15
"""Elements of a block, about: its rows are added up before those of others."""

MAX_ROWS = 64
"""Rows of a block at most: rounding errors of a sum one after another in float32 grow with its length."""

_f32, _i32 = np.float32, np.int32
LOG2_E, LOG_2_HIGH, LOG_2_LOW = _f32(1.44269504088896341), _f32(0.693359375), _f32(-2.12194440e-4)
SQRT_HALF, HALF, ONE = _f32(0.707106781186547524), _f32(0.5), _f32(1)
LOWEST, HIGHEST = _f32(-104), _f32(89)
"""Below and above, the exponential is zero and infinite in float32."""
E1, E2, E3 = _f32(1.9875691500e-4), _f32(1.3981999507e-3), _f32(8.3334519073e-3)
E4, E5, E6 = _f32(4.1665795894e-2), _f32(1.6666665459e-1), _f32(5.0000001201e-1)
L1, L2, L3 = _f32(7.0376836292e-2), _f32(-1.1514610310e-1), _f32(1.1676998740e-1)
L4, L5, L6 = _f32(-1.2420140846e-1), _f32(1.4249322787e-1), _f32(-1.6668057665e-1)
L7, L8, L9 = _f32(2.0000714765e-1), _f32(-2.4999993993e-1), _f32(3.3333331174e-1)
BIAS, FRACTION_BITS, FRACTION = _i32(127), _i32(23), _i32(0x007FFFFF)
HALF_BITS = _i32(0x3F000000)


@inner
def exponential(x: Any) -> Any:
    """e^x of a float32."""
    bounded = LOWEST if x < LOWEST else x  # NaN stays
    bounded = HIGHEST if bounded > HIGHEST else bounded
    whole = np.floor(bounded * LOG2_E + HALF)
    rest = (bounded - whole * LOG_2_HIGH) - whole * LOG_2_LOW
    power = ((((E1 * rest + E2) * rest + E3) * rest + E4) * rest + E5) * rest + E6
    power = power * (rest * rest) + rest + ONE
    exponent = _i32(whole)
    first = _i32(exponent >> 1)  # two factors, since 2^-140 and 2^128 are none
    scale = _i32((first + BIAS) << FRACTION_BITS).view(np.float32)
    return power * scale * _i32((exponent - first + BIAS) << FRACTION_BITS).view(np.float32)


@inner
def logarithm(x: Any) -> Any:
    """log x of a float32 from 1 to the largest; infinity and NaN stay."""
    bits = _f32(x).view(np.int32)
    exponent = _f32(_i32(bits >> FRACTION_BITS) - BIAS + _i32(1))
    fraction = _i32((bits & FRACTION) | HALF_BITS).view(np.float32)
    small = fraction < SQRT_HALF
    exponent = exponent - ONE if small else exponent
    y = (fraction + fraction if small else fraction) - ONE
    square = y * y
    power = (((L1 * y + L2) * y + L3) * y + L4) * y + L5
    power = (((power * y + L6) * y + L7) * y + L8) * y + L9
    value = power * y * square + exponent * LOG_2_LOW - HALF * square + y + exponent * LOG_2_HIGH
    return value if x - x == 0 else x


@compiled
def _forward(
    raw: Any,
    offset: Any,
    scale: Any,
    prior: Any,
    bounds: Any,
    log_rate: Any,
    rate: Any,
    slope: Any,
    rates: Any,
    products: Any,
    place: Any,
) -> None:
    """Log-rates and rates, and for each block and unit the sums of rates, and of rates times relative log-rates."""
    first, last, n_rows, per_fit, rows = place
    upper, lower_by, upper_by = bounds
    for b in range(first, last):
        fit, begin = b // per_fit, b % per_fit * rows
        shift, factor, log_prior = offset[fit], scale[fit], prior[fit]
        total, product = rates[b], products[b]
        total[:] = 0
        product[:] = 0
        for row in range(fit * n_rows + begin, fit * n_rows + min(begin + rows, n_rows)):
            x, u, r = raw[row], log_rate[row], rate[row]
            for k in range(len(x)):
                bounded = upper if x[k] > upper else x[k]
                grown = exponential(bounded)
                if slope is None:
                    above = grown * upper_by + ONE
                    value, both = grown / above, above
                else:
                    excess = grown * lower_by + ONE
                    share = ONE / excess
                    value = grown * share * factor[k]  # bounded by e^10 of the prior's
                    above = value * upper_by + ONE
                    value, both = value / above, excess * above
                    slope[row, k] = share
                log_value = bounded + shift[k] - logarithm(both)
                u[k], r[k] = log_value, value
                total[k] += value
                product[k] += value * (log_value - log_prior[k])


@compiled
def _backward(
    log_rate: Any,
    rate: Any,
    slope: Any,
    prior: Any,
    to_log: Any,
    to_rate: Any,
    to_mean: Any,
    to_kl: Any,
    upper_by: Any,
    total: Any,
    moved: Any,
    place: Any,
) -> None:
    """Gradients by the outputs of the encoder, and sums of those by the log-rates over the rows of each block."""
    first, last, n_rows, per_fit, rows = place
    for b in range(first, last):
        fit, begin = b // per_fit, b % per_fit * rows
        log_prior, of_mean, of_kl, column = prior[fit], to_mean[fit], to_kl[fit], moved[b]
        column[:] = 0
        for row in range(fit * n_rows + begin, fit * n_rows + min(begin + rows, n_rows)):
            u, r, t = log_rate[row], rate[row], total[row]
            for k in range(len(u)):
                value = of_mean[k] + of_kl * (u[k] - log_prior[k])
                if to_rate is not None:
                    value += to_rate[row, k]
                value *= r[k]
                if to_log is not None:
                    value += to_log[row, k]
                value *= ONE - r[k] * upper_by
                column[k] += value
                t[k] = value if slope is None else value * slope[row, k]


def _blocks(n_rows: int, n_units: int) -> tuple[int, int]:
    """Blocks per fit, and rows of a block."""
    rows = max(1, min(n_rows, MAX_ROWS, BLOCK // max(1, n_units)))
    return -(-n_rows // rows), rows


def _flat(x: Tensor) -> Array:
    """All rows of all fits, (F * B, K); writing to it changes a contiguous tensor."""
    found: Array = x.detach().contiguous().numpy().reshape(-1, x.shape[-1])
    return found


def _tensor(x: Array, shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor of this shape."""
    return torch.from_numpy(x.astype(np.float32)).view(shape)


def units(raw: Tensor, prior: Tensor, *, limit: float, residual: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-rates, rates, sums over units of means of rate times relative log-rate, mean rates, slopes of residuals.

    Parameters
    ----------
    raw, prior
        (..., B, K) outputs of the encoder and (..., K) log-rates of the prior.
    limit
        Soft bound of the log-rates.
    residual
        Whether `raw` are residuals on the log-rates of the prior, with a soft bound of their own; else log-rates.
    """
    *lead, n_rows, k = raw.shape
    n_fits = math.prod(lead)
    per_fit, rows = _blocks(n_rows, k)
    log_rate, rate = raw.new_empty(raw.shape), raw.new_empty(raw.shape)
    slope = raw.new_empty(raw.shape) if residual else None
    row = _flat(prior.expand(*lead, k))
    offset = row if residual else np.zeros_like(row)
    bounds = (_f32(MAX_EXCESS), _f32(math.exp(-RESIDUAL_LIMIT)), _f32(math.exp(-limit)))
    given = (_flat(raw), offset, np.exp(offset), row, bounds)
    written = (_flat(log_rate), _flat(rate), None if slope is None else _flat(slope))
    sums = np.empty((2, n_fits * per_fit, k), np.float32)

    def part(first: int, last: int) -> None:
        _forward(*given, *written, *sums, (first, last, n_rows, per_fit, rows))

    in_shares(part, n_fits * per_fit)
    rates, products = sums.reshape(2, n_fits, per_fit, k).sum(2, dtype=np.float64) / n_rows
    mean, weighted = _tensor(rates, (*lead, k)), _tensor(products.sum(-1), tuple(lead))
    return log_rate, rate, weighted, mean, raw.new_empty(*lead, 0) if slope is None else slope


def units_backward(
    log_rate: Tensor,
    rate: Tensor,
    prior: Tensor,
    to_mean: Tensor,
    to_kl: Tensor,
    *,
    limit: float,
    slope: Tensor | None = None,
    to_log: Tensor | None = None,
    to_rate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients by the outputs of the encoder (..., B, K), and sums over rows of those by the log-rates (..., K).

    Parameters
    ----------
    to_log, to_rate
        (..., B, K) gradients by log-rates and rates; None where there are none.
    to_mean, to_kl
        (..., K) and (...) gradients by mean rates and by the divergence, divided by the number of rows.
    """
    *lead, n_rows, k = rate.shape
    n_fits = math.prod(lead)
    per_fit, rows = _blocks(n_rows, k)
    total, moved = rate.new_empty(rate.shape), np.empty((n_fits, per_fit, k), np.float32)
    optional = (None if x is None else _flat(x) for x in (slope, prior.expand(*lead, k), to_log, to_rate, to_mean))
    given = (_flat(log_rate), _flat(rate), *optional, to_kl.detach().contiguous().numpy().reshape(-1))
    written = (_f32(math.exp(-limit)), _flat(total), moved.reshape(-1, k))

    def part(first: int, last: int) -> None:
        _backward(*given, *written, (first, last, n_rows, per_fit, rows))

    in_shares(part, n_fits * per_fit)
    return total, _tensor(moved.sum(1, dtype=np.float64), (*lead, k))
