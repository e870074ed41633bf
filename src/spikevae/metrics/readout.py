"""What a linear read-out learns from a code: its error by number of stimuli and of units, predicted from the spectrum.

A read-out predicts targets y (labels, stimuli) from a code x by ridge regression with an intercept,

    minimise over v and c:  mean over n stimuli of |y - c - x v|² + ridge · |v|²

Its error on new stimuli needs no new fits: the eigenvalues η_k of the covariance of the code, and the part w_k² η_k of
the variance of the targets along each of its principal axes, give it in closed form (Atanasov, Zavatone-Veth &
Pehlevan, arXiv:2405.00592). With n - 1 = P and sums over axes,

    κ (1 - df₁) = ridge,   df_j = Σ (η / (η + κ))^j / P
    error = (κ² Σ w² η / (η + κ)² + σ²) / (1 - df₂) · (1 + 1/n)

where κ, the ridge that the noise of the sample adds to the ridge of the fit, is the only unknown. The factor 1 + 1/n is
that of the intercept. The formulas are exact for many units of Gaussian codes and hold within a few percent for others:
`docs/readout.md` compares them with fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from ._arrays import Array, as_float64, matrix

RANK_TOLERANCE = 1e-10
"""Axes with a smaller share of the largest eigenvalue are left out."""
RIDGE_RANGE = (1e-8, 1e3)
"""Ridges among which the best is looked for, in units of the mean eigenvalue times units per stimulus."""


@dataclass(frozen=True, eq=False)
class ReadoutSpectrum:
    """The spectrum of a code and of targets on its principal axes.

    Attributes
    ----------
    eigenvalues
        (K,) variance of the code along each principal axis, falling.
    power
        (K,) variance of the targets that a linear read-out of each axis explains, w² η, summed over targets. Estimates
        from a sample may fall below zero.
    noise
        Variance of the targets that no linear read-out explains, summed over targets.
    """

    eigenvalues: np.ndarray
    power: np.ndarray
    noise: float

    def __post_init__(self) -> None:
        if self.eigenvalues.ndim != 1 or self.eigenvalues.shape != self.power.shape or not self.eigenvalues.size:
            shapes = f"{self.eigenvalues.shape} and {self.power.shape}"
            raise ValueError(f"eigenvalues and power have shapes {shapes}; give one of each per axis")
        if not (np.isfinite(self.eigenvalues).all() and (self.eigenvalues > 0).all()):
            raise ValueError("eigenvalues must be finite and above zero; leave out axes without variance")
        if not (np.isfinite(self.power).all() and np.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"power must be finite, and noise={self.noise:g} finite and not negative")

    @property
    def variance(self) -> float:
        """Variance of the targets: the error of a read-out that has learned nothing."""
        return float(self.power.sum()) + self.noise


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Predicted errors of a linear read-out.

    Attributes
    ----------
    n_stimuli
        (P,) numbers of training stimuli.
    ridge
        (P,) ridge of each fit.
    error
        (P,) mean squared error on new stimuli, summed over targets, with their noise.
    training_error
        (P,) the same on the training stimuli.
    """

    n_stimuli: np.ndarray
    ridge: np.ndarray
    error: np.ndarray
    training_error: np.ndarray


def targets_of(codes: np.ndarray, targets: Array) -> np.ndarray:
    """(n, T) targets, one row per code."""
    y = as_float64(targets)
    y = matrix(y[:, None] if y.ndim == 1 else y, "targets")
    if len(codes) != len(y):
        raise ValueError(f"codes have {len(codes)} rows and targets {len(y)}; give one row per stimulus")
    return y


