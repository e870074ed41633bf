"""The study of energies as classes: its potentials, labels and features, and that a row has every number."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("histogram")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(("name", "bond"), [("morse", 1.2), ("lennard-jones", 2 ** (1 / 6))])
def test_forces_of_pairs_are_minus_the_derivative(study: ModuleType, name: str, bond: float) -> None:
    r, energy, force = study.pair(name, np.random.default_rng(0), 4000)
    order = np.argsort(r[:, 0])
    r, energy, force = r[order, 0], energy[order], force[order, 0]
    steps = np.diff(r) > 1e-5
    middle = (force[1:] + force[:-1]) / 2
    np.testing.assert_allclose((-np.diff(energy) / np.diff(r))[steps], middle[steps], atol=0.02)
    assert r[energy.argmin()] == pytest.approx(bond, abs=1e-3) and np.ptp(energy) > 1


def test_copper_has_energies_and_forces_of_emt(study: ModuleType) -> None:
    pytest.importorskip("ase")
    from ase import Atoms
    from ase.calculators.emt import EMT

    X, energy, force = study.copper(np.random.default_rng(0), 3)
    atoms = Atoms("Cu13", positions=X[1].reshape(13, 3), calculator=EMT())
    assert atoms.get_potential_energy() == pytest.approx(energy[1])
    np.testing.assert_allclose(atoms.get_forces().ravel(), force[1], atol=1e-8)


def test_features_of_clusters_do_not_change_under_symmetries(study: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    module = study.Cluster(generator).double()
    x = 3 * torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    moved = (x @ turn + 1.5)[:, [3, 1, 4, 0, 2]]
    torch.testing.assert_close(module(moved.flatten(1)), module(x.flatten(1)))
    assert (module(x.flatten(1))[0] - module(x.flatten(1))[1]).abs().max() > 1e-3


def test_the_study_runs_in_small(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "TRAIN", 40)
    monkeypatch.setattr(study, "TEST", 20)
    rows = [study.measured(("morse", loss, seed, 4)) for loss in study.LOSSES for seed in range(2)]
    assert all(row["spearman"] is None for row in rows if row["loss"] == "squared")
    assert all(0 <= row["covered_0.5"] <= row["covered_0.9"] <= 1 and row["force"] > 0 for row in rows)
    lines = study.table(rows).splitlines()
    assert len(lines) == 2 + 3 and all(line.count("|") == 10 for line in lines)
