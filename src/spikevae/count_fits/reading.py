"""Tables of spike counts from files that others wrote."""

import csv
import warnings
from pathlib import Path

import numpy as np

from ..data.arrays import load_arrays

MAX_CSV_BYTES = 1 << 30
CERTAIN = 5
"""Whole numbers in order from which on they are taken to number rows or columns, not to be counts."""
TOLD = 20
"""Counts from which on a common divisor is told."""
ROW_NAMES = ("", "index", "trial", "unnamed: 0")


def read_counts(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read spike counts (n_trials, n_units) from .npy, .npz or .csv.

    Warns of arrays in an .npz that are left out, of lines and columns of a .csv that are left out because they number
    units or trials, and of counts with a common divisor, which may be rates.

    Parameters
    ----------
    path
        The file; a .csv has one line a trial and commas, with or without a line of names, which may be the numbers of
        units. A column called index, trial or nothing is left out if it numbers the trials.
    key
        Name of the array in an .npz; by default `counts`, or the only one.

    Raises
    ------
    ValueError
        With the file's name: missing, damaged, pickled, too large, of another form, without such an array, or with a
        column that numbers the trials and is not called so.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        raise ValueError(f"{path} is neither .npy nor .npz nor .csv: save the counts as one of these")
    try:
        counts = _read_csv(path) if suffix == ".csv" else _choose(path, load_arrays(path), key)
        _check_rows(counts)
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    _warn_of_rates(path, counts)
    return counts


def _choose(path: Path, arrays: dict[str, np.ndarray], key: str | None) -> np.ndarray:
    """One of the arrays of a file."""
    name = key
    if name is None:
        name = "counts" if "counts" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if name is None or name not in arrays:
        raise ValueError(f"holds {sorted(arrays)}: choose one with --key, or name it 'counts'")
    ignored = [repr(other) for other in arrays if other != name]
    if ignored and key is None:
        _warn(path, f"{name!r} is read, {', '.join(ignored)} not: counts should be of one stimulus condition")
    return np.asarray(arrays[name])


def _read_csv(path: Path) -> np.ndarray:
    if path.stat().st_size > MAX_CSV_BYTES:
        raise ValueError(f"has {path.stat().st_size:,} bytes, more than {MAX_CSV_BYTES:,}: save it as .npy")
    with path.open(encoding="utf-8-sig") as file:  # spreadsheets put a mark before the first cell
        skipped, first = next((at for at in enumerate(file) if not _is_empty(at[1])), (0, ""))
    if not first:
        raise ValueError("is empty")
    cells = _cells(first)
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(cells) == 1 and separator in first:
            raise ValueError(f"has its cells between {word}, not commas: replace them, or export it with commas")
    # A line is names only if none of its cells is a number: a trial with a missing cell must not be dropped as names.
    names = cells if not any(_is_number(cell) for cell in cells) else None
    if names is None and (numbered := _column_numbers(cells)):
        names = numbered
        _warn(path, f"its first line, {', '.join(cells[:3])}, ..., numbers the columns and is left out")
    try:
        table = np.loadtxt(
            path, delimiter=",", skiprows=skipped + bool(names), ndmin=2, encoding="utf-8-sig", quotechar='"'
        )
    except ValueError as error:
        raise ValueError(_damage(path, skipped + bool(names)) or str(error)) from None
    return table if names is None else _without_row_numbers(path, table, names)


def _is_empty(line: str) -> bool:
    """Whether a line is blank or a remark."""
    return not line.split("#")[0].strip()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]))]


def _column_numbers(cells: list[str]) -> list[str] | None:
    """The cells if they are 0, 1, ... or 1, 2, ..., as pandas names columns; the first of them may be empty."""
    numbers = cells[1:] if not cells[0] else cells
    counted = any(numbers == [str(i + start) for i in range(len(numbers))] for start in (0, 1))
    return cells if counted and (not cells[0] or len(numbers) >= CERTAIN) else None


def _without_row_numbers(path: Path, table: np.ndarray, names: list[str]) -> np.ndarray:
    """The table less its columns of row numbers that have the name of such."""
    if len(names) != table.shape[1]:
        return table
    rows = [i for i, name in enumerate(names) if name.lower() in ROW_NAMES]
    for i in rows:
        if not _numbers_rows(table[:, i]):
            raise ValueError(
                f"column {i + 1} is called {names[i]!r} and does not number the trials: remove or rename it"
            )
    if rows and len(rows) < len(names):
        kept = [name for i, name in enumerate(names) if i not in rows]
        of = ", ".join(kept[:6]) + (", ..." if len(kept) > 6 else "")
        _warn(path, f"column {rows[0] + 1} numbers the trials and is left out; read as units: {of}")
        table = np.delete(table, rows, axis=1)
    return table


def _numbers_rows(column: np.ndarray) -> bool:
    rows = np.arange(len(column))
    return any(column[0] == start and np.array_equal(column, rows + start) for start in (0, 1))


def _check_rows(counts: np.ndarray) -> None:
    """Raise where a column numbers the trials."""
    if counts.ndim == 2 and len(counts) >= CERTAIN:
        for i, column in enumerate(counts.T):
            if _numbers_rows(column):
                raise ValueError(f"column {i + 1} is {column[0]:g}, {column[1]:g}, ... in order, no unit: remove it")


def _warn_of_rates(path: Path, counts: np.ndarray) -> None:
    """Counts of many trials and units that are all multiples of a number are rates, or counts of something else."""
    if counts.dtype.kind not in "uif" or counts.ndim != 2 or not np.isfinite(counts).all():
        return
    if (counts != np.round(counts)).any() or np.abs(counts).max(initial=0) > 1e15:
        return
    fired = counts[counts != 0].astype(np.int64)
    divisor = int(np.gcd.reduce(fired)) if len(fired) else 1
    units = int((counts != 0).any(0).sum())
    if divisor > 1 and units > 1 and len(fired) >= TOLD and len(np.unique(fired)) > 2:
        _warn(path, f"all counts are multiples of {divisor}: rates? Multiply by the length of the window")


def _damage(path: Path, skipped: int) -> str | None:
    """What is wrong in the first line that is no row of numbers, by its number in the file."""
    width = None
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if number <= skipped or _is_empty(line):
                continue
            cells = _cells(line.split("#")[0])
            for place, cell in enumerate(cells, 1):
                if not _is_number(cell):
                    what = f"is {cell!r}, no number" if cell else "is empty"
                    return f"line {number}: cell {place} {what}: leave this trial or column out"
            width = width or len(cells)
            if len(cells) != width:
                return f"line {number} has {len(cells)} cells, those before it {width}: each trial needs as many"
    return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _warn(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}", stacklevel=3)
