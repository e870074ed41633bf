"""Sentences of the report: is sparsity special to counts, and which code is cheapest?"""

import json
import math

import numpy as np
import pytest
from report_cases import grid, write_path, write_run

from spikevae.reporting import headline
from spikevae.reporting.panels import code_histogram
from spikevae.reporting.sections import all_figures
from spikevae.reporting.summary import Trace, reached, target_of, traces
from spikevae.sweep.reading import read_run


def zeros_of(folder, change):
    """Set the zeros of every fit: a function of its law and beta."""
    for path in (folder / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        cell["metrics"]["fraction_zeros"] = change(cell["config"]["latent"], cell["config"]["beta"])
        path.write_text(json.dumps(cell))


@pytest.mark.parametrize(
    ("poisson", "control", "text"),
    [
        ((0.5, 0.9), (0.45, 0.46), "; this is special to counts: the rectified Gaussian loses R² as well"),
        ((0.5, 0.9), (0.1, 0.5), "only approach the 50 % of an empty code"),
        ((0.5, 0.9), (0.4, 0.8), "; this is not special to counts"),
        ((0.9, 0.9), (0.5, 0.5), "without making it clearly sparser"),
    ],
)
def test_the_answer_says_whether_sparsity_is_special_to_counts(tmp_path, poisson, control, text):
    folder = write_run(tmp_path / "r", [("own", grid(sizes=(8,), betas=(0.1, 1.0), starts=(0.5,)))], models=False)
    ends = {"poisson": poisson, "rectified_gaussian": control}
    zeros_of(folder, lambda law, beta: ends[law][beta == 1.0])
    assert text in headline(folder)[0]


def test_a_path_along_the_spike_price_can_be_the_cheapest_code(tmp_path):
    """Two betas of R2 .6 and .2; from the first a path keeps .4 with fewer spikes than the line between them."""
    configs = grid(("poisson",), (8,), (0.1, 1.0), (0,), (0.5,))
    folder = write_run(tmp_path / "r", [("own", configs)], models=False)
    for path in (folder / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        low = cell["config"]["beta"] == 1.0
        cell["metrics"] |= {"r2_pooled": 0.2 if low else 0.6, "spikes": 10.0 if low else 1000.0}
        path.write_text(json.dumps(cell))
    assert "price" not in headline(folder)[2]
    write_path(folder, "poisson", 8, 0.1)
    own = traces(read_run(folder), 8)[0]
    assert [one.name for one in own] == ["Poisson", "Poisson at a spike price"]
    assert reached(own[0], 0.4) == pytest.approx(100.0) and reached(own[1], 0.55) == pytest.approx(90 * 0.3 ** (1 / 30))
    assert "Poisson at a spike price needs" in headline(folder)[2]
    text = next(f.note for f in all_figures(read_run(folder)) if f.id == "frontiers")
    assert "along a rising spike price, from β = 0.1 on" in text


def test_codes_of_little_fidelity_do_not_set_the_fidelity_to_compare_at():
    """Two of three families reach 0.6, one 0.05 alone: they are compared at 0.35, the middle of 0.05 to 0.6."""
    good, bad = (Trace("", np.array([0.0, top]), np.array([1.0, 9.0])) for top in (0.61, 0.06))
    assert target_of([[good], [good], [bad]]) == 0.35
    assert target_of([[good], [bad], [bad]]) == 0.05 and target_of([]) is None


def test_the_cheapest_code_is_found_between_betas(tmp_path):
    """R2 of 0.2 and 0.6 at 10 and 1000 spikes: 0.4 needs 100 on a straight line of log spikes; a dearer code 200."""
    configs = [c for price in (0.0, 0.1) for c in grid(("poisson",), (8,), (0.1, 1.0), (0,), (0.5,), spike_price=price)]
    folder = write_run(tmp_path / "r", [("own", configs)], models=False)
    for path in (folder / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        low = cell["config"]["beta"] == 1.0
        times = 1 if cell["config"]["spike_price"] else 2
        cell["metrics"] |= {"r2_pooled": 0.2 if low else 0.6, "spikes": times * (10.0 if low else 1000.0)}
        path.write_text(json.dumps(cell))
    plain, priced = (own[0] for own in traces(read_run(folder), 8).values())
    assert [reached(one, 0.4) for one in (plain, priced)] == pytest.approx([200.0, 100.0])
    assert math.isnan(reached(plain, 0.7))
    assert headline(folder)[2].startswith("For R² of 0.35 or more (K = 8) Poisson (spike price 0.1) needs 56 spikes")


def test_the_histogram_of_a_binary_code_shows_its_one_bin(tmp_path):
    folder = write_run(tmp_path / "r", [("own", grid(("bernoulli",), (8,), (1.0,), (0,), (0.5,)))], models=False)
    path = next((folder / "cells").glob("*.json"))
    cell = json.loads(path.read_text())
    cell["code_histogram"] = {"edges": [0.5, 1.5], "mass": [0.25], "zero": 0.75}
    path.write_text(json.dumps(cell))
    run = read_run(folder)
    bins, zero = code_histogram(run, run.families[0]).lines
    assert (bins.x.tolist(), bins.y.tolist(), bins.marker) == ([1.0], [0.25], "o") and zero.marker == "*"
