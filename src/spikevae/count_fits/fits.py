"""Fit laws of counts to each unit of a recording and compare them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import plain
from .._scope import own_scope
from ..population.recordings import Recording
from ..population.recordings_checks import (
    MAX_COUNT,
    check_columns,
    check_dimensions,
    check_names,
    warn_if_transposed,
)
from ..population.recordings_reading import read_recording
from ..progress import Report
from .laws import LAWS, N_PARAMETERS, fit_law
from .moments import describe_units, table_of_units
from .result import CountFits

MAX_ROUNDING = 1e-3
"""Distance from whole numbers below which counts are taken to be rounded, not to be rates."""
MAX_UNITS = 100_000
"""Units that are fitted at once: the results of one take about 3 kB."""


class Data(NamedTuple):
    """Counts with what is known of their rows."""

    z: np.ndarray
    """(n_trials, n_units) whole numbers."""
    names: tuple[str, ...]
    conditions: np.ndarray | None
    """(n_trials,)."""
    mask: np.ndarray | None
    """(n_trials, n_units) True where recorded."""
    offsets: np.ndarray | None
    """(n_trials,) logarithms of durations, where they differ."""
    covariates: dict[str, np.ndarray]


@own_scope()
def fit_counts(
    counts: ArrayLike | Recording,
    laws: Sequence[str] | str = LAWS,
    *,
    conditions: ArrayLike | None = None,
    covariates: Sequence[str] | Mapping[str, ArrayLike] | None = None,
    report: Report | None = None,
) -> CountFits:
    """Fit laws of counts to each unit of a recording by maximum likelihood.

    With conditions, each unit has a fit of its own in each condition, and its criteria are summed over conditions.

    Standard errors come from the observed information. Where the maximum lies in the limit in which a law is Poisson
    (for example, a negative binomial law of under-dispersed counts), the fit is that limit, ``at_limit`` is true, and
    the second parameter has no standard error. The number of slots and the p of a binomial law have no standard error
    either, because the number is whole and p depends on it. For the Conway-Maxwell-Poisson law ``at_limit`` has another
    meaning: its shape is at this library's bound, 1/4 or 4, and the maximum may lie beyond.

    The two-sided dispersion test compares the sum of squared deviations over the mean with its distribution given the
    number of spikes: exactly for units with fewer than 50 sqrt(n) spikes, otherwise chi-squared with n - 1 degrees of
    freedom, corrected for the number of units (Benjamini and Hochberg). It assumes trials to be independent. With
    conditions, covariates or rows of unequal duration, deviations are from the means of a Poisson regression on them
    (:func:`spikevae.count_fits.dispersion_given`).

    Parameters
    ----------
    counts
        (n_trials, n_units) or (n_trials,) whole numbers, zero or more; two trials or more. (n_stimuli, n_trials,
        n_units): the stimuli are conditions. Or a recording with names, conditions and covariates.
    laws
        One law or several: poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson, binomial.
    conditions
        (n_trials,) condition of each trial; by default those of the recording.
    covariates
        For the dispersion test, what mean counts depend on: columns by name, or names of the recording's covariates.
    report
        Function that is called with the number of laws done, their total number, and the name of the next law.

    Raises
    ------
    ValueError
        For counts that are negative, not whole, not finite, masked, above a million or of another shape, for columns
        that number the trials, for an unknown law, and for covariates of another length or that depend on each other.
    TypeError
        For sparse arrays, and for dates and times.

    Warns
    -----
    UserWarning
        Where rows differ far more than columns, as in a table of (n_units, n_trials), and where rows have unequal
        durations: laws are fitted to counts, whatever the duration.

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
    >>> found.code
    'spikevae.SpikeVAE(latent="negative_binomial", n_latents=3)'
    """
    data = _data(counts, conditions, covariates)
    laws = [laws] if isinstance(laws, str) else list(dict.fromkeys(laws))
    unknown = [law for law in laws if law not in LAWS]
    if unknown or not len(laws):
        raise ValueError(f"unknown laws {unknown}: choose from {', '.join(LAWS)}")
    unit_rows = describe_units(data.z, data.mask, table_of_units(data.conditions, data.covariates), data.offsets)
    levels, place = np.unique([""] * len(data.z) if data.conditions is None else data.conditions, return_inverse=True)
    single = int((np.bincount(place) < 2).sum())
    if single:
        warnings.warn(
            f"{single} of {len(levels)} conditions have one trial, to which no law can be fitted: they are left out",
            stacklevel=3,
        )
    values, frequency = _frequencies(data, place, len(levels))
    cells = np.flatnonzero((frequency @ values > 0) & (frequency.sum(1) > 1))
    rows: list[dict[str, Any]] = []
    for i, law in enumerate(laws):
        if report is not None:
            report(i, len(laws), law.replace("_", " "))
        found = fit_law(law, values, frequency[cells]) if len(cells) else []
        rows += [_named(data, levels, int(cell), law, frequency[cell].sum(), row) for cell, row in zip(cells, found)]
    n_levels = len(levels)
    rows.sort(key=lambda row: (row["unit"], row.get("condition", 0), laws.index(row["law"])))
    for unit, name in zip(unit_rows, data.names):
        unit["name"] = name
    _compare_laws(rows, unit_rows, laws)
    return CountFits(
        len(data.z),
        tuple(laws),
        unit_rows,
        rows,
        data.z,
        data.names,
        data.conditions if n_levels > 1 else None,
        data.mask,
        tuple(data.covariates),
    )


def _data(counts: Any, conditions: Any, covariates: Any) -> Data:
    """Counts of any kind, checked."""
    if np.ndim(getattr(counts, "counts", counts)) == 3:
        counts = read_recording(counts)
    if not isinstance(counts, Recording):
        names = [str(name) for name in counts.columns] if hasattr(counts, "columns") else None
        z = _checked(counts, grouped=conditions is not None)
        return Data(
            z,
            tuple(names or map(str, range(z.shape[1]))),
            _labels(conditions, len(z)),
            None,
            None,
            _columns(covariates, {}),
        )
    if len(counts.counts) < 2:
        raise ValueError(f"{counts.source} has one row: two trials or more are needed")
    if not counts.equal_durations:
        warnings.warn(
            f"{counts.source}: rows have unequal durations; the dispersion test accounts for them, the laws do not: "
            "give a bin_width for rows of one duration",
            stacklevel=4,
        )
    return Data(
        counts.counts,
        counts.unit_names,
        counts.conditions if conditions is None else _labels(conditions, len(counts.counts)),
        counts.mask,
        None if counts.equal_durations else counts.offsets,
        _columns(covariates, counts.table()),
    )


def _labels(conditions: Any, n: int) -> np.ndarray | None:
    if conditions is None:
        return None
    found = np.asarray(conditions)
    if found.shape != (n,):
        raise ValueError(f"conditions have shape {found.shape}, and there are {n} trials: give one for each")
    return found


def _columns(covariates: Any, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if covariates is None:
        return {}
    if isinstance(covariates, Mapping):
        return {str(name): np.asarray(values) for name, values in covariates.items()}
    names = [covariates] if isinstance(covariates, str) else list(covariates)
    for name in names:
        if not isinstance(name, str) or name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"no covariate {name!r} is known (the recording has {has}): name one, or give its column")
    return {name: known[name] for name in names}


def _frequencies(data: Data, place: np.ndarray, n_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct counts (V,), and how often each unit has them in each condition (n_units * n_levels, V)."""
    z = data.z
    values, inverse = np.unique(z, return_inverse=True)
    cell = n_levels * np.arange(z.shape[1]) + place[:, None]
    index = inverse.reshape(z.shape) + len(values) * cell
    weights = None if data.mask is None else data.mask.ravel().astype(float)
    frequency = np.bincount(index.ravel(), weights, minlength=len(values) * n_levels * z.shape[1])
    return values.astype(float), frequency.reshape(n_levels * z.shape[1], -1).astype(float)


