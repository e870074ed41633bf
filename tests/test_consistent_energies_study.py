"""The study of consistent energies: its densities and exact samples, its measures, and that a row has every number."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import multivariate_normal, norm

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("consistent_energies")
    finally:
        sys.path.remove(str(FOLDER))


def test_wells_have_the_densities_that_they_state(study: ModuleType) -> None:
    line, plane, _ = study.systems().values()
    x = np.linspace(-8, 8, 33)[:, None]
    exact = 0.5 * norm.pdf(x[:, 0], -5) + 0.5 * norm.pdf(x[:, 0], 5)
    np.testing.assert_allclose(np.exp(-line.energy(x)) / math.sqrt(2 * math.pi), exact, rtol=1e-10)
    y = np.hstack([x, -x / 2])
    exact = 0.2 * multivariate_normal([-5, -5]).pdf(y) + 0.8 * multivariate_normal([5, 5]).pdf(y)
    np.testing.assert_allclose(np.exp(-plane.energy(y)) / (2 * math.pi), exact, rtol=1e-10)


def test_mueller_brown_has_its_known_minima(study: ModuleType) -> None:
    """Minima and saddle of the potential as published (Mueller and Brown 1979)."""
    potential = study.systems()["Mueller-Brown"].energy
    points = np.array([[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467], [-0.822, 0.624]])
    np.testing.assert_allclose(23 * potential(points), [-146.70, -108.17, -80.77, -40.66], atol=0.02)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_exact_samples_fill_the_bins(study: ModuleType, which: int) -> None:
    """Chi-square over bins that expect more than 10 samples."""
    system = list(study.systems().values())[which]
    n = 20_000
    points = system.draw(n, np.random.default_rng(0))
    mass = system.mass(-system.energy(system.cells()))
    truth, shares = system.binned(mass), system.counted(points)
    assert truth.sum() == pytest.approx(1) and shares.sum() == pytest.approx(1)
    many = n * truth > 10
    chi = (n * (shares - truth) ** 2 / truth)[many].sum()
    assert abs(chi - many.sum()) < 5 * math.sqrt(2 * many.sum())
    weight = mass[system.first(system.cells())].sum()
    assert abs(system.first(points).mean() - weight) < 4 * math.sqrt(weight * (1 - weight) / n)


def test_distances_of_histograms(study: ModuleType) -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(9), size=2)
    assert study.divergence(p, q) == pytest.approx(jensenshannon(p, q) ** 2)
    gap = np.log(q / p)
    assert study.pmf_error(p, q) == pytest.approx(np.cov(gap, aweights=p, ddof=0))
    assert study.pmf_error(p, 0 * q, 100) < np.inf


def test_the_study_runs_in_small(study: ModuleType) -> None:
    kinds = ("plain", "mixture", "both", study.EXACT)
    rows = {
        f"{which}, {kind}, {seed}": study.measured((which, kind, seed, 6, 50))
        for which in ("double well", "Mueller-Brown")
        for kind in kinds
        for seed in range(2)
    }
    found = {
        "rows": rows,
        "costs": [
            {"dimension": d, "form": f, "ms": 1.0} for d in (1, 2, 5, 10, 30) for f in ("plain", "strong", "weak")
        ],
    }
    distances, parts, costs = study.report_of(found).split("\n\n")
    assert len(distances.splitlines()) == len(parts.splitlines()) == 2 + 2 * len(kinds)
    assert "nan" not in distances + parts and "| 30 | 1.00 | 1.00 | 1.00 | 1.0 | 1.0 |" in costs
    plain = rows["double well, plain, 0"]
    assert 0 <= plain["js_simulated"] <= math.log(2) and plain["residual"] >= plain["residual_within"]
