"""Units, trials and time series of NWB 2 files in HDF5, read by h5py alone (extra `recordings`).

Format: Neurodata Without Borders 2 (nwb-schema.readthedocs.io), tables `Units` and `TimeIntervals`, type `TimeSeries`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .recordings_spikes import Spikes, Trials

MAX_BYTES = 1 << 33
"""Largest size of one array that is read."""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file; errors name it."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(f"{path}: NWB files need h5py: pip install 'spikevae[recordings]'") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is no readable NWB file in HDF5 ({reason}): export it again") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _member(group: Any, name: str) -> Any:
    """A member of a group; None where there is none.

    Raises
    ------
    ValueError
        Where it is a link to another file.
    """
    import h5py

    if name not in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{group.name}/{name} is in another file, {link.filename}: copy it into this one")
        return None
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{group.name}/{name} is in another file: copy it into this one")
    return group[name]


def _array(group: Any, name: str) -> np.ndarray | None:
    """A data set as an array; text becomes str. None where there is none, or it holds references or records."""
    import h5py

    found = _member(group, name)
    if found is None or not isinstance(found, h5py.Dataset):
        return None
    if found.external or found.is_virtual:
        raise ValueError(f"{found.name} is in another file: copy it into this one")
    if found.size * found.dtype.itemsize > MAX_BYTES:
        raise ValueError(f"{found.name} declares {found.size:,} entries, too many to read: cut it into sessions")
    if h5py.check_string_dtype(found.dtype) is not None:
        return np.array(found.asstr()[...], dtype=str)
    if found.dtype.kind not in "buif":
        return None
    return np.asarray(found[...])


def _ragged(group: Any, name: str, n: int) -> list[np.ndarray] | None:
    """A column with several entries per row, which `name`_index delimits."""
    values, ends = _array(group, name), _array(group, f"{name}_index")
    if values is None:
        return None
    if ends is None:
        raise ValueError(
            f"{group.name}/{name} has no index, so its spikes belong to no known unit: export the units again"
        )
    cuts = ends.astype(np.int64)
    if len(cuts) != n or (np.diff(cuts) < 0).any() or (n and (cuts[0] < 0 or cuts[-1] != len(values))):
        raise ValueError(f"{group.name}/{name}_index does not fit {name}: the file is damaged, export it again")
    return np.split(values, cuts[:-1])


def read_nwb(path: Path, intervals: str | None = None) -> Spikes:
    """Spike times of all units and the trials of a file.

    Parameters
    ----------
    intervals
        Name of the table of trials in the group `intervals`; by default `trials`, if there is one.

    Raises
    ------
    ValueError
        Where it is no HDF5 file, has no units or no spike times, or no such table of trials; with the file.
    """
    with _opened(path) as file:
        units = _member(file, "units")
        identity = None if units is None else _array(units, "id")
        if units is None or identity is None or not len(identity):
            raise ValueError("has no units table, so no spikes: choose a file with sorted units")
        times = _ragged(units, "spike_times", len(identity))
        if times is None:
            raise ValueError("its units have no spike_times: choose a file with sorted units")
        return Spikes(
            tuple(str(name) for name in identity),
            [np.asarray(t, dtype=float) for t in times],
            observed=_ragged(units, "obs_intervals", len(identity)),
            trials=_trials(file, intervals),
        )


def _trials(file: Any, wanted: str | None) -> Trials | None:
    tables = _member(file, "intervals")
    name = wanted or "trials"
    table = None if tables is None else _member(tables, name)
    if table is None:
        if wanted is None:
            return None
        known = ", ".join(tables) if tables is not None and len(tables) else "none"
        raise ValueError(f"has no table {wanted!r} of intervals (it has {known}): name one, or a .csv of trials")
    start, stop = _array(table, "start_time"), _array(table, "stop_time")
    if start is None or stop is None or len(start) != len(stop):
        raise ValueError(f"its table {name!r} of intervals has no start_time and stop_time: export it again")
    labels = _array(table, "id")
    columns = {}
    for column in table:
        if column in ("start_time", "stop_time", "id") or column.endswith("_index") or f"{column}_index" in table:
            continue
        values = _array(table, column)
        if values is not None and values.shape == start.shape:
            columns[column] = values
    kept = np.isfinite(start) & np.isfinite(stop)  # trials that were broken off have no end
    labels = np.arange(len(start)) if labels is None or len(labels) != len(start) else labels
    return Trials(start[kept], stop[kept], labels[kept], {key: value[kept] for key, value in columns.items()})


def read_series(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and values of one `TimeSeries` of an NWB file, such as `processing/behavior/speed`.

    Raises
    ------
    ValueError
        Where there is none of that name, or it has several values per time.
    """
    with _opened(path) as file:
        group: Any = file
        for part in name.strip("/").split("/"):
            group = _member(group, part) if hasattr(group, "keys") else None
            if group is None:
                raise ValueError(f"has no time series {name!r}: give its whole path, such as processing/behavior/speed")
        values = _array(group, "data") if hasattr(group, "keys") else None
        if values is None or values.ndim != 1:
            raise ValueError(f"{name!r} is no time series of one number per time: choose another covariate")
        data = group["data"]
        values = values * float(data.attrs.get("conversion", 1.0)) + float(data.attrs.get("offset", 0.0))
        times = _array(group, "timestamps")
        if times is None:
            start = _member(group, "starting_time")
            if start is None or "rate" not in start.attrs:
                raise ValueError(f"{name!r} has neither timestamps nor a rate: export it again")
            times = float(start[()]) + np.arange(len(values)) / float(start.attrs["rate"])
        if len(times) != len(values):
            raise ValueError(f"{name!r} has {len(times)} times and {len(values)} values: export it again")
        return times.astype(float), values
