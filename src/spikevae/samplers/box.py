"""Boxes: each number of a point between two bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from .._arrays import plain
from ._constraint import Constraint

LOG_2 = 0.6931471805599453
Function = Callable[[Tensor], Tensor]


class _Map(NamedTuple):
    """From all numbers to (-1, 1), its inverse, and the logarithm of its slope."""

    forward: Function
    inverse: Function
    log_slope: Function


def _log_slope_of_tanh(z: Tensor) -> Tensor:
    return 2 * (LOG_2 - z.abs() - softplus(-2 * z.abs()))  # log (1 - tanh²), also where tanh rounds to 1


def _root(z: Tensor) -> Tensor:
    return (1 + z.square()).sqrt()


MAPS = {
    "tanh": _Map(torch.tanh, torch.atanh, _log_slope_of_tanh),
    "entropic": _Map(
        lambda z: torch.tanh(z / 2), lambda m: 2 * torch.atanh(m), lambda z: _log_slope_of_tanh(z / 2) - LOG_2
    ),
    "log_barrier": _Map(
        lambda z: z / (1 + _root(z)),
        lambda m: 2 * m / (1 - m.square()),
        lambda z: -_root(z).log() - torch.log1p(_root(z)),
    ),
}


@final
class Box(Constraint):
    r"""Points with `lower` < x < `upper`, as the image of all numbers.

    A map m takes coordinates z to (-1, 1), and from there to the box: tanh z; the gradient of the dual of the mirror
    map "entropic", :math:`1 - 2 / (e^z + 1) = \tanh(z / 2)`; or of "log_barrier", :math:`(\sqrt{1 + z^2} - 1) / z`,
    whose tails are the heaviest: particles leave the walls most easily. Particles start uniformly in the middle half.

    Parameters
    ----------
    lower, upper
        Bounds, (d,) each; a number stands for all dimensions.
    map
        "tanh", "entropic" or "log_barrier".

    Raises
    ------
    ValueError
        For bounds that are not finite or not in order, or another map.

    References
    ----------
    Li et al. (2023), arXiv 2210.13400; Hsieh et al. (2018), arXiv 1802.10174, mirror maps.

    Examples
    --------
    >>> box = Box([0, -1], [2, 1])
    >>> box.points(torch.tensor([[0.0, 100.0]]))
    tensor([[1., 1.]])
    """

    def __init__(self, lower: Any, upper: Any, *, map: str = "tanh") -> None:
        if map not in MAPS:
            raise ValueError(f"map is {map!r}; there are {', '.join(MAPS)}")
        bounds = [
            np.asarray(plain(value, name), dtype=np.float64) for name, value in (("lower", lower), ("upper", upper))
        ]
        if any(one.ndim > 1 for one in bounds) or len({one.shape for one in bounds if one.ndim}) > 1:
            raise ValueError(
                f"lower and upper have shapes {bounds[0].shape} and {bounds[1].shape}; give (d,) or numbers"
            )
        low, high = np.broadcast_arrays(*bounds)
        if not (np.isfinite(bounds[0]).all() and np.isfinite(bounds[1]).all() and (low < high).all()):
            raise ValueError(f"lower is {bounds[0]} and upper is {bounds[1]}; give finite bounds, each lower one below")
        self.lower, self.upper, self.map = torch.from_numpy(low.copy()), torch.from_numpy(high.copy()), map
        self._map = MAPS[map]

    def dimension(self) -> int | None:
        """d, where bounds are given for each dimension."""
        return len(self.lower) if self.lower.ndim else None

    def _sides(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bound, type and device as `like`."""
        return self.lower.to(like), self.upper.to(like)

    def start(self, n: int, dimension: int, like: Tensor, generator: torch.Generator) -> Float[Tensor, "n m"]:
        """Uniform in the middle half of each dimension."""
        uniform = torch.rand(n, dimension, dtype=like.dtype, device=like.device, generator=generator)
        return self._map.inverse(uniform - 0.5)

    def coordinates(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Inverse of :meth:`points`."""
        low, high = self._sides(x)
        if not ((x > low) & (x < high)).all():
            n = int((~((x > low) & (x < high)).all(-1)).sum())
            raise ValueError(f"{n} of {len(x)} points are not inside the box: give start points between its bounds")
        return self._map.inverse((2 * x - low - high) / (high - low))

    def points(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
        """Middle of the box plus m(z) half-widths, never beyond the bounds."""
        low, high = self._sides(z)
        x = (low + high) / 2 + self._map.forward(z) * (high - low) / 2
        return torch.minimum(torch.maximum(x, low), high)

    def log_volume(self, z: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Sum over dimensions of the logarithm of half-width times slope."""
        low, high = self._sides(z)
        return (self._map.log_slope(z) + ((high - low) / 2).log()).sum(-1)

    def outside(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Which points are beyond a bound."""
        low, high = self._sides(x)
        return ~((x >= low) & (x <= high)).all(-1)
