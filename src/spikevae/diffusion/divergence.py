r"""What finitely many steps cost: the divergence of a sampler from the process that it discretises, nats.

The process :math:`Y_\gamma = \gamma X + W_\gamma` is also :math:`dY = m(\gamma, Y)\,d\gamma + d\bar W` with the best
denoiser :math:`m(\gamma, Y) = E[X | Y_\gamma]` and another Wiener process. A sampler of K steps holds the drift between
knots at :math:`m(\gamma_k, Y_{\gamma_k})`. By Girsanov's theorem the divergence of the paths is

.. math:: \frac{1}{2} \sum_k \int_{\gamma_k}^{\gamma_{k+1}} E\|m(\gamma, Y) - m(\gamma_k, Y)\|^2\,d\gamma
    = \frac{1}{2} \Big(\sum_k \mathrm{mmse}(\gamma_k)\,(\gamma_{k+1} - \gamma_k)
    - \int_0^{\gamma_K} \mathrm{mmse}\,d\gamma\Big),

since :math:`m` is a martingale: its increments are uncorrelated with what came before, and
:math:`E\|m(\gamma, Y) - m(\gamma_k, Y)\|^2 = \mathrm{mmse}(\gamma_k) - \mathrm{mmse}(\gamma)`. For the same reason,
with a denoiser that is not the best, its loss takes the place of mmse in the sum, though not in the integral, and the
value then also holds the error of the denoiser. Of its curve of losses, :func:`discretisation` integrates this curve
and so gives what steps add: half the integral of loss minus mmse, which is the same for all knots, is left out.

The step has the noise of the Wiener process alone, d = gamma_{k+1} - gamma_k per entry, and so does not know that X is
uncertain by mmse. With matched noise, :math:`d + v d^2`, :math:`v = \mathrm{mmse}(\gamma_k) / D`, the divergence of the
values at the knots is

.. math:: \frac{1}{2} \Big(\sum_k D \log\Big(1 + \frac{\mathrm{mmse}(\gamma_k)}{D} (\gamma_{k+1} - \gamma_k)\Big)
    - \int_0^{\gamma_K} \mathrm{mmse}\,d\gamma\Big),

which is never larger, and 0 for a Gaussian X with equal variances.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._settings import whole_number
from .curve import NoiseCurve
from .schedules import checked_knots, costs

Denoise = Callable[[Tensor, Tensor], Tensor]
"""From Y (n, D) and signal-to-noise ratios (n, 1) to estimates of X (n, D)."""


def discretisation(curve: NoiseCurve, knots: Any, *, dimension: int | None = None) -> float:
    """Divergence of a sampler with these knots from the exact process, nats, from the curve.

    Parameters
    ----------
    curve
        Loss against noise.
    knots
        (K + 1,) signal-to-noise ratios that rise from 0, none beyond the curve.
    dimension
        D, for a sampler with matched noise; None: noise of the Wiener process alone.

    Raises
    ------
    ValueError
        For other knots, or a dimension below 1.

    References
    ----------
    The frozen drift: derived above; arXiv 2601.21943 states that the term is exact in the curve. Matched noise is the
    optimal isotropic variance of Bao, Li, Zhu and Zhang (2022), arXiv 2201.06503; its divergence is derived here.

    Examples
    --------
    >>> from spikevae.diffusion import loss_adaptive, uniform
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
    >>> [round(discretisation(curve, schedule(curve, 8)), 2) for schedule in (uniform, loss_adaptive)]
    [5.18, 0.81]
    >>> abs(discretisation(curve, uniform(curve, 8), dimension=1)) < 1e-3
    True
    """
    knots = checked_knots(knots)
    if knots[-1] > curve.snr_max * (1 + 1e-9):
        raise ValueError(f"the last knot is {knots[-1]:g}, beyond the curve, which ends at {curve.snr_max:g}")
    at = np.union1d(knots, curve.snr[curve.snr <= knots[-1]])
    cost = costs(curve(knots[:-1]) * np.diff(knots), dimension)
    return 0.5 * float(cost.sum() - np.trapezoid(curve(at), at))


def simulated_discretisation(
    x: Float[Tensor, "n D"], denoise: Denoise, knots: Any, *, generator: torch.Generator
) -> Float[Tensor, " n"]:
    r"""One unbiased estimate of the divergence per example, by simulation of the channel; nats.

    Each is half the sum over steps of the length of the step times
    :math:`\|m(\gamma, Y_\gamma) - m(\gamma_k, Y_{\gamma_k})\|^2` at one random :math:`\gamma` of the step. Their mean
    is the divergence where `denoise` is the best denoiser.

    Parameters
    ----------
    x
        (n, D) examples of the data.
    denoise
        From (n, D) values of Y and (n, 1) signal-to-noise ratios to (n, D) estimates of X.
    knots
        (K + 1,) signal-to-noise ratios that rise from 0.
    generator
        Draws noise and times.

    Examples
    --------
    >>> x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    >>> denoise = lambda y, snr: y / (1 + snr)  # of a standard normal X
    >>> found = simulated_discretisation(x, denoise, [0, 1, 3], generator=torch.Generator().manual_seed(1))
    >>> abs(found.mean().item() - 0.5 * (1 + 0.5 * 2 - 1.386)) < 0.01  # the integral is log 4
    True
    """
    knots = checked_knots(knots)
    y, total = torch.zeros_like(x), x.new_zeros(len(x))
    place: Any = {"generator": generator, "dtype": x.dtype, "device": x.device}
    noise = lambda: torch.randn(x.shape, **place)
    for low, high in itertools.pairwise(knots):
        at_knot = denoise(y, x.new_full((len(x), 1), low))
        first = (high - low) * torch.rand((len(x), 1), **place)
        y = y + first * x + first.sqrt() * noise()
        total = total + 0.5 * (high - low) * (denoise(y, low + first) - at_knot).square().sum(1)
        rest = high - low - first
        y = y + rest * x + rest.sqrt() * noise()
    return total


def run(
    denoise: Denoise,
    knots: Any,
    n: int,
    dimension: int,
    *,
    generator: torch.Generator,
    variance: Callable[[float], float] | None = None,
    dtype: Any = torch.float32,
) -> Float[Tensor, "n D"]:
    r"""Draws of X by a sampler with these knots.

    With :math:`d_k = \gamma_{k+1} - \gamma_k`, from :math:`Y_0 = 0`,

    .. math:: Y_{k+1} = Y_k + d_k\, m(\gamma_k, Y_k) + \sqrt{d_k + v_k d_k^2}\, Z_k,

    and :math:`m(\gamma_K, Y_K)` as result: K + 1 calls of the denoiser, of which the first, without any signal, is the
    mean of X. With v = 0 this is ancestral sampling with the smaller of the two variances of arXiv 2006.11239.

    Parameters
    ----------
    denoise
        From (n, D) values of Y and (n, 1) signal-to-noise ratios to (n, D) estimates of X.
    knots
        (K + 1,) signal-to-noise ratios that rise from 0.
    n, dimension
        Number of draws, and D.
    generator
        Draws the noise, on its device; equal generators give equal noise to all schedules with as many steps.
    variance
        v: from a signal-to-noise ratio to the mean variance of an entry of X given Y, which is mmse / D for matched
        noise; None: 0.
    dtype
        Of the draws.

    Raises
    ------
    ValueError
        For knots that do not rise from 0, and samples that are not finite.

    Examples
    --------
    >>> points = run(lambda y, snr: torch.tanh(y), [0, 1, 2, 8, 30], 4, 1, generator=torch.Generator().manual_seed(1))
    >>> points.abs().round().flatten().tolist()  # X is 1 or -1
    [1.0, 1.0, 1.0, 1.0]
    """
    knots = checked_knots(knots)
    whole_number("n", n, 1)
    whole_number("dimension", dimension, 1)
    y = torch.zeros(n, dimension, dtype=dtype, device=generator.device)
    for low, high in itertools.pairwise(knots):
        step = float(high - low)
        v = 0.0 if variance is None else float(variance(float(low)))
        noise = torch.randn(n, dimension, generator=generator, dtype=dtype, device=y.device)
        y = y + step * denoise(y, y.new_full((n, 1), low)) + (step + v * step**2) ** 0.5 * noise
    found = denoise(y, y.new_full((n, 1), float(knots[-1])))
    wrong = int((~found.isfinite().all(1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {n} samples are not finite: the denoiser gives estimates that are no numbers")
    return found
