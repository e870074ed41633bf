"""Tables of text with named columns: spike times, trials, covariates."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .recordings_counts import MAX_CSV_BYTES, separator_of
from .recordings_spikes import Spikes, Trials

UNITS = ("unit", "unit_id", "units", "cell", "cell_id", "neuron", "neuron_id", "cluster", "cluster_id")
TIMES = ("time", "times", "spike_time", "spike_times", "timestamp", "timestamps", "t")
TRIALS = ("trial", "trial_id", "trial_number")
STARTS = ("start", "start_time", "onset", "begin")
STOPS = ("stop", "stop_time", "end", "end_time", "offset")
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Seconds in each unit of time of a file."""


def read_columns(path: str | Path, kind: str) -> dict[str, np.ndarray]:
    """Columns of a .csv or .tsv by name: numbers, or text.

    Raises
    ------
    ValueError
        Where it is missing, too large, empty, damaged, holds dates, or has two columns of one name; with the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is not a file: {kind} are a .csv or .tsv with a line of names")
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise ValueError(f"{path}: {kind} are read from a .csv or .tsv with a line of names")
    try:
        return _columns(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None


def _columns(path: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    from pyarrow import csv

    if path.stat().st_size > MAX_CSV_BYTES:
        raise ValueError(f"has {path.stat().st_size:,} bytes, more than {MAX_CSV_BYTES:,}: split it")
    names = header(path)
    if not names:
        raise ValueError("is empty")
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"has two columns named {doubled.pop()!r}: rename one")
    with path.open(encoding="utf-8-sig") as file:
        separator = separator_of(path, file.readline())
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=separator),
            read_options=csv.ReadOptions(column_names=names, skip_rows=1),
            convert_options=csv.ConvertOptions(timestamp_parsers=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"is no table of {len(names)} columns: {str(error).splitlines()[0]}") from None
    return {name: _plain_column(name, table.column(name)) for name in names}


def header(path: Path) -> list[str]:
    """The entries of the first line of a text file."""
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(1 << 20)
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8: save it as such") from None
    if not first.strip():
        return []
    return [entry.strip() for entry in next(csv.reader([first], delimiter=separator_of(path, first)))]


def _plain_column(name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        missing = column.null_count
        found: np.ndarray = column.to_numpy()
        return found.astype(float) if missing else found
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_pylist(), dtype=bool)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_temporal(kind):
        raise ValueError(f"column {name!r} holds dates or times of day: give seconds")
    return np.array(["" if value is None else str(value) for value in column.to_pylist()])


def find_column(names: Iterable[str], among: Sequence[str]) -> str | None:
    """The first column that has one of these names, whatever its case."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in among if name in lower), None)


def is_spike_table(path: Path) -> bool:
    """Whether a text file has a column of units and one of times."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    try:
        names = header(path)
    except (ValueError, OSError):
        return False
    return find_column(names, UNITS) is not None and find_column(names, TIMES) is not None


def read_spike_table(path: Path, time_unit: str) -> Spikes:
    """Spikes of a table with one line per spike: unit, time, and where times count from a trial's start, trial.

    Raises
    ------
    ValueError
        With the file and the column.
    """
    columns = read_columns(path, "spike times")
    try:
        return spikes_of_columns(columns, time_unit)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def spikes_of_columns(columns: Mapping[str, np.ndarray], time_unit: str) -> Spikes:
    unit, time, trial = (find_column(columns, among) for among in (UNITS, TIMES, TRIALS))
    if unit is None or time is None:
        raise ValueError(f"has the columns {', '.join(columns)}: spike times need 'unit' and 'time'")
    seconds = _seconds(columns, time, time_unit)
    names, place = np.unique(columns[unit], return_inverse=True)
    order = np.argsort(place, kind="stable")
    cuts = np.searchsorted(place[order], np.arange(1, len(names)))
    split = lambda values: np.split(np.asarray(values)[order], cuts) if len(names) else []
    if not len(names):
        raise ValueError("has no spike, only names of columns")
    return Spikes(tuple(str(name) for name in names), split(seconds), None if trial is None else split(columns[trial]))


def _seconds(columns: Mapping[str, np.ndarray], name: str, time_unit: str) -> np.ndarray:
    """A column of times in seconds."""
    values = np.asarray(columns[name])
    if values.dtype.kind not in "uif":
        bad = next((i for i, value in enumerate(values) if not _is_number(value)), 0)
        raise ValueError(f"column {name!r}, line {bad + 2}: {str(values[bad])!r} is no time: correct or remove it")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"column {name!r}, line {bad + 2}: the time is missing or not finite: correct or remove it")
    return values * TIME_UNITS[time_unit] if time_unit != "s" else values


def _is_number(value: Any) -> bool:
    try:
        return np.isfinite(float(value))
    except ValueError:
        return False


def trials_of_columns(columns: Mapping[str, np.ndarray], window: tuple[float, float] | None, time_unit: str) -> Trials:
    """Trials of a table with start and stop, or with start and a window around it that is the same for all.

    Raises
    ------
    ValueError
        With the column.
    """
    begin, end, name = (find_column(columns, among) for among in (STARTS, STOPS, TRIALS))
    labels = np.asarray(columns[name]) if name else np.arange(len(next(iter(columns.values()))))
    if begin is None and window is None:
        raise ValueError(f"has the columns {', '.join(columns)}: trials need 'start' and 'stop', in seconds")
    if begin is not None and end is None and window is None:
        raise ValueError(f"has no column 'stop' of trials: add it, or give window, (first, last) seconds from {begin}")
    zero = _seconds(columns, begin, time_unit) if begin is not None else np.zeros(len(labels))
    start = zero if window is None else zero + window[0]
    stop = _seconds(columns, str(end), time_unit) if window is None else zero + window[1]
    rest = {key: np.asarray(value) for key, value in columns.items() if key not in (begin, end, name)}
    return Trials(start, stop, labels, rest)
