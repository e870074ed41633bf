"""Likelihoods: from the outputs of a module to distributions of y."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, Poisson

from .._settings import positive

Likelihood = Callable[[Tensor], Distribution]
"""From outputs of a module, with any leading dimensions, to a distribution of `torch.distributions`."""


def gaussian(output: Tensor, scale: float = 1.0) -> Distribution:
    """Normal, with the output as mean.

    Examples
    --------
    >>> import torch
    >>> gaussian(torch.zeros(2), scale=2.0).variance
    tensor([4., 4.])
    """
    return Normal(output, scale, validate_args=False)


def poisson(output: Tensor) -> Distribution:
    """Poisson counts, with the output as log rate.

    Examples
    --------
    >>> import torch
    >>> poisson(torch.zeros(2)).mean
    tensor([1., 1.])
    """
    return Poisson(output.exp(), validate_args=False)


def bernoulli(output: Tensor) -> Distribution:
    """Zeros and ones, with the output as logit of a one.

    Examples
    --------
    >>> import torch
    >>> bernoulli(torch.zeros(2)).mean
    tensor([0.5000, 0.5000])
    """
    return Bernoulli(logits=output, validate_args=False)


NAMES = ("gaussian", "poisson", "bernoulli")


def likelihood_of(likelihood: Any, noise_scale: Any) -> Likelihood:
    """The likelihood of this name, or the function given.

    Raises
    ------
    ValueError
        For another name, a noise scale that is not positive, or one that the likelihood does not have.
    """
    positive("noise_scale", noise_scale)
    if likelihood != "gaussian" and noise_scale != 1:
        raise ValueError(f"noise_scale is {noise_scale:g}, but only likelihood 'gaussian' has one: leave it out")
    if callable(likelihood):
        return likelihood
    found: dict[str, Likelihood] = {
        "gaussian": partial(gaussian, scale=float(noise_scale)),
        "poisson": poisson,
        "bernoulli": bernoulli,
    }
    if likelihood not in NAMES:
        raise ValueError(
            f"likelihood is {likelihood!r}; give one of {', '.join(NAMES)}, or a function from outputs to a "
            "torch.distributions.Distribution"
        )
    return found[likelihood]
