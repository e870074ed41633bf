r"""Bennett's acceptance ratio: the difference from samples of both states, with the least variance.

With :math:`M = \log(N_F / N_R)` and the logistic function :math:`\sigma`, the estimate solves

.. math:: \sum_F \sigma(-(M + w_F - \Delta F)) = \sum_R \sigma(-(-M + w_R + \Delta F)),

whose left side grows and whose right side falls with :math:`\Delta F`. For the samples of both states together let
:math:`c = M + u_B - u_A - \Delta F`. The overlap is

.. math:: O = \frac{N_F + N_R}{N_F N_R} \sum \sigma(c)\, \sigma(-c),

1 where the states are equal, and the squared standard error is :math:`(1 / N_F + 1 / N_R) (1 / O - 1)`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_expit, logsumexp

from .result import Difference, bounds, crossed, flags_of
from .works import checked_works

REMEDY = "add states between the two (spikevae.free_energy.mbar), or learn a map (spikevae.free_energy.targeted)"


def bar(forward: Any, reverse: Any, *, name: str = "BAR") -> Difference:
    """Estimate a difference of free energy from the works of samples of A and of B.

    Parameters
    ----------
    forward
        (n,) works u_B - u_A of samples of A; infinite where B forbids the sample.
    reverse
        (m,) works u_A - u_B of samples of B.
    name
        Of the method, for the result.

    Raises
    ------
    ValueError
        For works that are NaN or minus infinity, or no samples.

    Notes
    -----
    Equal to `pymbar.bar` where that finds a solution. It does not for equal works, nor for states without overlap,
    so the equation is solved here.

    References
    ----------
    Bennett (1976), Journal of Computational Physics 22, 245; Shirts and Chodera (2008), Journal of Chemical Physics
    129, 124105: error and overlap.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = bar(rng.normal(1.0, 1.0, 5000), rng.normal(0.0, 1.0, 5000))  # the difference is 1 / 2
    >>> abs(found.estimate - 0.5) < 4 * found.standard_error < 0.1
    True

    Works that no sample of the other state has are flagged, with the overlap:

    >>> apart = bar(rng.normal(50.0, 1.0, 500), rng.normal(50.0, 1.0, 500))
    >>> apart.overlap < 1e-20, apart.flags[0].startswith("overlap")
    (True, True)
    """
    w, back = checked_works(forward, "forward"), checked_works(reverse, "reverse")
    n, m = len(w), len(back)
    estimate = solved(w, back)
    if math.isfinite(estimate):
        c = math.log(n / m) + np.concatenate([w, -back]) - estimate
        log_shared = float(logsumexp(log_expit(c) + log_expit(-c)))
    else:
        log_shared = -math.inf
    overlap = min(math.exp(log_shared + math.log((n + m) / (n * m))), 1.0)
    error = math.sqrt((1 / n + 1 / m) * (1 / overlap - 1)) if overlap > 0 else math.inf
    if n == 1 or m == 1:
        error = math.inf
    found = flags_of((n, m), overlap, math.exp(log_shared), n * m / (n + m), REMEDY)
    found += [flag for flag in (crossed(w, back),) if flag]
    return Difference(estimate, error, *bounds(w, back), overlap, name, (n, m), tuple(found))


def solved(w: NDArray[np.float64], back: NDArray[np.float64]) -> float:
    """The root of the equation; nan where every work of a state is infinite."""
    n, m = len(w), len(back)
    forward, reverse = w[np.isfinite(w)], back[np.isfinite(back)]
    if not (len(forward) and len(reverse)):
        return math.nan
    ratio = math.log(n / m)

    def excess(value: float) -> float:
        ahead = logsumexp(log_expit(value - ratio - forward))
        return float(ahead - logsumexp(log_expit(ratio - reverse - value)))

    # At a value below all u_B - u_A each left term is below sigma(-M) and each right one above sigma(M), whose sums are
    # equal; infinite works have the terms 0.
    both = np.concatenate([forward, -reverse])
    low, high = both.min() - math.log(m / len(reverse)), both.max() + math.log(n / len(forward))
    margin = 1e-12 * max(1.0, abs(low), abs(high))
    if high - low <= margin:
        return float((low + high) / 2)
    return float(brentq(excess, low - margin, high + margin, xtol=1e-13, rtol=1e-14))
