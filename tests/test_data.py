"""Bundled scenes, synthetic stimuli, options, split and the record; spectra of the stimuli."""

import io
import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from data_files import same
from pydantic import ValidationError

from spikevae.config import FitConfig
from spikevae.data import (
    SOURCES,
    DataConfig,
    PatchSet,
    SyntheticConfig,
    load,
    load_config,
    read_images,
    synthetic,
)
from spikevae.data import _patches as patches_module
from spikevae.data import _prepare as prepare_module
from spikevae.data._build import split
from spikevae.data._images import Images
from spikevae.data._patches import total_variance
from spikevae.data._prepare import PreparedImages, Recipe
from spikevae.data.figure import spectra_figure


# ---------------------------------------------------------------------------------------------------- bundled
@pytest.fixture(scope="module")
def bundled():
    return load("bundled", patch=16, n=8_000, seed=0)


def test_bundled_shapes_and_scale(bundled):
    assert bundled.train.shape == (8_000, 256) and bundled.test.shape == (2_000, 256)
    assert bundled.shape == (1, 16, 16) and bundled.train.dtype == bundled.test.dtype == np.float32
    assert np.isfinite(bundled.train).all() and np.isfinite(bundled.test).all()
    # 1 over whole training images; patches lose their image's border and the flat places, so slightly more
    assert 1.0 < bundled.train.std() < 1.12
    assert abs(bundled.train.mean()) < 0.01
    assert bundled.train_labels is None and bundled.truth is None


def test_bundled_is_split_by_image_into_natural_scenes(bundled):
    info = bundled.info
    names = np.array(info["images"])
    assert len(info["train_images"]) >= 6 and info["test_images"] == ["coffee.png", "china.jpg"]
    assert set(names[bundled.train_group]) == set(info["train_images"])
    assert set(names[bundled.test_group]) == set(info["test_images"])


def test_bundled_is_decided_by_the_seed(bundled):
    assert same(bundled, load("bundled", patch=16, n=8_000, seed=0))
    other = load("bundled", patch=16, n=8_000, seed=1)
    assert not np.array_equal(bundled.train, other.train) and not np.array_equal(bundled.test, other.test)
    assert other.info["train_images"] == bundled.info["train_images"]


def test_no_patch_is_without_contrast(bundled):
    for part in (bundled.train, bundled.test):
        assert part.std(axis=1).min() >= 0.2 * (1 - 1e-5)
    everything = load("bundled", n=8_000, min_contrast=0.0)
    assert (everything.train.std(axis=1) < 0.2).mean() > 0.05  # so the threshold does something
    counts = bundled.info["train_counts"]
    assert counts["admissible"] < counts["places"] == everything.info["train_counts"]["admissible"]


def test_every_patch_is_a_window_of_its_prepared_image(bundled):
    config = DataConfig(n=8_000)
    images = read_images(config)
    prepared = PreparedImages(images, Recipe.resolve(config, True), None)
    mean, std = bundled.info["pixel_mean"], bundled.info["pixel_std"]
    for row in (0, 17, 4_000):
        image = (prepared[bundled.train_group[row]] - mean) / std
        windows = np.lib.stride_tricks.sliding_window_view(image[0], (16, 16))
        corner = np.argwhere(np.isclose(windows[:, :, 0, 0], bundled.train[row, 0], atol=1e-5))
        assert any(np.allclose(windows[i, j].ravel(), bundled.train[row], atol=1e-5) for i, j in corner)


def test_statistics_come_from_training_images_only(bundled):
    config = DataConfig()
    images = read_images(config)
    prepared = PreparedImages(images, Recipe.resolve(config, True), None)
    pixels = np.concatenate([prepared[i].ravel() for i in np.flatnonzero(~images.own_test)]).astype(np.float64)
    assert bundled.info["pixel_mean"] == pytest.approx(pixels.mean(), abs=1e-9)
    assert bundled.info["pixel_std"] == pytest.approx(pixels.std(), rel=1e-9)


