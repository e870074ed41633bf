"""Distances between two sets of points: how well particles stand for a distribution."""

import math
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from .._arrays import plain

MAX_ASSIGNMENT = 8000
"""Rows of the largest cost matrix, half a gigabyte."""


def _pair(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of points (n, d) and (m, d) as float64, or an error."""
    found = []
    for name, value in (("x", x), ("y", y)):
        points = np.asarray(plain(value, name), dtype=np.float64)
        if points.ndim != 2 or not points.size:
            raise ValueError(f"{name} has shape {points.shape}; give points (n, d)")
        if not np.isfinite(points).all():
            raise ValueError(f"{name} has {int((~np.isfinite(points)).sum())} entries that are not finite")
        found.append(points)
    if found[0].shape[1] != found[1].shape[1]:
        shapes = f"{found[0].shape} and {found[1].shape}"
        raise ValueError(f"x and y have shapes {shapes}; give points of one dimension")
    return found[0], found[1]


def energy_distance(x: Any, y: Any) -> float:
    r"""Energy distance of two sets of points, each with equal weights.

    .. math:: 2\,\mathbb E\|X - Y\| - \mathbb E\|X - X'\| - \mathbb E\|Y - Y'\|,

    0 or above, and 0 for equal sets only.

    Parameters
    ----------
    x, y
        (n, d) and (m, d) points, numpy or torch.

    Raises
    ------
    ValueError
        For other shapes, or entries that are not finite.

    References
    ----------
    Székely and Rizzo (2013), Journal of Statistical Planning and Inference 143, 1249.

    Examples
    --------
    >>> energy_distance([[0.0], [0.0]], [[1.0]])
    2.0
    """
    a, b = _pair(x, y)
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def wasserstein(x: Any, y: Any) -> float:
    r"""Wasserstein distance W2 of two sets of points, each with equal weights, exactly.

    The least :math:`\sqrt{\sum_{ij} T_{ij} \|x_i - y_j\|^2}` of all transport plans T. With equal weights it is an
    assignment, of copies of the points where the sets have different sizes.

    Parameters
    ----------
    x, y
        (n, d) and (m, d) points, numpy or torch; the least common multiple of n and m is at most 8,000.

    Raises
    ------
    ValueError
        For other shapes or sizes, or entries that are not finite.

    Examples
    --------
    >>> wasserstein([[0.0], [1.0]], [[3.0], [2.0]])
    2.0
    """
    a, b = _pair(x, y)
    size = math.lcm(len(a), len(b))
    if size > MAX_ASSIGNMENT:
        raise ValueError(
            f"x and y have {len(a)} and {len(b)} points, whose least common multiple is {size}; give sizes for which "
            f"it is at most {MAX_ASSIGNMENT}"
        )
    cost = cdist(np.repeat(a, size // len(a), 0), np.repeat(b, size // len(b), 0), "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))
