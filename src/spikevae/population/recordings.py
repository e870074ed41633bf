"""Recordings of many units as one table of counts, whatever they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._text import plural


@dataclass(frozen=True, repr=False)
class Recording:
    """Counts of units in rows, which are trials or bins, with all that is known of them.

    Examples
    --------
    >>> from spikevae.population import read_recording
    >>> spikes = {"a": [0.1, 0.2, 1.5], "b": [0.3, 9.0]}
    >>> recording = read_recording(spikes, trials={"start": [0.0, 1.0], "stop": [1.0, 3.0]})
    >>> recording.counts.tolist(), recording.durations.tolist(), recording.n_outside
    ([[2, 1], [1, 0]], [1.0, 2.0], 1)
    """

    counts: np.ndarray
    """(n_rows, n_units) int64; 0 where `mask` is false."""
    unit_names: tuple[str, ...]
    durations: np.ndarray | None = None
    """(n_rows,) length of each row, seconds; None where it is not known."""
    trials: np.ndarray | None = None
    """(n_rows,) name or number of the trial of each row."""
    conditions: np.ndarray | None = None
    """(n_rows,) condition of each row."""
    covariates: dict[str, np.ndarray] = field(default_factory=dict)
    """(n_rows,) per column."""
    given: tuple[str, ...] = ()
    """Names of the covariates that were given beside what is known of the trials."""
    mask: np.ndarray | None = None
    """(n_rows, n_units) True where the unit was recorded during the whole row; None where all were."""
    n_outside: int = 0
    """Number of spikes in no row."""
    source: str = "counts"
    """File or kind of object, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and units."""
        return self.counts.shape[0], self.counts.shape[1]

    @property
    def silent(self) -> tuple[str, ...]:
        """Names of the units without a spike."""
        return tuple(name for name, total in zip(self.unit_names, self.counts.sum(0)) if not total)

    @property
    def offsets(self) -> np.ndarray | None:
        """(n_rows,) logarithm of the durations in seconds: with these offsets a model's rates are per second."""
        return None if self.durations is None else np.log(self.durations)

    @property
    def equal_durations(self) -> bool:
        """Whether all rows have the same length, as far as it is known, to a millionth."""
        return self.durations is None or float(np.ptp(self.durations)) <= 1e-6 * float(self.durations.max())

    def table(self) -> dict[str, np.ndarray]:
        """Covariates by name, with the column `condition` of text where there are some: what a formula may name."""
        own = {} if self.conditions is None else {"condition": self.conditions.astype(str)}
        return self.covariates | own

    def __repr__(self) -> str:
        return f"Recording({self.describe()})"

    def describe(self) -> str:
        """What was read, in one line."""
        n, p = self.shape
        parts = [f"{n} {plural(n, 'row')}", f"{p} {plural(p, 'unit')}"]
        if self.conditions is not None:
            parts.append(f"{len(np.unique(self.conditions))} conditions")
        if self.durations is not None:
            low, high = self.durations.min(), self.durations.max()
            parts.append(f"{low:.4g} s per row" if self.equal_durations else f"{low:.4g} to {high:.4g} s per row")
        total = int(self.counts.sum())
        parts.append(f"{total} counted")
        if self.n_outside:
            parts.append(f"{self.n_outside} {plural(self.n_outside, 'spike')} outside all rows")
        if self.mask is not None:
            parts.append(f"{int((~self.mask).sum())} counts not recorded")
        if self.silent:
            names = ", ".join(self.silent[:5]) + (", ..." if len(self.silent) > 5 else "")
            parts.append(f"{len(self.silent)} silent {plural(len(self.silent), 'unit')}: {names}")
        return ", ".join(parts)


def join_recordings(sessions: Mapping[str, Recording]) -> Recording:
    """Sessions of unequal length and with other units as one recording; a unit that a session lacks is masked there.

    Units are the same where their names are. Only covariates of all sessions are kept, and the covariate `session` is
    added.

    Parameters
    ----------
    sessions
        Recordings by name.

    Raises
    ------
    ValueError
        For no session, and where some sessions have durations or conditions and others not.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from spikevae.population import read_recording
    >>> one = read_recording(np.array([[1, 2], [0, 3]]))
    >>> both = join_recordings({"monday": one, "tuesday": replace(one, unit_names=("1", "2"))})
    >>> both.unit_names, both.counts[2:].tolist(), both.mask[2:].tolist()
    (('0', '1', '2'), [[0, 1, 2], [0, 0, 3]], [[False, True, True], [False, True, True]])
    """
    if not sessions:
        raise ValueError("there are no sessions to join")
    parts = list(sessions.values())
    names = tuple(dict.fromkeys(name for part in parts for name in part.unit_names))
    place = {name: i for i, name in enumerate(names)}
    n = sum(part.shape[0] for part in parts)
    counts, mask = np.zeros((n, len(names)), dtype=np.int64), np.zeros((n, len(names)), dtype=bool)
    row = 0
    for part in parts:
        rows = slice(row, row := row + part.shape[0])
        columns = [place[name] for name in part.unit_names]
        counts[rows, columns] = part.counts
        mask[rows, columns] = True if part.mask is None else part.mask
    shared = [name for name in parts[0].covariates if all(name in part.covariates for part in parts)]
    covariates = {name: np.concatenate([part.covariates[name] for part in parts]) for name in shared}
    covariates["session"] = np.repeat(list(sessions), [part.shape[0] for part in parts])
    trials = [f"{name}/{trial}" for name, part in sessions.items() for trial in _labels(part)]
    return Recording(
        counts,
        names,
        _joined(sessions, "durations"),
        np.array(trials),
        _joined(sessions, "conditions"),
        covariates,
        mask=None if mask.all() else mask,
        n_outside=sum(part.n_outside for part in parts),
        source=" and ".join(sessions),
    )


def _labels(part: Recording) -> Sequence[Any]:
    return list(range(part.shape[0])) if part.trials is None else list(part.trials)


def _joined(sessions: Mapping[str, Recording], name: str) -> np.ndarray | None:
    values = {session: getattr(part, name) for session, part in sessions.items()}
    without = [session for session, value in values.items() if value is None]
    if not without:
        return np.concatenate(list(values.values()))
    if len(without) < len(values):
        raise ValueError(f"session {without[0]!r} has no {name} and others have: give them to all, or to none")
    return None
