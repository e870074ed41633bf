"""Categorical code: in each group of units exactly one unit spikes."""

from functools import cached_property
from typing import Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.nn import functional as F

from ._fini import check_degree
from ._law import Law, softclamp_symmetric
from ._random import Generator
from ._relaxation import Relaxation
from .arrivals import check_temperature
from .poisson import _Deviance
from .relaxations import gumbel

GROUP = 16
"""Units per group: consecutive along the last dimension; the last group has fewer if K is not a multiple."""


def in_groups(x: Float[Tensor, "..."], fill: float) -> Float[Tensor, "*batch groups units"]:
    """Units (..., K) as groups (..., ceil(K / 16), min(K, 16)), with `fill` for missing units."""
    x = x if x.dim() else x.unsqueeze(0)
    size = min(GROUP, x.shape[-1])
    return F.pad(x, (0, -x.shape[-1] % size), value=fill).unflatten(-1, (-1, size))


def ungrouped(x: Float[Tensor, "*batch groups units"], shape: torch.Size) -> Float[Tensor, "..."]:
    """Units, of the given shape, from groups: the inverse of :func:`in_groups`."""
    return x.flatten(-2)[..., : shape[-1] if shape else 1].reshape(shape)


@final
class Categorical(Law):
    r"""One-hot groups of 16 units, parametrised by logits: in each group one unit spikes once, the others are silent.

    .. math:: P(z_k = 1) = p_k = \frac{e^{\text{logit}_k}}{\sum_{j \in \text{group}} e^{\text{logit}_j}}

    The number of spikes per stimulus is the number of groups, so the firing rate is fixed. Units of a group are not
    independent: the expected distortion is estimated from samples. The KL divergence of a group,
    :math:`\sum_k p_k \log\frac{p_k}{p^0_k}`, is divided among its units as
    :math:`p_k \log\frac{p_k}{p^0_k} - p_k + p^0_k \ge 0` nats, which has the same sum.

    Parameters
    ----------
    logit
        Log odds within the group, up to a constant; units along the last dimension.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Jang, Gu and Poole (2017), arXiv 1611.01144; the categorical baseline of Vafaii, Galor and Yates (2024), arXiv
    2405.14473, which is one group of all units.

    Examples
    --------
    >>> q = Categorical(torch.zeros(4))
    >>> q.mean
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    >>> q.sample((3,), generator=torch.Generator().manual_seed(0)).sum(-1)
    tensor([1., 1., 1.])
    """

    name: ClassVar[str] = "categorical"
    label: ClassVar[str] = "Categorical"
    n_params: ClassVar[int] = 1
    is_count: ClassVar[bool] = True
    has_rate: ClassVar[bool] = True
    independent: ClassVar[bool] = False
    fini_degree: ClassVar[int] = 2
    has_linear_ratio: ClassVar[bool] = True
    prior_params: ClassVar[tuple[str, ...]] = ("logit",)
    formula: ClassVar[str] = f"P(z_k = 1) = p_k = exp(logit_k) / (sum of exp(logit) over the group of {GROUP} units)"
    mean_formula: ClassVar[str] = "p_k"
    variance_formula: ClassVar[str] = "p_k (1 - p_k); covariance in the group -p_j p_k"
    fano_formula: ClassVar[str] = "1 - p_k, below 1"
    divergence: ClassVar[str] = "closed form, per group"
    citation: ClassVar[str] = "Jang, Gu and Poole (2017), arXiv 1611.01144"
    arg_constraints: ClassVar[dict[str, Any]] = {"logit": constraints.real}
    support: ClassVar[Any] = constraints.boolean

    logit: Tensor

    def __init__(self, logit: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(logit, validate_args=validate_args)

    @classmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " {n_units}"]]:
        """Logits uniform in (-spread, spread): every group spikes once, for any requested firing rate."""
        uniform = torch.rand(n_units, generator=generator, device=generator.device)
        return {"logit": spread * (2 * uniform - 1)}

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., K): residuals on the prior's logits, or logits, bounded to +-clamp if given."""
        raw = raw if clamp is None else softclamp_symmetric(raw, clamp)
        return cls(raw if prior is None else prior.logit + raw, validate_args=False)

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Zeros: the probabilities of the prior for residuals, else equal ones."""
        return torch.zeros(n_units)

    def moments(self) -> Float[Tensor, " n_moments *shape"]:
        """Firing rate, shape (1, *batch_shape)."""
        return self.mean.unsqueeze(0)

    @classmethod
    def prior_from_moments(cls, moments: Float[Tensor, " n_moments *shape"]) -> dict[str, Float[Tensor, "*shape"]]:
        """The optimal prior firing rate is the mean posterior firing rate; moments (1, K)."""
        return {"logit": moments[0].clamp_min(torch.finfo(moments.dtype).tiny).log()}

    @cached_property
    def log_probability(self) -> Float[Tensor, "*shape"]:
        """Log probability of a spike of each unit."""
        return ungrouped(torch.log_softmax(in_groups(self.logit, -torch.inf), -1), self.batch_shape)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Probability of a spike: the firing rate, spikes per unit per stimulus."""
        return self.log_probability.exp()

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of one unit's code, p (1 - p)."""
        return self.mean * self.zero_probability

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, 1 - p."""
        return -torch.expm1(self.log_probability)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Contribution of each unit to the log probability in nats: log p of the unit that spikes, else zero."""
        value = self._checked(value)
        return torch.where(value > 0, value * self.log_probability, 0.0)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Contribution of each unit to the entropy of its group, -p log p nats, whose sum it is."""
        return -self.mean * self.log_probability.clamp_min(torch.finfo(self.logit.dtype).min)

    def statistics(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, " n_moments *shape"]:
        """Codes, shape (1, *shape)."""
        return value.unsqueeze(0)

    def log_ratio(self, prior: Self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Contribution of each unit to the log of the probability of codes over that under `prior`, in nats."""
        return value * (self.log_probability - prior.log_probability)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Zeros and ones as floats, one 1 per group, shape `sample_shape + batch_shape`, without gradient."""
        log_probability = self.log_probability  # kept by the distribution, so computed with its gradient
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            logits = log_probability.expand(shape)
            score = in_groups(logits + gumbel(logits, generator), -torch.inf)
            winner = torch.zeros_like(score).scatter(-1, score.argmax(-1, keepdim=True), 1.0)
            return ungrouped(winner, shape)

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Codes with a gradient that is exact for quadratic functions of the units of a group, see :meth:`Law.fini`.

        As half the gradient through the probabilities, plus half of (z - p) f'(z) times that of log p(z).

        References
        ----------
        Liu et al. (2023), arXiv 2304.08612 (ReinMax, here at temperature 1).
        """
        check_degree(degree, self.fini_degree, self.label)
        z, p = counts.detach(), self.mean
        groups = in_groups(z * self.log_probability, 0.0)
        log_p = ungrouped(groups.sum(-1, keepdim=True).expand_as(groups), z.shape)
        return z + 0.5 * ((p - p.detach()) + (z - p.detach()) * (log_p - log_p.detach()))

    def relaxed(self, *, temperature: float, indicator: str) -> "RelaxedCategorical":
        """A relaxed choice in each group; the indicator is for counts of arrivals and not used."""
        return RelaxedCategorical(self.logit, temperature)


