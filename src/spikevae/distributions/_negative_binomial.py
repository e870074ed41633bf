"""Base class of the two negative binomial distributions, which differ in the posterior's dispersion."""

import math
from typing import Any, ClassVar, Self, TypeVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from .._batching import batched_like
from ._elementwise import elementwise
from ._entropy import negative_binomial_entropy
from ._fini import attached, check_degree, negative_binomial_weights
from ._log_rate import LogRateLaw
from ._random import Generator, log_standard_gamma, poisson
from ._relaxation import Relaxation
from .arrivals import Pathwise
from .poisson import _Deviance, _Excess, _stirling_residual
from .relaxations import soft_counts

LawT = TypeVar("LawT")

NODES = 36
"""Nodes of the trapezoidal rule for the part of the KL divergence that is due to unequal dispersions."""

RANGE_BELOW, RANGE_ABOVE = 8.5, 3.0
"""The rule's range in log t, below the shortest and above the longest time scale. The integrand falls like t^2 below
and like exp(-t) above; less than 1e-7 of its integral is outside."""


def log_ratio_of_sums(
    delta: Float[Tensor, "*#shape"], log_m0: Float[Tensor, "*#shape"], log_r: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """log((m + r) / (m0 + r)) for log m = log_m0 + delta, accurate near delta = 0."""
    near = torch.log1p(torch.sigmoid(log_m0 - log_r) * torch.expm1(delta.clamp(-1, 1)))
    far = torch.logaddexp(log_m0 + delta, log_r) - torch.logaddexp(log_m0, log_r)
    return torch.where(delta.abs() < 1, near, far)


def shared_dispersion_kl(
    log_m: Float[Tensor, "*#shape"], log_m0: Float[Tensor, "*#shape"], log_r: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """KL divergence of negative binomials with means m and m0 and the same dispersion r, nats.

    m log(m / m0) - (m + r) log((m + r) / (m0 + r)), written as m0 g(delta) - (m0 + r) g(l) with g(x) = 1 + e^x (x - 1),
    delta = log(m / m0) and l = log((m + r) / (m0 + r)): the first term is the Poisson divergence, and the second,
    which is due to the variability of the rate, vanishes as r grows.
    """
    delta = log_m - log_m0
    inner = log_ratio_of_sums(delta, log_m0, log_r)
    poisson_part = log_m0.exp() * _Deviance.apply(delta)[0]
    return poisson_part - torch.logaddexp(log_m0, log_r).exp() * _Deviance.apply(inner)[0]


def unequal_dispersion_kl(
    log_m: Float[Tensor, "*#shape"], log_r: Float[Tensor, "*#shape"], log_r0: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    r"""KL divergence of negative binomials of the same mean m with dispersions r and r0, nats, by quadrature.

    .. math:: \int_0^\infty \frac{e^{-r_0 t} - e^{-r t}}{t}
        \Big[\frac{1 - G(e^{-t})}{1 - e^{-t}} - \frac{1 - e^{-m t}}{t}\Big] dt, \qquad
        G(e^{-t}) = \big(1 + \tfrac{m}{r} (1 - e^{-t})\big)^{-r}

    G is the generating function of the counts. The integral follows from that of log Gamma (Malmsten) and from
    log x = int (e^-t - e^-xt) / t dt. In log t the integrand is analytic in a strip of half-width pi / 2, so the
    trapezoidal rule of step h has an error of exp(-pi^2 / h): below 1e-6 of the integral for dispersions within a
    factor of 1e4 of each other, of 1 and of the mean, and 2e-3 at 1e-3 against 1e8.
    """
    return elementwise(_unequal, NODES, log_m, log_r, log_r0, derivatives=_unequal_derivatives)[0]


@torch.no_grad()  # the nodes depend on the parameters, the integral does not depend on the nodes
def _nodes(log_m: Tensor, log_r: Tensor, log_r0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step in log t, nodes t (..., NODES) and 1 - exp(-t)."""
    low = -torch.maximum(torch.maximum(log_r, log_r0), log_m).clamp_min(0) - RANGE_BELOW
    high = RANGE_ABOVE - torch.minimum(log_r, log_r0)
    step = (high - low) / (NODES - 1)
    place = torch.arange(NODES, dtype=step.dtype, device=step.device)
    t = torch.exp(low[..., None] + step[..., None] * place)
    return step, t, -torch.expm1(-t)


def _unequal_derivatives(
    log_m: Tensor, log_r: Tensor, log_r0: Tensor
) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]:
    """The integral and its derivatives by log m, log r and log r0, in one pass over the nodes."""
    step, t, moved = _nodes(log_m, log_r, log_r0)
    m, r, r0 = (x.exp()[..., None] for x in (log_m, log_r, log_r0))
    rt, r0t = r * t, r0 * t
    left, left0, left_m = torch.expm1(-rt), torch.expm1(-r0t), torch.expm1(-m * t)
    share = moved * (log_m - log_r).exp()[..., None]
    power = r * torch.log1p(share)
    left_power = torch.expm1(-power)
    fewer = left0 - left
    gap = torch.addcdiv(left_m / t, left_power, moved, value=-1)  # gamma_rate - fixed_rate in `_unequal`
    q = share.div_(1 + share).mul_(r)  # r d log1p(share) / d log m
    steep = left_power.add_(1).div_(moved)  # exp(-power) / (1 - exp(-t))
    by_m = torch.addcmul(steep * q, m, left_m.add_(1), value=-1)
    by_r = steep.mul_(power.sub_(q))
    value = (fewer * gap).sum(-1)
    along_m = torch.linalg.vecdot(fewer, by_m)
    along_r = torch.linalg.vecdot(fewer, by_r) + torch.linalg.vecdot(gap, rt.mul_(left.add_(1)))
    along_r0 = -torch.linalg.vecdot(gap, r0t.mul_(left0.add_(1)))
    return (step * value,), ((step * along_m, step * along_r, step * along_r0),)


def _unequal(log_m: Tensor, log_r: Tensor, log_r0: Tensor) -> tuple[Tensor, ...]:
    step, t, moved = _nodes(log_m, log_r, log_r0)
    m, r, r0 = (x.exp()[..., None] for x in (log_m, log_r, log_r0))
    fewer = torch.expm1(-r0 * t) - torch.expm1(-r * t)
    gamma_rate = -torch.expm1(-r * torch.log1p((log_m - log_r).exp()[..., None] * moved)) / moved
    fixed_rate = -torch.expm1(-m * t) / t
    return (step * (fewer * (gamma_rate - fixed_rate)).sum(-1),)


def given_prior(prior: LawT | None, label: str) -> LawT:
    """The prior, which must be given; `ValueError` where it is None."""
    if prior is None:
        raise ValueError(f"{label}: the posterior's dispersion is relative to the prior's, but no prior is given")
    return prior


class NegativeBinomialBase(LogRateLaw):
    """A negative binomial distribution, parametrised by log mean and log dispersion; abstract."""

    closed_form_prior: ClassVar[bool] = False
    fini_degree: ClassVar[int] = 4
    prior_params: ClassVar[tuple[str, ...]] = ("log_rate", "log_dispersion")
    formula: ClassVar[str] = "P(z) = Gamma(z + r) / (Gamma(r) z!) (r / (r + m))^r (m / (r + m))^z, m = exp(log_rate)"
    mean_formula: ClassVar[str] = "m = exp(log_rate)"
    variance_formula: ClassVar[str] = "m + m^2 / r, r = exp(log_dispersion)"
    fano_formula: ClassVar[str] = "1 + m / r, above 1"
    citation: ClassVar[str] = "Zhang et al. (2025), arXiv 2508.05423"
    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real, "log_dispersion": constraints.real}

    log_dispersion: Tensor

    def __init__(self, log_rate: Tensor, log_dispersion: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(log_rate, log_dispersion, validate_args=validate_args)

    @classmethod
    def from_r_p(cls, r: Float[Tensor, "..."], p: Float[Tensor, "..."], validate_args: bool | None = None) -> Self:
        """Distribution of the number of failures before the r-th success of probability p: mean r (1 - p) / p."""
        return cls(r.log() + torch.log1p(-p) - p.log(), r.log(), validate_args=validate_args)

    @property
    def r(self) -> Float[Tensor, "*shape"]:
        """Dispersion: the variance is mean + mean^2 / r."""
        return self.log_dispersion.exp()

    @property
    def p(self) -> Float[Tensor, "*shape"]:
        """Success probability r / (r + mean), one over the Fano factor."""
        return torch.sigmoid(self.log_dispersion - self.log_rate)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean count: the firing rate m."""
        return self.rate

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the count, m + m^2 / r."""
        return self.rate + torch.exp(2 * self.log_rate - self.log_dispersion)

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, (1 + m / r)^-r."""
        return torch.exp(-self._minus_log_zero)

    @property
    def _minus_log_zero(self) -> Tensor:
        return self.log_dispersion.exp() * F.softplus(self.log_rate - self.log_dispersion)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log probability of counts in nats, to 1e-5 in float32 for dispersions from 1e-3 to 1e8.

        In the saddle-point form: with u = log((n + r) / (m + r)), h(x) = e^x - 1 - x and the residuals d of Stirling's
        formula it is -r h(u) - n h(u + log(m / n)) + d(n + r) - d(r) - d(n) + log(r / (2 pi n (n + r))) / 2 for
        n > 0. No two large terms are subtracted, so that it tends to the Poisson law as r grows.

        References
        ----------
        Loader (2000), Fast and accurate computation of binomial probabilities.
        """
        value = self._checked(value)
        n = value.clamp_min(1)
        log_n, r = n.log(), self.r
        u = log_ratio_of_sums(log_n - self.log_rate, self.log_rate, self.log_dispersion)
        saddle = r * _Excess.apply(u) + n * _Excess.apply(u + (self.log_rate - log_n))
        stirling = _stirling_residual(n + r) - _stirling_residual(r) - _stirling_residual(n)
        some = stirling - saddle + 0.5 * (F.logsigmoid(self.log_dispersion - log_n) - log_n - math.log(2 * math.pi))
        return torch.where(value > 0, some, -self._minus_log_zero)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, by quadrature (1e-7)."""
        return negative_binomial_entropy(self.log_rate, self.log_dispersion)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Integer counts as floats: Poisson counts of a Gamma-distributed firing rate, without gradient."""
        with torch.no_grad():
            log_dispersion = batched_like(self.log_dispersion, self.log_rate).expand(self._extended_shape(sample_shape))
            log_gamma, _ = log_standard_gamma(log_dispersion, generator)
            return poisson(torch.exp(self.log_rate - log_dispersion + log_gamma), generator)

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Counts with a gradient that is exact for polynomials up to `degree`, see :meth:`Law.fini`."""
        check_degree(degree, self.fini_degree, self.label)
        log_rate, log_dispersion = self.log_rate.expand_as(counts), self.log_dispersion.expand_as(counts)
        by_mean, by_dispersion = negative_binomial_weights(counts, log_rate.detach(), log_dispersion.detach(), degree)
        return attached(counts, (log_rate, by_mean), (log_dispersion, by_dispersion))

    def relaxed(self, *, temperature: float, indicator: str) -> "RelaxedNegativeBinomial":
        """Relaxed Poisson counts of a Gamma-distributed firing rate."""
        return RelaxedNegativeBinomial(self.log_rate, self.log_dispersion, temperature, indicator)


@final
class RelaxedNegativeBinomial(Relaxation):
    r"""Relaxed Poisson count of the rate :math:`\lambda = m\,g/r`, g of Gamma(r, 1), with pathwise gradients of both.

    Parameters
    ----------
    log_rate, log_dispersion
        Log mean m and log dispersion r of the counts, any shape.
    temperature, indicator
        As for relaxed Poisson counts; the indicator "gumbel" draws the count by a relaxed choice among its values.

    References
    ----------
    Zhang et al. (2025), arXiv 2508.05423, whose two reparametrisations these are.

    Examples
    --------
    >>> z = RelaxedNegativeBinomial(torch.zeros(2), torch.zeros(2), temperature=0.5, indicator="cubic")
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real, "log_dispersion": constraints.real}
    support: ClassVar[Any] = constraints.nonnegative

    def __init__(self, log_rate: Tensor, log_dispersion: Tensor, temperature: float, indicator: str = "cubic") -> None:
        self.log_rate, self.log_dispersion = torch.broadcast_tensors(log_rate, log_dispersion)
        self.temperature, self.indicator = temperature, indicator
        soft_counts(log_rate, temperature, indicator)  # raises an error for invalid settings
        super().__init__(self.log_rate.shape, validate_args=False)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in both parameters."""
        log_dispersion = batched_like(self.log_dispersion, self.log_rate).expand(self._extended_shape(sample_shape))
        value, slope = log_standard_gamma(log_dispersion, generator)
        log_gamma: Tensor = Pathwise.apply(log_dispersion, value, slope)
        log_rate = self.log_rate - log_dispersion + log_gamma
        return soft_counts(log_rate, self.temperature, self.indicator).rsample(generator=generator)
