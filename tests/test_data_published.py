"""MNIST, CIFAR-10 and van Hateren: their file formats, damage, and downloads from a loopback server."""

import functools
import gzip
import http.server
import struct
import tarfile
import threading

import numpy as np
import pytest

# -------------------------------------------------------------------------------------------------------- idx
from data_files import same, write_idx

from spikevae.data import (
    DataConfig,
    cifar,
    idx,
    load,
    load_config,
    read_images,
    van_hateren,
)
from spikevae.data.figure import spectra_figure


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
    with pytest.raises(ValueError, match="van_hateren:PATH"):
        load("van_hateren")
    with pytest.raises(ValueError, match=r"short.imc: 100 bytes"):
        van_hateren.read_raw(tmp_path / "short.imc")


def test_spectra_figure_of_small_colour_images(cifar_folder):
    config = DataConfig(source=f"cifar10:{cifar_folder}", n=20, colour="rgb")
    assert len(spectra_figure(config, read_images(config), load_config(config)).axes) == 4
    whole = DataConfig(source="synthetic", n=20)
    with pytest.raises(ValueError, match="not cut from images"):
        spectra_figure(whole, read_images(whole), load_config(whole))
