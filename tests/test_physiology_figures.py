"""Figures, table and film of physiology, the verb that writes them, and the report's section."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikevae.cli import DONE, USAGE, main
from spikevae.config import SweepConfig
from spikevae.models import IterativeConfig, IterativeVAE, save_model
from spikevae.physiology import Gratings, examine
from spikevae.physiology.film import MAX_TICKS, ticks, write_film
from spikevae.physiology.output import describe, draw
from spikevae.reporting import build_report
from spikevae.sweep import Sweep

FIGURES = ("receptive_fields", "tuning", "preferences", "cross_orientation", "moving_bar")
SHORT = Gratings(frequencies=(0.1, 0.2), contrasts=(0.5, 1.0), phases=2, period=8, warm_up=4)


def model(shape=(1, 6, 6), **given):
    options = {
        "latent": "poisson",
        "n_latents": 5,
        "start": -1.0,
        "init_scale": 0.3,
        "prior": "fixed",
        "clamp": None,
        **given,
    }
    built = IterativeVAE(shape, IterativeConfig(**options), torch.Generator().manual_seed(0)).requires_grad_(False)
    return built, options


@pytest.mark.parametrize(
    "given",
    [
        {"shape": (3, 6, 6)},
        {"n_latents": 1, "start": -12.0, "init_scale": 1e-3},
        {"latent": "rectified_gaussian", "decoder": "mlp", "hidden": (4,)},
    ],
    ids=str,
)
def test_figures_of_every_kind_of_model(given, tmp_path):
    """Also of one unit, of colour, without dictionary, and where no unit responds."""
    built, _ = model(**given)
    found = examine(built, SHORT, noise_frames=5)
    statics = draw(found, tmp_path, "a_")
    assert [s.name for s in statics] == [f"a_{name}" for name in FIGURES]
    text = (tmp_path / "a_tuning.svg").read_text() + (tmp_path / "a_preferences.svg").read_text()
    assert text.count("0: vertical stripes") >= 2 and "1 − circular variance" in text
    for static in statics:
        assert static.png.read_bytes().startswith(b"\x89PNG") and static.alt
        assert "<svg" in static.png.with_suffix(".svg").read_text()
    assert "units respond" in describe(found)


def test_every_spike_has_a_tick_in_its_step():
    counts = np.random.default_rng(0).poisson(1.5, (50, 7)).astype(float)
    time, row = ticks(counts)
    step = np.rint(time).astype(int)
    found = np.zeros_like(counts)
    np.add.at(found, (step, row), 1)
    np.testing.assert_array_equal(found, counts)
    assert len(set(zip(time, row))) == counts.sum()
    evenly = np.sort(time[(step == 10) & (row == counts[10].argmax())])
    np.testing.assert_allclose(np.diff(evenly), 1 / counts[10].max())
    assert evenly.mean() == pytest.approx(10)
    graded, _ = ticks(np.array([[0.4], [0.0], [2.5]]))  # no counts: where there is something
    np.testing.assert_array_equal(graded, [0.0, 2.0])
    assert len(ticks(np.array([[10.0 * MAX_TICKS]]))[0]) == MAX_TICKS
    assert [len(part) for part in ticks(np.zeros((3, 2)))] == [0, 0]


def test_the_raster_draws_every_spike(tmp_path):
    found = examine(model(start=1.0)[0], SHORT, noise_frames=5)
    assert MAX_TICKS > found.bar.spikes.max() > 1
    *_, raster = draw(found, tmp_path)
    markers = re.findall(
        r'<use xlink:href="#\w+" x="[\d.]+" y="[\d.]+" style="[^"]*stroke-width: 0.6',
        raster.png.with_suffix(".svg").read_text(),
    )
    assert len(markers) == found.bar.spikes.sum()


def test_the_film_hides_what_has_not_happened_yet(tmp_path):
    found = examine(model()[0], SHORT, noise_frames=5)
    dark = []
    with Image.open(write_film(found, tmp_path / "film.gif")) as film:
        assert film.n_frames == found.bar.pictures.shape[1] > 30
        for frame in (0, film.n_frames // 2, film.n_frames - 1):
            film.seek(frame)
            picture = film.convert("L").crop((320, 40, film.width, 275))
            dark.append(sum(picture.histogram()[:100]))
    assert dark[0] < dark[1] < dark[2]


@pytest.mark.slow
def test_the_verb_writes_a_table_figures_and_a_film(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built, _ = model()
    save_model(built, "m.spikevae")
    verb = ["physiology", "m.spikevae", "--out", "found", "--frames", "5"]
    assert main([*verb, "--contrast", "0.5", "--background", "0.2", "--json"]) == DONE
    said = json.loads(capsys.readouterr().out)
    assert set(said["files"]) == {*FIGURES, "physiology", "film"} and len(said["units"]) == 5
    assert all(Path(path).is_file() for path in said["files"].values())
    table = json.loads(Path("found/physiology.json").read_text())
    assert table["summary"] == said["summary"] and table["gratings"]["mask_contrast"] == 1.0
    assert table["gratings"]["background"] == 0.2
    assert main(verb) == DONE
    assert "suppression" in capsys.readouterr().out


def test_models_that_are_no_neurons_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built, _ = model(latent="gaussian")
    save_model(built, "signed.spikevae")
    assert main(["physiology", "signed.spikevae"]) == USAGE
    assert "signed" in capsys.readouterr().err and not Path("physiology").exists()


@pytest.mark.slow
def test_the_report_examines_what_can_be_examined(tmp_path):
    """One section for the iterative Poisson family; signed codes and encoders are left out, and so is the section of
    a run that has nothing else."""
    fit = {"steps": 10, "cycles": 1, "n_latents": 4, "batch_size": 50}
    data = {"source": "synthetic", "patch": 6, "n": 200, "n_test": 60}
    step_by_step = {"inference": "iterative", "inference_steps": 2, "evaluation_steps": 4, "start": -1.0}
    blocks = [
        {"label": "iterative", "fit": {**fit, **step_by_step}, "grid": {"latent": ["poisson", "gaussian"]}},
        {"label": "amortised", "fit": fit},
    ]
    for name, chosen, wanted in (("both", blocks, True), ("encoder", blocks[1:], False)):
        sweep = SweepConfig.from_mapping({"name": name, "data": data, "blocks": chosen})
        run = Sweep(sweep).run(tmp_path / name, n_jobs=1, progress=False)
        page = build_report(run.path).read_text(encoding="utf-8")
        assert ('id="physiology"' in page) == wanted
        drawn = sorted(path.name for path in (run.path / "figures").glob("physiology_*.png"))
        assert drawn == sorted(f"physiology_0_{figure}.png" for figure in FIGURES if wanted)
        assert page.count("cross-orientation suppression</h3>") == wanted
