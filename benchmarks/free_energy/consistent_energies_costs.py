"""Time of a training step by form of the residual and dimension."""

import time
from typing import Any

import numpy as np
import torch

from spikevae.diffusion import EnergyDiffusion

DIMENSIONS = (1, 2, 5, 10, 30)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"strength": 0.0},
    "strong": {"form": "strong"},
    "weak": {"form": "weak"},
}
SHORT, LONG = 10, 60


def costs() -> list[dict[str, Any]]:
    """Milliseconds of CPU per step, from two lengths of training, each the least of three tries."""
    torch.set_num_threads(1)
    rows = []
    for dimension in DIMENSIONS:
        X = np.random.default_rng(0).normal(size=(1000, dimension))
        for name, settings in FORMS.items():
            short, long = (
                min(seconds_of(EnergyDiffusion(n_steps=steps, random_state=0, **settings), X) for _ in range(3))
                for steps in (SHORT, LONG)
            )
            rows.append({"dimension": dimension, "form": name, "ms": 1000 * (long - short) / (LONG - SHORT)})
    return rows


def seconds_of(model: EnergyDiffusion, X: np.ndarray) -> float:
    began = time.process_time()
    model.fit(X)
    return time.process_time() - began


def costs_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: milliseconds, and multiples of the plain step."""
    lines = [
        "| D | plain, ms | strong, ms | weak, ms | strong over plain | weak over plain |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for dimension in DIMENSIONS:
        ms = {row["form"]: row["ms"] for row in rows if row["dimension"] == dimension}
        numbers = " | ".join(f"{ms[name]:.2f}" for name in FORMS)
        ratios = " | ".join(f"{ms[name] / ms['plain']:.1f}" for name in ("strong", "weak"))
        lines.append(f"| {dimension} | {numbers} | {ratios} |")
    return "\n".join(lines)
