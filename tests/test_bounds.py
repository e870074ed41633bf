"""Settings, files and names beyond what can be computed are refused in words, before any work."""

import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from spikevae._device import resolve_device
from spikevae.config import OPTIONS, FitConfig, SweepConfig
from spikevae.data import arrays, load
from spikevae.models import build_model
from spikevae.plotting import canvas, save_svg
from spikevae.training import build_stack, train

LARGEST = {"inference_steps": 16, "evaluation_steps": 16}  # no need for more to see that they are taken


def numeric_options():
    """Each numeric option with the values of `extremes` and the settings it needs."""
    for name, classes in OPTIONS.items():
        word, config = next(iter(classes.items()))
        if config.model_fields[name].annotation in (int, float, int | None, float | None):
            given = {"latent": "sparse"} if word == "sparse_coding" else {"inference": word}
            yield name, given | ({"upper": [3]} if word == "hierarchical" else {})


@pytest.mark.parametrize("value", [1e39, 1e-320, 10**30, -(10**30), float("nan"), 1e30, 1e-30])
@pytest.mark.parametrize(("name", "given"), list(numeric_options()), ids=lambda x: x if isinstance(x, str) else "")
def test_extreme_settings_train_or_are_refused_in_words(name, given, value):
    """A fit that is accepted is trained for some steps: it may diverge, but no library raises an error of its own."""
    if name in ("steps", "epochs") and 1 <= value < 2**40:
        return
    options = {"n_latents": 3, "steps": 4, "estimator": "monte_carlo", **LARGEST, **given, name: value}
    if given.get("latent") == "sparse":
        options.pop("estimator")
    options = {k: v for k, v in options.items() if k not in LARGEST or given.get("inference") == "iterative"}
    if name == "epochs":
        options.pop("steps")
    try:
        config = FitConfig.from_recipe(**options)
    except ValueError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    if config.n_latents > 1000 or name in ("inner_steps", "inference_steps", "evaluation_steps"):
        return  # large, and refused by the check of memory
    build_model(config, (4,))
    stack = build_stack([config], torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), (4,))
    train(stack)


@pytest.mark.parametrize("values", [{"hidden": [8] * 100}, {"hidden": [2**60]}, {"upper": [2**60]}, {"upper": [4] * 9}])
def test_sizes_of_networks_have_bounds(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        FitConfig.from_recipe(decoder="mlp" if "hidden" in values else "linear", **values)


def test_a_sweep_of_too_many_fits_is_refused_before_they_are_made():
    block = {"grid": {"seed": list(range(140)), "beta": [0.1 * i for i in range(1, 141)]}}
    blocks = [{"label": str(i), **block} for i in range(40)]
    began = time.process_time()
    with pytest.raises(ValueError, match="40 blocks have 784,000 fits, more than 20,000"):
        SweepConfig.from_mapping({"blocks": blocks})
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\x00b", "a\nb", "a\ud800b"])
def test_names_that_cannot_be_printed_are_refused(name):
    grid = {"grid": {"beta": [1.0]}}
    for given in ({"name": name, **grid}, {"blocks": [{"label": name, **grid}]}):
        with pytest.raises(ValueError, match=r"holds the character U\+[0-9A-F]{4}, which cannot be printed"):
            SweepConfig.from_mapping(given)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("label", ["a\x1b[31mb", "a\x00b", "µ β ₂ \uffff", "plain"])
def test_figures_are_well_formed_whatever_their_labels(tmp_path, label):
    with canvas(1, 1) as (figure, axes):
        axes[0, 0].set_title(label)
        save_svg(figure, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert ("plain" in text) == (label == "plain")


def test_sweep_files_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "s.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'name = "a"\n[grid]\nbeta = [1.0]\n')
    assert SweepConfig.from_toml(path).name == "a"


def test_an_archive_of_one_number_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MIN_BYTES_FOR_RATIO", 1 << 20)
    x = np.zeros((4000, 100), np.float32)
    np.savez_compressed(tmp_path / "zeros.npz", x=x)
    with pytest.raises(ValueError, match=r"zeros\.npz.*without compression"):
        load(f"array:{tmp_path / 'zeros.npz'}")
    np.savez(tmp_path / "plain.npz", x=np.random.default_rng(0).normal(size=(4000, 100)))
    assert load(f"array:{tmp_path / 'plain.npz'}").shape == (100,)


def test_an_idx_file_of_many_images_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"".join(int(n).to_bytes(4, "big") for n in (1_000_000, 30, 30)))
    with pytest.raises(ValueError, match=r"images-idx3-ubyte: declares too much: 1,000,000 stimuli take 3\.9 GB"):
        load(f"mnist:{path}")


@pytest.mark.parametrize("device", ["meta", "mps", "cuda:99", "cpu:x", "tpu"])
def test_devices_that_are_not_here_are_refused(device):
    with pytest.raises(ValueError, match="device"):
        resolve_device(device)
