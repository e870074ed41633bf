"""Time to a given free energy: the default recipe against the published one. About 25 minutes on two cores.

Records the held-out free energy (objective at the fit's own beta, exact) of both recipes against wall time. The
published recipe is trained with the arrivals sampler, which has the same distribution; its time is computed from the
measured time of a step with the published dense sampler. Its annealing is compressed into the steps trained here, which
favours it: in its own budget of 3000 epochs beta reaches its value only half-way.

The goal of a fit is a held-out free energy within 1 % of the best that any of the recipes below reached.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.distributions import relaxed_counts
from spikevae.training import Stack

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dense_reference import dense_counts

WIDTHS, BETAS = (64, 256, 512), (0.1, 1.0, 4.0)
PUBLISHED_STEPS = {64: 6000, 256: 3000, 512: 1500}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "default, 4 x the steps": {"steps": 4000},
    "default, busy start": {"start": 2.0},
    "default, decoder by gradient": {"decoder_update": "gradient"},
    "random start, solved decoder": {"init": "random", "start": 0.5, "bias_lr_factor": 20.0, "steps": 3000},
    "random start, silent, gradient": {
        "init": "random",
        "start": -5.0,
        "bias_lr_factor": 20.0,
        "decoder_update": "gradient",
        "steps": 3000,
    },
}
N_HELD_OUT, TOLERANCE, TRACE_POINTS = 5000, 0.01, 24


def held_out(stack: Stack, test: Tensor) -> list[float]:
    """Exact objective of every fit on held-out stimuli, at its own beta."""
    with torch.inference_mode():
        return [
            float(stack.result(i).model(test, config.beta, config.spike_price, exact=True).total)
            for i, config in enumerate(stack.configs)
        ]


def trace(configs: list[FitConfig], train: Tensor, test: Tensor) -> dict[str, Any]:
    """Seconds per fit (with set-up, without evaluation) and held-out objectives during the training of one stack."""
    began = time.perf_counter()
    stack = Stack(configs, train, (train.shape[1],))
    spent = time.perf_counter() - began
    marks = sorted({round(stack.n_steps * (i / TRACE_POINTS) ** 2) for i in range(1, TRACE_POINTS + 1)} - {0})
    points = [(0, spent, held_out(stack, test))]
    for mark in marks:
        began = time.perf_counter()
        while stack.step_number < mark:
            stack.step()
        if stack.finished:
            stack.finish()
        spent += time.perf_counter() - began
        points.append((mark, spent, held_out(stack, test)))
    return {
        "steps": [p[0] for p in points],
        "seconds": [p[1] / len(configs) for p in points],
        "objectives": [list(values) for values in zip(*(p[2] for p in points))],
        "log_rates": [stack.result(i).model.posterior(test[:1000]).log_rate.detach() for i in range(len(configs))],
    }


def median_seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of a call; the first is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def dense_extra(log_rate: Tensor) -> float:
    """Seconds that the dense sampler takes longer than arrivals for a batch of 1000, forward and backward."""
    log_rate = log_rate.clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    options = {"temperature": 0.05, "indicator": "sigmoid", "generator": generator}
    dense, arrivals = (
        median_seconds(lambda draw=draw: draw(log_rate, **options).sum().backward())
        for draw in (dense_counts, relaxed_counts)
    )
    return dense - arrivals


def first_within(steps: list[int], values: list[float], goal: float) -> int | None:
    """Index of the first point whose objective is at most the goal, or None."""
    inside = [i for i, value in enumerate(values) if value <= goal]
    return inside[0] if inside else None


def measure(n_latents: int, train: Tensor, test: Tensor, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per beta, with all traces."""
    traces = {}
    for name, settings in RECIPES.items():
        report(f"K = {n_latents}: {name}")
        configs = [FitConfig.from_recipe("default", n_latents=n_latents, beta=b, **settings) for b in BETAS]
        traces[name] = trace(configs, train, test)
    report(f"K = {n_latents}: published recipe")
    steps = PUBLISHED_STEPS[n_latents]
    configs = [FitConfig.from_recipe("paper", n_latents=n_latents, beta=b, steps=steps) for b in BETAS]
    published = trace(configs, train, test)
    rows = []
    for i, beta in enumerate(BETAS):
        best = min(min(t["objectives"][i]) for t in (*traces.values(), published))
        goal = best * (1 + TOLERANCE)
        ours = traces["default"]
        here = first_within(ours["steps"], ours["objectives"][i], goal)
        there = first_within(published["steps"], published["objectives"][i], goal)
        dense_step = published["seconds"][-1] / steps + dense_extra(published["log_rates"][i])
        reached = published["steps"][there] if there is not None else steps
        ours_seconds = None if here is None else ours["seconds"][here]
        rows.append(
            {
                "n_latents": n_latents,
                "beta": beta,
                "best": best,
                "ours_step": None if here is None else ours["steps"][here],
                "ours_seconds": ours_seconds,
                "ours_final": ours["objectives"][i][-1],
                "ours_doubled": abs(ours["objectives"][i][-1] / best - 1),
                "published_step": None if there is None else reached,
                "published_traced_steps": steps,
                "published_final": published["objectives"][i][-1],
                "dense_step_ms": 1e3 * dense_step,
                "ratio": None if ours_seconds is None else reached * dense_step / ours_seconds,
                "ratio_is_lower_bound": there is None,
                "traces": {
                    name: {"steps": t["steps"], "seconds": t["seconds"], "objective": t["objectives"][i]}
                    for name, t in {**traces, "published": published}.items()
                },
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Plain text."""
    lines = [
        "time to a held-out free energy within 1 % of the best found; seconds per fit",
        f"{'K':>4}{'beta':>6}{'best':>9}{'ours':>9}{'step':>6}{'seconds':>9}"
        f"{'published':>11}{'after':>7}{'dense step':>12}{'ratio':>10}",
    ]
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{'>' if row['ratio_is_lower_bound'] else ''}{row['ratio']:.0f}"
        step = "-" if row["ours_step"] is None else str(row["ours_step"])
        seconds = "-" if row["ours_seconds"] is None else f"{row['ours_seconds']:.2f}"
        lines.append(
            f"{row['n_latents']:>4}{row['beta']:>6}{row['best']:>9.2f}{row['ours_final']:>9.2f}{step:>6}{seconds:>9}"
            f"{row['published_final']:>11.2f}{row['published_traced_steps']:>7}"
            f"{row['dense_step_ms']:>9.0f} ms{ratio:>10}"
        )
    lines += ["", "final held-out free energy of each recipe, relative to the best found"]
    names = list(rows[0]["traces"])
    for name in names:
        entries = "".join(f"{100 * (r['traces'][name]['objective'][-1] / r['best'] - 1):>8.2f}%" for r in rows)
        lines.append(f"{name:<34}{entries}")
    lines.append(f"{'K, beta':<34}" + "".join(f"{r['n_latents']:>5},{r['beta']:>3g}" for r in rows))
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Difference from the best against seconds, a panel for each K and beta."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    widths, betas = sorted({r["n_latents"] for r in rows}), sorted({r["beta"] for r in rows})
    grid, axes = plt.subplots(
        len(widths), len(betas), figsize=(9.5, 2.6 * len(widths)), sharex=True, sharey=True, squeeze=False
    )
    shown = {
        "default": ("#0072B2", "-", "default"),
        "random start, solved decoder": ("#009E73", "--", "random start, decoder solved"),
        "random start, silent, gradient": ("#E69F00", "-.", "silent random start, decoder by gradient"),
        "published": ("#D55E00", ":", "published recipe, at the time of its dense sampler"),
    }
    for row in rows:
        axis = axes[widths.index(row["n_latents"])][betas.index(row["beta"])]
        for name, (colour, line, label) in shown.items():
            t = row["traces"][name]
            dense = row["dense_step_ms"] / 1e3
            seconds = [s * dense for s in t["steps"]] if name == "published" else t["seconds"]
            excess = [max(100 * (value / row["best"] - 1), 0.02) for value in t["objective"]]
            axis.plot(seconds[1:], excess[1:], line, color=colour, label=label)
        axis.axhline(100 * TOLERANCE, color="#777777", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=f"K = {row['n_latents']}, β = {row['beta']:g}")
    for axis in axes[-1]:
        axis.set_xlabel("training time, seconds per fit")
    for line in axes:
        line[0].set_ylabel("held-out free energy\nabove the best, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    grid.legend(handles, labels, loc="lower center", ncols=2, frameon=False)
    grid.tight_layout(rect=(0, 0.07, 1, 1))
    grid.savefig(path, dpi=110)


def compare(
    source: str = "bundled", widths: tuple[int, ...] = WIDTHS, n_train: int = 40_000
) -> tuple[list[dict[str, Any]], str]:
    """Rows and a table."""
    data = sv.data.load(source, patch=16, n=n_train, seed=0)
    train, test = torch.from_numpy(data.train), torch.from_numpy(data.test[:N_HELD_OUT])
    rows = []
    for n_latents in widths:
        rows += measure(n_latents, train, test, lambda text: print(text, file=sys.stderr, flush=True))
    return rows, table(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", help="bundled, or folder:PATH of photographs")
    parser.add_argument("--widths", type=int, nargs="*", default=list(WIDTHS), help="latent sizes K")
    parser.add_argument("--figure", type=Path, help="also draw the traces to this file")
    parser.add_argument("--json", type=Path, help="also write rows with all traces to this file")
    chosen = parser.parse_args()
    found, text = compare(chosen.data, tuple(chosen.widths))
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found) + "\n")
    if chosen.figure is not None:
        figure(found, chosen.figure)
