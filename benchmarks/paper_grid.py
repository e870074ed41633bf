"""The published grid: time that its whole budget would take on this machine, estimated from measured steps.

The grid of arXiv 2602.13421: 8 betas x 11 latent sizes x 2 laws, linear, 16 x 16 patches, batch 1000, Monte Carlo with
sigmoid arrivals, 3000 epochs of 107 steps (107,520 training patches). For some latent sizes a stack of as many betas as
fit in memory is measured for a few steps at the published start; times of all others are interpolated from these.

    python benchmarks/paper_grid.py --run FOLDER --data folder:PHOTOGRAPHS

trains the grid and writes its report instead: the whole grid at a tenth of the epochs on a GPU, a smaller one on a CPU.
The output lists the changes. A run that was stopped continues.
"""

import argparse
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from spikevae._allocator import keep_freed_memory
from spikevae._device import resolve_device
from spikevae.config import FitConfig, SweepConfig
from spikevae.reporting import build_report, headline
from spikevae.sweep import Sweep
from spikevae.sweep.edit import edited
from spikevae.sweep.plan import MAX_FITS, MAX_STACK_BYTES
from spikevae.training import Stack
from spikevae.training.checks import stack_bytes

WIDTHS = (32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
BETAS = (0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
LAWS = ("poisson", "rectified_gaussian")
MEASURED = (64, 256, 512)  # latent sizes measured here; in between, time is interpolated on K
PIXELS, PATCHES, BATCH, EPOCHS, PUBLISHED_GPU_HOURS = (
    256,
    107_520,
    1000,
    3000,
    {"poisson": 293.7, "rectified_gaussian": 100.5},
)
STEPS = 3
CHANGES: dict[str, tuple[str, ...]] = {
    "cuda": ("epochs=300",),
    "cpu": ("n_latents=[32, 64, 128]", "epochs=60", "data.n=10752", "data.n_test=2822"),
}
"""Settings that replace the published values when the grid is trained, by kind of device."""


def seconds_per_fit_step(law: str, n_latents: int, device: str) -> float:
    """Median of a few steps of a stack over beta, at the published start."""
    settings = {"latent": law, "n_latents": n_latents, "epochs": EPOCHS}
    fits = len(BETAS)
    config = FitConfig.from_recipe("paper", **settings)
    while fits > 1 and stack_bytes(config, (PIXELS,), fits) > MAX_STACK_BYTES:
        fits //= 2
    configs = [FitConfig.from_recipe("paper", beta=beta, **settings) for beta in BETAS[:fits]]
    x = torch.randn(4 * BATCH, PIXELS, generator=torch.Generator().manual_seed(0))
    stack = Stack(configs, x, (PIXELS,), device=device)
    stack.step()
    taken = []
    for _ in range(STEPS):
        began = time.perf_counter()
        stack.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / fits


def interpolated(known: dict[int, float], n_latents: int) -> float:
    """Seconds at this latent size: linear between measured sizes, proportional to K beyond them."""
    sizes = sorted(known)
    if n_latents <= sizes[0]:
        return known[sizes[0]]
    for low, high in pairwise(sizes):
        if n_latents <= high:
            share = (n_latents - low) / (high - low)
            return (1 - share) * known[low] + share * known[high]
    return known[sizes[-1]] * n_latents / sizes[-1]


def compare(device: str = "cpu", measured: tuple[int, ...] = MEASURED) -> tuple[list[dict[str, Any]], str]:
    """Rows (law, K) and a table with the projected hours of the whole grid."""
    steps = EPOCHS * (PATCHES // BATCH)
    rows: list[dict[str, Any]] = []
    for law in LAWS:
        known = {}
        for n_latents in measured:
            print(f"paper grid: {law}, K = {n_latents}", file=sys.stderr, flush=True)
            known[n_latents] = seconds_per_fit_step(law, n_latents, device)
        for n_latents in WIDTHS:
            seconds = interpolated(known, n_latents)
            rows.append(
                {
                    "law": law,
                    "n_latents": n_latents,
                    "measured": n_latents in known,
                    "ms_per_fit_step": 1e3 * seconds,
                    "hours": seconds * steps * len(BETAS) / 3600,
                    "flop": 10.0 * BATCH * PIXELS * n_latents * steps * len(BETAS),
                }
            )
    lines = [
        f"the published grid on {device}, {torch.get_num_threads()} threads, one stack at a time (stacks of at most "
        f"{MAX_FITS} fits and {MAX_STACK_BYTES >> 30} GiB); K = {', '.join(map(str, measured))} measured for {STEPS} "
        "steps on noise, other K scaled",
        f"{'law':<20}{'hours here':>12}{'published GPU-hours':>21}{'hours here, K <= 512':>22}",
    ]
    for law in LAWS:
        own = [row for row in rows if row["law"] == law]
        small = sum(row["hours"] for row in own if row["n_latents"] <= 512)
        lines.append(
            f"{law:<20}{sum(row['hours'] for row in own):>12.0f}{PUBLISHED_GPU_HOURS[law]:>21.1f}{small:>22.0f}"
        )
    flop = sum(row["flop"] for row in rows)
    hours = sum(row["hours"] for row in rows)
    lines.append(
        f"matrix products of the whole grid: {flop:.1e} floating-point operations; here {flop / hours / 3.6e12:.0f} "
        "GFLOP/s of total time. The default recipe needs 1,000 steps of 250 in place of 321,000 of 1000."
    )
    return rows, "\n".join(lines)


def run(folder: Path, source: str, device: str, replaced: tuple[str, ...] | None = None) -> str:
    """Train the grid on this device into a run folder with a report; returns the changes, the time and the headline."""
    changes = CHANGES[torch.device(device).type] if replaced is None else replaced
    whole = SweepConfig.preset("paper")
    sweep = edited(whole, settings=[f"data.source={source}", *changes])
    print(f"changed from {len(whole.cells())} fits to {len(sweep.cells())}: {', '.join(changes)}", file=sys.stderr)
    result = Sweep(sweep).run(folder, device=device, progress=True)
    page = build_report(folder)
    config = sweep.cells()[0][1]
    lines = [
        f"the published grid, {len(sweep.cells())} of {len(whole.cells())} fits, on {device}; in place of the "
        f"published values: {', '.join(changes)}; the rest as published",
        f"{result.n_trained} fits of {config.n_steps(sweep.data.n):,} steps in {result.seconds:.0f} s",
        *headline(folder),
        f"report: {page}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="train the grid, with fewer epochs or fits, into this run folder"
    )
    parser.add_argument("--data", default="bundled", metavar="SOURCE", help="photographs to train on; bundled")
    parser.add_argument(
        "--set", action="append", default=None, metavar="KEY=VALUE", help="of the run, in place of the usual changes"
    )
    parser.add_argument("--device", default="auto", help="auto takes a GPU if there is one")
    chosen = parser.parse_args()
    keep_freed_memory()  # as the command line does
    device = resolve_device(chosen.device)
    changes = tuple(chosen.set) if chosen.set else None
    print(run(chosen.run, chosen.data, device, changes) if chosen.run else compare(device)[1])


if __name__ == "__main__":
    main()
