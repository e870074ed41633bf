"""Read tables of spike counts from files of any origin."""

import csv
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.arrays import load_arrays
from .recordings_checks import MIN_NUMBERED, UNIT_NAME, check_columns, check_names, numbers_columns

MAX_CSV_BYTES = 1 << 30
MIN_COUNTS_FOR_DIVISOR = 20
"""Smallest number of counts for which a common divisor is reported."""
ROW_NAMES = ("", "index", "trial", "unnamed: 0")


LABELS = ("condition", "stimulus")
"""Names of the column, or the array of an .npz, that says which condition a trial is of."""


class CountTable(NamedTuple):
    """Counts as they are in a file."""

    counts: np.ndarray
    """(n_trials, n_units), or (n_stimuli, n_trials, n_units)."""
    names: tuple[str, ...] | None = None
    """Of the units, where the file has them."""
    conditions: np.ndarray | None = None
    """(n_trials,) the column of conditions."""


def read_counts(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read spike counts (n_trials, n_units) from .npy, .npz, .csv or .tsv.

    A warning is given for arrays in an .npz that are not read, for lines and columns of a table that are not read
    because they number units or trials, and for counts with a common divisor, which may be rates.
    :func:`spikevae.population.read_recording` also keeps names and conditions, and reads spike times.

    Parameters
    ----------
    path
        The file. A .csv or .tsv has one line per trial, separated by commas or tabs, with or without a line of names,
        which may be the numbers of the units. A column with the name index, trial, or no name is left out if it numbers
        the trials.
    key
        Name of the array in an .npz; by default `counts`, or the only one.

    Raises
    ------
    ValueError
        If the file is missing, damaged, pickled, too large, of another format or without such an array, or if it holds
        dates or times or a column that numbers the trials under another name. The message contains the file's name.
    """
    table = read_count_table(path, key)
    if table.conditions is not None:
        _warn(
            Path(path),
            "its conditions are not read: counts should be of one stimulus condition; "
            "spikevae.population.read_recording keeps conditions",
        )
    return table.counts


def read_count_table(path: str | Path, key: str | None = None, condition: str | None = None) -> CountTable:
    """As :func:`read_counts`, with the names of the units and the conditions.

    Parameters
    ----------
    condition
        Name of the column, or of the array in an .npz, with the condition of each trial; by default one with the name
        condition or stimulus.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv", ".tsv"):
        raise ValueError(f"{path} is neither .npy nor .npz nor .csv nor .tsv: save the counts as one of these")
    try:
        if suffix in (".csv", ".tsv"):
            table = _read_text(path, condition)
        else:
            table = _choose(path, load_arrays(path), key, condition)
        check_columns(table.counts)
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    _warn_of_rates(path, table.counts)
    return table


def _choose(path: Path, arrays: dict[str, np.ndarray], key: str | None, condition: str | None) -> CountTable:
    """One of the arrays of a file, and that of the conditions."""
    name = key
    if name is None:
        name = "counts" if "counts" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is None or name not in arrays:
        raise ValueError(f"the file contains {sorted(arrays)}: choose one with --key, or name it 'counts'")
    found = np.asarray(arrays[name])
    if found.dtype.kind in "mM":
        raise ValueError(f"holds dates or times ({found.dtype}): save numbers, in a unit that you choose")
    if condition is not None and condition not in arrays:
        raise ValueError(f"the file contains {sorted(arrays)}, no array {condition!r} of conditions")
    label = condition or next((label for label in LABELS if label in arrays and label != name), None)
    units = next((n for n in ("units", "unit_names") if n in arrays and arrays[n].shape == found.shape[-1:]), None)
    ignored = [repr(other) for other in arrays if other not in (name, label, units)]
    if ignored and key is None:
        _warn(path, f"{name!r} is read, {', '.join(ignored)} not: counts should be of one stimulus condition")
    labels = None if label is None else arrays[label]
    if labels is not None and labels.shape != found.shape[:1]:
        raise ValueError(f"{label!r} has shape {labels.shape}, and {name!r} has {found.shape[:1][0]} trials")
    return CountTable(found, tuple(str(unit) for unit in arrays[units]) if units else None, labels)


def separator_of(path: Path, first: str) -> str:
    """Comma or tab, as the ending or the first line of a table says.

    Raises
    ------
    ValueError
        Where entries are separated by semicolons.
    """
    if "\t" in first and (path.suffix.lower() == ".tsv" or "," not in first):
        return "\t"
    if ";" in first and "," not in first:
        raise ValueError("its entries are separated by semicolons: replace them with commas")
    return ","


def _read_text(path: Path, condition: str | None) -> CountTable:
    if path.stat().st_size > MAX_CSV_BYTES:
        raise ValueError(f"has {path.stat().st_size:,} bytes, more than {MAX_CSV_BYTES:,}: save it as .npy")
    with path.open(encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark first
        skipped, first = next((at for at in enumerate(file) if not _is_empty(at[1])), (0, ""))
    if not first:
        raise ValueError("is empty")
    separator = separator_of(path, first)
    entries = _entries(first, separator)
    # A line contains names only if no entry is a number: a trial with a missing entry must not be dropped as names.
    names = entries if not any(_is_number(entry) for entry in entries) else None
    if names is not None:
        check_names(names)
    elif numbered := _column_numbers(entries):
        if not entries[0] or len(entries) >= MIN_NUMBERED:
            names = numbered
            _warn(path, f"its first line, {', '.join(entries[:3])}, ..., numbers the columns and is left out")
        else:
            _warn(path, f"its first line, {', '.join(entries)}, is read as a trial: remove it if it numbers the units")
    place = _condition_column(names, condition)
    table = _numbers(path, separator, skipped + bool(names), len(entries), place)
    if names is None and (numbers := numbers_columns(table)) is not False:
        start = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
        if numbers is None:
            _warn(path, f"its first line, {start}, is far above all others: remove it if it numbers the units")
            return CountTable(table)
        _warn(path, f"its first line, {start}, is far above all others: it numbers the units and is left out")
        names, table = entries, table[1:]
    if names is None:
        return CountTable(table)
    conditions = None
    if place is not None:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in file if not _is_empty(line)][1:]
        conditions = np.array([row[place].strip() for row in csv.reader(lines, delimiter=separator)])
        names = names[:place] + names[place + 1 :]
    counts, names = _without_row_numbers(path, table, names)
    return CountTable(counts, tuple(names) if len(names) == counts.shape[1] else None, conditions)


def _condition_column(names: list[str] | None, condition: str | None) -> int | None:
    """Place of the column of conditions."""
    if condition is None:
        return next((i for i, name in enumerate(names or ()) if name.lower() in LABELS), None)
    if names is None or condition not in names:
        of = f"its columns are {', '.join(names[:8])}" if names else "it has no line of names"
        raise ValueError(f"no column {condition!r} of conditions: {of}")
    return names.index(condition)


def _numbers(path: Path, separator: str, skipped: int, width: int, left_out: int | None) -> np.ndarray:
    """The entries of a table as numbers, without its first lines and one column."""
    columns = None if left_out is None else [i for i in range(width) if i != left_out]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            table = np.loadtxt(
                path,
                delimiter=separator,
                skiprows=skipped,
                ndmin=2,
                encoding="utf-8-sig",
                quotechar='"',
                usecols=columns,
            )
    except ValueError as error:
        raise ValueError(_damage(path, skipped, separator, left_out) or str(error)) from None
    if not table.size:
        raise ValueError("has no trial, only names of columns")
    return table


def _is_empty(line: str) -> bool:
    """Whether a line is blank or a comment."""
    return not line.split("#")[0].strip()


def _entries(line: str, separator: str) -> list[str]:
    return [entry.strip() for entry in next(csv.reader([line], delimiter=separator))]


def _column_numbers(entries: list[str]) -> list[str] | None:
    """The entries if they are 0, 1, ... or 1, 2, ..., as pandas names columns; the first may be empty."""
    texts = entries[1:] if not entries[0] else entries
    if len(texts) < 2 or not all(_is_number(text) for text in texts):
        return None
    numbers = [float(text) for text in texts]
    return entries if any(numbers == [i + start for i in range(len(numbers))] for start in (0, 1)) else None


def _without_row_numbers(path: Path, table: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The table without columns that are named as row numbers, and the names that remain."""
    if len(names) != table.shape[1]:
        return table, names
    rows = [i for i, name in enumerate(names) if name.lower() in ROW_NAMES]
    for i in rows:
        if not _numbers_rows(table[:, i]):
            raise ValueError(
                f"column {i + 1} is named {names[i]!r} but does not number the trials: remove or rename it"
            )
    if rows and len(rows) < len(names):
        kept = [name for i, name in enumerate(names) if i not in rows]
        of = ", ".join(kept[:6]) + (", ..." if len(kept) > 6 else "")
        _warn(path, f"column {rows[0] + 1} numbers the trials and is left out; read as units: {of}")
        table, names = np.delete(table, rows, axis=1), kept
    return table, names


def _numbers_rows(column: np.ndarray) -> bool:
    rows = np.arange(len(column))
    return any(column[0] == start and np.array_equal(column, rows + start) for start in (0, 1))


def _warn_of_rates(path: Path, counts: np.ndarray) -> None:
    """Warn where all counts are multiples of one number, which suggests rates instead of counts."""
    if counts.dtype.kind not in "uif" or counts.ndim != 2 or not np.isfinite(counts).all():
        return
    if (counts != np.round(counts)).any() or np.abs(counts).max(initial=0) > 1e15:
        return
    fired = counts[counts != 0].astype(np.int64)
    divisor = int(np.gcd.reduce(fired)) if len(fired) else 1
    units = int((counts != 0).any(0).sum())
    if divisor > 1 and units > 1 and len(fired) >= MIN_COUNTS_FOR_DIVISOR and len(np.unique(fired)) > 2:
        _warn(
            path,
            f"all counts are multiples of {divisor}: they may be rates. "
            "If so, multiply them by the length of the counting window",
        )


def _damage(path: Path, skipped: int, separator: str, left_out: int | None) -> str | None:
    """The first line that is not a row of numbers, and why; None where there is none."""
    width = None
    or_condition = "" if left_out is not None else ", or name the column with --condition if it holds conditions"
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if number <= skipped or _is_empty(line):
                continue
            entries = _entries(line.split("#")[0], separator)
            for place, entry in enumerate(entries, 1):
                if place - 1 == left_out:
                    continue
                if place == 1 and UNIT_NAME.match(entry) and not _is_number(entry):
                    return f"line {number} begins with {entry!r}: if each line is a unit, transpose the table"
                if not _is_number(entry):
                    what = f"is {entry!r}, not a number" if entry else "is empty"
                    return f"line {number}: entry {place} {what}: remove this trial or column{or_condition}"
            width = width or len(entries)
            if len(entries) != width:
                return (
                    f"line {number} has {len(entries)} entries, earlier lines {width}: all trials need the same number"
                )
    return None


def _is_number(entry: str) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _warn(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}", stacklevel=3)
