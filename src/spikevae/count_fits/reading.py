"""Tables of spike counts from files that others wrote."""

import zipfile
from pathlib import Path

import numpy as np

from ..data.arrays import load_arrays

MAX_CSV_BYTES = 1 << 30


def read_counts(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read spike counts (n_trials, n_units) from .npy, .npz or .csv.

    Parameters
    ----------
    path
        The file; a .csv has one line a trial, with or without a line of names.
    key
        Name of the array in an .npz; by default `counts`, or the only one.

    Raises
    ------
    ValueError
        With the file's name: missing, damaged, pickled, too large, of another form, or without such an array.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        arrays = load_arrays(path)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from None
    if key is None:
        key = "counts" if "counts" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
    if key is None or key not in arrays:
        raise ValueError(f"{path} holds {sorted(arrays)}: choose one with --key, or name it 'counts'")
    return np.asarray(arrays[key])


def _read_csv(path: Path) -> np.ndarray:
    if path.stat().st_size > MAX_CSV_BYTES:
        raise ValueError(f"has {path.stat().st_size:,} bytes, more than {MAX_CSV_BYTES:,}: save it as .npy")
    with path.open(encoding="utf-8-sig") as file:  # spreadsheets put a mark before the first cell
        first = file.readline()
    # A line is names only if none of its cells is a number: a trial with a missing cell must not be dropped as names.
    names = 0 if any(_is_number(cell) for cell in first.split(",")) else 1
    return np.loadtxt(path, delimiter=",", skiprows=names, ndmin=2, encoding="utf-8-sig")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
