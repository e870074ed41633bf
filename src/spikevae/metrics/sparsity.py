"""Fraction of zeros of a code, and sparseness of its values.

Compare them together with R2 and the firing rate: a rectified Gaussian code without information is zero exactly half
the time and has a lifetime sparseness of 1 - 1/pi = .68169.
"""

import math

import numpy as np

from ._arrays import Array, matrix


def fraction_zeros(z: Array) -> float:
    """Fraction of code entries that are exactly zero, over stimuli and units.

    Dimensionless, in [0, 1]; neither high nor low is better by itself.

    Parameters
    ----------
    z
        (m, K) codes at temperature 0, not relaxed ones.

    References
    ----------
    Vafaii & Yates, arXiv:2602.13421 and arXiv:2405.14473 ("% zeros").

    Examples
    --------
    >>> fraction_zeros([[0, 2], [0, 0]])
    0.75
    """
    return float((matrix(z, "z") == 0).mean())


def l0(z: Array) -> float:
    """Units that are not zero, mean over stimuli. Unit: units per stimulus; neither direction is better.

    Examples
    --------
    >>> l0([[0, 2], [0, 0]])
    0.5
    """
    return float((matrix(z, "z") != 0).sum(1).mean())


def corner_distance(r2: float, fraction_zeros: float) -> float:
    """``sqrt((1 - R2)^2 + (1 - fraction of zeros)^2)``: distance from a perfect silent code.

    Dimensionless, lower is better; sqrt(2) for R2 = 0 without zeros, 1 for a perfect dense or a silent code.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2410.19315 (rate, distortion and sparsity on one plane).

    Examples
    --------
    >>> corner_distance(0.7, 0.6)
    0.5
    """
    return math.hypot(1.0 - r2, 1.0 - fraction_zeros)


def sparseness_of_sums(total: np.ndarray, total_square: np.ndarray, n: int) -> np.ndarray:
    """``[1 - (sum z)^2 / (n sum z^2)] / (1 - 1/n)`` from the two sums; 1 where all n values are zero.

    For a single value (n = 1) sparseness is not defined: NaN.
    """
    if n < 2:
        return np.full(np.shape(total), np.nan)
    silent = total_square == 0
    ratio = total**2 / (n * np.where(silent, 1.0, total_square))
    return np.where(silent, 1.0, (1.0 - ratio) / (1.0 - 1.0 / n))


def lifetime_sparseness(z: Array) -> np.ndarray:
    """Treves-Rolls sparseness of each unit over stimuli, (K,).

    ``S_k = [1 - (sum_i z_ik)^2 / (m sum_i z_ik^2)] / (1 - 1/m)``: 0 for a constant unit, 1 for one that
    responds to a single stimulus or none. Dimensionless; neither direction is better by itself. NaN for every
    unit of a code with negative entries, whose sum cancels so that the value would be 1 for any code.

    Parameters
    ----------
    z
        (m, K) codes.

    References
    ----------
    Treves & Rolls, Network 2 (1991), the activity ratio; Vinje & Gallant, Science 287 (2000), this
    normalisation; Vafaii, Galor & Yates, arXiv:2405.14473, where silent units count as 1.

    Examples
    --------
    >>> lifetime_sparseness([[1, 3, 0], [1, 0, 0], [1, 0, 0]])
    array([0., 1., 1.])
    """
    z = matrix(z, "z")
    if (z < 0).any():
        return np.full(z.shape[1], np.nan)
    return sparseness_of_sums(z.sum(0), (z**2).sum(0), z.shape[0])


def population_sparseness(z: Array) -> np.ndarray:
    """Treves-Rolls sparseness of each stimulus over units, (m,): lifetime sparseness of the transposed code.

    Examples
    --------
    >>> population_sparseness([[1, 1], [2, 0]])
    array([0., 1.])
    """
    return lifetime_sparseness(matrix(z, "z").T)
