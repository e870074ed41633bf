"""Mollifiers: kernels of the squared distance that tend to a point mass as their width goes to zero."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

DIAGONAL = 1.3
"""The squared distance of a particle to itself is h² / (1.3 d)^(2 / d), h the distance to its nearest neighbour: with
the distance 0 the diagonal of a singular kernel would outweigh all pairs. The constant is the published one."""
EXCESS = 1e-4
"""By which the exponent of a Riesz kernel exceeds 2 alpha d: at and below d the kernel is no mollifier."""
ROUNDING = 1e-10
"""Added to squared distances below a root, whose slope at zero is infinite."""
LEAST_WIDTH = 1e-6


class LogKernel(NamedTuple):
    """Logarithm of a kernel and its derivative."""

    value: Float[Tensor, "n m"]
    """log φ at squared distances."""
    slope: Float[Tensor, "n m"]
    """d log φ / d squared distance."""


class Kernel(ABC):
    """A kernel φ of the squared distance of two points; abstract."""

    name: ClassVar[str]

    @abstractmethod
    def log(self, squared: Float[Tensor, "n m"]) -> LogKernel:
        """Logarithm of the kernel and its derivative by the squared distance, at squared distances (n, m)."""


@final
@dataclass(frozen=True)
class Riesz(Kernel):
    r"""The Riesz kernel, :math:`\varphi(r) = (r^2 + \epsilon)^{-s/2}`, not normalised.

    With the weights :math:`(p_i p_j)^{-\alpha}`, many particles in d dimensions follow the density
    :math:`p^{2 \alpha d / s}`, for s > d: p itself at s = 2 alpha d.

    Parameters
    ----------
    exponent
        s.
    epsilon
        Added to squared distances.

    Examples
    --------
    >>> float(Riesz(2.0, 0.0).log(torch.tensor([[4.0]])).value.exp())
    0.25
    """

    exponent: float
    epsilon: float = 1e-8
    name: ClassVar[str] = "riesz"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.exponent) and self.exponent > 0):
            raise ValueError(f"exponent is {self.exponent:g}; give a number above 0, for example 2 alpha d")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(f"epsilon is {self.epsilon:g}; give 0 or more for the Riesz kernel")

    def log(self, squared: Float[Tensor, "n m"]) -> LogKernel:
        """-(s / 2) log(r² + ε)."""
        moved = squared + self.epsilon
        return LogKernel(-0.5 * self.exponent * moved.log(), -0.5 * self.exponent / moved)


@final
@dataclass(frozen=True)
class Gaussian(Kernel):
    r"""The Gaussian of variance epsilon in each of d dimensions, with integral 1.

    Examples
    --------
    >>> at_zero = Gaussian(0.5, dimension=2).log(torch.zeros(1, 1)).value.exp()  # 1 / (2 pi variance)
    >>> round(float(at_zero), 4)
    0.3183
    """

    epsilon: float
    dimension: int
    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        _check_width(self.epsilon)

    def log(self, squared: Float[Tensor, "n m"]) -> LogKernel:
        """-r² / (2 ε) - (d / 2) log(2 π ε)."""
        constant = 0.5 * self.dimension * math.log(2 * math.pi * self.epsilon)
        return LogKernel(-squared / (2 * self.epsilon) - constant, torch.full_like(squared, -0.5 / self.epsilon))


@final
@dataclass(frozen=True)
class Laplace(Kernel):
    r"""The kernel :math:`e^{-r / \epsilon}` in d dimensions, with integral 1.

    Examples
    --------
    >>> at_zero = Laplace(2.0, dimension=1).log(torch.zeros(1, 1)).value.exp()  # 1 / (2 epsilon)
    >>> round(float(at_zero), 4)
    0.25
    """

    epsilon: float
    dimension: int
    name: ClassVar[str] = "laplace"

    def __post_init__(self) -> None:
        _check_width(self.epsilon)

    def log(self, squared: Float[Tensor, "n m"]) -> LogKernel:
        """-r / ε, minus the logarithm of its integral, 2 π^(d/2) Γ(d) ε^d / Γ(d/2)."""
        d = self.dimension
        sphere = math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)
        distance = (squared + ROUNDING).sqrt()
        value = -distance / self.epsilon - (sphere + math.lgamma(d) + d * math.log(self.epsilon))
        return LogKernel(value, -0.5 / (self.epsilon * distance))


def _check_width(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon >= LEAST_WIDTH):
        raise ValueError(f"epsilon is {epsilon:g}; give {LEAST_WIDTH:g} or more for a Gaussian or Laplace kernel")


def squared_distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Squared distances (n, m) of points (n, d) and (m, d), from differences: near points keep their digits."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


class Pairs(NamedTuple):
    """Squared distances of particles."""

    squared: Float[Tensor, "n n"]
    """Of all pairs; of a particle to itself, a share of that to its nearest neighbour."""
    nearest: Int[Tensor, " n"]
    """The nearest neighbour of each."""
    share: float
    """Squared distance to itself over squared distance to the nearest neighbour."""


def pair_distances(x: Float[Tensor, "n d"], dimension: int) -> Pairs:
    """Squared distances of all pairs; each particle's distance to itself comes from its nearest neighbour.

    Parameters
    ----------
    x
        (n, d) points, n at least 2.
    dimension
        Dimension of the set in which the points lie, d or less.

    Examples
    --------
    >>> pair_distances(torch.tensor([[0.0], [1.3]]), 1).squared
    tensor([[1.0000, 1.6900],
            [1.6900, 1.0000]])
    """
    squared = squared_distances(x, x)
    diagonal = squared.diagonal()
    diagonal.fill_(torch.inf)
    nearest = squared.min(1)
    share = (DIAGONAL * dimension) ** (-2 / dimension)
    diagonal.copy_(nearest.values * share)
    return Pairs(squared, nearest.indices, share)