def test_random_patches_are_different_and_spread_by_area(bundled):
    assert len(np.unique(bundled.train, axis=0)) == len(bundled.train)
    # camera.png has 497 x 497 - some flat places of 1,247,174: between 10 and 20 % of the patches
    share = np.bincount(bundled.train_group) / len(bundled.train)
    assert 0.1 < share[0] < 0.2


def test_grid_patches_do_not_overlap():
    patches = load("bundled", patches="grid")
    assert len(patches.train) == patches.info["train_counts"]["admissible_tiles"] <= 5_526
    few = load("bundled", patches="grid", n=100, n_test=50)
    assert len(few.train) == 100 and len(few.test) == 50
    every = {row.tobytes() for row in patches.train}
    assert all(row.tobytes() in every for row in few.train)
    config = DataConfig()
    prepared = PreparedImages(read_images(config), Recipe.resolve(config, True), None)
    x = (prepared[0][0] - patches.info["pixel_mean"]) / patches.info["pixel_std"]
    tiles = x[:496, :496].reshape(31, 16, 31, 16).swapaxes(1, 2).reshape(-1, 256)  # camera.png
    found = patches.train[patches.train_group == 0]
    assert {row.round(3).tobytes() for row in found} <= {row.astype(np.float32).round(3).tobytes() for row in tiles}


def test_rgb_leaves_greyscale_scenes_out():
    patches = load("bundled", colour="rgb", n=500)
    assert patches.shape == (3, 16, 16) and patches.train.shape == (500, 768)
    assert set(patches.info["skipped"]) == {"camera.png", "grass.png", "gravel.png"}


def test_options_change_the_preparation():
    raw = load("bundled", n=500, whiten=False, normalise_contrast=False, zscore="none", crop=0, min_contrast=0.0)
    assert raw.train.min() >= -0.1 and raw.train.max() <= 1.1  # Lanczos overshoots a little
    assert raw.info["steps"] == ["pixels as they are"]
    each = load("bundled", n=500, zscore="image")
    assert each.info["pixel_std"] == pytest.approx(1, rel=1e-3)
    assert load("bundled", n=500, downsample=1).info["train_counts"]["places"] > 1_600_000


def test_a_given_fraction_replaces_the_own_split():
    patches = load("bundled", n=500, test_fraction=0.5)
    assert len(patches.info["test_images"]) == 4  # of nine


def test_too_many_patches_are_refused_with_the_number_there_is():
    with pytest.raises(ValueError, match=r"9,000,000 patches requested, but 7 image\(s\) hold 1,2\d\d,\d\d\d places"):
        load("bundled", n=9_000_000)
    with pytest.raises(ValueError, match="hold 0 places"):
        load("bundled", patch=600, n=10)


def test_images_beyond_the_memory_limit_give_the_same_patches(monkeypatch):
    few = load("bundled", n=300)
    monkeypatch.setattr(prepare_module, "MAX_KEPT_PIXELS", 300_000)
    assert same(few, load("bundled", n=300))


def test_the_record_is_plain_and_readable(bundled):
    assert json.loads(json.dumps(bundled.info)) == bundled.info
    text = bundled.describe()
    for word in (
        "8,000 training",
        "coffee.png",
        "CC BY 2.0",
        "demo",
        "5,526 patches",
        "0.2 times",
        "whitened",
    ):
        assert word in text, word


def test_variance_is_that_of_numpy(bundled):
    for part in ("train", "test"):
        total = getattr(bundled, part).astype(np.float64).var(axis=0).sum()
        assert bundled.variance[part]["total"] == pytest.approx(total, rel=1e-12)
        assert bundled.variance[part]["over_noise"] == pytest.approx(total / (256 * 0.5), rel=1e-12)
        assert f"variance: {part}: variances of 256 pixels sum to {total:.4g}, {total / 128:.3g} times" in (
            bundled.describe()
        )
    assert FitConfig.from_recipe().noise_variance == 0.5  # of which the text speaks


def test_variance_of_many_blocks_and_of_large_means(monkeypatch):
    x = np.random.default_rng(0).normal(1e3, 2, (101, 7)).astype(np.float32)
    expected = x.astype(np.float64).var(axis=0).sum()
    assert total_variance(x) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(patches_module, "BLOCK_VALUES", 20)
    assert total_variance(x) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(total_variance(x[:0]))


