"""`spikevae bench`: how fast this machine trains fits as a stack and one by one."""

import statistics
import time
from typing import Any

import torch

from ..config import FitConfig
from ..training import Stack
from ..training.recorded import CALLS_BEFORE_TRACE

BETAS = (0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
REPEATS, STEPS, PIXELS, STIMULI = 5, 20, 256, 4000
WIDTHS = (32, 128, 512)


def _seconds_per_fit_step(stacks: list[Stack]) -> float:
    for stack in stacks:
        for _ in range(CALLS_BEFORE_TRACE + 2):  # traced by then, like most steps of a fit
            stack.step()
        if stack.device.type == "cuda":
            torch.cuda.synchronize(stack.device)
    began = time.perf_counter()
    for stack in stacks:
        for _ in range(STEPS):
            stack.step()
        if stack.device.type == "cuda":
            torch.cuda.synchronize(stack.device)
    return (time.perf_counter() - began) / (STEPS * sum(len(stack) for stack in stacks))


def _seconds_of_products(n_fits: int, batch: int, n_latents: int, device: str, solved: bool) -> float:
    """Seconds per step of one fit for the matrix products of a linear step alone: two forward, three backward.

    Where the decoder is solved, products of codes with codes come on top: K^2 per stimulus.
    """
    x = torch.zeros(n_fits, batch, PIXELS, device=device)
    weight = torch.zeros(n_fits, PIXELS, n_latents, device=device)
    code = torch.zeros(n_fits, batch, n_latents, device=device)
    products = [
        lambda: x @ weight,
        lambda: code @ weight.mT,
        lambda: x.mT @ code,
        lambda: code.mT @ x,
        lambda: x @ weight,
    ]
    if solved:
        products.append(lambda: code.mT @ code)
    for product in products:
        product()
    began = time.perf_counter()
    for _ in range(STEPS):
        for product in products:
            product()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / (STEPS * n_fits)


def compare_stacks(device: str, seed: int) -> tuple[list[dict[str, Any]], str]:
    """Milliseconds per step of one fit: eight fits over beta, stacked and alone, and their matrix products.

    Medians of alternating repeats, linear Poisson models, 256 pixels, batch 250, exact objective.
    """
    train = torch.randn(STIMULI, PIXELS, generator=torch.Generator().manual_seed(seed))
    rows = []
    for n_latents in WIDTHS:
        configs = [FitConfig.from_recipe("default", n_latents=n_latents, beta=beta, seed=seed) for beta in BETAS]
        times: dict[str, list[float]] = {"stacked": [], "alone": [], "products": [], "all_products": []}
        for _ in range(REPEATS):
            times["stacked"].append(_seconds_per_fit_step([Stack(configs, train, (PIXELS,), device=device)]))
            alone = [Stack([config], train, (PIXELS,), device=device) for config in configs]
            times["alone"].append(_seconds_per_fit_step(alone))
            for name, solved in (("products", False), ("all_products", True)):
                sizes = len(configs), configs[0].batch_size, n_latents
                times[name].append(_seconds_of_products(*sizes, device, solved))
        medians = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()}
        rows.append(
            {
                "n_latents": n_latents,
                **medians,
                "alone_over_stacked": medians["alone_ms"] / medians["stacked_ms"],
            }
        )
    lines = [
        f"milliseconds per step of one fit on {device}, {torch.get_num_threads()} threads: {len(BETAS)} fits, "
        "batch 250, 256 pixels",
        f"{'K':>5} {'stacked':>9} {'alone':>9} {'ratio':>6} {'products only':>14} {'with codes x codes':>19} {'x':>5}",
    ]
    for row in rows:
        lines.append(
            f"{row['n_latents']:>5} {row['stacked_ms']:>9.3f} {row['alone_ms']:>9.3f} "
            f"{row['alone_over_stacked']:>6.2f} {row['products_ms']:>14.3f} {row['all_products_ms']:>19.3f} "
            f"{row['stacked_ms'] / row['all_products_ms']:>5.2f}"
        )
    return rows, "\n".join(lines)
