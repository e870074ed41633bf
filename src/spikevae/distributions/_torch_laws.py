"""KL divergences between laws of this package and the same laws of `torch.distributions`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch import distributions as theirs
from torch.distributions import kl_divergence, register_kl

from ._law import Law
from .bernoulli import Bernoulli
from .gaussian import Gaussian
from .laplace import Laplace
from .negative_binomial import NegativeBinomial
from .negative_binomial_free import NegativeBinomialFree
from .poisson import Poisson

Parameters = Callable[[Any], tuple[Tensor, ...]]


def _negative_binomial(law: Any) -> tuple[Tensor, Tensor]:
    log_dispersion = law.total_count.log()
    return log_dispersion + law.logits, log_dispersion  # the mean is total_count exp(logits)


SAME: tuple[tuple[type[Law], type[theirs.Distribution], Parameters], ...] = (
    (Poisson, theirs.Poisson, lambda law: (law.rate.log(),)),
    (Bernoulli, theirs.Bernoulli, lambda law: (law.logits,)),
    (Gaussian, theirs.Normal, lambda law: (law.loc, law.scale.log())),
    (Laplace, theirs.Laplace, lambda law: (law.loc, law.scale.log())),
    (NegativeBinomial, theirs.NegativeBinomial, _negative_binomial),
    (NegativeBinomialFree, theirs.NegativeBinomial, _negative_binomial),
)
"""A law, that of PyTorch, and the parameters of the former from an instance of the latter."""


def _register(own: type[Law], other: type[theirs.Distribution], parameters: Parameters) -> None:
    def as_own(law: Any) -> Any:
        return own(*parameters(law), validate_args=False)

    register_kl(own, other)(lambda q, p: kl_divergence(q, as_own(p)))
    register_kl(other, own)(lambda q, p: kl_divergence(as_own(q), p))


for _own, _other, _parameters in SAME:
    _register(_own, _other, _parameters)
