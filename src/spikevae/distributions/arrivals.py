"""Relaxed Poisson counts from the arrivals that occur, in time proportional to the number of spikes.

A count is the number of arrivals of a Poisson process before time 1. With an indicator s in place of the step at time 1
it becomes z = sum over arrivals t of s((1 - t) / temperature), with the pathwise derivative
dz / dlog_rate = sum s'((1 - t) / temperature) t / temperature, because scaling the rate scales every arrival time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._batching import BatchedFunction
from ._random import Generator, draw, poisson_counts, warn_of_fallback


@dataclass(frozen=True)
class Indicator:
    """A smooth step s(x): 1 for x >= reach, 0 for x <= -reach."""

    name: str
    with_slope: Callable[[Any], tuple[Any, Any]]
    """s and its derivative, of a tensor or a NumPy array."""
    reach: float


def _library(x: Any) -> Any:
    return np if isinstance(x, np.ndarray) else torch


def _unit(x: Any) -> Any:
    return ((x + 1) * 0.5).clip(0, 1)


def _linear(x: Any) -> tuple[Any, Any]:
    return _unit(x), (0.5 * _library(x).ones_like(x)) * (abs(x) < 1)


def _cubic(x: Any) -> tuple[Any, Any]:
    u = _unit(x)
    return u * u * (3 - 2 * u), 3 * u * (1 - u)


def _quintic(x: Any) -> tuple[Any, Any]:
    u = _unit(x)
    return u * u * u * ((6 * u - 15) * u + 10), 15 * (u * (1 - u)) ** 2


def _cosine(x: Any) -> tuple[Any, Any]:
    library, angle = _library(x), math.pi * _unit(x)
    # the sine of pi, as rounded, is a little below 0
    return 0.5 - 0.5 * library.cos(angle), 0.25 * math.pi * library.sin(angle).clip(0)


def _sigmoid(x: Any) -> tuple[Any, Any]:
    if isinstance(x, torch.Tensor):
        s: Any = torch.sigmoid(x)
    else:
        with np.errstate(over="ignore"):  # to 0
            s = 1 / (1 + np.exp(-x))
    return s, s * (1 - s)


SIGMOID_REACH = 17.0
"""The sigmoid never reaches 0 or 1. It is cut at |x| = 17, where it is within 5e-8 of them, less than the spacing of
float32 numbers near 1. The mean loses temperature * 5e-8 of the firing rate."""

INDICATORS: dict[str, Indicator] = {
    indicator.name: indicator
    for indicator in (
        Indicator("sigmoid", _sigmoid, SIGMOID_REACH),
        Indicator("linear", _linear, 1.0),
        Indicator("cubic", _cubic, 1.0),
        Indicator("quintic", _quintic, 1.0),
        Indicator("cosine", _cosine, 1.0),
    )
}
"""Indicators by name: with u = (x + 1) / 2 clipped to [0, 1], linear u, cubic 3u^2 - 2u^3, quintic
6u^5 - 15u^4 + 10u^3, cosine (1 - cos(pi u)) / 2; sigmoid 1 / (1 + exp(-x))."""

MAX_ARRIVALS_IN_MEMORY = 1 << 21
"""Most arrivals in memory at once on CUDA."""

MAX_WINDOW_ARRIVALS = 500.0
"""Where more arrivals than this are expected in the window, the sums are drawn from a Gaussian with their exact mean
and covariance. Its distribution function is off by less than 0.004, and a fit whose firing rates diverge takes no more
time than others."""


def get_indicator(name: str) -> Indicator:
    """Return the indicator called `name`; `ValueError` with all names if there is none."""
    if name not in INDICATORS:
        raise ValueError(f"unknown indicator {name!r}: choose one of {', '.join(INDICATORS)}")
    return INDICATORS[name]


def check_temperature(temperature: float) -> float:
    """Return the temperature as a float; `ValueError` unless it is positive and finite."""
    value = float(temperature)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(
            f"temperature is {temperature}, expected a positive number: for integer counts use Poisson.sample"
        )
    return value


def window(temperature: float, indicator: Indicator) -> tuple[float, float]:
    """Times between which an arrival is weighed by more than 0 and less than 1."""
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


def contributions(t: Any, temperature: float, indicator: Indicator) -> tuple[Any, Any]:
    """What arrivals at the times t, a tensor or a NumPy array, add to z and to dz/dlog_rate."""
    value, slope = indicator.with_slope((1 - t) * (1 / temperature))
    return value, slope * (t * (1 / temperature))


@cache
def cpu_sampler() -> ModuleType:
    """The module that draws on a CPU: compiled where Numba is installed and works, else in NumPy.

    Where Numba is installed and fails (it may not write its cache, or not suit this NumPy), there is one warning.
    """
    from . import _arrivals_cpu

    if find_spec("numba") is None:
        return _arrivals_cpu
    try:
        from . import _arrivals_numba

        _try_out(_arrivals_numba)
        return _arrivals_numba
    except Exception as error:
        warn_of_fallback("Numba", "NumPy draws relaxed counts instead, in a few times as long", error)
    return _arrivals_cpu


def _try_out(sampler: Any) -> None:
    """Draw a few counts, so that what compiles at the first draw compiles now, and fails now if at all."""
    indicator = INDICATORS["cubic"]
    added = partial(contributions, temperature=0.5, indicator=indicator)
    log_rate = torch.zeros(8, dtype=torch.float32, device="cpu")
    sampler.soft_counts(log_rate, window(0.5, indicator), added, torch.Generator("cpu").manual_seed(0))


def _soft_counts(
    log_rate: Tensor, temperature: float, indicator: Indicator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z and dz/dlog_rate for flat log-rates that expect at most MAX_WINDOW_ARRIVALS in the window."""
    start, stop = window(temperature, indicator)
    added = partial(contributions, temperature=temperature, indicator=indicator)
    if log_rate.device.type == "cpu":
        soft_counts: Any = cpu_sampler().soft_counts
        return soft_counts(log_rate, (start, stop), added, generator)
    rate = log_rate.exp()
    z = torch.poisson(rate * start, generator=generator)
    slope = torch.zeros_like(rate)
    n_chunks = max(1, min(len(rate), math.ceil(rate.sum().item() * (stop - start) / MAX_ARRIVALS_IN_MEMORY)))
    for rates, zs, slopes in zip(rate.chunk(n_chunks), z.chunk(n_chunks), slope.chunk(n_chunks)):
        counts = torch.poisson(rates * (stop - start), generator=generator).long()
        element = torch.repeat_interleave(counts)
        time = torch.rand(len(element), generator=generator, dtype=rate.dtype, device=rate.device)
        value, gradient = added(time.mul_(stop - start).add_(start))
        # index_put_ adds in the same order every time; index_add_ on CUDA does not
        zs.index_put_((element,), value, accumulate=True)
        slopes.index_put_((element,), gradient, accumulate=True)
    return z, slope


