r"""Lower bounds of the log of a mean of likelihoods, from the log-likelihoods of members or draws: the objectives.

Each takes log-likelihoods (K, ...), nats, the members first, and gives one number for each of the others. With
:math:`a_k = \log p(y | \theta_k)` and any :math:`\theta_1 \ldots \theta_K`,

.. math:: \frac{1}{K} \sum_k a_k \;\le\; \mathrm{bound}(a_1, \ldots, a_K) \;\le\; \log \frac{1}{K} \sum_k e^{a_k},

but for :func:`pac_m` with `robustness` below 1, which is above the last. Where the members are independent draws from a
posterior q, the expected value of the last is at most :math:`\log E_q p(y | \theta)`, so that the others bound it too.
"""

import math
from collections.abc import Callable
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from ..robust import log_t

SERIES_BELOW = 0.3
"""|alpha| below which :func:`pac2_weight` is taken from its series."""
SERIES = 14
"""Terms of it: the remainder is below the rounding of float64."""
Bound = Callable[[Tensor], Tensor]


def average(log_p: Float[Tensor, "K ..."]) -> Float[Tensor, "..."]:
    """The mean log-likelihood: the objective of the free energy, or of separately trained members.

    Examples
    --------
    >>> average(torch.tensor([[-1.0], [-3.0]]))
    tensor([-2.])
    """
    return log_p.mean(0)


def pac_m(log_p: Float[Tensor, "K ..."], robustness: float = 1.0) -> Float[Tensor, "..."]:
    r"""The logarithm of the mean likelihood of m members or draws, or its robust form, of order t = `robustness`.

    .. math:: \log_t \Bigl(\frac{1}{m} \sum_k e^{a_k}\Bigr), \qquad \log_t p = \frac{p^{1 - t} - 1}{1 - t}, \quad
        \log_1 = \log

    It is computed from :math:`a = \log \frac{1}{m} \sum_k e^{a_k}` as :math:`\mathrm{expm1}((1 - t)\,a) / (1 - t)`,
    which is stable for t near 1. Its derivative :math:`e^{(1 - t)\,a}` is the weight of a datum: for t < 1 those that
    are improbable under all members have little. :math:`\log_t p \ge \log p`, so that for t < 1 this is no bound, and
    it depends on the unit in which densities are.

    References
    ----------
    Morningstar, Alemi and Dillon (2022), arXiv 2010.09629 (t = 1); Zecchin, Park, Simeone, Kountouris and Gesbert
    (2022), arXiv 2203.01859.

    Examples
    --------
    >>> pac_m(torch.tensor([[0.25], [0.75]]).log()).exp()
    tensor([0.5000])
    """
    if not 0 <= robustness <= 1:
        raise ValueError(f"robustness is {robustness!r}; give a number from 0 to 1, where 1 is the logarithm itself")
    a = torch.logsumexp(log_p, 0) - math.log(len(log_p))
    return log_t(a, robustness)


