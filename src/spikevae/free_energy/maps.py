r"""Works through a map from one state to the other.

For an invertible map M, targeted free energy perturbation replaces the works by

.. math::
    \Phi_F(x) = u_B(M x) - u_A(x) - \log |\det J_M(x)|, \qquad
    \Phi_R(y) = u_A(M^{-1} y) - u_B(y) - \log |\det J_{M^{-1}}(y)|,

of samples x of A and y of B. Any estimator of works holds for them, with the same difference, and
:math:`\overline{\Phi_F} \ge \Delta F \ge -\overline{\Phi_R}`; the gaps are the divergences of the image of A from B and
of the image of B from A. If M takes A to B exactly, every work is the difference.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import plain
from .._scope import own_scope

Energy = Callable[[Tensor], Tensor]
"""From points (n, ...) to reduced energies (n,), by differentiable operations of PyTorch."""
BATCH = 4096
"""Samples at once."""
TOLERANCE = 1e-5
"""Of the way there and back, in standard deviations of a coordinate, and of log-determinants."""


class Map(Protocol):
    """An invertible map of points, differentiable by PyTorch."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, ...) of points of A, and the logarithms (n,) of the absolute determinants."""
        ...

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points whose images are y, and the logarithms of the absolute determinants of the inverse map."""
        ...


@own_scope()
@torch.no_grad()
def mapped_works(
    u_a: Energy, u_b: Energy, x_a: Any, x_b: Any = None, *, map: Map, box: Any = None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Works through a map, in float64: (n,) forward ones of samples of A, (m,) reverse ones of samples of B.

    Parameters
    ----------
    u_a, u_b
        Reduced energies of the states.
    x_a
        (n, d) or (n, N, D) samples of A, numpy or torch.
    x_b
        Samples of B; None: no reverse works.
    map
        From A to B.
    box
        (d,) or (D,) lengths of periodic coordinates; points that differ by them are the same.

    Raises
    ------
    ValueError
        For energies that are NaN or of another shape, and for a map that does not lead back, or whose determinant is
        not that of its derivatives.

    References
    ----------
    Jarzynski (2002), Physical Review E 65, 046122.

    Examples
    --------
    A map that takes N(0, 1) to N(3, 1 / 4) makes every work the difference, log(4) / 2:

    >>> class Affine:
    ...     def forward(self, x):
    ...         return x / 2 + 3, torch.full((len(x),), -np.log(2.0))
    ...
    ...     def inverse(self, y):
    ...         return 2 * (y - 3), torch.full((len(y),), np.log(2.0))
    >>> x = np.random.default_rng(0).normal(size=(5, 1))
    >>> works, _ = mapped_works(
    ...     lambda x: x.square().sum(-1) / 2, lambda x: 2 * (x - 3).square().sum(-1), x, map=Affine()
    ... )
    >>> np.allclose(works, np.log(4) / 2)
    True
    """
    a = as_samples(x_a, "x_a")
    length = as_box(box, a)
    check_map(map, a, length)
    forward = torch.cat([phi_forward(u_a, u_b, map, part) for part in a.split(BATCH)]).numpy()
    if x_b is None:
        return forward, None
    b = as_samples(x_b, "x_b", like=a)
    return forward, torch.cat([phi_reverse(u_a, u_b, map, part) for part in b.split(BATCH)]).numpy()


def phi_forward(u_a: Energy, u_b: Energy, map: Map, x: Tensor) -> Float[Tensor, " n"]:
    """Works of samples of A."""
    y, log_det = map.forward(x)
    return energies(u_b, y, "u_b") - energies(u_a, x, "u_a", own=True) - log_det


def phi_reverse(u_a: Energy, u_b: Energy, map: Map, y: Tensor) -> Float[Tensor, " n"]:
    """Works of samples of B."""
    x, log_det = map.inverse(y)
    return energies(u_a, x, "u_a") - energies(u_b, y, "u_b", own=True) - log_det


