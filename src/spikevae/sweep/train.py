"""Train, evaluate and store one stack of a run."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._json import read_json, write_json
from .._seeds import generator
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.readout import readout
from ..models._model import Model
from ..models.config import ModelConfig
from ..training import FitStack, budget_report, build_stack, train
from ..training.checkpoint import load as load_checkpoint
from ..training.fits import DIVERGED, FitResult
from .integrity import check_seal, sealed
from .plan import StackPlan
from .stimuli import Stimuli
from .work import Failure, StackStore, is_memory_error

N_SEEN = 5000  # training stimuli by which convergence is judged


def train_stack(
    plan: StackPlan, data: Stimuli, store: StackStore, device: str, advance: Callable[[float, str], None]
) -> tuple[dict[str, Any], list[Failure]]:
    """Train one stack from its checkpoint if there is one, then store each of its cells.

    Returns facts for the log, and the cells that could not be evaluated: they take no other cell with them.

    Parameters
    ----------
    plan, data
        What to train.
    store
        Where the checkpoint is and where the cells go. Cells that it has already are left as they are.
    device
        Torch device.
    advance
        Called with the work done since the last call, in the unit of `plan.work`, and a text for progress bars.
    """
    began = time.monotonic()
    config = plan.cells[0].config
    seen = evenly_spaced(data.train, N_SEEN)
    text = f"{config.latent} K={config.n_latents}, {len(plan.cells)} fits"
    advance(0.0, text)
    half_path, checkpoint = store.half_path(plan.id), store.checkpoint_path(plan.id)
    stack = _continued(plan, data, store, device)
    halves: list[float | None] = [None] * len(stack)
    if half_path.exists():
        halves = _read_halves(half_path, len(stack))

    def keep_halves(stack: FitStack) -> None:
        halves[:] = [_half_objective(stack, i, seen) for i in range(len(stack))]
        write_json(half_path, sealed({"objectives": halves}))  # for a run that continues this one

    train(
        stack,
        checkpoint_path=checkpoint,
        at_half=keep_halves,
        on_steps=lambda steps: advance(plan.work * steps / stack.n_steps, text),
    )
    seconds = (time.monotonic() - began) / len(stack)
    failures = []
    for index, (cell, half) in enumerate(zip(plan.cells, halves, strict=True)):
        if store.is_done(cell):
            continue
        try:
            content, model, extra = _evaluated(stack, index, data, seen)
        except Exception as error:
            if is_memory_error(error):
                raise
            failures.append(Failure.of([cell], error))
        else:
            store.keep_cell(cell, content | {"fit_objective_half": half, "seconds": seconds}, model, extra)
    if not failures:
        for path in (checkpoint, half_path):
            path.unlink(missing_ok=True)
    facts = {"latent": config.latent, "n_latents": config.n_latents, "steps": stack.step_number}
    return {**facts, "fits": len(stack), "seconds": time.monotonic() - began, "text": text}, failures


def _continued(plan: StackPlan, data: Stimuli, store: StackStore, device: str) -> FitStack:
    """The stack of a plan, with its checkpoint checked: one that is damaged, or of other stimuli, is set aside.

    Without the objectives at half the budget, a checkpoint of the second half is of no use.
    """

    def new() -> FitStack:
        configs = [cell.config for cell in plan.cells]
        return build_stack(configs, torch.from_numpy(data.train), data.shape, device=device)

    stack, half_path, path = new(), store.half_path(plan.id), store.checkpoint_path(plan.id)
    half = stack.n_steps // 2 if stack.config.cycles == 2 else None
    try:
        if half_path.exists():
            _read_halves(half_path, len(stack))
    except ValueError as error:
        store.set_aside(half_path, str(error))
    if path.exists():
        try:
            load_checkpoint(stack, path)
            if half is not None and stack.step_number > half and not half_path.exists():
                raise ValueError(f"the objectives at half the budget, {half_path.name}, are missing")
        except (ValueError, FileNotFoundError) as error:
            store.set_aside(path, str(error))
        return new()  # the training loop reads the checkpoint
    return stack


def _read_halves(path: Path, n_fits: int) -> list[float | None]:
    """Objectives at half the budget; `ValueError` where the file is damaged or of another stack."""
    content = read_json(path)
    check_seal(content)
    found = content.get("objectives") if isinstance(content, dict) else None
    if not isinstance(found, list) or len(found) != n_fits:
        raise ValueError(f"{path} has no list of {n_fits} objectives")
    if not all(value is None or isinstance(value, int | float) for value in found):
        raise ValueError(f"{path} holds something else than numbers")
    return found


def _evaluated(
    stack: FitStack, index: int, data: Stimuli, seen: torch.Tensor
) -> tuple[dict[str, Any], Model, dict[str, Any]]:
    """Content of the file of a cell, its model, and what the file of the model says beside it.

    Computed on the device that trained.
    """
    result, config = stack.result(index), stack.configs[index]
    result.model.to(stack.device)
    price = result.model.price_of_spikes
    test = torch.from_numpy(data.test)
    evaluation = evaluate(result.model, test, beta=config.beta, spike_price=price, seed=config.seed)
    noise = generator(config.seed, "evaluation", device=stack.device)
    budget = budget_report(result.model, seen, generator=noise)
    found = {"budget": budget.to_dict()} if budget else {}
    objective = {"fit_objective": fit_objective(result, config, seen)}
    learned = None if result.status == DIVERGED else read_out(result.model, test, config.seed)
    content = cell_result(stack, result, evaluation) | found | objective | {"readout": learned}
    return content, result.model.cpu(), {"data": data.source, **found}


def read_out(model: Model, test: torch.Tensor, seed: int) -> dict[str, Any] | None:
    """What a linear read-out of the stimuli learns from the codes: `r2_limit`, `stimuli` and `joules` of `Readout`.

    None where that cannot be said: fewer stimuli than units, or codes that are the same for all stimuli.
    """
    try:
        found = readout(model, test, seed=seed)
    except ValueError:
        return None
    return {"r2_limit": found.r2_limit, "stimuli": found.stimuli, "joules": found.joules}


def _half_objective(stack: FitStack, index: int, seen: torch.Tensor) -> float | None:
    """Objective of a fit that has half the budget; None with a warning where it cannot be computed."""
    try:
        result = stack.result(index, kept=True)
        result.model.to(stack.device)
        return fit_objective(result, stack.configs[index], seen)
    except Exception as error:
        if is_memory_error(error):
            raise
        warnings.warn(f"a fit has no objective at half its budget: {type(error).__name__}: {error}", stacklevel=2)
        return None


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
        weight = next(result.model.parameters())
        noise = generator(config.seed, "evaluation", device=weight.device)
        return float(result.model(seen.to(weight), config.beta, price, exact=True, generator=noise).total)
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
