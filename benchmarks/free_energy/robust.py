"""Outliers among photographs, against robustness t and samples m of objective "pac_m". Four minutes of CPU time.

    python benchmarks/free_energy/robust.py --out FOLDER

Poisson fits of 32 units to 8,000 whitened 8 x 8 patches of the bundled photographs, from random weights (the default
start is computed from the stimuli, outliers included). A part of the training stimuli is replaced by outliers:

- noise: independent normal pixels of three times the standard deviation of all pixels;
- occluded: a 5 x 5 square of plus or minus four standard deviations at a random place of the patch;
- inverted: the negative of the patch.

Seeds draw weights, batches and noise; outliers are the same. Reported are the free energy (one sample, exact) and minus
log p(x) (importance sampling) of clean patches of other photographs; the mean, over the atoms of the fit with m = 1 and
t = 1 to clean patches from the same weights, of the largest cosine with an atom; and the mean weights of clean stimuli
and of outliers in the objective. "Likelihood alone" has log_t of the likelihood and the cost of the code outside it.
Means over seeds with 95 % intervals. `--out` also writes robust.json, robust.md and robust.png; the same command
continues a run that was stopped.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae._files import write_bytes
from spikevae.config import FitConfig
from spikevae.evaluation import log_evidence
from spikevae.models import amortised
from spikevae.progress import show_progress
from spikevae.robust import MultiSample, multi_sample
from spikevae.training import Stack
from spikevae.training import train as train_stack

SIDE, UNITS, STIMULI, STEPS = 8, 32, 8000, 500
KINDS = ("noise", "occluded", "inverted")
ORDERS, SAMPLES, ROBUST = (1.0, 0.99, 0.97, 0.9), (1, 8), 0.97
ALONE = "likelihood alone"
EVIDENCE = (300, 100)
"""Stimuli and samples of the estimate of log p(x)."""


class Condition(NamedTuple):
    """One row of the table."""

    kind: str
    share: float
    m: int
    t: float
    form: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}, {self.share:g}, m={self.m}, t={self.t:g}, {self.form}"


def conditions() -> Iterator[Condition]:
    """Clean stimuli and every kind of outlier, against t, against m, and with fewer outliers."""
    for kind in ("none", *KINDS):
        share = 0.0 if kind == "none" else 0.1
        yield from (Condition(kind, share, 1, t) for t in ORDERS)
        yield from (Condition(kind, share, m, t) for m in SAMPLES[1:] for t in (1.0, ROBUST))
        yield Condition(kind, share, 1, ROBUST, ALONE)
        if share:
            yield from (Condition(kind, share / 2, 1, t) for t in (1.0, ROBUST))


def contaminated(x: np.ndarray, kind: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Stimuli (n, D) with outliers, and which ones are."""
    rng, n = np.random.default_rng(7), round(share * len(x))
    outlier = np.zeros(len(x), bool)
    outlier[rng.permutation(len(x))[:n]] = True
    x, scale = x.copy(), x.std()
    if kind == "noise":
        x[outlier] = 3 * scale * rng.normal(size=(n, x.shape[1]))
    elif kind == "inverted":
        x[outlier] *= -1
    elif kind == "occluded":
        images = x.reshape(len(x), SIDE, SIDE)
        for i in np.flatnonzero(outlier):
            row, column = rng.integers(0, SIDE - 4, 2)
            images[i, row : row + 5, column : column + 5] = 4 * scale * rng.choice([-1, 1])
    return x, outlier


def likelihood_alone(*arguments: Any, cost: Any, **options: Any) -> MultiSample:
    """The objective with the cost of the code outside log_t."""
    found = multi_sample(*arguments, **options)
    return found._replace(value=found.value + cost, weight=torch.ones_like(found.weight))


def fitted(x: np.ndarray, condition: Condition, seeds: int, steps: int) -> list[Any]:
    """A model of these stimuli for each seed."""
    configs = [
        FitConfig.from_recipe(
            "default",
            n_latents=UNITS,
            init="random",
            estimator="fini",
            steps=steps,
            seed=seed,
            objective="pac_m",
            n_samples=condition.m,
            robustness=condition.t,
        )
        for seed in range(seeds)
    ]
    amortised.multi_sample = likelihood_alone if condition.form == ALONE else multi_sample  # type: ignore[assignment]
    try:
        stack = Stack(configs, torch.from_numpy(x), (1, SIDE, SIDE))
        train_stack(stack)
    finally:
        amortised.multi_sample = multi_sample
    return [stack.result(i).model.requires_grad_(False) for i in range(seeds)]


def cosine(reference: np.ndarray, found: np.ndarray) -> float:
    """Mean over the atoms of a reference of the largest cosine with an atom that was found."""
    a, b = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True) for atoms in (reference, found))
    return float((a @ b.T).max(1).mean())


@cache
def photographs() -> tuple[np.ndarray, Tensor]:
    """Patches for training, and those of other photographs."""
    data = sv.data.load("bundled", patch=SIDE, n=STIMULI, seed=0)
    return data.train, torch.from_numpy(data.test)


@cache
def clean_atoms(seeds: int, steps: int) -> list[np.ndarray]:
    """Dictionaries of the plain fits to clean patches."""
    models = fitted(photographs()[0], Condition("none", 0.0, 1, 1.0), seeds, steps)
    return [model.dictionary.numpy() for model in models]


