"""Samplers that follow a direction by Adam."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ._constraint import Constraint
from ._sampler import LogDensity, Sampler


class Descent(Sampler):
    """Particles that take steps of `torch.optim.Adam` along a direction; abstract."""

    def __init__(
        self, log_density: LogDensity, *, constraint: Constraint | None = None, learning_rate: float = 1e-2
    ) -> None:
        super().__init__(log_density, constraint=constraint)
        if not 0 < learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {learning_rate:g}; give a number above 0")
        self.learning_rate = learning_rate

    @abstractmethod
    def _downhill(self, z: Float[Tensor, "n m"], step: int, setting: Any) -> Float[Tensor, "n m"]:
        """Minus the direction in which the particles are to move."""

    def _setting(self, dimension: int) -> Any:
        """What stays the same in all steps, for a set of this dimension."""
        return None

    def _positions(
        self, z: Float[Tensor, "n m"], n_steps: int, dimension: int, generator: torch.Generator
    ) -> Iterator[Float[Tensor, "n m"]]:
        """Steps of Adam, limited by the constraint."""
        setting = self._setting(dimension)
        moving = z.detach().clone().requires_grad_()
        adam = torch.optim.Adam([moving], lr=self.learning_rate)
        for step in range(n_steps):
            before = moving.detach().clone()
            moving.grad = self._downhill(before, step, setting)
            adam.step()
            with torch.no_grad():
                moving.copy_(before + self.constraint.limited(before, moving.detach() - before))
            yield moving.detach().clone()
