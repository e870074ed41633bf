"""What notebooks show: models, metrics, runs and frontiers as tables whose text is escaped."""

import math
from dataclasses import fields
from html.parser import HTMLParser

import numpy as np
import pytest
import sklearn
from report_cases import grid, write_path, write_run

import spikevae as sv
from spikevae._html import html_table
from spikevae._text import shown


class Table(HTMLParser):
    """Rows of the tables in a piece of HTML, as text."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        self.open = tag in ("td", "th")

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, text):
        if self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += text


@pytest.fixture(scope="module")
def m(stimuli):
    return sv.SpikeVAE(n_latents=6, steps=40, batch_size=50, spike_budget=1000.0, random_state=0).fit(stimuli)


def test_text_is_escaped():
    text = html_table("<script>", ["a & b"], [["<b>"]], note="</p>")
    assert Table(text).rows == [["a & b"], ["<b>"]] and "<script>" not in text and "<b>" not in text


def test_a_fitted_model_adds_its_fit_to_the_diagram_of_scikit_learn(m, stimuli):
    for text in (m._repr_mimebundle_()["text/html"], m._repr_html_()):
        assert "sk-top-container" in text
        rows = Table(text).rows
        assert (
            ["code", "poisson", ""] in rows and ["latent units", "6", ""] in rows and ["trained", "40", "steps"] in rows
        )
        assert ["objective", shown(m.history_["objective"][-1], 4), "nats per stimulus"] in rows
        assert ["expected spikes", shown(m.history_["spikes"][-1], 4), "spikes per stimulus"] in rows
        assert m.budget_.describe().split(":")[0][:20] in text
    assert "latent units" not in sv.SpikeVAE()._repr_html_()
    coder = sv.SparseCoder(n_latents=4, steps=4, random_state=0).fit(stimuli)
    assert any(row[0] == "active units" for row in Table(coder._repr_html_()).rows)
    with sklearn.config_context(display="text"):
        assert not hasattr(m, "_repr_html_") and "text/html" not in m._repr_mimebundle_()


def test_metrics_are_a_table_of_every_number():
    metrics = sv.Metrics.undefined(r2=0.5, joules=2e-9)
    head, *rows = Table(metrics._repr_html_()).rows
    assert head == ["metric", "value", "unit", "better", "definition"]
    assert [row[0] for row in rows] == [f.name for f in fields(sv.Metrics)]
    values = {row[0]: row[1:4] for row in rows}
    assert values["r2"] == ["0.5000", "mean over stimuli", "↑"] and values["joules"] == [
        "2×10⁻⁹",
        "J per stimulus",
        "↓",
    ]
    assert values["kl"] == ["-", "nats per stimulus", ""]


def test_a_run_is_a_table_of_its_first_fits(tmp_path):
    fits = grid(("poisson", "gaussian"), betas=(0.1, 1.0, 8.0))
    folder = write_run(tmp_path / "run", [("<i>own</i>", fits)], models=False)
    write_path(folder, "poisson", 16, 1.0)
    run = sv.RunFolder(folder)
    text = run._repr_html_()
    head, *rows = Table(text).rows
    assert len(rows) == 20 and f"and {len(fits) - 20} more" in text
    assert rows[0][head.index("block")] == "<i>own</i>" and "<i>" not in text
    first = run.rows()[0]
    assert rows[0][head.index("r2_pooled")] == shown(first["r2_pooled"], 4)
    assert rows[-1][head.index("spikes")] == "-" or math.isfinite(first["spikes"])
    (one,) = run.frontiers()
    table = Table(one.frontier._repr_html_()).rows
    assert len(table) == 1 + len(one.frontier.points) and table[1][0] == shown(1.0, 4)
    assert "the knee is" in one.frontier._repr_html_() or "has no knee" in one.frontier._repr_html_()


def test_a_run_that_cannot_be_read_says_so(tmp_path):
    folder = write_run(tmp_path / "run", [("own", grid(("poisson",), betas=(1.0,)))], models=False)
    next((folder / "cells").iterdir()).write_text("{")
    assert "the cell is trained again" in sv.RunFolder(folder)._repr_html_()
    assert "is not a run folder" in sv.RunFolder(tmp_path / "nothing")._repr_html_()


def test_what_a_sweep_did_is_shown(tmp_path):
    data = {"source": "synthetic", "n": 200, "patch": 4}
    sweep = sv.Sweep.from_grid({"beta": [1.0]}, fit={"n_latents": 4, "steps": 4}, data=data)
    text = sweep.run(tmp_path / "run", n_jobs=1)._repr_html_()
    assert "1 of 1 fits trained now" in text and Table(text).rows[-1][1:4] == ["poisson", "4", "1"]
    assert np.isfinite(float(Table(text).rows[-1][6]))