def readout_spectrum(codes: Array, targets: Array) -> ReadoutSpectrum:
    """Measure the spectrum of a code and of targets from many stimuli.

    Parameters
    ----------
    codes
        (n, K) codes: counts or rates.
    targets
        (n,) or (n, T) targets: labels as numbers or one-hot, or the stimuli themselves.

    Returns
    -------
    The noise is the residual variance of least squares on all stimuli, over its degrees of freedom; the same noise is
    subtracted from the power, so that both are unbiased.

    Raises
    ------
    ValueError
        Where there are no more than K + 1 stimuli, rows do not match, or the code does not vary.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(5000, 2)) * [2.0, 1.0]
    >>> found = readout_spectrum(x, x[:, 0])
    >>> found.eigenvalues.round(1), found.power.round(1), round(found.noise, 3)
    (array([4.1, 1. ]), array([4.1, 0. ]), 0.0)
    """
    x = matrix(codes, "codes")
    y = targets_of(x, targets)
    x, y = x - x.mean(0), y - y.mean(0)
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    values, axes = values[::-1], axes[:, ::-1]
    kept = values > RANK_TOLERANCE * max(float(values[0]), 0.0)
    freedom = len(x) - 1 - int(kept.sum())
    if not kept.any():
        raise ValueError("codes are the same for all stimuli; a read-out needs codes that vary")
    if freedom < 1:
        raise ValueError(f"{len(x)} stimuli for {int(kept.sum())} units that vary; give more stimuli than units")
    values, axes = values[kept], axes[:, kept]
    slopes = axes.T @ (x.T @ y) / len(x) / np.sqrt(values)[:, None]
    residual = max(float((y**2).sum() / len(x) - (slopes**2).sum()), 0.0)
    noise = residual * len(x) / freedom
    scale = (len(x) - 1) / len(x)  # variances with n - 1
    return ReadoutSpectrum(values / scale, (slopes**2).sum(1) / scale - noise / len(x), noise)


def _implicit_ridge(values: np.ndarray, n: float, ridge: float) -> float:
    """κ with κ (1 - df₁(κ)) = ridge, for n independent stimuli."""
    top = ridge + values.sum() / n
    if ridge == 0 and len(values) < n:
        return 0.0

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(kappa * (1 - (values / (values + kappa)).sum() / n) - ridge)

    bottom = ridge if ridge > 0 else 1e-12 * min(float(values[-1]), top)
    if excess(np.log(bottom)) >= 0:
        return bottom
    return float(np.exp(brentq(excess, np.log(bottom), np.log(top) + 1e-9, xtol=1e-13, rtol=1e-13)))


def _errors(spectrum: ReadoutSpectrum, n: int, ridge: float) -> tuple[float, float]:
    """Error on new stimuli and on the training stimuli."""
    kappa = _implicit_ridge(spectrum.eigenvalues, n - 1, ridge * n / (n - 1))
    return _errors_at(spectrum, n, kappa)


def _errors_at(spectrum: ReadoutSpectrum, n: int, kappa: float) -> tuple[float, float]:
    """The same for a given κ."""
    independent = n - 1
    shares = spectrum.eigenvalues / (spectrum.eigenvalues + kappa)
    df1, df2 = shares.sum() / independent, (shares**2).sum() / independent
    if df2 >= 1:
        return np.inf, 0.0
    bias = (spectrum.power * (1 - shares) ** 2).sum()
    error = (bias + spectrum.noise) / (1 - df2)
    return error * (1 + 1 / n), error * (1 - df1) ** 2 * independent / n


def readout_curve(spectrum: ReadoutSpectrum, n_stimuli: Sequence[int], *, ridge: float | None = None) -> LearningCurve:
    """Predict how the error of ridge regression falls with the number of training stimuli.

    Parameters
    ----------
    spectrum
        Of the code and the targets, from `readout_spectrum` or known.
    n_stimuli
        Numbers of training stimuli, 3 or more each.
    ridge
        The ridge, in units of the variance of the code; by default the one with the least predicted error, for each
        number of stimuli its own.

    Raises
    ------
    ValueError
        For a negative ridge or fewer than three stimuli.

    References
    ----------
    Atanasov, Zavatone-Veth & Pehlevan, arXiv:2405.00592.

    Examples
    --------
    >>> code = ReadoutSpectrum(np.ones(10), np.full(10, 0.1), noise=1.0)
    >>> readout_curve(code, [21, 201], ridge=0.0).error.round(3)
    array([2.095, 1.058])
    """
    check_curve(n_stimuli, ridge)
    numbers = np.array(n_stimuli, dtype=int)
    ridges = np.array([_best_ridge(spectrum, int(n)) if ridge is None else ridge for n in numbers])
    errors = np.array([_errors(spectrum, int(n), float(r)) for n, r in zip(numbers, ridges)])
    return LearningCurve(numbers, ridges, errors[:, 0], errors[:, 1])


def check_curve(n_stimuli: Sequence[int], ridge: float | None) -> None:
    """Refuse numbers of stimuli and ridges that no learning curve has."""
    if len(n_stimuli) == 0 or min(n_stimuli) < 3:
        raise ValueError(f"n_stimuli={list(n_stimuli)}; give numbers of training stimuli, three or more each")
    if ridge is not None and not 0 <= ridge < np.inf:
        raise ValueError(f"ridge={ridge:g} must be zero or above")


