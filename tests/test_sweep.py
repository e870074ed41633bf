"""Run folders of sweeps: they continue, name damage, and refuse what does not belong to them."""

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sweep_cases import DATA, tiny

from spikevae.cli.single import evaluate_file, load_for
from spikevae.data import load_config
from spikevae.evaluation.readout import readout
from spikevae.models import load_model
from spikevae.reporting import build_report
from spikevae.sweep import RunFolder, Sweep


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a"
    return tiny().run(folder, n_jobs=1)


TWO = Sweep.from_grid({"beta": [1.0, 2.0]}, fit={"steps": 4, "n_latents": 2}, data=DATA)


@pytest.fixture(scope="module")
def two_trained(tmp_path_factory):
    return TWO.run(tmp_path_factory.mktemp("two") / "run", n_jobs=1).path


@pytest.fixture
def two(two_trained, tmp_path):
    """The folder of a run of `TWO`, for one test to damage."""
    return Path(shutil.copytree(two_trained, tmp_path / "two"))


def test_every_cell_is_there_once(run):
    folder = RunFolder(run.path)
    assert run.n_cells == run.n_trained == 8
    table = pq.read_table(folder.path / "cells.parquet")
    assert table.num_rows == 8 and len(set(table["id"].to_pylist())) == 8
    assert set(table["convergence"].to_pylist()) <= {"converged", "not converged", "rate not identified"}
    for cell in folder.read_cells():
        model, _ = load_model(folder.model_path(cell["id"]))
        assert model.config.model_dump(mode="json") == cell["config"] and model.n_latents == 4
    assert np.load(folder.path / "examples.npy").shape == (16, 64)


def test_every_cell_says_what_a_read_out_of_its_code_learns(run):
    """The same as from its model and the held-out stimuli."""
    folder = RunFolder(run.path)
    stimuli = load_config(folder.sweep().data).test
    for cell in folder.read_cells():
        model, _ = load_model(folder.model_path(cell["id"]))
        expected = readout(model, stimuli, seed=cell["config"]["seed"])
        counts = cell["config"]["latent"] == "poisson"
        assert cell["readout"]["stimuli"] == expected.stimuli and (expected.joules is not None) == counts
        assert cell["readout"]["r2_limit"] == pytest.approx(expected.r2_limit, rel=1e-9)
        if counts:
            assert cell["readout"]["joules"] == pytest.approx(expected.joules, rel=1e-9)


def test_the_table_is_read_in_memory(run, monkeypatch):
    folder = RunFolder(run.path)
    kept = pq.read_table(folder.path / "cells.parquet")
    assert folder.table.schema.equals(kept.schema) and str(folder.table.to_pylist()) == str(kept.to_pylist())
    assert folder.table.schema.field("kl").metadata == {b"unit": b"nats per stimulus"}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'spikevae\[pandas\]'"):
        folder.to_pandas()


def test_the_table_as_a_data_frame(run):
    pytest.importorskip("pandas")
    frame = RunFolder(run.path).to_pandas()
    assert len(frame) == 8 and set(frame["latent"]) == {"poisson", "rectified_gaussian"}


def test_second_run_trains_nothing(run):
    before = {p: p.stat().st_mtime_ns for p in (run.path / "cells").iterdir()}
    again = tiny().run(run.path, n_jobs=1)
    assert again.n_trained == 0
    assert {p: p.stat().st_mtime_ns for p in (run.path / "cells").iterdir()} == before


def test_a_changed_grid_is_refused_with_the_difference(run):
    with pytest.raises(ValueError, match=r"blocks\[0\]\.fit\.steps: 20 -> 30"):
        tiny(fit={"steps": 30, "n_latents": 4, "batch_size": 50}).run(run.path)
    assert RunFolder(run.path).sweep().blocks[0].fit["steps"] == 20


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"not empty and holds no sweep"):
        tiny().run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_lost_cell_is_made_again_to_the_bit(run, tmp_path):
    """The plan of stacks depends on the grid alone, so even one missing cell comes back as it was."""
    fresh = tiny().run(tmp_path / "b", n_jobs=1)
    path = next((fresh.path / "cells").iterdir())
    first = json.loads(path.read_text())
    path.unlink()
    assert tiny().run(fresh.path, n_jobs=1).n_trained == 1
    second = json.loads(path.read_text())
    for cell in (first, second):
        cell.pop("seconds"), cell.pop("checksum")
    assert first == second


@pytest.mark.slow
def test_workers_and_this_process_agree(run, tmp_path):
    """To rounding: the workers have one thread, this process torch's own number."""
    other = tiny().run(tmp_path / "w", n_jobs=2)
    ours, theirs = (pq.read_table(r.path / "cells.parquet").to_pylist() for r in (run, other))
    for a, b in zip(ours, theirs, strict=True):
        assert a["id"] == b["id"]
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-3)


