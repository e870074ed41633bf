"""How many values of a Poisson count matter."""

import math

import scipy.stats


def quantile(rate: float, tail: float) -> int:
    """The smallest count, at least one, with a probability of at most `tail` above it.

    Examples
    --------
    >>> quantile(1.0, 1e-5)
    8
    """
    if not math.isfinite(rate):
        raise ValueError(f"the largest firing rate is {rate}, expected a finite one")
    return max(1, int(scipy.stats.poisson(rate).ppf(1 - tail)))
