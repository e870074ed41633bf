"""A Poisson log-normal model of a recording, with everything that the command line reports."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..progress import show_progress
from ._formula import NAME, right_side
from .correlation import Correlations, correlations
from .poisson_log_normal import PoissonLogNormal
from .recordings import Recording
from .recordings_tables import read_columns
from .report import facts

MAX_LOG_EXPOSURE = 100.0
"""Offsets above this, e^100, are taken to be exposures and not their logarithms."""


@dataclass(frozen=True)
class Settings:
    """What is fitted."""

    formula: str | None = None
    covariance: Any = "full"
    rank: int | None = None
    penalty: float | None = None
    zero_inflation: Any = None
    n_starts: int = 2
    seed: int = 0
    leave_out_silent: bool = False
    colour: str | None = None


class Study(NamedTuple):
    """A fit and what follows from it."""

    model: PoissonLogNormal
    found: Correlations
    counts: np.ndarray
    names: tuple[str, ...]
    numbers: dict[str, Any]
    colour: tuple[str, np.ndarray] | None


def study(
    recording: Recording,
    settings: Settings,
    *,
    offsets: Path | None = None,
    exposures: Path | None = None,
    covariates: Path | None = None,
) -> Study:
    """Fit the model and compute its correlations, with progress.

    Parameters
    ----------
    offsets, exposures
        Tables; see `spikevae population`.
    covariates
        File of the covariates, for messages.

    Raises
    ------
    ValueError
        For what cannot be fitted: one line with file, column and remedy.
    """
    if recording.silent and not settings.leave_out_silent:
        few = ", ".join(recording.silent[:5]) + (", ..." if len(recording.silent) > 5 else "")
        raise ValueError(
            f"{recording.source}: {len(recording.silent)} of {recording.shape[1]} units have no count above zero "
            f"({few}): leave them out (--leave-out-silent)"
        )
    kept = np.array([name not in recording.silent for name in recording.unit_names])
    if not kept.any():
        raise ValueError(f"{recording.source}: no unit has a count above zero: there is nothing to fit")
    names = tuple(name for name, keep in zip(recording.unit_names, kept) if keep)
    counts, mask = recording.counts[:, kept], None if recording.mask is None else recording.mask[:, kept]
    shift = _offsets(recording, names, offsets, exposures)
    table = recording.table()
    colour = _colour(settings, table, recording.source)
    X = table if settings.formula is not None else None
    model = PoissonLogNormal(
        settings.covariance,
        rank=settings.rank,
        penalty=settings.penalty,
        zero_inflation=settings.zero_inflation,
        formula=settings.formula,
        n_starts=settings.n_starts,
        random_state=settings.seed,
        verbose=True,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the text of the results says so
            model.fit(counts, X, shift, mask)
        model.feature_names_in_ = np.array(names, dtype=object)
        with show_progress("correlations") as report:
            report(0, 1, f"{len(names)} units")
            found = correlations(model, X if X is not None else None, _rows(shift, len(counts)))
    except (ValueError, ImportError) as error:
        where = covariates if covariates is not None and str(error).startswith(("X", "formula")) else recording.source
        raise ValueError(f"{where}: {error}") from None
    return Study(model, found, counts, names, facts(model, found, len(counts)), colour)


def _rows(shift: np.ndarray | None, n: int) -> np.ndarray:
    """Offsets of all rows, so that a model without covariates has as many."""
    return np.zeros((n, 1)) if shift is None else shift


def _colour(settings: Settings, table: dict[str, np.ndarray], source: str) -> tuple[str, np.ndarray] | None:
    """Name and values of the column that colours rows."""
    name = settings.colour
    if name is None and settings.formula is not None:
        used = [first or second for first, second in NAME.findall(right_side(settings.formula))]
        name = next((column for column in used if column in table), None)
    if name is None:
        return None
    if name not in table:
        raise ValueError(f"{source}: no column {name!r} colours rows (columns: {', '.join(table) or 'none'}): name one")
    return name, table[name]


def _offsets(
    recording: Recording, names: tuple[str, ...], offsets: Path | None, exposures: Path | None
) -> np.ndarray | None:
    """(n, 1) or (n, p) offsets of the log rates."""
    if offsets is not None and exposures is not None:
        raise ValueError("offsets and exposures are given: give one of them, offsets are logarithms of exposures")
    path = offsets or exposures
    if path is None:
        return None if recording.offsets is None else recording.offsets[:, None]
    columns = read_columns(path, "offsets")
    chosen = list(columns) if len(columns) == 1 else list(names)
    missing = [name for name in chosen if name not in columns]
    if missing:
        raise ValueError(f"{path}: there is no column for unit {missing[0]!r}: give one column, or one for each unit")
    for name in chosen:
        column = columns[name]
        if column.dtype.kind not in "uif" or len(column) != len(recording.counts):
            raise ValueError(
                f"{path}: column {name!r} has {len(column)} entries of type {column.dtype}, and there are "
                f"{len(recording.counts)} rows of counts: give one number for each"
            )
    values = np.stack([columns[name].astype(float) for name in chosen], 1)
    if offsets is not None:
        if np.nanmax(values) > MAX_LOG_EXPOSURE:
            raise ValueError(
                f"{path}: offsets are logarithms, and {np.nanmax(values):g} is none: give it as --exposures"
            )
        return values
    if (bad := ~(values > 0)).any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{path}: row {row + 1}, column {chosen[column]!r} is {values[row, column]:g}: exposures are above zero"
        )
    return np.log(values)
