"""Works of samples as checked arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import plain


def checked_works(works: Any, name: str) -> NDArray[np.float64]:
    """(n,) finite or infinite works.

    Raises
    ------
    ValueError
        For another shape, no samples, or works that are NaN or minus infinity; with the first of them.
    """
    try:
        found = np.asarray(plain(works, name), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something other than numbers ({error}): give one work per sample") from None
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} has shape {found.shape}; give (n,), one work for each of one or more samples")
    wrong = np.isnan(found) | np.isneginf(found)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{name} is {found[first]} for {int(wrong.sum())} of {len(found)} samples, first for sample {first}: "
            "energies are numbers, and finite for samples of their own state; correct the energy"
        )
    return found
