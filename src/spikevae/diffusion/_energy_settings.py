"""Settings of a consistent energy, checked."""

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._settings import layer_widths, positive, whole_number
from .process import SMALLEST_TIME

FORMS = ("strong", "weak")
SINGLE = ((1.0, 0.0),)
MIXTURE = ((1.0, 0.6), (0.6, 0.1), (0.1, 0.0))
"""Ranges of time of the published mixture."""


class Plan(NamedTuple):
    """Settings of a training."""

    form: str
    strength: float
    midpoint: float
    learning_rate: float
    n_steps: int
    batch_size: int


def checked_plan(estimator: Any) -> tuple[Plan, list[tuple[float, float]]]:
    """The settings of an estimator and its ranges of time; `ValueError` for those that cannot be fitted."""
    form, strength, midpoint, hidden = estimator.form, estimator.strength, estimator.midpoint, estimator.hidden
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; give one of {', '.join(FORMS)}, or strength=0 for neither")
    if not _is_number(strength) or not 0 <= strength < math.inf:
        raise ValueError(f"strength is {strength!r}; give a number, 0 or more")
    if not _is_number(midpoint) or not 0 < midpoint < 1:
        raise ValueError(f"midpoint is {midpoint!r}; give a share of each range between 0 and 1")
    layer_widths("hidden", hidden, (92, 92, 92))
    whole_number("n_steps", estimator.n_steps, 1)
    whole_number("batch_size", estimator.batch_size, 1)
    positive("learning_rate", estimator.learning_rate)
    plan = Plan(
        form,
        float(strength),
        float(midpoint),
        estimator.learning_rate,
        estimator.n_steps,
        estimator.batch_size,
    )
    return plan, checked_ranges(estimator.ranges)


def checked_ranges(ranges: Any) -> list[tuple[float, float]]:
    """Ranges of time as pairs of numbers, each below the one before; `ValueError` where they do not cover 1 to 0."""
    try:
        found = [(float(high), float(low)) for high, low in ranges]
    except (TypeError, ValueError):
        found = []
    ends = [1.0, *(low for _, low in found)]
    joined = all(high == end for (high, _), end in zip(found, ends))
    if not found or not joined or ends[-1] != 0 or not all(high > low for high, low in found):
        raise ValueError(
            f"ranges are {ranges!r:.80}; give pairs that cover 1 to 0 without gaps, as ((1, 0.6), (0.6, 0.1), (0.1, 0))"
        )
    return found


def checked_times(t: Any, n: int) -> NDArray[np.float64]:
    """(n,) times from one or n of them; None: that of the smallest noise."""
    try:
        found = np.broadcast_to(np.asarray(SMALLEST_TIME if t is None else t, dtype=float), (n,))
    except (ValueError, TypeError):
        raise ValueError(f"t is {t!r:.80}; give a time from 0 to 1, or one for each of the {n} rows") from None
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"t is {t!r:.80}; give times from 0 (data) to 1 (noise)")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
