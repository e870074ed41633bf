"""The study of diffusion priors: counts from roots, exact curves, and that its tables have every number."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("diffusion_prior")
    finally:
        sys.path.remove(str(FOLDER))


def test_counts_are_those_of_the_nearest_square_root(study: ModuleType) -> None:
    roots = np.random.default_rng(0).uniform(-1, 5, size=2000)
    expected = np.abs(roots[:, None] - np.sqrt(np.arange(40))).argmin(1)
    np.testing.assert_array_equal(study.nearest_counts(roots), expected)
    np.testing.assert_array_equal(study.nearest_counts(np.sqrt(np.arange(30))), np.arange(30))


def test_exact_curves_have_the_information_of_their_targets(study: ModuleType) -> None:
    curves = study.exact_curves()
    assert curves["standard normal"].information == pytest.approx(0.5 * math.log(101), abs=1e-4)
    assert curves["±1"].information == pytest.approx(math.log(2), abs=1e-4)
    assert "| loss-adaptive | 2.033 | 0.814 | 0.367 | 0.175 |" in study.exact_table()


def test_gaussians_with_equal_variances_are_drawn_exactly_with_matched_noise(study: ModuleType) -> None:
    knots = np.array([0.0, 2.0, 30.0])
    assert study.of_gaussian(np.full(3, 1.7), knots, True) == pytest.approx((0, 0), abs=1e-3)
    nats, w2 = study.of_gaussian(np.array([1.0]), knots, False)
    assert nats == pytest.approx(0.5 * (2 + 28 / 3 - math.log(31)), rel=1e-3)
    drawn = (2 * (1 + 28 / 3) ** 2 + 28) / 31**2  # variance 2 at the first knot
    assert w2 == pytest.approx((math.sqrt(drawn) - math.sqrt(30 / 31)) ** 2, rel=1e-9)


def test_the_study_runs_in_small(study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(study, "STEPS", (2, 3))
    rng = np.random.default_rng(0)
    images = (rng.poisson(0.7, size=(240, 3)) @ rng.normal(size=(3, 16))).astype(np.float32)
    data = SimpleNamespace(train=images[:160], test=images[160:])
    settings = {"units": 5, "training": 20, "denoiser": 20}
    found, pictures = study.started(tmp_path, settings)
    for seed in range(2):
        row, pictures = study.measured(data, seed, settings)
        found["rows"].append(row)
    study.keep(tmp_path, found, pictures)
    assert all(np.isfinite(s["decoded"]) and s["codes"] >= 0 for row in found["rows"] for s in row["samples"])
    lines = study.codes_table(found["rows"]).splitlines()
    assert sum(line.startswith(("| 2 |", "| 3 |")) for line in lines) == 2 * 6
    assert len({line.count("|") for line in lines[6:-2]}) == 1
    assert len(study.gaussian_table(found["rows"]).splitlines()) == 2 + 2 * 6
    again, kept = study.started(tmp_path, settings)
    assert again == found and pictures.keys() == kept.keys()
    with pytest.raises(SystemExit, match="has results of other settings"):
        study.started(tmp_path, {**settings, "units": 6})
