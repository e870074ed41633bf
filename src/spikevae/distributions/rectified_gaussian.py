"""Rectified Gaussian code: non-negative, with many zeros, but its KL divergence does not depend on the firing rate."""

import math
from typing import Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import constraints, register_kl
from torch.distributions.utils import lazy_property
from torch.nn import functional as F

from .._batching import BatchedFunction
from ._law import Coded, split_blocks
from ._location_scale import GaussianBased, gaussian_kl
from ._random import Generator, standard_normal
from .gaussian import Gaussian

_SQRT_2PI = math.sqrt(2 * math.pi)


_TAIL = {torch.float32: (3.5, 9), torch.float64: (6.0, 40)}
"""Value of u above which Mills' ratio is a continued fraction, and the number of its levels: it is exact to
rounding."""


def _tails(u: Tensor, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For u >= 0: Phi(-u), t = E[max(N(-u, 1), 0)] and Phi(-u) - t (u + t), the variance of that rectified tail.

    Near zero t = phi(u) - u Phi(-u) directly, with a relative error of u^2 roundings. For larger u, with the continued
    fraction Phi(-u) = phi(u) / (u + c_1), c_n = n / (u + c_(n+1)), both differences become products: t = Phi(-u) c_1,
    and Phi(-u) - t u = Phi(-u) c_2 / (u + c_2).
    """
    border, _ = _TAIL[u.dtype]
    beyond = torch.special.erfc(u * math.sqrt(0.5)).mul_(0.5)
    tail = torch.addcmul(density, u, beyond, value=-1)
    spread = torch.addcmul(beyond, u, tail, value=-1).addcmul_(tail, tail, value=-1)
    is_far = u > border
    if u.device.type != "cpu":  # reading `is_far` would wait for the device
        near = beyond, tail, spread
        beyond, tail, spread = (torch.where(is_far, far, value) for far, value in zip(_far_tails(u, density), near))
    elif bool(is_far.any()):
        for value, far in zip((beyond, tail, spread), _far_tails(u[is_far], density[is_far])):
            value[is_far] = far
    return beyond, tail, spread


def _far_tails(u: Tensor, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the continued fraction only."""
    _, levels = _TAIL[u.dtype]
    c2 = 0.5 * (torch.sqrt(u * u + 4.0 * (levels + 1)) - u)  # the solution of c_n = n / (u + c_n)
    for level in range(levels, 1, -1):
        c2.add_(u).reciprocal_().mul_(level)
    c1 = 1 / (u + c2)
    beyond = density / (u + c1)
    tail = beyond * c1
    return beyond, tail, torch.addcmul(beyond * c2 / (u + c2), tail, tail, value=-1)


class _RectifiedMoments(BatchedFunction):
    """Mean and variance of max(N(loc, scale^2), 0), fast for training: one exponential and one erfc.

    With a = loc / scale and the tail t(|a|), the mean is scale (max(a, 0) + t) and the variance
    scale^2 (Phi(a) - t (|a| + t)). The derivatives need no further special function.
    """

    @staticmethod
    def forward(loc: Tensor, log_scale: Tensor) -> tuple[Tensor, ...]:
        scale = log_scale.exp()
        a = loc / scale
        u = a.abs()
        density = torch.exp(-0.5 * u * u) / _SQRT_2PI
        beyond, tail, spread = _tails(u, density)
        sign = a.sign()  # `torch.where` takes twenty times as long (2.13, CPU)
        below = (sign + 1).mul_(0.5).addcmul_(sign, beyond, value=-1)  # Phi(a), accurate in the tail
        mean = a.clamp_min(0).add_(tail).mul_(scale)
        variance = torch.addcmul(spread, sign.clamp_min_(0), 1 - 2 * beyond).mul_(scale).mul_(scale)
        return mean, variance, below, density.mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        mean, _, below, scaled_density = output
        ctx.mark_non_differentiable(below, scaled_density)
        ctx.save_for_backward(mean, below, scaled_density, inputs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        mean, below, scaled_density, log_scale = ctx.saved_tensors
        twice = 2 * of_variance
        shared = of_mean - twice * mean
        to_loc = shared * below + twice * mean
        to_log_scale = shared * scaled_density + twice * torch.exp(2 * log_scale) * below
        return to_loc, to_log_scale


def rectified_moments(
    loc: Float[Tensor, "*#shape"], log_scale: Float[Tensor, "*#shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Mean and variance of max(N(loc, exp(log_scale)^2), 0), differentiable once.

    Examples
    --------
    >>> rectified_moments(torch.zeros(1), torch.zeros(1))
    (tensor([0.3989]), tensor([0.3408]))
    """
    mean, variance, *_ = _RectifiedMoments.apply(*torch.broadcast_tensors(loc, log_scale))
    return mean, variance


class _Units(BatchedFunction):
    """Parameters of a batch from encoder outputs, in few passes: location, log scale, mean, and means over the batch.

    Values are those of the methods of the distribution, except far below zero (u = -loc / scale > 3.5): there the
    relative error is u^2 roundings for means and u^4 for variances, which both vanish. The KL divergence is computed
    from means over the batch; its gradient is exact. The soft clamp L tanh(x / L) has slope 1 - (log scale / L)^2.
    """

    @staticmethod
    def forward(raw: Tensor, prior_loc: Tensor, prior_log_scale: Tensor, limit: float | None) -> tuple[Tensor, ...]:
        loc, log_scale = split_blocks(raw, 2)
        if limit is not None:
            log_scale = (log_scale * (1 / limit)).tanh_().mul_(limit)
        scale = log_scale.exp()
        a = loc / scale
        u = a.abs()
        density = (u * u).mul_(-0.5).exp_().mul_(1 / _SQRT_2PI)
        beyond = torch.special.erfc(u * math.sqrt(0.5)).mul_(0.5)  # Phi(-u)
        tail = torch.addcmul(density, u, beyond, value=-1)
        sign = a.sign()  # `torch.where` takes twenty times as long (2.13, CPU)
        below = (sign + 1).mul_(0.5).addcmul_(sign, beyond, value=-1)  # Phi(a), accurate in the tail
        mean = a.clamp_min_(0).add_(tail).mul_(scale)
        square = scale * scale
        variance = torch.addcmul(below, tail, u.add_(tail), value=-1).mul_(square)
        n = raw.shape[-2]
        averages = loc.mean(-2), torch.linalg.vecdot(loc, loc, dim=-2) / n, square.mean(-2), log_scale.mean(-2)
        to_prior = torch.exp(-2 * prior_log_scale)
        distance = averages[1] - 2 * prior_loc * averages[0] + prior_loc.square() + averages[2]
        kl = (0.5 * (distance * to_prior - 1) - averages[3] + prior_log_scale).sum(-1)
        moments = torch.stack([averages[0], averages[1] + averages[2]], dim=-2)
        own = loc.clone(), log_scale.clone() if limit is None else log_scale
        known = below, density.mul_(scale), square, distance
        return *own, mean, kl, mean.mean(-2), variance.mean(-2), moments, *known

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        loc, log_scale, mean, _, _, _, moments, *known = output
        ctx.limit = inputs[3]
        ctx.mark_non_differentiable(moments, *known)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(loc, log_scale, mean, moments, *known, *inputs[1:3])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        of_loc: Tensor | None,
        of_log_scale: Tensor | None,
        of_mean: Tensor | None,
        of_kl: Tensor | None,
        of_average: Tensor | None,
        of_variance: Tensor | None,
        *_: Any,
    ) -> tuple[Tensor | None, ...]:
        loc, log_scale, mean, moments, below, scaled_density, square, distance, prior_loc, prior_log = ctx.saved_tensors
        n, zeros = loc.shape[-2], torch.zeros_like(loc[..., :1, :])
        to_prior = torch.exp(-2 * prior_log)
        share = torch.zeros_like(distance[..., :1]) if of_kl is None else of_kl.unsqueeze(-1)
        kl_factor = share * to_prior / n  # from the divergence, (..., K)
        to_mean = zeros if of_average is None else of_average.unsqueeze(-2) / n
        if of_mean is not None:
            to_mean = of_mean + to_mean
        twice = zeros if of_variance is None else 2 / n * of_variance.unsqueeze(-2)
        shared = torch.addcmul(to_mean, mean, twice, value=-1)
        raw = torch.empty(*loc.shape[:-1], 2 * loc.shape[-1], dtype=loc.dtype, device=loc.device)
        to_loc, to_log = split_blocks(raw, 2)
        row = zeros - (kl_factor * prior_loc).unsqueeze(-2)
        torch.addcmul(torch.addcmul(row, twice, mean), loc, kl_factor.unsqueeze(-2), out=to_loc)
        to_loc.addcmul_(shared, below)
        if of_loc is not None:
            to_loc.add_(of_loc)
        torch.addcmul(zeros - (share / n).unsqueeze(-2), shared, scaled_density, out=to_log)
        to_log.addcmul_(torch.addcmul(kl_factor.unsqueeze(-2), twice, below), square)
        if of_log_scale is not None:
            to_log.add_(of_log_scale)
        if ctx.limit is not None:
            to_log.mul_((log_scale * log_scale).mul_(-1 / ctx.limit**2).add_(1))
        of_prior_loc = of_prior_log = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            of_prior_loc = share * to_prior * (prior_loc - moments[..., 0, :])
            of_prior_log = share * (1 - distance * to_prior)
        return raw, of_prior_loc, of_prior_log, None


def _ndtr(x: Tensor) -> Tensor:
    """Phi(x), accurate in the tail, where `torch.special.ndtr` (2.13, CPU) is 1 + erf and vanishes at -9."""
    return 0.5 * torch.special.erfc(x / -math.sqrt(2))


def standard_density_and_mass(x: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """phi(x) and Phi(x) of the standard Gaussian.

    Examples
    --------
    >>> standard_density_and_mass(torch.tensor(0.0))
    (tensor(0.3989), tensor(0.5000))
    """
    return torch.exp(-0.5 * x * x) / _SQRT_2PI, _ndtr(x)


def _log_ndtr(x: Tensor) -> Tensor:
    """log Phi(x) from its negative part (erfcx) and its positive part (log1p), each clipped at 0 by |x|.

    (`torch.special.log_ndtr` has no batching rule for `torch.func.vmap`.)
    """
    below, above = 0.5 * (x - x.abs()), 0.5 * (x + x.abs())
    left = torch.log(torch.special.erfcx(below / -math.sqrt(2))) - 0.5 * below.square()
    return left + torch.log1p(-_ndtr(-above))


def _loc_of_rate(rate: float) -> float:
    """Mean of the unit-variance Gaussian whose rectified mean is `rate`, by bisection in float64."""

    def rectified_mean(loc: float) -> float:
        return loc * 0.5 * math.erfc(-loc / math.sqrt(2)) + math.exp(-0.5 * loc * loc) / _SQRT_2PI

    low, high = -38.0, max(rate, 0.0)  # phi(38) is the last normal float64; E[ReLU] exceeds its mean
    for _ in range(200):
        middle = 0.5 * (low + high)
        if rectified_mean(middle) < rate:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@final
class RectifiedGaussian(GaussianBased):
    r"""Rectified Gaussian: a mass at zero and a density above it.

    .. math:: z = \max(y, 0), \quad y \sim \mathcal N(\mu, \sigma^2), \qquad \sigma = e^{\text{log_scale}}

    With :math:`a=\mu/\sigma` the mean is :math:`\sigma[\varphi(a)+a\Phi(a)]`, the mass at zero
    :math:`\Phi(-a)`. The KL divergence is that of the Gaussians *before* the rectifier, as published, so it is
    an upper bound of that of the codes and does not penalise the firing rate.

    Parameters
    ----------
    loc, log_scale
        Mean and log standard deviation before the rectifier, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Vafaii and Yates (2026), arXiv 2602.13421: the control model of the Poisson variational autoencoder.

    Examples
    --------
    >>> prior = RectifiedGaussian(torch.zeros(1), torch.zeros(1))
    >>> prior.mean, prior.zero_probability
    (tensor([0.3989]), tensor([0.5000]))
    >>> prior.sample((2,), generator=torch.Generator().manual_seed(0)).min() >= 0
    tensor(True)
    """

    name: ClassVar[str] = "rectified_gaussian"
    label: ClassVar[str] = "Rectified Gaussian"
    has_rate: ClassVar[bool] = True
    formula: ClassVar[str] = "z = max(y, 0), y ~ N(loc, exp(log_scale)^2)"
    mean_formula: ClassVar[str] = "scale (phi(a) + a Phi(a)), a = loc / scale, scale = exp(log_scale)"
    variance_formula: ClassVar[str] = "scale^2 ((a^2 + 1) Phi(a) + a phi(a)) - mean^2"
    fano_formula: ClassVar[str] = "variance / mean, in units of the code"
    divergence: ClassVar[str] = "closed form, before the rectifier: an upper bound of that of the codes"
    citation: ClassVar[str] = "Vafaii and Yates (2026), arXiv 2602.13421"
    support: ClassVar[Any] = constraints.nonnegative
    _known_mean: Tensor | None = None

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """The mean that solves E[max(N(mean, 1), 0)] = exp(log_rate), and log-scales of zero."""
        loc = torch.full((n_units,), _loc_of_rate(math.exp(log_rate)))
        return torch.cat([loc, torch.zeros(n_units)])

    @classmethod
    def encode(
        cls, raw: Float[Tensor, "B outputs"], prior: Self, *, residual: bool, clamp: float | None = None
    ) -> Coded:
        """Build the posterior and its averages in few passes, with a hand-written backward."""
        found = _Units.apply(raw, prior.loc, prior.log_scale, clamp)
        loc, log_scale, mean, kl, average, variance, moments = found[:7]
        q = cls(loc, log_scale, validate_args=False)
        q._known_mean = mean
        return Coded(q, kl, average, variance, moments)

    def _standard_loc(self) -> Tensor:
        """Mean over standard deviation before the rectifier, in float64."""
        return self.loc.double() * torch.exp(-self.log_scale.double())

    @lazy_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        return rectified_moments(self.loc, self.log_scale)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code, scale (phi(a) + a Phi(a))."""
        return self._moments[0] if self._known_mean is None else self._known_mean

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code, E[z^2] - E[z]^2 with E[z^2] = scale^2 ((a^2 + 1) Phi(a) + a phi(a))."""
        return self._moments[1]

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Mass at zero, Phi(-loc / scale)."""
        return _ndtr(-self._standard_loc()).to(self.loc.dtype)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log mass at zero, log density above, -inf below; nats."""
        value = self._checked(value)
        mass = _log_ndtr(-self._standard_loc()).to(self.loc.dtype)
        density = Gaussian(self.loc, self.log_scale, validate_args=False).log_prob(value)
        inside = torch.where(value > 0, density, mass)
        return torch.where(value < 0, -torch.inf, inside)

    def underlying(self) -> Gaussian:
        """The Gaussian of y."""
        return Gaussian(self.loc, self.log_scale, validate_args=False)

    @staticmethod
    def code_of(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes max(y, 0) of Gaussian values y."""
        return F.relu(value)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, relative to a unit mass at zero and lengths above it, as :meth:`log_prob`.

        With P the mass at zero it is -P log P + (1 - P) log(2 pi e scale^2) / 2 - a phi(a) / 2.
        """
        a = self._standard_loc()
        density, active = standard_density_and_mass(a)
        silent = -_ndtr(-a) * _log_ndtr(-a)
        spread = active * self.underlying().entropy().double()
        return (silent + spread - 0.5 * a * density).to(self.loc.dtype)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes max(loc + scale * noise, 0), shape `sample_shape + batch_shape`."""
        noise = standard_normal(self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.code_of(self.loc + self.scale * noise)


@register_kl(RectifiedGaussian, RectifiedGaussian)
def _kl_rectified_gaussian(q: RectifiedGaussian, p: RectifiedGaussian) -> Tensor:
    return gaussian_kl(q.loc, q.log_scale, p.loc, p.log_scale)
