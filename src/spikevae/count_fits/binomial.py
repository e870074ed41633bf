"""Maximum likelihood of binomial counts whose number of slots is unknown."""

import math
from typing import Any

import numpy as np
from scipy import special, stats

from .goodness import pearson_p
from .newton import MIN_GAIN


def fit_binomial(
    values: np.ndarray, frequency: np.ndarray, mean: np.ndarray, poisson: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Fit a binomial law to each unit: the number of slots maximises the profile likelihood.

    The profile has one maximum, at a finite number exactly where counts are under-dispersed (scans in the tests show
    this); elsewhere the fit is the Poisson limit. p has no standard error: one that treats n as known would be far too
    small.

    Parameters
    ----------
    values, frequency, mean
        (V,) values, (U, V) number of trials with each of them, (U,) means.
    poisson
        The fits of the Poisson law.
    """
    rows = []
    for u, m in enumerate(mean.tolist()):
        slots, gain = best_slots(values[frequency[u] > 0].astype(int), frequency[u][frequency[u] > 0].astype(int))
        if gain < MIN_GAIN:
            row = {**poisson[u], "parameters": {"mean": m, "n": math.inf, "p": 0.0}, "at_limit": True}
            row["standard_errors"] = {**poisson[u]["standard_errors"], "n": math.nan, "p": math.nan}
            rows.append(row)
            continue
        p, n = m / slots, float(frequency[u].sum())
        rows.append(
            {
                "log_likelihood": poisson[u]["log_likelihood"] + gain,
                "mean": float(m),
                "variance": float(m * (1 - p)),
                "fano": 1 - p,
                "parameters": {"mean": float(m), "n": float(slots), "p": p},
                "standard_errors": {"mean": math.sqrt(m * (1 - p) / n), "n": math.nan, "p": math.nan},
                "at_limit": False,
                "fit_p_value": pearson_p(frequency[u], values, stats.binom(slots, p).pmf, m, m * (1 - p), 2),
            }
        )
    return rows


def best_slots(v: np.ndarray, f: np.ndarray) -> tuple[int, float]:
    """The best number of slots for counts `v` that occur `f` times, and its log likelihood minus Poisson's.

    With x = m / s and t(i) trials of more than i spikes this difference is, without cancellation of large terms,
    sum_i t(i) log(1 - i / s) + n s (x^2 / 2) 2F1(1, 1; 3; x), where s x^2 2F1 / 2 = (s - m) log(1 - x) + m.
    """
    n, total, squares, most = (
        int(f.sum()),
        int(f @ v),
        sum(int(a) * int(a) * int(c) for a, c in zip(v, f)),
        int(v.max()),
    )
    if n * squares - total**2 >= n * total:  # exact in whole numbers: the variance is at least the mean
        return most, 0.0
    m, i = total / n, np.arange(1.0, max(most, 1))
    above = n - np.cumsum(np.bincount(v, weights=f, minlength=most + 1))[1:most]

    def gain(s: int) -> float:
        return float(above @ np.log1p(-i / s) + n * m * (m / s) / 2 * special.hyp2f1(1, 1, 3, m / s))

    def slope(s: int) -> float:
        """s times the derivative."""
        return float(above @ (i / (s - i)) - n * m * (m / s) / 2 * special.hyp2f1(1, 2, 3, m / s))

    low = high = most
    while slope(high) > 0:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    best = max(low, high, key=gain)
    return best, gain(best)
