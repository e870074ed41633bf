r"""Estimators of the gradient of an expectation over Poisson counts, with one interface.

An estimator is called with a function f of codes, and log firing rates. It draws codes and returns values whose mean is
(approximately) :math:`\mathbb E f(z)`. The backward pass gives an estimate of its gradient by the log-rates, which
depends on the estimator, and the gradient by parameters of f at these codes. Replacing an estimator takes one line:

>>> import torch
>>> weights = torch.ones(3)
>>> distortion = lambda z: (1 - z @ weights) ** 2
>>> log_rate = torch.zeros(500, 3, requires_grad=True)  # 500 estimates at once
>>> values = FiniteDifference()(distortion, log_rate, generator=torch.Generator().manual_seed(0))
>>> values.sum().backward()
>>> log_rate.grad.shape
torch.Size([500, 3])
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from .distributions import INDICATORS, relaxed_counts
from .distributions.arrivals import check_temperature, counts_at, get_indicator, window

Codes: TypeAlias = Float[Tensor, "*batch K"]
Values: TypeAlias = Float[Tensor, "*batch"]
Function = Callable[[Codes], Values]
"""A function of codes, shape (..., K), with a value for each, shape (...)."""

MAX_CODES = 4_000_000
"""Most codes in an enumeration."""


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
        >>> square = lambda z: (z**2).sum(-1)  # E z^2 = rate + rate^2, whose derivative is 3 at rate 1
        >>> generator = torch.Generator().manual_seed(0)
        >>> estimates = ScoreFunction(8).gradient(square, torch.zeros(1), 4000, generator=generator)
        >>> bool(abs(estimates.mean() - 3) < 0.3)
        True
        """
        rows = log_rate.detach().expand(n, -1).clone().requires_grad_()
        (found,) = torch.autograd.grad(self(f, rows, generator=generator).sum(), rows)
        return found


def _score(log_rate: Float[Tensor, "*batch K"], weight: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Zero, with gradient `weight` by the log-rates."""
    product = (weight.detach() * log_rate).sum(-1)
    return product - product.detach()


def _counts(log_rate: Tensor, generator: torch.Generator) -> Tensor:
    return torch.poisson(log_rate.detach().exp(), generator=generator)


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
        z = _counts(log_rate.expand(self.samples, *log_rate.shape), generator)
        values = f(z)
        advantage = (values - values.mean(0)) * (self.samples / (self.samples - 1))
        weight = advantage.detach().unsqueeze(-1) * (z - log_rate.detach().exp())
        return values.mean(0) + _score(log_rate, weight.mean(0))


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
        z = _counts(log_rate, generator)
        values = f(z)
        with torch.no_grad():
            one_more = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
            change = f(z + one_more.reshape(-1, *[1] * (z.ndim - 1), z.shape[-1])) - values
        return values + _score(log_rate, change.movedim(0, -1) * log_rate.detach().exp())


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


@final
@dataclass(frozen=True)
class Exact(GradientEstimator):
    """The exact expectation, from `f.expected(log_rate)` if f has that method, else by enumeration of few codes.

    Enumerates the counts of each unit between two quantiles of probability `tail`; needs log-rates of shape (K,) or
    equal rows.

    Examples
    --------
    >>> square = lambda z: (z**2).sum(-1)
    >>> Exact().gradient(square, torch.zeros(1, dtype=torch.float64), 1, generator=torch.Generator())
    tensor([[3.0000]], dtype=torch.float64)
    """

    tail: float = 1e-9
    name: ClassVar[str] = "exact"
    label: ClassVar[str] = "exact"
    citation: ClassVar[str] = "closed form, or enumeration"
    unbiased: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Expected values; nothing is drawn."""
        expected = getattr(f, "expected", None)
        if expected is not None:
            value: Tensor = expected(log_rate)
            return value
        first = log_rate.detach().reshape(-1, log_rate.shape[-1])[0]
        if not torch.equal(log_rate.detach(), first.expand_as(log_rate)):
            raise ValueError("f has no `expected`, and an enumeration needs equal log-rates in every row")
        rates = first.double().exp().numpy(force=True)
        low, high = (scipy.stats.poisson(rates).ppf(q) for q in (self.tail, 1 - self.tail))
        n_codes = float(np.prod(high - low + 1))
        if n_codes > MAX_CODES:
            raise ValueError(
                f"{n_codes:.0f} codes to enumerate for {len(rates)} units, the limit is {MAX_CODES}: use fewer units, "
                "or give f a method expected(log_rate)"
            )
        axes = [torch.arange(a, b + 1, dtype=first.dtype, device=first.device) for a, b in zip(low, high)]
        codes = torch.stack([axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")], -1)
        log_p = codes * log_rate.unsqueeze(-2) - log_rate.exp().unsqueeze(-2) - torch.lgamma(codes + 1)
        return log_p.sum(-1).exp() @ f(codes)


def quantile(rate: float, tail: float) -> int:
    """The smallest count, at least one, with a probability of at most `tail` above it.

    Examples
    --------
    >>> quantile(1.0, 1e-5)
    8
    """
    if not math.isfinite(rate):
        raise ValueError(f"the largest firing rate is {rate}, expected a finite one")
    return max(1, int(scipy.stats.poisson(rate).ppf(1 - tail)))


def estimators(temperature: float) -> dict[str, GradientEstimator]:
    """Every estimator, at this temperature where it has one, by a name for display.

    Examples
    --------
    >>> list(estimators(0.1))[-4:]
    ['straight-through', 'score function', 'finite difference', 'implicit Gamma']
    """
    return {
        **{f"arrivals, {name}": Arrivals(temperature, name) for name in INDICATORS},
        "Gumbel-softmax": GumbelSoftmax(temperature),
        "straight-through": StraightThrough(temperature),
        "score function": ScoreFunction(),
        "finite difference": FiniteDifference(),
        "implicit Gamma": ImplicitGamma(),
    }
