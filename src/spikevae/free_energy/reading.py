"""Works or reduced energies from a file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._files import check_regular, user_path
from ..data.arrays import load_arrays
from ..population.recordings_tables import read_columns

KIND = "file of works"
COLUMNS = ("forward", "reverse")
REMEDY = (
    "give columns or arrays 'forward' (works u_B - u_A of samples of A) and perhaps 'reverse' (u_A - u_B of samples of "
    "B), or arrays 'u_kn' and 'n_k' of MBAR"
)


class Works(NamedTuple):
    """What a file holds: works, or the reduced energies of many states."""

    forward: np.ndarray | None = None
    reverse: np.ndarray | None = None
    u_kn: np.ndarray | None = None
    n_k: np.ndarray | None = None


def read_works(path: str | Path) -> Works:
    """Read works from .csv, .tsv, .npz or .npy; nothing is unpickled, and sizes are checked before arrays are read.

    Parameters
    ----------
    path
        A .csv or .tsv has the columns forward and perhaps reverse; the shorter one ends in empty cells. An .npz has
        arrays of these names, or u_kn (K, N) and n_k (K,), also spelled N_k. An .npy holds forward works (n,).

    Raises
    ------
    ValueError, OSError
        Where it is missing, damaged, pickled, too large or has no such content; with its name.
    """
    path = user_path(path)
    check_regular(path, KIND)
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            return _of_columns(path)
        if suffix == ".npy":
            return Works(np.array(load_arrays(path)["x"]))
        if suffix == ".npz":
            return _of_arrays(load_arrays(path))
    except (ValueError, OSError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    raise ValueError(f"{path} is none of .csv, .tsv, .npz and .npy: {REMEDY}")


def _of_columns(path: Path) -> Works:
    named = {name.lower(): values for name, values in read_columns(path, "works").items()}
    if "forward" not in named:
        raise ValueError(f"has the columns {', '.join(named)}: {REMEDY}")
    return Works(*(_without_end(named[name], name) if name in named else None for name in COLUMNS))


def _without_end(values: np.ndarray, name: str) -> np.ndarray | None:
    """A column up to its last number, since columns of a table may have different lengths; None for an empty one."""
    if values.dtype.kind not in "uif":
        bad = next(i for i, value in enumerate(values.tolist()) if not _is_number(value))
        raise ValueError(f"column {name!r}, line {bad + 2}: {str(values[bad])!r} is no work: correct or remove it")
    given = np.flatnonzero(~np.isnan(values))
    if not len(given):
        return None
    values = values[: given[-1] + 1].astype(np.float64)
    if np.isnan(values).any():
        line = int(np.flatnonzero(np.isnan(values))[0]) + 2
        raise ValueError(f"column {name!r}, line {line}: the work is missing or NaN: remove its sample")
    return values


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _of_arrays(arrays: dict[str, np.ndarray]) -> Works:
    named = {name.lower(): value for name, value in arrays.items()}
    for name in ("forward", "reverse", "u_kn", "n_k"):
        if name in named and named[name].dtype.kind not in "uif":
            raise ValueError(f"array {name!r} holds {named[name].dtype}, no numbers: save it as float64")
    if "u_kn" in named and "n_k" in named:
        return Works(u_kn=named["u_kn"], n_k=named["n_k"])
    if "forward" not in named:
        raise ValueError(f"holds the arrays {sorted(arrays)}: {REMEDY}")
    return Works(named["forward"], named.get("reverse"))
