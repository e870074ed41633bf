"""Arrays in .npy and .npz files: rows of features, greyscale images or colour images."""

import math
import zipfile
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._images import Images

MAX_BYTES = 16 * 2**30  # an .npz may declare far more than its file's size
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
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise ValueError(f"source 'array': {path} is no file")
    try:
        arrays = load_arrays(path)
        return _assemble(path, arrays)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"source 'array': {path}: {error}") from error


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name; an .npy file holds one, named `x`."""
    if path.suffix.lower() == ".npy":
        return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
    if path.suffix.lower() != ".npz":
        raise ValueError("is neither .npy nor .npz")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"declares {size:,} bytes of arrays, more than {MAX_BYTES:,}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _assemble(path: Path, arrays: dict[str, np.ndarray]) -> Images:
    """Stimuli, labels and split from named arrays."""
    train, test = _pick(arrays, TRAIN), _pick(arrays, TEST)
    if train is not None and test is not None:
        if train.shape[1:] != test.shape[1:]:
            raise ValueError(f"training rows have shape {train.shape[1:]}, test rows {test.shape[1:]}")
        x = np.concatenate([train, test])
        own_test = np.arange(len(x)) >= len(train)
        labels = [_pick(arrays, TRAIN_LABELS), _pick(arrays, TEST_LABELS)]
        y = None if labels[0] is None or labels[1] is None else np.concatenate([labels[0], labels[1]])
    else:
        data = {name: a for name, a in arrays.items() if name not in ("labels", "y")}
        if len(data) != 1:
            raise ValueError(
                f"holds {sorted(arrays)}: name two of them 'train' and 'test', or keep one besides 'labels'"
            )
        x, own_test = next(iter(data.values())), None
        y = _pick(arrays, ("labels", "y"))
    if x.dtype.kind not in "buif":
        raise ValueError(f"holds values of type {x.dtype}; real numbers are needed")
    if x.ndim not in (2, 3, 4) or not math.prod(x.shape):
        raise ValueError(
            f"has shape {x.shape}; (n, D), (n, H, W), (n, C, H, W) or (n, H, W, C) are allowed, none empty"
        )
    if x.ndim == 4 and x.shape[1] in (1, 3):
        x = np.moveaxis(x, 1, -1)
    elif x.ndim == 4 and x.shape[-1] not in (1, 3):
        raise ValueError(f"has shape {x.shape}; neither the second nor the last axis has 1 or 3 channels")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError("has values that are not finite: replace or remove them")
    if y is not None and y.shape != (len(x),):
        raise ValueError(f"has labels of shape {y.shape} for {len(x)} stimuli")
    return Images(x, [f"{i:06d}" for i in range(len(x))], photographs=False, labels=y, own_test=own_test)


def _pick(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """The first of the named arrays that is there."""
    return next((arrays[name] for name in names if name in arrays), None)
