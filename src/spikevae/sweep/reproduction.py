"""Train a cell of a run again from its record, and compare."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._device import resolve_device
from ..progress import Report
from .executors.inline import InlineExecutor
from .executors.local import LocalExecutor
from .plan import StackPlan
from .provenance import machine, versions
from .run import Sweep
from .stimuli import Stimuli
from .store import RunFolder
from .work import Work


@dataclass(frozen=True)
class Reproduced:
    """A cell and its repetition."""

    cell: str
    differences: dict[str, tuple[float | None, float | None]]
    """Numbers that differ, by name: as recorded, and now."""
    largest: float
    """Largest relative difference; 0 where every number is the same to the bit."""
    surroundings: dict[str, tuple[Any, Any]]
    """Versions and facts of the machine that differ, by name: as recorded, and now."""


def reproduce(run: str | Path, cell_id: str, *, device: str = "cpu", progress: Report | None = None) -> Reproduced:
    """Train a finished cell again, in the stack and with the seeds of its sweep, in a temporary folder.

    The run folder does not change.

    Raises
    ------
    FileNotFoundError, ValueError
        Where the folder is no run, has no such cell, or its stimuli are others now.
    RuntimeError
        Where the cell cannot be trained.
    """
    folder = RunFolder(run)
    sweep = Sweep(folder.sweep())
    if cell_id not in {cell.id for cell in sweep.cells} or not folder.cell_path(cell_id).is_file():
        raise ValueError(f"{folder.path} has no finished cell {cell_id!r}; its folder `cells` holds a file of each")
    recorded = folder.read_cell(cell_id)
    made = recorded.get("made_with") or {}
    if made.get("data", sweep.data.digest) != sweep.data.digest:
        raise ValueError(f"the stimuli of {sweep.config.data.source!r} are others now than when {cell_id} was trained")
    plan = next(plan for plan in sweep.plans() if any(cell.id == cell_id for cell in plan.cells))
    again = _trained(sweep, plan, cell_id, resolve_device(device), progress)
    before, now = recorded["metrics"], again["metrics"]
    pairs = {name: (before.get(name), now.get(name)) for name in (*now, *(before.keys() - now.keys()))}
    pairs |= {name: (recorded[name], again[name]) for name in ("objective", "fit_objective", "fit_objective_half")}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    here = {**versions(), **machine()}
    there = {**made.get("versions", {}), **made.get("machine", {})}
    changed = {name: (value, here.get(name)) for name, value in there.items() if here.get(name) != value}
    return Reproduced(cell_id, differing, max(map(_relative, differing.values()), default=0.0), changed)


def _trained(sweep: Sweep, plan: StackPlan, cell_id: str, device: str, progress: Report | None) -> dict[str, Any]:
    """The content of the file of the cell, trained now as its sweep trains it."""
    with tempfile.TemporaryDirectory(prefix="spikevae-") as scratch:
        store = RunFolder(scratch)
        work = Work([plan], Stimuli.of(sweep.data, sweep.config.data), store, store.path, device, total=plan.work)
        if progress is not None:
            work.report = progress
        (LocalExecutor(1) if device == "cpu" else InlineExecutor()).run(work)
        own = [failure for failure in work.failures if any(cell.id == cell_id for cell in failure.cells)]
        if own:
            raise RuntimeError(f"cell {cell_id} cannot be trained again: {own[0].error}")
        return store.read_cell(cell_id)


def _relative(pair: tuple[float | None, float | None]) -> float:
    """Relative difference of two numbers; infinite where one of them is undefined."""
    a, b = pair
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))
