"""Langevin chains: independent particles that follow the gradient of the log density, with noise."""

import math
from collections.abc import Iterator
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ._constraint import Constraint
from ._sampler import LogDensity, Sampler
from .region import Region

ACCEPTANCE = 0.574
"""Share of accepted proposals that is best in many dimensions (Roberts and Rosenthal 1998)."""
ADAPTATION = 2.0
"""Change of log h in the first step per unit of the chance of acceptance; it falls as one over the root of the step."""


@final
class Langevin(Sampler):
    r"""One Langevin chain per particle; the last state of each is returned.

    .. math:: z' = z + h\, \nabla \log p(z) + \sqrt{2 h}\, \xi, \qquad \xi \sim N(0, I).

    Adjusted chains accept z' by the rule of Metropolis and Hastings, so that they follow p exactly for any h; in the
    first half of the steps each adapts its h to 57 % of acceptance, and in the second all have the median of these.
    Without, chains follow p up to an error of order h: the variance of a standard normal becomes 1 / (1 - h / 2). With
    a map as constraint, z are its coordinates, with the volume of the map (mirrored Langevin dynamics). In a
    :class:`Region` of inequalities, adjusted chains stay where they are instead of leaving.

    Parameters
    ----------
    log_density, constraint
        As of :class:`MIED`; the log density of adjusted chains may be minus infinity outside their start.
    step_size
        h, or its first value.
    adjust
        Whether proposals may be rejected.

    Raises
    ------
    ValueError
        For regions that the chain cannot keep to: with equalities, or without adjustment.

    References
    ----------
    Roberts and Tweedie (1996), Bernoulli 2, 341; Hsieh et al. (2018), arXiv 1802.10174.

    Examples
    --------
    >>> points = Langevin(lambda x: -0.5 * (x**2).sum(-1)).sample(2000, 100, dimension=1)
    >>> bool(abs(points.var() - 1) < 0.15)
    True
    """

    name: ClassVar[str] = "Langevin"

    def __init__(
        self,
        log_density: LogDensity,
        *,
        constraint: Constraint | None = None,
        step_size: float = 0.1,
        adjust: bool = True,
    ) -> None:
        super().__init__(log_density, constraint=constraint)
        if not 0 < step_size < math.inf:
            raise ValueError(f"step_size is {step_size:g}; give a number above 0")
        if isinstance(constraint, Region) and (constraint.equality is not None or not adjust):
            what = "equalities" if constraint.equality is not None else "a region without adjustment"
            raise ValueError(
                f"Langevin chains cannot keep to {what}: use MIED, or a region of inequalities and adjust=True"
            )
        self.step_size, self.adjust = step_size, adjust

    def _positions(
        self, z: Float[Tensor, "n m"], n_steps: int, dimension: int, generator: torch.Generator
    ) -> Iterator[Float[Tensor, "n m"]]:
        """Steps of all chains."""
        h = torch.full((len(z), 1), self.step_size, dtype=z.dtype, device=z.device)
        value, score = self._target(z, 0)
        self._check_positive(value, score, self.constraint.points(z), 0)
        for step in range(n_steps):
            noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
            proposal = z + h * score + (2 * h).sqrt() * noise
            new_value, new_score = self._target(proposal, step + 1)
            if not self.adjust:
                self._check_positive(new_value, new_score, self.constraint.points(proposal), step + 1)
                z, score = proposal, new_score
                yield z
                continue
            back = z - proposal - h * new_score
            log_ratio = new_value - value + 0.5 * noise.square().sum(-1) - back.square().sum(-1) / (4 * h[:, 0])
            log_ratio = torch.where(self.constraint.outside(self.constraint.points(proposal)), -torch.inf, log_ratio)
            log_ratio = log_ratio.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # density zero there
            uniform = torch.rand(len(z), dtype=z.dtype, device=z.device, generator=generator)
            accepted = (uniform.log() < log_ratio).unsqueeze(-1)
            z, score = torch.where(accepted, proposal, z), torch.where(accepted, new_score, score)
            value = torch.where(accepted[:, 0], new_value, value)
            if step < n_steps // 2:  # chains that start where the density is steep need smaller steps to leave
                chance = log_ratio.clamp_max(0).exp().unsqueeze(-1)
                h = h * torch.exp(ADAPTATION * (chance - ACCEPTANCE) / math.sqrt(step + 1))
            elif step == n_steps // 2:
                h = h.median().expand_as(h)
            yield z
