"""Data sets as training and test stimuli, split by image: `load("bundled")`, `load("folder:photos")`, ..."""

import difflib
from typing import Any

import numpy as np

from .._scope import NUMPY_ERRORS
from .._sources import SOURCES as SOURCES
from .._sources import Source as Source
from ._build import build
from ._config import DataConfig as DataConfig
from ._config import SyntheticConfig as SyntheticConfig
from ._images import Images as Images
from ._patches import PatchSet as PatchSet


def load(source: str = "bundled", **options: Any) -> PatchSet:
    """Load a data set by name: `load_config(DataConfig(source=source, **options))`.

    Parameters
    ----------
    source
        A name of `SOURCES`, with a path after a colon if it takes one.
    **options
        The fields of `DataConfig`: patch, n, n_test, test_fraction, seed, colour, downsample, whiten, ...

    Raises
    ------
    ValueError
        For an unknown source, an unknown option or a value out of range (as pydantic's `ValidationError`), and for
        files that are missing, damaged or too few.

    Examples
    --------
    >>> patches = load("bundled", patch=16, n=1_000, seed=0)
    >>> patches.train.shape, patches.test.shape, patches.shape
    ((1000, 256), (250, 256), (1, 16, 16))
    """
    return load_config(DataConfig(source=source, **options))


def load_config(config: DataConfig) -> PatchSet:
    """Load the data set that `config` describes; equal configurations give equal arrays."""
    with np.errstate(**NUMPY_ERRORS):
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
        images: Images = SOURCES[config.word].read(config)
        return images
    except (PermissionError, IsADirectoryError) as error:
        raise ValueError(f"source {config.source!r}: {error}") from error
