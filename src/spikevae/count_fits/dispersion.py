"""Fisher's index of dispersion, tested against Poisson."""

import math

import numpy as np
from scipy import stats

SPARSE = 50.0
"""Units of fewer spikes than this times the root of the number of trials are tested exactly. There chi-squared gives
too many small p-values, and the more the fewer spikes there are."""
LEAST = 1e-12
"""Smallest tail probability of the exact law: below it rounding has the say."""


def dispersion_p(z: np.ndarray) -> np.ndarray:
    """Two-sided p-values (n_units,) of the sum of squares of counts (n_trials, n_units), given the number of spikes.

    Given T spikes in all, Poisson counts of n trials are multinomial (T, 1/n), whatever the rate. The sum of squares is
    then T and twice the number of coincidences, pairs of spikes in one trial: of these the law is summed, or, of
    units that are not `SPARSE`, approximated: the index as chi-squared of n - 1 degrees of freedom. p is twice the
    smaller tail, each with what was observed, and so too large, if anything, where few values are possible. NaN for
    units of no spike.
    """
    n, totals = len(z), z.sum(0)
    index = (z.astype(float) ** 2).sum(0) * n / np.maximum(totals, 1) - totals
    low, high = stats.chi2.cdf(index, n - 1), stats.chi2.sf(index, n - 1)
    sparse = (totals > 0) & (totals < SPARSE * math.sqrt(n))
    laws = coincidences(totals[sparse], n)
    for u in np.flatnonzero(sparse):
        law, found = laws[int(totals[u])], int((z[:, u] * (z[:, u] - 1) // 2).sum())
        low[u], high[u] = max(law[: found + 1].sum(), LEAST), max(law[found:].sum(), LEAST)
    return np.where(totals > 0, np.minimum(1.0, 2 * np.minimum(low, high)), np.nan)


def coincidences(totals: np.ndarray, n: int) -> dict[int, np.ndarray]:
    """For each total T the probabilities of 0, 1, ... pairs of spikes in one trial when T fall at random on n trials.

    Of n independent Poisson counts z the total and the sum of z (z - 1) / 2 have as joint characteristic function the
    n-th power of one trial's; its Fourier inverse over the probability of the total. Right to about 1e-13; pairs that
    are left out, far above the mean, have less.
    """
    laws: dict[int, np.ndarray] = {}
    left = np.unique(totals)
    while len(left):  # totals not far from each other share one characteristic function
        own = left[left <= left[0] + 2 * math.sqrt(left[0])]
        left, top, rate = left[len(own) :], int(own[-1]), float(own[0] + own[-1]) / 2 / n
        mean = top * (top - 1) / 2 / n
        size = 1 + int(min(top * (top - 1) // 2, mean + 20 * math.sqrt(mean) + 200))
        waves = int(10 * math.sqrt(top)) + 20
        k = np.arange(int(rate + 10 * math.sqrt(rate)) + 25)
        of_total = _unit(np.arange(waves)[:, None] * k, waves) * stats.poisson(rate).pmf(k)
        of_pairs = _unit((k * (k - 1) // 2)[:, None] * np.arange(size // 2 + 1), size)
        inverse = _unit(-own[:, None] * np.arange(waves), waves) / waves
        joint = np.fft.irfft((inverse @ (of_total @ of_pairs) ** n).conj(), size)
        laws |= zip(own.tolist(), joint / stats.poisson(n * rate).pmf(own)[:, None])
    return laws


def _unit(part: np.ndarray, whole: int) -> np.ndarray:
    """exp(2 pi i part / whole) of whole numbers."""
    return np.exp(2j * np.pi / whole * (part % whole))
