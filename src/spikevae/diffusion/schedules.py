r"""Schedules: at which signal-to-noise ratios a sampler of K steps calls its denoiser.

Each function takes a :class:`NoiseCurve` and K, and returns K + 1 knots from 0 to the last point of the curve; the
sampler uses one estimate of X from each knot to the next. Its divergence from the exact process
(:func:`spikevae.diffusion.discretisation`) is half of what rectangles from the left overestimate of the integral of the
curve. "loss_adaptive" and "optimal" use the curve; the others only its range.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._settings import positive, whole_number
from .curve import NoiseCurve, _numbers

Schedule = Callable[[NoiseCurve, int], NDArray[np.float64]]

FIRST_SNR = 0.01
"""First knot above 0 of the schedules that need one: noise of ten standard deviations."""
LEAST_COST = 1e-3
CANDIDATES = 300
"""Knots that the optimal schedule chooses from, of each of two kinds."""


def uniform(curve: NoiseCurve, steps: int) -> NDArray[np.float64]:
    """(steps + 1,) knots with equal distances.

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
    >>> uniform(curve, 4).tolist()
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    whole_number("steps", steps, 1)
    return np.linspace(0, curve.snr_max, steps + 1)


def _checked_first(curve: NoiseCurve, steps: int, first: float) -> None:
    whole_number("steps", steps, 1)
    positive("first", first)
    if first >= curve.snr_max:
        raise ValueError(f"first is {first:g}, and the curve ends at {curve.snr_max:g}; give a lower one")


def _exact_ends(knots: NDArray[np.float64], curve: NoiseCurve) -> NDArray[np.float64]:
    """The knots with 0 before and without the rounding of the last."""
    return np.concatenate([[0.0], knots[:-1], [curve.snr_max]])


def log_snr(curve: NoiseCurve, steps: int, *, first: float = FIRST_SNR) -> NDArray[np.float64]:
    """(steps + 1,) knots: 0, then equal ratios from `first`.

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
    >>> log_snr(curve, 3).round(6).tolist()
    [0.0, 0.01, 1.0, 100.0]
    """
    _checked_first(curve, steps, first)
    return _exact_ends(np.geomspace(first, curve.snr_max, steps), curve)


def edm(curve: NoiseCurve, steps: int, *, first: float = FIRST_SNR, rho: float = 7.0) -> NDArray[np.float64]:
    """(steps + 1,) knots: 0, then equal distances of the standard deviation of the noise to the power 1 / rho.

    Parameters
    ----------
    curve
        Gives the last knot; X should have a variance near 1 per entry.
    steps
        K.
    first
        First knot above 0: sigma_max is its inverse square root.
    rho
        Exponent.

    References
    ----------
    Karras, Aittala, Aila and Laine (2022), arXiv 2206.00364, equation 5.

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
    >>> edm(curve, 3).round(4).tolist()
    [0.0, 0.01, 0.4751, 100.0]
    """
    _checked_first(curve, steps, first)
    positive("rho", rho)
    sigma = np.linspace(first ** (-0.5 / rho), curve.snr_max ** (-0.5 / rho), steps) ** rho
    return _exact_ends(sigma**-2, curve)


def cosine(curve: NoiseCurve, steps: int) -> NDArray[np.float64]:
    """(steps + 1,) knots: squared cotangents of angles with equal distances, from π/2 (only noise).

    Parameters
    ----------
    curve
        Gives the last knot; X should have a variance near 1 per entry.
    steps
        K.

    References
    ----------
    Nichol and Dhariwal (2021), arXiv 2102.09672, equation 17, without its offset.

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
    >>> cosine(curve, 3).round(4).tolist()
    [0.0, 0.285, 2.2302, 100.0]
    """
    whole_number("steps", steps, 1)
    turned = np.linspace(0, np.arctan(np.sqrt(curve.snr_max)), steps + 1)  # π/2 minus the angle
    return _exact_ends(np.tan(turned[1:]) ** 2, curve)


def loss_adaptive(curve: NoiseCurve, steps: int, *, dimension: int | None = None) -> NDArray[np.float64]:
    r"""(steps + 1,) knots whose density is proportional to the square root of the divergence per squared step.

    A step of length d costs about :math:`\tfrac{1}{4} c\, d^2` nats, with :math:`c = -\mathrm{mmse}'` and, with matched
    noise, :math:`c = -\mathrm{mmse}' - \mathrm{mmse}^2 / D`. For many steps the sum is least with this density, and
    then :math:`(\int \sqrt{c})^2 / 4K`.

    Parameters
    ----------
    curve
        Loss against noise.
    steps
        K.
    dimension
        D, for a sampler with matched noise; None: noise of the Wiener process alone.

    Notes
    -----
    Of the curve of a Gaussian with equal variances, c is 0 with matched noise: then, and where errors of a measured
    curve make it negative, a thousandth of :math:`-\mathrm{mmse}'` takes its place.

    References
    ----------
    The aim is that of arXiv 2601.21943 (schedules from the loss of training); the rule is derived here.

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=99)
    >>> loss_adaptive(curve, 2).round(2).tolist()  # of a standard normal X, uniform in log(1 + snr)
    [0.0, 9.0, 99.0]
    """
    whole_number("steps", steps, 1)
    length = np.diff(curve.snr)
    cost = frozen = -np.diff(curve.mmse) * length
    if dimension is not None:
        whole_number("dimension", dimension, 1)
        middle = 0.5 * (curve.mmse[1:] + curve.mmse[:-1])
        cost = np.maximum(frozen - (middle * length) ** 2 / dimension, LEAST_COST * frozen)
    mass = np.concatenate([[0.0], np.cumsum(np.sqrt(cost))])
    knots = np.interp(mass[-1] * np.arange(1, steps + 1) / steps, mass, curve.snr)
    return _exact_ends(knots, curve)


