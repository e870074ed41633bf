"""Pynapple's objects, and the .npz files that it saves, without importing pynapple."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.arrays import load_arrays
from .recordings_spikes import Spikes, Trials

MEMBERS = ("t", "index", "keys", "start", "end", "d", "type")
"""The arrays that are read. The others may be pickled (`_metadata`, names of columns) and are left alone."""


def is_object(value: Any, *names: str) -> bool:
    """Whether a value is one of pynapple's classes of these names."""
    kind = type(value)
    return kind.__name__ in names and kind.__module__.split(".")[0] == "pynapple"


def spikes_of_group(group: Any) -> Spikes:
    """A `TsGroup` in memory."""
    keys = list(group.keys())
    return Spikes(
        tuple(str(key) for key in keys),
        [np.asarray(group[key].t, dtype=float) for key in keys],
        support=np.asarray(group.time_support.values, dtype=float),
    )


def trials_of_intervals(intervals: Any) -> Trials:
    """An `IntervalSet` in memory, with its columns of metadata."""
    edges = np.asarray(intervals.values, dtype=float)
    names = list(getattr(intervals, "metadata_columns", ()))
    columns = {str(name): np.asarray(intervals.get_info(name)) for name in names}
    return Trials(edges[:, 0], edges[:, 1], np.arange(len(edges)), columns)


def series_of(value: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times and values of a `Tsd` (named value) or of each column of a `TsdFrame`."""
    times, values = np.asarray(value.t, dtype=float), np.asarray(value.values)
    if values.ndim == 1:
        return {"value": (times, values)}
    return {str(name): (times, values[:, i]) for i, name in enumerate(value.columns)}


def kind_of(path: Path) -> str | None:
    """Name of pynapple's class that a .npz holds; None for any other file."""
    try:
        found = load_arrays(path, ("type",)).get("type")
    except (ValueError, OSError):
        return None
    return str(found.ravel()[0]) if found is not None and found.dtype.kind == "U" and found.size else None


def _members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `MEMBERS` that a .npz holds."""
    try:
        return load_arrays(path, MEMBERS)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None


def read_group(path: Path) -> Spikes:
    """A `TsGroup` that was saved as .npz.

    Raises
    ------
    ValueError
        With the file.
    """
    arrays = _members(path)
    missing = [name for name in ("t", "index") if name not in arrays]
    if missing or arrays["t"].shape != arrays["index"].shape or arrays["t"].ndim != 1:
        raise ValueError(f"{path} lacks the arrays t and index of a TsGroup of spike times: save it again")
    keys = arrays.get("keys", np.unique(arrays["index"]))
    support = np.stack([arrays["start"], arrays["end"]], 1) if {"start", "end"} <= set(arrays) else None
    order = np.argsort(arrays["index"], kind="stable")
    index, t = arrays["index"][order], arrays["t"][order].astype(float)
    first, last = np.searchsorted(index, keys, "left"), np.searchsorted(index, keys, "right")
    return Spikes(tuple(str(key) for key in keys), [t[a:b] for a, b in zip(first, last)], support=support)


def read_intervals(path: Path) -> Trials:
    """An `IntervalSet` that was saved as .npz; its metadata are pickled and are not read."""
    arrays = _members(path)
    if "start" not in arrays or "end" not in arrays or arrays["start"].shape != arrays["end"].shape:
        raise ValueError(f"{path} lacks the arrays start and end of an IntervalSet: save it again")
    return Trials(arrays["start"], arrays["end"], np.arange(len(arrays["start"])))


def read_tsd(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A `Tsd` or `TsdFrame` that was saved as .npz, with the file's name: the names of its columns are pickled."""
    arrays = _members(path)
    if "t" not in arrays or "d" not in arrays or len(arrays["t"]) != len(arrays["d"]):
        raise ValueError(f"{path} lacks the arrays t and d of a Tsd: save it again")
    values = arrays["d"]
    if values.ndim == 1:
        return {path.stem: (arrays["t"], values)}
    return {f"{path.stem}_{i}": (arrays["t"], values[:, i]) for i in range(values.shape[1])}


def group_of_folder(folder: Path) -> Path:
    """The only `TsGroup` of a folder.

    Raises
    ------
    ValueError
        Where there is none, or several.
    """
    groups = [path for path in sorted(folder.glob("*.npz")) if kind_of(path) == "TsGroup"]
    if len(groups) != 1:
        found = ", ".join(path.name for path in groups) or "none"
        raise ValueError(f"{folder} has {len(groups)} files of a TsGroup ({found}): name the one to read")
    return groups[0]
