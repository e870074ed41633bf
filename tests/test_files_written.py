"""What stands where a file is written: links, devices, read-only files, odd paths; and that nothing is left there."""

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from spikevae._files import atomic_write, check_target, create, user_path, write_bytes
from spikevae._terminal import check_out
from spikevae.plotting import save


def test_a_link_stays_a_link_and_the_file_keeps_its_permissions(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real")
    write_bytes(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new" and stat.S_IMODE(real.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling"
    dangling.symlink_to("later")
    write_bytes(dangling, b"new")
    assert dangling.is_symlink() and (tmp_path / "later").read_bytes() == b"new"


def test_what_is_no_file_is_refused_before_and_when_writing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "only").write_bytes(b"mine")
    (tmp_path / "only").chmod(0o444)
    (tmp_path / "file").write_bytes(b"")
    refused = {
        "pipe": "a device, pipe or socket",
        "folder": "is a folder; name a file",
        "loop": "cannot be written",
        "only": "read-only; make it writable",
        "file/below": "is a file",
        "x" * 300: "too long",
    }
    before = sorted(p.name for p in tmp_path.iterdir())
    for name, text in refused.items():
        with pytest.raises(OSError, match=text):
            write_bytes(tmp_path / name, b"new")
        with pytest.raises(ValueError, match=text):
            check_out(tmp_path / name, folder=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == before and (tmp_path / "only").read_bytes() == b"mine"


def test_a_device_stays_a_device():
    with pytest.raises(OSError, match="/dev/null is a device"):
        write_bytes(user_path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, barrier = tmp_path / "one", threading.Barrier(8)

    def write(letter):
        with atomic_write(path) as scratch:
            barrier.wait()
            scratch.write_bytes(letter * 100_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [bytes([65 + i]) for i in range(8)]))
    assert len(set(path.read_bytes())) == 1 and [*tmp_path.iterdir()] == [path]


def test_one_of_many_creates_a_new_file(tmp_path, monkeypatch):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: create(tmp_path / "new", bytes([65 + i]) * 1000), range(8)))
    assert won.count(True) == 1 and (tmp_path / "new").read_bytes() == bytes([65 + won.index(True)]) * 1000

    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    assert create(tmp_path / "other", b"x") and not create(tmp_path / "other", b"y")
    assert (tmp_path / "other").read_bytes() == b"x" and len([*tmp_path.iterdir()]) == 2


def test_names_as_long_as_the_file_system_takes(tmp_path):
    write_bytes(tmp_path / ("é" * 127), b"x")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"x"]


def test_paths_of_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/m") == tmp_path / "m" and user_path("~x y").name == "~x y"
    assert check_target(user_path("~/m")) is None
    for bad in ("", "a\0b"):
        with pytest.raises(ValueError, match=r"empty path|NUL"):
            user_path(bad)
    write_bytes(tmp_path / os.fsdecode(b"\xff.json"), b"x")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.json"]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_figure_with_control_characters_is_well_formed(tmp_path):
    sheet = Figure(figsize=(2, 2))
    sheet.subplots().set_title("a\x1b[1m\x00b & <c>")
    save(sheet, tmp_path / "f.svg")
    ElementTree.parse(tmp_path / "f.svg")
    assert np.frombuffer((tmp_path / "f.svg").read_bytes(), np.uint8).min() >= 9
