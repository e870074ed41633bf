"""The stimuli of a run, and how the workers on this machine get them."""

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..data import DataConfig, PatchSet


@dataclass(frozen=True)
class Stimuli:
    """The stimuli of a data set, in a form that processes share."""

    train: np.ndarray
    """(n, D) float32."""
    test: np.ndarray
    """(m, D) float32."""
    shape: tuple[int, ...]
    source: dict[str, Any]
    """The configuration of the data, JSON-serialisable; model files keep it."""

    @classmethod
    def of(cls, data: PatchSet, config: DataConfig) -> Self:
        """From a loaded data set and its configuration."""
        return cls(data.train, data.test, data.shape, config.model_dump(mode="json"))

    def aligned(self) -> Self:
        """The same stimuli in arrays that begin at multiples of `ALIGNMENT` bytes, copied where they do not."""
        return replace(self, train=_aligned(self.train), test=_aligned(self.test))

    @contextmanager
    def shared(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """A file descriptor and the facts by which :meth:`of_shared` maps these stimuli in another process.

        The file has no name, so nothing of it is left however the processes end.

        Raises
        ------
        OSError
            Where the disk of the temporary folder is full; the message names the folder.
        """
        train, test = (np.ascontiguousarray(part, np.float32) for part in (self.train, self.test))
        padding = np.zeros(-train.nbytes % ALIGNMENT, np.uint8)
        parts = (train, padding, test)
        size = sum(part.nbytes for part in parts)
        with tempfile.TemporaryFile(prefix="spikevae-", buffering=0) as file:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                for part in parts:
                    rest = memoryview(part.data).cast("B")
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
            except OSError as error:
                raise OSError(
                    f"the temporary folder {tempfile.gettempdir()} cannot hold the stimuli for the workers, "
                    f"{size / 1e6:.3g} MB: {error.strerror}; set TMPDIR to a folder with free space, or train in one "
                    "process (--jobs 1)"
                ) from None
            yield file.fileno(), {"sizes": [len(train), len(test)], "shape": self.shape, "source": self.source}

    @classmethod
    def of_shared(cls, file: int, facts: Mapping[str, Any]) -> Self:
        """Map what :meth:`shared` gave, aligned; copy-on-write, so that the pages stay shared."""
        shape = tuple(facts["shape"])
        n_train, n_test = (count * math.prod(shape) for count in facts["sizes"])
        pages = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
        os.close(file)
        train = np.frombuffer(pages, np.float32, n_train)
        test = np.frombuffer(pages, np.float32, n_test, len(pages) - 4 * n_test)
        return cls(train.reshape(-1, math.prod(shape)), test.reshape(-1, math.prod(shape)), shape, facts["source"])


ALIGNMENT = 64
"""Bytes. Matrix products of the CPU round differently where their arrays do not begin at multiples of it."""


def _aligned(values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values, np.float32)
    if values.ctypes.data % ALIGNMENT == 0 and values.flags.writeable:
        return values
    buffer = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    first = -buffer.ctypes.data % ALIGNMENT
    found = buffer[first : first + values.nbytes].view(np.float32).reshape(values.shape)
    found[:] = values
    return found