@final
class RelaxedCategorical(Relaxation):
    """Relaxed choices, softmax((logit + Gumbel noise) / temperature) over each group; they sum to 1 per group.

    Parameters
    ----------
    logit
        Log odds within the group, units along the last dimension.
    temperature
        Temperature of the softmax, > 0.

    References
    ----------
    Jang, Gu and Poole (2017), arXiv 1611.01144; Maddison, Mnih and Teh (2017), arXiv 1611.00712.

    Examples
    --------
    >>> z = RelaxedCategorical(torch.zeros(4), temperature=0.5)
    >>> z.rsample((2,), generator=torch.Generator().manual_seed(0)).sum(-1)
    tensor([1., 1.])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logit": constraints.real}
    support: ClassVar[Any] = constraints.unit_interval

    def __init__(self, logit: Tensor, temperature: float) -> None:
        self.logit = logit
        self.temperature = check_temperature(temperature)
        super().__init__(logit.shape, validate_args=False)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Values in [0, 1] of shape `sample_shape + batch_shape`, differentiable in `logit`."""
        shape = self._extended_shape(sample_shape)
        logit = self.logit.expand(shape)
        score = in_groups((logit + gumbel(logit, generator)) / self.temperature, -torch.inf)
        return ungrouped(torch.softmax(score, -1), shape)


@register_kl(Categorical, Categorical)
def _kl_categorical(q: Categorical, p: Categorical) -> Tensor:
    return p.mean * _Deviance.apply(q.log_probability - p.log_probability)[0]
