"""Poisson code: spike counts whose KL divergence is proportional to the prior firing rate."""

import math
from typing import Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl

from .._batching import BatchedFunction
from ._entropy import poisson_entropy
from ._fini import attached, check_degree, poisson_weight
from ._law import Coded
from ._log_rate import LogRateLaw
from ._poisson_units import Units
from ._random import Generator, poisson
from .relaxations import GumbelPoisson, RelaxedPoisson, soft_counts

_MAX_DIFFERENCE = 20.0
"""Above this difference of log-rates the divergence is not computed as a multiple of the prior's rate, which may
underflow."""

_MAX_SERIES = 0.02
"""Up to this |x| the differences 1 + e^x (x - 1) and e^x - 1 - x are summed as series. Above it their relative error is
at most 2 / |x| roundings, less than that from the rounding of x, a difference of two log-rates."""


def _square_times_series(x: Tensor, coefficients: list[float]) -> Tensor:
    """x^2 times the polynomial with these coefficients, constant first; enough terms for the type of x."""
    used = coefficients[: 7 if x.dtype == torch.float64 else 3]
    total = x * used[-1] + used[-2]
    for coefficient in used[-3::-1]:
        total = total.mul_(x).add_(coefficient)
    return total.mul_(x).mul_(x)


_DEVIANCE_SERIES = [1 / (math.factorial(n) * (n + 2)) for n in range(7)]
_EXCESS_SERIES = [1 / math.factorial(n + 2) for n in range(7)]


