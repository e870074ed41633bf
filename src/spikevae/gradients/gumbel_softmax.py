"""Gradients through a relaxed choice among the values of a count."""

from dataclasses import dataclass
from typing import ClassVar, final

import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions.arrivals import check_temperature
from ._estimator import Codes, Function, GradientEstimator, Values
from ._truncation import quantile


@final
@dataclass(frozen=True)
class GumbelSoftmax(GradientEstimator):
    r"""Pathwise, through a relaxed choice among the counts up to a quantile.

    .. math:: z = \sum_k k\, w_k, \qquad w = \operatorname{softmax}\big((k \log\lambda - \log k! + g_k)/\tau\big)

    Counts are truncated where, at the largest rate, larger ones have a probability of at most `tail`. The distribution
    of the choice has at most that error in total variation, and its mean at most that of :meth:`truncation`.

    Examples
    --------
    >>> GumbelSoftmax(temperature=0.1).truncation(torch.zeros(1)) < 1e-4
    True
    """

    temperature: float
    tail: float = 1e-5
    name: ClassVar[str] = "gumbel_softmax"
    label: ClassVar[str] = "Gumbel-softmax"
    citation: ClassVar[str] = "Jang, Gu and Poole (2017), arXiv 1611.01144; over counts: arXiv 2602.03896"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if not 0 < self.tail < 1:
            raise ValueError(f"tail is {self.tail}: give a probability between 0 and 1")

    def bound(self, log_rate: Float[Tensor, "..."]) -> int:
        """The largest count that can be chosen."""
        return quantile(float(log_rate.detach().max().exp()), self.tail)

    def truncation(self, log_rate: Float[Tensor, "..."]) -> float:
        """Error of the mean count at the largest rate if counts above the bound are left out."""
        rate, bound = float(log_rate.detach().max().exp()), self.bound(log_rate)
        kept = scipy.stats.poisson(rate).cdf
        return float(rate - rate * kept(bound - 1) / kept(bound))

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values at relaxed choices."""
        k = torch.arange(self.bound(log_rate) + 1, dtype=log_rate.dtype, device=log_rate.device)
        logits = k * log_rate.unsqueeze(-1) - torch.lgamma(k + 1)
        noise = torch.empty_like(logits).exponential_(generator=generator).log_().neg_()
        weights = torch.softmax((logits + noise) / self.temperature, -1)
        return f((weights * k).sum(-1))
