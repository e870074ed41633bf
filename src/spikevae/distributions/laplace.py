"""Laplace code: signed and heavy-tailed, the usual prior of sparse coding, without a firing rate."""

import math
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import constraints, register_kl

from ._location_scale import LocationScale
from ._random import Generator, draw
from .poisson import _Excess


def _noise(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Standard Laplace: the difference of two exponentials."""
    gaps = torch.empty(2, *like.shape, dtype=like.dtype, device=like.device).exponential_(generator=generator)
    return (gaps[0] - gaps[1],)


@final
class Laplace(LocationScale):
    r"""Laplace code, parametrised by its mean and the log of its scale.

    .. math:: p(z) = \frac{1}{2b}\,e^{-|z-\mu|/b}, \qquad b = e^{\text{log_scale}}

    The variance is :math:`2b^2`. The KL divergence between two of them is
    :math:`\log\frac{b_0}{b} + \frac{|\mu-\mu_0|}{b_0} + \frac{b}{b_0}e^{-|\mu-\mu_0|/b} - 1` nats.
    Codes are signed, so no firing rate is defined. The optimal prior is at the median of the mixture of posteriors,
    which has no closed form.

    Parameters
    ----------
    loc, log_scale
        Mean and log scale, broadcast together.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    The Laplace baseline of Vafaii, Galor and Yates (2024), arXiv 2405.14473.

    Examples
    --------
    >>> q = Laplace(torch.tensor([0.0, 1.0]), torch.zeros(2))
    >>> torch.distributions.kl_divergence(q, Laplace(torch.zeros(2), torch.zeros(2)))
    tensor([0.0000, 0.3679])
    >>> q.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 2])
    """

    name: ClassVar[str] = "laplace"
    label: ClassVar[str] = "Laplace"
    has_rate: ClassVar[bool] = False
    closed_form_prior: ClassVar[bool] = False
    formula: ClassVar[str] = "p(z) = exp(-|z - loc| / b) / (2 b), b = exp(log_scale)"
    mean_formula: ClassVar[str] = "loc"
    variance_formula: ClassVar[str] = "2 b^2"
    fano_formula: ClassVar[str] = "undefined: codes are signed"
    divergence: ClassVar[str] = "closed form"
    citation: ClassVar[str] = "Vafaii, Galor and Yates (2024), arXiv 2405.14473"
    support: ClassVar[Any] = constraints.real

    @classmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Zeros: the posterior starts at scale 1 about zero, as no firing rate is defined."""
        return torch.zeros(cls.n_params * n_units)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the code."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the code, 2 b^2."""
        return 2 * torch.exp(2 * self.log_scale)

    @property
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Zero: a density has no mass at a point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Log density in nats."""
        value = self._checked(value)
        return -(value - self.loc).abs() * torch.exp(-self.log_scale) - self.log_scale - math.log(2)

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, 1 + log(2 b)."""
        return 1 + math.log(2) + self.log_scale

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes loc + scale * noise, shape `sample_shape + batch_shape`."""
        (noise,) = draw(_noise, self.loc.expand(self._extended_shape(sample_shape)), generator)
        return self.loc + self.scale * noise


@register_kl(Laplace, Laplace)
def _kl_laplace(q: Laplace, p: Laplace) -> Tensor:
    """(b / b_0) h(-|shift| / b) + h(log b / b_0), h(x) = e^x - 1 - x: both terms are accurate near zero."""
    ratio = q.log_scale - p.log_scale
    shift = (q.loc - p.loc).abs() * torch.exp(-q.log_scale)
    return ratio.exp() * _Excess.apply(-shift) + _Excess.apply(ratio)
