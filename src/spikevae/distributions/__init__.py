"""Distributions of the code: one file each, which also registers the KL divergence."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from . import _torch_laws as _torch_laws  # registers divergences
from ._law import Law as Law
from ._law import Reparametrised as Reparametrised
from ._random import Generator as Generator
from ._random import GeneratorStack as GeneratorStack
from .arrivals import INDICATORS as INDICATORS
from .arrivals import relaxed_counts as relaxed_counts
from .bernoulli import Bernoulli as Bernoulli
from .binomial import Binomial as Binomial
from .categorical import Categorical as Categorical
from .conway_maxwell_poisson import ConwayMaxwellPoisson as ConwayMaxwellPoisson
from .estimates import Estimate as Estimate
from .estimates import monte_carlo_kl as monte_carlo_kl
from .gaussian import Gaussian as Gaussian
from .gaussian_exp import GaussianExp as GaussianExp
from .gaussian_softplus import GaussianSoftplus as GaussianSoftplus
from .laplace import Laplace as Laplace
from .negative_binomial import NegativeBinomial as NegativeBinomial
from .negative_binomial_free import NegativeBinomialFree as NegativeBinomialFree
from .poisson import Poisson as Poisson
from .rectified_gaussian import RectifiedGaussian as RectifiedGaussian
from .relaxations import GumbelPoisson as GumbelPoisson
from .relaxations import RelaxedPoisson as RelaxedPoisson
from .zero_inflated_poisson import ZeroInflatedPoisson as ZeroInflatedPoisson

T = TypeVar("T")

LAWS: dict[str, type[Law]] = {
    law.name: law
    for law in (
        Poisson,
        NegativeBinomial,
        NegativeBinomialFree,
        ZeroInflatedPoisson,
        ConwayMaxwellPoisson,
        Binomial,
        Bernoulli,
        Categorical,
        Gaussian,
        Laplace,
        RectifiedGaussian,
        GaussianSoftplus,
        GaussianExp,
    )
}
"""Every distribution by its name in configurations."""


def get_law(name: str) -> type[Law]:
    """Return the distribution called `name` in configurations.

    Raises
    ------
    ValueError
        If there is none; the message lists all names and the most similar one.

    Examples
    --------
    >>> get_law("poisson").label
    'Poisson'
    """
    return named(name, LAWS)


def named(name: str, kinds: Mapping[str, T]) -> T:
    """Return the entry of `kinds` called `name`; else `ValueError` with all names and the most similar one.

    Examples
    --------
    >>> named("a", {"a": 1})
    1
    """
    if isinstance(name, str) and name in kinds:
        return kinds[name]
    nearest = difflib.get_close_matches(str(name), kinds, n=1, cutoff=0.0)
    raise ValueError(f"unknown law {name!r}: choose one of {', '.join(kinds)}; did you mean {nearest[0]!r}?")
