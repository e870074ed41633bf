r"""What the pixels push a code to do: minus the slope of the distortion in each unit's code.

A drive holds what stays the same while one batch of stimuli is looked at. For a linear decoder with Gaussian pixels the
push is closed-form, feed-forward drive minus lateral inhibition,

.. math:: -\partial D / \partial z = \Phi^T (x - b) / v - \Phi^T \Phi z / v ;

for all others it is the pixels' error sent back through the decoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..._batching import BatchedFunction
from ...objectives import bernoulli_distortion, gaussian_distortion, squared_error


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Sum of all products of two (B, K) tensors, in one pass."""
    return x.reshape(-1) @ y.reshape(-1)


class Look(NamedTuple):
    """A code held against the stimuli."""

    code: Tensor
    """(B, K), or (1, K) if the same for all."""
    push: Tensor
    """(B, K) minus the slope of the distortion in the code."""
    output: Tensor | None = None
    """(B, D) the decoder's output, where it was needed."""


class Drive(Protocol):
    """Stimuli seen through a decoder."""

    def look(self, code: Tensor) -> Look:
        """Find the push on codes (B, K) or (1, K)."""
        ...

    def distortion(self, look: Look) -> Tensor:
        """(B,) nats of the stimuli given a code."""
        ...


class LinearDrive(NamedTuple):
    """Closed form for ``x ~ N(z dictionary + bias, noise variance)``; see :meth:`of`."""

    feedforward: Tensor
    """(B, K) Phi^T (x - b) / v."""
    scaled_x: Tensor
    """(B, D) (x - b) / sqrt(v)."""
    scaled: Tensor
    """(K, D) dictionary / sqrt(v)."""
    lateral: Tensor | None
    """(K, K) Phi^T Phi / v where that is cheaper than decoding and back, else None."""
    width: Tensor
    """(K,) slope of the expected distortion in the variance of each code, ||phi_k||^2 / (2 v)."""
    at_silence: Tensor
    """(B,) distortion of a code of zeros."""

    @classmethod
    def of(cls, x: Tensor, dictionary: Tensor, log_noise_variance: Tensor, *, reused: bool) -> Self:
        """Prepare stimuli (B, D), the decoder's bias taken off, for a dictionary (K, D).

        With `reused`, :meth:`look` will be called many times: lateral weights (K, K) are formed where they make a call
        cheaper, which they do for K <= 2 D, and once K multiply-accumulates a stimulus pay for them.
        """
        n_units, n_pixels = dictionary.shape[-2:]
        scale = torch.exp(-0.5 * log_noise_variance)
        scaled, scaled_x = dictionary * scale, x * scale
        lateral = scaled @ scaled.mT if reused and n_units <= 2 * n_pixels else None
        width = 0.5 * scaled.square().sum(-1)
        at_silence = gaussian_distortion(x.square().sum(-1), n_pixels, log_noise_variance)
        return cls(scaled_x @ scaled.mT, scaled_x, scaled, lateral, width, at_silence)

    def look(self, code: Tensor) -> Look:
        if self.lateral is not None:
            if code.shape != self.feedforward.shape:  # one code for all stimuli
                return Look(code, self.feedforward - code @ self.lateral)
            push: Tensor = _Push.apply(self.feedforward, code, self.lateral, None)
            return Look(code, push)
        return Look(code, (self.scaled_x - code @ self.scaled) @ self.scaled.mT)

    def look_known(self, code: Tensor, push: Tensor) -> Look:
        """:meth:`look` where the value of the push has been computed already: only its gradient is left to find."""
        if self.lateral is None or not torch.is_grad_enabled():
            return self.look(code) if torch.is_grad_enabled() else Look(code, push)
        known: Tensor = _Push.apply(self.feedforward, code, self.lateral, push)
        return Look(code, known)

    def distortion(self, look: Look) -> Tensor:
        return self.at_silence - 0.5 * torch.linalg.vecdot(look.code, self.feedforward + look.push)

    def expected(self, mean: Look, variance: Tensor) -> Tensor:
        """(B,) expectation of the distortion over codes of these moments."""
        return self.distortion(mean) + variance @ self.width

    def mean_expected(self, mean: Look, variance: Tensor) -> Tensor:
        """Mean of :meth:`expected` over the stimuli, without a number for each."""
        both = inner(mean.code, self.feedforward + mean.push) / len(self.feedforward)
        return self.at_silence.mean() - 0.5 * both + variance.mean(-2) @ self.width

    def rows(self, chosen: Tensor) -> Self:
        """The drive of some of the stimuli."""
        return self._replace(
            feedforward=self.feedforward[chosen],
            scaled_x=self.scaled_x[chosen],
            at_silence=self.at_silence[chosen],
        )


class _Push(BatchedFunction):
    """feedforward - code @ lateral in one pass, for symmetric lateral weights; its value may be known."""

    @staticmethod
    def forward(feedforward: Tensor, code: Tensor, lateral: Tensor, value: Tensor | None) -> Tensor:
        if value is not None:
            return value.view_as(value)
        if code.dim() == 3:
            return torch.baddbmm(feedforward, code, lateral, alpha=-1)
        return torch.addmm(feedforward, code, lateral, alpha=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        code, lateral = ctx.saved_tensors
        back = -grad
        return grad, back @ lateral, code.mT @ back, None


class NetworkDrive:
    """Any differentiable decoder: the pixels' error times the decoder's Jacobian at the code.

    Parameters
    ----------
    x
        (B, D) stimuli.
    decoder
        Codes (B, K) to pixels, or to their logits.
    log_noise_variance
        Of a Gaussian pixel; None for Bernoulli pixels.
    """

    def __init__(self, x: Tensor, decoder: Callable[[Tensor], Tensor], log_noise_variance: Tensor | None) -> None:
        self.x, self.decoder, self.log_noise_variance = x, decoder, log_noise_variance

    def look(self, code: Tensor) -> Look:
        code = code.expand(len(self.x), -1)
        output, backward, *_ = torch.func.vjp(self.decoder, code)
        if self.log_noise_variance is None:
            error = self.x - torch.sigmoid(output)
        else:
            error = (self.x - output) * torch.exp(-self.log_noise_variance)
        return Look(code, backward(error)[0], output)

    def distortion(self, look: Look) -> Tensor:
        assert look.output is not None
        if self.log_noise_variance is None:
            return bernoulli_distortion(self.x, look.output)
        return gaussian_distortion(squared_error(self.x, look.output), self.x.shape[-1], self.log_noise_variance)
