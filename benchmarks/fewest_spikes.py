"""Does the default recipe return the fewest spikes at the best free energy? About two hours of one core.

    python benchmarks/fewest_spikes.py --data folder:PHOTOGRAPHS --out fits.jsonl

fits amortised linear Poisson models for each number of units, beta and scale of the stimuli: with the default recipe;
with ten times its steps; from random weights; and with small spike prices. Stimuli are taken as they are and scaled to
a total variance of 190 per patch, about that of the published ones. A table gives, for each cell, the default's
held-out free energy above the best of any recipe, in percent of it and of what the best gains over a silent code, its
spikes, and the fewest spikes of any recipe whose free energy is within 0.5 % of the best. Fits are appended to the file
as they end; the same command continues.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.training import Stack
from spikevae.training import train as train_stack

WIDTHS, BETAS, SCALES = (64, 256, 512), (0.1, 1.0, 4.0), ("as they are", "scaled")
LONG = {64: 20_000, 256: 20_000, 512: 20_000}
PRICES = {0.1: (0.001, 0.003), 1.0: (0.003, 0.01), 4.0: (0.01, 0.03)}
"""Nats per spike: about 5 and 15 % of what the average spike gains, by beta."""
SCALED_VARIANCE, N_TRAIN, N_HELD_OUT, NEAR_BEST = 190.0, 100_000, 10_000, 0.005


def recipes(beta: float, n_latents: int) -> dict[str, dict[str, Any]]:
    """Options of each recipe, by name; the default comes first."""
    named: dict[str, dict[str, Any]] = {"default": {}}
    named |= {f"spike price {price:g}": {"spike_price": price} for price in PRICES[beta]}
    named["default, long"] = {"steps": LONG[n_latents]}
    named["random weights at -2, long"] = {"init": "random", "start": -2.0, "steps": LONG[n_latents]}
    return named


def fit(train: Tensor, test: Tensor, **options: Any) -> dict[str, Any]:
    """Held-out free energy of one fit without the price of spikes, and of a silent code; spikes, zeros, CPU seconds."""
    config = FitConfig.from_recipe("default", latent="poisson", **options)
    began = time.process_time()
    stack = Stack([config], train, (train.shape[1],))
    train_stack(stack)
    seconds = time.process_time() - began
    with torch.inference_mode():
        model = stack.result(0).model
        parts = model(test, config.beta, 0.0, exact=True)
        zeros = float(torch.exp(-model.posterior(test).mean).mean())
    return {
        "free_energy": float(parts.total),
        "silent": float(test.square().sum(-1).mean()),
        "spikes_per_unit": float(parts.spikes) / config.n_latents,
        "zeros": zeros,
        "steps": config.steps,
        "cpu_seconds": round(seconds, 1),
    }


def table(fits: list[dict[str, Any]]) -> str:
    """Markdown, one row per cell with a default fit."""
    lines = [
        "| K | β | stimuli | best free energy (recipe) | default: above it | of the gain | zeros | spikes per unit | "
        "fewest spikes within 0.5 % (recipe) | default / fewest | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for k, beta, scale in sorted({(f["n_latents"], f["beta"], f["stimuli"]) for f in fits}):
        cell = [f for f in fits if (f["n_latents"], f["beta"], f["stimuli"]) == (k, beta, scale)]
        ours = next((f for f in cell if f["recipe"] == "default"), None)
        if ours is None:
            continue
        best = min(cell, key=lambda f: f["free_energy"])
        near = [f for f in cell if f["free_energy"] <= best["free_energy"] * (1 + NEAR_BEST)]
        fewest = min(near, key=lambda f: f["spikes_per_unit"])
        lines.append(
            f"| {k} | {beta:g} | {scale} | {best['free_energy']:.2f} ({best['recipe']}) | "
            f"{100 * (ours['free_energy'] / best['free_energy'] - 1):.2f} % | "
            f"{100 * (ours['free_energy'] - best['free_energy']) / (best['silent'] - best['free_energy']):.1f} % | "
            f"{ours['zeros']:.2f} | "
            f"{ours['spikes_per_unit']:.3g} | {fewest['spikes_per_unit']:.3g} ({fewest['recipe']}) | "
            f"{ours['spikes_per_unit'] / fewest['spikes_per_unit']:.2f} | {ours['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--out", type=Path, default=Path("fewest_spikes.jsonl"))
    parser.add_argument("--latents", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--recipes", nargs="+", help="names of recipes, as in the table; all by default")
    parser.add_argument("--table", action="store_true", help="print the table of the finished fits only")
    args = parser.parse_args()
    fits = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(f["n_latents"], f["beta"], f["stimuli"], f["recipe"]) for f in fits}
    torch.set_num_threads(1)
    if not args.table:
        patches = sv.data.load(args.data, patch=16, n=N_TRAIN, n_test=N_HELD_OUT)
        train, test = (torch.as_tensor(x).float().flatten(1) for x in (patches.train, patches.test))
        factor = math.sqrt(SCALED_VARIANCE / float(train.var(0).sum()))
    for k, beta, scale in ((k, b, s) for k in args.latents for b in BETAS for s in SCALES if not args.table):
        for name, options in recipes(beta, k).items():
            if (k, beta, scale, name) in done or (args.recipes and name not in args.recipes):
                continue
            print(f"K = {k}, beta = {beta:g}, {scale}: {name}", file=sys.stderr, flush=True)
            by = factor if scale == "scaled" else 1.0
            row = {"n_latents": k, "beta": beta, "stimuli": scale, "recipe": name}
            fits.append(row | fit(by * train, by * test, n_latents=k, beta=beta, **options))
            with args.out.open("a") as file:
                file.write(json.dumps(fits[-1]) + "\n")
    print(table(fits))


if __name__ == "__main__":
    main()
