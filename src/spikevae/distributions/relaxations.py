"""Differentiable approximations of distributions of integers."""

from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from .._batching import BatchedFunction
from ._law import floating
from ._random import Generator, standard_uniform
from ._relaxation import Relaxation
from .arrivals import (
    check_temperature,
    get_indicator,
    relaxed_counts,
    window,
    window_integrals,
)

GUMBEL = "gumbel"
"""Word used in place of an indicator for counts by a relaxed choice among their values."""

N_GUMBEL_COUNTS = 32
"""Number of values of a count drawn by a relaxed choice: 0 to 31 (published: 5 to 30)."""


@final
class RelaxedPoisson(Relaxation):
    r"""Relaxed Poisson count: the sum of the indicator s((1 - t) / temperature) over arrivals t.

    .. math:: z = \sum_m s\big((1 - t_m)/\tau\big), \qquad
        \mathbb E z = \lambda \int_0^\infty s\,dt, \quad \operatorname{Var} z = \lambda \int_0^\infty s^2\,dt

    (Campbell's theorem). For temperatures up to 1 the mean is the firing rate for every indicator of compact
    support, and the variance per unit rate is 1 - tau/3 (linear), 1 - 9 tau/35 (cubic), 1 - 50 tau/231
    (quintic), 1 - tau/4 (cosine); for the sigmoid they are tau log(1 + e^(1/tau)) and
    tau [softplus(1/tau) - sigmoid(1/tau)].

    Parameters
    ----------
    log_rate
        Log of the firing rate lambda, any shape.
    temperature
        Width tau of the indicator, > 0.
    indicator
        Smooth step s, a key of `spikevae.distributions.INDICATORS`.
    validate_args
        As in `torch.distributions`.

    Raises
    ------
    ValueError
        If the temperature is not positive or the indicator unknown.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473.

    Examples
    --------
    >>> z = RelaxedPoisson(torch.zeros(2), temperature=0.7, indicator="cubic")
    >>> z.mean, z.variance
    (tensor([1., 1.]), tensor([0.8200, 0.8200]))
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}
    support: ClassVar[Any] = constraints.nonnegative

    def __init__(
        self, log_rate: Tensor, temperature: float, indicator: str = "cubic", validate_args: bool | None = None
    ) -> None:
        self.log_rate = floating(log_rate)
        self.temperature = check_temperature(temperature)
        self.indicator = get_indicator(indicator)
        super().__init__(self.log_rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the relaxed count."""
        start, _ = window(self.temperature, self.indicator)
        return self.log_rate.exp() * (start + window_integrals(self.temperature, self.indicator.name)[0])

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the relaxed count."""
        start, _ = window(self.temperature, self.indicator)
        return self.log_rate.exp() * (start + window_integrals(self.temperature, self.indicator.name)[1])

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in `log_rate`."""
        log_rate = self.log_rate.expand(self._extended_shape(sample_shape))
        return relaxed_counts(
            log_rate, temperature=self.temperature, indicator=self.indicator.name, generator=generator
        )


