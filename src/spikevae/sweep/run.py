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
from .store import RunFolder, read_json, write_json

N_EXAMPLES = 16
N_SEEN = 5000  # training stimuli by which convergence is judged


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
    np.save(folder.path / "examples.npy", evenly_spaced(data.test, N_EXAMPLES).numpy())
    sizes = {"train": len(data.train), "test": len(data.test), "shape": list(data.shape), "name": data.name}
    write_json(folder.path / "data.json", {**sizes, "info": data.info, "description": data.describe()})


def train_stack(
    plan: StackPlan, data: PatchSet, folder: RunFolder, device: str, advance: Callable[[float, str], None]
) -> None:
    """Train one stack from its checkpoint if there is one, then store each of its cells."""
    began = time.monotonic()
    config = plan.cells[0].config
    stack = Stack(
        [cell.config for cell in plan.cells], torch.from_numpy(data.train), data.shape, device=device
    )
    test, seen = torch.from_numpy(data.test), evenly_spaced(data.train, N_SEEN)
    text = f"{config.latent} K={config.n_latents}, {len(stack)} fits"
    advance(0.0, text)
    half_path, checkpoint = folder.half_path(plan.id), folder.checkpoint_path(plan.id)

    def fit_objectives(stack: Stack) -> list[float]:
        return [fit_objective(stack.result(i), c, seen) for i, c in enumerate(stack.configs)]

    train(
        stack,
        checkpoint_path=checkpoint,
        at_half=lambda stack: write_json(half_path, fit_objectives(stack)),
        on_steps=lambda steps: advance(plan.work * steps / stack.n_steps, text),
    )
    halves = read_json(half_path) if half_path.exists() else [None] * len(stack)
    seconds = time.monotonic() - began
    for index, (cell, half, last) in enumerate(zip(plan.cells, halves, fit_objectives(stack), strict=True)):
        if folder.is_done(cell):
            continue
        result, config = stack.result(index), cell.config
        evaluation = evaluate(
            result.model, test, beta=config.beta, spike_price=config.spike_price, seed=config.seed
        )
        given = {name: getattr(config, name) for name in MODEL_FIELDS}
        save_model(result.model, folder.model_path(cell.id), given, {"fit": config.model_dump(mode="json")})
        content = cell_result(stack, result, evaluation)
        content |= {"fit_objective": last, "fit_objective_half": half, "seconds": seconds / len(stack)}
        folder.write_cell(cell, content)
    for path in (checkpoint, half_path):
        path.unlink(missing_ok=True)
    folder.log(
        "stack",
        id=plan.id,
        fits=len(stack),
        steps=stack.step_number,
        seconds=seconds,
        latent=config.latent,
        n_latents=config.n_latents,
    )


def evenly_spaced(x: np.ndarray, count: int) -> torch.Tensor:
    """At most `count` rows, evenly spread over the array."""
    return torch.from_numpy(x[np.linspace(0, len(x) - 1, min(count, len(x))).round().astype(int)])


@torch.inference_mode()
def fit_objective(result: FitResult, config: FitConfig, seen: torch.Tensor) -> float:
    """The objective that the fit minimises, on training stimuli and at temperature 0.

    Convergence is judged by it: the objective on held-out stimuli also moves when a fit merely overfits.
    """
    if config.has_exact_objective:
        return float(result.model(seen, config.beta, config.spike_price, exact=True).total)
    return evaluate(
        result.model, seen, beta=config.beta, spike_price=config.spike_price, seed=config.seed
    ).objective


def cell_result(stack: Stack, result: FitResult, evaluation: Evaluation) -> dict[str, Any]:
    """What a cell file says of the fit."""
    return {
        "metrics": evaluation.metrics.to_dict(),
        "objective": evaluation.objective,
        "units": evaluation.units,
        "code_histogram": evaluation.code_histogram,
        "history": result.history,
        "diverged": result.status == DIVERGED,
        "steps_done": result.frozen_at if result.frozen_at is not None else stack.step_number,
    }
