"""Base class of count distributions with a log rate: initial prior, posterior from encoder outputs."""

from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from ._law import Law, softclamp_above, split_blocks

RESIDUAL_LIMIT = 10.0
"""Soft upper bound of the residual log rate if bounds are requested, as published."""

MAX_EXCESS = 80.0
"""So far above a soft bound its slope is zero, and e^x is still finite in float32."""


def bounded_log_rate(
    raw: Float[Tensor, "*#shape"], prior_log_rate: Float[Tensor, "*#shape"] | None, clamp: float | None
) -> Float[Tensor, "*shape"]:
    """Log rate from encoder outputs: residuals on the prior's log rate, or log rates where no prior is given.

    With `clamp` the log rate is softly bounded above by it, and the residual by `RESIDUAL_LIMIT`.
    """
    log_rate = raw
    if prior_log_rate is not None:
        log_rate = prior_log_rate + (raw if clamp is None else softclamp_above(raw, RESIDUAL_LIMIT))
    return log_rate if clamp is None else softclamp_above(log_rate, clamp)


class LogRateLaw(Law):
    """A count distribution whose first parameter is the log of a rate; abstract.

    Its second parameter, if it has one, is zero at the start.
    """

    is_count: ClassVar[bool] = True
    has_rate: ClassVar[bool] = True
    start_offset: ClassVar[float] = 0.0
    """Log rate minus log mean count at the start."""
    support: ClassVar[Any] = constraints.nonnegative_integer

    log_rate: Tensor

    @classmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " {n_units}"]]:
        """Log mean counts uniform in (log_rate - spread, log_rate + spread); the second parameter is zero."""
        uniform = torch.rand(n_units, generator=generator, device=generator.device)
        zeros = {name: torch.zeros(n_units, device=generator.device) for name in cls.prior_params[1:]}
        return {"log_rate": log_rate + cls.start_offset + spread * (2 * uniform - 1), **zeros}

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., n_params * K): residuals on the prior's parameters, or the parameters.

        The first block is that of the log rates. With `clamp` the log rate is softly bounded above by it, and its
        residual by 10.
        """
        first, *others = split_blocks(raw, cls.n_params)
        log_rate = bounded_log_rate(first, None if prior is None else prior.log_rate, clamp)
        if prior is not None:
            others = [getattr(prior, name) + block for name, block in zip(cls.prior_params[1:], others)]
        return cls(log_rate, *others, validate_args=False)

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Zeros for residuals on a prior, whose firing rate they keep; else the log rate, and zeros."""
        raw = torch.zeros(cls.n_params * n_units)
        if not residual:
            raw[:n_units] = log_rate + cls.start_offset
        return raw

    @lazy_property
    def rate(self) -> Float[Tensor, "*shape"]:
        """The rate, exp(log_rate)."""
        return self.log_rate.exp()
