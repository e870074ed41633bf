"""Sources, split, patches and the record; files that are damaged, hostile or from a loopback server."""

import functools
import gzip
import http.server
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from spikevae._terminal import printable
from spikevae.data import (
    SOURCES,
    DataConfig,
    PatchSet,
    SyntheticConfig,
    arrays,
    cifar,
    folder,
    idx,
    load,
    load_config,
    read_images,
    synthetic,
    van_hateren,
)
from spikevae.data import _build as build_module
from spikevae.data import _images as images_module
from spikevae.data import _prepare as prepare_module
from spikevae.data._build import split
from spikevae.data._images import Images
from spikevae.data._prepare import PreparedImages, Recipe
from spikevae.data.figure import spectra_figure


def same(a, b):
    """Whether two sets are equal to the bit."""
    names = ("train", "test", "train_group", "test_group")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names) and a.info == b.info


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
    with pytest.raises(ValueError, match=r"9,000,000 patches asked for, but 7 image\(s\) hold 1,2\d\d,\d\d\d places"):
        load("bundled", n=9_000_000)
    with pytest.raises(ValueError, match="hold 0 places"):
        load("bundled", patch=600, n=10)


def test_images_beyond_the_memory_limit_give_the_same_patches(monkeypatch):
    few = load("bundled", n=300)
    monkeypatch.setattr(prepare_module, "KEEP_PIXELS", 300_000)
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


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    load("bundled", n=100)
    load("synthetic", n=100)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_import_brings_no_heavy_library():
    heavy = ("matplotlib", "PIL", "pooch", "requests", "sklearn", "skimage", "plotly")
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
    assert all(source.summary and source.usage.startswith(word) for word, source in SOURCES.items())


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


# ----------------------------------------------------------------------------------------------------- folder


def picture(side=96, colour=False, seed=0):
    shape = (side, side + 10, 3) if colour else (side, side + 10)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def bomb_png(width, height):
    """A PNG of a few bytes whose header declares width x height pixels."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def photos(tmp_path):
    """A folder with every format, in a subfolder too, and with files that cannot be used."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for i, suffix in enumerate(("png", "jpg", "jpeg", "tif", "bmp", "webp")):
        Image.fromarray(picture(colour=True, seed=i)).save(root / f"colour.{suffix}")
    for i, suffix in enumerate(("png", "pgm", "JPG")):
        Image.fromarray(picture(seed=10 + i)).save(root / "sub" / f"grey.{suffix}")
    Image.fromarray(picture(colour=True)).convert("CMYK").save(root / "cmyk.jpg")
    Image.fromarray(picture(colour=True)).convert("P").save(root / "palette.png")
    Image.fromarray(picture(colour=True)).convert("RGBA").save(root / "alpha.png")
    Image.fromarray(picture().astype(np.uint16) * 257).save(root / "deep.png")
    (root / "notes.txt").write_text("no image")
    return root


