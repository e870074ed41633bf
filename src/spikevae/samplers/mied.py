r"""Mollified interaction energy descent: particles that repel each other where the density is low.

The energy of a distribution :math:`\mu` of particles, for a kernel :math:`\varphi` that tends to a point mass,

.. math:: E(\mu) = \iint \varphi(x - y)\, (p(x)\, p(y))^{-\alpha}\, d\mu(x)\, d\mu(y),

tends at alpha = 1/2 to :math:`\int \mu^2 / p = 1 + \chi^2(\mu \| p)`, which is least for mu = p. Particles descend its
logarithm. It does not need the constant of p, and no second derivative.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ._constraint import Constraint
from ._descent import Descent
from ._sampler import LogDensity, gradient_of
from .kernels import EXCESS, Gaussian, Kernel, Laplace, Riesz, pair_distances

KERNELS = ("riesz", "gaussian", "laplace")
EPSILON = {"riesz": 1e-8, "gaussian": 1e-3, "laplace": 1e-2}


@final
class MIED(Descent):
    r"""Mollified interaction energy descent.

    Minimises, by Adam,

    .. math:: \log \frac{1}{n^2} \sum_{i, j} \varphi(x_i - x_j)\, (p(x_i)\, p(x_j))^{-\alpha}

    over all ordered pairs, i = j included; there the distance is a share of that to the nearest neighbour. A map
    (:class:`Box`, :class:`Simplex`) is only a change of coordinates: the energy is that of the points.

    Parameters
    ----------
    log_density
        From points (n, d) to log densities (n,), up to a constant.
    constraint
        Where points may be; None: everywhere.
    kernel
        "riesz", :math:`(r^2 + \epsilon)^{-s/2}`; "gaussian", of variance epsilon; "laplace", :math:`e^{-r/\epsilon}`.
        The last two need a width near the distance between neighbours; the first has none.
    exponent
        s of the Riesz kernel; None: 2 alpha d + 0.0001, with d the dimension of the set. With another one the particles
        follow :math:`p^{2 \alpha d / s}`.
    epsilon
        None: 1e-8, 1e-3 and 1e-2.
    alpha
        Above 0. Must be 1/2 for the Gaussian and Laplace kernel, whose particles would else follow
        :math:`p^{2 \alpha}`.
    fixed_diagonal
        Hold the distance to the nearest neighbour fixed in the gradient, as published. Pairs i = i then attract to high
        density without repelling, and the particles are too near each other: see docs/samplers.md.
    learning_rate
        Of Adam.

    Raises
    ------
    ValueError
        For settings that do not go together.

    References
    ----------
    Li, Liu, Korba, Yurochkin and Solomon (2023), "Sampling with mollified interaction energy descent", arXiv
    2210.13400.

    Examples
    --------
    >>> from spikevae.samplers import Box
    >>> corner = lambda x: -x.sum(-1)  # exponential, on the unit square
    >>> points = MIED(corner, constraint=Box(0, 1)).sample(40, 200, dimension=2)
    >>> bool((points > 0).all() and (points < 1).all()), bool(points.mean() < 0.5)
    (True, True)
    """

    name: ClassVar[str] = "MIED"

    def __init__(
        self,
        log_density: LogDensity,
        *,
        constraint: Constraint | None = None,
        kernel: str = "riesz",
        exponent: float | None = None,
        epsilon: float | None = None,
        alpha: float = 0.5,
        fixed_diagonal: bool = False,
        learning_rate: float = 1e-2,
    ) -> None:
        super().__init__(log_density, constraint=constraint, learning_rate=learning_rate)
        if kernel not in KERNELS:
            raise ValueError(f"kernel is {kernel!r}; there are {', '.join(KERNELS)}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha is {alpha:g}; give a number above 0, 0.5 as a rule")
        if kernel != "riesz" and alpha != 0.5:
            raise ValueError(
                f"alpha is {alpha:g} with the {kernel} kernel, whose particles then follow the density to the power "
                f"{2 * alpha:g}: give alpha=0.5 and multiply the log density by {2 * alpha:g} if that is meant"
            )
        if kernel != "riesz" and exponent is not None:
            raise ValueError(f"exponent is {exponent:g}, and the {kernel} kernel has none: leave it out")
        self.kernel, self.exponent, self.alpha, self.fixed_diagonal = kernel, exponent, alpha, fixed_diagonal
        self.epsilon = EPSILON[kernel] if epsilon is None else epsilon
        self.kernel_for(1)  # checks the numbers

    def kernel_for(self, dimension: int) -> Kernel:
        """The kernel for a set of this dimension.

        Examples
        --------
        >>> MIED(lambda x: x.sum(-1)).kernel_for(2)
        Riesz(exponent=2.0001, epsilon=1e-08)
        """
        if self.kernel == "gaussian":
            return Gaussian(self.epsilon, dimension)
        if self.kernel == "laplace":
            return Laplace(self.epsilon, dimension)
        exponent = 2 * self.alpha * dimension + EXCESS if self.exponent is None else self.exponent
        return Riesz(exponent, self.epsilon)

    def _setting(self, dimension: int) -> tuple[Kernel, int]:
        return self.kernel_for(dimension), dimension

    def _downhill(self, z: Float[Tensor, "n m"], step: int, setting: tuple[Kernel, int]) -> Float[Tensor, "n m"]:
        """Gradient of the log energy by the coordinates."""
        z = z.detach().requires_grad_()
        x = self.constraint.points(z)
        at = x.detach().requires_grad_()
        log_p = self._log_densities(at, step)
        score = gradient_of(log_p, at)
        self._check_positive(log_p, score, at, step)
        kernel, dimension = setting
        energy = InteractionEnergy(kernel, self.alpha, dimension, self.fixed_diagonal)
        gradient = energy.gradient(at.detach(), log_p.detach(), score)
        if x is z:
            return gradient
        return torch.autograd.grad(x, z, gradient)[0]


@dataclass(frozen=True)
class InteractionEnergy:
    """The log energy of particles, for one kernel.

    Parameters
    ----------
    kernel, alpha
        As above.
    dimension
        Of the set in which the points lie.
    fixed_diagonal
        Whether distances to nearest neighbours are held fixed in the gradient.

    Examples
    --------
    >>> energy = InteractionEnergy(Riesz(1.0), 0.5, 1)
    >>> float(energy(torch.tensor([[0.0], [1.0]]), torch.zeros(2)))  # distances 1 / 1.3, 1, 1, 1 / 1.3
    0.1397...
    """

    kernel: Kernel
    alpha: float
    dimension: int
    fixed_diagonal: bool = False

    def pairs(self, x: Float[Tensor, "n d"], log_p: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
        """Logarithms of all pairs' parts, at points (n, d) with log densities (n,)."""
        value = self.kernel.log(pair_distances(x, self.dimension).squared).value
        return value - self.alpha * (log_p.unsqueeze(0) + log_p.unsqueeze(1))

    def __call__(self, x: Float[Tensor, "n d"], log_p: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Logarithm of the mean over all ordered pairs."""
        return torch.logsumexp(self.pairs(x, log_p).flatten(), 0) - 2 * math.log(len(x))

    def gradient(
        self, x: Float[Tensor, "n d"], log_p: Float[Tensor, " n"], score: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Gradient by the points, with the gradients (n, d) of their log densities."""
        squared, nearest, share = pair_distances(x, self.dimension)
        value, slope = self.kernel.log(squared)
        value = value - self.alpha * (log_p.unsqueeze(0) + log_p.unsqueeze(1))
        weight = torch.softmax(value.flatten(), 0).view_as(value)
        pull = weight * slope
        own = pull.diagonal() * share
        pull.fill_diagonal_(0)
        if not self.fixed_diagonal:
            pull[torch.arange(len(x), device=x.device), nearest] += own
        pull = 2 * (pull + pull.mT)  # the gradient of |x_i - x_j|² by x_i is 2 (x_i - x_j)
        repulsion = pull.sum(1, keepdim=True) * x - pull @ x
        return repulsion - 2 * self.alpha * weight.sum(1, keepdim=True) * score