class _Deviance(BatchedFunction):
    """g(x) = 1 + e^x (x - 1), whose derivative is x e^x; both need only one exponential."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        grown = torch.expm1(x)
        direct = torch.addcmul(x, grown, x - 1)
        return torch.where(x.abs() < _MAX_SERIES, _square_times_series(x, _DEVIANCE_SERIES), direct), grown

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> Tensor | None:
        if grad is None:
            return None
        x, grown = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative; the stored e^x - 1 would be a constant
            grown = torch.expm1(x)
        return grad * torch.addcmul(x, x, grown)


class _Excess(BatchedFunction):
    """h(x) = e^x - 1 - x, whose derivative is e^x - 1."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        series = _square_times_series(x, _EXCESS_SERIES)
        return torch.where(x.abs() < _MAX_SERIES, series, torch.expm1(x).sub_(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.expm1(x)


def _stirling_residual(n: Tensor) -> Tensor:
    """log Gamma(n + 1) minus Stirling's (n + 1/2) log n - n + log(2 pi) / 2, for n > 0.

    The asymptotic series is exact to 1e-16 from n = 16 on; below, `lgamma` is small enough for a subtraction.
    """
    large = n.clamp_min(16)
    inverse = 1 / (large * large)
    terms = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
    series = terms[4] * inverse + terms[3]
    for term in terms[2::-1]:
        series = series * inverse + term
    small = n.clamp(torch.finfo(n.dtype).tiny, 16).double()
    direct = torch.lgamma(small + 1) - (small + 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    return torch.where(n < 16, direct.to(n.dtype), series / large)


@final
class Poisson(LogRateLaw):
    r"""Poisson spike count, parametrised by the log of its mean.

    .. math:: P(z) = \frac{\lambda^z e^{-\lambda}}{z!}, \qquad \lambda = e^{\text{log_rate}}

    :math:`\lambda` is the firing rate in spikes per unit per stimulus. The KL divergence from a prior with
    firing rate :math:`\lambda_0` is :math:`\lambda_0\,(1 + e^\delta(\delta - 1))` nats,
    :math:`\delta=\log\lambda-\log\lambda_0`: proportional to the prior firing rate.

    Parameters
    ----------
    log_rate
        Log of the firing rate, any shape.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473; Vafaii and Yates (2026), arXiv 2602.13421.

    Examples
    --------
    >>> prior = Poisson(torch.tensor([0.7]).log())
    >>> posterior = Poisson.from_encoder(torch.tensor([0.9]), prior)
    >>> torch.distributions.kl_divergence(posterior, prior)
    tensor([0.5278])
    >>> posterior.sample((3,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1])
    """

    name: ClassVar[str] = "poisson"
    label: ClassVar[str] = "Poisson"
    n_params: ClassVar[int] = 1
    prior_params: ClassVar[tuple[str, ...]] = ("log_rate",)
    takes_gumbel: ClassVar[bool] = True
    fini_degree: ClassVar[int] = 4
    has_linear_ratio: ClassVar[bool] = True
    formula: ClassVar[str] = "P(z) = exp(z log_rate - exp(log_rate)) / z!"
    mean_formula: ClassVar[str] = "exp(log_rate)"
    variance_formula: ClassVar[str] = "exp(log_rate)"
    fano_formula: ClassVar[str] = "1"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2024), arXiv 2405.14473"
    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(log_rate, validate_args=validate_args)

    @classmethod
    def encode(
        cls, raw: Float[Tensor, "B outputs"], prior: Self, *, residual: bool, clamp: float | None = None
    ) -> Coded:
        """Build the posterior and its averages in a few passes, with a hand-written backward."""
        log_rate, rate, kl, mean, _ = Units.apply(raw, prior.log_rate, clamp, residual)
        q = cls(log_rate, validate_args=False)
        q.rate = rate
        return Coded(q, kl, mean, mean, mean.detach().unsqueeze(0))

    @classmethod
    def signal_gain(cls, log_rate: float) -> float | None:
        """1 / sqrt(rate): a change d of the log-rate changes the mean by d rate, d sqrt(rate) standard deviations."""
        return math.exp(-0.5 * log_rate)

    def moments(self) -> Float[Tensor, " n_moments *shape"]:
        """Firing rate, shape (1, *batch_shape)."""
        return self.rate.unsqueeze(0)

    @classmethod
    def prior_from_moments(cls, moments: Float[Tensor, " n_moments *shape"]) -> dict[str, Float[Tensor, "*shape"]]:
        """The optimal prior firing rate is the mean posterior firing rate; moments (1, K)."""
        return {"log_rate": moments[0].clamp_min(torch.finfo(moments.dtype).tiny).log()}

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean count: the firing rate, spikes per unit per stimulus."""
        return self.rate

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the count: the firing rate."""
        return self.rate

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, exp(-rate)."""
        return torch.exp(-self.rate)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log probability of counts in nats.

        For n > 0 it is -n h(log_rate - log n) - log(2 pi n) / 2 - Stirling residual, h(x) = e^x - 1 - x
        (Loader's saddle-point form), which does not subtract the large n log_rate and log n!.

        References
        ----------
        Loader (2000), Fast and accurate computation of binomial probabilities.
        """
        value = self._checked(value)
        n = value.clamp_min(1)
        saddle = n * _Excess.apply(self.log_rate - n.log())
        some = -(saddle + 0.5 * torch.log(2 * math.pi * n) + _stirling_residual(n))
        return torch.where(value > 0, some, -self.rate)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, by a sum up to a rate of 40 and an expansion above (1e-7)."""
        return poisson_entropy(self.log_rate)

    def statistics(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, " n_moments *shape"]:
        """Counts, shape (1, *shape)."""
        return value.unsqueeze(0)

    def log_ratio(self, prior: Self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log of the probability of counts over that under `prior`, linear in the counts; nats per unit."""
        return value * (self.log_rate - prior.log_rate) - (self.rate - prior.rate)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Integer counts as floats, shape `sample_shape + batch_shape`, without gradient."""
        return poisson(self.rate.expand(self._extended_shape(sample_shape)), generator)

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Counts with a gradient that is exact for polynomials up to `degree`, see :meth:`Law.fini`."""
        check_degree(degree, self.fini_degree, self.label)
        weight = poisson_weight(counts, self.rate.detach().expand_as(counts), degree)
        return attached(counts, (self.log_rate.expand_as(counts), weight))

    def relaxed(self, *, temperature: float, indicator: str) -> RelaxedPoisson | GumbelPoisson:
        """Relaxed counts of arrivals, or for the indicator "gumbel" a relaxed choice among counts."""
        return soft_counts(self.log_rate, temperature, indicator)


@register_kl(Poisson, Poisson)
def _kl_poisson(q: Poisson, p: Poisson) -> Tensor:
    delta = q.log_rate - p.log_rate
    near = p.rate * _Deviance.apply(delta.clamp_max(_MAX_DIFFERENCE))[0]
    return torch.where(delta > _MAX_DIFFERENCE, q.rate * (delta - 1) + p.rate, near)