def test_folder_reads_every_format(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patches = load(f"folder:{photos}", n=200)
    images = patches.info["images"]
    assert len(images) == 13 and images == sorted(images) and "sub/grey.JPG" in images
    assert patches.info["downsample"]["colour.jpg"] == patches.info["downsample"]["sub/grey.JPG"] == 2
    assert patches.info["downsample"]["colour.png"] == patches.info["downsample"]["deep.png"] == 1
    assert set(patches.info["train_images"]).isdisjoint(patches.info["test_images"])
    assert same(patches, load(f"folder:{photos}", n=200))


def test_sixteen_bit_and_palette_files_have_the_right_pixels(photos):
    np.testing.assert_allclose(folder.read_photograph(photos / "deep.png"), picture() / 255, atol=1e-6)
    assert folder.read_photograph(photos / "palette.png").shape == (96, 106, 3)
    assert folder.read_photograph(photos / "sub" / "grey.png").shape == (96, 106)


def test_folder_names_and_skips_unusable_files(photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nonsense")
    whole = (photos / "colour.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "bomb.png").write_bytes(bomb_png(60_000, 60_000))
    (photos / "large.png").write_bytes(bomb_png(7_000, 7_000))
    Image.fromarray(picture(12)).save(photos / "tiny.png")
    (photos / "empty.tif").touch()
    with pytest.warns(UserWarning, match=r"6 file\(s\)") as caught:
        patches = load(f"folder:{photos}", n=100)
    skipped = patches.info["skipped"]
    assert set(skipped) == {"broken.jpg", "cut.png", "bomb.png", "large.png", "tiny.png", "empty.tif"}
    assert "bomb" in skipped["bomb.png"] and "7000 x 7000 pixels, more than 40,000,000" in skipped["large.png"]
    assert "22 x 12" in skipped["tiny.png"]
    assert all(name in str(caught[0].message) and name in patches.describe() for name in skipped)
    assert not any(str(photos) in why for why in skipped.values())


def test_folder_rgb_and_downsample(photos):
    with pytest.warns(UserWarning, match="greyscale"):
        patches = load(f"folder:{photos}", n=100, colour="rgb", downsample=1)
    assert patches.shape[0] == 3 and set(patches.info["downsample"].values()) == {1}
    assert "sub/grey.png" in patches.info["skipped"]


def test_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="folder:PATH"):
        load("folder")
    with pytest.raises(ValueError, match="is no folder"):
        load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="no usable photograph"):
        load(f"folder:{tmp_path}")
    Image.fromarray(picture()).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match="at least two"):
        load(f"folder:{tmp_path}")
    Image.fromarray(np.full((90, 90), 7, np.uint8)).save(tmp_path / "only.png")
    Image.fromarray(np.full((90, 90), 9, np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="no patch has contrast"):
        load(f"folder:{tmp_path}")


def test_large_folders_are_read_again_rather_than_kept(photos, monkeypatch):
    kept = load(f"folder:{photos}", n=50)
    monkeypatch.setattr(folder, "KEEP_VALUES", 0)
    assert same(kept, load(f"folder:{photos}", n=50))


def test_folder_takes_regular_files_only(photos):
    """A pipe would be waited for without end; links may lead to devices, to themselves or nowhere."""
    os.mkfifo(photos / "pipe.png")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "zero.png").symlink_to("/dev/zero")
    (photos / "nowhere.png").symlink_to("none")
    (photos / "sub" / "again").symlink_to(photos)
    (photos / "folder.png").mkdir()
    with pytest.warns(UserWarning, match=r"5 file\(s\)"):
        patches = load(f"folder:{photos}", n=50)
    names = {"pipe.png", "loop.png", "zero.png", "nowhere.png", "folder.png"}
    assert patches.info["skipped"] == dict.fromkeys(names, "is no regular file")
    assert len(patches.info["images"]) == 13


def test_folder_opens_the_named_formats_only(photos):
    """Pillow would start Ghostscript for PostScript in a file that is named .png."""
    Image.fromarray(picture()).save(photos / "c.gif")
    (photos / "c.gif").rename(photos / "c.png")
    with pytest.warns(UserWarning, match="c.png: no readable image"):
        assert set(load(f"folder:{photos}", n=50).info["skipped"]) == {"c.png"}


def test_any_file_name_can_be_recorded_and_printed(photos):
    for name in (b"\xff.png", b"\x1b[31mred\n.png"):
        shutil.copy(photos / "colour.png", os.fsencode(photos) + b"/" + name)
    for name in (b"bad\xff.png", b"bad\x1b[31m.png"):
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_text("no image")
    with pytest.warns(UserWarning, match=r"2 file\(s\)") as caught:
        patches = load(f"folder:{photos}", n=50)
    assert {r"\udcff.png", r"\x1b[31mred\n.png"} < set(patches.info["images"])
    assert set(patches.info["skipped"]) == {r"bad\udcff.png", r"bad\x1b[31m.png"}
    for text in (str(caught[0].message), patches.describe(), json.dumps(patches.info, ensure_ascii=False)):
        assert "\x1b" not in text and text.encode()
    with pytest.raises(ValueError, match="no readable image") as error:
        folder.read_photograph(photos / "bad\udcff.png")
    assert str(error.value).encode() and printable("a b é 字") == "a b é 字"


@contextmanager
def without_permission(*paths):
    """No right to read some paths; the superuser, who always has it, becomes nobody."""
    for path in paths:
        path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in paths:
            path.chmod(0o700)


