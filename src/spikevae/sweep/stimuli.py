"""The stimuli of a run, and how the workers on this machine get them."""

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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

    @contextmanager
    def shared(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """A file descriptor and the facts by which :meth:`of_shared` maps these stimuli in another process.

        The file has no name, so nothing of it is left however the processes end.

        Raises
        ------
        OSError
            Where the temporary folder has no room; the message names it.
        """
        parts = [np.ascontiguousarray(part, np.float32) for part in (self.train, self.test)]
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
            yield file.fileno(), {"sizes": [len(part) for part in parts], "shape": self.shape, "source": self.source}

    @classmethod
    def of_shared(cls, file: int, facts: Mapping[str, Any]) -> Self:
        """Map what :meth:`shared` gave; copy-on-write, so that the pages stay shared."""
        n_train, n_test = facts["sizes"]
        shape = tuple(facts["shape"])
        pages = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
        os.close(file)
        both = np.frombuffer(pages, np.float32).reshape(n_train + n_test, math.prod(shape))
        return cls(both[:n_train], both[n_train:], shape, facts["source"])
