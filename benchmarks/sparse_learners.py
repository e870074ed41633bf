"""Learners of the same sparse model: online dictionary learning with two memories, and gradient steps.

All minimise ``1/2 ||x - z Phi||^2 + sparsity weight x sum_k |z_k|`` over unit-norm dictionaries, at the same batch
size. After each number of steps, the dictionary is evaluated on photographs that no fit saw: every stimulus is coded
to a tolerance of 1e-3, and the mean objective (distortion + penalty, nats per stimulus) is reported beside the seconds
of training. Evaluation is not counted. "online" is the learner of the package; "online, long memory" the same with the
exponent 4 of Mairal et al. (2010); "gradients" codes every batch with 50 steps of the same inference and takes a step
of Adam on the atoms, with a warm-up and a cosine to zero, so that each of its budgets is a separate fit.

    python benchmarks/sparse_learners.py

SPARSE_LEARNERS.md keeps the table.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import spikevae as sv
from spikevae.models.sparse import SparseCoding
from spikevae.models.sparse.config import SparseCodingConfig
from spikevae.models.sparse.inference import INFERENCES
from spikevae.training import DictionaryStack
from spikevae.training.dictionary import FORGETTING

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


def online(
    settings: argparse.Namespace,
    k: int,
    algorithm: str,
    seed: int,
    train: Tensor,
    test: Tensor,
    forgetting: float = FORGETTING,
) -> list[Point]:
    """Online dictionary learning, evaluated along one fit."""
    began = time.perf_counter()
    config = SparseCodingConfig(
        seed=seed, cycles=1, steps=max(settings.online_steps), **options(settings, k, algorithm)
    )
    stack = DictionaryStack([config], train, (train.shape[1],), forgetting=forgetting)
    spent, points = time.perf_counter() - began, []
    for budget in settings.online_steps:
        began = time.perf_counter()
        while stack.step_number < budget:
            stack.step()
        spent += time.perf_counter() - began
        points.append((budget, spent, objective(stack.result(0).model, test)))
    return points


def gradients(
    settings: argparse.Namespace, k: int, algorithm: str, seed: int, train: Tensor, test: Tensor
) -> list[Point]:
    """Gradient steps on the atoms for fixed codes, one fit per budget."""
    points = []
    for budget in settings.gradient_steps:
        began = time.perf_counter()
        noise = torch.Generator().manual_seed(seed)
        weight = torch.nn.functional.normalize(torch.randn(k, train.shape[1], generator=noise), dim=1).requires_grad_()
        optimizer = torch.optim.Adam([weight], lr=LEARNING_RATE, fused=True)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=max(1, budget // 50))
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget)
        schedule = torch.optim.lr_scheduler.ChainedScheduler([warmup, cosine])
        for _ in range(budget):
            x = train[torch.randint(len(train), (settings.batch,), generator=noise)]
            atoms = weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True)
            method = INFERENCES[algorithm].build(atoms.detach(), settings.weight)
            drive, state = method.drive(x), method.init_state(len(x))
            for _ in range(50):
                state = method.advance(state, drive)
            (0.5 * (x - state.code @ atoms).square().sum(-1).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        atoms = torch.nn.functional.normalize(weight.detach(), dim=1)
        spent = time.perf_counter() - began
        model = SparseCoding.around(atoms, None, (train.shape[1],), algorithm=algorithm, beta=settings.weight)
        points.append((budget, spent, objective(model, test)))
    return points


LEARNING_RATE = 0.02
LEARNERS = {"online": online, "online, long memory": partial(online, forgetting=4.0), "gradients": gradients}


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
    parser.add_argument("--algorithms", nargs="+", default=["fista"])
    parser.add_argument("--weight", type=float, default=0.5, help="sparsity weight")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stimuli", type=int, default=20_000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--online-steps", type=int, nargs="+", default=[40, 100, 400, 1000])
    parser.add_argument("--gradient-steps", type=int, nargs="+", default=[100, 400, 1000])
    settings = parser.parse_args()
    print("# Learners of a sparse model\n")
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
