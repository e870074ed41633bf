"""KL divergences between laws of this package and the same laws of `torch.distributions`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as theirs
from torch.distributions import kl_divergence, register_kl

from ._law import Law
from .bernoulli import Bernoulli
from .binomial import SLOTS, Binomial
from .categorical import GROUP, Categorical
from .gaussian import Gaussian
from .gaussian_exp import GaussianExp
from .laplace import Laplace
from .negative_binomial import NegativeBinomial
from .negative_binomial_free import NegativeBinomialFree
from .poisson import Poisson

Parameters = Callable[[Any], tuple[Tensor, ...]]


def _poisson(law: Any) -> tuple[Tensor]:
    """A rate of zero, which PyTorch allows, has no log rate: the smallest positive number stands for it."""
    return (law.rate.clamp_min(torch.finfo(law.rate.dtype).tiny).log(),)


def _negative_binomial(law: Any) -> tuple[Tensor, Tensor]:
    log_dispersion = law.total_count.log()
    return log_dispersion + law.logits, log_dispersion  # the mean is total_count exp(logits)


def _binomial(law: Any) -> tuple[Tensor]:
    other = law.total_count[law.total_count != SLOTS]
    if other.numel():
        raise ValueError(
            f"total_count is {other[0].item():g}, but Binomial of spikevae counts spikes in {SLOTS} slots: give "
            f"torch.distributions.Binomial(total_count={SLOTS}, ...)"
        )
    return (law.logits,)


def _one_hot(law: Any) -> tuple[Tensor]:
    if law.event_shape[0] > GROUP:
        raise ValueError(
            f"OneHotCategorical chooses among {law.event_shape[0]} units, but Categorical of spikevae among {GROUP} at "
            f"most: give one OneHotCategorical of {GROUP} units per group"
        )
    return (law.logits,)


SAME: tuple[tuple[type[Law], type[theirs.Distribution], Parameters], ...] = (
    (Poisson, theirs.Poisson, _poisson),
    (Bernoulli, theirs.Bernoulli, lambda law: (law.logits,)),
    (Binomial, theirs.Binomial, _binomial),
    (Categorical, theirs.OneHotCategorical, _one_hot),
    (Gaussian, theirs.Normal, lambda law: (law.loc, law.scale.log())),
    (GaussianExp, theirs.LogNormal, lambda law: (law.loc, law.scale.log())),
    (Laplace, theirs.Laplace, lambda law: (law.loc, law.scale.log())),
    (NegativeBinomial, theirs.NegativeBinomial, _negative_binomial),
    (NegativeBinomialFree, theirs.NegativeBinomial, _negative_binomial),
)
"""A law, that of PyTorch, and the parameters of the former from an instance of the latter. The divergence has the batch
shape of the former: from and to `OneHotCategorical` it is one number per unit, whose sum is that of the choice."""


def _register(own: type[Law], other: type[theirs.Distribution], parameters: Parameters) -> None:
    def as_own(law: Any) -> Any:
        return own(*parameters(law), validate_args=False)

    register_kl(own, other)(lambda q, p: kl_divergence(q, as_own(p)))
    register_kl(other, own)(lambda q, p: kl_divergence(as_own(q), p))


for _own, _other, _parameters in SAME:
    _register(_own, _other, _parameters)
