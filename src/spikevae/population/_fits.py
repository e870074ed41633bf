"""Fits from several starts: all are climbed roughly, the best is finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._bound import Counts, Matrix
from ._newton import Maximum, Objective, Vector, maximise

ROUGH = 0.05
"""Nats that the steps of a start may still promise when starts are compared."""
DISAGREE = 0.5
"""Difference of bounds in nats, between the best start and another, from which starts disagree."""
SMALLEST_COUNT = np.exp(-2.0)
"""What a count of zero is taken for in a logarithm."""

Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Climbed:
    """The best of several starts.

    Attributes
    ----------
    maximum
        Of the best start.
    bounds
        The bound that each start reached, nats.
    iterations
        Newton steps of all starts.
    ends
        Where each start ended, before the best was finished.
    """

    maximum: Maximum
    bounds: tuple[float, ...]
    iterations: int
    ends: tuple[Vector, ...] = ()

    @property
    def disagree(self) -> bool:
        """Whether a start ended more than `DISAGREE` below the best."""
        return max(self.bounds) - min(self.bounds) > DISAGREE

    def summary(self) -> dict[str, Any]:
        """What a fitted model says of its search; JSON-serialisable."""
        return {
            "bounds_of_starts": list(self.bounds),
            "starts_disagree": self.disagree,
            "n_iter": self.iterations,
            "gradient_norm": self.maximum.gradient_norm,
        }


def climb(
    objective: Objective,
    starts: Sequence[Vector],
    *,
    tolerance: float,
    max_iter: int,
    report: Report | None,
    correct: Callable[[Vector], Vector] | None = None,
) -> Climbed:
    """Maximise from all starts.

    Raises
    ------
    ValueError
        Where the bound is finite at none of them.
    """
    found: list[Maximum] = []
    for start in starts:
        try:
            rough = max(tolerance, ROUGH) if len(starts) > 1 else tolerance
            found.append(maximise(objective, start, tolerance=rough, max_iter=max_iter, report=report, correct=correct))
        except FloatingPointError:
            continue
    if not found:
        raise ValueError("the bound is not finite at any start: rates overflow. Check the scale of offsets and X")
    best = max(found, key=lambda one: one.value)
    iterations = sum(one.iterations for one in found)
    if len(starts) > 1:
        best = maximise(objective, best.x, tolerance=tolerance, max_iter=max_iter, report=report, correct=correct)
        iterations += best.iterations
    return Climbed(best, tuple(one.value for one in found), iterations, tuple(one.x for one in found))


def starting_points(counts: Counts, basis: np.ndarray, n_starts: int, rng: np.random.Generator) -> list[Matrix]:
    """Posterior means (n, p) to start from: logarithms of the counts, shrunk ones, then ones with noise.

    Entries that were not observed start from the mean of their unit.
    """
    n, p = counts.shape
    weights = np.ones((n, p)) if counts.weights is None else counts.weights
    exposure = (weights * np.exp(counts.offsets)).sum(0)
    level = np.log(np.maximum(counts.Y.sum(0), 0.1) / np.maximum(exposure, 1e-300))
    logs = np.log(np.maximum(counts.Y, SMALLEST_COUNT)) - counts.offsets
    logs = np.where(weights > 0, logs, (weights * logs).sum(0) / np.maximum(weights.sum(0), 1.0))
    shrunk = level + 0.5 * np.log((counts.Y + 1.0) / (np.exp(counts.offsets + level) + 1.0))
    shrunk = np.where(weights > 0, shrunk, level)
    starts = [logs, shrunk]
    while len(starts) < n_starts:
        starts.append(logs + 0.5 * rng.standard_normal((n, p)))
    return starts[:n_starts]
