"""Covariates of a recording: one value per row, whatever they were measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .recordings_nwb import read_series
from .recordings_pynapple import is_object, kind_of, read_tsd, series_of
from .recordings_spikes import NANOSECONDS, Bins, nanoseconds
from .recordings_tables import TIME_UNITS, TIMES, find_column, read_columns


def covariates_of_rows(
    given: Any, n_trials: int, trial: np.ndarray, bins: Bins | None, source: Path | None, time_unit: str = "s"
) -> dict[str, np.ndarray]:
    """Columns (n_rows,) by name.

    Parameters
    ----------
    given
        File, table or mapping; see :func:`spikevae.population.read_recording`.
    n_trials
        Number of trials.
    trial
        (n_rows,) place of the trial of each row.
    bins
        The rows' times; None where there are none.
    source
        The recording's file, in which names of time series are looked up.
    time_unit
        Of a column of times.

    Raises
    ------
    ValueError
        For another number of rows, missing values, and time series without times of rows.
    """
    where, columns = _columns(given, source, time_unit)
    found = {}
    for name, values in columns.items():
        if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[0]) == 1:
            column = _average(name, values[0], values[1], bins)
        else:
            column = np.asarray(values)
            if column.ndim != 1 or len(column) not in (n_trials, len(trial)):
                raise ValueError(
                    f"{where}: column {name!r} has shape {column.shape}, and the recording has {n_trials} trials"
                    + (f" and {len(trial)} rows" if len(trial) != n_trials else "")
                    + ": give one line per trial, in the order of the trials"
                )
            column = column[trial] if len(column) == n_trials and len(trial) != n_trials else column
        found[str(name)] = _complete(where, str(name), column)
    return found


def _columns(given: Any, source: Path | None, time_unit: str) -> tuple[str, dict[str, Any]]:
    """Where covariates come from, for messages, and their columns; a time series is a pair (times, values)."""
    if is_object(given, "Tsd", "TsdFrame"):
        return "covariates", dict(series_of(given))
    if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given) and source is not None:
        return str(source), {name.rsplit("/", 1)[-1]: read_series(source, name) for name in given}
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        if path.suffix.lower() == ".npz" and kind_of(path) in ("Tsd", "TsdFrame"):
            return str(path), dict(read_tsd(path))
        columns: dict[str, Any] = read_columns(path, "covariates")
        clock = find_column(columns, TIMES)
        if clock is None:
            return str(path), {name: values for name, values in columns.items() if name}
        times = np.asarray(columns.pop(clock), dtype=float) * TIME_UNITS[time_unit]
        return str(path), {name: (times, values) for name, values in columns.items() if name}
    if isinstance(given, Mapping):
        return "covariates", dict(given)
    if hasattr(given, "columns") and hasattr(given, "__getitem__"):
        return "covariates", {str(name): np.asarray(given[name]) for name in given.columns}
    raise ValueError(f"covariates are of type {type(given).__name__}: give a file, a table, or columns by name")


def _complete(where: str, name: str, column: np.ndarray) -> np.ndarray:
    """A column without missing entries: numbers, truth values or text."""
    if column.dtype.kind == "O":
        column = np.array(["" if _missing(value) else str(value) for value in column.tolist()])
    if column.dtype.kind in "US":
        gaps = column == ""
    elif column.dtype.kind in "buif":
        gaps = ~np.isfinite(column)
    else:
        raise ValueError(f"{where}: column {name!r} has type {column.dtype}: give numbers or text")
    if gaps.any():
        raise ValueError(
            f"{where}: column {name!r} has no value in row {int(np.flatnonzero(gaps)[0]) + 1}: fill it in, "
            "or leave the column out"
        )
    return column


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _average(name: str, times: Any, values: Any, bins: Bins | None) -> np.ndarray:
    """Mean of the samples in each row; between samples, where a row has none, the line through its neighbours."""
    if bins is None:
        raise ValueError(f"covariate {name!r} is a time series, and the rows have no times: give one value per row")
    t, v = nanoseconds(times, f"covariate {name!r}"), np.asarray(values, dtype=float)
    if len(t) != len(v) or not len(t):
        raise ValueError(f"covariate {name!r} has {len(t)} times and {len(v)} values: give as many of both")
    kept = np.isfinite(v)
    order = np.argsort(t[kept], kind="stable")
    t, v = t[kept][order], v[kept][order]
    if not len(t) or bins.start.min() > t[-1] or bins.stop.max() < t[0]:
        raise ValueError(f"covariate {name!r} has no sample during the recording: check the unit of its times")
    first, last = np.searchsorted(t, bins.start, "left"), np.searchsorted(t, bins.stop, "left")
    total = np.r_[0.0, np.cumsum(v)]
    n = last - first
    middle = (bins.start / NANOSECONDS + bins.stop / NANOSECONDS) / 2
    return np.where(n > 0, (total[last] - total[first]) / np.maximum(n, 1), np.interp(middle, t / NANOSECONDS, v))
