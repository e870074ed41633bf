"""Exponential of a Gaussian: a control with positive codes, never zero."""

import math
from typing import Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl

from ._law import softclamp_above, softclamp_symmetric, split_blocks
from ._location_scale import GaussianBased, gaussian_kl
from ._random import Generator, standard_normal
from .gaussian import Gaussian

MAX_LOG_SCALE = 1.0
"""Soft bound of the log-scale if bounds are requested: at exp(1) the mean already depends on draws beyond 2.7 standard
deviations, and at the bound of other distributions it would overflow."""


@final
class GaussianExp(GaussianBased):
    r"""Log-normal code: the exponential of a Gaussian.

    .. math:: z = e^y, \quad y \sim \mathcal N(\mu, \sigma^2), \qquad \sigma = e^{\text{log_scale}}

    The mean is :math:`e^{\mu+\sigma^2/2}`, the variance its square times :math:`e^{\sigma^2}-1`. The map is
    invertible, so the KL divergence of the Gaussians is that of the codes.

    Parameters
    ----------
    loc, log_scale
        Mean and log standard deviation of the logarithm, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    The Gaussian baseline with exponential of Vafaii, Galor and Yates (2024), arXiv 2405.14473.

    Examples
    --------
    >>> GaussianExp(torch.zeros(1), torch.zeros(1)).mean
    tensor([1.6487])
    """

    name: ClassVar[str] = "gaussian_exp"
    label: ClassVar[str] = "Gaussian, exponential"
    has_rate: ClassVar[bool] = True
    formula: ClassVar[str] = "z = exp(y), y ~ N(loc, exp(log_scale)^2)"
    mean_formula: ClassVar[str] = "exp(loc + scale^2 / 2), scale = exp(log_scale)"
    variance_formula: ClassVar[str] = "mean^2 (exp(scale^2) - 1)"
    fano_formula: ClassVar[str] = "mean (exp(scale^2) - 1), in units of the code"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2024), arXiv 2405.14473"
    support: ClassVar[Any] = constraints.nonnegative

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., 2K): K locations, softly bounded above by clamp, and K log-scales, by +-1."""
        loc, log_scale = split_blocks(raw, cls.n_params)
        if clamp is not None:
            loc, log_scale = softclamp_above(loc, clamp), softclamp_symmetric(log_scale, min(clamp, MAX_LOG_SCALE))
        return cls(loc, log_scale, validate_args=False)

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Log-scales of zero, and the location log_rate - 1/2 at which the mean is exp(log_rate)."""
        return torch.cat([torch.full((n_units,), log_rate - 0.5), torch.zeros(n_units)])

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code, exp(loc + scale^2 / 2)."""
        return torch.exp(self.loc + 0.5 * torch.exp(2 * self.log_scale))

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code, mean^2 (exp(scale^2) - 1)."""
        return self.mean.square() * torch.expm1(torch.exp(2 * self.log_scale))

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Zero: a density has no mass at a point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log density in nats, -inf at and below zero."""
        value = self._checked(value)
        y = value.clamp_min(torch.finfo(value.dtype).tiny).log()
        inside = Gaussian(self.loc, self.log_scale, validate_args=False).log_prob(y) - y
        return torch.where(value > 0, inside, -math.inf)

    def underlying(self) -> Gaussian:
        """The Gaussian of y."""
        return Gaussian(self.loc, self.log_scale, validate_args=False)

    @staticmethod
    def code_of(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes exp(y) of Gaussian values y."""
        return torch.exp(value)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats: that of the Gaussian, plus its mean."""
        return self.underlying().entropy() + self.loc

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes exp(loc + scale * noise), shape `sample_shape + batch_shape`."""
        noise = standard_normal(self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.code_of(self.loc + self.scale * noise)


@register_kl(GaussianExp, GaussianExp)
def _kl_gaussian_exp(q: GaussianExp, p: GaussianExp) -> Tensor:
    return gaussian_kl(q.loc, q.log_scale, p.loc, p.log_scale)
