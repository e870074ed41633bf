"""Base class of count distributions with a logit: initial prior, posterior from encoder outputs, moments."""

import math
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property
from torch.nn import functional as F

from ._fini import attached, binomial_weight, check_degree
from ._law import Law

MAX_START_PROBABILITY = 0.5
"""Largest probability of a spike in a slot at the start, for any requested firing rate."""

_MAX_EXPONENT = 700.0
"""exp of more than this exceeds a float64."""


def start_logit(log_rate: float, n_slots: int) -> float:
    """Logit at which the mean count of this many slots is exp(log_rate), or half of the slots where above."""
    p = min(math.exp(min(log_rate, _MAX_EXPONENT)) / n_slots, MAX_START_PROBABILITY)
    return math.log(p) - math.log1p(-p)


class LogitLaw(Law):
    """A count of spikes in slots that each hold at most one, parametrised by the logit of a slot; abstract."""

    n_params: ClassVar[int] = 1
    is_count: ClassVar[bool] = True
    has_rate: ClassVar[bool] = True
    has_linear_ratio: ClassVar[bool] = True
    prior_params: ClassVar[tuple[str, ...]] = ("logit",)
    arg_constraints: ClassVar[dict[str, Any]] = {"logit": constraints.real}
    n_slots: ClassVar[int]
    """Largest count."""

    logit: Tensor

    def __init__(self, logit: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(logit, validate_args=validate_args)

    @classmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " {n_units}"]]:
        """Logits uniform within `spread` of that of the mean count exp(log_rate), half of the slots where above."""
        uniform = torch.rand(n_units, generator=generator, device=generator.device)
        return {"logit": start_logit(log_rate, cls.n_slots) + spread * (2 * uniform - 1)}

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., K): residuals on the prior's logit, or logits where no prior is given.

        `clamp` is not used: the number of slots bounds the count.
        """
        return cls(raw if prior is None else prior.logit + raw, validate_args=False)

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Zeros for residuals on a prior, whose firing rate they keep; else the logit of the mean count."""
        return torch.full((n_units,), 0.0 if residual else start_logit(log_rate, cls.n_slots))

    def moments(self) -> Float[Tensor, " n_moments *shape"]:
        """Firing rate, shape (1, *batch_shape)."""
        return self.mean.unsqueeze(0)

    @classmethod
    def prior_from_moments(cls, moments: Float[Tensor, " n_moments *shape"]) -> dict[str, Float[Tensor, "*shape"]]:
        """The optimal prior firing rate is the mean posterior firing rate; moments (1, K)."""
        info = torch.finfo(moments.dtype)
        return {"logit": torch.logit((moments[0] / cls.n_slots).clamp(info.tiny, 1 - info.eps))}

    def statistics(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, " n_moments *shape"]:
        """Counts, shape (1, *shape)."""
        return value.unsqueeze(0)

    def log_ratio(self, prior: Self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log of the probability of counts over that under `prior`, linear in the counts; nats per unit."""
        silent = F.softplus(prior.logit) - F.softplus(self.logit)
        return value * (self.logit - prior.logit) + self.n_slots * silent

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Counts with a gradient that is exact for polynomials up to `degree`, see :meth:`Law.fini`."""
        check_degree(degree, self.fini_degree, self.label)
        logit = self.logit.expand_as(counts)
        return attached(counts, (logit, binomial_weight(counts, logit.detach(), self.n_slots, degree)))

    @lazy_property
    def p(self) -> Float[Tensor, "*shape"]:
        """Probability of a spike in a slot."""
        return torch.sigmoid(self.logit)
