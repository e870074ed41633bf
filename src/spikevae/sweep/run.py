"""Run a sweep into a run folder: train the stacks that are not done yet, evaluate, store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..config import FitConfig, SweepConfig
from ..data import PatchSet, load_config
from ..evaluate import Evaluation, evaluate
from ..models.files import save_model
from ..progress import Report, show_progress
from ..training import Stack, train
from ..training.stack import DIVERGED, MODEL_FIELDS, FitResult
from .grid import Cell, StackPlan, cells_of, plan_stacks
from .store import RunFolder, jsonable, read_json, write_json

N_EXAMPLES = 16


@dataclass(frozen=True)
class SweepResult:
    """What a call of :meth:`Sweep.run` did."""

    path: Path
    """The run folder."""
    n_cells: int
    """Cells of the sweep, all finished now."""
    n_trained: int
    """Cells trained by this call; 0 when everything was there already."""
    seconds: float


class Sweep:
    """A grid of fits on one data set.

    Parameters
    ----------
    config
        What to run; see :class:`spikevae.config.SweepConfig`.

    Examples
    --------
    >>> sweep = Sweep.from_grid({"beta": [0.5, 2.0], "n_latents": [8]}, data={"source": "synthetic", "n": 400})
    >>> len(sweep.cells)
    2
    """

    def __init__(self, config: SweepConfig):
        self.config = config
        self.cells: list[Cell] = cells_of(config)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file with [data], [fit] and [grid] tables (or several [[blocks]])."""
        return cls(SweepConfig.from_toml(path))

    @classmethod
    def preset(cls, name: str) -> Self:
        """An embedded sweep, `demo` or `paper`."""
        return cls(SweepConfig.preset(name))

    @classmethod
    def from_grid(
        cls,
        grid: Mapping[str, list[Any]],
        *,
        fit: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        name: str = "sweep",
    ) -> Self:
        """All combinations of the values in `grid`, on top of the values in `fit`."""
        values = {"name": name, "data": dict(data or {}), "fit": dict(fit or {}), "grid": dict(grid)}
        return cls(SweepConfig.from_mapping(values))

    def check(self, out: str | Path) -> None:
        """Raise ValueError, with the difference shown, where `out` holds another sweep; makes it if absent."""
        RunFolder(out).begin(self.config)

    def run(
        self,
        out: str | Path,
        *,
        device: str = "cpu",
        progress: bool | Report = False,
    ) -> SweepResult:
        """Train every cell that the folder does not hold yet.

        Parameters
        ----------
        out
            The run folder; made if absent, continued if it holds this very sweep.
        device
            Torch device of the stacks.
        progress
            True shows a bar on standard error; a function is called with (done, total, text).

        Raises
        ------
        ValueError
            Where the folder holds another sweep: the difference is shown, nothing is changed.
        spikevae.training.Interrupted
            On Ctrl-C; the same call continues.
        """
        began = time.monotonic()
        folder = RunFolder(out)
        folder.begin(self.config)
        todo = [cell for cell in self.cells if not folder.is_done(cell)]
        if todo:
            with show_progress(self.config.name, enabled=progress is True) as shown:
                self._train(folder, device, progress if callable(progress) else shown)
        folder.write_table()
        seconds = time.monotonic() - began
        folder.log("done", trained=len(todo), seconds=seconds)
        return SweepResult(folder.path, len(self.cells), len(todo), seconds)

    def _train(self, folder: RunFolder, device: str, report: Report) -> None:
        report(0, 1, "loading data")
        data = load_config(self.config.data)
        store_examples(folder, data)
        plans = plan_stacks(self.cells, len(data.train), data.shape)
        total = sum(plan.work for plan in plans)
        folder.log("start", cells=len(self.cells), stacks=len(plans), device=device, data=data.info)
        done = 0.0

        def advance(work: float, text: str) -> None:
            nonlocal done
            done += work
            report(min(done, total), total, text)

        pending = [plan for plan in plans if not all(folder.is_done(cell) for cell in plan.cells)]
        advance(total - sum(plan.work for plan in pending), "continuing")
        for plan in pending:
            train_stack(plan, data, folder, device, advance)


