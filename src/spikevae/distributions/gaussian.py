"""Gaussian code: the usual variational autoencoder, signed and without a firing rate."""

import math
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl

from ._location_scale import GaussianBased, gaussian_kl
from ._random import Generator, standard_normal

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@final
class Gaussian(GaussianBased):
    r"""Gaussian code, parametrised by its mean and the log of its standard deviation.

    .. math:: z \sim \mathcal N(\mu, \sigma^2), \qquad \sigma = e^{\text{log_scale}}

    The KL divergence between two of them is
    :math:`\tfrac{1}{2}[(\mu-\mu_0)^2/\sigma_0^2 + \sigma^2/\sigma_0^2 - 1] - \log(\sigma/\sigma_0)` nats.
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
    has_rate: ClassVar[bool] = False
    formula: ClassVar[str] = "z ~ N(loc, exp(log_scale)^2)"
    mean_formula: ClassVar[str] = "loc"
    variance_formula: ClassVar[str] = "exp(2 log_scale)"
    fano_formula: ClassVar[str] = "undefined: codes are signed"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Kingma and Welling (2014), arXiv 1312.6114"
    support: ClassVar[Any] = constraints.real

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Zeros: the posterior starts at N(0, 1), as no firing rate is defined."""
        return torch.zeros(cls.n_params * n_units)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code."""
        return torch.exp(2 * self.log_scale)

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Zero: a density has no mass at a point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log density in nats."""
        value = self._checked(value)
        standard = (value - self.loc) * torch.exp(-self.log_scale)
        return -0.5 * standard.square() - self.log_scale - _HALF_LOG_2PI

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, log(2 pi e scale^2) / 2."""
        return 0.5 + _HALF_LOG_2PI + self.log_scale

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes loc + scale * noise, shape `sample_shape + batch_shape`."""
        noise = standard_normal(self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.loc + self.scale * noise


@register_kl(Gaussian, Gaussian)
def _kl_gaussian(q: Gaussian, p: Gaussian) -> Tensor:
    return gaussian_kl(q.loc, q.log_scale, p.loc, p.log_scale)
