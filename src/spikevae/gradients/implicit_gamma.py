"""Gradients through Gamma numbers in place of counts."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ._estimator import Codes, Function, GradientEstimator, Values


@final
@dataclass(frozen=True)
class ImplicitGamma(GradientEstimator):
    """Pathwise, through Gamma numbers of the count's mean and variance, by implicit differentiation.

    Exact for f of degree two, as with linear decoders; else biased by skewness and by the values of f between integers.

    Examples
    --------
    >>> ImplicitGamma().gradient(lambda z: z.sum(-1), torch.zeros(2), 5,
    ...     generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    name: ClassVar[str] = "implicit_gamma"
    label: ClassVar[str] = "implicit Gamma"
    citation: ClassVar[str] = "Figurnov, Mohamed and Mnih (2018), arXiv 1805.08498"
    unbiased: ClassVar[bool] = False

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values at Gamma numbers."""
        return f(torch._standard_gamma(log_rate.exp(), generator=generator))
