"""Does a quantity rise or fall with beta, at which slope, and is it monotone?

Every function takes three arrays of equal length, one entry per fit: `beta`, the quantity and the seed. Seeds
are replicates: lines are fitted and pairs are compared within a seed only.
"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
"""Coverage of the intervals."""
SEEDS_FOR_T = 3
"""Smallest number of seeds for a t interval: with two it would extend 12.7 standard errors to either side, and their
range is reported instead."""

DIGITS = 6
"""Values are compared to this many digits of the largest: further digits of sums in float32 are rounding."""

Interval = Literal["t over seeds", "range of seeds", "regression over betas", "none"]


@dataclass(frozen=True)
class Slope:
    """Change of a quantity per tenfold of beta."""

    estimate: float
    """Mean over seeds of the least-squares slope against log10(beta); NaN where no seed has two betas."""
    low: float
    high: float
    """Ends of the interval; NaN where there is none."""
    interval: Interval
    """Kind of interval: Student's t over the seeds' slopes (three or more seeds), the lowest and highest seed (two),
    Student's t of the regression over betas (one seed with three or more betas), or none."""
    n_seeds: int
    """Number of seeds with at least two betas."""

    @property
    def describe(self) -> str:
        """The kind of interval in words."""
        return {
            "t over seeds": f"{LEVEL:.0%} t interval over {self.n_seeds} seeds",
            "range of seeds": "range of 2 seeds",
            "regression over betas": f"{LEVEL:.0%} interval of the regression over β, one seed",
            "none": "no interval",
        }[self.interval]


@dataclass(frozen=True)
class Monotonicity:
    """Whether means over seeds are monotone in the stated direction, and the evidence for a trend."""

    direction: Literal["up", "down"]
    """The stated direction."""
    holds: bool
    """Whether the means over seeds change in the direction at every step of beta; equal means are no change."""
    tau: float
    """Kendall's tau within seeds: (pairs of betas in increasing order - pairs in decreasing order)
    / pairs."""
    p_value: float
    """Exact two-sided p of tau under the null hypothesis that all orders within a seed are equally likely."""
    violation: float
    """Largest change of the means against the direction between any two betas, in the quantity's unit; 0 if none."""
    violation_share: float
    """The same as a share of the range of the means; NaN where they do not vary."""
    violation_at: tuple[float, float] | None
    """The two betas of this change."""
    violating_seeds: int
    """Number of seeds that also change against the direction between these two betas."""
    n_seeds: int
    change: float
    """Mean at the largest beta minus mean at the smallest."""


