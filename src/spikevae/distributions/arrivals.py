"""Relaxed Poisson counts from the arrivals that occur, at a cost proportional to the spikes.

A count is the number of arrivals of a Poisson process before time 1. Softening the boundary gives
z = sum over arrivals t of s((1 - t) / temperature), with pathwise derivative
dz / dlog_rate = sum s'((1 - t) / temperature) t / temperature: scaling the rate scales every arrival time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._random import Generator, draw, poisson_counts


@dataclass(frozen=True)
class Indicator:
    """A softened step s(x): 1 for x >= reach, 0 for x <= -reach, and its derivative."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    reach: float


def _unit(x: Tensor) -> Tensor:
    return x.add(1).mul_(0.5).clamp_(0, 1)


def _inside(x: Tensor) -> Tensor:
    return (x.abs() < 1).to(x.dtype)


def _cubic(x: Tensor) -> Tensor:
    u = _unit(x)
    return u * u * (3 - 2 * u)


def _cubic_slope(x: Tensor) -> Tensor:
    u = _unit(x)
    return 3 * u * (1 - u)


def _quintic(x: Tensor) -> Tensor:
    u = _unit(x)
    return u * u * u * ((6 * u - 15) * u + 10)


def _quintic_slope(x: Tensor) -> Tensor:
    u = _unit(x)
    return 15 * (u * (1 - u)).square()


def _cosine(x: Tensor) -> Tensor:
    return 0.5 - 0.5 * torch.cos(math.pi * _unit(x))


def _cosine_slope(x: Tensor) -> Tensor:
    return 0.25 * math.pi * torch.sin(math.pi * _unit(x))


def _sigmoid_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


SIGMOID_REACH = 17.0
"""The logistic step never reaches 0 or 1. It is cut at |x| = 17, where it is within 5e-8 of them: float32
cannot tell the difference near 1, and the mean loses temperature * 5e-8 of a spike per unit firing rate."""

INDICATORS: dict[str, Indicator] = {
    indicator.name: indicator
    for indicator in (
        Indicator("sigmoid", torch.sigmoid, _sigmoid_slope, SIGMOID_REACH),
        Indicator("linear", _unit, lambda x: 0.5 * _inside(x), 1.0),
        Indicator("cubic", _cubic, _cubic_slope, 1.0),
        Indicator("quintic", _quintic, _quintic_slope, 1.0),
        Indicator("cosine", _cosine, _cosine_slope, 1.0),
    )
}
"""Softened steps by name: with u = (x + 1) / 2 clipped to [0, 1], linear u, cubic 3u^2 - 2u^3, quintic
6u^5 - 15u^4 + 10u^3, cosine (1 - cos(pi u)) / 2; sigmoid 1 / (1 + exp(-x))."""

SPARSE = 0.5
"""Below this many arrivals a cell on average, one walk over all cells is cheaper on a CPU than a Poisson draw
in each (measured: 80 ns an arrival, 30 to 50 ns a cell). CUDA draws in each cell, which is deterministic."""

CHUNK = 1 << 21
"""Arrivals held at once: cells are taken in blocks of about this many, which bounds memory."""

BUSY = 500.0
"""Cells expecting more arrivals than this near the boundary get a Gaussian with the exact mean and covariance
of their sums instead: the distribution function is then off by less than 0.004, and a fit that runs away to
large firing rates costs no more than the others."""


def get_indicator(name: str) -> Indicator:
    """Return the softened step called `name`; `ValueError` listing the names if there is none."""
    if name not in INDICATORS:
        raise ValueError(f"unknown indicator {name!r}: choose one of {', '.join(INDICATORS)}")
    return INDICATORS[name]


def check_temperature(temperature: float) -> float:
    """Return the temperature as a float; `ValueError` unless it is positive and finite."""
    value = float(temperature)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(
            f"temperature is {temperature}, expected a positive number: for hard counts use Poisson.sample"
        )
    return value


def window(temperature: float, indicator: Indicator) -> tuple[float, float]:
    """Times between which an arrival counts for something other than 1 and 0."""
    reach = temperature * indicator.reach
    return max(0.0, 1.0 - reach), 1.0 + reach


@lru_cache(maxsize=4096)
def window_integrals(temperature: float, indicator_name: str) -> tuple[float, float, float]:
    """Integrals over the window of s, s^2 and (s' t / temperature)^2, by Gauss-Legendre quadrature.

    By Campbell's theorem they are, per unit rate, the mean and variance of the window's part of z and the
    variance of dz/dlog_rate. Each indicator is smooth inside its window, so 128 nodes reach rounding error.
    """
    indicator = INDICATORS[indicator_name]
    start, stop = window(temperature, indicator)
    nodes, weights = np.polynomial.legendre.leggauss(128)
    half = 0.5 * (stop - start)
    t = torch.from_numpy(start + half * (nodes + 1))
    value, slope = contributions(t, temperature, indicator)
    w = torch.from_numpy(half * weights)
    first, second, third = ((w * f).sum().item() for f in (value, value.square(), slope.square()))
    return first, second, third


