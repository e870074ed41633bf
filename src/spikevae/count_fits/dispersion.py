"""Fisher's index of dispersion, tested against Poisson."""

import math

import numpy as np
from scipy import stats

FALSE_DISCOVERY_RATE = 0.05
"""False discovery rate of the dispersion tests of all units."""
MAX_EXACT_SPIKES = 50.0
"""Units with fewer spikes than this times the square root of the number of trials are tested exactly. For them the
chi-squared distribution gives too many small p-values; the fewer spikes, the more."""
MIN_TAIL = 1e-12
"""Smallest tail probability of the exact distribution; smaller values are dominated by rounding."""


def dispersion_p(z: np.ndarray) -> np.ndarray:
    """Two-sided p-values (n_units,) of the sum of squares of counts (n_trials, n_units), given the number of spikes.

    Given T spikes in total, Poisson counts of n trials are multinomial (T, 1/n) for every rate. The sum of squares is
    then T plus twice the number of coincidences (pairs of spikes in one trial). For units with fewer than
    `MAX_EXACT_SPIKES` sqrt(n) spikes the distribution of coincidences is summed exactly; for the others the index is
    approximated as chi-squared with n - 1 degrees of freedom. p is twice the smaller tail, and each tail contains the
    observed value, so that the test is conservative where few values are possible. NaN for units without spikes.
    """
    n, totals = len(z), z.sum(0)
    index = (z.astype(float) ** 2).sum(0) * n / np.maximum(totals, 1) - totals
    low, high = stats.chi2.cdf(index, n - 1), stats.chi2.sf(index, n - 1)
    sparse = (totals > 0) & (totals < MAX_EXACT_SPIKES * math.sqrt(n))
    laws = coincidences(totals[sparse], n)
    for u in np.flatnonzero(sparse):
        law, found = laws[int(totals[u])], int((z[:, u] * (z[:, u] - 1) // 2).sum())
        low[u], high[u] = max(law[: found + 1].sum(), MIN_TAIL), max(law[found:].sum(), MIN_TAIL)
    return np.where(totals > 0, np.minimum(1.0, 2 * np.minimum(low, high)), np.nan)


def coincidences(totals: np.ndarray, n: int) -> dict[int, np.ndarray]:
    """For each total T the probabilities of 0, 1, ... coincidences when T spikes fall at random on n trials.

    For n independent Poisson counts z, the joint characteristic function of the total and the sum of z (z - 1) / 2 is
    the n-th power of that of one trial. Its inverse Fourier transform, divided by the probability of the total, is the
    result. The error is about 1e-13; numbers of coincidences far above the mean are left out and have a smaller
    probability.
    """
    laws: dict[int, np.ndarray] = {}
    left = np.unique(totals)
    while len(left):  # neighbouring totals share one characteristic function
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
    """exp(2 pi i part / whole) for whole numbers."""
    return np.exp(2j * np.pi / whole * (part % whole))
