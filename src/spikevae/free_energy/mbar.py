"""MBAR: free energies of many states from samples of all of them, by the library pymbar (extra `flows`)."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import plain
from .._scope import NUMPY_ERRORS
from .result import Difference, bounds, crossed, flags_of

REMEDY = "add states between those that share no samples"
MAX_ELEMENTS = 1 << 28
"""Reduced energies in a matrix."""


def mbar(u_kn: Any, n_k: Any) -> Difference:
    """Estimate the free energies of K states; the difference is that of the last and the first.

    Parameters
    ----------
    u_kn
        (K, N) reduced energies of all samples in each state; samples of the first state come first, then those of the
        second, and so on. Infinite where a state forbids a sample of another.
    n_k
        (K,) samples of each state, with the sum N; 0 for states that were not sampled.

    Raises
    ------
    ImportError
        Without pymbar.
    ValueError
        For other shapes, energies that are NaN, or infinite for a sample of their own state.

    References
    ----------
    Shirts and Chodera (2008), Journal of Chemical Physics 129, 124105.

    Examples
    --------
    Harmonic oscillators of force constants 1, 2 and 4; the last difference is log(4) / 2:

    >>> stiff, rng = np.array([1.0, 2.0, 4.0]), np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(0, k**-0.5, 3000) for k in stiff])
    >>> found = mbar(stiff[:, None] * x**2 / 2, [3000, 3000, 3000])
    >>> abs(found.estimate - np.log(4) / 2) < 4 * found.standard_error < 0.1
    True
    """
    u, n = _checked(u_kn, n_k)
    with _quiet():
        free, errors, overlap = _solved(u, n)
    edges = np.cumsum(np.r_[0, n])
    first, last = u[:, : n[0]], u[:, edges[-2] :]
    forward, reverse = first[-1] - first[0], last[0] - last[-1]
    sampled = n[n > 0]
    shared = overlap * float(sampled.min()) / 2
    found = flags_of(tuple(int(k) for k in n), overlap, shared, float(sampled.min()) / 2, REMEDY)
    found += [flag for flag in (crossed(forward, reverse),) if flag]
    if not np.isfinite(free).all():
        found.append("MBAR did not converge")
    error = float(errors[-1])
    samples = tuple(int(k) for k in n)
    return Difference(
        float(free[-1]), error, *bounds(forward, reverse), overlap, "MBAR", samples, tuple(found), free, errors
    )


def _solved(u: NDArray[np.float64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Free energies, their errors and the overlap, by pymbar."""
    from pymbar import MBAR
    from pymbar.utils import ConvergenceError, ParameterError

    # A constant of each sample changes nothing; without it the exponentials are those of differences.
    u = u - np.where(np.isfinite(u), u, np.inf).min(0)
    nothing = np.full(len(u), math.nan), np.full(len(u), math.inf), 0.0
    try:
        solver = MBAR(np.minimum(u, 1e5), n, solver_protocol="robust")
        found = solver.compute_free_energy_differences()
        overlap = float(solver.compute_overlap()["scalar"])
    except (ParameterError, ConvergenceError, FloatingPointError, np.linalg.LinAlgError, ValueError):
        return nothing
    free, errors = (np.asarray(found[key][0], dtype=np.float64) for key in ("Delta_f", "dDelta_f"))
    return free, np.where(np.isfinite(errors), errors, math.inf), min(max(overlap, 0.0), 1.0)


def _checked(u_kn: Any, n_k: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    u = np.asarray(plain(u_kn, "u_kn"), dtype=np.float64)
    n = np.asarray(plain(n_k, "n_k"))
    if u.ndim != 2 or len(u) < 2 or not u.shape[1]:
        raise ValueError(f"u_kn has shape {u.shape}; give (K, N), the energies of N samples in 2 or more states")
    if u.size > MAX_ELEMENTS:
        raise ValueError(f"u_kn has {u.size:,} energies, more than {MAX_ELEMENTS:,}: take fewer samples")
    if n.shape != (len(u),) or n.dtype.kind not in "iuf" or (n != np.round(n)).any() or (n < 0).any():
        raise ValueError(f"n_k is {n.tolist()}; give the number of samples of each of the {len(u)} states")
    n = n.astype(np.int64)
    if n.sum() != u.shape[1]:
        raise ValueError(f"n_k sums to {n.sum()}, and u_kn has {u.shape[1]} samples: they must agree")
    if (n > 0).sum() < 2:
        raise ValueError("n_k has samples of one state only: use zwanzig, or sample another state")
    state = np.repeat(np.arange(len(n)), n)
    own = u[state, np.arange(u.shape[1])]
    wrong = np.isnan(u).any(0) | np.isneginf(u).any(0) | np.isposinf(own)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"u_kn is {[float(f'{v:.6g}') for v in u[:, first]]} for sample {first}, of state {state[first]}: energies "
            "are numbers, and finite in the sample's own state"
        )
    return u, n


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that pymbar logs, and with NumPy's handling of errors as it was before."""
    try:
        logger = logging.getLogger("pymbar")
        before, silent = logger.propagate, logging.NullHandler()
        logger.propagate = False
        logger.addHandler(silent)
        try:
            with np.errstate(**NUMPY_ERRORS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logger.propagate = before
            logger.removeHandler(silent)
    except ModuleNotFoundError as error:
        if error.name != "pymbar":
            raise
        raise ImportError("mbar needs pymbar: pip install 'spikevae[flows]'") from None
