"""What estimators that only evaluate f have in common."""

import torch
from jaxtyping import Float
from torch import Tensor


def with_score(log_rate: Float[Tensor, "*batch K"], weight: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Zero, with gradient `weight` by the log-rates."""
    product = (weight.detach() * log_rate).sum(-1)
    return product - product.detach()


def poisson_counts(log_rate: Tensor, generator: torch.Generator) -> Tensor:
    """Counts of these log-rates, without gradient."""
    return torch.poisson(log_rate.detach().exp(), generator=generator)
