"""Particle samplers beside exact samples, and the log firing rates of a Poisson model: four minutes on one core.

    python benchmarks/free_energy/mied.py --out FOLDER

Targets of mollified interaction energy descent (arXiv 2210.13400) with 100 particles and 600 steps (published: 500 to
1,000 and 2,000), ten seeds: W2 and energy distance to five times as many fresh exact samples. Then the density exp(-F)
of the log gains of a Poisson model of eight units, F the free energy of a stimulus, sampled and compared with the
firing rates of the encoder. `--out` also writes mied.json and mied.md, after each target, and mied.png; the same
command continues a run that was stopped.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mied_rates import log_rates, rates_table
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

from spikevae._files import write_bytes
from spikevae.samplers import (
    MIED,
    SVGD,
    Box,
    Constraint,
    Region,
    Sampler,
    Simplex,
    energy_distance,
    wasserstein,
)

PARTICLES, STEPS, TIMES = 100, 600, 5
WINDOW = 5.0
"""Half-width of the box in which particles of heavy tails are compared, as published."""
METHODS: dict[str, Callable[..., Sampler]] = {
    "MIED": MIED,
    "MIED, published diagonal": lambda *a, **k: MIED(*a, fixed_diagonal=True, **k),
    "SVGD": SVGD,
}
EXACT = "exact samples"
Draw = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Target:
    """A density with exact samples."""

    dimension: int
    log_density: Callable[[Tensor], Tensor]
    exact: Draw
    constraint: Constraint | None = None
    window: float = math.inf
    learning_rate: float = 1e-2


def flat(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


def heart(x: Any) -> Any:
    """Zero or below inside."""
    return (x[:, 0] ** 2 + x[:, 1] ** 2 - 1) ** 3 - x[:, 0] ** 2 * x[:, 1] ** 3


def among(draw: Draw, accepted: Callable[[np.ndarray], np.ndarray]) -> Draw:
    """Draws by rejection."""

    def exact(n: int, rng: np.random.Generator) -> np.ndarray:
        found = np.empty((0, 2))
        while len(found) < n:
            drawn = draw(4 * n, rng)
            found = np.concatenate([found, drawn[accepted(drawn)]])
        return found[:n]

    return exact


def gaussian(dimension: int, degrees: float = math.inf, learning_rate: float = 1e-2) -> Target:
    """A Gaussian of covariance A Aᵀ + I / 4, A uniform in (-1, 1), scaled to determinant 1; or a Student t."""
    a = np.random.default_rng(123).uniform(-1, 1, (dimension, dimension))
    covariance = a @ a.T + np.eye(dimension) / 4
    covariance /= np.linalg.det(covariance) ** (1 / dimension)
    precision, root = torch.from_numpy(np.linalg.inv(covariance)).float(), np.linalg.cholesky(covariance)

    def log_density(x: Tensor) -> Tensor:
        squared = (x @ precision * x).sum(-1)
        if math.isinf(degrees):
            return -0.5 * squared
        return -0.5 * (degrees + dimension) * torch.log1p(squared / degrees)

    def exact(n: int, rng: np.random.Generator) -> np.ndarray:
        scale = 1.0 if math.isinf(degrees) else np.sqrt(degrees / rng.chisquare(degrees, size=(n, 1)))
        return rng.normal(size=(n, dimension)) @ root.T * scale

    window = math.inf if math.isinf(degrees) else WINDOW
    return Target(dimension, log_density, exact, window=window, learning_rate=learning_rate)


def standard_normal(dimension: int) -> Target:
    return Target(dimension, lambda x: -0.5 * x.square().sum(-1), lambda n, rng: rng.normal(size=(n, dimension)))


def four_gaussians() -> Target:
    """Four of variance 0.3 at the corners of the box that they are cut by."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        return corners.numpy()[rng.integers(4, size=n)] + math.sqrt(0.3) * rng.normal(size=(n, 2))

    def log_density(x: Tensor) -> Tensor:
        return torch.logsumexp(-(x[:, None] - corners).square().sum(-1) / 0.6, -1)

    return Target(2, log_density, among(draw, lambda x: (np.abs(x) < 1).all(1)), Box(-1, 1))


def dirichlet(*exponents: float) -> Target:
    powers = torch.tensor(exponents) - 1

    def log_density(x: Tensor) -> Tensor:
        return (powers * x.log()).sum(-1) if powers.any() else flat(x)

    return Target(len(exponents), log_density, lambda n, rng: rng.dirichlet(exponents, n).astype(np.float32), Simplex())


