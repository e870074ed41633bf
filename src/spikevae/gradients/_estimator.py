"""The interface of all estimators."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Codes: TypeAlias = Float[Tensor, "*batch K"]
Values: TypeAlias = Float[Tensor, "*batch"]
Function = Callable[[Codes], Values]
"""A function of codes, shape (..., K), with a value for each, shape (...)."""


class GradientEstimator(ABC):
    """An estimator of the gradient of an expectation over counts; abstract."""

    name: ClassVar[str]
    label: ClassVar[str]
    citation: ClassVar[str]
    unbiased: ClassVar[bool]
    """Whether the mean of the estimates is the gradient, for every f."""
    needs_gradient: ClassVar[bool] = True
    """Whether f must be differentiable, and defined between the integers."""

    @abstractmethod
    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values of f at codes drawn for each row of `log_rate`; backward gives the estimated gradient.

        Parameters
        ----------
        f
            Function of codes (..., K) with values (...); codes have the leading dimensions of `log_rate`, and possibly
            another one before them.
        log_rate
            Log firing rates, shape (..., K).
        generator
            Source of the draws, on the device of `log_rate`.

        Returns
        -------
        Tensor
            Shape (...), differentiable once.
        """

    def evaluations(self, n_latents: int) -> int:
        """Evaluations of f that one estimate takes."""
        return 1

    def gradient(
        self, f: Function, log_rate: Float[Tensor, " K"], n: int, *, generator: torch.Generator
    ) -> Float[Tensor, "{n} K"]:
        """`n` independent estimates of the gradient by `log_rate` (K,): shape (n, K).

        Examples
        --------
        >>> from spikevae.gradients import ScoreFunction
        >>> square = lambda z: (z**2).sum(-1)  # E z^2 = rate + rate^2, whose derivative is 3 at rate 1
        >>> generator = torch.Generator().manual_seed(0)
        >>> estimates = ScoreFunction(8).gradient(square, torch.zeros(1), 4000, generator=generator)
        >>> bool(abs(estimates.mean() - 3) < 0.3)
        True
        """
        rows = log_rate.detach().expand(n, -1).clone().requires_grad_()
        (found,) = torch.autograd.grad(self(f, rows, generator=generator).sum(), rows)
        return found
