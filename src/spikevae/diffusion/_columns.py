"""Means and spreads of the columns that a model is fitted to."""

import numpy as np
from numpy.typing import NDArray


def means_and_spreads(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(D,) means and standard deviations, all above 0.

    Raises
    ------
    ValueError
        For one row, constant columns, and numbers whose squares overflow or vanish.
    """
    if len(x) == 1:
        raise ValueError("X has 1 sample: give two rows or more")
    constant = np.flatnonzero((x == x[0]).all(0))
    if not len(constant):
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = x.mean(0), x.std(0)
        wrong = np.flatnonzero(~(np.isfinite(spread) & (spread > 0)))
        if len(wrong):
            raise ValueError(
                f"column {wrong[0]} of X has numbers of up to {abs(x[:, wrong[0]]).max():g}, whose squares are no "
                "numbers: give X in another unit"
            )
        constant = np.flatnonzero(spread <= 1e-12 * abs(mean))
    if len(constant):
        columns = "1 constant column" if len(constant) == 1 else f"{len(constant)} constant columns"
        raise ValueError(
            f"X has {columns}, the first of them column {constant[0]}: leave them out, and add their values to the "
            "samples"
        )
    return mean, spread
