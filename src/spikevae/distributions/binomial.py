"""Binomial code: spike counts bounded by a refractory period, less variable than Poisson counts."""

import math
from functools import partial
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.nn import functional as F

from ._logit import LogitLaw
from ._random import Generator, draw
from ._relaxation import Relaxation
from .arrivals import Pathwise, check_temperature, contributions, get_indicator
from .poisson import _Deviance
from .relaxations import GUMBEL

SLOTS = 8
"""Largest count. The time of one stimulus has so many slots with at most one spike each, all equally likely."""


def _counts(logit: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    uniform = torch.rand(SLOTS, *logit.shape, generator=generator, dtype=logit.dtype, device=logit.device)
    counts = (uniform < torch.sigmoid(logit)).sum(0, dtype=logit.dtype)
    return (torch.where(logit.isnan(), logit, counts),)


def _soft_counts(
    logit: Tensor, generator: torch.Generator, *, temperature: float, indicator: str
) -> tuple[Tensor, ...]:
    """z and dz/dlogit, by relaxed counts of spikes where p <= 1/2, and of slots without a spike where p > 1/2.

    A slot fires at time u / p, u uniform, hence before time 1 with probability p. An indicator in place of the step at
    time 1, as for Poisson arrivals, does not change the mean as long as its end, up to 1 + temperature, lies before the
    last possible time 1 / p >= 2.
    """
    chosen = get_indicator(indicator)
    uniform = torch.rand(SLOTS, *logit.shape, generator=generator, dtype=logit.dtype, device=logit.device)
    likely = logit > 0
    rare = torch.sigmoid(-logit.abs())  # min(p, 1 - p)
    value, slope = contributions(uniform / rare, temperature, chosen)
    z, along = value.sum(0), slope.sum(0) * torch.sigmoid(logit.abs())
    return torch.where(likely, SLOTS - z, z), along


@final
class Binomial(LogitLaw):
    r"""Number of spikes in 8 slots with at most one spike each, parametrised by the log odds of a spike in a slot.

    .. math:: P(z) = \binom{n}{z} p^z (1-p)^{n-z}, \qquad p = \frac{1}{1 + e^{-\text{logit}}},\ n = 8

    It models a refractory period of an eighth of the stimulus: mean np, Fano factor :math:`1 - p < 1`. The KL
    divergence is :math:`n\,[p\log\frac{p}{p_0} + (1-p)\log\frac{1-p}{1-p_0}]` nats; for small p it is that of
    Poisson counts.

    Parameters
    ----------
    logit
        Log odds of a spike in a slot, any shape.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Berry and Meister (1998), Refractoriness and neural precision, doi 10.1523/JNEUROSCI.18-06-02200.1998.

    Examples
    --------
    >>> q = Binomial(torch.zeros(1))
    >>> q.mean, q.variance
    (tensor([4.]), tensor([2.]))
    >>> q.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1])
    """

    name: ClassVar[str] = "binomial"
    label: ClassVar[str] = "Binomial"
    formula: ClassVar[str] = f"P(z) = C(n, z) p^z (1 - p)^(n - z), p = 1 / (1 + exp(-logit)), n = {SLOTS}"
    mean_formula: ClassVar[str] = "n p"
    variance_formula: ClassVar[str] = "n p (1 - p)"
    fano_formula: ClassVar[str] = "1 - p, below 1"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Berry and Meister (1998), doi 10.1523/JNEUROSCI.18-06-02200.1998"
    n_slots: ClassVar[int] = SLOTS
    fini_degree: ClassVar[int] = 4
    support: ClassVar[Any] = constraints.integer_interval(0, SLOTS)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean count n p: the firing rate, spikes per unit per stimulus."""
        return SLOTS * self.p

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the count, n p (1 - p)."""
        return self.mean * torch.sigmoid(-self.logit)

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, (1 - p)^n."""
        return torch.exp(SLOTS * F.logsigmoid(-self.logit))

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log probability of counts in nats."""
        value = self._checked(value)
        ways = math.lgamma(SLOTS + 1) - torch.lgamma(value + 1) - torch.lgamma(SLOTS - value + 1)
        return ways + value * F.logsigmoid(self.logit) + (SLOTS - value) * F.logsigmoid(-self.logit)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, the sum over all counts."""
        counts = torch.arange(SLOTS + 1, dtype=self.logit.dtype, device=self.logit.device)
        log_p = Binomial(self.logit.unsqueeze(-1), validate_args=False).log_prob(counts)
        return -(log_p.exp() * log_p).sum(-1)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Integer counts as floats, shape `sample_shape + batch_shape`, without gradient."""
        return draw(_counts, self.logit.expand(self._extended_shape(sample_shape)), generator)[0]

    def relaxed(self, *, temperature: float, indicator: str) -> "RelaxedBinomial":
        """Relaxed counts of spikes, one per slot."""
        return RelaxedBinomial(self.logit, temperature, indicator)


@final
class RelaxedBinomial(Relaxation):
    """Relaxed binomial count; its mean is that of the count for temperatures up to 1.

    The sigmoid indicator is an exception: at temperature 1 the mean is a third too large for rare spikes, and the
    gradient at p = 1/2 is half of the right value.

    Parameters
    ----------
    logit
        Log odds of a spike in a slot, any shape.
    temperature
        Width of the indicator, > 0.
    indicator
        A key of `INDICATORS`; "gumbel" is replaced by "cubic".

    Raises
    ------
    ValueError
        If the temperature is not positive or the indicator unknown.

    Examples
    --------
    >>> z = RelaxedBinomial(torch.zeros(2), temperature=0.5, indicator="cubic")
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logit": constraints.real}
    support: ClassVar[Any] = constraints.interval(0, SLOTS)

    def __init__(self, logit: Tensor, temperature: float, indicator: str = "cubic") -> None:
        self.logit = logit
        self.temperature = check_temperature(temperature)
        self.indicator = get_indicator("cubic" if indicator == GUMBEL else indicator)
        super().__init__(logit.shape, validate_args=False)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in `logit`."""
        logit = self.logit.expand(self._extended_shape(sample_shape))
        sampler = partial(_soft_counts, temperature=self.temperature, indicator=self.indicator.name)
        z, slope = draw(sampler, logit, generator)
        counts: Tensor = Pathwise.apply(logit, z, slope)
        return counts


@register_kl(Binomial, Binomial)
def _kl_binomial(q: Binomial, p: Binomial) -> Tensor:
    """n [p_0 g(log p / p_0) + (1 - p_0) g(log (1 - p) / (1 - p_0))], g(x) = 1 + e^x (x - 1): no term is negative."""
    of_spike = _Deviance.apply(F.logsigmoid(q.logit) - F.logsigmoid(p.logit))[0]
    of_none = _Deviance.apply(F.logsigmoid(-q.logit) - F.logsigmoid(-p.logit))[0]
    return SLOTS * (p.p * of_spike + torch.sigmoid(-p.logit) * of_none)
