"""Paths along the spike price in a sweep: from the best finished fits, continued when stopped, read by the report."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from sweep_cases import DATA

from spikevae.cli import main
from spikevae.config import SweepConfig
from spikevae.frontier import Frontier, result
from spikevae.frontier.path import price_at
from spikevae.reporting import build_report
from spikevae.sweep import RunFolder, Sweep
from spikevae.sweep.edit import edited
from spikevae.sweep.reading import read_run
from spikevae.training import Interrupted, checkpoint, train

BLOCKS = [
    {"label": "counts", "grid": {"beta": [0.5, 1.0, 2.0], "seed": [0, 1], "start": [-1.0, 0.5]}},
    {"label": "binary", "fit": {"latent": "bernoulli"}, "grid": {"beta": [1.0]}},
    {"label": "real", "fit": {"latent": "rectified_gaussian"}, "grid": {"beta": [1.0]}},
    {"label": "budget", "fit": {"spike_budget": 0.1}, "grid": {"beta": [1.0]}},
]
FIT = {"steps": 20, "n_latents": 4, "batch_size": 50}
FRONTIER = {"prices": 4, "fits": 2.0, "where": {"beta": [0.5, 1.0], "seed": [0]}}


def config(**frontier):
    blocks = [block | {"fit": FIT | block.get("fit", {})} for block in BLOCKS]
    return SweepConfig.from_mapping({"data": DATA, "blocks": blocks, "frontier": FRONTIER | frontier})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Sweep(config()).run(tmp_path_factory.mktemp("paths") / "a", n_jobs=1).path


@pytest.fixture
def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_paths_start_from_the_best_starts_of_the_chosen_fits(run):
    """Of count codes without price or budget, those of the chosen betas and seed; each path begins at its fit."""
    folder = RunFolder(run)
    cells = {cell["id"]: cell for cell in folder.read_cells()}
    paths = sorted(folder.frontiers(), key=lambda one: len(one.cells), reverse=True)
    assert [(one.frontier.label, one.frontier.betas) for one in paths] == [
        ("Poisson", (0.5, 1.0)),
        ("Bernoulli", (1.0,)),
    ]
    for one in paths:
        for name, beta in zip(one.cells, one.frontier.betas, strict=True):
            start, points = cells[name], one.frontier.of(beta)
            same = [c for c in cells.values() if c["block"] == start["block"] and c["config"]["beta"] == beta]
            same = [c["fit_objective"] for c in same if c["config"]["seed"] == 0]
            assert start["fit_objective"] == min(same) and len(same) == (2 if start["block"] == "counts" else 1)
            assert [p.spike_price for p in points] == pytest.approx([beta * price_at(i, 4) for i in range(4)])
            assert points[0].spikes == pytest.approx(start["metrics"]["spikes"], rel=1e-5)
            assert points[0].objective == pytest.approx(start["objective"], rel=1e-5)
            assert points[-1].spikes < points[0].spikes
    assert not list((run / "checkpoints").iterdir())


def test_a_path_of_a_sweep_is_that_of_its_models(run):
    """The same call from Python, with the models of the cells, gives the same points to the bit."""
    folder, sweep = RunFolder(run), Sweep(config())
    one = max(folder.frontiers(), key=lambda one: len(one.cells))
    models = [folder.read_model(name) for name in one.cells]
    train_, test = torch.from_numpy(sweep.data.train), torch.from_numpy(sweep.data.test)
    configs = [model.config for model in models]
    again = Frontier.trace(configs, train_, test, sweep.data.shape, n_prices=4, fits=2.0, models=models)
    assert again == one.frontier


def test_a_complete_run_traces_nothing_and_a_lost_path_is_made_again(copied):
    before = {p: p.read_text() for p in (copied / "frontiers").iterdir()}
    (copied / "cells.parquet").unlink()
    assert Sweep(config()).run(copied, n_jobs=1).n_trained == 0
    times = {p: p.stat().st_mtime_ns for p in before}
    next(iter(before)).unlink()
    Sweep(config()).run(copied, n_jobs=1)
    assert {p: p.read_text() for p in (copied / "frontiers").iterdir()} == before
    assert sum(p.stat().st_mtime_ns != times[p] for p in before) == 1


def test_a_stopped_path_continues(copied, monkeypatch):
    before = {p: p.read_text() for p in (copied / "frontiers").iterdir()}
    for path in before:
        path.unlink()
    calls = []

    def stopping(stack, **options):
        calls.append(stack)
        if len(calls) == 2:  # as on Ctrl-C, in the middle of a price
            train(stack, until=3)
            checkpoint.save(stack, options["checkpoint_path"])
            raise Interrupted("stopped")
        train(stack, **options)

    monkeypatch.setattr(result, "train", stopping)
    with pytest.raises(Interrupted):
        Sweep(config()).run(copied, n_jobs=1)
    assert any((copied / "checkpoints").iterdir())
    Sweep(config()).run(copied, n_jobs=1)
    assert {p: p.read_text() for p in (copied / "frontiers").iterdir()} == before and len(calls) == 7
    assert not list((copied / "checkpoints").iterdir())


@pytest.mark.slow
def test_workers_trace_the_same_paths(run, tmp_path):
    other = Sweep(config()).run(tmp_path / "w", n_jobs=2).path
    ours, theirs = (RunFolder(path).frontiers() for path in (run, other))
    assert [one.cells for one in ours] == [one.cells for one in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert [p.spikes for p in a.frontier.points] == pytest.approx([p.spikes for p in b.frontier.points], rel=1e-2)


def test_progress_counts_the_paths(tmp_path):
    seen = []
    Sweep(config()).run(tmp_path / "p", n_jobs=1, progress=lambda done, total, text: seen.append((done, total, text)))
    assert seen[-1][0] == pytest.approx(seen[-1][1]) and any("spike prices" in text for _, _, text in seen)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_the_report_draws_the_paths(run):
    loaded = read_run(run)
    assert len(loaded.paths) == 3 and all(len(path.points) == 4 for path in loaded.paths)
    text = build_report(run).read_text(encoding="utf-8")
    assert "along a rising spike price, from β = 0.5 and 1 on" in text and "spike price 3.00 nats" in text


DAMAGES = {
    "no points": lambda values: values.update(points=None),
    "a point of text": lambda values: values["points"][0].update(spikes="few"),
    "one fit for two betas": lambda values: values["cells"].pop(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_path_is_named_and_the_remedy_works(copied, damage):
    path = next(p for p in (copied / "frontiers").iterdir() if len(json.loads(p.read_text())["cells"]) == 2)
    values = json.loads(path.read_text())
    DAMAGES[damage](values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{path.name}.*delete it and give the sweep's command again"):
        read_run(copied)
    path.unlink()
    Sweep(config()).run(copied, n_jobs=1)
    assert len(read_run(copied).paths) == 3


@pytest.mark.parametrize(
    ("frontier", "message"),
    [
        ({"prices": 2}, "prices.*greater than or equal to 3"),
        ({"fits": 0}, "fits.*greater than 0"),
        ({"where": {"betta": [1.0]}}, "frontier.where.*did you mean 'beta'"),
        ({"where": {"beta": [3.0]}}, "no fit of a count code without price or budget"),
        ({"where": {"block": ["real", "budget"]}}, "no fit of a count code without price or budget"),
    ],
)
def test_frontiers_without_a_start_are_refused(frontier, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        config(**frontier)


def test_changes_of_a_sweep_reach_its_paths():
    """An option that is replaced is no condition any more; a sweep without count codes has no paths."""
    changed = edited(config(), settings=["beta=[3.0]", "steps=10"], seed=5)
    assert changed.frontier is not None and changed.frontier.where == {"seed": [5]}
    simple = {"data": DATA, "fit": FIT, "grid": {"beta": [1.0]}, "frontier": {}}
    assert edited(SweepConfig.from_mapping(simple), settings=["latent=gaussian"]).frontier is None


def test_the_command_line_reads_the_table(tmp_path, capsys):
    toml = tmp_path / "x.toml"
    toml.write_text(
        '[data]\nsource = "synthetic"\nn = 200\npatch = 4\n[fit]\nsteps = 6\nn_latents = 2\n[grid]\nbeta = [1.0]\n'
        "[frontier]\nprices = 3\n"
    )
    assert main(["sweep", str(toml), "--out", str(tmp_path / "run"), "--jobs", "1", "--no-report"]) == 0
    assert "1 cells in" in capsys.readouterr().out
    assert [len(one.frontier.points) for one in RunFolder(tmp_path / "run").frontiers()] == [3]
