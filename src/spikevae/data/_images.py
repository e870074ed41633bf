"""Whole images of a source before any preprocessing, and the limit of their size in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_BYTES = 2_000_000_000  # of a file's arrays or of one set's stimuli: 4 GB with the copy that is selected from them
STIMULUS_BYTES = 256  # besides its pixels: name, digest and numbers


class LazyImages(Sequence[np.ndarray]):
    """Images that are read from disk when indexed, so that a large folder is never in memory as a whole."""

    def __init__(self, read: Callable[[int], np.ndarray], length: int) -> None:
        self._read, self._length = read, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._read(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._read(i) for i in range(self._length))


@dataclass(frozen=True)
class Images:
    """Whole images of one source, in a fixed order.

    `images` holds (H, W), (H, W, C) or (D,) arrays of any real type; `own_test` marks the source's own test images, if
    any; `lossy` marks images from lossy files, which are made smaller before whitening; where `photographs` is true,
    patches of filtered images are the default. `truth` (a dict, empty where nothing is known) marks stimuli that were
    drawn at the size and in the number that the configuration asks for; all of them are used.
    """

    images: Sequence[np.ndarray] | np.ndarray
    names: Sequence[str]
    photographs: bool
    lossy: Sequence[bool] | None = None
    labels: np.ndarray | None = None
    own_test: np.ndarray | None = None
    licence: str = ""
    citation: str = ""
    note: str = ""
    skipped: dict[str, str] = field(default_factory=dict)
    truth: dict[str, Any] | None = None


def check_memory(what: str, n: int, values: int, fix: str, fixed: int = 0) -> None:
    """Refuse `n` stimuli of `values` float32 numbers plus `fixed` bytes if they exceed `MAX_BYTES`."""
    size = n * (4 * values + STIMULUS_BYTES) + fixed
    if size > MAX_BYTES:
        raise ValueError(f"{what}: {n:,} stimuli take {size / 1e9:,.1f} GB, more than {MAX_BYTES / 1e9:.3g} GB: {fix}")
