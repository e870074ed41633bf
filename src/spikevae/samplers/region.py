"""Regions given by inequalities and equalities, kept by a dynamic barrier."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ._constraint import Constraint
from .projection import project_onto_half_spaces

PULL = 0.5
"""Share of the distance to the boundary that a step may cover, to first order."""
MARGIN = 1e-5
"""So far inside the boundary, in units of 1 + |x|, aim the steps of particles that are outside."""
MAX_HALVINGS = 8
START_DRAWS = 20
"""Draws of each start point that are tried for one inside."""
MAX_PULLS = 200
CLOSE = 1e-3
"""Largest |equality| of a point that counts as inside."""
Condition = Callable[[Tensor], Tensor]


@final
class Region(Constraint):
    r"""Points with g(x) <= 0 for every inequality g, and h(x) = 0 for every equality h.

    A step v of the sampler is replaced by the nearest one with :math:`\nabla g_k \cdot v \le -a\, g_k` and
    :math:`\nabla h_k \cdot v = -h_k`, by Dykstra's algorithm. Inside, a = 0.5: a particle may go half of the way to the
    boundary. Outside, a = 1: it must come back, to first order in one step. Because this is right to first order only,
    a step that would raise an inequality above zero, or above its present value, is halved, and not taken where that
    does not help. A particle that is inside thus never leaves by an inequality.

    Start points are standard normal draws that lie inside; where there are none, they are pulled in. Give `start=` to
    `sample` for small or distant regions.

    Parameters
    ----------
    inequality
        Differentiable function of points (n, d) with values (n,) or (n, k).
    equality
        The same. Each lowers the dimension of the set by one.

    Raises
    ------
    ValueError
        Where both are missing.

    References
    ----------
    Li et al. (2023), arXiv 2210.13400, with the dynamic barrier of Gong, Liu and Liu (2021), NeurIPS 34. In the code of
    the first, an equality is the inequality :math:`\sum h^2 \le 0`, whose gradient vanishes where it holds.

    Examples
    --------
    >>> disc = Region(lambda x: (x**2).sum(-1) - 1)
    >>> disc.outside(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor([False,  True])
    """

    def __init__(self, inequality: Condition | None = None, equality: Condition | None = None) -> None:
        if inequality is None and equality is None:
            raise ValueError("a region needs a condition: give inequality=g for g(x) <= 0, or equality=h for h(x) = 0")
        self.inequality, self.equality = inequality, equality

    def intrinsic(self, dimension: int) -> int:
        """d minus the number of equalities."""
        if self.equality is None:
            return dimension
        n = _values(self.equality, torch.zeros(1, dimension), "equality").shape[1]
        if n >= dimension:
            raise ValueError(f"{n} equalities leave no dimension of {dimension}: give fewer than {dimension}")
        return dimension - n

    def start(self, n: int, dimension: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n m"]:
        """Standard normal draws inside, or pulled in."""
        x = torch.randn(n, dimension, dtype=like.dtype, device=like.device, generator=generator)
        for _ in range(START_DRAWS - 1 if self.equality is None else 0):
            out = self.outside(x)
            if not out.any():
                break
            fresh = torch.randn(x.shape, dtype=like.dtype, device=like.device, generator=generator)
            x = torch.where(out.unsqueeze(-1), fresh, x)
        return self._pulled(x, MAX_PULLS)

    def coordinates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """The points, inside or not."""
        return x

    def points(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """The coordinates."""
        return z

    def limited(self, z: Float[Tensor, "n m"], step: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """The nearest step that the dynamic barrier allows, shortened where it would still leave the region."""
        parts = []
        if self.inequality is not None:
            parts.append(_linearised(self.inequality, z, "inequality"))
        if self.equality is not None:
            parts.append(_linearised(self.equality, z, "equality"))
        values, rows = (torch.cat(part, 1) for part in zip(*parts))
        equalities = 0 if self.equality is None else parts[-1][0].shape[1]
        bounds = -values
        if self.inequality is not None:
            n = parts[0][0].shape[1]
            g, lengths = values[:, :n], torch.linalg.vector_norm(rows[:, :n], dim=-1)
            margin = MARGIN * (1 + torch.linalg.vector_norm(z, dim=-1, keepdim=True))
            bounds[:, :n] = torch.where(g > 0, -g - margin * lengths, -PULL * g)
        step = project_onto_half_spaces(step, rows, bounds, equalities)
        if self.inequality is None:
            return step
        return self._shortened(z, step, parts[0][0].clamp_min(0))

    def _shortened(self, z: Tensor, step: Tensor, allowed: Tensor) -> Tensor:
        """Steps halved until no inequality is above what is allowed, (n, k); zero where that is not reached."""
        assert self.inequality is not None
        for _ in range(MAX_HALVINGS):
            with torch.no_grad():
                found = _values(self.inequality, z + step, "inequality")
            wrong = ~(found <= allowed).all(-1, keepdim=True)
            if not wrong.any():
                return step
            step = torch.where(wrong, step / 2, step)
        with torch.no_grad():
            found = _values(self.inequality, z + step, "inequality")
        return torch.where((found <= allowed).all(-1, keepdim=True), step, 0.0)

    def _pulled(self, z: Tensor, steps: int) -> Tensor:
        """Points after so many steps towards the region, fewer where all are inside."""
        for _ in range(steps):
            if not self.outside(z).any():
                break
            z = z + self.limited(z, torch.zeros_like(z))
        return z

    def finished(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Points outside are pulled in once more."""
        return self._pulled(z, MAX_PULLS)

    def outside(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Which points have an inequality above 0, or an equality that is not near 0."""
        found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        with torch.no_grad():
            if self.inequality is not None:
                found |= ~(_values(self.inequality, x, "inequality") <= 0).all(-1)
            if self.equality is not None:
                found |= ~(_values(self.equality, x, "equality").abs() <= CLOSE).all(-1)
        return found


def _values(condition: Condition, x: Tensor, name: str) -> Tensor:
    """(n, k) values of a condition at (n, d) points, or an error."""
    found = condition(x)
    if not isinstance(found, Tensor) or found.shape[:1] != x.shape[:1] or found.ndim > 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{name} gave {shape} for points {tuple(x.shape)}; it must give a tensor ({len(x)},) or (n, k)"
        )
    found = found.reshape(len(x), -1)
    if found.isnan().any():
        bad = x[found.isnan().any(-1)][0].tolist()
        raise ValueError(f"{name} is NaN at the point {bad}: define it for every point, outside the region too")
    return found


def _linearised(condition: Condition, z: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """(n, k) values of a condition and its (n, k, d) gradients."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        values = _values(condition, z, name)
        if not values.requires_grad:
            raise ValueError(f"{name} does not depend on the points by differentiable operations of PyTorch")
        rows = [torch.autograd.grad(values[:, k].sum(), z, retain_graph=True)[0] for k in range(values.shape[1])]
    return values.detach(), torch.stack(rows, 1)
