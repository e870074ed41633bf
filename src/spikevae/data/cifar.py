"""CIFAR-10 in its binary version, which is not pickled."""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._download import fetch
from ._images import Images, LazyImages

MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes
MAX_RECORDS = 10_000  # in one batch file


def read_cifar(config: DataConfig) -> Images:
    """CIFAR-10 from its archive, a folder of .bin files or the known mirror; 32 x 32 colour images in [0, 1].

    They are treated as photographs: by default patches are cut from them, whitened and in grey, as in the published
    CIFAR patches. `patch=32, crop=0, whiten=False, normalise_contrast=False, colour="rgb"` gives whole images.

    Raises
    ------
    ValueError
        Where a batch is missing or has a wrong size; it names the file.
    """
    if config.path is None or config.path.startswith(("http://", "https://")):
        path = fetch(ARCHIVE, f"md5:{MD5}", (config.path,) if config.path else MIRRORS, "cifar10")
    else:
        path = config.local
    batches = _from_folder(path) if path.is_dir() else _from_archive(path)
    missing = [name for name in BATCHES if name not in batches]
    if missing:
        raise ValueError(f"source 'cifar10': {path} lacks {', '.join(missing)}: the binary version is needed")
    records = np.concatenate([batches[name] for name in BATCHES])
    n_train = len(records) - len(batches[BATCHES[-1]])
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    return Images(
        images=LazyImages(lambda i: np.moveaxis(pixels[i], 0, -1).astype(np.float32) / 255, len(records)),
        names=[f"{i:06d}" for i in range(len(records))],
        photographs=True,
        labels=records[:, 0].astype(np.int64),
        own_test=np.arange(len(records)) >= n_train,
        licence="not stated",
        citation="Krizhevsky (2009), Learning multiple layers of features from tiny images",
    )


def _from_folder(path: Path) -> dict[str, np.ndarray]:
    """The batches of an unpacked archive."""
    inner = path / "cifar-10-batches-bin"
    root = inner if inner.is_dir() else path
    out = {}
    for name in BATCHES:
        if (root / name).is_file():
            _check_size(root / name, (root / name).stat().st_size)
            out[name] = _records((root / name).read_bytes())
    return out


def _from_archive(path: Path) -> dict[str, np.ndarray]:
    """The batches of the .tar.gz, read as a stream and never unpacked to disk."""
    if not path.is_file():
        raise ValueError(f"source 'cifar10': {path} is neither a folder nor an archive")
    out = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in BATCHES and member.isfile():
                    _check_size(f"{path}: {name}", member.size)
                    stream = archive.extractfile(member)
                    assert stream is not None  # a plain file
                    out[name] = _records(stream.read())
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: damaged or cut off archive ({error})") from error
    return out


def _check_size(what: object, size: int) -> None:
    """Refuse a batch file with a partial record or with more records than an official one."""
    if size % RECORD or not 0 < size <= MAX_RECORDS * RECORD:
        raise ValueError(f"{what}: {size:,} bytes; 1 to {MAX_RECORDS:,} records of {RECORD:,} bytes are allowed")


def _records(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, RECORD)
