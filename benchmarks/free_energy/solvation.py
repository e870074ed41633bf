"""A growing solute in a solvent: learned maps beside BAR at equal samples. Under five minutes on 2 cores.

    python benchmarks/free_energy/solvation.py --out solvation

The system of arXiv 2002.04913 scaled down: Lennard-Jones particles in a periodic box around one fixed repulsive (WCA)
solute, which grows from state A to state B. Published: 125 particles in three dimensions, 90,000 samples per state;
here 16 in two, sampled by Metropolis Monte Carlo with Numba (extra `fast`), one chain for four samples, at the
published temperature. Per repeat, with fresh samples of both states: Zwanzig and BAR on all of them, LFEP and LBAR
trained on one half and evaluated on the other. The reference is MBAR with states between. `--out` also writes
solvation.json and solvation.md, after each repeat, and solvation.png; the same command continues a run that was
stopped.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

from spikevae._files import write_bytes
from spikevae.free_energy import Difference, LearnedMap, bar, mbar, zwanzig

PARTICLES, LENGTH, TEMPERATURE = 16, 6.0, 3.2155
RADII = (1.5, 2.1)
"""Of the solute in A and in B, in diameters of a particle; published 2.6 and 2.8 in a box of 6.3."""
STAGES = (1.5, 1.65, 1.8, 1.95, 2.1)
STEP, WARM, GAP, TIMES = 0.5, 100, 20, 4
"""Half-width of a move; sweeps before the first sample of a chain, and between its samples; samples of a chain."""
MAP: dict[str, Any] = {
    "layers": 4,
    "hidden": 32,
    "bins": 16,
    "steps": 300,
    "batch_size": 128,
    "learning_rate": 5e-3,
    "box": [LENGTH, LENGTH],
}
METHODS = ("Zwanzig", "BAR", "LFEP", "LBAR")
CUT = (LENGTH / 2) ** 2
SHIFT = 4 * (CUT**-6 - CUT**-3)
"""Squared range of the solvent's energy, half a box, and its value there."""


@njit
def moved_energy(x, k, place, length, radius):
    """Energy of particle k at a place, with all others and the solute."""
    energy, squared = 0.0, 0.0
    for a in range(place.shape[0]):
        squared += place[a] * place[a]
    if squared < 2 ** (1 / 3) * radius**2:
        inverse = (radius**2 / squared) ** 3
        energy += 4 * (inverse * inverse - inverse) + 1
    for j in range(x.shape[0]):
        if j == k:
            continue
        squared = 0.0
        for a in range(place.shape[0]):
            d = abs(place[a] - x[j, a])
            d = min(d, length - d)
            squared += d * d
        if squared < (length / 2) ** 2:
            inverse = 1 / squared**3
            energy += 4 * (inverse * inverse - inverse) - 4 * ((length / 2) ** -12.0 - (length / 2) ** -6.0)
    return energy


@njit
def sweep(x, sweeps, length, radius, temperature, step, rng):
    """Metropolis moves of one particle at a time, of chains (C, N, D) in place; the share of accepted moves."""
    accepted, place = 0, np.empty(x.shape[2])
    for c in range(x.shape[0]):
        for move in range(sweeps * x.shape[1]):
            k = move % x.shape[1]
            for a in range(x.shape[2]):
                new = x[c, k, a] + step * (2 * rng.random() - 1)
                place[a] = new - length * np.floor(new / length + 0.5)
            change = moved_energy(x[c], k, place, length, radius) - moved_energy(x[c], k, x[c, k], length, radius)
            if change <= 0 or rng.random() < np.exp(-change / temperature):
                x[c, k] = place
                accepted += 1
    return accepted / (x.shape[0] * sweeps * x.shape[1])


