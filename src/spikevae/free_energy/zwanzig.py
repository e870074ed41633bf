r"""Zwanzig's identity: the difference as an exponential average over samples of one state.

.. math:: \Delta F = -\log \frac{1}{n} \sum_i e^{-w_i}, \qquad w_i = u_B(x_i) - u_A(x_i), \quad x_i \sim A

The estimate is in expectation above the difference, by about half of its squared error.
"""

import math
from typing import Any

import numpy as np
from scipy.special import logsumexp

from .result import Difference, bounds, crossed, flags_of
from .works import checked_works

REMEDY = "add states between the two, learn a map (spikevae.free_energy.targeted), or use samples of both states"


def zwanzig(forward: Any, reverse: Any = None, *, name: str = "Zwanzig") -> Difference:
    """Estimate a difference of free energy from the works of samples of A.

    Parameters
    ----------
    forward
        (n,) works u_B - u_A of samples of A; infinite where B forbids the sample.
    reverse
        (m,) works u_A - u_B of samples of B, for the lower bound and the check of signs only.
    name
        Of the method, for the result.

    Raises
    ------
    ValueError
        For works that are NaN or minus infinity, or no samples.

    References
    ----------
    Zwanzig (1954), Journal of Chemical Physics 22, 1420.

    Examples
    --------
    >>> found = zwanzig(np.random.default_rng(0).normal(1.0, 1.0, 10_000))  # the difference is 1 - 1 / 2
    >>> abs(found.estimate - 0.5) < 0.05, found.overlap > 0.3
    (True, True)
    """
    w = checked_works(forward, "forward")
    back = np.empty(0) if reverse is None else checked_works(reverse, "reverse")
    n, log_sum = len(w), float(logsumexp(-w))
    effective = math.exp(2 * log_sum - float(logsumexp(-2 * w))) if math.isfinite(log_sum) else 0.0
    error = math.inf
    if n > 1 and effective:
        weight = np.exp(w.min() - w)
        error = float(weight.std(ddof=1) / weight.mean()) / math.sqrt(n)
    found = flags_of((n,), effective / n, effective, n, REMEDY)
    found += [flag for flag in (crossed(w, back),) if flag]
    samples = (n,) if reverse is None else (n, len(back))
    estimate = math.log(n) - log_sum
    return Difference(estimate, error, *bounds(w, back), effective / n, name, samples, tuple(found))
