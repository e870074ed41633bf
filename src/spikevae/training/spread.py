"""How the directions that a linear code transmits are spread over its units: opponent pairs and independent components.

In the limit of small signals every orthogonal spread has the same free energy. At finite firing rates two choices lower
it. (1) Two units of an opponent pair, ON and OFF, have opposite weights: the difference of their firing rates,
exp(s) - exp(-s), has no even powers of the signal s, so that a linear decoder makes a smaller error, and half of the
firing rate is enough. (2) Directions whose signals are independent are transmitted by units without common
information. With more pairs than directions, the others transmit random directions: repeated searches would find the
same components again, and two units with equal weights are worth little more than one. All of this lowers the free
energy of trained codes as well (docs/convergence.md).
"""

import torch
from torch import Tensor

MAX_ITERATIONS = 50
MAX_OPERATIONS = 2e11
"""Multiplications after which the search for independent components stops: about three seconds of a CPU core."""


def spread_over_units(signals: Tensor, n_units: int, generator: torch.Generator) -> Tensor:
    """Rows of weights that spread coded directions over units.

    Units in excess of directions make opponent pairs, which take the directions that come first; the other directions
    are spread over single units by a random rotation, whose columns sum to zero, so that a decoder without bias can
    cancel their mean code. With at least two units for each direction all are pairs.

    Parameters
    ----------
    signals
        (n, k) signals of stimuli along the coded directions, most important first, k < `n_units` unless both are one.
    n_units
        K.
    generator
        Draws the rotations.

    Returns
    -------
    (K, k) float64 with orthonormal columns.

    Examples
    --------
    >>> pair = spread_over_units(torch.randn(100, 1), 2, torch.Generator().manual_seed(0))
    >>> bool((pair[0] == -pair[1]).all())
    True
    """
    k = signals.shape[1]
    n_paired = k if n_units >= 2 * k else max(0, n_units - k - 1)  # directions that pairs transmit
    n_pairs = n_paired if n_paired < k else n_units // 2
    weights = torch.zeros(n_units, k, dtype=torch.float64)
    if n_paired > 0:
        half = overcomplete_components(signals[:, :n_paired], _orthonormal(n_pairs, n_paired, generator))
        weights[:n_pairs, :n_paired] = half / 2**0.5
        weights[n_pairs : 2 * n_pairs, :n_paired] = -half / 2**0.5
    if n_paired < k:
        weights[2 * n_pairs :, n_paired:] = _orthonormal(n_units - 2 * n_pairs, k - n_paired, generator, centred=True)
    return weights.to(signals.device)


def overcomplete_components(signals: Tensor, frame: Tensor) -> Tensor:
    """Independent components and, where the frame has more rows than columns, its other directions.

    Parameters
    ----------
    signals
        (n, k) signals.
    frame
        (m, k), m >= k, with orthonormal columns.

    Returns
    -------
    (m, k) float64 with orthonormal columns: the first k rows are near :func:`independent_components`, the others near
    the directions of the frame's other rows. The frame itself where the search would take too long.

    Examples
    --------
    >>> frame = torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(0))).Q
    >>> overcomplete_components(torch.randn(100, 4), frame).shape
    torch.Size([6, 4])
    """
    k = frame.shape[1]
    if not _n_iterations(len(signals), k):
        return frame.double()
    found = independent_components(signals, _polar(frame[:k].double()))
    return _polar(torch.cat([found, torch.nn.functional.normalize(frame[k:].double(), dim=1)]))


def independent_components(signals: Tensor, rotation: Tensor) -> Tensor:
    """Rotation towards independent components: symmetric FastICA with the contrast log cosh.

    Parameters
    ----------
    signals
        (n, k) signals.
    rotation
        (k, k) orthogonal: where the search starts.

    Returns
    -------
    (k, k) float64, orthogonal.

    References
    ----------
    Hyvarinen (1999), Fast and robust fixed-point algorithms for independent component analysis, equation 20 and
    symmetric orthogonalisation.
    """
    k = len(rotation)
    z = signals.double()
    z = (z / z.square().mean(0).sqrt().clamp_min(1e-30)).float()
    found = rotation.to(z)
    for _ in range(_n_iterations(len(z), k) if len(z) > k > 1 else 0):
        tanh = torch.tanh(z @ found.mT)
        step = (1 - tanh.square()).mean(0)[:, None] * found - tanh.mT @ z / len(z)
        found = _polar(step)
    return _polar(found.double()).cpu()


def _n_iterations(n: int, k: int) -> int:
    """Iterations of the search from n signals along k directions; none where one takes longer than all may."""
    return min(MAX_ITERATIONS, int(MAX_OPERATIONS / (4 * n * k**2 + 30 * k**3)))


def _polar(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def _orthonormal(rows: int, columns: int, generator: torch.Generator, *, centred: bool = False) -> Tensor:
    """Random (rows, columns) with orthonormal columns, which sum to zero if they are `centred`."""
    normal = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(normal - normal.mean(0) if centred and rows > 1 else normal).Q
