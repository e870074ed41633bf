"""Stimuli that stay where they are, in a file or behind a function, and are read a batch at a time."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

N_SAMPLE = 20_000
"""Rows, evenly spaced, that stand for all of them where a fit starts and where its decoder is solved at the end."""
SAMPLE_BYTES = 2**28
"""Memory of these rows, at most."""


class Rows:
    """n stimuli of D pixels, of which the rows of a batch are read by number.

    Parameters
    ----------
    read
        Takes increasing row numbers (m,), each once, and returns their stimuli (m, ...), of which each has D numbers.
    n
        Number of rows.
    n_pixels
        D.
    check
        Called with each batch (m, D); raises ValueError where it cannot be trained on.

    Examples
    --------
    >>> stimuli = np.arange(12.0).reshape(6, 2)
    >>> rows = Rows(lambda chosen: stimuli[chosen], 6, 2)
    >>> rows.gather(torch.tensor([4, 0, 4]))[:, 0]
    tensor([8., 0., 8.])
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64]], NDArray[np.generic]],
        n: int,
        n_pixels: int,
        check: Callable[[Tensor], None] = lambda x: None,
    ) -> None:
        self._read, self._check = read, check
        self.shape = (n, n_pixels)
        """(n, D)."""

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, chosen: Tensor) -> Tensor:
        """Rows (m, D) in float32, for row numbers (m,) in any order.

        Raises
        ------
        ValueError
            Where a row has NaN or infinity, or another number of entries; with its number.
        """
        numbers, place = np.unique(chosen.numpy(), return_inverse=True)
        found = np.asarray(self._read(numbers))
        if found.shape[:1] != numbers.shape or found.size != len(numbers) * self.shape[1]:
            raise ValueError(
                f"X gave numbers of shape {found.shape} for {len(numbers)} rows; expected {self.shape[1]} per row"
            )
        with np.errstate(over="ignore"):
            x = torch.from_numpy(np.require(found.reshape(len(numbers), -1), np.float32, ["C", "W"]))
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            raise ValueError(
                f"X has NaN, infinity or numbers beyond the range of float32 in row {numbers[bad.numpy()][0]}: leave "
                "such rows out, or fill in the values"
            )
        self._check(x)
        return x[torch.from_numpy(place)]

    def only(self, chosen: Tensor) -> "Rows":
        """These rows alone, for increasing row numbers (m,)."""
        numbers = chosen.numpy()
        return Rows(lambda wanted: self._read(numbers[wanted]), len(numbers), self.shape[1], self._check)

    @cached_property
    def sample(self) -> Tensor:
        """Evenly spaced rows, `N_SAMPLE` of them and `SAMPLE_BYTES` at most."""
        n = min(len(self), N_SAMPLE, max(1, SAMPLE_BYTES // (4 * self.shape[1])))
        return self.gather(torch.linspace(0, len(self) - 1, n, dtype=torch.float64).round().long())
