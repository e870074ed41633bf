"""The benchmark of Poisson log-normal models runs in small; its conversions of published figures are right."""

import numpy as np
import population
import pytest
from population_cases import drawn


def test_table_of_a_small_data_set(tmp_path):
    folder = tmp_path / "oaks"
    folder.mkdir()
    Y, _, offsets, _ = drawn(20, 4)
    np.savetxt(folder / "counts.csv", Y, fmt="%d", delimiter=",", header="a,b,c,d", comments="")
    np.savetxt(folder / "offsets.csv", np.exp(offsets), delimiter=",", header="a,b,c,d", comments="")
    (folder / "covariates.csv").write_text("tree,height\n" + "".join(f"{'xyz'[i % 3]},{i}\n" for i in range(20)))
    table = population.compare(tmp_path, None, [1], 1, ["diagonal/tree", "spherical/none"]).splitlines()
    assert len(table) == 4 and table[2].startswith("| diagonal | tree | 1 |")
    assert len({line.count("|") for line in table}) == 1


def test_published_figures_are_converted():
    Y = np.array([[0.0, 1.0], [2.0, 5.0]])
    log_factorials = np.log([1.0, 1.0, 2.0, 120.0]).sum()
    assert population.ramanujan(Y) == pytest.approx(log_factorials, abs=1e-3)
    shift = population.ramanujan(Y) - log_factorials
    assert population.comparable("full/tree", Y) == pytest.approx(population.PUBLISHED["full/tree"] + shift)
    expected = population.PUBLISHED["low rank/tree"] - 2 + shift  # n p / 2
    assert population.comparable("low rank/tree", Y) == pytest.approx(expected)
