"""Spike times of units, and the counts of them in trials and bins.

Times are rounded to whole nanoseconds, so that a spike on an edge lies on it whatever the rounding of its decimals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

NANOSECONDS = 1e9
MAX_SECONDS = 9e9
"""Largest time in seconds: over 285 years, so near the largest 64-bit integer in nanoseconds."""
MAX_ENTRIES = 1 << 31
"""Largest number of counts, rows times units, of a recording."""


@dataclass(frozen=True)
class Trials:
    """Intervals of a recording, one per trial."""

    start: np.ndarray
    """(n,) seconds."""
    stop: np.ndarray
    """(n,) seconds, after `start`."""
    labels: np.ndarray
    """(n,) names or numbers of the trials."""
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """Everything else that is known of each trial, (n,) per column."""


@dataclass(frozen=True)
class Spikes:
    """Spike times as they come from a file or object."""

    names: tuple[str, ...]
    times: list[np.ndarray]
    """Per unit, seconds, in any order."""
    trial_of: list[np.ndarray] | None = None
    """Per unit, the trial of each spike, where times count from the start of their trial."""
    support: np.ndarray | None = None
    """(m, 2) intervals in which the recording was made, seconds."""
    observed: list[np.ndarray] | None = None
    """Per unit, (m, 2) intervals in which it was recorded, seconds."""
    trials: Trials | None = None
    """The trials that the file has."""


class Bins(NamedTuple):
    """The rows of a table of counts."""

    start: np.ndarray
    """(n,) nanoseconds, int64."""
    stop: np.ndarray
    trial: np.ndarray
    """(n,) place of the trial that a row belongs to."""


def nanoseconds(times: Any, what: str) -> np.ndarray:
    """Times in seconds as whole nanoseconds.

    Raises
    ------
    ValueError
        For times that are not finite or beyond `MAX_SECONDS`.
    """
    t = np.asarray(times, dtype=float)
    wrong = ~(np.abs(t) < MAX_SECONDS)
    if wrong.any():
        raise ValueError(
            f"{what} has a time of {t[wrong][0]:g} s, not finite or too large: remove it, or state the unit of time "
            "(time_unit)"
        )
    return np.rint(t * NANOSECONDS).astype(np.int64)


def bins_of_trials(trials: Trials, bin_width: float | None) -> Bins:
    """One row per trial, or rows of a stated width from the start of each trial.

    The end of a trial that is shorter than a bin is left out.

    Raises
    ------
    ValueError
        For trials that do not end after they start, and bins longer than all trials.
    """
    start, stop = nanoseconds(trials.start, "a start of trials"), nanoseconds(trials.stop, "an end of trials")
    if not len(start):
        raise ValueError("there are no trials: give a table with one line per trial")
    if (wrong := stop <= start).any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"trial {trials.labels[at]} starts at {trials.start[at]:g} s and stops at {trials.stop[at]:g} s: correct "
            "it, or leave it out"
        )
    if bin_width is None:
        return Bins(start, stop, np.arange(len(start)))
    width = width_in_nanoseconds(bin_width)
    n_bins = (stop - start) // width
    if not n_bins.any():
        raise ValueError(
            f"bin_width is {bin_width:g} s and the longest trial {(stop - start).max() / NANOSECONDS:g} s: give a "
            "smaller width, or none for one count per trial"
        )
    trial = np.repeat(np.arange(len(start)), n_bins)
    place = np.arange(len(trial)) - np.repeat(np.cumsum(n_bins) - n_bins, n_bins)
    begin = start[trial] + place * width
    return Bins(begin, begin + width, trial)


def width_in_nanoseconds(bin_width: float) -> int:
    width = int(nanoseconds(bin_width, "bin_width"))
    if width < 1:
        raise ValueError(f"bin_width is {bin_width:g} s: give a positive number of seconds")
    return width


def bins_of_recording(spikes: Spikes, bin_width: float) -> tuple[Bins, Trials]:
    """Bins of a recording without trials: of its support, or from the first spike to the last.

    Raises
    ------
    ValueError
        Where there is neither support nor spike.
    """
    width = width_in_nanoseconds(bin_width)
    if spikes.support is not None and len(spikes.support):
        bounds = np.asarray(spikes.support, dtype=float)
    else:
        if not any(len(t) for t in spikes.times):
            raise ValueError("no unit has a spike, and the length of the recording is not stated: give trials")
        every = nanoseconds([f(t) for t in spikes.times if len(t) for f in (np.min, np.max)], "a unit")
        first, last = every.min() // width, every.max() // width + 1  # in bins from time 0; contains the last spike
        bounds = np.array([[first * width, last * width]]) / NANOSECONDS
    one = Trials(bounds[:, 0], bounds[:, 1], np.arange(len(bounds)))
    return bins_of_trials(one, bin_width), one


def count_spikes(spikes: Spikes, bins: Bins, labels: Sequence[Any]) -> tuple[np.ndarray, int]:
    """Counts (n_rows, n_units) in half-open bins [start, stop), and the number of spikes in none of them.

    A spike on an edge belongs to the bin that starts there. Where trials overlap, a spike is counted in each.

    Parameters
    ----------
    labels
        Of the trials, as `spikes.trial_of` names them.

    Raises
    ------
    ValueError
        For more than `MAX_ENTRIES` counts.
    """
    n, p = len(bins.start), len(spikes.names)
    if n * p > MAX_ENTRIES:
        raise ValueError(
            f"{n:,} rows of {p:,} units are more than {MAX_ENTRIES:,} counts: give a larger bin_width, or fewer units"
        )
    counts = np.zeros((n, p), dtype=np.int64)
    outside = 0
    rows_of = _rows_of_trials(bins, labels) if spikes.trial_of is not None else {}
    for unit, times in enumerate(spikes.times):
        t = nanoseconds(times, f"unit {spikes.names[unit]}")
        if spikes.trial_of is None:
            t = np.sort(t)
            counts[:, unit] = _between(t, bins.start, bins.stop)
            begin, end = _union(bins)
            outside += len(t) - int(_between(t, begin, end).sum())
            continue
        trial = np.asarray(spikes.trial_of[unit])
        for label in np.unique(trial):
            own, rows = np.sort(t[trial == label]), rows_of.get(str(label))
            if rows is not None:
                counts[rows, unit] = _between(own, bins.start[rows], bins.stop[rows])
            outside += len(own) - (int(counts[rows, unit].sum()) if rows is not None else 0)
    return counts, outside


def _between(t: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Number of the sorted times in each [start, stop)."""
    return np.searchsorted(t, stop, "left") - np.searchsorted(t, start, "left")