def contributions(t: Tensor, temperature: float, indicator: Indicator) -> tuple[Tensor, Tensor]:
    """What arrivals at times t add to z and to dz/dlog_rate."""
    x = (1 - t).div_(temperature)
    return indicator.value(x), indicator.slope(x).mul_(t).div_(temperature)


def _walk(rate: Tensor, width: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cell of each arrival and its place in the cell's time window, in (0, 1), for a window of this width.

    One unit-rate Poisson process runs over all cells laid end to end, each as long as its mean count: the
    stretch over a cell is that cell's process. Given their number, arrivals are normalised sums of
    exponential gaps, hence already sorted, and only those that occur are drawn. Positions are float64: a
    cell's share is off by at most 1e-16 of the whole.
    """
    ends = rate.cumsum(0, dtype=torch.float64)
    count = int(torch.poisson(ends[-1] * width, generator=generator))
    gaps = torch.rand(count + 1, generator=generator, dtype=torch.float64).neg_().log1p_()
    steps = gaps.cumsum_(0)
    # The last arrival may round up to the very end, which belongs to no cell.
    position = (steps[:-1] * (ends[-1] / steps[-1])).minimum(torch.nextafter(ends[-1], ends.new_zeros(())))
    cell = torch.searchsorted(ends, position, right=True)
    left = (ends.index_select(0, cell) - position).div_(rate.index_select(0, cell))
    return cell, left.neg_().add_(1).clamp_(0, 1)


def _per_cell(rate: Tensor, width: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Same as `_walk` from one Poisson draw in each cell."""
    counts = torch.poisson(rate * width, generator=generator).long()
    cell = torch.repeat_interleave(counts)
    place = torch.rand(len(cell), generator=generator, dtype=torch.float64, device=rate.device)
    return cell, place


def _add(out: Tensor, cell: Tensor, amount: Tensor) -> None:
    """Add amounts to cells, in an order that does not change from run to run."""
    if out.is_cuda:
        out.index_put_((cell,), amount.to(out.dtype), accumulate=True)
    else:
        out.index_add_(0, cell, amount.to(out.dtype))


def _soft_counts(
    rate: Tensor, temperature: float, indicator: Indicator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z and dz/dlog_rate for finite flat rates whose window expects no more than BUSY arrivals."""
    z, slope = torch.zeros_like(rate), torch.zeros_like(rate)
    start, stop = window(temperature, indicator)
    total = rate.sum().item()
    sparse = 0.0 if rate.is_cuda else SPARSE * len(rate)
    if total * stop < sparse:
        start = 0.0  # early arrivals come with the walk: each counts 1 and has no slope
    elif start > 0:
        z += torch.poisson(rate * start, generator=generator)
    width = stop - start
    arrivals = _walk if total * width < sparse else _per_cell
    n_chunks = max(1, min(len(rate), math.ceil(total * width / CHUNK)))
    for rates, zs, slopes in zip(rate.chunk(n_chunks), z.chunk(n_chunks), slope.chunk(n_chunks)):
        cell, place = arrivals(rates, width, generator)
        value, gradient = contributions(place.mul_(width).add_(start), temperature, indicator)
        _add(zs, cell, value)
        _add(slopes, cell, gradient)
    return z, slope


def _busy_counts(
    rate: Tensor, temperature: float, indicator: Indicator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z and dz/dlog_rate for rates so large that the window's sums are Gaussian; inf and NaN pass through.

    The covariance of the two is half the variance of z, early arrivals included (s s' t / temperature,
    integrated by parts).
    """
    start, _ = window(temperature, indicator)
    first, second, third = window_integrals(temperature, indicator.name)
    noise = torch.randn(2, len(rate), generator=generator, dtype=rate.dtype, device=rate.device)
    spread = rate.sqrt()
    z = rate * first + spread * (math.sqrt(second) * noise[0])
    along = 0.5 * (start + second) / math.sqrt(second)
    across = math.sqrt(max(third - along * along, 0.0))
    slope = rate * (start + first) + spread * (along * noise[0] + across * noise[1])
    return z.clamp_min(0) + poisson_counts(rate * start, generator), slope


def _sample(
    log_rate: Tensor, generator: torch.Generator, *, temperature: float, indicator: Indicator
) -> tuple[Tensor, ...]:
    rate = log_rate.reshape(-1).exp()
    start, stop = window(temperature, indicator)
    limit = BUSY / (stop - start)
    if rate.numel() == 0 or bool(rate.max() <= limit):  # false for NaN
        z, slope = _soft_counts(rate, temperature, indicator, generator)
    else:
        busy = ~(rate <= limit)
        z, slope = _soft_counts(rate.masked_fill(busy, 0), temperature, indicator, generator)
        z[busy], slope[busy] = _busy_counts(rate[busy], temperature, indicator, generator)
    return z.view_as(log_rate), slope.view_as(log_rate)


class Pathwise(torch.autograd.Function):
    """Return z, and send gradients to log_rate through a known dz/dlog_rate."""

    @staticmethod
    def forward(log_rate: Tensor, z: Tensor, slope: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
        lanes = [
            x.expand(info.batch_size, *x.shape) if d is None else x.movedim(d, 0) for x, d in zip(tensors, in_dims)
        ]
        return Pathwise.apply(*lanes), 0


def relaxed_counts(log_rate: Tensor, *, temperature: float, indicator: str = "cubic", generator: Generator) -> Tensor:
    r"""Draw relaxed Poisson counts with a pathwise gradient.

    .. math:: z = \sum_m s\big((1 - t_m)/\tau\big), \qquad
        \frac{\partial z}{\partial \log\lambda} = \sum_m s'\big((1 - t_m)/\tau\big)\, t_m/\tau

    over the arrival times :math:`t_m` of a Poisson process of rate :math:`\lambda`. Only arrivals before
    :math:`1 + \tau` matter where s has compact support, and only those after :math:`1 - \tau` carry gradient.
    The law is that of the published sampler, which draws a fixed number of exponential gaps for every cell;
    here time and memory grow with the spikes. The derivative is computed with the sample, so that backward is
    one multiplication; it cannot be differentiated again.

    Parameters
    ----------
    log_rate
        Log firing rates, any shape, float32 or float64, CPU or CUDA. Cells with a rate of inf or NaN give
        inf or NaN and leave the others alone.
    temperature
        Softness of the boundary, > 0. As it goes to 0 the counts become Poisson.
    indicator
        Softened step, a key of `INDICATORS`. "sigmoid" is cut at `SIGMOID_REACH`.
    generator
        Source of the arrivals. Inside `torch.func.vmap` a `GeneratorStack` gives lane i the numbers it would
        get alone (on CUDA too: there each cell's count is drawn by itself, an order-free way).

    Returns
    -------
    Tensor
        Non-negative relaxed counts, shaped like `log_rate`.

    Raises
    ------
    ValueError
        If the temperature is not positive or the indicator unknown.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473, section on the Poisson reparameterisation.

    Examples
    --------
    >>> log_rate = torch.zeros(1000, requires_grad=True)
    >>> z = relaxed_counts(log_rate, temperature=0.1, generator=torch.Generator().manual_seed(0))
    >>> z.sum().backward()
    >>> bool(abs(z.mean() - 1) < 0.1), bool(abs(log_rate.grad.mean() - 1) < 0.5)
    (True, True)
    """
    sampler = partial(_sample, temperature=check_temperature(temperature), indicator=get_indicator(indicator))
    z, slope = draw(sampler, log_rate, generator)
    counts: Tensor = Pathwise.apply(log_rate, z, slope)
    return counts


def counts_at(log_rate: Tensor, unit_arrivals: Tensor, *, temperature: float, indicator: str = "cubic") -> Tensor:
    """Relaxed counts for given arrivals of a unit-rate process: a deterministic function of the log-rate.

    Arrivals of rate lambda are those of rate 1 divided by lambda. Value and gradient come from the same
    expressions as in `relaxed_counts`.

    Parameters
    ----------
    log_rate
        Log firing rates, any shape.
    unit_arrivals
        Arrival times at rate 1, shape `(n_arrivals, *log_rate.shape)`.
    temperature, indicator
        As in `relaxed_counts`.

    Returns
    -------
    Tensor
        Relaxed counts, shaped like `log_rate`.

    Examples
    --------
    >>> counts_at(torch.zeros(1), torch.tensor([[0.2], [1.0], [3.0]]), temperature=0.1)
    tensor([1.5000])
    """
    with torch.no_grad():
        t = unit_arrivals * torch.exp(-log_rate)
        z, slope = contributions(t, check_temperature(temperature), get_indicator(indicator))
    counts: Tensor = Pathwise.apply(log_rate, z.sum(0), slope.sum(0))
    return counts