def sampled(n: int, radius: float, *seed: int) -> np.ndarray:
    """(n, N, 2) samples at a radius of the solute, n a multiple of `TIMES`."""
    rng = np.random.default_rng([*seed])
    x = rng.uniform(-LENGTH / 2, LENGTH / 2, (n // TIMES, PARTICLES, 2))
    sweep(x, WARM, LENGTH, radius, TEMPERATURE, STEP, rng)
    found = []
    for _ in range(TIMES):
        sweep(x, GAP, LENGTH, radius, TEMPERATURE, STEP, rng)
        found.append(x.copy())
    return np.concatenate(found)


def of_solute(x: Tensor, radius: float) -> Tensor:
    """(n,) energies of particles (n, N, 2) with the solute, in kT; no sample is near the lower limit."""
    squared = x.square().sum(-1).clamp_min(1e-2)
    inverse = (radius**2 / squared) ** 3
    near = squared < 2 ** (1 / 3) * radius**2
    return torch.where(near, 4 * (inverse.square() - inverse) + 1, 0.0).sum(-1) / TEMPERATURE


def of_state(x: Tensor, radius: float) -> Tensor:
    """(n,) energies in kT."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1)
    away = x[:, first] - x[:, second]
    squared = (away - LENGTH * torch.round(away / LENGTH)).square().sum(-1).clamp_min(1e-2)
    inverse = squared**-3
    return torch.where(squared < CUT, 4 * (inverse.square() - inverse) - SHIFT, 0.0).sum(-1) / TEMPERATURE + of_solute(
        x, radius
    )


def u_a(x: Tensor) -> Tensor:
    return of_state(x, RADII[0])


def u_b(x: Tensor) -> Tensor:
    return of_state(x, RADII[1])


def reflections() -> list[Any]:
    """The seven symmetries of the square other than the identity."""
    signs = [(s, t) for s in (1.0, -1.0) for t in (1.0, -1.0)]
    turn = lambda sign, swap: lambda x: (x.flip(-1) if swap else x) * x.new_tensor(sign)
    return [turn(sign, swap) for swap in (False, True) for sign in signs if swap or sign != (1.0, 1.0)]


def row(name: str, found: Difference, seconds: float) -> dict[str, Any]:
    keys = ("estimate", "standard_error", "lower", "upper", "overlap")
    return {"method": name, "seconds": seconds, "flags": list(found.flags)} | {key: getattr(found, key) for key in keys}


def repeat(seed: int, n: int, steps: int) -> dict[str, Any]:
    """Every method on n fresh samples of each state."""
    torch.set_num_threads(1)
    a, b = (sampled(n, radius, seed, state) for state, radius in enumerate(RADII))
    x, y, half = torch.from_numpy(a), torch.from_numpy(b), n // 2
    forward = (of_solute(x, RADII[1]) - of_solute(x, RADII[0])).numpy()
    reverse = (of_solute(y, RADII[0]) - of_solute(y, RADII[1])).numpy()
    rows = [row("Zwanzig", zwanzig(forward), 0.0), row("BAR", bar(forward, reverse), 0.0)]
    kept: dict[str, Any] = {}
    for name in ("LFEP", "LBAR"):
        began = time.process_time()
        learned = LearnedMap(u_a, u_b, seed=seed, symmetries=reflections(), **MAP | {"steps": steps})
        learned.fit(a[:half], b[:half] if name == "LBAR" else None)
        ahead, back = learned.works(a[half:], b[half:])
        found = zwanzig(ahead, back, name=name) if name == "LFEP" else bar(ahead, back, name=name)
        rows.append(row(name, found, time.process_time() - began))
        if name == "LBAR" and seed == 0 and learned.flow_ is not None and back is not None:
            images = learned.flow_(x[half : half + 1])[0]
            works = {"BAR": (forward, reverse), "LBAR": (ahead, back)}
            kept = {
                "place": a[half].tolist(),
                "image": images[0].tolist(),
                "works": {key: [part[:2000].tolist() for part in pair] for key, pair in works.items()},
            }
    return {"seed": seed, "rows": rows, "kept": kept}


def reference(n: int) -> dict[str, Any]:
    """MBAR with n samples of each of the stages."""
    began = time.process_time()
    x = torch.from_numpy(np.concatenate([sampled(n, radius, 1000, k) for k, radius in enumerate(STAGES)]))
    u = np.stack([of_solute(x, radius).numpy() for radius in STAGES])
    return row("MBAR", mbar(u, [n] * len(STAGES)), time.process_time() - began)


def table(found: dict[str, Any]) -> str:
    """Markdown: means over repeats with 95 % intervals."""
    truth, repeats = found["reference"], found["repeats"]
    lines = [
        "| method | estimate | standard error | that of BAR over it | spread of estimates | overlap | lower bound | "
        "upper bound | flagged | CPU s |",
        "|---|" + "--:|" * 9,
    ]
    of = lambda name: [next(r for r in one["rows"] if r["method"] == name) for one in repeats]
    for name in METHODS:
        rows = of(name)
        ratio = [a["standard_error"] / b["standard_error"] for a, b in zip(of("BAR"), rows)]
        mean = lambda key, rows=rows: float(np.mean([r[key] for r in rows]))
        lines.append(
            f"| {name} | {shown(interval([r['estimate'] for r in rows]), 2)} "
            f"| {shown(interval([r['standard_error'] for r in rows]))} "
            f"| {'–' if name == 'BAR' else shown(interval(ratio), 2)} "
            f"| {np.std([r['estimate'] for r in rows], ddof=1):.3f} | {mean('overlap'):.2g} "
            f"| {mean('lower'):.1f} | {mean('upper'):.1f} "
            f"| {sum(bool(r['flags']) for r in rows)} of {len(rows)} | {mean('seconds'):.0f} |"
        )
    lines.append(
        f"| MBAR, {len(STAGES)} states | {truth['estimate']:.3f} | {truth['standard_error']:.3f} | – | – "
        f"| {truth['overlap']:.2g} | {truth['lower']:.1f} | {truth['upper']:.1f} "
        f"| {int(bool(truth['flags']))} of 1 | {truth['seconds']:.0f} |"
    )
    return "\n".join(lines).replace("-inf", "–")


def started(folder: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left in the folder, or none."""
    path = None if folder is None else folder / "solvation.json"
    if path is None or not path.exists():
        return {"settings": settings, "repeats": [], "reference": None}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4000, help="of each state, a multiple of 8")
    parser.add_argument("--steps", type=int, default=MAP["steps"], help="of training")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.repeats < 2 or chosen.samples % 8 or chosen.samples < 80:
        parser.error("give --repeats of 2 or more, and --samples a multiple of 8 from 80 on")
    found = started(chosen.out, {key: getattr(chosen, key) for key in ("samples", "steps")})

    def keep(name: str, content: str) -> None:
        if chosen.out is not None:
            chosen.out.mkdir(parents=True, exist_ok=True)
            write_bytes(chosen.out / name, content.encode())

    done = {one["seed"] for one in found["repeats"]}
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(reference, chosen.samples)] if found["reference"] is None else []
        first = set(jobs)
        jobs += [
            pool.submit(repeat, seed, chosen.samples, chosen.steps)
            for seed in range(chosen.repeats)
            if seed not in done
        ]
        for job in as_completed(jobs):
            if job in first:
                found["reference"] = job.result()
            else:
                found["repeats"] = sorted([*found["repeats"], job.result()], key=lambda one: one["seed"])
            keep("solvation.json", json.dumps(found))
            print(f"{len(found['repeats'])} of {chosen.repeats} repeats", file=sys.stderr, flush=True)
    print(table(found))
    keep("solvation.md", table(found) + "\n")
    if chosen.out is not None:
        from solvation_figure import draw

        draw(found, chosen.out / "solvation.png")


if __name__ == "__main__":
    main()
