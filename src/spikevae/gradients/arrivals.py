"""Gradients through relaxed counts of arrivals."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ..distributions.arrivals import check_temperature, counts_at, get_indicator, relaxed_counts, window
from ._estimator import Codes, Function, GradientEstimator, Values
from ._truncation import quantile


@final
@dataclass(frozen=True)
class Arrivals(GradientEstimator):
    """Pathwise, through relaxed counts of arrivals.

    The bias is due to the difference between relaxed counts and counts. Their means are equal (temperature up to 1, all
    indicators except the sigmoid), their variances differ (see :class:`spikevae.distributions.RelaxedPoisson`).

    Examples
    --------
    >>> Arrivals(temperature=0.1).gradient(lambda z: z.sum(-1), torch.zeros(2), 5,
    ...     generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    temperature: float
    indicator: str = "cubic"
    name: ClassVar[str] = "arrivals"
    label: ClassVar[str] = "arrivals"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2024), arXiv 2405.14473; indicators: arXiv 2602.03896"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        get_indicator(self.indicator)

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values at relaxed counts."""
        z = relaxed_counts(log_rate, temperature=self.temperature, indicator=self.indicator, generator=generator)
        return f(z)


@final
@dataclass(frozen=True)
class StraightThrough(GradientEstimator):
    """Values at integer counts, gradients through relaxed counts of the same arrivals.

    Draws as many arrivals for each element as the largest rate may need.

    Examples
    --------
    >>> StraightThrough(temperature=0.1).gradient(lambda z: z.sum(-1), torch.zeros(2), 5,
    ...     generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    temperature: float
    indicator: str = "cubic"
    name: ClassVar[str] = "straight_through"
    label: ClassVar[str] = "straight-through"
    citation: ClassVar[str] = "Bengio, Leonard and Courville (2013), arXiv 1308.3432"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        get_indicator(self.indicator)

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Values at integer counts."""
        _, stop = window(self.temperature, get_indicator(self.indicator))
        n_arrivals = quantile(float(log_rate.detach().max().exp()) * stop, 1e-7)
        gaps = torch.empty(n_arrivals, *log_rate.shape, dtype=log_rate.dtype, device=log_rate.device)
        arrivals = gaps.exponential_(generator=generator).cumsum(0)
        soft = counts_at(log_rate, arrivals, temperature=self.temperature, indicator=self.indicator)
        hard = (arrivals < log_rate.detach().exp()).sum(0).to(soft.dtype)
        return f(soft + (hard - soft.detach()))
