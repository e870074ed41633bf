"""Numbers for figures: means over seeds, pairs of starts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .families import Family
from .reading import Cell, Run


@dataclass(frozen=True)
class Curve:
    """Metrics of one family and latent size against beta, means and ranges over seeds."""

    family: Family
    n_latents: int
    beta: np.ndarray
    cells: tuple[tuple[Cell, ...], ...]
    """The fits of each point, one per seed."""

    def mean(self, metric: str) -> np.ndarray:
        """(n_betas,) mean over seeds, NaN where undefined."""
        return np.array([_over([c[metric] for c in point], np.mean) for point in self.cells])

    def low(self, metric: str) -> np.ndarray:
        """Lowest seed."""
        return np.array([_over([c[metric] for c in point], np.min) for point in self.cells])

    def high(self, metric: str) -> np.ndarray:
        """Highest seed."""
        return np.array([_over([c[metric] for c in point], np.max) for point in self.cells])

    @property
    def flags(self) -> list[str]:
        """The convergence flags of all seeds, per point."""
        return [" / ".join(dict.fromkeys(c.check.flag for c in point)) for point in self.cells]

    @property
    def converged(self) -> np.ndarray:
        """Whether every seed of a point converged."""
        return np.array([all(c.check.flag == "converged" for c in point) for point in self.cells])


def _over(values: Sequence[float], summary: object) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(summary(finite)) if finite else math.nan  # type: ignore[operator]


def curves(cells: Iterable[Cell]) -> list[Curve]:
    """One curve for each family and latent size, beta increasing, without beta = 0 (the axis is logarithmic)."""
    groups: dict[tuple[int, int], dict[float, list[Cell]]] = {}
    for cell in cells:
        if cell.beta > 0:
            points = groups.setdefault((cell.family.index, cell.n_latents), {})
            points.setdefault(cell.beta, []).append(cell)
    return [
        Curve(
            family=next(iter(points.values()))[0].family,
            n_latents=size,
            beta=np.array(sorted(points)),
            cells=tuple(tuple(points[beta]) for beta in sorted(points)),
        )
        for (_, size), points in sorted(groups.items())
    ]


def start_pairs(run: Run) -> list[tuple[Cell, Cell]]:
    """The lowest and the highest start of each family, latent size, beta and seed that has two."""
    return [(low, high) for low, high in zip(run.low, run.high) if low.start != high.start]


def several_prices(run: Run) -> bool:
    """Whether the run has more than one spike price."""
    return len({cell.spike_price for cell in run.best}) > 1