def test_progress_counts_up_to_the_total(tmp_path):
    seen = []
    tiny().run(tmp_path / "p", n_jobs=1, progress=lambda done, total, text: seen.append((done, total)))
    assert seen[-1][0] == pytest.approx(seen[-1][1]) and all(a[0] <= b[0] for a, b in pairwise(seen))


BROKEN = {
    "no list": lambda config: config.update(cells=None),
    "no cells": lambda config: config.update(cells=[{}]),
    "a path": lambda config: config["cells"][0].update(id="../../x"),
    "twice": lambda config: config["cells"].append(config["cells"][0]),
    "no sweep": lambda config: config.update(sweep=[]),
    "no data": lambda config: config["sweep"].update(data=None),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_configurations_of_others_are_refused_in_words(run, tmp_path, damage):
    config = json.loads((run.path / "config.json").read_text())
    BROKEN[damage](config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json is not a 'spikevae run 1' file: .*put back a copy"):
        RunFolder(tmp_path).read_cells()


def test_a_write_that_failed_leaves_the_folder_usable(tmp_path):
    (tmp_path / "config.json.123.tmp").touch()
    RunFolder(tmp_path).begin(tiny().config)
    assert RunFolder(tmp_path).sweep() == tiny().config and not RunFolder(tmp_path).has_results


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        RunFolder(tmp_path).read_config()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is not a 'spikevae run 1' file"):
        RunFolder(tmp_path).read_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        RunFolder(tmp_path).read_config()


def test_a_diverged_cell_is_stored_flagged_and_reported(tmp_path):
    """beta = 3e38 overflows float32: that cell has no numbers, its neighbours have theirs, and the page is written."""
    fit = {"steps": 20, "n_latents": 4, "batch_size": 50}
    run = Sweep.from_grid({"beta": [0.5, 1.0, 3e38], "start": [-1.0, 0.5]}, fit=fit, data=DATA)
    folder = RunFolder(run.run(tmp_path / "d", n_jobs=1).path)
    rows = pq.read_table(folder.path / "cells.parquet").to_pylist()
    bad = [row for row in rows if row["beta"] > 1e30]
    assert all(row["diverged"] and row["convergence"] == "not converged" for row in bad) and len(bad) == 2
    good = [row for row in rows if row["beta"] < 1e30]
    assert all(np.isfinite(row["free_energy"]) and not row["diverged"] for row in good) and len(good) == 4
    assert "(2 diverged)" in build_report(folder.path).read_text(encoding="utf-8")


def test_a_model_of_a_sweep_knows_its_data(run):
    """Evaluated on the held-out stimuli of its own sweep, it gives the sweep's own numbers."""
    folder = RunFolder(run.path)
    cell = folder.read_cells()[0]
    path = folder.model_path(cell["id"])
    metrics = evaluate_file(path, load_for(path, None, patch=None, n=None, seed=None)).metrics
    assert metrics.free_energy == pytest.approx(cell["metrics"]["free_energy"], rel=1e-6)


DAMAGES = {
    "missing": lambda cell: cell.pop("fit_objective"),
    "text for a number": lambda cell: cell["metrics"].update(kl="much"),
    "text for an objective": lambda cell: cell.update(objective="low"),
    "no metrics": lambda cell: cell.update(metrics=[]),
    "another cell": lambda cell: cell.update(id="0" * 12),
    "unknown law": lambda cell: cell["config"].update(latent="poison"),
    "true for a size": lambda cell: cell["config"].update(n_latents=True),
    "text of a number": lambda cell: cell["config"].update(beta="1"),
    "no size": lambda cell: cell["config"].pop("n_latents"),
    "a number beyond all": lambda cell: cell.update(fit_objective=10**400),
    "text for steps": lambda cell: cell["config"].update(steps="x"),
    "a list for a price": lambda cell: cell["config"].update(spike_price=[1]),
    "a list for a history": lambda cell: cell.update(history=[1]),
    "text for a histogram": lambda cell: cell.update(code_histogram="x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cell_file_is_named_and_the_remedy_works(two, damage):
    path = sorted((two / "cells").iterdir())[0]
    cell = json.loads(path.read_text())
    DAMAGES[damage](cell)
    path.write_text(json.dumps(cell))
    for reader in (RunFolder(two).write_table, lambda: build_report(two)):
        with pytest.raises(ValueError, match=rf"(?s){path.name}.*delete it.*trained again"):
            reader()
    path.unlink()
    assert TWO.run(two, n_jobs=1).n_trained == 1


def test_other_damage_is_named_and_the_remedy_works(two):
    for name in ("data.json", "examples.npy"):
        path = two / name
        path.write_bytes(b"{")
        with pytest.raises(ValueError, match=rf"{name}.*delete it and give the sweep's command again"):
            build_report(two)
        path.unlink()
        assert TWO.run(two, n_jobs=1).n_trained == 0 and path.is_file()
    build_report(two)
    path = sorted((two / "models").iterdir())[0]
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match=rf"{path.name}.*delete it to leave out its pictures.*trained again"):
        build_report(two)
    path.unlink()
    build_report(two)
    (two / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json.*put back a copy of it, or run the sweep into another folder"):
        TWO.run(two)


def test_a_run_takes_no_other_stimuli(tmp_path):
    """The file is the same by name, and has other contents: what is missing is not trained on those."""
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    np.save(tmp_path / "rows.npy", rows)
    source = {"source": f"array:{tmp_path / 'rows.npy'}"}
    run = Sweep.from_grid({"beta": [1.0, 2.0]}, fit={"steps": 4, "n_latents": 2}, data=source)
    path = run.run(tmp_path / "x", n_jobs=1).path
    np.save(tmp_path / "rows.npy", rows[::-1])
    assert Sweep(run.config).run(path, n_jobs=1).n_trained == 0  # nothing is asked of the stimuli
    cells = sorted((path / "cells").iterdir())
    cells[0].unlink()
    with pytest.raises(ValueError, match="begun with other stimuli"):
        Sweep(run.config).run(path, n_jobs=1)
    cells[1].unlink()
    assert Sweep(run.config).run(path, n_jobs=1).n_trained == 2  # with nothing to go on from, any stimuli will do


def test_a_run_of_before_digests_gets_one(two):
    record = json.loads((two / "data.json").read_text())
    digest = record.pop("digest")
    record.pop("checksum")
    (two / "data.json").write_text(json.dumps(record))
    next((two / "cells").iterdir()).unlink()
    assert TWO.run(two, n_jobs=1).n_trained == 1
    assert json.loads((two / "data.json").read_text())["digest"] == digest


def test_a_complete_run_needs_no_stimuli(tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(200, 16)).astype("float32"))
    source = {"source": f"array:{tmp_path / 'rows.npy'}"}
    run = Sweep.from_grid({"beta": [1.0, 2.0]}, fit={"steps": 4, "n_latents": 2}, data=source)
    path = run.run(tmp_path / "x", n_jobs=1).path
    (tmp_path / "rows.npy").unlink()
    assert Sweep(run.config).run(path, n_jobs=1).n_trained == 0
    (path / "examples.npy").unlink()
    with pytest.warns(UserWarning, match=r"the report shows no stimuli.*rows\.npy"):
        assert Sweep(run.config).run(path, n_jobs=1).n_trained == 0
    build_report(path)


def test_a_cell_with_fewer_metrics_costs_the_table_no_column(two):
    names = pq.read_table(two / "cells.parquet").column_names
    first = RunFolder(two).cell_path(TWO.cells[0].id)
    cell = json.loads(first.read_text())
    cell["metrics"] = {"kl": 1.0}
    cell.pop("checksum")
    first.write_text(json.dumps(cell))
    table = pq.read_table(RunFolder(two).write_table())
    assert set(table.column_names) == set(names) and np.isnan(table["free_energy"].to_numpy()[0])


def test_a_sweep_warns_of_what_changes_nothing_and_of_an_odd_scale(tmp_path):
    np.save(tmp_path / "rows.npy", 100 * np.random.default_rng(0).normal(size=(200, 16)).astype("float32"))
    grid = {"latent": ["poisson", "gaussian"], "likelihood": ["gaussian"]}
    fit = {"steps": 4, "n_latents": 2, "hidden": [8], "prior": "fixed"}
    sweep = Sweep.from_grid(grid, fit=fit, data={"source": f"array:{tmp_path / 'rows.npy'}"})
    with pytest.warns(UserWarning) as seen:
        sweep.run(tmp_path / "x", n_jobs=1)
    texts = [str(one.message) for one in seen]
    assert len(texts) == 2 and "'hidden' changes nothing" in texts[0] and "root mean square" in texts[1]


def test_a_sweep_that_cannot_load_its_data_makes_no_folder(tmp_path):
    sweep = Sweep.from_grid({"beta": [1.0]}, data={"source": f"folder:{tmp_path / 'nowhere'}"})
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere"):
        sweep.run(tmp_path / "x")
    assert not (tmp_path / "x").exists()
