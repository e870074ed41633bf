"""Pearson's chi-squared test of a fitted count distribution."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

MIN_EXPECTED = 5.0
"""Smallest number of expected trials in a bin."""
MAX_DEVIATIONS = 12.0
"""Distance from the mean, in standard deviations, beyond which counts are not evaluated one by one."""


def pearson_p(
    frequency: np.ndarray,
    values: np.ndarray,
    pmf: Callable[[np.ndarray], np.ndarray],
    mean: float,
    variance: float,
    n_parameters: int,
) -> float:
    """p-value of Pearson's test on neighbouring counts pooled to `MIN_EXPECTED` trials; NaN where too few bins remain.

    Counts further than `MAX_DEVIATIONS` standard deviations of the fitted law from its mean belong to the outermost
    bins. The parameters maximise the likelihood of the unbinned counts, so p is slightly too large (Chernoff and
    Lehmann 1954).

    Parameters
    ----------
    frequency, values
        (V,) number of trials for each of the values (V,) that occur among all units.
    pmf
        Probabilities of an array of counts.
    mean, variance
        Of the fitted law.
    n_parameters
        Number of fitted parameters.
    """
    n = frequency.sum()
    if not math.isfinite(variance) or n < MIN_EXPECTED * (n_parameters + 2):
        return math.nan
    reach, most = MAX_DEVIATIONS * math.sqrt(variance) + 1, int(values[frequency > 0].max())
    low, high = max(0, math.floor(mean - reach)), min(math.ceil(mean + reach), most + 1)
    low = min(low, high)
    observed = np.bincount(values.astype(int).clip(low, high) - low, weights=frequency, minlength=high - low + 1)
    expected = n * pmf(np.arange(low, high + 1))
    if low > 0:
        expected[0] += n * pmf(np.zeros(1, dtype=int))[0]  # zeros may be far below all other counts
    if not np.isfinite(expected).all():
        return math.nan
    expected[-1] = max(n - expected[:-1].sum(), 0.0)
    reached, ends = np.cumsum(expected), [-1]
    while True:
        end = int(np.searchsorted(reached, MIN_EXPECTED + (reached[ends[-1]] if ends[-1] >= 0 else 0.0)))
        if end == len(reached):
            break
        ends.append(end)
    freedom = len(ends) - 2 - n_parameters
    if freedom < 1:
        return math.nan
    starts = np.array(ends[:-1]) + 1  # the last bin contains all remaining counts
    o, e = (np.add.reduceat(part, starts) for part in (observed, expected))
    return float(stats.chi2.sf(((o - e) ** 2 / e).sum(), freedom))
