"""A training step of iterative inference against its matrix products alone.

The products of a step, K units, D pixels, T steps, K <= 2 D: the feed-forward drive and the lateral weights, T lateral
products forward, 2 T backward (gradients of code and of weights), and the gradients of drive and lateral weights with
respect to the dictionary. Median times of alternating repeats, one fit.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import step_of_a_long_fit

from spikevae.config import FitConfig
from spikevae.training import Stack

PIXELS, N_LATENTS, BATCH, STEPS, REPEATS = 256, 512, 1000, 16, 5
VARIANTS: dict[str, dict[str, Any]] = {
    "expected, line search": {},
    "expected, no line search": {"guard": False},
    "expected, line search, last step only": {"loss_steps": "last"},
    "expected, Bernoulli": {"latent": "bernoulli"},
    "expected, Gaussian": {"latent": "gaussian", "prior": "fixed"},
    "sampled, 1.6 spikes per unit": {"dynamics": "sampled"},
    "sampled, 0.05 spikes per unit": {"dynamics": "sampled", "start": -3.0},
    "natural gradient": {"learning": "natural_gradient", "optimizer": "sgd"},
}


def products(n_latents: int, batch: int, steps: int) -> Callable[[], None]:
    """All matrix products of a training step and nothing else."""
    x, code = torch.randn(batch, PIXELS), torch.randn(batch, n_latents)
    dictionary, lateral = torch.randn(n_latents, PIXELS), torch.randn(n_latents, n_latents)

    def run() -> None:
        for _ in range(2):  # drive and lateral weights, forward and backward
            _ = code.mT @ x
            _ = lateral @ dictionary
        for _ in range(steps):
            _ = code @ lateral
        for _ in range(steps):
            _ = code @ lateral
            _ = code.mT @ code

    return run


def compare(
    n_latents: int = N_LATENTS, batch: int = BATCH, steps: int = STEPS, repeats: int = REPEATS
) -> tuple[list[dict[str, Any]], str]:
    """Rows and a table."""
    train = torch.randn(2 * batch, PIXELS, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[], None]] = {"products": products(n_latents, batch, steps)}
    for name, options in VARIANTS.items():
        given = {"inference": "iterative", "n_latents": n_latents, "batch_size": batch, "inference_steps": steps}
        stack = Stack([FitConfig.from_recipe("default", **{**given, **options})], train, (PIXELS,))
        runs[name] = step_of_a_long_fit(stack)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}  # the first round is not counted
    rows = [
        {"variant": name, "step_ms": medians[name], "products_ms": medians["products"]}
        | {"ratio": medians[name] / medians["products"]}
        for name in VARIANTS
    ]
    lines = [
        f"milliseconds per training step, {torch.get_num_threads()} threads: K = {n_latents}, batch {batch}, "
        f"{steps} steps of inference, {PIXELS} pixels; its products alone: {medians['products']:.0f}",
        f"{'variant':<36} {'step':>7} {'ratio':>6}",
    ]
    lines += [f"{row['variant']:<36} {row['step_ms']:>7.0f} {row['ratio']:>6.2f}" for row in rows]
    return rows, "\n".join(lines)