def optimal(
    curve: NoiseCurve, steps: int, *, candidates: Any = None, dimension: int | None = None
) -> NDArray[np.float64]:
    """(steps + 1,) knots with the least discretisation divergence of all choices from candidates.

    Dynamic programming, exact on the candidates: the judge of the other schedules.

    Parameters
    ----------
    curve
        Loss against noise.
    steps
        K.
    candidates
        (n,) rising knots from 0 to the last point of the curve, K + 1 or more; None: 300 with equal ratios, 300
        and K of `loss_adaptive`.
    dimension
        D, for a sampler with matched noise; None: noise of the Wiener process alone.

    Raises
    ------
    ValueError
        For fewer candidates, or such as do not rise from 0 to the end of the curve.

    Examples
    --------
    >>> curve = NoiseCurve([0, 1, 2, 3], [6, 2, 1, 1])
    >>> optimal(curve, 2, candidates=[0, 1, 2, 3]).tolist()  # 6 + 2 * 2 is less than 6 * 2 + 1
    [0.0, 1.0, 3.0]
    """
    whole_number("steps", steps, 1)
    at = _candidates(curve, steps, dimension) if candidates is None else _numbers("candidates", candidates)
    if len(at) <= steps or at[0] != 0 or at[-1] != curve.snr_max or (np.diff(at) <= 0).any():
        raise ValueError(
            f"candidates must be {steps + 1} or more, and rise from 0 to {curve.snr_max:g}, the end of the curve"
        )
    cost = costs(curve(at)[:, None] * np.maximum(at - at[:, None], 0), dimension)
    cost[np.tril_indices(len(at))] = np.inf
    best, chosen = cost[0], []
    for _ in range(steps - 1):
        totals = best[:, None] + cost
        chosen.append(totals.argmin(0))
        best = totals.min(0)
    path = [len(at) - 1]
    for before in reversed(chosen):
        path.append(int(before[path[-1]]))
    return np.append(0.0, at[path[::-1]])


def costs(squared: NDArray[np.float64], dimension: int | None) -> NDArray[np.float64]:
    """Twice the divergences of steps from a Wiener process without drift, less what all schedules have in common.

    Parameters
    ----------
    squared
        mmse at the beginning of a step times its length, of any shape.
    dimension
        D, for a sampler with matched noise; None: noise of the Wiener process alone.
    """
    if dimension is None:
        return squared
    whole_number("dimension", dimension, 1)
    found: NDArray[np.float64] = dimension * np.log1p(squared / dimension)
    return found


def _candidates(curve: NoiseCurve, steps: int, dimension: int | None) -> NDArray[np.float64]:
    parts = [loss_adaptive(curve, k, dimension=dimension) for k in (CANDIDATES, steps)]
    parts.append(log_snr(curve, max(CANDIDATES, 2 * steps), first=min(FIRST_SNR, curve.snr_max / 100)))
    return np.unique(np.concatenate(parts))


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "uniform": uniform,
        "log_snr": log_snr,
        "cosine": cosine,
        "edm": edm,
        "loss_adaptive": loss_adaptive,
        "optimal": optimal,
    }
)
"""All schedules by name."""


ADAPTED = ("loss_adaptive", "optimal")
"""Schedules that depend on the noise of the sampler."""


def knots_of(schedule: Any, curve: NoiseCurve, steps: int, dimension: int | None) -> NDArray[np.float64]:
    """Knots of a schedule that is given by name, or as a function of a curve and a number of steps.

    `dimension` is D for a sampler with matched noise, or None.

    Raises
    ------
    ValueError
        For an unknown name, fewer than one step, or a function whose knots do not rise from 0 along the curve.
    """
    whole_number("steps", steps, 1)
    if callable(schedule):
        knots = checked_knots(schedule(curve, steps))
        if knots[-1] > curve.snr_max * (1 + 1e-9):
            raise ValueError(f"knots end at {knots[-1]:g}, beyond the curve, which ends at {curve.snr_max:g}")
        return knots
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r:.80}; give one of {', '.join(SCHEDULES)}, or a function")
    if schedule in ADAPTED:
        return {"loss_adaptive": loss_adaptive, "optimal": optimal}[schedule](curve, steps, dimension=dimension)
    return SCHEDULES[schedule](curve, steps)


def checked_knots(knots: Any) -> NDArray[np.float64]:
    """(K + 1,) knots that rise from 0; `ValueError` for others."""
    found = _numbers("knots", knots)
    if len(found) < 2 or found[0] != 0 or (np.diff(found) <= 0).any():
        raise ValueError("knots must be two or more and rise from 0: sort them, and put 0 before the first")
    return found
