"""Systems of the study of consistent energies: densities known up to a constant, exact samples, bins, and states."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
FINE = 4
"""Cells per bin and dimension, by which densities are integrated."""
KT = 23.0
"""Of the Mueller-Brown potential, in its unit."""


@dataclass(frozen=True)
class System:
    """A density on a box, divided into bins."""

    name: str
    energy: Callable[[Points], Points]
    """From (n, D) points to energies over kT, up to a constant."""
    draw: Callable[[int, np.random.Generator], Points]
    """Exact samples."""
    box: tuple[tuple[float, float], ...]
    n_bins: int
    n_train: int
    standardise: bool
    first: Callable[[Points], NDArray[np.bool_]]
    """Whether points are in the mode whose weight is reported."""
    elsewhere: Callable[[Points], NDArray[np.bool_]] | None = None
    """Whether points are far from all modes."""

    def cells(self) -> Points:
        """(cells, D) centres of the fine cells, in the order of `binned`."""
        n = self.n_bins * FINE
        axes = [low + (high - low) * (np.arange(n) + 0.5) / n for low, high in self.box]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(self.box))

    def binned(self, mass: Points) -> Points:
        """Masses of the bins from those of the fine cells, (bins, ...)."""
        shape = [n for _ in self.box for n in (self.n_bins, FINE)]
        return mass.reshape(shape).sum(axis=tuple(range(1, 2 * len(self.box), 2)))

    def mass(self, log_density: Points) -> Points:
        """Masses of the fine cells from log densities at their centres, up to a constant."""
        weight = np.exp(log_density - log_density.max())
        return weight / weight.sum()

    def counted(self, points: Points) -> Points:
        """Shares of points in the bins; those outside the box count in the nearest bin."""
        low, high = np.array(self.box).T
        index = np.clip(((points - low) / (high - low) * self.n_bins).astype(int), 0, self.n_bins - 1)
        found = np.zeros((self.n_bins,) * len(self.box))
        np.add.at(found, tuple(index.T), 1 / len(points))
        return found


def wells(centres: list[list[float]], weights: list[float]) -> tuple[Callable[[Points], Points], Any]:
    """Energy and sampler of Gaussians of variance 1."""
    at, share = np.array(centres), np.array(weights)

    def energy(x: Points) -> Points:
        squares = ((x[:, None] - at) ** 2).sum(-1)
        return -np.logaddexp.reduce(np.log(share) - squares / 2, axis=1)

    def draw(n: int, rng: np.random.Generator) -> Points:
        return at[rng.choice(len(at), size=n, p=share)] + rng.normal(size=(n, at.shape[1]))

    return energy, draw


def mueller_brown(x: Points) -> Points:
    """Potential over kT."""
    a, b = x[:, 0], x[:, 1]
    return (
        -200 * np.exp(-((a - 1) ** 2) - 10 * b**2)
        - 100 * np.exp(-(a**2) - 10 * (b - 0.5) ** 2)
        - 170 * np.exp(-6.5 * (a + 0.5) ** 2 + 11 * (a + 0.5) * (b - 1.5) - 6.5 * (b - 1.5) ** 2)
        + 15 * np.exp(0.7 * (a + 1) ** 2 + 0.6 * (a + 1) * (b - 1) + 0.7 * (b - 1) ** 2)
    ) / KT


def by_inversion(
    energy: Callable[[Points], Points], box: tuple[tuple[float, float], ...], n_cells: int = 1000
) -> Callable[[int, np.random.Generator], Points]:
    """Sampler of a density by inversion on a grid, uniform within cells (of less than a fiftieth of a well's width)."""
    low, high = np.array(box).T
    width = (high - low) / n_cells
    axes = [start + step * (np.arange(n_cells) + 0.5) for start, step in zip(low, width)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(box))
    weight = np.exp(-energy(centres))
    cumulative = np.cumsum(weight / weight.sum())

    def draw(n: int, rng: np.random.Generator) -> Points:
        cell = np.minimum(np.searchsorted(cumulative, rng.random(n)), len(centres) - 1)
        return centres[cell] + width * (rng.random((n, len(box))) - 0.5)

    return draw


@functools.cache
def systems() -> dict[str, System]:
    """The three systems."""
    line, plane = [[-5.0], [5.0]], [[-5.0, -5.0], [5.0, 5.0]]
    box, wide = ((-1.8, 1.2), (-0.5, 2.1)), (-10.0, 10.0)
    found = (
        System(
            "double well",
            *wells(line, [0.5, 0.5]),
            box=(wide,),
            n_bins=80,
            n_train=10_000,
            standardise=False,
            first=lambda x: x[:, 0] < 0,
            elsewhere=lambda x: nearest(x, line) > 3,
        ),
        System(
            "double well, 2-D",
            *wells(plane, [0.2, 0.8]),
            box=(wide, wide),
            n_bins=40,
            n_train=10_000,
            standardise=False,
            first=lambda x: x.sum(1) < 0,
            elsewhere=lambda x: nearest(x, plane) > 4,
        ),
        System(
            "Mueller-Brown",
            mueller_brown,
            by_inversion(mueller_brown, box),
            box=box,
            n_bins=40,
            n_train=100_000,
            standardise=True,
            first=lambda x: x[:, 1] > x[:, 0] + 0.9,
        ),
    )
    return {system.name: system for system in found}


def nearest(x: Points, centres: list[list[float]]) -> Points:
    """Distances to the nearest centre."""
    return np.linalg.norm(x[:, None] - np.array(centres), axis=-1).min(1)
