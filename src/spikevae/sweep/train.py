"""Train, evaluate and store one stack of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from .._json import read_json, write_json
from .._seeds import generator
from ..data import PatchSet
from ..evaluation.evaluate import Evaluation, evaluate
from ..models.config import ModelConfig
from ..models.files import save_model
from ..training import FitStack, budget_report, build_stack, train
from ..training.fits import DIVERGED, FitResult
from .plan import StackPlan
from .store import RunFolder

N_SEEN = 5000  # training stimuli by which convergence is judged


@dataclass(frozen=True)
class Stimuli:
    """The stimuli of a data set, in a form that processes share."""

    train: np.ndarray
    """(n, D) float32."""
    test: np.ndarray
    """(m, D) float32."""
    shape: tuple[int, ...]

    @classmethod
    def of(cls, data: PatchSet) -> Self:
        """From a loaded data set."""
        return cls(data.train, data.test, data.shape)

    def save(self, folder: Path) -> Path:
        """Write arrays that :meth:`load` maps into memory."""
        np.save(folder / "train.npy", self.train)
        np.save(folder / "test.npy", self.test)
        write_json(folder / "shape.json", self.shape)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what :meth:`save` wrote; copy-on-write, so that the pages stay shared."""
        arrays = [np.load(folder / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in ("train", "test")]
        return cls(arrays[0], arrays[1], tuple(read_json(folder / "shape.json")))


def train_stack(
    plan: StackPlan, data: Stimuli, folder: RunFolder, device: str, advance: Callable[[float, str], None]
) -> dict[str, Any]:
    """Train one stack from its checkpoint if there is one, then store each of its cells; return facts for the log."""
    began = time.monotonic()
    config = plan.cells[0].config
    stack = build_stack([cell.config for cell in plan.cells], torch.from_numpy(data.train), data.shape, device=device)
    test, seen = torch.from_numpy(data.test), evenly_spaced(data.train, N_SEEN)
    text = f"{config.latent} K={config.n_latents}, {len(stack)} fits"
    advance(0.0, text)
    half_path, checkpoint = folder.half_path(plan.id), folder.checkpoint_path(plan.id)

    def fit_objectives(stack: FitStack) -> list[float]:
        return [fit_objective(stack.result(i), c, seen) for i, c in enumerate(stack.configs)]

    train(
        stack,
        checkpoint_path=checkpoint,
        at_half=lambda stack: write_json(half_path, fit_objectives(stack)),
        on_steps=lambda steps: advance(plan.work * steps / stack.n_steps, text),
    )
    lost = "delete it: its cells then lack their objective at half the budget"
    halves = read_json(half_path, lost) if half_path.exists() else [None] * len(stack)
    seconds = time.monotonic() - began
    source = folder.sweep().data.model_dump(mode="json")
    for index, (cell, half, last) in enumerate(zip(plan.cells, halves, fit_objectives(stack), strict=True)):
        if folder.is_done(cell):
            continue
        result, config = stack.result(index), cell.config
        evaluation = evaluate(
            result.model, test, beta=config.beta, spike_price=result.model.price_of_spikes, seed=config.seed
        )
        budget = budget_report(result.model, seen, generator=generator(config.seed, "evaluation"))
        found = {"budget": budget.to_dict()} if budget else {}
        save_model(result.model, folder.model_path(cell.id), {"data": source, **found})
        content = cell_result(stack, result, evaluation) | found
        content |= {"fit_objective": last, "fit_objective_half": half, "seconds": seconds / len(stack)}
        folder.write_cell(cell, content)
    for path in (checkpoint, half_path):
        path.unlink(missing_ok=True)
    facts = {"latent": config.latent, "n_latents": config.n_latents, "steps": stack.step_number}
    return {**facts, "fits": len(stack), "seconds": seconds, "text": text}


def evenly_spaced(x: np.ndarray, count: int) -> torch.Tensor:
    """At most `count` rows, evenly spread over the array."""
    return torch.from_numpy(x[np.linspace(0, len(x) - 1, min(count, len(x))).round().astype(int)])


@torch.inference_mode()
def fit_objective(result: FitResult, config: ModelConfig, seen: torch.Tensor) -> float:
    """The objective that the fit minimises, on training stimuli and at temperature 0.

    Convergence is judged by it: the objective on held-out stimuli also changes when a fit only overfits.
    """
    price = config.spike_price  # zero with a budget: prices found at half the steps and at the end differ
    if result.model.has_posterior and config.has_exact_objective:
        noise = generator(config.seed, "evaluation")
        return float(result.model(seen, config.beta, price, exact=True, generator=noise).total)
    return evaluate(result.model, seen, beta=config.beta, spike_price=price, seed=config.seed).objective


def cell_result(stack: FitStack, result: FitResult, evaluation: Evaluation) -> dict[str, Any]:
    """Content of the file of a cell."""
    return {
        "metrics": evaluation.metrics.to_dict(),
        "objective": evaluation.objective,
        "units": evaluation.units,
        "code_histogram": evaluation.code_histogram,
        "history": result.history,
        "diverged": result.status == DIVERGED,
        "steps_done": result.frozen_at if result.frozen_at is not None else stack.step_number,
    }
