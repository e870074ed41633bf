r"""Robust multi-sample free energy: m samples of a code per stimulus, and outliers that weigh little.

With joint samples :math:`z_j` of the posterior q of a stimulus, and the cost c of its code (beta times its KL
divergence from the prior, and the price of its spikes), let

.. math:: b = \log \frac{1}{m} \sum_{j=1}^m p(x | z_j) - c .

The objective "pac_m" of a stimulus is minus the logarithm of order t of :math:`e^b`, relative to a reference r:

.. math:: -r - \log_t e^{b - r} , \qquad \log_t u = \frac{u^{1 - t} - 1}{1 - t} , \quad \log_1 u = \log u .

At m = 1 and t = 1 its mean is the free energy; with m the distortion falls towards
:math:`-\log \mathbb E_q\, p(x | z)`. The derivative by b is minus the *weight* :math:`e^{(1 - t)(b - r)}`.

**The reference** has no gradient. Without one, the weights of stimuli of hundreds of pixels are 0 or infinite in
floating point, and depend on the unit of a pixel, since a likelihood of pixels is a density. Here r is the median of b
over the batch; of a stimulus above the median it is its own b, so that its weight is 1. Hence

- t = 1 is the same for any reference;
- weights are at most 1 and tend to 0 as b falls: b times its weight does too. A reference of each stimulus, such as its
  density under a model without a code, would not give this: an outlier that is improbable for that model too would keep
  its weight. With the median for all stimuli, weights would have no upper bound: stimuli without contrast, which any
  code explains, would outweigh the rest;
- another unit of pixels adds one number to all b and to their median. With nats per pixel, b / D, and no reference, it
  would multiply all weights, and weights would hardly differ;
- the median moves little unless half of the stimuli are outliers.

**The cost of the code** is inside the logarithm. Of a posterior over parameters, which all stimuli share, the
divergence stands beside the sum over stimuli, and log_t is of the likelihood alone. Here each stimulus has its own
posterior. With its cost outside, an outlier that is coded well, at many nats, would have full weight, and the cost of
any outlier would move encoder and prior without a bound. At t = 1 the two are the same.

Gradients by the parameters of q have the estimators of :mod:`spikevae.importance`:

- real-valued codes have the pathwise one, without bias;
- counts have the score function, without bias. Sample s has the same function of the other m - 1 as its baseline;
- counts also have finite-order weights, and relaxed counts have pathwise gradients. Both have little noise and a bias:
  the logarithm of a mean is no polynomial of the counts, and relaxed counts are no integers.

References
----------
Morningstar, Alemi and Dillon (2022), arXiv 2010.09629, PAC^m; Zecchin et al. (2023), arXiv 2203.01859, log_t of it. The
reference, the place of the cost and the baseline are derived here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .distributions._law import Law
from .distributions._random import Generator
from .importance import Estimator, log_share_of_others


class MultiSample(NamedTuple):
    """The objective "pac_m" and what belongs to it."""

    value: Float[Tensor, " B"]
    """(B,) nats per stimulus; its gradient is the estimate."""
    distortion: Float[Tensor, " B"]
    """(B,) mean distortion of single samples, without gradient."""
    weight: Float[Tensor, " B"]
    """(B,) weight of each stimulus, above 0 and at most 1, without gradient; 1 at t = 1."""


def multi_sample(
    distortion: Callable[[Float[Tensor, "m B K"]], Float[Tensor, "m B"]],
    q: Law,
    *,
    samples: int,
    robustness: float = 1.0,
    cost: Float[Tensor, " B"] | float = 0.0,
    estimator: Estimator | None = None,
    degree: int = 2,
    temperature: float = 0.05,
    indicator: str = "cubic",
    generator: Generator,
) -> MultiSample:
    """The objective of m samples, robust for t < 1, with a gradient by the parameters of everything.

    Parameters
    ----------
    distortion
        Function of codes (m, B, K): minus the log-likelihood of each stimulus given each code, (m, B).
    q
        Posterior of batch shape (B, K).
    samples
        m; two or more for the score function.
    robustness
        t, above 0 and at most 1. A stimulus whose bound b is u nats below the median of the batch has the weight
        exp(-(1 - t) u).
    cost
        (B,) rest of the objective of each stimulus, nats: beta * kl + spike_price * spikes.
    estimator
        Gradient by the parameters of q: "score_function" or "fini" of integer counts, "pathwise" of real-valued codes
        and of relaxed counts. By default that of :func:`sample_estimator`.
    degree
        Of "fini".
    temperature, indicator
        Of relaxed counts.
    generator
        Source of the samples.

    Raises
    ------
    ValueError
        For a robustness outside its range, an estimator that this distribution does not have, or too few samples.

    Examples
    --------
    One pixel and a Gaussian code: many samples give minus the log-density of the pixel under their mixture.

    >>> from spikevae.distributions import Gaussian
    >>> q, x = Gaussian(torch.zeros(500, 1), torch.zeros(500, 1)), 0.7
    >>> squares = lambda code: (x - code).square().sum(-1)  # noise variance 1/2
    >>> found = multi_sample(squares, q, samples=4000, generator=torch.Generator().manual_seed(0))
    >>> exact = x**2 / 3 + 0.5 * math.log(3)  # variance 1/2 + 1, constants as in the distortion
    >>> bool(abs(found.value.mean() - exact) < 0.01)
    True
    """
    if not 0 < robustness <= 1:
        raise ValueError(f"robustness is {robustness}: t is above 0 and at most 1, and 1 is the plain objective")
    chosen = estimator or sample_estimator(q, samples)
    check_sample_estimator(chosen, q, samples)
    if chosen == "pathwise":
        code = q.relaxed(temperature=temperature, indicator=indicator).rsample((samples,), generator=generator)
    else:
        code = q.sample((samples,), generator=generator)
        code = q.fini(code, degree=degree) if chosen == "fini" else code
    log_likelihood = -distortion(code)
    total = torch.logsumexp(log_likelihood, 0)
    bound = total - math.log(samples) - cost
    reference = batch_reference(bound)
    value = referenced_log_t(bound, reference, robustness)
    if chosen == "score_function":
        log_share = log_share_of_others((log_likelihood - total).detach())
        others = (bound + math.log(samples / (samples - 1))).detach() + log_share
        factor = value.detach() - referenced_log_t(others, reference, robustness)
        log_q = q.log_ratio(q.detached(), code).sum(-1)  # without the terms of log q that depend on the code alone
        value = value + (factor * (log_q - log_q.detach())).sum(0)
    below = (bound.detach() - reference).clamp_max(0)
    return MultiSample(-value, -log_likelihood.detach().mean(0), torch.exp((1 - robustness) * below))


def batch_reference(bound: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """The median over the batch, the lower one of two, without gradient."""
    return bound.detach().sort(-1).values[..., (bound.shape[-1] - 1) // 2]


def log_t(log_x: Float[Tensor, "*shape"], robustness: float) -> Float[Tensor, "*shape"]:
    r"""The logarithm of order t, :math:`(x^{1 - t} - 1) / (1 - t)`, from log x; exact as t tends to 1.

    Parameters
    ----------
    log_x
        Natural logarithms.
    robustness
        t; at 1 the result is `log_x`.

    Examples
    --------
    >>> log_t(torch.tensor([4.0]).log(), 0.5)
    tensor([2.])
    """
    if robustness == 1:
        return log_x
    return torch.expm1((1 - robustness) * log_x) / (1 - robustness)


def referenced_log_t(
    bound: Float[Tensor, "*#shape"], reference: Float[Tensor, "*#shape"], robustness: float
) -> Float[Tensor, "*shape"]:
    """Bounds, nats, above a reference; below it, the reference plus `log_t` of the ratio to it.

    The derivative is 1 above the reference, and continuous there.

    Examples
    --------
    >>> referenced_log_t(torch.tensor([-2.0, -3.0, -500.0]), torch.tensor(-3.0), 0.9)
    tensor([ -2.,  -3., -13.])
    """
    if robustness == 1:
        return bound
    ratio = bound - reference
    return reference + torch.where(ratio < 0, log_t(ratio.clamp_max(0), robustness), ratio)


def sample_estimator(q: Law | type[Law], samples: int) -> Estimator:
    """The estimator without bias. One sample of counts has none for t < 1 and takes "fini"."""
    if not q.is_count:
        return "pathwise"
    return "score_function" if samples > 1 else "fini"


def check_sample_estimator(estimator: str, q: Law | type[Law], samples: int) -> None:
    """Refuse estimators that a distribution does not have, and too few samples; `ValueError` with what to use."""
    if samples < 1:
        raise ValueError(f"samples is {samples}; give 1 or more")
    if not q.is_count and estimator != "pathwise":
        raise ValueError(f"estimator={estimator!r} is for counts; {q.label} codes are real-valued: use 'pathwise'")
    if estimator == "score_function" and samples < 2:
        raise ValueError(f"samples is {samples}: the baseline of each sample needs another one, give 2 or more")
