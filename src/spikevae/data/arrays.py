"""Arrays in .npy and .npz files: rows of features, greyscale images or colour images."""

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from ._config import DataConfig
from ._images import MAX_BYTES, Images, check_memory

MAX_RATIO, MIN_BYTES_FOR_RATIO = 200, 1 << 28
"""An archive that is larger than this when read, by more than this factor, holds the same number almost everywhere."""
MAX_HEADER_BYTES = 1 << 16  # that are read for the header of one array
SIZE_REMEDY = "save fewer rows, or numbers of fewer bytes"
TRAIN, TEST = ("train", "x_train", "X_train"), ("test", "x_test", "X_test")
TRAIN_LABELS, TEST_LABELS = ("train_labels", "y_train"), ("test_labels", "y_test")


def read_array(config: DataConfig) -> Images:
    """Read `array:FILE.npy` or `array:FILE.npz`.

    Shapes: (n, D) rows, (n, H, W) greyscale images, (n, C, H, W) or (n, H, W, C) images with 1 or 3 channels.
    An .npz holds either one such array (and `labels`), or `train` and `test` (also `x_train`, `x_test`) with
    their labels (`train_labels`, `test_labels`, or `y_train`, `y_test`), which is then the split.

    Raises
    ------
    ValueError
        Where the file is missing, damaged, pickled, not numeric, not finite or of another shape; it names the
        file.
    """
    if config.path is None:
        raise ValueError("source 'array' needs a path: 'array:FILE.npy' or 'array:FILE.npz'")
    path = config.local
    if not path.is_file():
        raise ValueError(f"source 'array': {path} is no file")
    try:
        return _assemble(load_arrays(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"source 'array': {path}: {error}") from error


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """All arrays of a file by name; an .npy file holds one, named `x`. Of an .npz, `names` are read if given.

    Raises
    ------
    ValueError
        Where an array's header is damaged, declares more or less than the file holds or over `MAX_BYTES`, or declares
        Python objects. The header is checked before the array is read.
    """
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                _check_header(file, path.stat().st_size)
            return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix.lower() != ".npz":
            raise ValueError("is neither .npy nor .npz")
        with zipfile.ZipFile(path) as archive:
            return _read_members(archive, names)
    except (EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"is damaged ({error}): make it again") from error


def _read_members(archive: zipfile.ZipFile, names: Collection[str] | None) -> dict[str, np.ndarray]:
    size, stored = (sum(getattr(m, name) for m in archive.infolist()) for name in ("file_size", "compress_size"))
    _check_size(size)
    if size > max(MIN_BYTES_FOR_RATIO, MAX_RATIO * stored):
        raise ValueError(
            f"holds {stored:,} bytes that are {size:,} when read, nearly all of them equal: save such arrays with "
            "numpy.savez or numpy.save, without compression"
        )
    arrays = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if names is not None and name not in names:
            continue
        try:
            with archive.open(member) as file:
                _check_header(file, member.file_size)
            with archive.open(member) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OSError) as error:
            raise ValueError(f"member {name!r}: {error}") from error
    return arrays


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"declares {size:,} bytes of arrays, more than {MAX_BYTES:,}: {SIZE_REMEDY}")


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuse an array whose header does not agree with `size`, the bytes of header and array in the file."""
    head = io.BytesIO(file.read(MAX_HEADER_BYTES))
    if not head.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("is no array: save it with numpy.save")
    try:
        second = np.lib.format.read_magic(head) == (2, 0)  # version 3 differs in the names of columns only
        read = np.lib.format.read_array_header_2_0 if second else np.lib.format.read_array_header_1_0
        shape, _, dtype = read(head)
    except Exception as error:  # the header is parsed as Python code, which can raise any error
        raise ValueError(f"has no readable header ({error}): make it again") from error
    if dtype.hasobject:
        raise ValueError("holds Python objects (a pickle), which are never loaded: save numbers")
    declared, held = math.prod(shape) * dtype.itemsize, size - head.tell()
    _check_size(max(declared, held))
    if declared != held or min(shape, default=0) < 0:
        raise ValueError(
            f"declares {shape} of {dtype}, {declared:,} bytes, but holds {held:,}: it is damaged, make it again"
        )


def _assemble(arrays: dict[str, np.ndarray]) -> Images:
    """Stimuli, labels and split from named arrays."""
    train, test = _pick(arrays, TRAIN), _pick(arrays, TEST)
    y: np.ndarray | None = None
    if train is not None and test is not None:
        parts = [_numbers(train), _numbers(test)]
        if train.shape[1:] != test.shape[1:]:
            raise ValueError(f"training rows have shape {train.shape[1:]}, test rows {test.shape[1:]}")
        n = len(train) + len(test)
        same = train.dtype == test.dtype
        if not same:
            check_memory("with one type for both", n, math.prod(train.shape[1:]), SIZE_REMEDY)
        x = np.concatenate(parts, dtype=train.dtype if same else np.float32, casting="unsafe")
        own_test = np.arange(n) >= len(train)
        labels = [_pick(arrays, TRAIN_LABELS), _pick(arrays, TEST_LABELS)]
        if labels[0] is not None and labels[1] is not None:
            y = np.concatenate([_classes(labels[0], len(train)), _classes(labels[1], len(test))])
    else:
        data = {name: a for name, a in arrays.items() if name not in ("labels", "y")}
        if len(data) != 1:
            raise ValueError(
                f"holds {sorted(arrays)}: name two of them 'train' and 'test', or keep one besides 'labels'"
            )
        x, own_test = _numbers(next(iter(data.values()))), None
        single = _pick(arrays, ("labels", "y"))
        y = None if single is None else _classes(single, len(x))
    if x.ndim == 4 and x.shape[1] in (1, 3):
        x = np.moveaxis(x, 1, -1)
    elif x.ndim == 4 and x.shape[-1] not in (1, 3):
        raise ValueError(f"has shape {x.shape}; neither the second nor the last axis has 1 or 3 channels")
    check_memory("even without their values", len(x), 0, "keep fewer rows")
    return Images(x, [f"{i:06d}" for i in range(len(x))], photographs=False, labels=y, own_test=own_test)


def _numbers(x: np.ndarray) -> np.ndarray:
    """Check that `x` holds stimuli: real, finite, of a known shape."""
    if x.dtype.kind not in "buif":
        raise ValueError(f"holds values of type {x.dtype}; real numbers are needed")
    if x.ndim not in (2, 3, 4) or not math.prod(x.shape):
        raise ValueError(
            f"has shape {x.shape}; (n, D), (n, H, W), (n, C, H, W) or (n, H, W, C) are allowed, none empty"
        )
    if x.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            largest = max(-float(x.min()), float(x.max()))  # NaN if any value is; a mask would need more memory
        if not math.isfinite(largest):
            raise ValueError("has values that are not finite: replace or remove them")
        if largest > float(np.finfo(np.float32).max):
            raise ValueError(f"has a value of size {largest:.3g}, too large for float32: scale the values")
    return x


def _classes(y: np.ndarray, n: int) -> np.ndarray:
    """Labels as int64, one per stimulus."""
    if y.shape != (n,):
        raise ValueError(f"has labels of shape {y.shape} for {n} stimuli")
    if y.dtype.kind in "buif":
        with np.errstate(invalid="ignore"):
            whole = y.astype(np.int64)
        if np.array_equal(whole, y):
            return whole
    raise ValueError(f"has labels of type {y.dtype} that are not all whole numbers: number the classes")


def _pick(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """The first of the named arrays that exists."""
    return next((arrays[name] for name in names if name in arrays), None)
