"""The study of outliers: what replaces stimuli, and that a row has every number."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("robust")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("kind", ["noise", "occluded", "inverted"])
def test_the_share_of_outliers_is_replaced(study: ModuleType, kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(400, 64)).astype("float32")
    found, outlier = study.contaminated(x, kind, 0.05)
    assert outlier.sum() == 20 and found.dtype == np.float32
    changed = (found != x).sum(1)
    assert (changed[~outlier] == 0).all() and (changed[outlier] == (25 if kind == "occluded" else 64)).all()
    if kind == "noise":
        assert abs(found[outlier].std() / x.std() - 3) < 0.2
    if kind == "inverted":
        assert (found[outlier] == -x[outlier]).all()


def test_conditions_differ_and_each_has_its_plain_fit(study: ModuleType) -> None:
    found = list(study.conditions())
    assert len({one.key for one in found}) == len(found)
    assert all(one._replace(m=1, t=1.0, form="") in found for one in found)


def test_the_study_runs_in_small(study: ModuleType) -> None:
    plain = study.Condition("noise", 0.1, 1, 1.0)
    chosen = (plain, plain._replace(t=0.97), plain._replace(t=0.97, form=study.ALONE))
    rows = [row for one in chosen for row in study.measured((one, 2, 4))]
    assert rows[0]["weight"] == rows[1]["weight_outliers"] == 1
    assert all(row["weight_outliers"] < row["weight"] for row in rows if row["t"] < 1)
    assert rows[2]["free_energy"] != rows[4]["free_energy"]
    lines = study.table(rows).splitlines()
    assert len(lines) == 2 + 3 and all(line.count("|") == 9 for line in lines)
    assert study.cosine(np.eye(3), np.eye(3)[::-1]) == 1