def test_what_may_not_be_read_is_named():
    with tempfile.TemporaryDirectory() as folder_name:
        root = Path(folder_name)
        root.chmod(0o755)
        for name in ("a.png", "b.png", "sub/c.png", "closed/a.png"):
            (root / name).parent.mkdir(exist_ok=True)
            Image.fromarray(picture()).save(root / name)
        np.save(root / "x.npy", np.eye(4))
        write_idx(root / "x-ubyte", picture()[None])
        load(f"folder:{root}", n=50)
        closed = [root / name for name in ("b.png", "sub", "closed", "x.npy", "x-ubyte")]
        with without_permission(*closed):
            for source, word in (
                (f"array:{root / 'x.npy'}", "x.npy"),
                (f"mnist:{root / 'x-ubyte'}", "x-ubyte"),
                (f"folder:{root / 'closed'}", "closed"),
                (f"folder:{root / 'closed' / 'more'}", "more"),
                (f"cifar10:{root / 'closed' / 'more'}", "more"),
            ):
                with pytest.raises(ValueError, match=word), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load(source)
            with pytest.warns(UserWarning, match=r"3 file\(s\)"), pytest.raises(ValueError, match="at least two"):
                load(f"folder:{root}")


@pytest.mark.parametrize("word", ["folder", "array", "mnist", "cifar10", "van_hateren"])
def test_a_path_that_cannot_be_looked_at_is_named(word):
    for path in ("~nobody-of-this-name/x", "x" * 5_000):
        with pytest.raises(ValueError, match=f"{word}:{path}"):
            load(f"{word}:{path}")


def test_real_photographs(shared_data):
    patches = load(f"folder:{shared_data / 'natural'}", n=4_000)
    assert len(patches.info["images"]) == 64 and len(patches.info["test_images"]) == 13
    assert set(patches.info["downsample"].values()) == {2}
    assert 1.0 < patches.train.std() < 1.12 and 0.9 < patches.test.std() < 1.2


# ----------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    "shape, expected",
    [((20, 7), (7,)), ((20, 6, 5), (1, 6, 5)), ((20, 3, 6, 5), (3, 6, 5)), ((20, 6, 5, 3), (3, 6, 5)),
     ((20, 1, 6, 5), (1, 6, 5))],
)  # fmt: skip
def test_arrays_of_every_shape(tmp_path, shape, expected):
    x = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "x.npy", x)
    patches = load(f"array:{tmp_path / 'x.npy'}")
    assert patches.shape == expected and len(patches.train) == 16 and len(patches.test) == 4
    first = x[patches.train_group[0]]
    first = np.moveaxis(first, -1, 0) if shape[-1] == 3 else first
    np.testing.assert_allclose(patches.train[0], first.ravel(), rtol=1e-6)


def test_npz_with_its_own_split_and_labels(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 5)), rng.normal(size=(4, 5))
    np.savez(tmp_path / "x.npz", x_train=a, x_test=b, y_train=np.arange(9), y_test=np.arange(4) + 50)
    patches = load(f"array:{tmp_path / 'x.npz'}")
    np.testing.assert_allclose(patches.train, a, rtol=1e-6)
    np.testing.assert_array_equal(patches.test_labels, [50, 51, 52, 53])
    np.savez(tmp_path / "y.npz", data=a, labels=np.arange(9))
    single = load(f"array:{tmp_path / 'y.npz'}", n=3)
    np.testing.assert_array_equal(single.train_labels, single.train_group)
    assert len(single.train) == 3


def test_stimuli_without_contrast_are_left_out_and_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 8))
    x[[3, 4]] = 2.5
    np.savez(tmp_path / "x.npz", train=x, test=x[5:15])
    patches = load(f"array:{tmp_path / 'x.npz'}")
    assert len(patches.train) == 28 and not {3, 4} & set(patches.train_group.tolist())
    assert "2 stimuli without contrast" in patches.describe()
    scaled = load(f"array:{tmp_path / 'x.npz'}", zscore="train")
    assert scaled.train.std() == pytest.approx(1, rel=1e-5)  # what is left out has no weight
    with pytest.raises(ValueError, match="29 train stimuli asked for"):
        load(f"array:{tmp_path / 'x.npz'}", n=29)


def test_moments_do_not_depend_on_the_blocks_they_are_taken_in(tmp_path, monkeypatch):
    x = 1e4 + np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", train=x, test=x[:5])
    monkeypatch.setattr(build_module, "BLOCK_VALUES", 50)
    info = load(f"array:{tmp_path / 'x.npz'}", zscore="train").info
    assert info["pixel_mean"] == pytest.approx(x.mean(dtype=np.float64), rel=1e-12)
    assert info["pixel_std"] == pytest.approx(x.std(dtype=np.float64), rel=1e-12)


