"""Fit laws of counts to each unit of a recording and compare them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .._arrays import plain
from .._scope import own_scope
from ..population.recordings_checks import check_columns, check_dimensions, check_names, warn_if_transposed
from ..progress import Report
from .dispersion import FALSE_DISCOVERY_RATE, dispersion_p
from .laws import LAWS, N_PARAMETERS, fit_law
from .result import CountFits

MAX_COUNT = 1_000_000
MAX_ROUNDING = 1e-3
"""Distance from whole numbers below which counts are taken to be rounded, not to be rates."""


@own_scope()
def fit_counts(counts: ArrayLike, laws: Sequence[str] | str = LAWS, *, report: Report | None = None) -> CountFits:
    """Fit laws of counts to each unit of a recording by maximum likelihood.

    Standard errors come from the observed information. Where the maximum lies in the limit in which a law is Poisson
    (for example, a negative binomial law of under-dispersed counts), the fit is that limit, ``at_limit`` is true, and
    the second parameter has no standard error. The number of slots and the p of a binomial law have no standard error
    either, because the number is whole and p depends on it. For the Conway-Maxwell-Poisson law ``at_limit`` has another
    meaning: its shape is at this library's bound, 1/4 or 4, and the maximum may lie beyond.

    The two-sided dispersion test compares the sum of squared deviations over the mean with its distribution given the
    number of spikes: exactly for units with fewer than 50 sqrt(n) spikes, otherwise chi-squared with n - 1 degrees of
    freedom, corrected for the number of units (Benjamini and Hochberg). It assumes trials to be independent.

    Parameters
    ----------
    counts
        (n_trials, n_units) or (n_trials,) whole numbers, zero or more; two trials or more.
    laws
        One law or several: poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson, binomial.
    report
        Function that is called with the number of laws done, their total number, and the name of the next law.

    Raises
    ------
    ValueError
        For counts that are negative, not whole, not finite, masked, above a million or of another shape, for columns
        that number the trials, and for an unknown law.
    TypeError
        For sparse arrays, and for dates and times.

    Warns
    -----
    UserWarning
        Where rows differ far more than columns, as in a table of (n_units, n_trials).

    References
    ----------
    Fisher 1950 (doi 10.2307/3001660) for the dispersion test; Goris, Movshon & Simoncelli 2014 (doi 10.1038/nn.3711)
    on why cortical counts are over-dispersed; Schwarz 1978 and Akaike 1974 for the criteria.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = fit_counts(rng.negative_binomial(2, 0.4, size=(500, 3)))
    >>> [unit["best_bic"] for unit in found.units]
    ['negative_binomial', 'negative_binomial', 'negative_binomial']
    >>> row = found.of(0, "negative_binomial")
    >>> bool(abs(row["parameters"]["r"] - 2) < 3 * row["standard_errors"]["r"])
    True
    """
    z = _checked(counts)
    laws = [laws] if isinstance(laws, str) else list(dict.fromkeys(laws))
    unknown = [law for law in laws if law not in LAWS]
    if unknown or not len(laws):
        raise ValueError(f"unknown laws {unknown}: choose from {', '.join(LAWS)}")
    values, frequency = _frequencies(z)
    unit_rows = describe_units(z)
    firing = np.flatnonzero([not row["silent"] for row in unit_rows])
    rows: list[dict[str, Any]] = []
    for i, law in enumerate(laws):
        if report is not None:
            report(i, len(laws), law.replace("_", " "))
        found = fit_law(law, values, frequency[firing]) if len(firing) else []
        rows += [{"unit": int(unit), "law": law, **row} for unit, row in zip(firing, found)]
    rows.sort(key=lambda row: (row["unit"], laws.index(row["law"])))
    for first, unit in zip(range(0, len(rows), len(laws)), firing):
        unit_rows[unit] |= _compare_laws(rows[first : first + len(laws)], len(z))
    return CountFits(len(z), tuple(laws), unit_rows, rows, z)


def _frequencies(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct counts (V,) and how often each unit has them (n_units, V), as floats."""
    values, inverse = np.unique(z, return_inverse=True)
    place = inverse.reshape(z.shape) + len(values) * np.arange(z.shape[1])
    frequency = np.bincount(place.ravel(), minlength=len(values) * z.shape[1]).reshape(z.shape[1], -1)
    return values.astype(float), frequency.astype(float)


