"""Folders of photographs: formats, damaged and hostile files, what may not be read."""

import json
import os
import shutil
import struct
import tempfile
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from data_files import picture, same, write_idx
from PIL import Image

from spikevae._terminal import printable
from spikevae.data import (
    folder,
    load,
)


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
    monkeypatch.setattr(folder, "MAX_KEPT_VALUES", 0)
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
