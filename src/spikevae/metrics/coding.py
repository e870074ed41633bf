"""Information in a code, information per spike, and numbers of active units."""

import math

import numpy as np

from ._arrays import Array, as_float64, matrix

ACTIVE_KL_NATS = 0.01
"""A unit is active if its coding rate is above this, in nats per stimulus: the threshold that the authors of
the Poisson VAE use for Poisson codes of MNIST (arXiv:2405.14473)."""


def bits(kl: float) -> float:
    """Coding rate in bits per stimulus from nats per stimulus: ``kl / ln 2``.

    Neither direction is better by itself: a lower rate costs less, a higher one can give a lower distortion.

    Examples
    --------
    >>> round(bits(6.931471805599453), 12)
    10.0
    """
    return kl / math.log(2)


def bits_per_spike(kl: float, spikes: float) -> float:
    """``kl / (ln 2 * spikes)``: bits per spike from nats and expected spikes per stimulus. Higher is better.

    NaN for a silent code; for real-valued codes, bits per unit of the code. With the optimal prior (the mean
    posterior rate) a Poisson unit's value is the Skaggs information of its rates.

    Examples
    --------
    >>> round(bits_per_spike(6.931471805599453, 5.0), 12)
    2.0
    """
    return bits(kl) / spikes if spikes > 0 else math.nan


def skaggs_information(rates: Array) -> np.ndarray:
    """Bits per spike about the stimulus in each unit's firing rates, (K,). Higher is better.

    ``I_k = mean_i (r_ik / mean r_k) log2(r_ik / mean r_k)``, between 0 (untuned) and log2 m (one stimulus
    only); NaN for silent units.

    Parameters
    ----------
    rates
        (m, K) firing rates, spikes per stimulus, not negative.

    References
    ----------
    Skaggs, McNaughton & Gothard, NIPS 5 (1993).

    Examples
    --------
    >>> skaggs_information([[1, 4], [1, 0], [1, 0], [1, 0]])
    array([0., 2.])
    """
    rates = matrix(rates, "rates")
    if (rates < 0).any():
        raise ValueError("rates has negative entries; firing rates are zero or more spikes per stimulus")
    mean = rates.mean(0)
    ratio = np.divide(rates, mean, out=np.full_like(rates, np.nan), where=mean > 0)
    logs = np.log2(ratio, out=np.zeros_like(ratio), where=ratio > 0)  # 0 log 0 = 0
    return (ratio * logs).mean(0)


def fano_of_sums(total: np.ndarray, total_square: np.ndarray, n: int) -> np.ndarray:
    """Unbiased variance over mean of n values from their two sums; NaN where the mean is 0 or n is 1."""
    if n < 2:
        return np.full(np.shape(total), np.nan)
    mean = total / n
    variance = (total_square - n * mean**2) / (n - 1)
    return np.divide(variance, mean, out=np.full_like(mean, np.nan), where=mean > 0)


def fano_factor(z: Array) -> np.ndarray:
    """Variance over mean of each unit's counts across the rows of z, (K,); neither direction is better.

    1 for Poisson counts of one rate. Over different stimuli it is the marginal Fano factor: for Poisson codes
    ``1 + Var(rate) / E[rate]``, above 1 because the rate depends on the stimulus. Unit: spikes
    (dimensionless for counts). NaN for silent units and for all units of a code whose entries are not all counts.

    Parameters
    ----------
    z
        (m, K) codes, one row per stimulus or repeat.

    References
    ----------
    Fano, Phys. Rev. 72 (1947).

    Examples
    --------
    >>> fano_factor([[0, 1], [2, 1], [4, 1]])
    array([2., 0.])
    """
    z = matrix(z, "z")
    if ((z < 0) | (z != np.rint(z))).any():
        return np.full(z.shape[1], np.nan)
    return fano_of_sums(z.sum(0), (z**2).sum(0), z.shape[0])


def active_units(kl: Array, threshold: float = ACTIVE_KL_NATS) -> int:
    """Units whose coding rate (K,) exceeds `threshold` nats per stimulus. Higher: more of the code is used.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2405.14473 (dead neurons by their KL).

    Examples
    --------
    >>> active_units([0.5, 0.02, 0.001])
    2
    """
    return int((as_float64(kl) > threshold).sum())


def dead_units(z: Array) -> int:
    """Units that are zero for every stimulus. Lower is better.

    Examples
    --------
    >>> dead_units([[0, 1], [0, 0]])
    1
    """
    return int((matrix(z, "z") == 0).all(0).sum())


def prior_posterior_gap(prior: Array, posterior: Array) -> float:
    """``sum_k |prior_k - posterior_k| / sum_k posterior_k``: distance of the prior rates from their optimum.

    The optimal prior rate of a Poisson unit is its mean posterior rate, so a converged fit is near 0. It
    is a mean over units weighted by their rate, so silent units do not dominate. Dimensionless,
    lower is better, NaN for a silent code.

    Parameters
    ----------
    prior, posterior
        (K,) prior rates and mean posterior rates, spikes per stimulus.

    References
    ----------
    The optimum follows from setting the derivative of the mean KL to zero: E[rate] = prior rate.

    Examples
    --------
    >>> prior_posterior_gap([1.0, 2.0], [1.0, 1.0])
    0.5
    """
    prior, posterior = as_float64(prior), as_float64(posterior)
    if prior.shape != posterior.shape:
        raise ValueError(
            f"prior has shape {prior.shape} but posterior {posterior.shape}; give one rate per unit in both"
        )
    total = posterior.sum()
    return float(np.abs(prior - posterior).sum() / total) if total > 0 else math.nan
