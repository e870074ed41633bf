"""Gradients from the change by one more spike."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ._estimator import Codes, Function, GradientEstimator, Values
from ._score import poisson_counts, with_score


@final
@dataclass(frozen=True)
class FiniteDifference(GradientEstimator):
    r"""Change by one more spike, per unit: the measure-valued derivative of the Poisson distribution.

    .. math:: \frac{\partial}{\partial \log\lambda_k} \mathbb E f(z) = \lambda_k\, \mathbb E\,[f(z + e_k) - f(z)]

    Examples
    --------
    >>> FiniteDifference().evaluations(n_latents=10)
    11
    """

    name: ClassVar[str] = "finite_difference"
    label: ClassVar[str] = "finite difference"
    citation: ClassVar[str] = "Mohamed, Rosca, Figurnov and Mnih (2020), JMLR 21, section 6"
    unbiased: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def evaluations(self, n_latents: int) -> int:
        """One, and one per unit."""
        return n_latents + 1

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values at the counts."""
        z = poisson_counts(log_rate, generator)
        values = f(z)
        with torch.no_grad():
            one_more = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
            change = f(z + one_more.reshape(-1, *[1] * (z.ndim - 1), z.shape[-1])) - values
        return values + with_score(log_rate, change.movedim(0, -1) * log_rate.detach().exp())
