r"""The likelihood of a batch of stimuli as a function of the code, and the drive of each unit.

The drive is minus the derivative of the distortion with respect to the code. For a linear decoder with Gaussian pixels
it has a closed form, feed-forward drive minus lateral inhibition,

.. math:: -\partial D / \partial z = \Phi^T (x - b) / v - \Phi^T \Phi z / v ;

for all others the error of the pixels is propagated back through the decoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..._batching import BatchedFunction
from ...objectives import gaussian_distortion
from ..pixels import pixel_distortion, pixel_errors


def inner_product(x: Float[Tensor, "B K"], y: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """() inner product of two (B, K) tensors."""
    return x.reshape(-1) @ y.reshape(-1)


class Point(NamedTuple):
    """A code, and what the likelihood is there."""

    code: Float[Tensor, "#B K"]
    """(B, K), or (1, K) if all stimuli have the same."""
    drive: Float[Tensor, "B K"]
    """(B, K) minus the derivative of the distortion with respect to the code."""
    output: Float[Tensor, "B D"] | None = None
    """(B, D) the decoder's output; None where the distortion is computed without it."""


class Likelihood(Protocol):
    """Likelihood of a batch of stimuli as a function of the code."""

    def at(self, code: Float[Tensor, "#B K"]) -> Point:
        """The point at codes (B, K) or (1, K)."""
        ...

    def distortion(self, point: Point) -> Float[Tensor, " B"]:
        """(B,) distortion at a point, nats."""
        ...


class LinearLikelihood(NamedTuple):
    """Closed form for ``x ~ N(z dictionary + bias, noise variance)``; see :meth:`of`."""

    feedforward: Float[Tensor, "B K"]
    """(B, K) Phi^T (x - b) / v."""
    scaled_x: Float[Tensor, "B D"]
    """(B, D) (x - b) / sqrt(v)."""
    scaled: Float[Tensor, "K D"]
    """(K, D) dictionary / sqrt(v)."""
    lateral: Float[Tensor, "K K"] | None
    """(K, K) lateral weights Phi^T Phi / v; None where the dictionary and its transpose cost less."""
    self_inhibition: Float[Tensor, " K"]
    """(K,) derivative of the expected distortion with respect to the variance of each code, ||phi_k||^2 / (2 v)."""
    distortion_at_zero: Float[Tensor, " B"]
    """(B,) distortion of a code of zeros."""

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "B D"],
        dictionary: Float[Tensor, "K D"],
        log_noise_variance: Float[Tensor, ""],
        *,
        reused: bool,
    ) -> Self:
        """Likelihood of stimuli (B, D), minus the decoder's bias, for a dictionary (K, D).

        `reused` states that :meth:`at` will be called many times: lateral weights (K, K) are then computed where they
        make a call cheaper, which is so for K <= 2 D.
        """
        n_units, n_pixels = dictionary.shape[-2:]
        scale = torch.exp(-0.5 * log_noise_variance)
        scaled, scaled_x = dictionary * scale, x * scale
        lateral = scaled @ scaled.mT if reused and n_units <= 2 * n_pixels else None
        self_inhibition = 0.5 * scaled.square().sum(-1)
        distortion_at_zero = gaussian_distortion(x.square().sum(-1), n_pixels, log_noise_variance)
        return cls(scaled_x @ scaled.mT, scaled_x, scaled, lateral, self_inhibition, distortion_at_zero)

    def at(self, code: Float[Tensor, "#B K"]) -> Point:
        if self.lateral is not None:
            if code.shape != self.feedforward.shape:  # one code for all stimuli
                return Point(code, self.feedforward - code @ self.lateral)
            drive: Tensor = _LinearDrive.apply(self.feedforward, code, self.lateral, None)
            return Point(code, drive)
        return Point(code, (self.scaled_x - code @ self.scaled) @ self.scaled.mT)

    def at_with_drive(self, code: Float[Tensor, "B K"], drive: Float[Tensor, "B K"]) -> Point:
        """:meth:`at` where the value of the drive is known, so that only its gradient has to be computed."""
        if self.lateral is None or not torch.is_grad_enabled():
            return self.at(code) if torch.is_grad_enabled() else Point(code, drive)
        known: Tensor = _LinearDrive.apply(self.feedforward, code, self.lateral, drive)
        return Point(code, known)

    def distortion(self, point: Point) -> Float[Tensor, " B"]:
        return self.distortion_at_zero - 0.5 * torch.linalg.vecdot(point.code, self.feedforward + point.drive)

    def expected(self, mean: Point, variance: Float[Tensor, "#B K"]) -> Float[Tensor, " B"]:
        """(B,) expectation of the distortion over codes of these moments."""
        return self.distortion(mean) + variance @ self.self_inhibition

    def mean_expected(self, mean: Point, variance: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Mean of :meth:`expected` over the stimuli, in fewer operations."""
        product = inner_product(mean.code, self.feedforward + mean.drive) / len(self.feedforward)
        return self.distortion_at_zero.mean() - 0.5 * product + variance.mean(-2) @ self.self_inhibition

    def select(self, chosen: Int64[Tensor, " n"]) -> Self:
        """The likelihood of some of the stimuli."""
        return self._replace(
            feedforward=self.feedforward[chosen],
            scaled_x=self.scaled_x[chosen],
            distortion_at_zero=self.distortion_at_zero[chosen],
        )


class _LinearDrive(BatchedFunction):
    """feedforward - code @ lateral in one operation, for symmetric lateral weights; `value` is the result, if known."""

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
        minus = -grad
        return grad, minus @ lateral, code.mT @ minus, None


class NetworkLikelihood:
    """Any differentiable decoder: the drive is the error of the pixels times the decoder's Jacobian at the code.

    Parameters
    ----------
    x
        (B, D) stimuli.
    decoder
        From codes (B, K) to the parameter of the pixels (B, D), as :func:`~spikevae.models.pixels.pixel_distortion` has
        it.
    likelihood
        Of the pixels: "gaussian" or "bernoulli".
    noise
        Log variance of Gaussian pixels.
    """

    def __init__(
        self,
        x: Float[Tensor, "B D"],
        decoder: Callable[[Float[Tensor, "B K"]], Float[Tensor, "B D"]],
        likelihood: str,
        noise: Float[Tensor, ""],
    ) -> None:
        self.x, self.decoder, self.likelihood, self.noise = x, decoder, likelihood, noise

    def at(self, code: Float[Tensor, "#B K"]) -> Point:
        code = code.expand(len(self.x), -1)
        output, backward, *_ = torch.func.vjp(self.decoder, code)
        return Point(code, backward(pixel_errors(self.likelihood, self.x, output, self.noise))[0], output)

    def distortion(self, point: Point) -> Float[Tensor, " B"]:
        assert point.output is not None
        return pixel_distortion(self.likelihood, self.x, point.output, self.noise)