def store_examples(folder: RunFolder, data: PatchSet) -> None:
    """Keep a few test stimuli and the description of the data for the report."""
    count = min(N_EXAMPLES, len(data.test))
    chosen = np.linspace(0, len(data.test) - 1, count).round().astype(int)
    np.save(folder.path / "examples.npy", data.test[chosen].astype(np.float32))
    sizes = {"train": len(data.train), "test": len(data.test), "shape": list(data.shape), "name": data.name}
    write_json(folder.path / "data.json", {**sizes, "info": data.info, "description": data.describe()})


def train_stack(
    plan: StackPlan, data: PatchSet, folder: RunFolder, device: str, advance: Callable[[float, str], None]
) -> None:
    """Train one stack from its checkpoint if there is one, then store each of its cells."""
    began = time.monotonic()
    config = plan.cells[0].config
    stack = Stack([cell.config for cell in plan.cells], torch.from_numpy(data.train), data.shape, device=device)
    test = torch.from_numpy(data.test)
    text = f"{config.latent} K={config.n_latents}, {len(stack)} fits"
    advance(0.0, text)
    half_path, checkpoint = folder.half_path(plan.id), folder.checkpoint_path(plan.id)

    def at_half(stack: Stack) -> None:
        halves = [summary(evaluate_fit(stack.result(i), c, test)) for i, c in enumerate(stack.configs)]
        write_json(half_path, halves)

    train(
        stack,
        checkpoint_path=checkpoint,
        at_half=at_half,
        on_steps=lambda steps: advance(plan.work * steps / stack.n_steps, text),
    )
    halves = read_json(half_path) if half_path.exists() else [None] * len(stack)
    seconds = time.monotonic() - began
    for index, (cell, half) in enumerate(zip(plan.cells, halves, strict=True)):
        if folder.is_done(cell):
            continue
        result = stack.result(index)
        evaluation = evaluate_fit(result, cell.config, test)
        given = {name: getattr(cell.config, name) for name in MODEL_FIELDS}
        save_model(result.model, folder.model_path(cell.id), given, {"fit": cell.config.model_dump(mode="json")})
        folder.write_cell(cell, cell_result(stack, result, evaluation, half, seconds / len(stack)))
    for path in (checkpoint, half_path):
        path.unlink(missing_ok=True)
    folder.log("stack", id=plan.id, fits=len(stack), steps=stack.step_number, seconds=seconds, **stack_facts(config))


def stack_facts(config: FitConfig) -> dict[str, Any]:
    """What a line of the log says of a stack."""
    return {"latent": config.latent, "n_latents": config.n_latents, "batch_size": config.batch_size}


def evaluate_fit(result: FitResult, config: FitConfig, test: torch.Tensor) -> Evaluation:
    """Held-out numbers of one fit."""
    return evaluate(result.model, test, beta=config.beta, spike_price=config.spike_price, seed=config.seed)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as flat numbers."""
    return {**evaluation.metrics.to_dict(), "objective": evaluation.objective}


def cell_result(
    stack: Stack, result: FitResult, evaluation: Evaluation, half: dict[str, Any] | None, seconds: float
) -> dict[str, Any]:
    """The content of a cell file."""
    return jsonable(
        {
            "metrics": evaluation.metrics.to_dict(),
            "half": half,
            "objective": evaluation.objective,
            "objective_half": half["objective"] if half else None,
            "units": evaluation.units,
            "code_histogram": evaluation.code_histogram,
            "history": result.history,
            "diverged": result.status == DIVERGED,
            "steps_done": result.frozen_at if result.frozen_at is not None else stack.step_number,
            "seconds": seconds,
        }
    )
