"""KL divergence from samples, for any two distributions."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ._law import Law
from ._random import Generator


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    value: Float[Tensor, "*shape"]
    """The mean, shape batch_shape."""
    error: Float[Tensor, "*shape"]
    """Its standard error, shape batch_shape."""


def monte_carlo_kl(q: Law, p: Law, n_samples: int, *, generator: Generator) -> Estimate:
    """KL divergence KL(q || p) of the codes in nats, estimated without bias from samples of q: mean of log q(z) / p(z).

    Where units are not independent, only the sum over a group is a KL divergence, not the value of a single unit.

    Parameters
    ----------
    q, p
        Distributions of the same kind of code; p must give a probability to every code of q.
    n_samples
        Number of samples, two or more.

    Raises
    ------
    ValueError
        For fewer than two samples, as the standard error needs two.

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
