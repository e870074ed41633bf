"""Readers of recordings: spike times that are counted in trials or bins, and counts."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import plain
from .recordings import Recording
from .recordings_checks import warn_if_transposed, whole_counts
from .recordings_counts import LABELS, CountTable, read_count_table
from .recordings_covariates import covariates_of_rows
from .recordings_nwb import read_nwb
from .recordings_pynapple import (
    group_of_folder,
    is_object,
    kind_of,
    read_group,
    read_intervals,
    spikes_of_group,
    trials_of_intervals,
)
from .recordings_spikes import (
    NANOSECONDS,
    Bins,
    Spikes,
    Trials,
    bins_of_recording,
    bins_of_trials,
    count_spikes,
    observed_rows,
    overlaps,
)
from .recordings_tables import (
    TIME_UNITS,
    TIMES,
    UNITS,
    find_column,
    is_spike_table,
    read_columns,
    read_spike_table,
    spikes_of_columns,
    trials_of_columns,
)

NWB_ENDINGS = (".nwb", ".h5", ".hdf5")


def read_recording(
    source: Any,
    *,
    bin_width: float | None = None,
    trials: Any = None,
    window: tuple[float, float] | None = None,
    covariates: Any = None,
    condition: str | None = None,
    key: str | None = None,
    time_unit: str = "s",
) -> Recording:
    """Read a recording: spike times, which are counted in trials or bins, or counts.

    Bins are half-open, [start, stop): a spike on an edge belongs to the bin that starts there. Times are rounded to
    nanoseconds. The end of a trial that is shorter than a bin is left out. Spikes in no bin are counted (`n_outside`).

    Parameters
    ----------
    source
        Spike times: an NWB file (.nwb, extra `recordings`), a pynapple `TsGroup`, the .npz or the folder that it was
        saved to, a .csv or .tsv with the columns unit, time and perhaps trial (times then count from the start of
        their trial), or times by unit, ``{name: times}``. Counts: .npy, .npz, .csv or .tsv with one line per trial and
        the names of the units in the first, a table, or an array (n_trials, n_units) or (n_stimuli, n_trials,
        n_units); trials that are NaN throughout are left out of the latter.
    bin_width
        Of spike times: width of a row, seconds. Without it, a row is a trial.
    trials
        Trials: a .csv or .tsv with start and stop in seconds (and perhaps trial, condition, other columns), the same as
        a table or mapping, an array (n, 2), a pynapple `IntervalSet` or its .npz, or the name of a table of intervals
        of the NWB file. By default the file's own trials, or with `bin_width` the whole recording. With counts, the
        trials give the durations of the rows.
    window
        (first, last) seconds from the start of each trial, in place of its stop.
    covariates
        One value per trial or row: a .csv or .tsv, a table, or columns by name. A file with a column `time`, a pynapple
        `Tsd` or a pair (times, values) in a mapping are time series, averaged in each row. Of an NWB file, also the
        paths of time series in it.
    condition
        Column of the counts, trials or covariates with the condition of each trial; by default `condition` or
        `stimulus`, if there is one.
    key
        Name of the array in an .npz of counts.
    time_unit
        Unit of times in .csv and .tsv: "s", "ms" or "us".

    Raises
    ------
    ValueError
        For files that are missing, damaged or of another format, and numbers that mean something else; it names the
        file, the column and what to do.

    Examples
    --------
    >>> recording = read_recording({"a": [0.05, 0.1, 0.95], "b": []}, bin_width=0.1)
    >>> recording.counts[:, 0].tolist(), recording.silent
    ([1, 1, 0, 0, 0, 0, 0, 0, 0, 1], ('b',))
    """
    if time_unit not in TIME_UNITS:
        raise ValueError(f"time_unit is {time_unit!r}: choose from {', '.join(TIME_UNITS)}")
    where, path, found = _load(source, trials, condition, key, time_unit)
    if isinstance(found, CountTable):
        if bin_width is not None or window is not None:
            raise ValueError(f"{where} holds counts, which have no times: leave bin_width and window out")
        recording, n_trials, bins = _of_counts(where, found, trials, time_unit)
        place = np.arange(n_trials)
    else:
        try:
            recording, bins, n_trials = _of_spikes(where, found, bin_width, trials, window, time_unit)
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
        place = bins.trial
    own = {} if covariates is None else covariates_of_rows(covariates, n_trials, place, bins, path, time_unit)
    complete = _with_conditions(replace(recording, covariates=recording.covariates | own), condition)
    same = complete.conditions if recording.conditions is None else None
    return replace(complete, given=tuple(name for name in own if own[name] is not same))


def _load(
    source: Any, trials: Any, condition: str | None, key: str | None, time_unit: str
) -> tuple[str, Path | None, Spikes | CountTable]:
    """What a source holds, with a name for messages and its file."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return str(path), path, _load_file(path, trials, condition, key, time_unit)
    if is_object(source, "TsGroup"):
        return "the TsGroup", None, spikes_of_group(source)
    if isinstance(source, Mapping) and source and all(np.ndim(value) == 1 for value in source.values()):
        if find_column(source, UNITS) and find_column(source, TIMES):
            return "the table", None, spikes_of_columns({str(k): np.asarray(v) for k, v in source.items()}, time_unit)
        times = [np.asarray(value, dtype=float) * TIME_UNITS[time_unit] for value in source.values()]
        return "the spike times", None, Spikes(tuple(str(name) for name in source), times)
    if hasattr(source, "columns") and hasattr(source, "__getitem__"):
        columns = {str(name): np.asarray(source[name]) for name in source.columns}
        if find_column(columns, UNITS) and find_column(columns, TIMES):
            return "the table", None, spikes_of_columns(columns, time_unit)
        label = condition if condition in columns else find_column(columns, LABELS)
        conditions = None if label is None else columns.pop(label)
        return "the table", None, CountTable(np.stack(list(columns.values()), 1), tuple(columns), conditions)
    return "counts", None, CountTable(np.asarray(plain(source, "counts")))


