"""Gaussian-smoothed histograms of a number: bins from the data, targets of a cross-entropy, and what they predict."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

MARGIN = 4.0
"""Standard deviations of the smoothing between the outermost target and the end of a support chosen from data: the mean
of a smoothed target is then within 2e-4 bins of the target."""


class Bins(NamedTuple):
    """Bins of equal width, and the standard deviation of the smoothing."""

    edges: Float[np.ndarray, " B1"]
    """(n_bins + 1) ends of the bins, in the unit of y."""
    smoothing: float
    """Standard deviation of the Gaussian that smooths a target, in the unit of y."""

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of y."""
        return float(self.edges[-1] - self.edges[0]) / (len(self.edges) - 1)


def chosen_bins(y: NDArray[np.float64], n_bins: int, smoothing: float, support: Any) -> Bins:
    """Bins for these targets.

    Parameters
    ----------
    y
        (n,) finite targets.
    n_bins
        Number of bins.
    smoothing
        Standard deviation of the smoothing, in bins.
    support
        (low, high), or None: the range of y with :data:`MARGIN` standard deviations of the smoothing on both sides.

    Raises
    ------
    ValueError
        For a support that is no interval or does not hold all targets, and where none can be chosen.
    """
    if support is None:
        inner = n_bins - 2 * MARGIN * smoothing  # bins between the least and the largest target
        if inner < 1:
            least = math.ceil(2 * MARGIN * smoothing) + 1
            raise ValueError(
                f"n_bins is {n_bins}, too few to smooth over {smoothing:g} bins: give {least} or more, or a support"
            )
        if not np.ptp(y) > 1e-12 * np.abs(y).max():
            raise ValueError(f"y is {y[0]:g} in every row: give targets that differ")
        margin = MARGIN * smoothing * float(np.ptp(y)) / inner
        low, high = float(y.min()) - margin, float(y.max()) + margin
    else:
        try:
            low, high = (float(end) for end in support)
        except (TypeError, ValueError):
            raise ValueError(f"support is {support!r:.80}; give (low, high), in the unit of y") from None
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(f"support is ({low:g}, {high:g}); give two finite numbers, the lower first")
        outside = np.flatnonzero((y < low) | (y > high))
        if len(outside):
            raise ValueError(
                f"y has {len(outside)} of {len(y)} values outside the support ({low:g}, {high:g}), the first of them "
                f"{y[outside[0]]:g} in row {outside[0]}: widen support, or leave it out to choose it from y"
            )
    edges = np.linspace(low, high, n_bins + 1)
    return Bins(edges, smoothing * (high - low) / n_bins)


def smoothed(z: Float[Tensor, " n"], n_bins: int, sigma: float) -> Float[Tensor, "n B"]:
    r"""Probabilities of the bins under a Gaussian around each target, cut off at the ends of the support.

    .. math:: p_i = \frac{\Phi((i + 1 - z) / \sigma) - \Phi((i - z) / \sigma)}
        {\Phi((B - z) / \sigma) - \Phi(-z / \sigma)}

    Parameters
    ----------
    z
        Targets in bins: 0 the lower end of the support, `n_bins` the upper one.
    n_bins
        B.
    sigma
        Standard deviation of the Gaussian, in bins.

    Examples
    --------
    >>> smoothed(torch.tensor([1.5]), 3, 0.75).round(decimals=3)
    tensor([[0.2410, 0.5190, 0.2410]])
    """
    ends = torch.arange(n_bins + 1, dtype=z.dtype, device=z.device)
    mass = torch.special.ndtr((ends - z[:, None]) / sigma).diff(dim=1)
    return mass / mass.sum(1, keepdim=True)


def quantiles_of(
    probabilities: Float[np.ndarray, "n B"], edges: Float[np.ndarray, " B1"], levels: Float[np.ndarray, " q"]
) -> Float[np.ndarray, "n q"]:
    """Quantiles of densities that are constant within each bin.

    Examples
    --------
    >>> quantiles_of(np.array([[0.5, 0.5]]), np.array([0.0, 1.0, 2.0]), np.array([0.25, 0.5, 0.75]))
    array([[0.5, 1. , 1.5]])
    """
    upper = probabilities.cumsum(1)
    upper /= upper[:, -1:]
    found = np.empty((len(upper), len(levels)))
    for k, level in enumerate(levels):
        bin_of = np.minimum((upper < level).sum(1), probabilities.shape[1] - 1)
        rows = np.arange(len(upper))
        within = probabilities[rows, bin_of]
        below = upper[rows, bin_of] - within
        share = np.clip((level - below) / np.maximum(within, np.finfo(float).tiny), 0, 1)
        found[:, k] = edges[bin_of] + share * (edges[bin_of + 1] - edges[bin_of])
    return found


def entropy_of(probabilities: Float[np.ndarray, "n B"], width: float) -> Float[np.ndarray, " n"]:
    """(n,) differential entropy of densities that are constant within bins of this width, nats.

    Examples
    --------
    >>> entropy_of(np.array([[0.5, 0.5]]), width=0.5)  # uniform on an interval of length 1
    array([0.])
    """
    from scipy.special import entr

    found: NDArray[Any] = entr(probabilities).sum(1) + np.log(width)
    return found
