"""Energies that are consistent in time, on densities that are known: under ten minutes on two free cores.

    python benchmarks/free_energy/consistent_energies.py --out FOLDER

Two double wells and the Mueller-Brown potential of arXiv 2506.17139, from exact samples (mixtures directly, the
potential by inversion on a grid), each fitted by plain score matching, by networks for three ranges of time, with the
Fokker-Planck residual, and with both. Samples of the reverse diffusion, Langevin chains that start at these samples,
and the equilibrium of the learned energy at the smallest noise (by quadrature on a grid) are compared with the exact
density. `--out` also writes consistent_energies.json and .md after each fit, and .png; the same command continues a run
that was stopped.
"""

import argparse
import itertools
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from consistent_energies_costs import costs, costs_table
from consistent_energies_systems import System, systems

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

from spikevae._files import write_bytes
from spikevae.diffusion import MIXTURE, EnergyDiffusion, VariancePreserving
from spikevae.progress import show_progress

STEPS, POINTS, CHAIN_STEPS, SAMPLING_STEPS = 1500, 5000, 300, 150
STRENGTH, PUBLISHED_STRENGTH = 5e-3, 5e-4
THREE = {"ranges": MIXTURE, "hidden": (52, 52, 52)}
"""As many weights in three networks as in one of the usual size."""
MODELS: dict[str, dict[str, Any]] = {
    "plain": {"strength": 0.0},
    "mixture": {"strength": 0.0, **THREE},
    "Fokker-Planck": {"strength": STRENGTH},
    "Fokker-Planck, 0.0005": {"strength": PUBLISHED_STRENGTH},
    "both": {"strength": STRENGTH, **THREE},
}
EXACT = "exact samples"
EVALUATED = np.linspace(0.005, 0.095, 10)
"""Times at which residuals are evaluated, inside the last range of the mixture."""


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two distributions over bins, nats."""
    middle = (p + q) / 2
    return float(sum(np.sum(part[part > 0] * np.log(part[part > 0] / middle[part > 0])) for part in (p, q)) / 2)


def pmf_error(p: np.ndarray, q: np.ndarray, n: float = math.inf) -> float:
    """Variance under p of the difference of free energies of bins, (kT)²; counts of n points have half a point more."""
    more = 0.5 / n
    gap = np.log((np.maximum(q, np.finfo(float).tiny) + more) / (p + more))
    return float(np.sum(p * (gap - np.sum(p * gap)) ** 2))


def compared(system: System, name: str, shares: np.ndarray, truth: np.ndarray, n: float) -> dict[str, float]:
    """Divergence and error of the free energy of a histogram."""
    return {f"js_{name}": divergence(shares, truth), f"pmf_{name}": pmf_error(truth, shares, n)}


def residuals(model: EnergyDiffusion, system: System, rng: np.random.Generator) -> dict[str, float]:
    """Mean square of R at noisy exact samples, and the part of it that is no function of time alone."""
    found = []
    for t in EVALUATED:
        z = (system.draw(500, rng) - model.mean_) / model.scale_
        a = VariancePreserving().mean_coefficient(torch.tensor(t)).item()
        states = a * z + math.sqrt(1 - a**2) * rng.normal(size=z.shape)
        found.append(model.residual(states * model.scale_ + model.mean_, t))
    values = np.array(found)
    return {"residual": float(np.mean(values**2)), "residual_within": float(np.mean(values.var(1)))}


def measured(job: tuple[str, str, int, int, int]) -> dict[str, Any]:
    """Numbers of one fit."""
    which, kind, seed, steps, n = job
    torch.set_num_threads(1)
    system, rng = systems()[which], np.random.default_rng([seed, 1])
    data, fresh = system.draw(system.n_train, rng), system.draw(n, rng)
    cells = system.cells()
    fine = system.mass(-system.energy(cells))
    truth = system.binned(fine)
    first, far = system.first(cells), system.elsewhere
    row: dict[str, Any] = {"system": which, "model": kind, "seed": seed}
    if kind == EXACT:
        row |= compared(system, "samples", system.counted(fresh), truth, n)
        row |= {"first_samples": float(system.first(fresh).mean()), "first_equilibrium": float(fine[first].sum())}
        return row | {"far_equilibrium": float(fine[far(cells)].sum()) if far else None}
    began = time.process_time()
    model = EnergyDiffusion(n_steps=steps, standardise=system.standardise, random_state=seed, **MODELS[kind]).fit(data)
    row["seconds"] = time.process_time() - began
    samples = model.sample(n, n_steps=SAMPLING_STEPS, random_state=seed)
    chains = model.simulate(n, CHAIN_STEPS, start=samples, random_state=seed)
    mass = system.mass(model.log_density(cells))
    row |= compared(system, "samples", system.counted(samples), truth, n)
    row |= compared(system, "simulated", system.counted(chains), truth, n)
    row |= compared(system, "equilibrium", system.binned(mass), truth, math.inf)
    row |= {
        "first_samples": float(system.first(samples).mean()),
        "first_simulated": float(system.first(chains).mean()),
        "first_equilibrium": float(mass[first].sum()),
        "far_simulated": float(far(chains).mean()) if far else None,
        "far_equilibrium": float(mass[far(cells)].sum()) if far else None,
    }
    return row | residuals(model, system, rng)


def column(rows: list[dict[str, Any]], which: str, kind: str, name: str) -> list[float]:
    """Values of one kind of fit, by seed; empty where they are not defined."""
    mine = sorted((row for row in rows if (row["system"], row["model"]) == (which, kind)), key=lambda row: row["seed"])
    return [row[name] for row in mine if row.get(name) is not None]


def cell(rows: list[dict[str, Any]], which: str, kind: str, name: str, digits: int = 4) -> str:
    values = column(rows, which, kind, name)
    return shown(interval(values), digits) if len(values) > 1 else "–"


def table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, int]]) -> str:
    """Markdown: a row for each system and model."""
    lines = [
        "| system | model | " + " | ".join(columns) + " |",
        "|---|---|" + "--:|" * len(columns),
    ]
    for which, kind in itertools.product(systems(), (*MODELS, EXACT)):
        if len(column(rows, which, kind, "js_samples")) > 1:
            cells = [cell(rows, which, kind, name, digits) for name, digits in columns.values()]
            lines.append(f"| {which} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


DISTANCES = {
    "JS, samples": ("js_samples", 4),
    "JS, simulated": ("js_simulated", 4),
    "JS, equilibrium": ("js_equilibrium", 4),
    "PMF error, samples": ("pmf_samples", 3),
    "PMF error, simulated": ("pmf_simulated", 3),
    "PMF error, equilibrium": ("pmf_equilibrium", 3),
}
PARTS = {
    "first mode, samples": ("first_samples", 3),
    "first mode, simulated": ("first_simulated", 3),
    "first mode, equilibrium": ("first_equilibrium", 3),
    "far from modes, equilibrium": ("far_equilibrium", 5),
    "mean R²": ("residual", 2),
    "of which varies with x": ("residual_within", 2),
    "training over plain": ("ratio", 2),
}


def report_of(found: dict[str, Any]) -> str:
    """All tables."""
    rows = [dict(row) for row in found["rows"].values()]
    plain = {(row["system"], row["seed"]): row["seconds"] for row in rows if row["model"] == "plain"}
    for row in rows:
        if row["model"] != EXACT and (row["system"], row["seed"]) in plain:
            row["ratio"] = row["seconds"] / plain[row["system"], row["seed"]]
    parts = [table(rows, DISTANCES), table(rows, PARTS)]
    return "\n\n".join(parts + ([costs_table(found["costs"])] if found["costs"] else []))


def started(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left, or none."""
    if path is None or not path.exists():
        return {"settings": settings, "rows": {}, "costs": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--points", type=int, default=POINTS, help="samples, and chains")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error("intervals need --seeds of 2 or more")
    path = None if chosen.out is None else chosen.out / "consistent_energies.json"
    found = started(path, {"seeds": chosen.seeds, "steps": chosen.steps, "points": chosen.points})

    def kept() -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, json.dumps(found, indent=1).encode())
            write_bytes(path.with_suffix(".md"), (report_of(found) + "\n").encode())

    if not found["costs"]:
        found["costs"] = costs()
        kept()
    jobs = {
        f"{which}, {kind}, {seed}": (which, kind, seed, chosen.steps, chosen.points)
        for seed, which, kind in itertools.product(range(chosen.seeds), systems(), (*MODELS, EXACT))
    }
    left = {name: job for name, job in jobs.items() if name not in found["rows"]}
    with (
        show_progress("consistent energies") as report,
        ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool,
    ):
        running = {pool.submit(measured, job): name for name, job in left.items()}
        for n, done in enumerate(as_completed(running), start=1):
            found["rows"][running[done]] = done.result()
            report(n, len(left), running[done])
            kept()
    print(report_of(found))
    if path is not None:
        from consistent_energies_figure import draw

        draw(path.with_suffix(".png"), chosen.steps)


if __name__ == "__main__":
    main()