def _load_file(path: Path, trials: Any, condition: str | None, key: str | None, time_unit: str) -> Spikes | CountTable:
    if path.is_dir():
        return read_group(group_of_folder(path))
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.suffix.lower() in NWB_ENDINGS:
        named = isinstance(trials, str) and not Path(trials).suffix
        return read_nwb(path, trials if named else None)
    if path.suffix.lower() == ".npz" and (kind := kind_of(path)) is not None:
        if kind != "TsGroup":
            raise ValueError(f"{path} holds a {kind} of pynapple, and spikes are a TsGroup: save that")
        return read_group(path)
    if is_spike_table(path):
        return read_spike_table(path, time_unit)
    return read_count_table(path, key, condition)


def _of_counts(where: str, table: CountTable, trials: Any, time_unit: str) -> tuple[Recording, int, Bins | None]:
    counts, conditions = table.counts, table.conditions
    if counts.ndim == 3:
        n_stimuli, n_trials, n_units = counts.shape
        counts = counts.reshape(-1, n_units)
        names = np.arange(n_stimuli) if conditions is None else conditions
        conditions = np.repeat(names, n_trials)
        if counts.dtype.kind == "f":
            kept = ~np.isnan(counts).all(1)
            counts, conditions = counts[kept], conditions[kept]
    counts = counts[:, None] if counts.ndim == 1 else counts
    names_of_units = table.names or tuple(str(i) for i in range(counts.shape[-1]))
    z = whole_counts(counts, names_of_units, where)
    if conditions is None:  # rows of several conditions differ in any case
        warn_if_transposed(z)
    recording = Recording(z, names_of_units, trials=np.arange(len(z)), conditions=conditions, source=where)
    if trials is None:
        return recording, len(z), None
    own = _trials(trials, None, time_unit)
    if len(own.start) != len(z):
        raise ValueError(f"{where} has {len(z)} rows, and there are {len(own.start)} trials: give one line per row")
    bins = bins_of_trials(own, None)
    lengths = (bins.stop - bins.start) / NANOSECONDS
    return replace(recording, durations=lengths, trials=own.labels, covariates=own.columns), len(z), bins