def test_patches_of_an_image_array(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 40, 50)))
    patches = load(f"array:{tmp_path / 'x.npy'}", patch=8, n=100, whiten=True, crop=4)
    assert patches.shape == (1, 8, 8) and patches.info["test_counts"]["pixels"] == 32 * 42


def test_filters_on_whole_images(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(6, 40, 50)))
    patches = load(f"array:{tmp_path / 'x.npy'}", whiten=True, normalise_contrast=True, crop=2, downsample=2)
    assert patches.shape == (1, 16, 21) and len(patches.info["steps"]) == 3


def test_rows_of_features_take_no_image_steps(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(6, 40)))
    for option in ({"patch": 4}, {"whiten": True}, {"colour": "grey"}, {"zscore": "image"}, {"crop": 1}):
        with pytest.raises(ValueError, match="rows of 40 features"):
            load(f"array:{tmp_path / 'x.npy'}", **option)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_damaged_and_hostile_arrays(tmp_path, monkeypatch, capsys):
    def refuses(name, match):
        with pytest.raises(ValueError, match=match) as caught:
            load(f"array:{tmp_path / name}")
        assert name in str(caught.value)

    np.save(tmp_path / "pickled.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    refuses("pickled.npy", "(?i)pickle|object")
    np.savez(tmp_path / "pickled.npz", x=np.array([Evil()], dtype=object))
    refuses("pickled.npz", "(?i)pickle|object")
    assert "executed" not in capsys.readouterr().out
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan], [0, 1]]))
    refuses("nan.npy", "not finite")
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    refuses("text.npy", "real numbers")
    np.save(tmp_path / "flat.npy", np.arange(5.0))
    refuses("flat.npy", r"shape \(5,\)")
    np.save(tmp_path / "channels.npy", np.zeros((4, 5, 6, 7)))
    refuses("channels.npy", "channels")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "channels.npy").read_bytes()[:500])
    refuses("cut.npy", "holds 372: it is damaged")
    (tmp_path / "not.npz").write_bytes(b"not a zip")
    refuses("not.npz", "zip")
    (tmp_path / "x.csv").write_text("1,2")
    refuses("x.csv", "neither .npy nor .npz")
    refuses("none.npy", "is no file")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    refuses("two.npz", "name two of them")
    np.savez(tmp_path / "labels.npz", a=np.ones((2, 2)), labels=np.zeros(3))
    refuses("labels.npz", r"labels of shape \(3,\)")
    np.save(tmp_path / "large.npy", np.array([[1e300, 1], [0, 1]]))
    refuses("large.npy", "too large for float32")
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 1_000_000)
    refuses("bomb.npz", "declares 1,000,000 bytes")
    with pytest.raises(ValueError, match="array:FILE"):
        load("array")