def test_published_whitening_brings_the_other_published_steps():
    published = load("bundled", n=500, whiten="published")
    recipe = published.info["recipe"]
    assert (recipe["whiten"], recipe["normalise_contrast"], recipe["zscore"], recipe["crop"]) == (
        "published", True, "image", 4,
    )  # fmt: skip
    steps = " / ".join(published.info["steps"])
    assert "authors' program" in steps and "zeros around the image" in steps
    assert steps.endswith("z-score over each image / border of 4 pixels left out")
    assert json.loads(json.dumps(published.info)) == published.info
    assert not np.array_equal(published.train, load("bundled", n=500).train)
    np.testing.assert_array_equal(load("bundled", n=500, whiten=True).train, load("bundled", n=500).train)
    over_all = load("bundled", n=500, whiten="published", zscore="train", crop=0)
    assert over_all.info["recipe"]["zscore"] == "train" and over_all.info["recipe"]["crop"] == 0
    figure = spectra_figure(config := DataConfig(n=200, whiten="published"), read_images(config), load_config(config))
    assert len(figure.axes) == 4
    with pytest.raises(ValidationError, match="published"):
        DataConfig(whiten="publishd")


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    load("bundled", n=100)
    load("synthetic", n=100)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_import_brings_no_heavy_library():
    heavy = ("matplotlib", "PIL", "pooch", "requests", "sklearn", "skimage")
    code = f"import sys, spikevae.data._config, spikevae.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- configuration
def test_config_refuses_what_has_no_meaning():
    with pytest.raises(ValidationError, match="pach"):
        load("bundled", pach=16)
    with pytest.raises(ValidationError):
        load("bundled", patch=1)
    with pytest.raises(ValidationError):
        load("bundled", test_fraction=1.0)
    with pytest.raises(ValidationError, match="remove them"):
        DataConfig(source="bundled", synthetic=SyntheticConfig())
    with pytest.raises(ValidationError, match="frozen"):
        DataConfig().seed = 3
    with pytest.raises(ValueError, match="did you mean 'bundled'"):
        load("bundeld")
    with pytest.raises(ValueError, match="takes no path"):
        load("bundled:here")


@pytest.mark.parametrize("value", [1e308, float("inf"), float("nan")])
def test_config_bounds_its_numbers(value):
    for name in ("n", "n_test", "test_fraction", *(["min_contrast"] if value != 1e308 else [])):
        with pytest.raises(ValidationError, match=name):
            DataConfig(**{name: value})
    for name in ("units", "firing_rate", "spread", "amplitude", "noise"):
        with pytest.raises(ValidationError, match=name):
            SyntheticConfig(**{name: value})


def test_every_option_has_a_description():
    for model in (DataConfig, SyntheticConfig):
        assert all(field.description for field in model.model_fields.values())


def test_config_survives_json():
    config = DataConfig(source="synthetic", n=7, synthetic=SyntheticConfig(units=3))
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


def test_every_source_has_a_name_a_summary_and_a_reader():
    for word, source in SOURCES.items():
        module, _, function = source.reader.partition(":")
        assert callable(getattr(import_module(f"spikevae.data.{module}"), function))
        assert source.summary and source.usage.startswith(word)


def test_split_depends_on_names_only():
    names = [f"{i}.png" for i in range(40)]
    make = lambda order: Images([], order, photographs=True)
    held = {n for n, out in zip(names, split(make(names), None)) if out}
    assert len(held) == 8
    assert held == {n for n, out in zip(names[::-1], split(make(names[::-1]), None)) if out}
    with pytest.raises(ValueError, match="at least two"):
        split(make(["one"]), None)


def test_a_patch_set_is_short_in_print_and_knows_its_pixels(bundled):
    import dataclasses

    assert len(repr(bundled)) < 200 and "bundled" in repr(bundled)
    same = dataclasses.replace(bundled, name="x")
    other = dataclasses.replace(bundled, test=-bundled.test)
    assert same.digest == bundled.digest != other.digest