def _of_spikes(
    where: str, spikes: Spikes, bin_width: float | None, trials: Any, window: Any, time_unit: str
) -> tuple[Recording, Bins, int]:
    if trials is not None and not _names_intervals(trials, spikes):
        own: Trials | None = _trials(trials, window, time_unit)
    else:
        own = spikes.trials
        if own is not None and window is not None:
            own = replace(own, start=own.start + window[0], stop=own.start + window[1])
    if spikes.trial_of is not None:
        own = _relative(spikes, own, window)
    if own is None and bin_width is None:
        raise ValueError("holds spike times, which are counted in bins or trials: give bin_width (seconds) or trials")
    if own is None:
        bins, one = bins_of_recording(spikes, float(bin_width or 0))
        labels, n_trials, columns = one.labels, len(one.labels), {}
    else:
        bins, labels, n_trials = bins_of_trials(own, bin_width), own.labels, len(own.labels)
        columns = {name: column[bins.trial] for name, column in own.columns.items()}
    if spikes.trial_of is None and (n := overlaps(bins)):
        warnings.warn(f"{where}: {n} rows overlap an earlier one: their spikes are counted in each", stacklevel=4)
    counts, outside = count_spikes(spikes, bins, list(labels))
    total = sum(len(t) for t in spikes.times)
    if total and outside == total:
        raise ValueError(
            f"none of the {total} spikes lies in a trial: check that both have the same clock and unit of time"
        )
    mask = observed_rows(spikes, bins)
    recording = Recording(
        counts if mask is None else np.where(mask, counts, 0),
        spikes.names,
        (bins.stop - bins.start) / NANOSECONDS,
        np.asarray(labels)[bins.trial],
        covariates=columns,
        mask=mask,
        n_outside=outside,
        source=where,
    )
    return recording, bins, n_trials


def _names_intervals(trials: Any, spikes: Spikes) -> bool:
    """Whether trials are given by the name of a table that was read with the spikes."""
    return spikes.trials is not None and isinstance(trials, str) and not Path(trials).suffix


def _trials(given: Any, window: tuple[float, float] | None, time_unit: str) -> Trials:
    """Trials of a file or object."""
    if is_object(given, "IntervalSet"):
        return trials_of_intervals(given)
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        if path.suffix.lower() == ".npz":
            return read_intervals(path)
        columns = read_columns(path, "trials")
        try:
            return trials_of_columns(columns, window, time_unit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if hasattr(given, "columns") and hasattr(given, "__getitem__"):
        given = {str(name): np.asarray(given[name]) for name in given.columns}
    if isinstance(given, Mapping):
        return trials_of_columns({str(name): np.asarray(value) for name, value in given.items()}, window, "s")
    edges = np.asarray(given, dtype=float)
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"trials have shape {edges.shape}: give (n, 2) starts and stops in seconds")
    return trials_of_columns({"start": edges[:, 0], "stop": edges[:, 1]}, window, "s")


def _relative(spikes: Spikes, trials: Trials | None, window: tuple[float, float] | None) -> Trials:
    """Trials whose clock starts with each of them."""
    if trials is None:
        if window is None:
            raise ValueError("has times from the start of trials: give window (first, last) in seconds, or trials")
        labels = np.unique(np.concatenate([np.asarray(trial) for trial in spikes.trial_of or ()]))
        return Trials(np.full(len(labels), window[0]), np.full(len(labels), window[1]), labels)
    if window is not None:
        first = np.full(len(trials.labels), window[0])
        return replace(trials, start=first, stop=first - window[0] + window[1])
    return replace(trials, start=np.zeros(len(trials.labels)), stop=trials.stop - trials.start)


def _with_conditions(recording: Recording, condition: str | None) -> Recording:
    """The column of conditions, taken from what is known of the rows."""
    if recording.conditions is not None:
        return recording
    name = condition or find_column(recording.covariates, LABELS)
    if name is None:
        return recording
    if name not in recording.covariates:
        known = ", ".join(recording.covariates) or "none"
        raise ValueError(f"{recording.source}: no column {name!r} of conditions (columns: {known}): name one of them")
    return replace(recording, conditions=recording.covariates[name])
