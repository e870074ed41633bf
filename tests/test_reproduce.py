"""`spikevae reproduce`: a cell trained again is the same to the bit; what differs or cannot be trained is named."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from sweep_cases import DATA

from spikevae.cli import DONE, USAGE, main
from spikevae.config import SweepConfig
from spikevae.sweep import RunFolder, Sweep, reproduce
from spikevae.sweep.integrity import sealed

BASE = {"n_latents": 3, "batch_size": 50, "steps": 10}
FITS = {
    "default": {},
    "budget": {"spike_budget": 0.2},
    "sampled": {"estimator": "monte_carlo"},
    "iterative": {"inference": "iterative", "inference_steps": 3, "evaluation_steps": 4},
    "sparse": {"latent": "sparse"},
    "layers": {"upper": [2]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with a block of two fits of each kind, trained by workers."""
    blocks = [{"label": name, "fit": BASE | fit, "grid": {"beta": [0.5, 2.0]}} for name, fit in FITS.items()]
    sweep = Sweep(SweepConfig.from_mapping({"name": "small", "data": DATA, "blocks": blocks}))
    return sweep.run(tmp_path_factory.mktemp("run") / "run", n_jobs=2).path


@pytest.fixture
def run(trained, tmp_path):
    """A copy, for one test to change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def cell_of(run, block):
    """The id of the first cell of a block."""
    return next(cell.id for cell in Sweep(RunFolder(run).sweep()).cells if cell.block == block)


@pytest.mark.parametrize("block", FITS)
def test_a_cell_trained_again_is_the_same_to_the_bit(trained, block):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    found = reproduce(trained, cell_of(trained, block))
    assert (found.differences, found.largest, found.surroundings) == ({}, 0.0, {})
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def change(run, cell, **values):
    """Change numbers of a cell, as a program would that also writes its checksum; no table keeps the former ones."""
    path = run / "cells" / f"{cell}.json"
    content = json.loads(path.read_text())
    content.pop("checksum")
    content["metrics"] |= values.pop("metrics", {})
    path.write_text(json.dumps(sealed(content | values)))


def test_numbers_that_were_changed_are_named(run, capsys):
    cell = cell_of(run, "default")
    recorded = RunFolder(run).read_cell(cell)
    kl, made = recorded["metrics"]["kl"], recorded["made_with"]
    made["versions"]["torch"] = "1.0"
    change(run, cell, metrics={"kl": kl * 1.25, "r2_pooled": None}, made_with=made)
    found = reproduce(run, cell)
    assert found.differences.keys() == {"kl", "r2_pooled"} and found.differences["kl"] == (kl * 1.25, kl)
    assert found.surroundings == {"torch": ("1.0", torch.__version__)}
    assert main(["reproduce", str(run / cell), "--json"]) == DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["differences"]["kl"] == [kl * 1.25, kl] and list(facts["changed"]) == ["torch"]
    change(run, cell, metrics={"r2_pooled": recorded["metrics"]["r2_pooled"]})
    assert reproduce(run, cell).largest == pytest.approx(0.2)
    assert main(["reproduce", str(run / cell)]) == DONE
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "1 number differs, by 0.2 of its value at most"
    assert f"torch: 1.0 when recorded, {torch.__version__} now" in text


def test_the_command_says_that_nothing_differs(trained, capsys):
    assert main(["reproduce", str(trained / cell_of(trained, "default"))]) == DONE
    assert capsys.readouterr().out == "every number is the same to the bit\n"


def message_of(arguments, capsys, code):
    assert main(["reproduce", *map(str, arguments)]) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return " ".join(text.split())


def test_a_cell_that_is_not_there_is_named(run, capsys):
    cell = cell_of(run, "default")
    assert "has no finished cell '0123456789ab'" in message_of([run / "0123456789ab"], capsys, USAGE)
    assert re.search(rf"{cell}.*config\.json", message_of([run / cell / cell], capsys, USAGE))
    (run / "cells" / f"{cell}.json").unlink()
    assert f"has no finished cell '{cell}'" in message_of([run / cell], capsys, USAGE)


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert re.search(rf"{tmp_path}.*config\.json", message_of([tmp_path / "0123456789ab"], capsys, USAGE))


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "a list", "without metrics", "text for a number"])
def test_a_damaged_record_is_named(run, capsys, damage):
    cell = cell_of(run, "default")
    path = run / "cells" / f"{cell}.json"
    text = path.read_text()
    content = json.loads(text)
    content.pop("checksum")
    written = {
        "flipped": text.replace("0", "1", 1),
        "truncated": text[: len(text) // 2],
        "empty": "",
        "a list": "[]",
        "without metrics": json.dumps({name: value for name, value in content.items() if name != "metrics"}),
        "text for a number": json.dumps(content | {"metrics": content["metrics"] | {"kl": "much"}}),
    }
    path.write_text(written[damage])
    assert path.name in message_of([run / cell], capsys, USAGE)


def test_other_stimuli_are_named(tmp_path, capsys):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(100, 16)).astype("float32")
    np.save(tmp_path / "rows.npy", x)
    data = {"source": f"array:{tmp_path / 'rows.npy'}"}
    run = Sweep.from_grid({"beta": [1.0]}, fit=BASE, data=data).run(tmp_path / "run", n_jobs=1).path
    np.save(tmp_path / "rows.npy", x[::-1])
    cell = next((run / "cells").iterdir()).stem
    assert "are others now" in message_of([run / cell], capsys, USAGE)
