"""MNIST and Fashion-MNIST from idx files, local or downloaded."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._download import fetch
from ._images import Images, check_memory

MAX_BYTES = 2**30  # an idx header may declare any size, and a small .gz file may decompress to it
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True)
class IdxSet:
    """URLs of a data set, the MD5 of its four files, licence and citation."""

    mirrors: tuple[str, ...]
    md5: dict[str, str]
    licence: str
    citation: str


SETS = {
    "mnist": IdxSet(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        licence="not stated by its authors; often given as CC BY-SA 3.0",
        citation="LeCun, Bottou, Bengio, Haffner (1998), Proc. IEEE 86:2278-2324",
    ),
    "fashion_mnist": IdxSet(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747",
    ),
}


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file, plain or gzip-compressed (detected from its first bytes).

    Layout: two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian 32-bit
    integer, the values in row-major order.

    Raises
    ------
    ValueError
        Where the header is not an idx header, or the file has fewer or more values than it declares; the message names
        the file.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 4:
                raise ValueError(f"starts with {magic.hex(' ') or 'nothing'}, which is no idx header")
            header = stream.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise ValueError("ends within its header")
            shape = tuple(int(d) for d in np.frombuffer(header, dtype=">u4"))
            dtype = np.dtype(TYPES[magic[2]])
            size = math.prod(shape) * dtype.itemsize
            if size > MAX_BYTES:
                raise ValueError(f"declares {size:,} bytes, more than {MAX_BYTES:,}")
            if len(shape) > 1:
                check_memory("declares too much", shape[0], math.prod(shape[1:]), "keep fewer images")
            body = stream.read(size + 1)  # one byte more, to detect trailing bytes
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged or cut off gzip file ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(body) != size:
        found = f"{len(body):,}" if len(body) < size else "more"
        raise ValueError(f"{path}: its header declares {shape}, {size:,} bytes, but it holds {found}")
    return np.frombuffer(body, dtype=dtype).reshape(shape)


def read_digits(config: DataConfig) -> Images:
    """MNIST or Fashion-MNIST, pixels in [0, 1] with labels, from a file, a folder, a URL or the known mirrors.

    A folder with both parts gives the official split; one part alone is split by `test_fraction`. A file contains
    images; its labels are searched for beside it.

    Raises
    ------
    ValueError
        Where files are missing, damaged or inconsistent.
    """
    known = SETS[config.word]
    parts: list[tuple[Path, Path | None]]
    if config.path is None or config.path.startswith(("http://", "https://")):
        mirrors = (config.path,) if config.path else known.mirrors
        files = {name: fetch(name, f"md5:{md5}", mirrors, config.word) for name, md5 in known.md5.items()}
        parts = [(files[f"{p}-images-idx3-ubyte.gz"], files[f"{p}-labels-idx1-ubyte.gz"]) for p in ("train", "t10k")]
        own_split = True
    else:
        parts, own_split = _local(config.local, config.word)
    images, labels = zip(*(_part(*part) for part in parts))
    x = np.concatenate(images)
    y = None if any(part is None for part in labels) else np.concatenate(labels)
    return Images(
        images=x,
        names=[f"{i:06d}" for i in range(len(x))],
        photographs=False,
        labels=y,
        own_test=np.arange(len(x)) >= len(images[0]) if own_split else None,
        licence=known.licence,
        citation=known.citation,
        note="" if own_split else f"only {parts[0][0].name} was given: the split is not the official one",
    )


def _local(path: Path, word: str) -> tuple[list[tuple[Path, Path | None]], bool]:
    """Files of images and labels at a path, and whether both parts of the official split exist."""
    if path.is_file():
        return [(path, _labels_file(path))], False
    parts: list[tuple[Path, Path | None]] = []
    if path.is_dir():
        for part in ("train", "t10k"):
            names = [f"{part}-images{dot}idx3-ubyte{end}" for dot in "-." for end in ("", ".gz")]
            found = next((path / name for name in names if (path / name).is_file()), None)
            if found is not None:
                parts.append((found, _labels_file(found)))
    if not parts:
        raise ValueError(f"source '{word}': {path} is no idx file and holds no train- or t10k-images-idx3-ubyte[.gz]")
    return parts, len(parts) == 2


def _labels_file(images: Path) -> Path | None:
    """The labels file that belongs to an images file, plain or compressed, or None."""
    stem = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    candidates = [images.with_name(name) for name in (stem, f"{stem}.gz")]
    return next((p for p in candidates if p != images and p.is_file()), None)


def _part(images: Path, labels: Path | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels in [0, 1] and labels of one part, checked against each other."""
    x = read_idx(images)
    if x.ndim != 3 or x.dtype != np.uint8 or not x.size:
        raise ValueError(f"{images}: holds {x.dtype} of shape {x.shape}; 8-bit images (n, H, W) are needed")
    check_memory(str(images), *x.reshape(len(x), -1).shape, "keep fewer images")
    y = None if labels is None else read_idx(labels)
    if y is not None and y.shape != (len(x),):
        raise ValueError(f"{labels}: holds labels of shape {y.shape} for the {len(x)} images of {images.name}")
    return np.divide(x, 255, dtype=np.float32), y
