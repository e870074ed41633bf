"""Stein variational gradient descent, the usual particle sampler to compare with."""

import math
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ._descent import Descent
from .kernels import squared_distances


@final
class SVGD(Descent):
    r"""Stein variational gradient descent with a Gaussian kernel of the median bandwidth.

    .. math:: \phi(x_i) = \frac{1}{n} \sum_j k(x_j, x_i)\, \nabla \log p(x_j) + \nabla_{x_j} k(x_j, x_i), \qquad
        k(x, y) = e^{-\|x - y\|^2 / h}, \quad h = \mathrm{median}^2 / \log(n + 1),

    with the median of the distances of all pairs. The direction is followed by Adam. With a map as constraint it is
    that of the density of the coordinates. In a :class:`Region` steps are limited as those of MIED; the update does
    not know the boundary.

    Parameters
    ----------
    log_density, constraint
        As of :class:`MIED`.
    learning_rate
        Of Adam.

    References
    ----------
    Liu and Wang (2016), arXiv 1608.04471.

    Examples
    --------
    >>> points = SVGD(lambda x: -0.5 * (x**2).sum(-1)).sample(50, 200, dimension=2)
    >>> points.shape
    (50, 2)
    """

    name: ClassVar[str] = "SVGD"

    def _downhill(self, z: Float[Tensor, "n m"], step: int, setting: Any) -> Float[Tensor, "n m"]:
        value, score = self._target(z, step)
        self._check_positive(value, score, self.constraint.points(z), step)
        return -stein_direction(z, score)


def stein_direction(x: Float[Tensor, "n d"], score: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The direction of all particles (n, d), for the gradients (n, d) of their log densities."""
    squared = squared_distances(x, x)
    n = len(x)
    pairs = squared[*torch.triu_indices(n, n, 1, device=x.device)]
    bandwidth = (pairs.median() / math.log(n + 1)).clamp_min(torch.finfo(x.dtype).tiny)
    kernel = torch.exp(-squared / bandwidth)
    repulsion = (kernel.sum(1, keepdim=True) * x - kernel @ x) * (2 / bandwidth)
    return (kernel @ score + repulsion) / n
