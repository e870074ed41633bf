"""Entropies of count distributions that are sums or integrals, in nats; computed in float64."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .._scope import own_scope
from ._elementwise import elementwise

N_TERMS = 128
"""Counts in the sum of a Poisson entropy, 0 to 127."""

MAX_TABLE_RATE = 40.0
"""Above this rate an expansion in 1 / rate replaces the sum; its error is largest there, 1e-7."""

NODES = 160
"""Nodes of the trapezoidal rule for the entropy of negative binomial counts."""

LOG_LEAST, LOG_LARGEST = -23.0, 3.7
"""Range of log t beside the time scales of the integrand: it falls like t below and like exp(-t) above."""

MIN_LOG = -300.0
"""Smallest log rate and log dispersion considered; entropies there are zero."""


@lru_cache(maxsize=8)
@own_scope()
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Counts and their log factorials, (N_TERMS,) each."""
    n = torch.arange(N_TERMS, dtype=torch.float64)
    return n.to(device), torch.lgamma(n + 1).to(device)


def _poisson(log_rate: Tensor) -> tuple[Tensor]:
    n, log_factorial = _table(log_rate.device)
    border, wide = math.log(MAX_TABLE_RATE), log_rate.double()
    u = wide.clamp(MIN_LOG, border)
    log_p = u[:, None] * n - log_factorial - u.exp()[:, None]
    small = -(log_p.exp() * log_p).sum(-1)
    u = wide.clamp_min(border)
    inverse = torch.exp(-u)
    large = 0.5 * (u + math.log(2 * math.pi) + 1) - inverse * (1 / 12 + inverse * (1 / 24 + inverse * 19 / 360))
    return (torch.where(wide > border, large, small).to(log_rate.dtype),)


def poisson_entropy(log_rate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Entropy of Poisson counts: :math:`-\sum_n P(n) \log P(n)` up to a rate of 40, and an expansion above.

    The expansion is :math:`\frac{1}{2}\log(2\pi e\lambda) - \frac{1}{12\lambda} - \frac{1}{24\lambda^2} -
    \frac{19}{360\lambda^3}`.

    References
    ----------
    Evans and Boersma (1988), The entropy of a Poisson distribution, doi 10.1137/1030059.

    Examples
    --------
    >>> poisson_entropy(torch.zeros(1))
    tensor([1.3048])
    """
    return elementwise(_poisson, N_TERMS, log_rate)[0]


def _negative_binomial(log_mean: Tensor, log_dispersion: Tensor) -> tuple[Tensor]:
    log_m, log_r = (x.double().clamp_min(MIN_LOG) for x in (log_mean, log_dispersion))
    with torch.no_grad():  # the nodes depend on the parameters, the integral does not depend on the nodes
        low = LOG_LEAST - log_m.clamp_min(0) - log_r.clamp_min(0)
        step = (LOG_LARGEST - log_r.clamp_max(0) - low) / (NODES - 1)
        place = torch.arange(NODES, dtype=step.dtype, device=step.device)
        t = torch.exp(low[:, None] + step[:, None] * place)
        moved = -torch.expm1(-t)
    r = log_r.exp()[:, None]
    any_spike = -torch.expm1(-r * torch.log1p((log_m - log_r).exp()[:, None] * moved))
    integral = step * (any_spike * (torch.expm1(-t) - torch.expm1(-r * t)) / moved).sum(-1)
    odds = log_m - log_r
    return ((log_r.exp() * F.softplus(odds) + log_m.exp() * F.softplus(-odds) - integral).to(log_mean.dtype),)


def negative_binomial_entropy(
    log_mean: Float[Tensor, "*#shape"], log_dispersion: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    r"""Entropy of negative binomial counts of mean m and dispersion r, by quadrature.

    .. math:: r \log\Big(1 + \frac{m}{r}\Big) + m \log\Big(1 + \frac{r}{m}\Big)
        - \int_0^\infty \frac{(1 - G(e^{-t}))\,(e^{-t} - e^{-r t})}{t\,(1 - e^{-t})}\, dt, \qquad
        G(e^{-t}) = \Big(1 + \frac{m}{r} (1 - e^{-t})\Big)^{-r}

    The integral is :math:`\mathbb E \log\frac{\Gamma(z + r)}{\Gamma(r)\, z!}` by Malmsten's formula for log Gamma; at
    r = 1 it is zero, and the rest is the entropy of geometric counts. In log t the trapezoidal rule has an error below
    1e-7 of the entropy for means and dispersions from 1e-3 to 1e4.

    Examples
    --------
    >>> negative_binomial_entropy(torch.zeros(1), torch.zeros(1))  # 2 log 2
    tensor([1.3863])
    """
    return elementwise(_negative_binomial, NODES, log_mean, log_dispersion)[0]
