"""Plan of a sweep: which cells train together as stacks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..config import Block, FitConfig, SweepConfig
from ..models.config import ModelConfig
from ..training.checks import stack_bytes
from ..training.fits import stack_key

MAX_FITS = 16  # a larger stack saves no time on a CPU: matrix products dominate, and caches overflow
MAX_STACK_BYTES = 2 << 30


@dataclass(frozen=True)
class Cell:
    """One fit of a sweep."""

    id: str
    block: str
    config: ModelConfig

    def to_dict(self) -> dict[str, Any]:
        """The cell as JSON values, for another process; :meth:`from_dict` reads it."""
        return {"id": self.id, "block": self.block, "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote."""
        return cls(given["id"], given["block"], FitConfig.model_validate(given["config"]))


@dataclass(frozen=True)
class StackPlan:
    """Cells that train as one stack."""

    id: str
    cells: tuple[Cell, ...]
    work: float
    """Estimated multiply-accumulates, for the order of training and for the time left."""
    prices: int = 0
    """Length of the paths along the spike price that start from the cells, which are finished; 0: train the cells."""
    fits: float = 0.0
    """Training time of all prices of a path together, in single fits."""

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values, for another process; :meth:`from_dict` reads it."""
        numbers = {"work": self.work, "prices": self.prices, "fits": self.fits}
        return {"id": self.id, **numbers, "cells": [cell.to_dict() for cell in self.cells]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote."""
        cells = tuple(Cell.from_dict(cell) for cell in given["cells"])
        return cls(given["id"], cells, given["work"], given["prices"], given["fits"])


def cells_of(sweep: SweepConfig) -> list[Cell]:
    """Every cell of a sweep, in the order of its file."""

    def cell(block: Block, config: ModelConfig) -> Cell:
        return Cell(config.cell_id(sweep.data), block.label, config)

    return [cell(block, config) for block, config in sweep.cells()]


def plan_stacks(cells: Sequence[Cell], n_train: int, shape: tuple[int, ...]) -> list[StackPlan]:
    """Group cells of equal shape, at most `MAX_FITS` and `MAX_STACK_BYTES` per stack.

    The plan depends on the whole grid alone, not on what is done already: a run that was killed and continued trains
    the same stacks and gives the same numbers.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(stack_key(cell.config), []).append(cell)
    plans = []
    for members in groups.values():
        fits = fits_per_stack(members[0].config, shape)
        members.sort(key=lambda cell: cell.config.seed)  # fits of one seed share their batches
        n_stacks = -(-len(members) // fits)
        size = -(-len(members) // n_stacks)
        for first in range(0, len(members), size):
            chosen = tuple(members[first : first + size])
            plans.append(StackPlan(f"{chosen[0].id}-{len(chosen)}", chosen, work_of(chosen, n_train, shape)))
    return plans


def fits_per_stack(config: ModelConfig, shape: tuple[int, ...]) -> int:
    """Largest number of such fits that train as one stack."""
    fits = MAX_FITS
    while fits > 1 and stack_bytes(config, shape, fits) > MAX_STACK_BYTES:
        fits //= 2
    return fits


OVERHEAD_MACS = 50_000_000
"""Time of a pass of a training step besides its matrix products, in multiply-accumulates, for any number of fits."""


def work_of(cells: Sequence[Cell], n_train: int, shape: tuple[int, ...]) -> float:
    """Estimated work to train cells of equal shape as one stack, in multiply-accumulates."""
    config = cells[0].config
    macs = 5 * min(config.batch_size, n_train) * math.prod(shape) * config.n_latents
    return float(config.n_steps(n_train) * config.passes * (OVERHEAD_MACS + len(cells) * macs))
