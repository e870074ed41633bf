"""The study of mutants: scores of Potts chains, tables, intervals and the figure."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutation_cases import MUTANTS, PAIR, OneWay
from scipy.stats import spearmanr

from spikevae.free_energy.mutations import Cycle, PottsPair, parse_mutants

if str(Path(__file__).parents[1] / "benchmarks" / "free_energy") not in sys.path:
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "free_energy"))

from mutations_potts import compared, potts_table, pseudo_likelihood
from mutations_tables import KT, draws_table, held_out, predictions, resampled, scores_table


def test_without_partners_alone_the_score_loses_rank_and_pseudo_likelihoods_are_biased() -> None:
    found = {name: np.array(values) for name, values in compared(90).items()}
    truth = found.pop("truth")
    ranks = {name: spearmanr(values, truth).statistic for name, values in found.items()}
    slopes = {name: np.polyfit(truth, values, 1)[0] for name, values in found.items()}
    np.testing.assert_allclose(found["cycle"], truth, atol=1e-12)
    assert 0.4 < ranks["log odds"] < 0.65  # 0.53 in an independent program
    assert 0.8 < ranks["pseudo"] < 0.95 and 1.5 < slopes["pseudo"] < 1.8  # each pair counts from both of its ends
    assert 0.85 < ranks["frozen"] < 0.98 and 0.9 < slopes["frozen"] < 1.05


def test_pseudo_likelihoods_of_one_residue_are_its_conditional() -> None:
    pair = PottsPair((1, 1), seed=0)
    alone = pair.structure.select("A")
    sequences = torch.tensor([[0], [2]])
    expected = pair.fields[0].log_softmax(0)[[0, 2]]
    np.testing.assert_allclose(pseudo_likelihood(pair, alone, sequences), expected, atol=1e-12)


@pytest.fixture
def found() -> dict[str, Any]:
    """Results in the form of the study, of mutants of nine residues."""
    mutants = parse_mutants(f"{w}{c}{r}{x}" for w, c, r in zip(PAIR.letters, PAIR.chains, PAIR.residues) for x in "WY")
    mutants += MUTANTS[3:]
    terms = Cycle(OneWay(), PAIR, mutants, ("A", "B")).run(6).terms
    rng = np.random.default_rng(0)
    return {
        "settings": {"samples": 50},
        "potts": compared(10),
        "mutants": list(map(str, mutants)),
        "measured": rng.normal(1, 1, len(mutants)).tolist(),
        "read": "19 mutants",
        "contacts": {name: rng.normal(size=len(mutants)).tolist() for name in ("KESO980101", "MIYS960101")},
        "scores": {"terms": terms.tolist()},
        "foldx": rng.normal(size=len(mutants)).tolist(),
        "frozen": rng.normal(size=(2, len(mutants))).tolist(),
        "spread": {"rows": [0, 3], "variances": [1.0, 2.0], "draws": 5},
        "seconds": {"draw": 1.0, "frozen": 2.0},
    }


def test_predictions_are_in_kcal_and_held_out(found: dict[str, Any]) -> None:
    made, ddg = predictions(found), np.array(found["measured"])
    terms = np.array(found["scores"]["terms"]).mean(0)
    score = (terms[0] - terms[1] - terms[2])[0] - (terms[0] - terms[1] - terms[2])[1:]
    np.testing.assert_allclose(made["cycle"], KT * score, atol=1e-9)
    assert abs(KT - 0.592) < 1e-3
    apart = [i for i in range(2, 19) if i not in (2, 3, 18)]  # of other residues than mutants 2 and 3
    rest = [i for i in range(19) if i not in (2, 3)]
    x = np.array([score[i] for i in rest])
    scalar = x @ ddg[rest] / (x @ x)
    np.testing.assert_allclose(made["cycle, fitted scalar"][2], scalar * score[2], atol=1e-9)
    assert len(apart) == 14
    np.testing.assert_allclose(made["mean of mutants of other residues"][2], ddg[rest].mean(), atol=1e-9)


def test_held_out_predictions_ignore_their_own_measurement(found: dict[str, Any]) -> None:
    x, y = np.arange(1.0, 5.0), np.ones(4)
    splits = [(np.array([2, 3]), np.array([0, 1])), (np.array([0, 1]), np.array([2, 3]))]
    before = held_out([x], y, splits)
    np.testing.assert_array_equal(held_out([x], y * [5, 5, 1, 1], splits)[:2], before[:2])


def test_bootstrap_samples_have_whole_groups() -> None:
    groups = ["a", "b", "a", "c"]
    samples = resampled(groups, 200)
    for rows in samples:
        assert (rows == 0).sum() == (rows == 2).sum()
    picks = np.array([[(rows == i).sum() for i in (0, 1, 3)] for rows in samples])
    assert (picks.sum(1) == 3).all() and (abs(picks.mean(0) - 1) < 0.25).all()


def test_tables_and_figure_are_complete(found: dict[str, Any], tmp_path: Path) -> None:
    from mutations_figure import draw

    text = scores_table(found)
    assert text.count("\n| ") == len(predictions(found)) and "nan" not in text
    assert len(predictions(found)) == 14
    assert "19 mutants" in text and "nan" not in draws_table(found)
    assert potts_table(found).count("\n") == 5
    draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
