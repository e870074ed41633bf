"""The free energy: distortion + beta * kl + spike_price * expected spikes, in nats per stimulus.

Distortion is minus the log-likelihood of the pixels. For Gaussian pixels with noise variance v it is
``SSE / (2 v) + D/2 log(2 v)``: constants are dropped so that v = 1/2 gives the plain sum of squared errors of the
published models. The expected distortion of a linear decoder has a closed form for every distribution of the code whose
mean and variance are known, because E||x - b - z Phi||^2 = ||x - b - E[z] Phi||^2 + sum_k Var(z_k) ||phi_k||^2.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from ._batching import BatchedFunction


class FreeEnergy(NamedTuple):
    """The objective of one batch and its parts, each a mean over the batch."""

    total: Float[Tensor, ""]
    """distortion + beta * kl + spike_price * spikes."""
    distortion: Float[Tensor, ""]
    """Expected minus log-likelihood of the pixels, nats per stimulus."""
    kl: Float[Tensor, ""]
    """Coding rate, nats per stimulus."""
    spikes: Float[Tensor, ""]
    """Expected spikes per stimulus, all units together; 0 if the distribution has no firing rate."""
    moments: Float[Tensor, "n_moments K"]
    """(n_moments, K): batch means of the statistics that determine the optimal prior; zero unless the prior is set by
    them."""
    code: Float[Tensor, "B K"]
    """(B, K) mean code, without gradient; zero unless the decoder is updated by least squares."""
    variance: Float[Tensor, " K"]
    """(K,) batch mean of the variance of the code, without gradient; zero in the same models."""


class _SquaredError(BatchedFunction):
    """||x - y||^2 over the last dimension, with one pass over the residuals in forward and one in backward."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        residual = y - x
        return torch.linalg.vector_norm(residual, dim=-1).square(), residual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else backward would get zeros of the size of the residual
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, Tensor | None]:
        if grad is None:
            return None, None
        (residual,) = ctx.saved_tensors
        to_y = residual * (2 * grad).unsqueeze(-1)
        return -to_y if ctx.needs_input_grad[0] else None, to_y


def squared_error(x: Float[Tensor, "*#batch D"], y: Float[Tensor, "*#batch D"]) -> Float[Tensor, "*batch"]:
    """||x - y||^2 over the last dimension.

    Examples
    --------
    >>> squared_error(torch.zeros(2, 3), torch.ones(2, 3))
    tensor([3., 3.])
    """
    return _SquaredError.apply(*torch.broadcast_tensors(x, y))[0]


def gaussian_distortion(
    squared_error: Float[Tensor, "*#shape"], n_pixels: int, log_variance: Float[Tensor, "*#shape"] | float
) -> Float[Tensor, "*shape"]:
    """Distortion in nats from summed squared errors, for pixel noise of the given log variance.

    Parameters
    ----------
    squared_error
        Sums over the pixels of a stimulus, any shape.
    n_pixels
        D.
    log_variance
        Natural logarithm of the noise variance; at log(1/2) the result is `squared_error`.

    Examples
    --------
    >>> import math, torch
    >>> gaussian_distortion(torch.tensor(3.0), 16, math.log(0.5))
    tensor(3.)
    """
    log_twice = torch.as_tensor(log_variance, dtype=squared_error.dtype, device=squared_error.device) + LOG_2
    return squared_error * torch.exp(-log_twice) + 0.5 * n_pixels * log_twice


def bernoulli_distortion(x: Float[Tensor, "*batch D"], logits: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
    """Cross-entropy of pixels in [0, 1] with Bernoulli pixels of these logits, summed over the last dimension."""
    return binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def expected_squared_error(
    x: Float[Tensor, "B D"],
    mean_output: Float[Tensor, "B D"],
    variance: Float[Tensor, "B K"],
    dictionary: Float[Tensor, "K D"],
) -> Float[Tensor, " B"]:
    """E||x - y||^2 for a linear decoder, exactly.

    Parameters
    ----------
    x, mean_output
        (B, D) stimuli and the decoder's output for the mean code.
    variance
        (B, K) variance of the code, independent over units.
    dictionary
        (K, D).

    Returns
    -------
    (B,) nats at noise variance one half.

    References
    ----------
    Vafaii, Galor, Yates 2024 (arXiv 2405.14473), the closed form for Poisson codes; it holds in the same way for any
    code with independent units.
    """
    return squared_error(x, mean_output) + variance @ dictionary.square().sum(-1)


class _MeanSquaredError(BatchedFunction):
    """Mean over the batch of ||code Phi + b - x||^2: one matrix product forward, two backward.

    The first product gives the residual. The gradient by the dictionary is contiguous as that of its transpose, the
    weight of a decoder. Factors of the incoming gradient are applied to the small dictionary, not to
    the batch.
    """

    @staticmethod
    def forward(x: Tensor, code: Tensor, dictionary: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        target = x if bias is None else x - bias.unsqueeze(-2)
        target = target.expand(*code.shape[:-1], -1)
        if code.dim() == 2:
            residual = torch.addmm(target, code, dictionary, beta=-1)
        elif code.dim() == 3:
            residual = torch.baddbmm(target, code, dictionary, beta=-1)
        else:
            residual = code @ dictionary - target
        norm = torch.linalg.vector_norm(residual, dim=(-2, -1))
        return norm.square() / residual.shape[-2], residual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1], inputs[1], inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        residual, code, dictionary = ctx.saved_tensors
        factor = (2 / residual.shape[-2]) * grad[..., None, None]
        to_x = -residual * factor if ctx.needs_input_grad[0] else None
        to_code = residual @ (dictionary * factor).mT if ctx.needs_input_grad[1] else None
        to_dictionary = (residual.mT @ code * factor).mT if ctx.needs_input_grad[2] else None
        to_bias = residual.sum(-2) * factor[..., 0] if ctx.needs_input_grad[3] else None
        return to_x, to_code, to_dictionary, to_bias


def mean_squared_error(
    x: Float[Tensor, "B D"],
    code: Float[Tensor, "B K"],
    dictionary: Float[Tensor, "K D"],
    bias: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over stimuli of ||x - b - code Phi||^2, summed over pixels.

    Parameters
    ----------
    x
        (B, D) stimuli.
    code
        (B, K), differentiable like `dictionary` and `bias`, once.
    dictionary
        (K, D).
    bias
        (D,) or None.

    Returns
    -------
    () nats at noise variance one half.

    Examples
    --------
    >>> mean_squared_error(torch.zeros(2, 4), torch.ones(2, 1), torch.ones(1, 4))
    tensor(4.0000)
    """
    return _MeanSquaredError.apply(x, code, dictionary, bias)[0]


LOG_2 = 0.6931471805599453
