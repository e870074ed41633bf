"""One model from the command line: train and save it, evaluate a saved one."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._device import resolve_device
from .._seeds import generator
from ..config import FitConfig
from ..data import PatchSet, load
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.readout import Readout, readout
from ..frontier import why_not
from ..models.config import ModelConfig
from ..models.files import load_model as read_model
from ..models.files import save_model
from ..progress import show_progress
from ..sweep.convergence import OBJECTIVE_TOLERANCE, relative_change
from ..training import BudgetReport, budget_report, build_stack, train, warn_of_scale
from ..training.checks import check_memory
from ..training.fits import DIVERGED
from ..training.scale import root_mean_square, warn_of_other_scale
from ..training.watching import progress_text


@dataclass(frozen=True)
class Job:
    """A checked fit that is ready to run."""

    config: ModelConfig
    data: PatchSet
    source: dict[str, Any]
    """Arguments of `data.load`, kept in the model file so that it can be evaluated on the same split."""
    device: str


def prepare(stimuli: dict[str, Any], settings: dict[str, Any], *, recipe: str, device: str) -> Job:
    """Check the settings of the fit and load the data: `load(**stimuli)`, without arguments that are None.

    Raises
    ------
    ValueError, FileNotFoundError
        With what to correct.
    """
    config = FitConfig.from_recipe(recipe, **settings)
    FitConfig.warn_unused([config], settings)
    arguments = {key: value for key, value in stimuli.items() if value is not None}
    data = load(**arguments)
    where = resolve_device(device)
    if where.startswith("cpu"):
        check_memory(config, data.shape, 1, n_train=len(data.train))
    warn_of_scale(config, torch.from_numpy(data.train))
    return Job(config, data, arguments, where)


@dataclass(frozen=True)
class Trained:
    """What is said of a fit beside its metrics."""

    budget: BudgetReport | None
    """How it stands to its budget, if it has one."""
    change: float | None
    """|objective at half the steps - at the end| / |at the end|, on training batches, or the lowest on held-out
    stimuli; None where half the steps are no complete schedule."""

    @property
    def convergence(self) -> dict[str, Any]:
        """The flag, and the change that it stands for."""
        if self.change is None:
            return {"flag": "not checked", "budget_change": None}
        flag = "converged" if self.change <= OBJECTIVE_TOLERANCE else "not converged"
        return {"flag": flag, "budget_change": self.change}

    def describe(self) -> str:
        """The flag in a sentence."""
        if self.change is None:
            return "Not checked for convergence: the learning rate has one cycle, so that half the steps are no fit."
        text = f"the second half of the steps changed the objective by {100 * self.change:.2g} %"
        if self.convergence["flag"] == "converged":
            return f"Converged: {text}. Other starts were not tried (a sweep does)."
        return f"Not converged: {text}; give it more --steps."


def advice_on_spikes(config: ModelConfig) -> str:
    """What to do where nothing in the objective decides on the number of spikes; empty where something does."""
    if why_not(config) is not None:
        return ""
    return (
        "A spike has no price here: codes with far fewer spikes may have nearly this free energy. Set --spike-budget "
        "or --spike-price; `spikevae frontier` shows what they cost."
    )


def _change_over_second_half(history: dict[str, list[float]], config: ModelConfig) -> float | None:
    """Relative change of the objective from the end of the first cycle to the end, means over a few windows each.

    Where stimuli are held out, of the lowest objective on them up to then, since its parameters are kept.
    """
    values = history.get("held_out", history.get("objective", []))
    half, few = len(values) // 2, max(1, len(values) // 20)
    if config.cycles != 2 or half < few:
        return None
    if "held_out" in history:
        middle, end = min(values[:half]), min(values)
    else:
        middle, end = (sum(part) / few for part in (values[half - few : half], values[-few:]))
    change = relative_change(middle, end)
    return change if math.isfinite(change) else None


def train_to_file(job: Job, out: Path) -> Trained:
    """Train and save; after an interrupt, the same call continues from a checkpoint beside `out`.

    Raises
    ------
    RuntimeError
        Where training diverged.
    """
    checkpoint = out.with_name(out.name + ".checkpoint")
    with show_progress(f"{job.config.latent} K={job.config.n_latents} beta={job.config.beta:g}") as report:
        stack = build_stack(
            [job.config],
            torch.from_numpy(job.data.train),
            job.data.shape,
            device=job.device,
            on_phase=lambda text: report(0, 1, text),
        )
        train(
            stack,
            checkpoint_path=checkpoint,
            on_steps=lambda _: report(stack.step_number, stack.n_steps, progress_text(stack)),
        )
    result = stack.result(0)
    if result.status == DIVERGED:
        checkpoint.unlink(missing_ok=True)
        raise RuntimeError(
            f"training diverged at step {result.frozen_at} of {stack.n_steps}: a loss or gradient was not finite; "
            "nothing was saved. Scale the stimuli to unit variance, lower the learning rate "
            "(--set learning_rate=0.001) or the clamp (--set clamp=4)"
        )
    noise = generator(job.config.seed, "evaluation", device=stack.device)
    budget = budget_report(result.model.to(stack.device), torch.from_numpy(job.data.train), generator=noise)
    result.model.cpu()
    facts = {"budget": budget.to_dict()} if budget else {}
    save_model(
        result.model,
        out,
        {"data": job.source, "history": result.history, "scale": root_mean_square(job.data.train), **facts},
    )
    checkpoint.unlink(missing_ok=True)
    return Trained(budget, _change_over_second_half(result.history, job.config))


def load_for(path: Path, source: str | None, *, patch: int | None, n: int | None, seed: int | None) -> PatchSet:
    """The data set to evaluate a saved model on: the one named, or the one it was trained on.

    Raises
    ------
    ValueError, FileNotFoundError
        Where the model or the data cannot be read, or the stimuli have another size than the model's.
    """
    model, extra = read_model(path)
    arguments = dict(_table(path, extra, "data"))
    trained_on = arguments.get("source")
    if source not in (None, trained_on):  # prepared as in training, but of its own size
        arguments = {key: value for key, value in arguments.items() if key not in SIZE_OPTIONS} | {"source": source}
    arguments |= {key: value for key, value in {"patch": patch, "n": n, "seed": seed}.items() if value is not None}
    if "source" not in arguments:
        raise ValueError(f"{path} has no record of its training data; name the data with --data")
    try:
        data = load(**arguments)
    except (ValueError, FileNotFoundError) as error:
        if source is None and (patch, n, seed) == (None, None, None):
            raise ValueError(f"{path} was trained on {trained_on!r}: {error}; name the data with --data") from None
        raise
    if data.test.shape[1] != model.n_features:
        square = len(model.shape) == len(data.shape) == 3 and model.shape[1] == model.shape[2]
        hint = f"; try --patch {model.shape[1]}" if square else ""
        raise ValueError(
            f"{path} takes stimuli of {model.n_features} pixels, shape {model.shape}, but {data.name} has "
            f"{data.test.shape[1]}, shape {data.shape}{hint}"
        )
    warn_of_other_scale(data.test, extra.get("scale"))
    return data


SIZE_OPTIONS = ("n", "n_test", "test_fraction", "synthetic")
"""Options of the size of one data source, which do not apply to another."""


def evaluate_file(
    path: Path, data: PatchSet, *, seed: int = 0, device: str = "cpu", evidence: int = 0, annealing_steps: int = 0
) -> Evaluation:
    """Evaluate a saved model on the test set."""
    model, _ = read_model(path)
    where, config = resolve_device(device), model.config
    stimuli = torch.from_numpy(data.test).to(where)
    return evaluate(
        model.to(where),
        stimuli,
        beta=config.beta,
        spike_price=model.price_of_spikes,
        seed=seed,
        evidence=evidence,
        annealing_steps=annealing_steps,
        verbose=True,
    )


def check_readout(data: PatchSet, target: str | None) -> None:
    """Refuse to read out labels that the data do not have."""
    if target == "labels" and data.test_labels is None:
        raise ValueError(
            f"--readout labels: {data.name} has no labels; use stimuli of known classes, such as mnist:FOLDER, or "
            "--readout stimuli"
        )


def read_out_file(path: Path, data: PatchSet, target: str, *, seed: int = 0, device: str = "cpu") -> Readout:
    """What a linear read-out of the codes of a saved model learns about the test stimuli or their labels."""
    model, _ = read_model(path)
    labels = data.test_labels if target == "labels" else None
    return readout(model.to(resolve_device(device)), data.test, labels, seed=seed)


def _table(path: Path, extra: dict[str, Any], name: str) -> dict[str, Any]:
    found = extra.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{path}: its {name} is {found!r:.80}; it should be a table")
    return found
