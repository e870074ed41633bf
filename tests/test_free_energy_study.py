"""The study of a growing solute: its chains follow the energies that its maps see; table and figure are complete."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SCORE

pytest.importorskip("numba")
if str(Path(__file__).parents[1] / "benchmarks" / "free_energy") not in sys.path:
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "free_energy"))

import solvation
from solvation import LENGTH, PARTICLES, RADII, TEMPERATURE, moved_energy, of_solute, of_state, reflections, sweep


def test_moves_have_the_energy_of_the_state() -> None:
    rng = np.random.default_rng(0)
    x = solvation.sampled(8, RADII[1], 5)
    before = of_state(torch.from_numpy(x), RADII[1])
    for c in range(len(x)):
        k, place = int(rng.integers(PARTICLES)), rng.uniform(-LENGTH / 2, LENGTH / 2, 2)
        change = moved_energy(x[c], k, place, LENGTH, RADII[1]) - moved_energy(x[c], k, x[c, k], LENGTH, RADII[1])
        moved = x[c].copy()
        moved[k] = place
        away = np.abs(moved - place)
        if (np.hypot(*np.minimum(away, LENGTH - away).T)[np.arange(PARTICLES) != k] < 0.2).any():
            continue  # beyond the lower limit of distances, where energies are those of the limit
        exact = float(of_state(torch.from_numpy(moved[None]), RADII[1])[0] - before[c]) * TEMPERATURE
        assert change == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_a_particle_alone_follows_its_density() -> None:
    """Mean energy with the solute, against a sum over a grid."""
    n, radius = 4000, 1.5
    x = np.random.default_rng(1).uniform(-LENGTH / 2, LENGTH / 2, (n, 1, 2))
    sweep(x, 150, LENGTH, radius, TEMPERATURE, 1.5, np.random.default_rng(2))
    grid = (np.arange(1200) + 0.5) / 1200 * LENGTH - LENGTH / 2
    points = torch.from_numpy(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 1, 2))
    energy = of_solute(points, radius).numpy()
    weight = np.exp(-energy)
    exact, found = (energy * weight).sum() / weight.sum(), of_solute(torch.from_numpy(x), radius).numpy()
    assert abs(found.mean() - exact) < SCORE * found.std() / math.sqrt(n)
    assert exact > 0.01


def test_reflections_change_no_energy_and_are_all_different() -> None:
    x = torch.from_numpy(solvation.sampled(4, RADII[0], 7))
    images = [turn(x) for turn in reflections()]
    assert len(images) == 7
    for image in images:
        torch.testing.assert_close(of_state(image, RADII[0]), of_state(x, RADII[0]))
    assert len({tuple(image.flatten()[:4].tolist()) for image in [x, *images]}) == 8


def test_a_small_run_gives_table_and_figure(tmp_path: Path) -> None:
    from solvation_figure import draw

    found = {"reference": solvation.reference(40), "repeats": [solvation.repeat(seed, 80, 2) for seed in (0, 1)]}
    text = solvation.table(found)
    assert text.count("\n| ") == 5 and all(f"| {name} |" in text for name in solvation.METHODS)
    draw(found, tmp_path / "solvation.png")
    assert (tmp_path / "solvation.png").read_bytes().startswith(b"\x89PNG")