def _compare_laws(rows: list[dict[str, Any]], n: int) -> dict[str, str]:
    """Add information criteria and Akaike weights to the fits of one unit; returns the best law by each criterion."""
    for row in rows:
        k = row["n_parameters"] = N_PARAMETERS[row["law"]]
        row["aic"], row["bic"] = (2 * k - 2 * row["log_likelihood"], k * math.log(n) - 2 * row["log_likelihood"])
    least = min(row["aic"] for row in rows)
    total = sum(math.exp((least - row["aic"]) / 2) for row in rows)
    for row in rows:
        row["weight"] = math.exp((least - row["aic"]) / 2) / total
    return {f"best_{criterion}": min(rows, key=lambda row: row[criterion])["law"] for criterion in ("aic", "bic")}


def _checked(counts: ArrayLike) -> np.ndarray:
    """Counts as whole numbers (n_trials, n_units)."""
    z = _numbers(counts)
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or len(z) < 2 or not z.shape[1]:
        raise ValueError(f"counts have shape {np.shape(counts)}; expected (n_trials, n_units), two trials or more")
    if not np.isfinite(z).all():
        raise ValueError("counts contain NaN, infinite or missing values: leave these trials out")
    whole = np.round(z)
    if (z < 0).any() or (z != whole).any():
        worst = float(z[(z < 0) | (z != whole)][0])
        near = worst >= 0 and np.abs(z - whole).max() < MAX_ROUNDING
        remedy = (
            "They differ from whole numbers by rounding only: give numpy.round(counts)"
            if near
            else "If these are rates, multiply them by the length of the counting window"
        )
        raise ValueError(f"counts must be whole numbers, zero or more; found {worst!r}. {remedy}")
    if z.max() > MAX_COUNT:
        raise ValueError(f"the largest count is {z.max():g}, more than {MAX_COUNT:,}")
    check_columns(z)
    warn_if_transposed(z)
    return z.astype(np.int64)


def _numbers(counts: Any) -> np.ndarray:
    """Counts of any array or table as numbers; missing ones are NaN."""
    check_dimensions(getattr(counts, "dims", ()))
    z = plain(counts, "counts")
    if hasattr(z, "columns"):
        check_names([str(name) for name in z.columns])
    if hasattr(z, "to_numpy"):
        try:
            z = z.to_numpy(dtype=float, na_value=np.nan)  # as pandas' tables with missing entries need it
        except (TypeError, ValueError):
            z = np.asarray(z)
    z = np.asarray(z)
    if z.dtype.kind == "O":
        try:
            z = z.astype(float)
        except (TypeError, ValueError):
            raise ValueError("counts have entries that are no numbers: leave out these columns or trials") from None
    if z.dtype.kind not in "buif":
        raise ValueError(f"counts have type {z.dtype}; whole numbers are needed: leave out all else")
    return z.astype(float) if z.dtype.kind == "f" else z  # float16 ends at 65,504


def describe_units(z: np.ndarray) -> list[dict[str, Any]]:
    """Moments and dispersion test of each unit; the best laws are added after the fits."""
    n = len(z)
    mean, variance = z.mean(0), z.var(0, ddof=1)
    silent = mean == 0
    safe = np.where(silent, 1.0, mean)
    fano = variance / safe
    influence = ((z - mean) ** 2 - variance) / safe - fano * (z - mean) / safe
    fano_se, zeros = influence.std(0, ddof=1) / math.sqrt(n), (z == 0).mean(0)
    index = (n - 1) * fano
    p = dispersion_p(z)
    adjusted = np.full(len(p), np.nan)
    if (~silent).any():
        adjusted[~silent] = stats.false_discovery_control(p[~silent])
    return [
        {
            "unit": u,
            "mean": float(mean[u]),
            "variance": float(variance[u]),
            "fano": math.nan if silent[u] else float(fano[u]),
            "fano_se": math.nan if silent[u] else float(fano_se[u]),
            "zeros": float(zeros[u]),
            "silent": bool(silent[u]),
            "index": math.nan if silent[u] else float(index[u]),
            "p_value": float(p[u]),
            "p_adjusted": float(adjusted[u]),
            "dispersion": "neither" if not adjusted[u] < FALSE_DISCOVERY_RATE else "over" if fano[u] > 1 else "under",
            "best_bic": None,
            "best_aic": None,
        }
        for u in range(z.shape[1])
    ]
