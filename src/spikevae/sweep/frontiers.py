"""Paths along the spike price that start from finished fits of a run."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._json import write_json
from ..config import FrontierConfig, SweepConfig
from ..frontier import Frontier
from ..models._model import Model
from ..training.fits import stack_key
from .integrity import sealed
from .plan import Cell, StackPlan, fits_per_stack, work_of
from .stimuli import Stimuli
from .store import RunFolder, RunFrontier
from .work import Failure

KEEPS = ("seed", "init", "init_scale", "start_spread", "recipe")
"""Options that fits of one path share, beside those of a stack: their paths differ in beta alone."""


@dataclass(frozen=True)
class Paths:
    """Paths of several betas that train as one stack."""

    id: str
    starts: tuple[tuple[Cell, ...], ...]
    """For each beta the fits that differ only in their start; the path begins at the best of them."""
    work: float
    """Estimated multiply-accumulates."""

    def plan(self, frontier: FrontierConfig, folder: RunFolder) -> StackPlan:
        """The plan to trace them, once all the fits are finished; betas whose fits all diverged are left out."""
        cells = (best_start(group, folder) for group in self.starts)
        kept = tuple(cell for cell in cells if cell is not None)
        return StackPlan(self.id, kept, self.work, frontier.prices, frontier.fits)


def plan_frontiers(sweep: SweepConfig, cells: Sequence[Cell], n_train: int, shape: tuple[int, ...]) -> list[Paths]:
    """The paths of a sweep, known before its fits are trained."""
    frontier = sweep.frontier
    if frontier is None:
        return []
    chosen = {config.cell_id(sweep.data) for block, config in sweep.cells() if frontier.chooses(block, config)}
    groups: dict[tuple[Any, ...], dict[float, list[Cell]]] = {}
    for cell in cells:
        if cell.id in chosen:
            key = cell.block, stack_key(cell.config), *(getattr(cell.config, name) for name in KEEPS)
            groups.setdefault(key, {}).setdefault(cell.config.beta, []).append(cell)
    plans = []
    for betas in groups.values():
        starts = [tuple(group) for group in betas.values()]
        size = fits_per_stack(starts[0][0].config, shape)
        for at in range(0, len(starts), size):
            part = tuple(starts[at : at + size])
            work = frontier.fits * work_of([group[0] for group in part], n_train, shape)
            plans.append(Paths(f"frontier-{part[0][0].id}", part, work))
    return plans


def best_start(group: Sequence[Cell], folder: RunFolder) -> Cell | None:
    """The finished fit with the lowest objective on training stimuli; None where all diverged."""
    found: dict[str, float] = {}
    for cell in group:
        result = folder.read_cell(cell.id)
        value = result.get("fit_objective")
        if not result.get("diverged") and isinstance(value, int | float) and math.isfinite(value):
            found[cell.id] = float(value)
    return min((cell for cell in group if cell.id in found), key=lambda cell: found[cell.id], default=None)


def _model(cell: Cell, folder: RunFolder) -> Model:
    model = folder.read_model(cell.id)
    if model is None:
        raise ValueError(
            f"the path of cell {cell.id} needs {folder.model_path(cell.id)}, which is missing: delete "
            f"{folder.cell_path(cell.id)} and give the sweep's command again: the cell is trained again"
        )
    return model


def trace_frontier(
    plan: StackPlan, data: Stimuli, folder: RunFolder, device: str, advance: Callable[[float, str], None]
) -> tuple[dict[str, Any], list[Failure]]:
    """Trace the paths of a plan, from where an interrupted call left them, and store them.

    Returns facts for the log, and no failures, as :func:`spikevae.sweep.train.train_stack`.
    """
    began, done = time.monotonic(), 0.0
    config = plan.cells[0].config
    text = f"{config.latent} K={config.n_latents}, spike prices"
    models = [_model(cell, folder) for cell in plan.cells]

    def progress(step: float, total: float, _: str) -> None:
        nonlocal done
        share = step / total
        advance(plan.work * max(0.0, share - done), text)
        done = max(done, share)

    advance(0.0, text)
    scratch = folder.path / "checkpoints" / plan.id
    path = Frontier.trace(
        [cell.config for cell in plan.cells],
        torch.from_numpy(data.train),
        torch.from_numpy(data.test),
        data.shape,
        n_prices=plan.prices,
        fits=plan.fits,
        models=models,
        device=device,
        folder=scratch,
        progress=progress,
    )
    found = RunFrontier(tuple(cell.id for cell in plan.cells), path)
    write_json(folder.frontier_path(plan.id), sealed(found.to_dict()))
    scratch.rmdir()
    progress(1.0, 1.0, "")
    facts = {"latent": config.latent, "n_latents": config.n_latents, "prices": plan.prices, "fits": len(plan.cells)}
    return {**facts, "seconds": time.monotonic() - began, "text": text}, []