def weights(model: Any, x: Tensor, condition: Condition) -> Tensor:
    """Weight of each stimulus in the objective; the median is that of all stimuli."""
    q = model.posterior(x)
    return multi_sample(
        lambda code: model.distortion(x, code),
        q,
        samples=condition.m,
        robustness=condition.t,
        cost=torch.distributions.kl_divergence(q, model.prior()).sum(-1),
        estimator="fini",
        generator=torch.Generator().manual_seed(0),
    ).weight


def measured(job: tuple[Condition, int, int]) -> list[dict[str, Any]]:
    """All numbers of one condition, a row for each seed."""
    torch.set_num_threads(1)
    condition, seeds, steps = job
    train, test = photographs()
    x, outlier = contaminated(train, condition.kind, condition.share)
    rows = []
    for seed, model in enumerate(fitted(x, condition, seeds, steps)):
        weight = weights(model, torch.from_numpy(x), condition).numpy()
        stimuli, samples = EVIDENCE
        rows.append(
            {
                **condition._asdict(),
                "seed": seed,
                "free_energy": float(model(test, 1.0, 0.0, exact=True).total),
                "minus_log_p": -log_evidence(model, test[:stimuli], samples=samples).log_evidence,
                "cosine": cosine(clean_atoms(seeds, steps)[seed], model.dictionary.numpy()),
                "weight": float(weight[~outlier].mean()),
                "weight_outliers": float(weight[outlier].mean()) if outlier.any() else None,
            }
        )
    return rows


def column(rows: list[dict[str, Any]], condition: Condition, name: str) -> list[float]:
    """Values of one condition, by seed."""
    return [row[name] for row in rows if Condition(*(row[field] for field in Condition._fields)) == condition]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each condition that has all its seeds."""
    lines = [
        "| outliers | m | t | free energy | less than at m = 1, t = 1 | −log p(x) | cosine | weight: clean, outliers |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in conditions():
        plain = column(rows, one._replace(m=1, t=1.0, form=""), "free_energy")
        energy = column(rows, one, "free_energy")
        if len(energy) < 2 or len(plain) != len(energy):
            continue
        gain = "" if one.m == 1 and one.t == 1 else shown(interval(np.subtract(plain, energy)), 2)
        share = "none" if one.kind == "none" else f"{one.kind}, {one.share:.0%}"
        outside = "–" if one.kind == "none" else f"{np.mean(column(rows, one, 'weight_outliers')):.3f}"
        cells = [
            share + (f", {one.form}" if one.form else ""),
            f"{one.m}",
            f"{one.t:g}",
            shown(interval(energy), 2),
            gain,
            shown(interval(column(rows, one, "minus_log_p")), 2),
            shown(interval(column(rows, one, "cosine")), 3),
            f"{np.mean(column(rows, one, 'weight')):.2f}, {outside}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Free energy and cosine against t and against m, with 10 % outliers."""
    from matplotlib.figure import Figure

    from spikevae.plotting import BLUE, GREEN, INK, VERMILION, save, settings

    styles = dict(zip(("none", *KINDS), ((INK, "o"), (BLUE, "s"), (VERMILION, "^"), (GREEN, "D"))))
    with settings():
        sheet = Figure(figsize=(9.0, 6.4), layout="constrained")
        axes = sheet.subplots(2, 2, sharey="row")
        for (line, name), (side, along) in itertools.product(
            enumerate(("free_energy", "cosine")), enumerate((ORDERS, SAMPLES))
        ):
            axis = axes[line][side]
            for shift, (kind, (colour, mark)) in enumerate(styles.items()):
                for t in (None,) if side == 0 else (1.0, ROBUST):
                    share = 0.0 if kind == "none" else 0.1
                    chosen = [
                        Condition(kind, share, 1, v) if side == 0 else Condition(kind, share, v, t) for v in along
                    ]
                    mean, half = np.transpose([interval(column(rows, one, name)) for one in chosen])
                    place = np.arange(len(along)) + 0.06 * (shift - 1.5)
                    style = {"color": colour, "marker": mark, "markersize": 5, "capsize": 2}
                    dashed = {"linestyle": "--", "markerfacecolor": "white"} if t == 1.0 else {}
                    axis.errorbar(place, mean, half, label=kind if side == 0 else None, **style, **dashed)
            axis.set_xticks(np.arange(len(along)), [f"{v:g}" for v in along])
        for axis in axes[1]:
            axis.set_ylim(top=1.02)
        axes[0][0].set(ylabel="free energy of clean stimuli\nof other photographs, nats", title="one sample, m = 1")
        axes[0][1].set(title=f"dashed, open: t = 1. Solid: t = {ROBUST:g}")
        axes[1][0].set(ylabel="cosine with the atoms\nof a clean fit", xlabel="robustness t")
        axes[1][1].set(xlabel="samples m")
        axes[0][0].legend(title="outliers, 10 %", frameon=False)
        save(sheet, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error("intervals need --seeds of 2 or more")
    path = None if chosen.out is None else chosen.out / "robust.json"
    settings = {"seeds": chosen.seeds, "steps": chosen.steps}
    found: dict[str, Any] = {"settings": settings, "rows": {}}
    if path is not None and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    jobs = {one.key: (one, chosen.seeds, chosen.steps) for one in conditions()}
    left = [name for name in jobs if name not in found["rows"]]
    with show_progress("robust") as report, multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        for n, (name, mine) in enumerate(zip(left, pool.imap(measured, [jobs[name] for name in left])), start=1):
            found["rows"][name] = mine
            report(n, len(left), name)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, json.dumps(found, indent=1).encode())
    rows = [row for name in jobs for row in found["rows"][name]]
    print(table(rows))
    if path is not None:
        write_bytes(path.with_suffix(".md"), (table(rows) + "\n").encode())
        figure(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