def energies(u: Energy, x: Tensor, name: str, own: bool = False) -> Float[Tensor, " n"]:
    """A user's energies, checked: numbers, and finite for samples of their own state."""
    found = u(x)
    if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{name} gave {what} for points {tuple(x.shape)}; it must give a tensor ({len(x)},)")
    wrong = found.isnan() | (found == -torch.inf)
    if own:
        wrong = wrong | ~found.isfinite()
    if wrong.any():
        first = int(wrong.nonzero()[0, 0])
        where = "samples of its own state" if own else "points"
        place = [float(f"{v:.4g}") for v in x[first].flatten()[:6].tolist()]
        raise ValueError(
            f"{name} is {found[first].item()} for {int(wrong.sum())} of {len(x)} {where}, first at x = "
            f"{place}{'' if x[first].numel() <= 6 else '...'}: give an energy that is a number everywhere, and finite "
            "for samples of its own state"
        )
    return found.to(x)


def as_samples(x: Any, name: str, like: Tensor | None = None) -> Tensor:
    """Samples as float64 tensor; `ValueError` for another shape, or entries that are not finite."""
    found = torch.as_tensor(np.asarray(plain(x, name), dtype=np.float64))
    if found.ndim not in (2, 3) or not found.numel():
        raise ValueError(f"{name} has shape {tuple(found.shape)}; give (n, d) points, or (n, N, D) of N particles")
    if like is not None and found.shape[1:] != like.shape[1:]:
        raise ValueError(f"{name} has points of shape {tuple(found.shape[1:])}, and x_a of {tuple(like.shape[1:])}")
    if not found.isfinite().all():
        raise ValueError(f"{name} has {int((~found.isfinite()).sum())} entries that are not finite")
    return found


def as_box(box: Any, x: Tensor) -> Tensor | None:
    """Lengths of periodic coordinates as float64 tensor."""
    if box is None:
        return None
    length = torch.as_tensor(np.asarray(plain(box, "box"), dtype=np.float64))
    if length.shape != x.shape[-1:] or not ((length > 0) & length.isfinite()).all():
        raise ValueError(f"box is {length.tolist()}; give {x.shape[-1]} positive lengths, one per coordinate")
    return length


def check_map(map: Map, x: Tensor, box: Tensor | None) -> None:
    """Refuse a map that does not lead back to the points, or whose determinant is not that of its derivatives."""
    some = x[:BATCH]
    y, log_det = map.forward(some)
    back, log_det_back = map.inverse(y)
    away = (back - some).abs() if box is None else (torch.remainder(back - some + box / 2, box) - box / 2).abs()
    scale = box if box is not None else some.std(0).clamp_min(1e-12) if len(some) > 1 else some.abs().clamp_min(1.0)
    far = ~((away / scale).flatten(1).amax(1) <= TOLERANCE)
    if far.any():
        first = int(far.nonzero()[0, 0])
        raise ValueError(
            f"map is not invertible: M⁻¹(M(x)) is not x for {int(far.sum())} of {len(some)} samples of A, first for "
            f"sample {first}, {float(away[first].max()):.3g} away; give a map whose inverse() undoes forward()"
        )
    sizes = torch.stack([log_det.to(x), log_det_back.to(x)])
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda point: map.forward(point[None])[0][0], some[0])
    exact = torch.linalg.slogdet(jacobian.reshape(some[0].numel(), -1))[1]
    wrong = ~((sizes[0] + sizes[1]).abs() <= 1e-4 * (1 + sizes[0].abs()))
    if wrong.any() or not abs(sizes[0, 0] - exact) <= 1e-4 * (1 + abs(exact)):
        raise ValueError(
            f"map has log-determinant {float(sizes[0, 0]):.6g} of forward() and {float(sizes[1, 0]):.6g} of inverse() "
            f"for the first sample, and its derivatives have {float(exact):.6g}: forward() returns log |det J|, and "
            "inverse() minus it"
        )
