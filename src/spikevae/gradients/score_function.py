"""Gradients from the score of samples."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from ._estimator import Codes, Function, GradientEstimator, Values
from ._score import poisson_counts, with_score


@final
@dataclass(frozen=True)
class ScoreFunction(GradientEstimator):
    r"""The likelihood-ratio estimator, each sample with the mean of the others as its baseline.

    .. math:: \frac{1}{m} \sum_i \Big(f(z_i) - \frac{1}{m - 1} \sum_{j \ne i} f(z_j)\Big) (z_i - \lambda)

    Examples
    --------
    >>> ScoreFunction(4).evaluations(n_latents=10)
    4
    """

    samples: int = 4
    name: ClassVar[str] = "score_function"
    label: ClassVar[str] = "score function"
    citation: ClassVar[str] = "Williams (1992); leave-one-out: Kool, van Hoof and Welling (2019)"
    unbiased: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(
                f"samples is {self.samples}: the baseline of each sample needs another one, give 2 or more"
            )

    def evaluations(self, n_latents: int) -> int:
        """One per sample."""
        return self.samples

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Mean values at the samples."""
        z = poisson_counts(log_rate.expand(self.samples, *log_rate.shape), generator)
        values = f(z)
        advantage = (values - values.mean(0)) * (self.samples / (self.samples - 1))
        weight = advantage.detach().unsqueeze(-1) * (z - log_rate.detach().exp())
        return values.mean(0) + with_score(log_rate, weight.mean(0))
