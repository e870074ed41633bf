"""Data sets as training and test stimuli, split by image: `load("bundled")`, `load("folder:photos")`, ..."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._build import build
from ._config import DataConfig as DataConfig
from ._config import SyntheticConfig as SyntheticConfig
from ._images import Images as Images
from ._patches import PatchSet as PatchSet
from .arrays import read_array
from .bundled import read_bundled
from .cifar import read_cifar
from .folder import read_folder
from .idx import read_digits
from .synthetic import read_synthetic
from .van_hateren import read_van_hateren


@dataclass(frozen=True)
class Source:
    """One data source: how to read its whole images, how to write its name, and what it is."""

    read: Callable[[DataConfig], Images]
    usage: str
    summary: str


SOURCES: dict[str, Source] = {
    "bundled": Source(read_bundled, "bundled", "photographs inside scikit-image and scikit-learn; no download"),
    "folder": Source(read_folder, "folder:PATH", "photographs on disk, of any size"),
    "array": Source(read_array, "array:FILE.npy|.npz", "rows, greyscale or colour images in an array file"),
    "mnist": Source(read_digits, "mnist[:PATH|URL]", "handwritten digits, 28 x 28, with labels"),
    "fashion_mnist": Source(read_digits, "fashion_mnist[:PATH|URL]", "pictures of clothes, 28 x 28, with labels"),
    "cifar10": Source(read_cifar, "cifar10[:PATH|URL]", "patches of 32 x 32 photographs, with labels"),
    "van_hateren": Source(read_van_hateren, "van_hateren:DIR", "calibrated natural images, .iml or .imc files"),
    "synthetic": Source(read_synthetic, "synthetic", "Poisson counts times a known dictionary, plus noise"),
}


def load(source: str = "bundled", **options: Any) -> PatchSet:
    """Load a data set by name: `load_config(DataConfig(source=source, **options))`.

    Parameters
    ----------
    source
        A word of `SOURCES`, with a path after a colon where it takes one.
    **options
        The fields of `DataConfig`: patch, n, n_test, test_fraction, seed, colour, downsample, whiten, ...

    Raises
    ------
    ValueError
        For an unknown source, an unknown option or a value out of range (pydantic's `ValidationError` is
        one), and for files that are missing, damaged or too few.

    Examples
    --------
    >>> patches = load("bundled", patch=16, n=1_000, seed=0)
    >>> patches.train.shape, patches.test.shape, patches.shape
    ((1000, 256), (250, 256), (1, 16, 16))
    """
    return load_config(DataConfig(source=source, **options))


def load_config(config: DataConfig) -> PatchSet:
    """Load the data set that `config` describes; equal configurations give equal arrays."""
    return build(config, read_images(config))


def read_images(config: DataConfig) -> Images:
    """Whole images of the source before any preparation."""
    if config.word not in SOURCES:
        near = difflib.get_close_matches(config.word, SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown data source {config.word!r}{hint}; known are "
            + ", ".join(source.usage for source in SOURCES.values())
        )
    try:
        return SOURCES[config.word].read(config)
    except (PermissionError, IsADirectoryError) as error:
        raise ValueError(f"source {config.source!r}: {error}") from error
