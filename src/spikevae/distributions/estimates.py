"""A divergence from samples, for any two laws."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ._law import Law
from ._random import Generator


class Estimate(NamedTuple):
    """A mean over samples and how far it may be off."""

    value: Float[Tensor, "*shape"]
    """The mean, shape batch_shape."""
    error: Float[Tensor, "*shape"]
    """Its standard error, shape batch_shape."""


def monte_carlo_kl(q: Law, p: Law, n_samples: int, *, generator: Generator) -> Estimate:
    """Divergence KL(q || p) of the codes in nats, estimated without bias from samples of q: mean of log q(z) / p(z).

    For laws whose units are not independent the shares of single units are not meaningful, their sum over a group is.

    Parameters
    ----------
    q, p
        Laws of one kind of code; p may be any law that gives the codes of q a probability.
    n_samples
        How many, two or more.

    Raises
    ------
    ValueError
        For fewer than two samples, which have no standard error.

    References
    ----------
    The estimate of Zhang et al. (2025), arXiv 2508.05423, for unequal dispersions; there with 5 samples.

    Examples
    --------
    >>> import torch
    >>> from spikevae.distributions import Poisson
    >>> q, p = Poisson(torch.tensor(0.0)), Poisson(torch.tensor(0.5))
    >>> value, error = monte_carlo_kl(q, p, 10_000, generator=torch.Generator().manual_seed(0))
    >>> exact = torch.distributions.kl_divergence(q, p)
    >>> bool(abs(value - exact) < 3 * error)
    True
    """
    if n_samples < 2:
        raise ValueError(f"n_samples is {n_samples}: give 2 or more")
    z = q.sample((n_samples,), generator=generator)
    ratio = q.log_prob(z) - p.log_prob(z)
    return Estimate(ratio.mean(0), ratio.std(0) / n_samples**0.5)
