"""Conway-Maxwell-Poisson code: spike counts more or less variable than Poisson counts, by a shape per unit."""

import math
from functools import lru_cache
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.distributions.utils import lazy_property

from .._scope import own_scope
from ._elementwise import elementwise
from ._fini import check_degree, from_factorial_moments, from_two_moments
from ._law import softclamp_symmetric
from ._log_rate import LogRateLaw
from ._random import Generator, draw, standard_uniform
from ._relaxation import Relaxation
from .arrivals import check_temperature, get_indicator
from .poisson import Poisson
from .relaxations import GUMBEL, soft_threshold

LOG_SHAPE_LIMIT = math.log(4.0)
"""Soft bound of the log shape on both sides: Fano factors from about 1/4 to 4, for which the sums below are
accurate."""

N_TERMS = 128
"""Number of counts in a sum, 0 to 127. For rates up to MAX_TABLE_RATE less than 3e-8 of the sum is left out."""

MIN_RELATIVE_LOGIT = {dtype: math.log(torch.finfo(dtype).tiny) + 7 for dtype in (torch.float32, torch.float64)}
"""Terms whose logits are further than this below the largest are dropped: exp is many times slower where it
underflows."""

MAX_TABLE_RATE = 40.0
"""Above this rate an expansion in 1 / (shape * rate) replaces the sums. Its error is largest at this rate: 1e-5 in the
log normaliser, 5e-6 of the mean and 3e-5 of the variance at shape 1/4, and a hundredth of that from shape 0.7 on."""

MAX_REJECTION_RATE = 1e4
"""At rates above this, rounded Gaussians of the same mean and variance are drawn: rejection would accept ever fewer."""


