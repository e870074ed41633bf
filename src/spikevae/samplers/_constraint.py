"""Where particles may be: the interface of all constraints, and the absence of one."""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Constraint(ABC):
    """A set of points, with coordinates in which particles move; abstract.

    Samplers work with coordinates z (n, m) of points x (n, d). For a map onto the set m is its dimension and z any
    number; else z is x, and :meth:`limited` changes steps so that they do not leave the set.
    """

    def dimension(self) -> int | None:
        """Numbers d of a point, where the constraint knows it."""
        return None

    def intrinsic(self, dimension: int) -> int:
        """Dimension of the set, for points of `dimension` numbers."""
        return dimension

    @abstractmethod
    def start(self, n: int, dimension: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n m"]:
        """Coordinates where n particles start, of the type and device of `like`."""

    @abstractmethod
    def coordinates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Coordinates of points; `ValueError` for points that have none."""

    @abstractmethod
    def points(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """Points of coordinates, differentiable."""

    def log_volume(self, z: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Logarithm of the volume of the set per volume of the coordinates, log |det dx/dz|."""
        return z.new_zeros(len(z))

    def limited(self, z: Float[Tensor, "n m"], step: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """The step to be taken from z instead of `step`."""
        return step

    def finished(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Coordinates after the last step."""
        return z

    def outside(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Which points are not in the set."""
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)


@final
class Everywhere(Constraint):
    """No constraint; particles start from a standard normal distribution."""

    def start(self, n: int, dimension: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n m"]:
        """Standard normal."""
        return torch.randn(n, dimension, dtype=like.dtype, device=like.device, generator=generator)

    def coordinates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """The points."""
        return x

    def points(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """The coordinates."""
        return z
