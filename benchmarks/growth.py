"""How time and memory of a training step grow with latent size, batch, number of stacked fits and firing rate.

Each measured exponent is compared with the one expected from the number of operations: the products and all passes over
codes are proportional to latent size, batch and fits (exponent 1; the second moments of a solved decoder, K^2, dominate
where K exceeds the number of pixels), and sampled counts need a pass over the codes plus work per arrival (exponent 0
at low rates, 1 at high ones). The slope is fitted by least squares over the upper half of each curve, in logarithms.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import step_of_a_long_fit
from memory import LEAN_ENVIRONMENT, added_mib, can_measure

from spikevae.config import FitConfig
from spikevae.training import Stack

PIXELS, REPEATS = 256, 5
BASE: dict[str, Any] = {"n_latents": 128, "batch": 250, "fits": 1, "log_rate": -3.0, "kind": "gradient"}
CURVES: dict[str, tuple[str, tuple[float, ...], dict[str, Any], float]] = {
    # name: what varies, its values, what else differs from BASE, expected exponent of time over the upper half
    "latent size": ("n_latents", (64, 128, 256, 512, 1024, 2048), {}, 1.0),
    "latent size, decoder solved": ("n_latents", (64, 128, 256, 512, 1024, 2048), {"kind": "solved"}, 2.0),
    "batch": ("batch", (125, 250, 500, 1000, 2000), {}, 1.0),
    "stacked fits": ("fits", (1, 2, 4, 8, 16), {}, 1.0),
    "firing rate, sampled": ("log_rate", (-5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0), {"kind": "sampled"}, 1.0),
}


def stepper(point: dict[str, Any]) -> Callable[[], None]:
    """A function that does one step at this point of a curve."""
    settings: dict[str, Any] = {"n_latents": int(point["n_latents"]), "batch_size": int(point["batch"])}
    settings |= {"steps": 1_000_000, "init": "random", "start": point["log_rate"], "learning_rate": 1e-6}
    settings["decoder_update"] = "least_squares" if point["kind"] == "solved" else "gradient"
    if point["kind"] == "sampled":
        settings |= {"estimator": "monte_carlo", "temperature_anneal": 0.0, "temperature": 0.05}
    configs = [FitConfig.from_recipe("default", beta=0.1 * (i + 1), **settings) for i in range(int(point["fits"]))]
    x = torch.randn(4 * int(point["batch"]), PIXELS, generator=torch.Generator().manual_seed(0))
    return step_of_a_long_fit(Stack(configs, x, (PIXELS,)))


def milliseconds(step: Callable[[], None], repeats: int) -> float:
    """Median time of a step, over rounds of about 50 ms; the first round is not counted."""
    step()
    began = time.perf_counter()
    step()
    count = max(1, min(50, round(0.05 / max(time.perf_counter() - began, 1e-6))))
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(count):
            step()
        taken.append(1e3 * (time.perf_counter() - began) / count)
    return statistics.median(taken)


def slope(values: list[float], measured: list[float]) -> float:
    """Exponent over the upper half of a curve."""
    half = len(values) // 2
    return float(np.polyfit(np.log(values[half:]), np.log(measured[half:]), 1)[0])


def axis_values(varies: str, values: tuple[float, ...]) -> list[float]:
    """Values of the variable of the exponent: firing rates rather than their logarithms."""
    return [float(np.exp(v)) if varies == "log_rate" else float(v) for v in values]


def compare(curves: tuple[str, ...] = tuple(CURVES), repeats: int = REPEATS) -> tuple[list[dict[str, Any]], str]:
    """Rows (one per point) and a table with the exponents."""
    rows: list[dict[str, Any]] = []
    lines = [
        f"a step of {BASE['fits']} fit, K = {BASE['n_latents']}, batch {BASE['batch']}, {PIXELS} pixels, closed form, "
        "decoder by gradient, unless stated; exponents over the upper half of each curve",
        f"{'over':<30}{'from':>8}{'to':>8}{'ms from':>9}{'to':>9}{'exponent':>10}{'expected':>10}"
        f"{'MiB from':>10}{'to':>8}{'exponent':>10}",
    ]
    for name in curves:
        varies, values, other, expected = CURVES[name]
        points = [{**BASE, **other, varies: value} for value in values]
        memory = peaks(points)
        times = []
        for i, point in enumerate(points):
            print(f"growth: {name}, {varies} = {point[varies]}", file=sys.stderr, flush=True)
            times.append(milliseconds(stepper(point), repeats))
            used = memory[i] if memory else None
            rows.append({"curve": name, **point, "ms": times[-1], "mib": used, "expected": expected})
        x = axis_values(varies, values)
        exponents = [slope(x, times)] + ([slope(x, [max(m, 0.1) for m in memory])] if memory else [])
        shown = f"{memory[0]:>10.0f}{memory[-1]:>8.0f}{exponents[1]:>10.2f}" if memory else ""
        lines.append(
            f"{name:<30}{x[0]:>8.3g}{x[-1]:>8.4g}{times[0]:>9.2f}{times[-1]:>9.1f}{exponents[0]:>10.2f}"
            f"{expected:>10.0f}{shown}"
        )
    return rows, "\n".join(lines)


def peaks(points: list[dict[str, Any]]) -> list[float] | None:
    """MiB that a step adds, in a child process; None where the system does not report it."""
    if not can_measure():
        return None
    command = [sys.executable, __file__, json.dumps(points)]
    done = subprocess.run(command, env=LEAN_ENVIRONMENT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Time (and memory) of each curve with the expected slope."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    names = list(dict.fromkeys(row["curve"] for row in rows))
    grid, axes = plt.subplots(1, len(names), figsize=(3.1 * len(names), 3.4), squeeze=False)
    labels = {"n_latents": "latent size K", "batch": "batch", "fits": "stacked fits", "log_rate": "spikes per unit"}
    for axis, name in zip(axes[0], names):
        varies = CURVES[name][0]
        own = [row for row in rows if row["curve"] == name]
        x = axis_values(varies, tuple(row[varies] for row in own))
        axis.plot(x, [row["ms"] for row in own], "o-", color="#0072B2", label="time, ms")
        if own[0]["mib"] is not None:
            axis.plot(x, [max(row["mib"], 0.1) for row in own], "s--", color="#D55E00", label="memory, MiB")
        tail = [own[-1]["ms"] * (v / x[-1]) ** own[0]["expected"] for v in x]
        axis.plot(x, tail, ":", color="#555555", label="expected slope of time")
        low = min(min(row["ms"], row["mib"] or row["ms"]) for row in own)
        axis.set(xscale="log", yscale="log", xlabel=labels[varies], title=name, ylim=(0.4 * max(low, 0.1), None))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0][0].set_ylabel("per training step")
    handles, texts = axes[0][0].get_legend_handles_labels()
    grid.legend(handles, texts, loc="lower center", ncols=3, frameon=False)
    grid.tight_layout(rect=(0, 0.08, 1, 1))
    grid.savefig(path, dpi=100)


if __name__ == "__main__":  # the child process of `peaks`
    print(json.dumps([added_mib(stepper(point)) for point in json.loads(sys.argv[1])]))
