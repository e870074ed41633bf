"""Stimuli in the forms that users have them: arrays, data sets and loaders of PyTorch, iterators, arrays in files."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .._arrays import plain
from .._machine import available_bytes

READ_WHOLE = 0.25
"""Share of the free memory up to which the stimuli of a file or a data set are read at once."""
COLLECTED = 0.5
"""The same of an iterator, which cannot be read by row."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes that count as free where the system does not tell."""


class Stored(NamedTuple):
    """Stimuli that can be read by row number."""

    read: Callable[[NDArray[np.int64]], NDArray[Any]]
    """Takes increasing row numbers (m,), and returns (m, ...) numbers."""
    n: int

    def whole(self) -> NDArray[Any]:
        """All of them."""
        return self.read(np.arange(self.n))


def free_bytes(share: float) -> int:
    """This share of the free memory."""
    return int(share * (available_bytes() or UNKNOWN_MEMORY))


def stored(X: Any) -> Stored | None:
    """How to read X by row, where it is an array in a file (mapped, or in chunks) or a data set of PyTorch; else None.

    Raises
    ------
    ValueError
        Where it is empty.
    """
    if isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "shape") and hasattr(X, "dtype")):
        found = Stored(lambda rows: _rows_of_array(X, rows), int(X.shape[0]) if len(X.shape) else 0)
    elif _is_map_style(X):
        found = Stored(lambda rows: np.stack([_numbers(X[int(i)]) for i in rows]), len(X))
    else:
        return None
    if not found.n:
        raise ValueError("X has no rows: give at least one stimulus")
    return found


def _rows_of_array(X: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return np.asarray(X[first : last + 1])
    return np.asarray(X[rows])


def _is_map_style(X: Any) -> bool:
    kind = torch.utils.data.Dataset
    return isinstance(X, kind) and not isinstance(X, torch.utils.data.IterableDataset) and hasattr(X, "__len__")


def gathered(X: Any) -> Any:
    """X as an array in memory where it is an iterator, a loader, a data set or an array in chunks; else X as it is.

    Raises
    ------
    ValueError
        Where it is larger than memory allows, or empty.
    """
    if isinstance(X, np.memmap):
        return X
    found = stored(X)
    if found is not None:
        need = 4 * found.n * found.read(np.arange(1)).size
        if need > free_bytes(COLLECTED):
            raise ValueError(f"X takes {need / 1e9:.3g} GB, more than half of the free memory: give it in parts")
        return found.whole()
    is_array = hasattr(X, "__array__") or hasattr(X, "shape") or hasattr(X, "columns")
    if is_array or isinstance(X, str | bytes | dict | list | tuple) or not isinstance(X, Iterable):
        return X
    return _collected(X)


def _collected(batches: Iterable[Any]) -> NDArray[Any]:
    """The batches of an iterator below each other, in float32 (float64 where they are)."""
    parts: list[NDArray[Any]] = []
    size, bound = 0, free_bytes(COLLECTED)
    for batch in batches:
        part = _numbers(batch)
        if part.dtype.kind not in "buif" or part.ndim < 2:
            raise ValueError(
                f"X gave a batch of shape {part.shape} and type {part.dtype}; batches are numbers (B, D) or images "
                "(B, C, H, W)"
            )
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"X gave a batch of shape {part.shape} after one of {parts[0].shape}: give stimuli of one size"
            )
        parts.append(part if part.dtype == np.float64 else part.astype(np.float32, copy=isinstance(batch, np.ndarray)))
        size += parts[-1].nbytes
        if size > bound:
            raise ValueError(
                f"X gave over {bound / 1e9:.3g} GB of stimuli, half of the free memory, and it can be read only in its "
                "own order: give fewer batches, or a Dataset, a numpy.memmap or an HDF5 data set, read by batch"
            )
    if not parts:
        raise ValueError("X gave no batches: an iterator can be read only once; give a new one")
    return np.concatenate(parts)


def _numbers(item: Any) -> NDArray[Any]:
    """The stimuli of a batch or of an item of a data set: itself, or the first of a pair with its label."""
    if isinstance(item, dict):
        raise ValueError(f"X gave a dictionary with {', '.join(map(repr, item))}; give the stimuli alone, or a pair")
    if isinstance(item, tuple | list) and len(item) and not np.isscalar(item[0]):
        item = item[0]
    return np.asarray(plain(item, "X"))
