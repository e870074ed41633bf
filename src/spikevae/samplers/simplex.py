"""The simplex: positive numbers with sum 1."""

import math
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ._constraint import Constraint

SUM_TOLERANCE = 1e-4


@final
class Simplex(Constraint):
    r"""Points with x > 0 and :math:`\sum_i x_i = 1`, as the softmax of d - 1 coordinates along orthonormal contrasts.

    Densities are those of the first d - 1 numbers, as of a Dirichlet distribution. Particles start uniformly in the
    simplex of half the size around its middle.

    References
    ----------
    Egozcue et al. (2003), Mathematical Geology 35, 279 (the isometric log-ratio).

    Examples
    --------
    >>> Simplex().points(torch.zeros(1, 3))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def intrinsic(self, dimension: int) -> int:
        """d - 1."""
        return dimension - 1

    def start(self, n: int, dimension: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n m"]:
        """Uniform in the smaller simplex: normalised exponential draws, half-way to the middle."""
        if dimension < 2:
            raise ValueError(f"dimension is {dimension}; points of a simplex have 2 or more numbers")
        drawn = torch.empty(n, dimension, dtype=like.dtype, device=like.device).exponential_(generator=generator)
        return self.coordinates((drawn / drawn.sum(-1, keepdim=True) + 1 / dimension) / 2)

    def coordinates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Log-ratios."""
        wrong = self.outside(x) | (x <= 0).any(-1)
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(x)} points are not inside the simplex: give positive numbers with sum 1"
            )
        return x.log() @ _contrasts(x.shape[-1], x)

    def points(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """Softmax."""
        return torch.softmax(z @ _contrasts(z.shape[-1] + 1, z).mT, -1)

    def log_volume(self, z: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Sum of log x, plus log(d) / 2."""
        log_x = torch.log_softmax(z @ _contrasts(z.shape[-1] + 1, z).mT, -1)
        return log_x.sum(-1) + 0.5 * math.log(z.shape[-1] + 1)

    def outside(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Which points have a number below zero, or another sum."""
        return (x < 0).any(-1) | ((x.sum(-1) - 1).abs() > SUM_TOLERANCE)


def _contrasts(d: int, like: Tensor) -> Tensor:
    """(d, d - 1) orthonormal columns with sum 0 (Helmert)."""
    row = torch.arange(d, dtype=like.dtype, device=like.device).unsqueeze(-1)
    k = torch.arange(1, d, dtype=like.dtype, device=like.device)
    return torch.where(row < k, 1.0, torch.where(row == k, -k, 0.0)) / (k * (k + 1)).sqrt()