def _gaussian_counts(
    rate: Tensor, temperature: float, indicator: Indicator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z and dz/dlog_rate for rates so large that the sums over the window are Gaussian; inf and NaN stay as they are.

    The covariance of the two is half the variance of z, arrivals before the window included (s s' t / temperature,
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


def has_kernel(log_rate: Float[Tensor, "..."]) -> bool:
    """Whether the Triton kernel draws for these log-rates."""
    return log_rate.is_cuda and log_rate.dtype == torch.float32 and _kernel_works(log_rate.device)


@cache
def _kernel_works(device: torch.device) -> bool:
    """Whether the Triton kernel can be loaded, compiled and run; one warning where Triton is installed and fails."""
    if find_spec("triton") is None:
        return False
    try:
        log_rate, generator = torch.zeros(8, dtype=torch.float32, device=device), torch.Generator(device).manual_seed(0)
        _by_kernel(log_rate, generator, temperature=0.5, indicator=INDICATORS["cubic"])
    except Exception as error:
        warn_of_fallback("Triton", "PyTorch draws relaxed counts instead, more slowly", error)
        return False
    return True


def _by_kernel(
    flat: Tensor, generator: torch.Generator, *, temperature: float, indicator: Indicator
) -> tuple[Tensor, ...]:
    from . import _arrivals_triton

    integrals = window_integrals(temperature, indicator.name)
    drawn: tuple[Tensor, ...] = _arrivals_triton.soft_counts(
        flat, window(temperature, indicator), integrals, temperature, indicator.name, generator
    )
    return drawn


def _sample(
    log_rate: Tensor, generator: torch.Generator, *, temperature: float, indicator: Indicator
) -> tuple[Tensor, ...]:
    flat = log_rate.reshape(-1)
    start, stop = window(temperature, indicator)
    if has_kernel(flat):
        drawn = _by_kernel(flat, generator, temperature=temperature, indicator=indicator)
        return tuple(x.view_as(log_rate) for x in drawn)
    limit = math.log(MAX_WINDOW_ARRIVALS / (stop - start))
    if flat.numel() == 0 or bool(flat.max() <= limit):  # false for NaN
        z, slope = _soft_counts(flat, temperature, indicator, generator)
    else:
        large = ~(flat <= limit)
        z, slope = _soft_counts(flat.masked_fill(large, -math.inf), temperature, indicator, generator)
        z[large], slope[large] = _gaussian_counts(flat[large].exp(), temperature, indicator, generator)
    return z.view_as(log_rate), slope.view_as(log_rate)


class Pathwise(BatchedFunction):
    """Return z; its gradient by log_rate is the given dz/dlog_rate."""

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


def relaxed_counts(
    log_rate: Float[Tensor, "*shape"], *, temperature: float, indicator: str = "cubic", generator: Generator | None
) -> Float[Tensor, "*shape"]:
    r"""Draw relaxed Poisson counts with a pathwise gradient.

    .. math:: z = \sum_m s\big((1 - t_m)/\tau\big), \qquad
        \frac{\partial z}{\partial \log\lambda} = \sum_m s'\big((1 - t_m)/\tau\big)\, t_m/\tau

    over the arrival times :math:`t_m` of a Poisson process of rate :math:`\lambda`. Only arrivals before
    :math:`1 + \tau` matter where s has compact support, and only those after :math:`1 - \tau` carry gradient.
    The distribution is that of the published sampler, which draws a fixed number of exponential gaps for every
    element; here time and memory grow with the spikes. The derivative is computed with the sample, so that backward is
    one multiplication; it cannot be differentiated again.

    Parameters
    ----------
    log_rate
        Log firing rates, any shape, float32 or float64, CPU or CUDA. Where a rate is inf or NaN, so is the count;
        other elements are not affected.
    temperature
        Width of the indicator, > 0. As it goes to 0 the counts become Poisson.
    indicator
        Smooth step, a key of `INDICATORS`. "sigmoid" is cut at `SIGMOID_REACH`.
    generator
        Source of the arrivals; None: PyTorch's own generator. Inside `torch.func.vmap` a `GeneratorStack` gives entry i
        of the batch dimension the numbers that it gets outside. On a CPU the numbers of a seed depend on whether Numba
        is installed, not on the number of threads.

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


def counts_at(
    log_rate: Float[Tensor, "*shape"],
    unit_arrivals: Float[Tensor, " n_arrivals *shape"],
    *,
    temperature: float,
    indicator: str = "cubic",
) -> Float[Tensor, "*shape"]:
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
