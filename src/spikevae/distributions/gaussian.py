"""Gaussian code: the usual variational autoencoder, signed and without a firing rate."""

import math
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from ._law import Law, softclamp_symmetric, split_blocks
from ._random import Generator, standard_normal

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_kl(loc: Tensor, log_scale: Tensor, prior_loc: Tensor, prior_log_scale: Tensor) -> Tensor:
    """Divergence KL(N(loc, scale^2) || N(prior_loc, prior_scale^2)) in nats, elementwise.

    With d = log scale - log prior_scale it is ((loc - prior_loc)^2 / prior_scale^2 + expm1(2d)) / 2 - d,
    which keeps its digits near d = 0.

    Examples
    --------
    >>> zero = torch.tensor(0.0)
    >>> gaussian_kl(torch.tensor(1.0), zero, zero, zero)
    tensor(0.5000)
    """
    shift = (loc - prior_loc) * torch.exp(-prior_log_scale)
    ratio = log_scale - prior_log_scale
    return 0.5 * (shift.square() + torch.expm1(2 * ratio)) - ratio


def gaussian_moments(loc: Tensor, log_scale: Tensor) -> Tensor:
    """Mean and second moment, stacked in front: shape (2, *batch)."""
    return torch.stack([loc, loc.square() + torch.exp(2 * log_scale)])


def gaussian_prior_from_moments(moments: Tensor) -> dict[str, Tensor]:
    """Gaussian of the same mean and second moment: the prior closest to a mixture of Gaussians."""
    loc, second = moments
    variance = (second - loc.square()).clamp_min(torch.finfo(moments.dtype).tiny)
    return {"loc": loc, "log_scale": 0.5 * variance.log()}


@final
class Gaussian(Law):
    r"""Gaussian code, parametrised by its mean and the log of its standard deviation.

    .. math:: z \sim \mathcal N(\mu, \sigma^2), \qquad \sigma = e^{\text{log_scale}}

    The divergence between two of them is
    :math:`\tfrac12[(\mu-\mu_0)^2/\sigma_0^2 + \sigma^2/\sigma_0^2 - 1] - \log(\sigma/\sigma_0)` nats.
    Codes are signed, so no firing rate is defined.

    Parameters
    ----------
    loc, log_scale
        Mean and log standard deviation, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Kingma and Welling (2014), arXiv 1312.6114, appendix B.

    Examples
    --------
    >>> q = Gaussian(torch.tensor([0.0, 1.0]), torch.zeros(2))
    >>> torch.distributions.kl_divergence(q, Gaussian(torch.zeros(2), torch.zeros(2)))
    tensor([0.0000, 0.5000])
    >>> q.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 2])
    """

    name: ClassVar[str] = "gaussian"
    label: ClassVar[str] = "Gaussian"
    n_params: ClassVar[int] = 2
    is_count: ClassVar[bool] = False
    has_rate: ClassVar[bool] = False
    prior_params: ClassVar[tuple[str, ...]] = ("loc", "log_scale")
    formula: ClassVar[str] = "z ~ N(loc, exp(log_scale)^2)"
    citation: ClassVar[str] = "Kingma and Welling (2014), arXiv 1312.6114"
    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "log_scale": constraints.real}
    support: ClassVar[Any] = constraints.real
    has_rsample: ClassVar[bool] = True  # type: ignore[misc]

    loc: Tensor
    log_scale: Tensor

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, log_scale, validate_args=validate_args)

    @classmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """N(0, 1) for every unit, whatever the firing rate asked for."""
        return {key: torch.zeros(n_units, device=generator.device) for key in cls.prior_params}

    @classmethod
    def from_encoder(cls, raw: Tensor, prior: Self | None, *, clamp: float | None = None) -> Self:
        """Posterior from outputs (..., 2K): K means, then K log-scales, bounded to +-clamp if given."""
        loc, log_scale = split_blocks(raw, cls.n_params)
        if clamp is not None:
            log_scale = softclamp_symmetric(log_scale, clamp)
        return cls(loc, log_scale, validate_args=False)

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Tensor:
        """Zeros: the posterior starts at N(0, 1), as no firing rate is defined."""
        return torch.zeros(cls.n_params * n_units)

    def moments(self) -> Tensor:
        """Mean and second moment, shape (2, *batch_shape)."""
        return gaussian_moments(self.loc, self.log_scale)

    @classmethod
    def prior_from_moments(cls, moments: Tensor) -> dict[str, Tensor]:
        """Match the mean and the second moment, shape (2, K)."""
        return gaussian_prior_from_moments(moments)

    @property
    def scale(self) -> Tensor:
        """Standard deviation."""
        return self.log_scale.exp()

    @property
    def mean(self) -> Tensor:
        """Mean of the code."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Variance of the code."""
        return torch.exp(2 * self.log_scale)

    @property
    def zero_probability(self) -> Tensor:
        """Zero: a density has no mass at a point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        standard = (value - self.loc) * torch.exp(-self.log_scale)
        return -0.5 * standard.square() - self.log_scale - _HALF_LOG_2PI

    def rsample(self, sample_shape: Any = (), *, generator: Generator) -> Tensor:  # type: ignore[override]
        """Codes loc + scale * noise, shape `sample_shape + batch_shape`."""
        noise = standard_normal(self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.loc + self.scale * noise

    def sample(self, sample_shape: Any = (), *, generator: Generator) -> Tensor:  # type: ignore[override]
        """Codes without gradient, shape `sample_shape + batch_shape`."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def relaxed(self, *, temperature: float, indicator: str) -> Self:
        """The law itself: its samples are differentiable at every temperature."""
        return self


@register_kl(Gaussian, Gaussian)
def _kl_gaussian(q: Gaussian, p: Gaussian) -> Tensor:
    return gaussian_kl(q.loc, q.log_scale, p.loc, p.log_scale)