def _columns(beta: ArrayLike, value: ArrayLike, seed: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries with finite values as arrays; raises for arrays that do not fit together."""
    b, v = np.asarray(beta, dtype=np.float64), np.asarray(value, dtype=np.float64)
    s = np.asarray(seed)
    if not (b.ndim == 1 and b.shape == v.shape == s.shape):
        raise ValueError(f"beta, value and seed have shapes {b.shape}, {v.shape} and {s.shape}; give equal vectors")
    if not np.all(b > 0):
        raise ValueError(f"beta must be positive for a logarithm, given {b[~(b > 0)][:3].tolist()}")
    pairs = Counter(zip(b.tolist(), s.tolist()))
    twice = [pair for pair, count in pairs.items() if count > 1]
    if twice:
        raise ValueError(f"beta {twice[0][0]} with seed {twice[0][1]} is given twice; choose one fit for each pair")
    keep = np.isfinite(v)
    return b[keep], v[keep], s[keep]


def slope_per_decade(beta: ArrayLike, value: ArrayLike, seed: ArrayLike) -> Slope:
    """Slope of a quantity against log10(beta), with an interval.

    A least-squares line is fitted to each seed by itself; the estimate is the mean of the slopes. Pass the
    logarithm of a quantity to get a factor per tenfold of beta.

    Parameters
    ----------
    beta, value, seed
        (n,) each; entries whose value is not finite are left out.

    Raises
    ------
    ValueError
        For unequal lengths, a beta that is not positive, or two values for one beta and seed.

    Examples
    --------
    >>> slope_per_decade([0.1, 1, 10], [0.0, 2.0, 4.0], [0, 0, 0]).estimate
    2.0
    """
    b, v, s = _columns(beta, value, seed)
    x = np.log10(b)
    seeds = [one for one in np.unique(s) if np.count_nonzero(s == one) >= 2]
    slopes = np.array([_least_squares(x[s == one], v[s == one]) for one in seeds])
    if len(slopes) == 0:
        return Slope(math.nan, math.nan, math.nan, "none", 0)
    estimate = float(slopes.mean())
    if len(slopes) >= SEEDS_FOR_T:
        half = stats.t.ppf(0.5 + LEVEL / 2, len(slopes) - 1) * slopes.std(ddof=1) / math.sqrt(len(slopes))
        return Slope(estimate, float(estimate - half), float(estimate + half), "t over seeds", len(slopes))
    if len(slopes) == 2:
        return Slope(estimate, float(slopes.min()), float(slopes.max()), "range of seeds", 2)
    here = s == seeds[0]
    n = np.count_nonzero(here)
    if n < 3:
        return Slope(estimate, math.nan, math.nan, "none", 1)
    centred = x[here] - x[here].mean()
    residual = v[here] - v[here].mean() - estimate * centred
    error = math.sqrt(float(residual @ residual) / (n - 2) / float(centred @ centred))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 2)) * error
    return Slope(estimate, estimate - half, estimate + half, "regression over betas", 1)


def _least_squares(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


def monotonicity(beta: ArrayLike, value: ArrayLike, seed: ArrayLike, direction: Literal["up", "down"]) -> Monotonicity:
    """Test for a trend with beta, and measure how far the means over seeds are from monotone.

    The test counts, within each seed, pairs of betas in increasing and in decreasing order of the quantity
    and sums over seeds (the blocked form of Kendall's and Jonckheere's tests). Its null distribution is
    exact, ties included: the count of inversions of a random order of a multiset has the Gaussian multinomial
    coefficients as weights, and seeds are independent. Page's test is similar, on ranks, but needs two
    complete seeds and has no exact distribution with ties; this one takes any number of betas per seed, and its
    statistic is the effect size.

    A small p shows that the quantity depends on beta, not that it is monotone, for which `holds` and `violation`
    are given. The means are over the seeds present at each beta. Values are compared to six digits of the largest.

    Parameters
    ----------
    beta, value, seed
        (n,) each; entries whose value is not finite are left out.
    direction
        The stated direction, for `holds` and `violation`.

    Raises
    ------
    ValueError
        As :func:`slope_per_decade`.

    References
    ----------
    Kendall & Gibbons 1990, Rank Correlation Methods, 5th ed., chapters 1 and 4; Hirsch & Slack 1984, Water
    Resources Research 20:727 (sum over blocks).

    Examples
    --------
    >>> m = monotonicity([1, 2, 4, 8], [0.1, 0.3, 0.2, 0.4], [0, 0, 0, 0], "up")
    >>> m.holds, round(m.violation, 3), m.violation_at, round(m.tau, 3)
    (False, 0.1, (2.0, 4.0), 0.667)
    """
    b, v, s = _columns(beta, value, seed)
    v = _rounded(v)
    tau, p_value = _kendall_test(b, v, s)
    betas = np.unique(b)
    means = np.array([v[b == one].mean() for one in betas])
    sign = 1 if direction == "up" else -1
    violation, at = _largest_violation(betas, sign * means)
    spread = float(np.ptp(means)) if len(means) else 0.0
    return Monotonicity(
        direction=direction,
        holds=len(betas) > 1 and bool(np.all(np.diff(sign * means) > 0)),
        tau=tau,
        p_value=p_value,
        violation=violation,
        violation_share=violation / spread if spread > 0 else math.nan,
        violation_at=at,
        violating_seeds=0 if at is None else _n_violating_seeds(b, sign * v, s, at),
        n_seeds=len(np.unique(s)),
        change=float(means[-1] - means[0]) if len(means) else math.nan,
    )


def _rounded(values: np.ndarray) -> np.ndarray:
    """Values rounded to `DIGITS` digits of the largest."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values, DIGITS - 1 - math.floor(math.log10(largest))) if largest > 0 else values


def _kendall_test(beta: np.ndarray, value: np.ndarray, seed: np.ndarray) -> tuple[float, float]:
    """Kendall's tau within seeds and its exact two-sided p-value; NaN where no seed has two betas."""
    score, pairs = 0, 0
    null = np.ones(1)
    for one in np.unique(seed):
        ordered = value[seed == one][np.argsort(beta[seed == one])]
        score += sum(int(np.sign(later - earlier)) for earlier, later in combinations(ordered.tolist(), 2))
        pairs += math.comb(len(ordered), 2)
        null = np.convolve(null, inversion_law(list(Counter(ordered.tolist()).values())))
    if not pairs:
        return math.nan, math.nan
    scores = np.arange(len(null) - 1, -len(null), -2)  # the first is the score without inversions
    return score / pairs, float(min(1.0, null[np.abs(scores) >= abs(score)].sum()))


def _largest_violation(betas: np.ndarray, means: np.ndarray) -> tuple[float, tuple[float, float] | None]:
    """Largest decrease of the means from a beta to a larger one, and these two betas; 0 and None without any."""
    violation, at = 0.0, None
    for i, j in combinations(range(len(betas)), 2):
        if means[i] - means[j] > violation:
            violation, at = float(means[i] - means[j]), (float(betas[i]), float(betas[j]))
    return violation, at


def _n_violating_seeds(beta: np.ndarray, value: np.ndarray, seed: np.ndarray, at: tuple[float, float]) -> int:
    """Seeds whose value decreases between two betas."""
    count = 0
    for one in np.unique(seed):
        first, second = value[(seed == one) & (beta == at[0])], value[(seed == one) & (beta == at[1])]
        count += int(len(first) > 0 and len(second) > 0 and first[0] > second[0])
    return count


def inversion_law(ties: list[int]) -> np.ndarray:
    """Distribution of the number of inversions in a random order of a multiset.

    The weights are the coefficients of the Gaussian multinomial prod_i (1 - q^i) / prod_t prod_j (1 - q^j),
    computed in exact integers.

    Parameters
    ----------
    ties
        How often each distinct value occurs.

    Returns
    -------
    (D + 1,) float64
        Probability of 0, 1, ..., D inversions, D being the number of pairs of unequal values.

    Examples
    --------
    >>> inversion_law([1, 1, 1]).round(4).tolist()
    [0.1667, 0.3333, 0.3333, 0.1667]
    >>> inversion_law([2, 1]).round(4).tolist()
    [0.3333, 0.3333, 0.3333]
    """
    total = sum(ties)
    top = (total * total - sum(t * t for t in ties)) // 2
    weights = [1] + [0] * top
    for i in range(1, total + 1):
        for k in range(top, i - 1, -1):
            weights[k] -= weights[k - i]
    for t in ties:
        for j in range(1, t + 1):
            for k in range(j, top + 1):
                weights[k] += weights[k - j]
    count = sum(weights)
    return np.array([weight / count for weight in weights])