def _rows_of_trials(bins: Bins, labels: Sequence[Any]) -> dict[str, np.ndarray]:
    order = np.argsort(bins.trial, kind="stable")
    places, first = np.unique(bins.trial[order], return_index=True)
    return {str(labels[place]): rows for place, rows in zip(places, np.split(order, first[1:]))}


def _union(bins: Bins) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the union of all bins, without overlap."""
    order = np.argsort(bins.start, kind="stable")
    start, reach = bins.start[order], np.maximum.accumulate(bins.stop[order])
    new = np.r_[True, start[1:] > reach[:-1]]
    return start[new], np.r_[reach[:-1][new[1:]], reach[-1:]]


def overlaps(bins: Bins) -> int:
    """Number of rows that start before an earlier one ends."""
    order = np.argsort(bins.start, kind="stable")
    reach = np.maximum.accumulate(bins.stop[order])
    return int((bins.start[order][1:] < reach[:-1]).sum())


def observed_rows(spikes: Spikes, bins: Bins) -> np.ndarray | None:
    """(n_rows, n_units) True where a unit was recorded during the whole row; None where all were."""
    if spikes.observed is None:
        return None
    mask = np.ones((len(bins.start), len(spikes.names)), dtype=bool)
    for unit, intervals in enumerate(spikes.observed):
        edges = nanoseconds(np.reshape(intervals, (-1, 2)), f"an interval of unit {spikes.names[unit]}")
        if not len(edges):
            mask[:, unit] = False
            continue
        order = np.argsort(edges[:, 0], kind="stable")
        begin, end = _union(Bins(edges[order, 0], edges[order, 1], np.empty(0)))
        place = np.searchsorted(begin, bins.start, "right") - 1
        mask[:, unit] = (place >= 0) & (bins.stop <= end[np.maximum(place, 0)])
    return None if mask.all() else mask
