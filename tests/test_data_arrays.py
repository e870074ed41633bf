"""Arrays of stimuli in .npy and .npz files: shapes, splits, labels, damage and limits."""

import io
import zipfile

import numpy as np
import pytest

from spikevae.data import _build as build_module
from spikevae.data import _images as images_module
from spikevae.data import (
    arrays,
    load,
)


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
    with pytest.raises(ValueError, match="29 train stimuli requested"):
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
    for option in (
        {"patch": 4},
        {"whiten": True},
        {"whiten": "published"},
        {"colour": "grey"},
        {"zscore": "image"},
        {"crop": 1},
    ):
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
