"""Softplus of a Gaussian: a control with positive codes, a smooth form of the rectified Gaussian."""

import math
from functools import lru_cache
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.distributions.utils import lazy_property

from .._scope import own_scope
from ._elementwise import elementwise
from ._location_scale import GaussianBased, gaussian_kl
from ._random import Generator, standard_normal
from .gaussian import Gaussian
from .rectified_gaussian import rectified_moments

MAX_HERMITE_SCALE = 2.0
"""Above this standard deviation the softplus is integrated as the sum of a rectifier and a rest."""

HERMITE, LAGUERRE = 32, 20
"""Nodes of the two rules. The errors of mean and variance are below 1e-6, for standard deviations up to 1 below
1e-10."""


def _softplus(y: Tensor) -> Tensor:
    return y.clamp_min(0) + torch.log1p(torch.exp(-y.abs()))


@lru_cache(maxsize=8)
@own_scope()
def _nodes(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Gauss-Hermite nodes and weights for the standard Gaussian; Gauss-Laguerre ones for positive numbers."""
    x, w = np.polynomial.hermite_e.hermegauss(HERMITE)
    v, u = np.polynomial.laguerre.laggauss(LAGUERRE)
    arrays = (x, w / w.sum(), v, u * np.exp(v))
    return tuple(torch.from_numpy(a).to(device, dtype) for a in arrays)


def softplus_moments(
    loc: Float[Tensor, " n"], log_scale: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Mean and variance of log(1 + exp(y)), y ~ N(loc, exp(log_scale)^2), flat tensors.

    Narrow Gaussians by Gauss-Hermite quadrature. For wide ones softplus(y) = max(y, 0) + g(|y|), g(v) = log1p(e^-v):
    the rectified part has closed forms, and g, which falls fast while the Gaussian changes slowly, is integrated over
    v.
    """
    x, w, v, u = _nodes(loc.dtype, loc.device)
    narrow = _softplus(loc[:, None] + log_scale.clamp_max(math.log(MAX_HERMITE_SCALE)).exp()[:, None] * x)
    mean = narrow @ w
    variance = (narrow - mean[:, None]).square() @ w

    log_wide = log_scale.clamp_min(math.log(MAX_HERMITE_SCALE))
    scale = log_wide.exp()[:, None]
    g = torch.log1p(torch.exp(-v))
    norm = math.sqrt(2 * math.pi) * scale
    above = torch.exp(-0.5 * ((v - loc[:, None]) / scale).square()) / norm
    below = torch.exp(-0.5 * ((v + loc[:, None]) / scale).square()) / norm
    rest, rest_square = (above + below) @ (u * g), (above + below) @ (u * g * g)
    rectified, spread = rectified_moments(loc, log_wide)
    wide_variance = spread + 2 * (above @ (u * v * g) - rectified * rest) + rest_square - rest.square()

    is_wide = log_scale > math.log(MAX_HERMITE_SCALE)
    return torch.where(is_wide, rectified + rest, mean), torch.where(is_wide, wide_variance, variance)


def loc_of_rate(rate: float) -> float:
    """Mean of the unit-variance Gaussian whose softplus has the mean `rate`, by bisection in float64."""
    zero = torch.zeros(1, dtype=torch.float64, device="cpu")
    low, high = min(-1.0, math.log(rate) - 2) if rate > 0 else -745.0, max(rate, 0.0)
    for _ in range(100):
        middle = 0.5 * (low + high)
        if softplus_moments(zero + middle, zero)[0].item() < rate:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@final
class GaussianSoftplus(GaussianBased):
    r"""Softplus of a Gaussian: positive codes, nearly linear in the Gaussian where it is large.

    .. math:: z = \log(1 + e^y), \quad y \sim \mathcal N(\mu, \sigma^2), \qquad \sigma = e^{\text{log_scale}}

    Mean and variance are integrated numerically. The map is invertible, so the KL divergence of the Gaussians is that
    of the codes.

    Parameters
    ----------
    loc, log_scale
        Mean and log standard deviation before the softplus, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    The amortised Gaussian baseline with softplus of Vafaii, Galor and Yates (2025), arXiv 2410.19315.

    Examples
    --------
    >>> GaussianSoftplus(torch.zeros(1), torch.zeros(1)).mean
    tensor([0.8061])
    """

    name: ClassVar[str] = "gaussian_softplus"
    label: ClassVar[str] = "Gaussian, softplus"
    has_rate: ClassVar[bool] = True
    formula: ClassVar[str] = "z = log(1 + exp(y)), y ~ N(loc, exp(log_scale)^2)"
    mean_formula: ClassVar[str] = "E log(1 + exp(y)), by quadrature (1e-6)"
    variance_formula: ClassVar[str] = "Var log(1 + exp(y)), by quadrature (1e-6)"
    fano_formula: ClassVar[str] = "variance / mean, in units of the code"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2025), arXiv 2410.19315"
    support: ClassVar[Any] = constraints.nonnegative

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """The mean that solves E[log(1 + exp(N(mean, 1)))] = exp(log_rate), and log-scales of zero."""
        return torch.cat([torch.full((n_units,), loc_of_rate(math.exp(log_rate))), torch.zeros(n_units)])

    @lazy_property
    def _moments(self) -> tuple[Tensor, ...]:
        return elementwise(softplus_moments, HERMITE + 2 * LAGUERRE, self.loc, self.log_scale)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code."""
        return self._moments[0]

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code."""
        return self._moments[1]

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Zero: a density has no mass at a point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log density in nats, -inf at zero."""
        value = self._checked(value)
        log_slope = torch.log(-torch.expm1(-value.clamp_min(torch.finfo(value.dtype).tiny)))  # log dz / dy
        gaussian = Gaussian(self.loc, self.log_scale, validate_args=False)
        return torch.where(value > 0, gaussian.log_prob(value + log_slope) - log_slope, -math.inf)

    def underlying(self) -> Gaussian:
        """The Gaussian of y."""
        return Gaussian(self.loc, self.log_scale, validate_args=False)

    @staticmethod
    def code_of(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes log(1 + exp(y)) of Gaussian values y."""
        return _softplus(value)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats: that of the Gaussian y, plus E log dz / dy = -E log(1 + exp(-y)), by quadrature (1e-6)."""
        opposite = GaussianSoftplus(-self.loc, self.log_scale, validate_args=False)
        return self.underlying().entropy() - opposite.mean

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes log(1 + exp(loc + scale * noise)), shape `sample_shape + batch_shape`."""
        noise = standard_normal(self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.code_of(self.loc + self.scale * noise)


@register_kl(GaussianSoftplus, GaussianSoftplus)
def _kl_gaussian_softplus(q: GaussianSoftplus, p: GaussianSoftplus) -> Tensor:
    return gaussian_kl(q.loc, q.log_scale, p.loc, p.log_scale)