TARGETS: dict[str, Target] = {
    "Gaussian, 2 dimensions": gaussian(2),
    "Gaussian, 5 dimensions": gaussian(5, learning_rate=2e-2),
    "standard normal, 8 dimensions": standard_normal(8),
    "Student t, 2 degrees": gaussian(2, 2.0),
    "uniform, box": Target(2, flat, lambda n, rng: rng.uniform(-1, 1, (n, 2)), Box(-1, 1)),
    "uniform, heart": Target(
        2, flat, among(lambda n, rng: rng.uniform(-1.5, 1.5, (n, 2)), lambda x: heart(x) <= 0), Region(heart)
    ),
    "uniform, simplex": dirichlet(1, 1, 1),
    "four Gaussians in a box": four_gaussians(),
    "Dirichlet (2, 3, 5)": dirichlet(2, 3, 5),
}


def cut(x: np.ndarray, window: float) -> np.ndarray:
    return x[(np.abs(x) <= window).all(1)]


def distances(points: np.ndarray, target: Target, rng: np.random.Generator) -> dict[str, float]:
    """To fresh exact samples, five per particle, both inside the window."""
    points = cut(points, target.window)
    truth = np.empty((0, target.dimension))
    while len(truth) < TIMES * len(points):
        truth = np.concatenate([truth, cut(target.exact(TIMES * len(points), rng), target.window)])
    truth = truth[: TIMES * len(points)]
    return {"w2": wasserstein(points, truth), "energy": energy_distance(points, truth)}


def compared(name: str, seeds: int, particles: int, steps: int) -> list[dict[str, Any]]:
    """Distances of each method and seed on one target."""
    target, rows = TARGETS[name], []
    for seed in range(seeds):
        for method, build in METHODS.items():
            began = time.process_time()
            sampler = build(target.log_density, constraint=target.constraint, learning_rate=target.learning_rate)
            points = sampler.sample(particles, steps, dimension=target.dimension, seed=seed)
            seconds = time.process_time() - began
            outside = 0 if target.constraint is None else int(target.constraint.outside(torch.tensor(points)).sum())
            found = distances(points, target, np.random.default_rng([seed, 1]))
            rows.append(
                {"target": name, "method": method, "seed": seed, "outside": outside, "seconds": seconds} | found
            )
        exact = target.exact(particles, np.random.default_rng([seed, 2]))
        found = distances(exact, target, np.random.default_rng([seed, 1]))
        rows.append({"target": name, "method": EXACT, "seed": seed, "outside": 0, "seconds": 0.0} | found)
    return rows


def targets_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds with 95 % intervals, and in how many seeds MIED is nearer than each."""
    lines = [
        "| target | method | W2 | energy distance × 1000 | MIED nearer (W2) | CPU s |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in (name for name in TARGETS if any(row["target"] == name for row in rows)):
        mine = [row for row in rows if row["target"] == name]
        ours = [row["w2"] for row in mine if row["method"] == "MIED"]
        for method in (*METHODS, EXACT):
            found = [row for row in mine if row["method"] == method]
            w2, energy = ([row[key] for row in found] for key in ("w2", "energy"))
            nearer = "–" if method == "MIED" else f"{sum(a < b for a, b in zip(ours, w2))} of {len(ours)}"
            seconds = "–" if method == EXACT else f"{np.mean([row['seconds'] for row in found]):.1f}"
            lines.append(
                f"| {name} | {method} | {shown(interval(w2))} | {shown(interval([1000 * e for e in energy]), 1)} "
                f"| {nearer} | {seconds} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--particles", type=int, default=PARTICLES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--stimuli", type=int, default=10)
    parser.add_argument("--training", type=int, help="training steps of the model; by default the recipe's")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2 or chosen.stimuli < 2:
        parser.error("intervals need --seeds and --stimuli of 2 or more")
    found = started(chosen.out, {name: value for name, value in vars(chosen).items() if name != "out"})

    def kept() -> str:
        text = targets_table(found["targets"]) + ("\n\n" + rates_table(found["rates"]) if found["rates"] else "")
        if chosen.out is not None:
            chosen.out.mkdir(parents=True, exist_ok=True)
            write_bytes(chosen.out / "mied.json", json.dumps(found, indent=1).encode())
            write_bytes(chosen.out / "mied.md", (text + "\n").encode())
        return text

    for name in TARGETS:
        if not any(row["target"] == name for row in found["targets"]):
            found["targets"] += compared(name, chosen.seeds, chosen.particles, chosen.steps)
            kept()
            print(f"{name}: done", file=sys.stderr, flush=True)
    if not found["rates"]:
        found["rates"] = log_rates(chosen.stimuli, chosen.particles, chosen.steps, chosen.training)
    print(kept())
    if chosen.out is not None:
        from mied_figure import draw

        draw(found["targets"], chosen.out / "mied.png", chosen.particles, chosen.steps)


def started(folder: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left in the folder, or none."""
    path = None if folder is None else folder / "mied.json"
    if path is None or not path.exists():
        return {"settings": settings, "targets": [], "rates": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    return found


if __name__ == "__main__":
    main()