def _named(data: Data, levels: np.ndarray, cell: int, law: str, n: float, row: dict[str, Any]) -> dict[str, Any]:
    """A fit with its unit and condition."""
    unit, level = divmod(cell, len(levels))
    condition = {} if len(levels) == 1 else {"condition": levels[level].item()}
    return {"unit": unit, "name": data.names[unit], **condition, "law": law, "n_trials": int(n), **row}


def _compare_laws(rows: list[dict[str, Any]], units: list[dict[str, Any]], laws: list[str]) -> None:
    """Add information criteria and Akaike weights to fits; to units the sums over conditions and the best laws."""
    for row in rows:
        k = row["n_parameters"] = N_PARAMETERS[row["law"]]
        row["aic"] = 2 * k - 2 * row["log_likelihood"]
        row["bic"] = k * math.log(row["n_trials"]) - 2 * row["log_likelihood"]
    for first in range(0, len(rows), len(laws)):
        cell = rows[first : first + len(laws)]
        least = min(row["aic"] for row in cell)
        total = sum(math.exp((least - row["aic"]) / 2) for row in cell)
        for row in cell:
            row["weight"] = math.exp((least - row["aic"]) / 2) / total
            for name in ("aic", "bic"):
                sums = units[row["unit"]].setdefault(name, dict.fromkeys(laws, 0.0))
                sums[row["law"]] += row[name]
    for unit in units:
        for name in ("aic", "bic"):
            unit[f"best_{name}"] = min(unit[name], key=unit[name].__getitem__) if name in unit else None


def _checked(counts: ArrayLike, grouped: bool) -> np.ndarray:
    """Counts as whole numbers (n_trials, n_units)."""
    z = _numbers(counts)
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or len(z) < 2 or not z.shape[1]:
        raise ValueError(f"counts have shape {np.shape(counts)}; expected (n_trials, n_units), two trials or more")
    if z.shape[1] > MAX_UNITS:
        raise ValueError(
            f"counts have {z.shape[1]:,} units, more than {MAX_UNITS:,}: fit them in parts, or transpose a table whose "
            "rows are units"
        )
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
    if not grouped:  # rows of several conditions differ in any case
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
