"""Amortised against iterative Poisson inference on stimuli unlike the training set, and inference for 1000 steps.

Both are trained on windows of photographs with the same law, size, data and free energy, several seeds each, and tested
on held-out windows, rotated ones, noisy ones, and digits. The digits are averaged over 2 x 2 pixels and scaled to mean
zero and the photographs' standard deviation. R2 is of the mean code, pooled; the free energy is that of evaluations
(beta = 1). Then a model of each law, trained with 12 steps of inference, infers the same held-out windows for a
thousand steps.

    python benchmarks/robustness.py --digits mnist:FOLDER --out FOLDER --json FILE
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spread import interval, shown
from torch import Tensor
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.data import load
from spikevae.data.sequences import rotate
from spikevae.metrics.reconstruction import r2_pooled
from spikevae.models.iterative.model import IterativeVAE
from spikevae.reporting.figures import canvas
from spikevae.training import Stack, train

WIDE, SIDE = 20, 14
"""Sides in pixels of the windows that are rotated and of those that models see: a square of 14 fits a circle of 20."""
N_TRAIN, N_TEST, N_CURVES = 20_000, 1000, 200
SEEDS, BETA, CURVE_STEPS = 5, 1.0, 1000
SHARED = {"n_latents": 128, "beta": BETA, "batch_size": 160}
STEP_BY_STEP = {"inference": "iterative", "inference_steps": 12, "start": -3.0, "steps": 400}
INFERENCES: dict[str, dict[str, Any]] = {"amortised": {}, "iterative": STEP_BY_STEP}
LAWS = ("poisson", "gaussian", "rectified_gaussian", "bernoulli")
TABLE_STEPS = (1, 2, 5, 12, 20, 50, 100, 200, 500, 1000)
"""Steps in the table of curves; training has 12."""
STYLES = {
    "poisson": ("#0072B2", "-"),
    "gaussian": ("#D55E00", "--"),
    "rectified_gaussian": ("#009E73", "-."),
    "bernoulli": ("#CC79A7", ":"),
}


def centre(x: np.ndarray) -> np.ndarray:
    """The middle of wide windows (n, 400): (n, 196)."""
    edge = (WIDE - SIDE) // 2
    return x.reshape(-1, WIDE, WIDE)[:, edge:-edge, edge:-edge].reshape(len(x), -1)


def situations(wide: np.ndarray, digits: np.ndarray | None, deviation: float) -> dict[str, Tensor]:
    """Stimuli (n, 196) by their name."""
    (_, *rotated) = rotate(wide, (WIDE, WIDE), 4, patch=SIDE, degrees=30.0)
    plain = torch.from_numpy(np.ascontiguousarray(centre(wide)))
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    found = {"photographs": plain}
    found |= {f"rotated by {30 * (i + 1)} degrees": frame for i, frame in enumerate(rotated)}
    found |= {f"noise of {level:g} deviations": plain + level * deviation * noise for level in (0.5, 1.0, 2.0)}
    if digits is not None:
        small = digits.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)).reshape(len(digits), -1)
        scaled = (small - small.mean()) * (deviation / small.std())
        found["digits"] = torch.from_numpy(scaled.astype(np.float32))
    return found


def fitted(options: dict[str, Any], x: Tensor, seeds: int) -> list[Any]:
    """One model per seed."""
    stack = Stack([FitConfig.from_recipe("default", **SHARED, **options, seed=s) for s in range(seeds)], x, (SIDE**2,))
    train(stack)
    return [stack.result(index).model.requires_grad_(False) for index in range(seeds)]


@torch.inference_mode()
def measured(model: Any, x: Tensor, steps: int | None = None) -> dict[str, float]:
    """Free energy, R2, zeros and spikes of one model on some stimuli."""
    law = model.posterior(x) if steps is None else model.law_of(model.infer(x, steps))
    energy = model.expected_distortion(x, law) + kl_divergence(law, model.prior()).sum(-1)
    return {
        "free_energy": float(energy.mean()),
        "r2": float(r2_pooled(x, model.decode(law.mean))),
        "zeros": float(law.zero_probability.mean()),
        "spikes": float(law.mean.sum(-1).mean()),
    }


def compare(source: str = "bundled", digits: str | None = None, seeds: int = SEEDS) -> tuple[list[dict[str, Any]], str]:
    """Rows of all kinds of stimuli, and a Markdown table."""
    patches = load(source, patch=WIDE, n=N_TRAIN, n_test=N_TEST)
    x = torch.from_numpy(np.ascontiguousarray(centre(patches.train)))
    pictures = None if digits is None else load(digits).test[:N_TEST]
    shown = situations(patches.test, pictures, float(x.std()))
    models = {name: fitted(options, x, seeds) for name, options in INFERENCES.items()}
    rows = []
    for name, stimuli in shown.items():
        found = {word: [measured(m, stimuli) for m in own] for word, own in models.items()}
        row: dict[str, Any] = {"stimuli": name}
        for number in ("free_energy", "r2", "zeros", "spikes"):
            values = {word: [m[number] for m in own] for word, own in found.items()}
            row |= {f"{number}_{word}": interval(own) for word, own in values.items()}
            gaps = [b - a for a, b in zip(values["amortised"], values["iterative"])]
            row[f"{number}_gap"] = interval(gaps)
        rows.append(row)
    return rows, table(rows, seeds)


def table(rows: list[dict[str, Any]], seeds: int) -> str:
    """Markdown: amortised, iterative, and iterative minus amortised of the same seed."""
    lines = [
        f"Means and 95 % intervals over {seeds} seeds; K = {SHARED['n_latents']}, β = {BETA:g}.",
        "",
        "| stimuli | R², amortised | iterative | difference | free energy, amortised | iterative | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = [shown(row[f"r2_{w}"], 3) for w in ("amortised", "iterative", "gap")]
        parts += [shown(row[f"free_energy_{w}"], 1) for w in ("amortised", "iterative", "gap")]
        lines.append(f"| {row['stimuli']} | " + " | ".join(parts) + " |")
    return "\n".join(lines)


@torch.inference_mode()
def curve(model: IterativeVAE, x: Tensor, steps: int = CURVE_STEPS) -> dict[str, list[float]]:
    """Free energy, R2, zeros and the norm of the change of the state at every step."""
    found: dict[str, list[float]] = {name: [] for name in ("free_energy", "r2", "zeros", "change")}
    prior, before = model.prior(), model.init_state(len(x)).params
    for state in model.trajectory(x, steps):
        law = model.law_of(state)
        moved = sum((now - then).square().sum(-1) for now, then in zip(state.params, before))
        before = state.params
        energy = model.expected_distortion(x, law) + kl_divergence(law, prior).sum(-1)
        found["free_energy"].append(float(energy.mean()))
        found["r2"].append(float(r2_pooled(x, model.decode(law.mean))))
        found["zeros"].append(float(law.zero_probability.mean()))
        found["change"].append(float(torch.as_tensor(moved).sqrt().mean()))
    return found


def convergence(source: str = "bundled") -> tuple[dict[str, dict[str, list[float]]], str]:
    """Curves of every law, and a Markdown table of them at some steps."""
    patches = load(source, patch=WIDE, n=N_TRAIN, n_test=N_TEST)
    x, held = (torch.from_numpy(np.ascontiguousarray(centre(part))) for part in (patches.train, patches.test))
    curves = {law: curve(fitted({"latent": law, **STEP_BY_STEP}, x, 1)[0], held[:N_CURVES]) for law in LAWS}
    lines = [
        "| law | number | " + " | ".join(f"step {step}" for step in TABLE_STEPS) + " |",
        "|---|---|" + "---|" * len(TABLE_STEPS),
    ]
    forms: dict[str, Callable[[float], str]] = {
        "free_energy": "{:.1f}".format, "r2": "{:.3f}".format, "zeros": "{:.3f}".format, "change": "{:.2g}".format,
    }  # fmt: skip
    for law, found in curves.items():
        for name, form in forms.items():
            values = " | ".join(form(found[name][step - 1]).replace("-", "−") for step in TABLE_STEPS)
            lines.append(f"| {law.replace('_', ' ')} | {name.replace('_', ' ')} | {values} |")
    return curves, "\n".join(lines)


def figure(rows: list[dict[str, Any]], curves: dict[str, dict[str, list[float]]], folder: Path) -> list[Path]:
    """Write robustness.png and inference.png."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "robustness.png", folder / "inference.png"]
    places = np.arange(len(rows))[::-1]
    with canvas(1, 2, 3.1, 0.42 * len(rows), key_rows=1) as (drawn, panels):
        for axes, number, label in (
            (panels[0, 0], "r2", "R² (mean code, pooled)"),
            (panels[0, 1], "free_energy", "Free energy (nats per stimulus)"),
        ):
            for word, colour, marker, shift in (
                ("amortised", "#D55E00", "s", -0.12),
                ("iterative", "#0072B2", "o", 0.12),
            ):
                mean, half = np.array([row[f"{number}_{word}"] for row in rows]).T
                axes.errorbar(
                    mean, places + shift, xerr=half, fmt=marker, color=colour, markersize=5, capsize=2, label=word
                )
            axes.set(xlabel=label, ylim=(-0.6, len(rows) - 0.4))
            axes.set_yticks(places, [row["stimuli"] for row in rows])
        panels[0, 1].tick_params(labelleft=False)
        drawn.set_size_inches(drawn.get_figwidth() + 1.1, drawn.get_figheight())
        drawn.subplots_adjust(left=0.24)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="lower center", ncols=2, fontsize=8, borderaxespad=0.1)
        drawn.savefig(paths[0], dpi=110)
    wanted = (
        ("free_energy", "Free energy (nats per stimulus)"),
        ("r2", "R² (mean code, pooled)"),
        ("zeros", "Fraction of zeros"),
        ("change", "Change of the state per step (norm)"),
    )
    with canvas(1, 4, 2.5, 2.5, key_rows=1) as (drawn, panels):
        for axes, (number, label) in zip(panels[0], wanted):
            for law, found in curves.items():
                colour, line = STYLES[law]
                steps = np.arange(1, len(found[number]) + 1)
                axes.plot(
                    steps, found[number], color=colour, linestyle=line, linewidth=1.6, label=law.replace("_", " ")
                )
            axes.axvline(STEP_BY_STEP["inference_steps"], color="#59636e", linewidth=0.8, zorder=0)
            axes.set(xscale="log", xlabel="Step of inference", ylabel=label)
        panels[0, 3].set_yscale("log")
        panels[0, 2].set_ylim(-0.02, 1)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, borderaxespad=0.1)
        drawn.savefig(paths[1], dpi=110)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", help="photographs to train on, as --data of spikevae")
    parser.add_argument("--digits", metavar="mnist:PATH", help="digits to test on; left out if not given")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"fits of each inference, 3 or more; {SEEDS}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the figures there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    chosen = parser.parse_args()
    if chosen.seeds < 3:
        parser.error(f"--seeds {chosen.seeds}: intervals need three seeds or more")
    began = time.perf_counter()
    rows, text = compare(chosen.data, chosen.digits, chosen.seeds)
    curves, steps = convergence(chosen.data)
    print(f"{text}\n\n{steps}\n\n{time.perf_counter() - began:.0f} s, {torch.get_num_threads()} threads")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"situations": rows, "curves": curves}, indent=1) + "\n")
    if chosen.out is not None:
        print("Figures: " + ", ".join(str(path) for path in figure(rows, curves, chosen.out)))


if __name__ == "__main__":
    main()