def _relative_variance(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of the likelihoods over their largest, squared, and log of their mean over their largest."""
    largest = log_p.amax(0)
    ratios = torch.exp(log_p - largest)
    mean = ratios.mean(0)
    return (ratios - mean).square().mean(0), mean.log()


def pac2(log_p: Float[Tensor, "K ..."]) -> Float[Tensor, "..."]:
    r"""The mean log-likelihood plus :math:`\mathrm{Var}(p) / (2 \max p^2)`, over the members.

    The gradient is that of the whole expression; in the author's code the maximum is held as a constant.

    References
    ----------
    Masegosa (2020), arXiv 1912.08335.

    Examples
    --------
    >>> pac2(torch.tensor([[0.0], [-torch.inf]]).clamp_min(-100))
    tensor([-49.8750])
    """
    variance, _ = _relative_variance(log_p)
    return log_p.mean(0) + 0.5 * variance


def pac2_tight(log_p: Float[Tensor, "K ..."]) -> Float[Tensor, "..."]:
    r"""The mean log-likelihood plus :math:`h(\alpha)\, \mathrm{Var}(p) / \max p^2`, over the members.

    :math:`\alpha = \log (\bar p / \max p)`. h, :func:`pac2_weight`, is at least 1/2: this is above :func:`pac2`.

    References
    ----------
    Masegosa (2020), arXiv 1912.08335.

    Examples
    --------
    >>> log_p = torch.tensor([[-0.1], [-2.0]])
    >>> bool(pac2(log_p) < pac2_tight(log_p)), bool(pac2_tight(log_p) < pac_m(log_p))
    (True, True)
    """
    variance, alpha = _relative_variance(log_p)
    return log_p.mean(0) + pac2_weight(alpha) * variance


def pac2_weight(alpha: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""h of the tight bound, for alpha of zero or less.

    .. math:: h(\alpha) = \frac{\alpha}{(1 - e^\alpha)^2} + \frac{1}{e^\alpha (1 - e^\alpha)}
        = \frac{e^{-\alpha} - 1 + \alpha}{(1 - e^\alpha)^2}

    It is the remainder of second order of log p around the mean of p, where p is largest. h(0) = 1/2.

    Examples
    --------
    >>> pac2_weight(torch.tensor([0.0, -1.0]))
    tensor([0.5000, 1.7976])
    """
    u = -alpha
    near = u < SERIES_BELOW
    low, high = torch.where(near, u, 0.0), torch.where(near, 1.0, u)
    direct = (torch.expm1(high) - high) / torch.expm1(-high).square()
    above, below = torch.zeros_like(u), torch.zeros_like(u)
    for n in range(SERIES, -1, -1):  # (e^u - 1 - u) / u^2 and (1 - e^-u) / u
        above = above * low + 1 / math.factorial(n + 2)
        below = below * low + (-1) ** n / math.factorial(n + 1)
    return torch.where(near, above / below.square(), direct)


def repulsion(log_p: Float[Tensor, "K ..."]) -> Float[Tensor, "..."]:
    r"""The mean log-likelihood plus the repulsion of the members by their losses.

    .. math:: R = \log \Bigl(1 + \frac{1}{K} \sum_k \tfrac{1}{2} u_k^2 \min(1, e^{u_k})\Bigr), \qquad u_k = a_k - \bar a

    With :math:`\log \frac{1}{K} \sum_k e^{a_k} = \bar a + \log (1 + \frac{1}{K} \sum_k (e^{u_k} - 1 - u_k))` and
    :math:`e^u - 1 - u \ge \frac{1}{2} u^2 \min(1, e^u)` the sum is at most the logarithm of the mean likelihood. Unlike
    :func:`pac2` it looks at ratios of likelihoods, not at their values beside the largest one.

    References
    ----------
    The form is this library's; repulsion by losses: Futami, Iwata, Ueda, Sato and Sugiyama (2021), arXiv 2106.05010.

    Examples
    --------
    >>> repulsion(torch.tensor([[-1.0], [-3.0]]))
    tensor([-1.7059])
    """
    mean = log_p.mean(0)
    u = log_p - mean
    return mean + torch.log1p((0.5 * u.square() * u.clamp_max(0).exp()).mean(0))


BOUNDS: dict[str, Callable[..., Tensor]] = {
    "average": average,
    "pac_m": pac_m,
    "pac2": pac2,
    "pac2_tight": pac2_tight,
    "repulsion": repulsion,
}
"""The bounds by the names that `objective` takes."""


def bound_of(objective: str, robustness: float = 1.0) -> Bound:
    """The bound of this name.

    Raises
    ------
    ValueError
        For another name, a robustness that is no number from 0 to 1, or one that the objective does not have.

    Examples
    --------
    >>> bound_of("pac_m", 0.9)(torch.zeros(2, 3))
    tensor([0., 0., 0.])
    """
    if objective not in BOUNDS:
        raise ValueError(f"objective is {objective!r}; give one of {', '.join(BOUNDS)}")
    if isinstance(robustness, bool) or not isinstance(robustness, Real) or not 0 <= robustness <= 1:
        raise ValueError(f"robustness is {robustness!r}; give a number from 0 to 1, where 1 is the logarithm itself")
    if robustness == 1:
        return BOUNDS[objective]
    if objective != "pac_m":
        raise ValueError(f"robustness is {robustness:g}, but objective {objective!r} has none: use objective='pac_m'")
    return lambda log_p: pac_m(log_p, robustness)