def _best_ridge(spectrum: ReadoutSpectrum, n: int) -> float:
    return _ridge_of(spectrum, n, _best_kappa(spectrum, n))


def _best_kappa(spectrum: ReadoutSpectrum, n: int) -> float:
    """κ with the least error on new stimuli: the error depends on the ridge through κ alone."""
    scale = float(spectrum.eigenvalues.sum()) / n
    least = _implicit_ridge(spectrum.eigenvalues, n - 1, scale * RIDGE_RANGE[0])
    low, high = np.log(least), np.log(scale * RIDGE_RANGE[1] + scale)
    found = minimize_scalar(
        lambda k: _errors_at(spectrum, n, float(np.exp(k)))[0], bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def _ridge_of(spectrum: ReadoutSpectrum, n: int, kappa: float) -> float:
    """The ridge whose κ this is."""
    df1 = (spectrum.eigenvalues / (spectrum.eigenvalues + kappa)).sum() / (n - 1)
    return max(kappa * (1 - df1) * (n - 1) / n, 0.0)


def stimuli_needed(spectrum: ReadoutSpectrum, *, share: float = 0.9, most: int = 10**9) -> int | None:
    """The number of training stimuli from which a read-out explains a share of what it could explain.

    With its best ridge at each number of stimuli. Times the joules of a stimulus, the energy to learn.

    Parameters
    ----------
    share
        Of the variance that a linear read-out with endless stimuli explains, between 0 and 1.
    most
        Larger numbers are not looked for.

    Returns
    -------
    None where `most` stimuli do not suffice, or the code explains nothing.

    Raises
    ------
    ValueError
        For a share that is not between 0 and 1.

    Examples
    --------
    >>> stimuli_needed(ReadoutSpectrum(np.ones(10), np.full(10, 0.1), noise=1.0), share=0.9)
    111
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share:g} must lie between 0 and 1")
    explained = spectrum.variance - spectrum.noise
    if explained <= 0:
        return None
    aim = spectrum.variance - share * explained

    def enough(n: int) -> bool:
        return _errors_at(spectrum, n, _best_kappa(spectrum, n))[0] <= aim

    high = 4
    while not enough(high):
        high *= 2
        if high > most:
            return None
    low = high // 2 if high > 4 else 3
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_law_exponents(
    spectrum: ReadoutSpectrum, *, axes: tuple[int, int] | None = None
) -> tuple[float, float, float]:
    """Exponents of power laws of the spectrum, and the one of the learning curve that they predict.

    With eigenvalues η_k ~ k^-α and power w_k² η_k ~ k^-(2αr + 1), a read-out without noise and ridge has an error that
    falls as n^-2α min(r, 1).

    Parameters
    ----------
    axes
        First and last axis, from 1, of the part that is straight in double logarithmic axes; all by default. Power that
        is not above zero is left out.

    Returns
    -------
    α, r and the exponent of the learning curve.

    Raises
    ------
    ValueError
        Where fewer than three axes remain, or the eigenvalues do not fall.

    References
    ----------
    Atanasov, Zavatone-Veth & Pehlevan, arXiv:2405.00592, source and capacity exponents.

    Examples
    --------
    >>> k = np.arange(1.0, 101.0)
    >>> found = power_law_exponents(ReadoutSpectrum(k**-1.5, k**-2.2, noise=0.0))
    >>> [round(exponent, 6) for exponent in found]
    [1.5, 0.4, 1.2]
    """
    first, last = axes or (1, len(spectrum.eigenvalues))
    if not 1 <= first < last <= len(spectrum.eigenvalues):
        raise ValueError(
            f"axes={axes} must lie between 1 and the {len(spectrum.eigenvalues)} axes, the first below the last"
        )
    place = np.arange(first, last + 1)
    values, power = spectrum.eigenvalues[first - 1 : last], spectrum.power[first - 1 : last]
    used = power > 0
    if used.sum() < 3:
        raise ValueError(f"{int(used.sum())} axes have power above zero; three or more are needed")
    alpha = -float(np.polyfit(np.log(place), np.log(values), 1)[0])
    if alpha <= 0:
        raise ValueError(f"the eigenvalues rise with exponent {-alpha:.3g}; a power law needs falling ones")
    source = (-float(np.polyfit(np.log(place[used]), np.log(power[used]), 1)[0]) - 1) / (2 * alpha)
    return alpha, source, 2 * alpha * min(source, 1.0)
