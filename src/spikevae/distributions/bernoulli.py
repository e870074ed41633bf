"""Bernoulli code: each unit fires at most once per stimulus."""

from functools import partial
from typing import Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.nn import functional as F

from ._law import softclamp_above
from ._logit import LogitLaw
from ._random import Generator, draw
from ._relaxation import Relaxation
from .arrivals import Pathwise, check_temperature


def _uniform(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device),)


def _soft_spike(logit: Tensor, generator: torch.Generator, *, temperature: float) -> tuple[Tensor, ...]:
    """z and dz/dlogit."""
    uniform = _uniform(logit, generator)[0].clamp_(min=torch.finfo(logit.dtype).tiny)
    z = torch.sigmoid((logit + uniform.log() - torch.log1p(-uniform)) / temperature)
    return z, z * (1 - z) / temperature


@final
class RelaxedBernoulli(Relaxation):
    r"""Relaxed spike, sigmoid((logit + logistic noise) / temperature).

    As the temperature goes to 0 it becomes the Bernoulli variable; only then do the means agree.

    Parameters
    ----------
    logit
        Log odds of a spike, any shape.
    temperature
        Width of the sigmoid, > 0.

    Raises
    ------
    ValueError
        If the temperature is not positive.

    References
    ----------
    Maddison, Mnih and Teh (2017), arXiv 1611.00712; Jang, Gu and Poole (2017), arXiv 1611.01144.

    Examples
    --------
    >>> z = RelaxedBernoulli(torch.zeros(3), temperature=0.1).rsample(generator=torch.Generator().manual_seed(0))
    >>> bool(((z >= 0) & (z <= 1)).all())
    True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logit": constraints.real}
    support: ClassVar[Any] = constraints.unit_interval

    def __init__(self, logit: Tensor, temperature: float) -> None:
        self.logit = logit
        self.temperature = check_temperature(temperature)
        super().__init__(logit.shape, validate_args=False)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Values in [0, 1] of shape `sample_shape + batch_shape`, differentiable in `logit`."""
        logit = self.logit.expand(self._extended_shape(sample_shape))
        z, slope = draw(partial(_soft_spike, temperature=self.temperature), logit, generator)
        spikes: Tensor = Pathwise.apply(logit, z, slope)
        return spikes


@final
class Bernoulli(LogitLaw):
    r"""At most one spike, parametrised by the log odds of a spike.

    .. math:: P(z = 1) = r = \frac{1}{1 + e^{-\text{logit}}}

    :math:`r` is the firing rate in spikes per unit per stimulus, 1 at most. The KL divergence from a prior is
    :math:`r\,\delta + \log(1-r) - \log(1-r_0)` nats, :math:`\delta` the difference of the logits; for small
    firing rates it is that of Poisson counts.

    Parameters
    ----------
    logit
        Log odds of a spike, any shape.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    The factorial Bernoulli posterior of Vafaii, Galor and Yates (2025), arXiv 2410.19315, and its successors.

    Examples
    --------
    >>> prior = Bernoulli(torch.tensor([0.0]))
    >>> torch.distributions.kl_divergence(Bernoulli(torch.tensor([2.0])), prior)
    tensor([0.3278])
    >>> prior.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1])
    """

    name: ClassVar[str] = "bernoulli"
    label: ClassVar[str] = "Bernoulli"
    formula: ClassVar[str] = "P(z = 1) = p = 1 / (1 + exp(-logit)), P(z = 0) = 1 - p"
    mean_formula: ClassVar[str] = "p"
    variance_formula: ClassVar[str] = "p (1 - p)"
    fano_formula: ClassVar[str] = "1 - p, below 1"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2025), arXiv 2410.19315"
    n_slots: ClassVar[int] = 1
    fini_degree: ClassVar[int] = 2
    support: ClassVar[Any] = constraints.boolean

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., K): residuals on the prior's logit, or logits without a prior.

        With `clamp` the logit is softly bounded above by it.
        """
        logit = raw if prior is None else prior.logit + raw
        return cls(logit if clamp is None else softclamp_above(logit, clamp), validate_args=False)

    @property
    def rate(self) -> Float[Tensor, "*shape"]:
        """Probability of a spike: the firing rate, spikes per unit per stimulus."""
        return self.p

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code: the firing rate."""
        return self.rate

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code, r (1 - r)."""
        return self.rate * torch.sigmoid(-self.logit)

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, 1 - r."""
        return torch.sigmoid(-self.logit)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log probability of 0 or 1 in nats."""
        value = self._checked(value)
        return -F.softplus(torch.where(value > 0, -self.logit, self.logit))

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, -r log r - (1 - r) log(1 - r)."""
        return self.rate * F.softplus(-self.logit) + torch.sigmoid(-self.logit) * F.softplus(self.logit)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Zeros and ones as floats, shape `sample_shape + batch_shape`, without gradient."""
        rate = self.rate.detach().expand(self._extended_shape(sample_shape))
        return (draw(_uniform, rate, generator)[0] < rate).to(rate.dtype)

    def relaxed(self, *, temperature: float, indicator: str) -> RelaxedBernoulli:
        """Relaxed spikes; the indicator is for counts of arrivals and not used."""
        return RelaxedBernoulli(self.logit, temperature)


@register_kl(Bernoulli, Bernoulli)
def _kl_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    """r delta - [softplus(logit) - softplus(prior logit)], the bracket as log1p(r_0 (e^delta - 1)) near delta = 0."""
    delta = q.logit - p.logit
    near = delta.clamp(-1, 1)
    close = torch.log1p(p.rate * torch.expm1(near))
    far = F.softplus(q.logit) - F.softplus(p.logit)
    return q.rate * delta - torch.where(delta.abs() < 1, close, far)
