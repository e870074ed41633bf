"""What a table of counts must not hold: numbers of trials or units, times, and trials in place of units."""

import re
import warnings
from collections.abc import Sequence

import numpy as np

MAX_COUNT = 1_000_000
MIN_NUMBERED = 5
"""Smallest number of consecutive whole numbers that are taken to number rows or columns, not to be counts."""
MIN_RISING = 10
"""Smallest number of trials in which no unit fires more in each trial than in the one before: chance is 1 / 10!."""
MIN_FOR_HEADER = 10
"""Smallest number of trials with which a line of numbers before them is compared."""
MIN_FOR_ORIENTATION = 8
"""Smallest number of rows and columns whose totals are compared."""
UNEQUAL_INDEX, MIN_RATIO = 30.0, 10.0
"""Variance over mean of totals above which they differ as those of units do, and their ratio to those of trials."""
TRIAL_NAME = re.compile(r"(trial|rep|repeat|repetition)s?[ _.-]?\d+", re.IGNORECASE)
UNIT_NAME = re.compile(r"(unit|cell|neuron|cluster|channel)s?", re.IGNORECASE)


def check_columns(counts: np.ndarray) -> None:
    """Refuse columns that number the trials or hold their times.

    Raises
    ------
    ValueError
        With the column.
    """
    if counts.ndim != 2 or len(counts) < MIN_NUMBERED or counts.dtype.kind not in "uif":
        return
    steps = np.diff(counts.astype(float), axis=0)
    equal = (steps == steps[:1]).all(0) & (steps[0] != 0)
    rising = (steps > 0).all(0) & (len(counts) >= MIN_RISING)
    for i in np.flatnonzero(equal | rising):
        start = f"column {i + 1} is {counts[0, i]:g}, {counts[1, i]:g}, ..."
        if steps[0, i] == 1 and equal[i]:
            raise ValueError(f"{start} in order: remove these trial numbers")
        how = "in equal steps" if equal[i] else "and rises from each trial to the next"
        raise ValueError(f"{start} {how}: remove these trial numbers or times")


def check_names(names: Sequence[str]) -> None:
    """Refuse tables whose columns are named as trials.

    Raises
    ------
    ValueError
        With a name.
    """
    if len(names) > 1 and all(TRIAL_NAME.fullmatch(name.strip()) for name in names):
        raise ValueError(f"its columns are named {names[0]!r}, {names[1]!r}, ...: transpose it, so that they are units")


def check_dimensions(dimensions: Sequence[object]) -> None:
    """Refuse arrays whose named dimensions are (unit, ...).

    Raises
    ------
    ValueError
        With the dimensions.
    """
    if len(dimensions) == 2:
        first, second = (bool(UNIT_NAME.match(str(name))) for name in dimensions)
        if first and not second:
            raise ValueError(f"counts have dimensions {tuple(dimensions)}: transpose them to (trials, units)")


def numbers_columns(counts: np.ndarray) -> bool | None:
    """Whether the first row numbers the units: it is far above all trials. None if that is likely but not certain."""
    if counts.ndim != 2 or len(counts) <= MIN_FOR_HEADER or counts.shape[1] < 2:
        return False
    first, top = counts[0], counts[1:].max(0)
    if (first != np.round(first)).any() or len(np.unique(first)) < len(first):
        return False
    above, rises = float((first > top).mean()), bool((np.diff(first) > 0).all())
    if above < 0.5:
        return False
    return True if rises and (above == 1 or len(first) >= MIN_NUMBERED) else None


def warn_if_transposed(z: np.ndarray) -> None:
    """Warn where rows differ as units do, and columns are as alike as trials."""
    if min(z.shape) < MIN_FOR_ORIENTATION or not z.any():
        return
    rows, columns = (total.var(ddof=1) / total.mean() for total in (z.sum(1), z.sum(0)))
    if rows > max(UNEQUAL_INDEX, MIN_RATIO * columns):
        warnings.warn(
            f"the totals of the {len(z)} rows differ far more than those of the {z.shape[1]} columns (variance over "
            f"mean {rows:.3g} and {columns:.3g}): if the rows are units, transpose the counts",
            stacklevel=5,
        )


def whole_counts(counts: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """Counts (n_rows, n_units) as int64.

    Raises
    ------
    ValueError
        For entries that are no numbers, missing, negative, not whole or above `MAX_COUNT`; with the unit and the row.
    """
    z = np.asarray(counts)
    if z.dtype.kind not in "buif":
        raise ValueError(f"{where}: counts have type {z.dtype}; whole numbers are needed: leave out all else")
    if z.ndim != 2 or not z.size:
        raise ValueError(f"{where}: counts have shape {z.shape}; expected (n_rows, n_units), none of them 0")
    if z.dtype.kind == "f":
        _refuse(~np.isfinite(z), z, names, where, "is missing or not finite: leave this row or unit out")
        _refuse(z != np.round(z), z, names, where, "is not whole: if it is a rate, multiply it by the counting window")
    _refuse(z < 0, z, names, where, "is negative: counts are zero or more")
    _refuse(z > MAX_COUNT, z, names, where, f"is more than {MAX_COUNT:,}: take shorter bins")
    return z.astype(np.int64)


def _refuse(wrong: np.ndarray, z: np.ndarray, names: Sequence[str], where: str, why: str) -> None:
    if wrong.any():
        row, unit = np.argwhere(wrong)[0]
        raise ValueError(f"{where}: the count {z[row, unit]:g} of unit {names[unit]} in row {row + 1} {why}")