@lru_cache(maxsize=8)
@own_scope()
def _table(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Counts and their log factorials, (N_TERMS,) each."""
    n = torch.arange(N_TERMS, dtype=torch.float64)
    return n.to(device, dtype), torch.lgamma(n + 1).to(device, dtype)


def factorial_moments(log_rate: Float[Tensor, " n"], shape: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], ...]:
    """E z, E z (z - 1), ..., E z (z - 1) ... (z - 5) for rates up to MAX_TABLE_RATE; flat tensors."""
    n, _ = _table(log_rate.dtype, log_rate.device)
    falling = torch.stack([n - k for k in range(6)], -1).cumprod(-1)
    return (table_probabilities(log_rate, shape)[1] @ falling).unbind(-1)


def _just_above(log_value: float) -> float:
    return math.exp(log_value) * (1 + 1e-4)


def table_probabilities(
    log_rate: Float[Tensor, "*shape"], shape: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape terms"]]:
    """log sum_n [Poisson(n; rate)]^shape, and the probabilities of the counts, for rates up to MAX_TABLE_RATE."""
    n, log_factorial = _table(log_rate.dtype, log_rate.device)
    poisson = log_rate[..., None] * n - log_factorial - log_rate.exp()[..., None]
    logits = shape[..., None] * poisson
    log_sum = torch.logsumexp(logits, -1)
    least = MIN_RELATIVE_LOGIT[logits.dtype]
    p = (logits - log_sum[..., None]).clamp_min(least).exp()
    return log_sum, F.threshold(p, _just_above(least), 0.0)


def _expansion(log_rate: Tensor, shape: Tensor) -> tuple[Tensor, ...]:
    """The same as `sums` for large rates, to third order in 1 / x, x = shape * rate (Gaunt et al.)."""
    rate = log_rate.exp()
    x, excess = shape * rate, shape.square() - 1
    c1 = excess / 24
    c2 = excess * (shape.square() + 23) / 1152
    c3 = excess * (5 * shape**4 - 298 * shape.square() + 11237) / 414720
    total = 1 + (c1 + (c2 + c3 / x) / x) / x
    first = -(c1 + (2 * c2 + 3 * c3 / x) / x) / x.square() / total  # d log total / dx
    second = (2 * c1 + (6 * c2 + 12 * c3 / x) / x) / x**3 / total - first.square()
    d1 = shape / 12
    d2 = shape * (4 * shape.square() + 44) / 1152
    d3 = shape * (30 * shape**4 - 1212 * shape.square() + 23070) / 414720
    by_shape = (d1 + (d2 + d3 / x) / x) / x / total
    half = 0.5 * (log_rate + math.log(2 * math.pi))
    log_sum = (1 - shape) * half - 0.5 * shape.log() + total.log()
    mean = rate + (1 - shape) / (2 * shape) + rate * first
    variance = rate / shape + rate / shape * (first + x * second)
    # E log z! = -d logZ / d shape with shape * log_rate constant, where log_rate changes by -log_rate / shape;
    # logZ = x + log_sum
    slide = rate * (1 - log_rate)
    of_half = -half - (1 - shape) * 0.5 * log_rate / shape
    log_factorial = -(slide + of_half - 0.5 / shape + first * slide + by_shape)
    return log_sum, mean, variance, log_factorial


def sums(log_rate: Float[Tensor, " n"], shape: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], ...]:
    """log sum_n [Poisson(n; rate)]^shape, mean, variance and E log z!; flat tensors."""
    border = math.log(MAX_TABLE_RATE)
    n, log_factorial = _table(log_rate.dtype, log_rate.device)
    log_sum, p = table_probabilities(log_rate.clamp_max(border), shape)
    mean = p @ n
    variance = (p * (n - mean[..., None]).square()).sum(-1)
    small = (log_sum, mean, variance, p @ log_factorial)
    large = _expansion(log_rate.clamp_min(border), shape)
    return tuple(torch.where(log_rate > border, b, a) for a, b in zip(small, large))


def derivatives(
    log_rate: Float[Tensor, " n"], shape: Float[Tensor, " n"]
) -> tuple[tuple[Float[Tensor, " n"], ...], tuple[tuple[Float[Tensor, " n"], ...], ...]]:
    """The same as `sums`, with the derivatives of each by log-rate and shape, in one pass over the counts.

    P(z) is an exponential family with statistics (z, log z!), so derivatives of expectations are covariances with
    shape * z (by log-rate) and log-rate * z - log z! (by shape). All moments are one product of the weights and a table
    of eight columns.
    """
    border = math.log(MAX_TABLE_RATE)
    u = log_rate.clamp_max(border)
    weights, top = _weights(u, shape)
    totals = weights.double() @ _statistics(log_rate.device)  # covariances are small differences of these
    one = totals[..., 0]
    n, n2, n3, f, nf, n2f, f2 = (totals[..., 1:] / one[..., None]).unbind(-1)
    variance, both, ff = n2 - n * n, nf - n * f, f2 - f * f
    third = n3 - n * (3 * n2 - 2 * n * n)
    squared = n2f - n2 * f - 2 * n * both
    rate, wide = u.exp(), u.double()
    values = tuple(value.to(u.dtype) for value in (top + one.log() - shape * rate, n, variance, f))
    covariances = ((n - rate, f), (variance, both), (third, squared), (both, ff))  # with z, with log z!
    along_shape = (wide * n - rate, *(wide * with_z for with_z, _ in covariances[1:]))
    jacobian = tuple(
        ((shape * with_z).to(u.dtype), (along - with_f).to(u.dtype))
        for (with_z, with_f), along in zip(covariances, along_shape)
    )
    large = log_rate > border
    if log_rate.device.type == "cpu" and not bool(large.any()):  # on other devices reading the value would wait
        return values, jacobian
    with torch.enable_grad():
        x = log_rate.detach().clamp_min(border).requires_grad_(), shape.detach().clone().requires_grad_()
        beyond = _expansion(*x)
        gradients = [torch.autograd.grad(value.sum(), x, retain_graph=True) for value in beyond]
    return (
        tuple(torch.where(large, b.detach(), a) for a, b in zip(values, beyond)),
        tuple(tuple(torch.where(large, b, a) for a, b in zip(*rows)) for rows in zip(jacobian, gradients)),
    )


@lru_cache(maxsize=8)
@own_scope()
def _statistics(device: torch.device) -> Tensor:
    """(N_TERMS, 8): 1, n, n^2, n^3, log n!, n log n!, n^2 log n! and (log n!)^2."""
    n, f = _table(torch.float64, torch.device("cpu"))
    return torch.stack([n**0, n, n**2, n**3, f, n * f, n**2 * f, f**2], -1).to(device)


def _weights(log_rate: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - top) of the counts, (..., N_TERMS), and top, the largest logit: shape (n log_rate - log n!)."""
    n, log_factorial = _table(log_rate.dtype, log_rate.device)
    weights = (shape * log_rate)[..., None] * n
    weights.addcmul_(shape[..., None], log_factorial, value=-1)
    top = weights.amax(-1)
    least = MIN_RELATIVE_LOGIT[weights.dtype]
    weights = weights.sub_(top[..., None]).clamp_min_(least).exp_()
    return F.threshold(weights, _just_above(least), 0.0, inplace=True), top


def _counts(parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Exact counts by rejection, for (..., 2) log-rates and shapes: from Poisson counts if shape >= 1, else geometric.

    Benson and Friel (2021), section 3: the constant of the envelope is the largest ratio, which is at a known count.
    """
    log_rate, nu = parameters.reshape(-1, 2).double().unbind(-1)
    rate = log_rate.exp()
    usable = (rate <= MAX_REJECTION_RATE) & (nu > 0)  # false for NaN, of which no draw would ever be accepted
    large = ~usable
    out = rate.clone()
    if bool(large.any()):
        _, mean, variance, _ = sums(log_rate[large], nu[large])
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        out[large] = torch.where(mean < _LARGEST, (mean + variance.sqrt() * noise).round(), mean)
    todo = usable.nonzero().squeeze(-1)
    while len(todo):
        u, s, m = log_rate[todo], nu[todo], rate[todo]
        regular = s >= 1
        stop = torch.where(regular, 0.5, 2 * s / (2 * m * s + 1 + s))  # geometric: P(y) = stop (1 - stop)^y
        peak = torch.where(regular, m, m * torch.exp(-torch.log1p(-stop) / s)).floor()
        uniform = torch.rand(len(todo), generator=generator, dtype=m.dtype, device=m.device).clamp_min_(_TINY)
        geometric = (uniform.log() / torch.log1p(-stop)).floor()
        y = torch.where(regular, torch.poisson(torch.where(regular, m, 0.0), generator=generator), geometric)

        power, per_count = torch.where(regular, s - 1, s), torch.where(regular, 0.0, -torch.log1p(-stop))
        log_accept = power * ((y - peak) * u - torch.lgamma(y + 1) + torch.lgamma(peak + 1)) + per_count * (y - peak)
        accepted = torch.rand(len(todo), generator=generator, dtype=m.dtype, device=m.device).log_() < log_accept
        out[todo[accepted]] = y[accepted]
        todo = todo[~accepted]
    return (out.view(parameters.shape[:-1]).to(parameters.dtype),)


_TINY, _LARGEST = 1e-300, 1e18


@final
class ConwayMaxwellPoisson(LogRateLaw):
    r"""Conway-Maxwell-Poisson spike count, parametrised by the log of its rate and of its shape.

    .. math:: P(z) = \frac{1}{Z} \Big(\frac{\lambda^z}{z!}\Big)^\nu, \qquad \lambda = e^{\text{log_rate}},\
        \nu = e^{\text{log_shape}}

    Poisson at :math:`\nu = 1`, less variable for larger :math:`\nu`, more for smaller: at large rates the mean is
    :math:`\lambda + \frac{1}{2\nu} - \frac{1}{2}` and the Fano factor :math:`1/\nu`. The log shape is bounded softly to
    :math:`\pm\log 4`. Normaliser and moments are sums of 128 terms up to a rate of 40 (less than 3e-8 is left out) and
    an expansion above (error 1e-5 at most). The KL divergence,
    :math:`(\theta-\theta_0)\,\mathbb E z - (\nu-\nu_0)\,\mathbb E\log z! - \log Z + \log Z_0` nats with
    :math:`\theta=\nu\log\lambda`, is exact except for their errors.

    Parameters
    ----------
    log_rate, log_shape
        Log of the rate and of the shape before its bound, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Conway and Maxwell (1962); Gaunt, Iyengar, Olde Daalhuis and Simsek (2019), Ann. Inst. Stat. Math. 71, for the
    expansion; Benson and Friel (2021), Bayesian Analysis 16, for the sampler; as latent counts arXiv 2602.03896.

    Examples
    --------
    >>> q = ConwayMaxwellPoisson(torch.zeros(3), torch.tensor([-0.5, 0.0, 0.5]))
    >>> q.variance / q.mean
    tensor([1.2692, 1.0000, 0.8050])
    >>> q.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 3])
    """

    name: ClassVar[str] = "conway_maxwell_poisson"
    label: ClassVar[str] = "Conway-Maxwell-Poisson"
    n_params: ClassVar[int] = 2
    closed_form_prior: ClassVar[bool] = False
    fini_degree: ClassVar[int] = 4
    prior_params: ClassVar[tuple[str, ...]] = ("log_rate", "log_shape")
    formula: ClassVar[str] = "P(z) = (rate^z / z!)^shape / Z, rate = exp(log_rate), shape = exp(log_shape) in (1/4, 4)"
    mean_formula: ClassVar[str] = "by series (1e-5); about rate + 1 / (2 shape) - 1/2"
    variance_formula: ClassVar[str] = "by series (1e-5); about rate / shape"
    fano_formula: ClassVar[str] = "about 1 / shape: above and below 1"
    divergence: ClassVar[str] = "series of 128 terms, expansion above rate 40 (1e-5)"
    citation: ClassVar[str] = "Conway and Maxwell (1962); as a latent count in arXiv 2602.03896"
    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real, "log_shape": constraints.real}

    log_shape: Tensor

    def __init__(self, log_rate: Tensor, log_shape: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(log_rate, log_shape, validate_args=validate_args)

    @lazy_property
    def shape(self) -> Float[Tensor, "*shape"]:
        """The shape nu, within (1/4, 4)."""
        return softclamp_symmetric(self.log_shape, LOG_SHAPE_LIMIT).exp()

    @lazy_property
    def _sums(self) -> tuple[Tensor, ...]:
        return elementwise(sums, N_TERMS, self.log_rate, self.shape, derivatives=derivatives)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean count: the firing rate, spikes per unit per stimulus."""
        return self._sums[1]

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the count."""
        return self._sums[2]

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability of no spike, 1 / Z."""
        return torch.exp(-self.shape * self.rate - self._sums[0])

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log probability of counts in nats: shape times that of Poisson counts, normalised."""
        value = self._checked(value)
        return self.shape * Poisson(self.log_rate, validate_args=False).log_prob(value) - self._sums[0]

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats: log Z - shape (log_rate E z - E log z!), by the sums of mean and normaliser (1e-4)."""
        return self._sums[0] - self._own_log_prob

    @property
    def _own_log_prob(self) -> Tensor:
        """E of shape times the log probability of Poisson counts: of log_prob without the normaliser."""
        _, mean, _, log_factorial = self._sums
        return self.shape * (self.log_rate * mean - log_factorial - self.rate)

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Integer counts as floats, shape `sample_shape + batch_shape`, without gradient."""
        parameters = torch.stack([self.log_rate, self.shape], -1)
        parameters = parameters.expand(*self._extended_shape(sample_shape), 2)
        return draw(_counts, parameters, generator)[0]

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Counts with a gradient that is exact for polynomials up to `degree`, see :meth:`Law.fini`.

        Above a rate of 40, where moments are expansions, for polynomials up to degree 2.
        """
        check_degree(degree, self.fini_degree, self.label)
        two = from_two_moments(counts, self.mean, self.variance)
        if degree == 2:
            return two
        log_rate, shape = self.log_rate.double().clamp_max(math.log(MAX_TABLE_RATE)), self.shape.double()
        moments = elementwise(factorial_moments, N_TERMS, log_rate, shape)
        return torch.where(
            self.log_rate > math.log(MAX_TABLE_RATE), two, from_factorial_moments(counts, moments, degree)
        )

    def relaxed(self, *, temperature: float, indicator: str) -> "RelaxedConwayMaxwellPoisson":
        """Counts by relaxed comparisons of a uniform number with the distribution function."""
        return RelaxedConwayMaxwellPoisson(self.log_rate, self.shape, temperature, indicator)