def test_patch_set_checks_its_shapes():
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"must be \(n, 9\)"):
        PatchSet(x, x, (1, 3, 3), np.zeros(3), np.zeros(3), "x")
    with pytest.raises(ValueError, match="2 entries for 3"):
        PatchSet(x, x, (4,), np.zeros(2), np.zeros(3), "x")


# -------------------------------------------------------------------------------------------------- synthetic
def test_synthetic_truth_makes_the_stimuli():
    options = SyntheticConfig(units=12, firing_rate=0.5, spread=1.5, amplitude=2.0, noise=0.3)
    patches = load("synthetic", patch=10, n=4_000, n_test=500, synthetic=options)
    dictionary, rates, codes = (patches.truth[k] for k in ("dictionary", "firing_rates", "codes"))
    assert patches.shape == (1, 10, 10) and dictionary.shape == (12, 100) and codes.shape == (4_500, 12)
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1, rtol=1e-6)
    for x, group in ((patches.train, patches.train_group), (patches.test, patches.test_group)):
        rest = x - 2.0 * codes[group] @ dictionary
        assert rest.std() == pytest.approx(0.3, rel=0.03) and abs(rest.mean()) < 0.01
    # counts are Poisson: mean and variance both at the rate, five standard errors
    error = 5 * np.sqrt((rates + 2 * rates**2) / 4_500)
    assert np.all(np.abs(codes.mean(0) - rates) < error) and np.all(np.abs(codes.var(0) - rates) < error)
    assert np.all(np.abs(np.log(rates / 0.5)) <= 1.5)


def test_synthetic_is_decided_by_the_seed():
    a, b = load("synthetic", n=50, seed=3), load("synthetic", n=50, seed=3)
    assert same(a, b) and np.array_equal(a.truth["codes"], b.truth["codes"])
    assert not np.array_equal(a.train, load("synthetic", n=50, seed=4).train)
    assert json.dumps(a.info)
    silent = load("synthetic", n=100, synthetic=SyntheticConfig(units=2, noise=0.0))
    assert len(silent.train) < 100 and silent.train.std(axis=1).min() > 0  # silent stimuli have no contrast
    np.testing.assert_allclose(
        silent.train, 3 * silent.truth["codes"][silent.train_group] @ silent.truth["dictionary"], atol=1e-5
    )
    with pytest.raises(ValueError, match="takes no path"):
        load("synthetic:x")


@pytest.mark.parametrize(
    "options",
    [
        {"n": 100_000_000},
        {"n": 2, "n_test": 100_000_000},
        {"n": 10_000, "synthetic": SyntheticConfig(units=1_000_000)},
        {"n": 2, "n_test": 1, "patch": 1024, "synthetic": SyntheticConfig(units=1_000)},
        {"n": 1_000, "patch": 1024},
    ],
)
def test_synthetic_stimuli_beyond_the_memory_limit_are_not_drawn(options):
    with pytest.raises(ValueError, match=r"stimuli take [\d,.]+ GB, more than 2 GB: lower n, n_test, patch or"):
        load("synthetic", **options)


def test_synthetic_stimuli_of_several_blocks_are_those_of_one(monkeypatch):
    whole = load("synthetic", n=50)
    monkeypatch.setattr(synthetic, "BLOCK_VALUES", 10_000)
    blocks = load("synthetic", n=50)
    np.testing.assert_allclose(blocks.train, whole.train, atol=1e-6)
    np.testing.assert_array_equal(blocks.truth["codes"], whole.truth["codes"])


# ----------------------------------------------------------------------------------------------------- figure
def test_spectra_figure(tmp_path):
    config = DataConfig(n=100)
    figure = spectra_figure(config, read_images(config), load_config(config))
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert len(labels) == 4 and all(labels) and sum("cycles per pixel" in x for x in labels) == 3
    for ax in figure.axes[:3]:
        assert "dB" in ax.get_ylabel() and len(ax.get_legend().get_texts()) >= 3
        assert all(np.isfinite(line.get_ydata()).all() for line in ax.lines)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    assert buffer.getvalue().startswith(b"\x89PNG")