@final
class GumbelPoisson(Relaxation):
    r"""Poisson count drawn by a relaxed choice among 0, 1, ..., 31.

    .. math:: z = \sum_k k\, w_k, \qquad w = \operatorname{softmax}\big((k \log\lambda - \log k! + g_k)/\tau\big)

    with independent Gumbel noise :math:`g_k`. As the temperature goes to 0 it becomes the Poisson count, truncated
    at 31; only then is its mean that of the truncated count. It needs 32 random numbers for any firing rate. Truncation
    reduces the mean by less than 3e-6 at rates up to 12, 0.5 % at 20, 15 % at 32, and more above: it is for sparse
    codes.

    Parameters
    ----------
    log_rate
        Log of the firing rate lambda, any shape.
    temperature
        Temperature of the softmax, > 0.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Jang, Gu and Poole (2017), arXiv 1611.01144; as a count in Zhang et al. (2025), arXiv 2508.05423.

    Examples
    --------
    >>> z = GumbelPoisson(torch.zeros(2), temperature=0.5)
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}
    support: ClassVar[Any] = constraints.nonnegative

    def __init__(self, log_rate: Tensor, temperature: float, validate_args: bool | None = None) -> None:
        self.log_rate = floating(log_rate)
        self.temperature = check_temperature(temperature)
        super().__init__(self.log_rate.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in `log_rate`."""
        log_rate = self.log_rate.expand(self._extended_shape(sample_shape)).unsqueeze(-1)
        k = torch.arange(N_GUMBEL_COUNTS, dtype=log_rate.dtype, device=log_rate.device)
        logits = k * log_rate - torch.lgamma(k + 1)
        weights = torch.softmax((logits + gumbel(logits, generator)) / self.temperature, -1)
        return (weights * k).sum(-1)


def gumbel(like: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Independent standard Gumbel numbers with the shape, type and device of `like`.

    Examples
    --------
    >>> gumbel(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    uniform = standard_uniform(like, generator).clamp_min(torch.finfo(like.dtype).tiny)
    return -torch.log(-torch.log(uniform))


def soft_counts(
    log_rate: Float[Tensor, "*shape"], temperature: float, indicator: str
) -> RelaxedPoisson | GumbelPoisson:
    """Relaxed Poisson counts: arrivals weighed by this indicator, or for "gumbel" a relaxed choice.

    Examples
    --------
    >>> type(soft_counts(torch.zeros(2), 0.5, "gumbel")).__name__
    'GumbelPoisson'
    """
    if indicator == GUMBEL:
        return GumbelPoisson(log_rate, temperature, validate_args=False)
    return RelaxedPoisson(log_rate, temperature, indicator, validate_args=False)


class _SoftThreshold(BatchedFunction):
    """The relaxed comparison and its derivative by the probability."""

    @staticmethod
    def forward(probability: Tensor, uniform: Tensor, edge: float, indicator: str) -> tuple[Tensor, Tensor]:
        width = (torch.minimum(probability, 1 - probability) * edge).clamp_min(torch.finfo(probability.dtype).tiny)
        x = (probability - uniform) / width
        value, slope = get_indicator(indicator).with_slope(x)
        return value, slope / width

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return None if grad is None else grad * slope, None, None, None


def soft_threshold(
    probability: Float[Tensor, "*#shape"], uniform: Float[Tensor, "*#shape"], *, temperature: float, indicator: str
) -> Float[Tensor, "*shape"]:
    r"""Relaxed comparison `uniform < probability`, an event of that probability, with the same mean.

    .. math:: b = s\big((p - u)/w\big), \qquad w = \min(p, 1 - p)\,\min(\tau, 1/\text{reach})

    The smooth step lies inside (0, 1) and s(x) + s(-x) = 1, so the mean over u is p exactly at every temperature, and
    the pathwise derivative s'/w, at constant w, has mean 1.

    Parameters
    ----------
    probability
        p, any shape.
    uniform
        u, uniform in (0, 1), of a shape that broadcasts with it.
    temperature, indicator
        Width and smooth step, a key of `INDICATORS`; "gumbel", which is for counts, is replaced by "cubic".

    Returns
    -------
    Tensor
        Values in [0, 1], differentiable in `probability`, once.

    Examples
    --------
    >>> u = (torch.arange(1000) + 0.5) / 1000
    >>> soft_threshold(torch.tensor(0.3), u, temperature=0.7, indicator="cubic").mean()
    tensor(0.3000)
    """
    name = "cubic" if indicator == GUMBEL else indicator
    edge = min(check_temperature(temperature), 1 / get_indicator(name).reach)
    soft: Tensor = _SoftThreshold.apply(*torch.broadcast_tensors(probability, uniform), edge, name)[0]
    return soft
