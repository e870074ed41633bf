"""The study of ensembles: intervals of mixtures, their score, and the similarity of dictionaries."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import norm

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def regression() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("ensembles_regression")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def vaes(regression: ModuleType) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("ensembles_vaes")
    finally:
        sys.path.remove(str(FOLDER))


def test_intervals_hold_their_share_of_the_mixture(regression: ModuleType) -> None:
    """Of one Gaussian, two standard deviations on either side; of several, the share by the distribution function."""
    low, high = regression.central_interval(np.array([[3.0]]), 2.0)
    assert (low.item(), high.item()) == (pytest.approx(-1, abs=0.001), pytest.approx(7, abs=0.001))
    means = np.random.default_rng(0).normal(size=(5, 7)) * 10
    low, high = regression.central_interval(means, 0.5)
    below, above = norm.cdf(low, means, 0.5).mean(0), norm.sf(high, means, 0.5).mean(0)
    np.testing.assert_allclose([below, above], (1 - 0.9545) / 2, rtol=1e-6)


def test_the_interval_score_is_least_for_the_true_quantiles(regression: ModuleType) -> None:
    y = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    scores = {
        half: regression.interval_score(y, np.full_like(y, -half), np.full_like(y, half)) for half in (1.8, 2, 2.2)
    }
    assert min(scores, key=scores.__getitem__) == 2
    beyond = 2 * (norm.pdf(1.8) - 1.8 * norm.sf(1.8))  # E (y - 1.8)+ on both sides
    assert scores[1.8] == pytest.approx(3.6 + 2 / 0.0455 * beyond, rel=1e-3)


def test_similarity_does_not_depend_on_the_order_of_atoms(vaes: ModuleType) -> None:
    atoms = np.random.default_rng(0).normal(size=(6, 20))
    order = np.random.default_rng(1).permutation(6)
    assert vaes.similarity(atoms, 3 * atoms[order]) == pytest.approx(1)
    assert vaes.similarity(np.eye(3), np.eye(3)[[2, 0, 1]] + np.eye(3)[[0, 1, 2]]) == pytest.approx(0.5**0.5)