@final
class RelaxedConwayMaxwellPoisson(Relaxation):
    r"""Count :math:`\sum_n [u < P(z > n)]` of one uniform u, each comparison relaxed without a change of its mean.

    The mean is that of the count for temperatures up to 1. Above a rate of 40 the count is a Gaussian of the same
    mean and variance.

    Parameters
    ----------
    log_rate, shape
        Log of the rate, and the shape.
    temperature, indicator
        As for `soft_threshold`.

    Raises
    ------
    ValueError
        If the temperature is not positive or the indicator unknown.

    Examples
    --------
    >>> z = RelaxedConwayMaxwellPoisson(torch.zeros(2), torch.ones(2), temperature=0.5, indicator="cubic")
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real, "shape": constraints.positive}
    support: ClassVar[Any] = constraints.nonnegative

    def __init__(self, log_rate: Tensor, shape: Tensor, temperature: float, indicator: str = "cubic") -> None:
        self.log_rate, self.shape = torch.broadcast_tensors(log_rate, shape)
        self.temperature = check_temperature(temperature)
        self.indicator = indicator if indicator == GUMBEL else get_indicator(indicator).name
        super().__init__(self.log_rate.shape, validate_args=False)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in both parameters."""
        extended = self._extended_shape(sample_shape)
        log_rate, shape = self.log_rate.expand(extended), self.shape.expand(extended)
        uniform = standard_uniform(log_rate, generator)
        border = math.log(MAX_TABLE_RATE)
        _, p = table_probabilities(log_rate.clamp_max(border), shape)
        beyond = p.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        small = soft_threshold(
            beyond, uniform.unsqueeze(-1), temperature=self.temperature, indicator=self.indicator
        ).sum(-1)
        _, mean, variance, _ = _expansion(log_rate.clamp_min(border), shape)
        edge = torch.finfo(uniform.dtype).eps
        normal = math.sqrt(2) * torch.erfinv(2 * uniform.clamp(edge, 1 - edge) - 1)
        return torch.where(log_rate > border, mean + variance.sqrt() * normal, small).clamp_min(0)


@register_kl(ConwayMaxwellPoisson, ConwayMaxwellPoisson)
def _kl_conway_maxwell_poisson(q: ConwayMaxwellPoisson, p: ConwayMaxwellPoisson) -> Tensor:
    """shape E log Poisson(z; rate) - the same of the prior - difference of the log sums."""
    log_sum, mean, _, log_factorial = q._sums
    other = p.shape * (p.log_rate * mean - log_factorial - p.rate)
    return q._own_log_prob - other - log_sum + p._sums[0]
