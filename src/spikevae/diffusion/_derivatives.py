"""Derivatives of log densities by state and time, by reverse differentiation."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""From states (n, D) and times (n,) to log densities (n,), each of its own row alone."""

GradientFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From states (n, D) and times (n,) to scores (n, D) and time derivatives (n,)."""


def gradients(
    log_density: LogDensity, x: Float[Tensor, "n D"], t: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n D"], Float[Tensor, " n"]]:
    """Score and time derivative at states and times that require gradients; differentiable again.

    Raises
    ------
    ValueError
        Where the function does not give one finite number for each row.
    """
    value = log_density(x, t)
    if not isinstance(value, Tensor) or value.shape != t.shape:
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"log_density gave {what} for states {tuple(x.shape)}; it must give a tensor ({len(x)},)")
    wrong = (~value.isfinite()).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"log_density is not finite for {len(wrong)} of {len(x)} states, the first of them row {row} at time "
            f"{t[row].item():g}: give states and times where the density is above zero and finite"
        )
    if not value.requires_grad:
        return torch.zeros_like(x), torch.zeros_like(t)
    score, time_derivative = torch.autograd.grad(
        value.sum(), (x, t), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return score, time_derivative


def reverse_gradients(log_density: LogDensity) -> GradientFunction:
    """The function that gives score and time derivative of a log density."""
    return lambda x, t: gradients(log_density, x.detach().requires_grad_(), t.detach().requires_grad_())
