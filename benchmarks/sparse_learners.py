"""Two learners of the same sparse model: online dictionary learning and gradient steps in a stack.

Both minimise ``1/2 ||x - z Phi||^2 + sparsity weight x sum_k |z_k|`` over unit-norm dictionaries, at the same batch
size. After each number of steps, the dictionary is evaluated on photographs that no fit saw: every stimulus is coded
to a tolerance of 1e-3, and the mean objective (distortion + penalty, nats per stimulus) is reported beside the seconds
of training. Evaluation is not counted. The learning rate of the gradients decreases until the last step, so each
budget is a separate fit; online dictionary learning has no schedule and is evaluated along one fit.

    python benchmarks/sparse_learners.py

It took nine minutes on a busy machine; SPARSE_LEARNERS.md keeps the tables.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.models.sparse import SparseCoding
from spikevae.models.sparse.config import SparseCodingConfig
from spikevae.training import Stack
from spikevae.training.dictionary import DictionaryLearning

Point = tuple[int, float, float]
"""Steps, seconds of training, held-out objective."""


def options(settings: argparse.Namespace, k: int, algorithm: str) -> dict[str, object]:
    """Options of both learners, which also have the default tolerance (1e-3) and noise variance (1/2) in common."""
    return {"n_latents": k, "beta": settings.weight, "algorithm": algorithm, "batch_size": settings.batch}


@torch.no_grad()
def objective(model: SparseCoding, test: Tensor) -> float:
    """Mean distortion + penalty of held-out stimuli (n, D), nats per stimulus."""
    atoms, _ = model.unit_atoms()
    method = model.build_inference(atoms, model.sparsity_price)
    codes = method.solve(test, tolerance=1e-3, max_steps=1000).codes
    cost = 0.5 * (test - codes @ atoms).square().sum(-1) + method.threshold.cost(codes, model.sparsity_price).sum(-1)
    return float((cost * torch.exp(-model.log_noise_variance)).mean())


def online(settings: argparse.Namespace, k: int, algorithm: str, seed: int, train: Tensor, test: Tensor) -> list[Point]:
    """Online dictionary learning, evaluated along one fit."""
    began = time.perf_counter()
    config = SparseCodingConfig(**options(settings, k, algorithm))
    model = SparseCoding((train.shape[1],), config, torch.Generator().manual_seed(seed))
    learning = DictionaryLearning(model, train, batch_size=settings.batch, seed=seed)
    spent, points = time.perf_counter() - began, []
    for budget in settings.online_steps:
        began = time.perf_counter()
        learning.run(budget - learning.step_number)
        spent += time.perf_counter() - began
        points.append((budget, spent, objective(model, test)))
    return points


def gradients(
    settings: argparse.Namespace, k: int, algorithm: str, seed: int, train: Tensor, test: Tensor
) -> list[Point]:
    """Gradient steps of the default recipe, one fit per budget."""
    points = []
    for budget in settings.gradient_steps:
        config = FitConfig.from_recipe(
            "default", latent="sparse", steps=budget, seed=seed, **options(settings, k, algorithm)
        )
        began = time.perf_counter()
        stack = Stack([config], train, (train.shape[1],))
        while not stack.finished:
            stack.step()
        model = stack.result(0).model
        spent = time.perf_counter() - began
        assert isinstance(model, SparseCoding)
        points.append((budget, spent, objective(model, test)))
    return points


LEARNERS = {"online": online, "gradients": gradients}


def mean_range(values: list[float], digits: int) -> str:
    """Mean and range over seeds."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rows(settings: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    data = sv.data.load("bundled", patch=16, n=settings.stimuli, seed=0)
    train, test = torch.from_numpy(data.train), torch.from_numpy(data.test[: settings.held_out])
    for learner in LEARNERS.values():  # the first steps of a process take longer
        warm_up = argparse.Namespace(**vars(settings) | {"online_steps": [5], "gradient_steps": [20]})
        learner(warm_up, min(settings.latents), settings.algorithms[0], 0, train, test)
    for k in settings.latents:
        for algorithm in settings.algorithms:
            for name, learner in LEARNERS.items():
                fits = [learner(settings, k, algorithm, seed, train, test) for seed in range(settings.seeds)]
                for points in zip(*fits):
                    steps, seconds, objectives = zip(*points)
                    entries = (k, algorithm, name, steps[0], mean_range(seconds, 2), mean_range(objectives, 2))
                    yield "| " + " | ".join(map(str, entries)) + " |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--algorithms", nargs="+", default=["fista", "lca-soft"])
    parser.add_argument("--weight", type=float, default=0.5, help="sparsity weight")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stimuli", type=int, default=20_000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--online-steps", type=int, nargs="+", default=[10, 40, 100])
    parser.add_argument("--gradient-steps", type=int, nargs="+", default=[40, 100, 200])
    settings = parser.parse_args()
    print("# Two learners of a sparse model\n")
    print(f"    python benchmarks/sparse_learners.py {' '.join(sys.argv[1:])}".rstrip() + "\n")
    print(
        f"Bundled photographs, 16 x 16 pixels; sparsity weight {settings.weight:g}, batches of {settings.batch}, "
        f"{settings.seeds} seeds, {torch.get_num_threads()} CPU thread(s). Objective of {settings.held_out} held-out "
        "stimuli (distortion + penalty, nats per stimulus; lower is better). Mean and range over seeds.\n"
    )
    print("| K | algorithm | learner | steps | seconds | held-out objective |\n|--:|---|---|--:|--:|--:|")
    for row in rows(settings):
        print(row, flush=True)


if __name__ == "__main__":
    main()
