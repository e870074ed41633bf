r"""Importance-weighted bounds: m samples of a code per stimulus, with gradients for any m.

With weights :math:`w_s = p(x, z_s) / q(z_s | x)` of samples from q, minus the bound is

.. math:: -\mathbb E \log \frac{1}{m} \sum_{s=1}^m w_s ,

the free energy at m = 1; it falls with m towards minus log p(x). With a weight beta of the coding rate it is
:math:`-\beta\,\mathbb E \log \frac{1}{m} \sum_s e^{-d_s / \beta}\, p(z_s) / q(z_s | x)` with the distortion d. That is
beta times the bound of a model whose log-likelihood is divided by beta, and falls towards the least of distortion +
beta kl over all q.

The gradient by decoder and prior is the mean of those of log w, weighted by the normalised weights v. For the
parameters of q there are three estimators:

- of real-valued codes the doubly reparametrised one, :math:`\sum_s v_s^2\, \partial_z \log w_s\, \partial z_s`;
- of counts the score function with a baseline for each sample from the others. The score of sample s has the factor
  :math:`\log\frac{1}{m}\sum_j w_j - v_s`. A baseline that does not depend on z_s changes no mean; with
  :math:`\log\frac{1}{m}\sum_{j \ne s} w_j` the factor becomes :math:`-\log(1 - v_s) - v_s`, about :math:`v_s^2 / 2`,
  whose signal over noise does not vanish as m grows;
- of counts also the first formula with the finite-order weights of :mod:`spikevae.gradients` in place of
  :math:`\partial z_s`. It has little noise, and a bias: the bound is no polynomial of the counts.

References
----------
Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519; Rainforth et al. (2018), arXiv 1802.04537; Tucker et al.
(2019), arXiv 1810.04152, doubly reparametrised gradients; Mnih and Rezende (2016), arXiv 1602.06725, and Lievin et al.
(2020), arXiv 2008.01998, baselines of the score function. The baseline is derived here again.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .distributions._law import Law
from .distributions._random import Generator

Estimator = Literal["score_function", "fini", "pathwise"]


class ImportanceWeighted(NamedTuple):
    """A bound and what belongs to it."""

    value: Float[Tensor, " B"]
    """(B,) minus the bound, nats per stimulus; its gradient is the estimate."""
    distortion: Float[Tensor, " B"]
    """(B,) mean distortion of the samples, without gradient."""
    code: Float[Tensor, "m B K"]
    """(m, B, K) samples of the variable of :meth:`~spikevae.distributions._law.Law.underlying`, without gradient."""
    weight: Float[Tensor, "m B"]
    """(m, B) normalised weights, without gradient."""


def importance_weighted(
    distortion: Callable[[Float[Tensor, "m B K"]], Float[Tensor, "m B"]],
    q: Law,
    prior: Law,
    *,
    samples: int,
    beta: Float[Tensor, ""] | float = 1.0,
    estimator: Estimator | None = None,
    degree: int = 2,
    generator: Generator,
) -> ImportanceWeighted:
    """Minus an importance-weighted bound, with a gradient by the parameters of everything.

    Parameters
    ----------
    distortion
        Function of codes (m, B, K): minus the log-likelihood of each stimulus given each code, (m, B). Called twice
        with a pathwise gradient, else once.
    q
        Posterior of batch shape (B, K).
    prior
        Of batch shape (K,) or (B, K).
    samples
        m; two or more for the score function.
    beta
        Weight of the coding rate, > 0.
    estimator
        Gradient by the parameters of q, see above; by default "score_function" for counts and "pathwise" for
        real-valued codes, which are the ones without bias.
    degree
        Of "fini".
    generator
        Source of the samples.

    Raises
    ------
    ValueError
        For an estimator that this distribution does not have, or too few samples.

    Examples
    --------
    One unit with two slots for a spike; the evidence is that of its two counts:

    >>> from spikevae.distributions import Bernoulli
    >>> q, prior = Bernoulli(torch.zeros(2000, 1, requires_grad=True)), Bernoulli(torch.zeros(1))
    >>> distortion = lambda code: (1 - code).square().sum(-1)
    >>> found = importance_weighted(distortion, q, prior, samples=50, generator=torch.Generator().manual_seed(0))
    >>> exact = -math.log(0.5 * math.exp(-1) + 0.5)
    >>> bool(abs(found.value.mean() - exact) < 0.01)
    True
    """
    chosen = estimator or ("score_function" if q.is_count else "pathwise")
    check_estimator(chosen, q, samples)
    base, base_prior = q.underlying(), prior.underlying()
    frozen = base.detached()

    def log_weights(value: Tensor) -> tuple[Tensor, Tensor]:
        loss = distortion(base_code(value))
        return -loss / beta - frozen.log_ratio(base_prior, value).sum(-1), loss

    base_code = q.code_of
    if chosen == "score_function":
        value = base.sample((samples,), generator=generator)
    elif chosen == "fini":
        value = base.fini(base.sample((samples,), generator=generator), degree=degree)
    else:
        value = base.relaxed(temperature=1.0, indicator="cubic").rsample((samples,), generator=generator)
    if chosen != "score_function":
        with torch.no_grad():
            share = torch.softmax(log_weights(value)[0], 0).unsqueeze(-1)
        value = value.detach() + share * (value - value.detach())
    log_weight, loss = log_weights(value)
    total = torch.logsumexp(log_weight, 0)
    weight = (log_weight - total).exp().detach()
    bound = total - math.log(samples)
    if chosen == "score_function":
        log_q = base.log_ratio(base_prior.detached(), value).sum(-1)
        factor = leave_one_out_factor((log_weight - total).detach())
        bound = bound + (factor * (log_q - log_q.detach())).sum(0)
    return ImportanceWeighted(-beta * bound, loss.detach().mean(0), value.detach(), weight)


def leave_one_out_factor(log_weight: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."]:
    """-log(1 - v) - v of logarithms of normalised weights v; exact where one of them is nearly 1.

    Examples
    --------
    >>> leave_one_out_factor(torch.tensor([0.5, 0.5]).log())
    tensor([0.1931, 0.1931])
    """
    return -log_share_of_others(log_weight) - log_weight.exp()


def log_share_of_others(log_weight: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."]:
    """log(1 - v) of logarithms of normalised weights v, along the first dimension; exact where one is nearly 1.

    Examples
    --------
    >>> log_share_of_others(torch.tensor([0.2, 0.8]).log())
    tensor([-0.2231, -1.6094])
    """
    weight = log_weight.exp()
    largest = torch.zeros_like(weight).scatter(0, log_weight.argmax(0, keepdim=True), 1.0) > 0
    others = torch.logsumexp(log_weight.masked_fill(largest, -torch.inf), 0)
    return torch.where(largest, others, torch.log1p(-weight.clamp_max(0.5)))


def check_estimator(estimator: str, q: Law | type[Law], samples: int) -> None:
    """Refuse estimators that a distribution does not have; `ValueError` with what to use."""
    if q.is_count and estimator == "pathwise":
        raise ValueError(f"{q.label} counts have no pathwise gradient: use estimator='score_function'")
    if not q.is_count and estimator != "pathwise":
        raise ValueError(f"estimator={estimator!r} is for counts; {q.label} codes are real-valued: use 'pathwise'")
    if estimator == "fini" and not q.has_linear_ratio:
        raise ValueError(
            f"estimator='fini' needs log-weights that are defined between the counts, which those of {q.label} counts "
            "are not: use estimator='score_function'"
        )
    if estimator == "score_function" and samples < 2:
        raise ValueError(f"samples is {samples}: the baseline of each sample needs another one, give 2 or more")