def npy_header(shape, kind="<f4", version=1):
    buffer = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == 1 else np.lib.format.write_array_header_2_0
    write(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def pack(path, method=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


@pytest.mark.parametrize(
    "data, match",
    [
        (npy_header((10**12, 4)), "declares 16,000,000,000,000 bytes of arrays, more than 2,000,000,000: save fewer"),
        (npy_header((10**9, 2)), "declares 8,000,000,000 bytes"),
        (npy_header((10**8, 2), version=2), r"declares \(100000000, 2\) of float32, 800,000,000 bytes, but holds 0"),
        (npy_header((2, 2)) + b"\0" * 17, "but holds 17"),
        (npy_header((-2, -2)) + b"\0" * 16, "damaged"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff" + b"\0" * 100_000, "no readable header"),
        (b"\x93NUMPY\x01\0\x0a\0" + b"{'descr': (", "no readable header"),
        (b"junk", "is no array"),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_array_headers_are_checked_before_memory_is_taken(tmp_path, name, data, match):
    if name == "x.npz":
        pack(tmp_path / name, x=data)
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=match) as caught:
        load(f"array:{tmp_path / name}")
    assert str(tmp_path / name) in str(caught.value)


def test_a_sparse_array_beyond_the_limit_is_not_read(tmp_path):
    head = npy_header((250_000_000, 100))
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 100 * 10**9)
    with pytest.raises(ValueError, match=r"x.npy: declares 100,000,000,000 bytes"):
        load(f"array:{tmp_path / 'x.npy'}")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_compression_is_named(tmp_path, method):
    path = tmp_path / "x.npz"
    pack(path, method, x=npy_header((64, 64)) + np.random.default_rng(0).bytes(4 * 64**2))
    data = bytearray(path.read_bytes())
    data[60:4_000] = bytes(3_940)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x.npz: .*(damaged|header|Invalid data stream)"):
        load(f"array:{path}")


def test_stimuli_beyond_the_memory_limit_are_refused(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 255, (100, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "mixed.npz", train=x, test=x / 2)
    monkeypatch.setattr(images_module, "MAX_BYTES", 28_000)  # 100 stimuli of 8 float32 numbers take 28,800
    with pytest.raises(ValueError, match=r"x.npy': 100 stimuli take .* GB, more than .* GB: keep fewer"):
        load(f"array:{tmp_path / 'x.npy'}")
    with pytest.raises(ValueError, match=r"mixed.npz: with one type for both: 200 stimuli"):
        load(f"array:{tmp_path / 'mixed.npz'}")
    monkeypatch.setattr(images_module, "MAX_BYTES", 20_000)
    with pytest.raises(ValueError, match=r"x.npy: even without their values: 100 stimuli"):
        load(f"array:{tmp_path / 'x.npy'}")
    with pytest.raises(ValueError, match=r"patches: 1,000 stimuli take"):
        load("bundled", n=1_000)


@pytest.mark.parametrize(
    "labels", [["a", "b", "c"], [0, 1, np.nan], [0, 0.5, 1], [1j, 0, 0], np.zeros(3, "M8[s]"), [2**63, 0, 1]]
)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, labels):
    x = np.random.default_rng(0).normal(size=(3, 5))
    np.savez(tmp_path / "one.npz", x=x, labels=np.asarray(labels))
    np.savez(tmp_path / "two.npz", train=x, test=x, y_train=np.arange(3), y_test=np.asarray(labels))
    for name in ("one.npz", "two.npz"):
        with pytest.raises(ValueError, match=rf"{name}: has labels of type .* not all whole numbers"):
            load(f"array:{tmp_path / name}")


# -------------------------------------------------------------------------------------------------------- idx


def write_idx(path, x, magic=None):
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    kind = x.dtype.str[1:]
    head = magic or bytes([0, 0, codes[kind], x.ndim])
    data = head + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(x.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def digits(root, part, n, seed=0, suffix=".gz"):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, 10, n).astype(np.uint8)
    write_idx(root / f"{part}-images-idx3-ubyte{suffix}", x)
    write_idx(root / f"{part}-labels-idx1-ubyte{suffix}", y)
    return x, y


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("name", ["x.idx", "x.gz"])
def test_idx_types(tmp_path, dtype, name):
    x = np.arange(-6, 18).reshape(2, 3, 4).astype(dtype)
    write_idx(tmp_path / name, x)
    np.testing.assert_array_equal(idx.read_idx(tmp_path / name), x)


def test_damaged_idx_files_are_named(tmp_path):
    path = tmp_path / "x-ubyte"

    def refuses(data, match):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=match) as caught:
            idx.read_idx(path)
        assert str(path) in str(caught.value)

    write_idx(path, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    good = path.read_bytes()
    refuses(b"", "starts with nothing")
    refuses(b"\x01\x00\x08\x03" + good[4:], "starts with 01 00 08 03")
    refuses(b"\x00\x00\x0a\x03" + good[4:], "no idx header")
    refuses(b"\x00\x00\x08\x00" + good[4:], "no idx header")
    refuses(good[:9], "ends within its header")
    refuses(good[:-1], r"declares \(2, 3, 4\), 24 bytes, but it holds 23")
    refuses(good + b"\0", "holds more")
    refuses(gzip.compress(good)[:-12], "damaged or cut off gzip")
    refuses(gzip.compress(good)[:20] + b"junk", "damaged or cut off gzip")
    huge = b"\x00\x00\x08\x03" + struct.pack(">III", 60_000, 60_000, 60_000)
    refuses(huge, "declares 216,000,000,000,000 bytes")
    refuses(gzip.compress(huge + b"\0" * 1000), "declares 216,000,000,000,000 bytes")


def test_local_mnist_with_both_parts_has_the_official_split(tmp_path):
    a, ya = digits(tmp_path, "train", 12)
    b, yb = digits(tmp_path, "t10k", 5, seed=1, suffix="")
    patches = load(f"mnist:{tmp_path}")
    np.testing.assert_array_equal(patches.train, a.reshape(12, -1).astype(np.float32) / 255)
    np.testing.assert_array_equal(patches.test, b.reshape(5, -1).astype(np.float32) / 255)
    np.testing.assert_array_equal(patches.train_labels, ya)
    np.testing.assert_array_equal(patches.test_labels, yb)
    assert patches.shape == (1, 28, 28)
    cut = load(f"mnist:{tmp_path}", patch=8, n=100)
    assert cut.shape == (1, 8, 8) and set(cut.train_labels) <= set(ya)


def test_local_mnist_by_file_without_labels(tmp_path):
    digits(tmp_path, "t10k", 10)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    patches = load(f"fashion_mnist:{tmp_path / 't10k-images-idx3-ubyte.gz'}")
    assert patches.train_labels is None and len(patches.train) == 8 and "not the official" in patches.describe()


def test_mnist_errors(tmp_path):
    with pytest.raises(ValueError, match="holds no train-"):
        load(f"mnist:{tmp_path}")
    digits(tmp_path, "train", 10)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(9, np.uint8))
    with pytest.raises(ValueError, match=r"labels of shape \(9,\) for the 10 images"):
        load(f"mnist:{tmp_path}")
    with pytest.raises(ValueError, match="8-bit images"):
        load(f"mnist:{tmp_path / 'train-labels-idx1-ubyte.gz'}")


def test_real_digits(shared_data):
    patches = load(f"mnist:{shared_data / 'mnist'}")
    assert patches.train.shape == (8_000, 784) and patches.test.shape == (2_000, 784)
    assert patches.train.min() == 0 and patches.train.max() == 1
    labels = np.empty(10_000, int)
    labels[patches.train_group], labels[patches.test_group] = patches.train_labels, patches.test_labels
    np.testing.assert_array_equal(labels[:8], [7, 2, 1, 0, 4, 1, 4, 9])  # as MNIST's test set begins
    assert same(patches, load(f"mnist:{shared_data / 'mnist'}", seed=0))


# --------------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(tmp_path):
    """A loopback HTTP server on its own folder: (folder, url, log of requested paths, stop)."""
    root = tmp_path / "served"
    root.mkdir()
    log = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            log.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()

    def stop():
        httpd.shutdown()
        httpd.server_close()
        thread.join()

    yield root, f"http://127.0.0.1:{httpd.server_port}", log, stop
    if thread.is_alive():
        stop()


@pytest.fixture
def served_digits(server, tmp_path, monkeypatch):
    """Small MNIST-like files on the server, with their hashes known and the cache in a fresh folder."""
    import pooch

    root, url, _, _ = server
    digits(root, "train", 12)
    digits(root, "t10k", 5, seed=1)
    md5 = {p.name: pooch.file_hash(str(p), alg="md5") for p in root.iterdir()}
    known = idx.IdxSet((f"{url}/missing", url), md5, "none", "none")
    monkeypatch.setitem(idx.SETS, "mnist", known)
    monkeypatch.setenv("SPIKEVAE_CACHE", str(tmp_path / "cache"))
    return server


def test_download_falls_back_to_the_next_mirror_and_is_cached(served_digits, tmp_path):
    _, _, log, stop = served_digits
    patches = load("mnist")
    assert patches.train.shape == (12, 784) and patches.test.shape == (5, 784)
    assert any("/missing/" in path for path in log)
    assert len(list((tmp_path / "cache" / "mnist").iterdir())) == 4
    stop()
    assert same(patches, load("mnist"))


def test_wrong_checksum_is_refused_and_leaves_no_file(served_digits, tmp_path):
    root = served_digits[0]
    write_idx(root / "train-labels-idx1-ubyte.gz", np.zeros(12, np.uint8))  # not the bytes of the known hash
    with pytest.raises(ConnectionError, match=r"(?s)train-.*does not match the known hash.*Put the file into"):
        load("mnist")
    assert not list((tmp_path / "cache" / "mnist").glob("train-labels*"))


def test_a_damaged_cached_file_is_fetched_again(served_digits, tmp_path):
    first = load("mnist")
    (tmp_path / "cache" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    assert same(first, load("mnist"))


def test_a_url_replaces_the_mirrors(served_digits):
    _, url, log, _ = served_digits
    assert len(load(f"mnist:{url}").train) == 12
    assert not any("/missing/" in path for path in log)
    with pytest.raises(ConnectionError, match="nowhere"):
        load(f"fashion_mnist:{url}/nowhere")


# ----------------------------------------------------------------------------------------- CIFAR, van Hateren


def cifar_records(n, seed):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (n, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    return records


@pytest.fixture
def cifar_folder(tmp_path):
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for i, name in enumerate(cifar.BATCHES):
        (root / name).write_bytes(cifar_records(4, i).tobytes())
    return root


def test_cifar_folder_and_archive_agree(cifar_folder, tmp_path):
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(cifar_folder, arcname=cifar_folder.name)
    whole = {"patch": 32, "crop": 0, "whiten": False, "normalise_contrast": False, "zscore": "none"}
    options = whole | {"colour": "rgb", "n": 20, "n_test": 4}
    a = load(f"cifar10:{cifar_folder}", **options)
    np.testing.assert_array_equal(a.train, load(f"cifar10:{cifar_folder.parent}", **options).train)
    b = load(f"cifar10:{tmp_path / 'c.tar.gz'}", **options)
    np.testing.assert_array_equal(a.train, b.train)
    assert a.shape == (3, 32, 32)
    record = cifar_records(4, 0)[2]
    row = int(np.flatnonzero(a.train_group == 2)[0])
    np.testing.assert_allclose(a.train[row], record[1:] / 255, atol=1e-6)
    assert a.train_labels[row] == record[0]
    assert set(a.test_group) == {20, 21, 22, 23}


def test_cifar_patches_are_grey_and_whitened_by_default(cifar_folder):
    patches = load(f"cifar10:{cifar_folder}", n=50)
    assert patches.shape == (1, 16, 16) and "whitened" in patches.describe()


def test_damaged_cifar(cifar_folder, tmp_path):
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(cifar_folder, arcname=cifar_folder.name)
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "c.tar.gz").read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cut.tar.gz: damaged"):
        load(f"cifar10:{tmp_path / 'cut.tar.gz'}")
    with pytest.raises(ValueError, match="neither a folder nor an archive"):
        load(f"cifar10:{tmp_path / 'none'}")
    (cifar_folder / "test_batch.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks test_batch.bin"):
        load(f"cifar10:{cifar_folder}")
    (cifar_folder / "test_batch.bin").write_bytes(b"\0" * 3_000)
    with pytest.raises(ValueError, match=r"test_batch.bin: 3,000 bytes"):
        load(f"cifar10:{cifar_folder}")


def test_van_hateren(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        rng.integers(0, 4096, (1024, 1536)).astype(">u2").tofile(tmp_path / f"imk0000{i}.iml")
    raw = bytearray((tmp_path / "imk00000.iml").read_bytes())
    raw[2:4] = b"\x01\x02"
    (tmp_path / "imk00000.iml").write_bytes(bytes(raw))
    assert van_hateren.read_raw(tmp_path / "imk00000.iml")[0, 1] == 258
    (tmp_path / "short.imc").write_bytes(b"\0" * 100)
    (tmp_path / "nowhere.iml").symlink_to("none")
    with pytest.warns(
        UserWarning, match=r"nowhere.iml: is no regular file\s+short.imc: 100 bytes instead of 3,145,728"
    ):
        patches = load(f"van_hateren:{tmp_path}", n=500)
    assert patches.train.shape == (500, 256) and patches.info["train_counts"]["pixels"] == 1016 * 1528
    with pytest.raises(ValueError, match="greyscale"):
        load(f"van_hateren:{tmp_path}", colour="rgb")
    with pytest.raises(ValueError, match="van_hateren:DIR"):
        load("van_hateren")
    with pytest.raises(ValueError, match=r"short.imc: 100 bytes"):
        van_hateren.read_raw(tmp_path / "short.imc")


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


def test_spectra_figure_of_small_colour_images(cifar_folder):
    config = DataConfig(source=f"cifar10:{cifar_folder}", n=20, colour="rgb")
    assert len(spectra_figure(config, read_images(config), load_config(config)).axes) == 4
    whole = DataConfig(source="synthetic", n=20)
    with pytest.raises(ValueError, match="not cut from images"):
        spectra_figure(whole, read_images(whole), load_config(whole))
