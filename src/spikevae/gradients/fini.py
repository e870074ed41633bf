"""Finite-order exact gradients through the counts themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import _fini
from ..distributions._law import Law
from ..distributions.poisson import Poisson
from ._estimator import Codes, Function, GradientEstimator, Values


@final
@dataclass(frozen=True)
class Fini(GradientEstimator):
    r"""Values at integer counts, gradients w(z) f'(z) that are exact for polynomials f up to `degree`.

    .. math:: \mathbb E\, w(z) f'(z) = \frac{\partial}{\partial \log\lambda} \mathbb E f(z)

    The weight w has the least mean square of all that are exact to this degree. For Poisson counts
    :math:`w = (z + \lambda)/2` at degree 2 (standard deviation :math:`\sqrt\lambda/2`); degree 3 adds a variance of
    1/72, and degree 4 one of :math:`1/(96\lambda)`: below a rate of .01 it is replaced by degree 3. With a linear
    decoder and Gaussian pixels all degrees are exact. Takes the log-rates of Poisson counts, or any count distribution.

    Examples
    --------
    >>> from spikevae.distributions import NegativeBinomial
    >>> cube = lambda z: (z**3).sum(-1)  # E z^3 = rate + 3 rate^2 + rate^3, whose derivative is 10 at rate 1
    >>> estimates = Fini(3).gradient(cube, torch.zeros(1), 20_000, generator=torch.Generator().manual_seed(0))
    >>> bool(abs(estimates.mean() - 10) < 0.5)
    True
    >>> law = NegativeBinomial(torch.zeros(4, 2, requires_grad=True), torch.zeros(2))
    >>> Fini(2)(cube, law, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """

    degree: int = 2
    name: ClassVar[str] = "fini"
    label: ClassVar[str] = "Fini"
    citation: ClassVar[str] = "He and Wu (2026), finite-order exact pathwise gradients"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _fini.check_degree(self.degree, max(_fini.DEGREES), "these")

    def __call__(self, f: Function, law: Codes | Law, *, generator: torch.Generator) -> Values:
        """Values at integer counts.

        Parameters
        ----------
        f
            Function of codes (..., K) with values (...).
        law
            Log-rates of Poisson counts, shape (..., K), or a count distribution of that batch shape.
        generator
            Source of the counts.
        """
        chosen = law if isinstance(law, Law) else Poisson(law, validate_args=False)
        return f(chosen.fini(chosen.sample(generator=generator), degree=self.degree))


def fini_counts(
    counts: Num[Tensor, "..."], law: Distribution, degree: int = 2, *, check_counts: bool = True
) -> Float[Tensor, "..."]:
    """Counts, with a gradient by the parameters of their distribution that is exact for polynomials up to `degree`.

    For counts that your own module draws: replace them by the result, and use it as you like.

    Parameters
    ----------
    counts
        Counts drawn from `law`, shape `sample_shape + batch_shape`.
    law
        A count distribution of :mod:`spikevae.distributions` or of PyTorch (Poisson, Bernoulli, Binomial,
        NegativeBinomial). Any other distribution with a differentiable mean and variance has degree 2;
        :func:`fini_from_moments` has all degrees.
    degree
        2, 3 or 4. The counts must take at least so many values: two for Bernoulli, n + 1 for binomial counts.
    check_counts
        Whether to look at the values of the counts. False inside `torch.func.vmap` and traced graphs, which allow no
        look.

    Returns
    -------
    Tensor
        The counts as floats, differentiable once.

    Raises
    ------
    ValueError
        If the counts are not counts, or the distribution has no weights of this degree.

    References
    ----------
    He and Wu (2026), finite-order exact pathwise gradients.

    Examples
    --------
    >>> log_rate = torch.zeros(3, requires_grad=True)
    >>> law = torch.distributions.Poisson(log_rate.exp())
    >>> z = fini_counts(torch.tensor([0.0, 1.0, 4.0]), law)
    >>> z.sum().backward()
    >>> z, log_rate.grad  # (z + rate) / 2
    (tensor([0., 1., 4.], grad_fn=<...>), tensor([0.5000, 1.0000, 2.5000]))
    """
    counts = _as_counts(counts, torch.get_default_dtype(), check_counts)
    if isinstance(law, Law):
        return law.fini(counts, degree=degree)
    name = type(law).__name__
    if isinstance(law, torch.distributions.Poisson):
        return Poisson(law.rate.log(), validate_args=False).fini(counts, degree=degree)
    if isinstance(law, torch.distributions.Bernoulli | torch.distributions.Binomial):
        n: Any = getattr(law, "total_count", torch.ones_like(law.logits))
        slots = int(n.min()) if check_counts else max(_fini.DEGREES)
        _fini.check_degree(degree, slots + 1, name)
        logit = law.logits.expand_as(counts)
        return _fini.attached(counts, (logit, _fini.binomial_weight(counts, logit.detach(), n, degree)))
    if isinstance(law, torch.distributions.NegativeBinomial):
        return _negative_binomial(counts, law, degree)
    _fini.check_degree(degree, max(_fini.DEGREES), name)
    if degree > 2:
        raise ValueError(f"degree is {degree}, but of {name} only mean and variance are known: use fini_from_moments")
    return _fini.from_two_moments(counts, law.mean, law.variance)


def _negative_binomial(counts: Tensor, law: torch.distributions.NegativeBinomial, degree: int) -> Tensor:
    """PyTorch's parameters are the dispersion and the log of mean over dispersion."""
    _fini.check_degree(degree, max(_fini.DEGREES), type(law).__name__)
    log_dispersion = torch.as_tensor(law.total_count).log().expand_as(counts)
    log_mean = log_dispersion + law.logits
    by_mean, by_dispersion = _fini.negative_binomial_weights(counts, log_mean.detach(), log_dispersion.detach(), degree)
    return _fini.attached(counts, (log_mean, by_mean), (log_dispersion, by_dispersion))


def fini_from_moments(
    counts: Num[Tensor, "*shape"],
    moment: Callable[[int], Float[Tensor, "*shape"]],
    degree: int = 2,
    *,
    check_counts: bool = True,
) -> Float[Tensor, "*shape"]:
    r"""Counts of any distribution whose factorial moments are known, with a gradient that is exact up to `degree`.

    The weight is :math:`v^T G^{-1} b`, with the powers :math:`v = (1, z, z(z - 1), ...)`, their second moments G, and
    the gradients b of the expectations of their antiderivatives.

    Parameters
    ----------
    counts
        Counts, any shape.
    moment
        :math:`\mathbb E\, z (z - 1) \cdots (z - k + 1)` as a function of k from 1 to `2 * degree - 2`, differentiable
        in your parameters, shaped like the counts. Best in float64: the weights are differences of large terms.
    degree
        2, 3 or 4, at most the number of values that the counts take.
    check_counts
        As in :func:`fini_counts`.

    Raises
    ------
    ValueError
        If the counts are not counts, or the degree is none of these.

    Examples
    --------
    Beta-binomial counts of 5 slots, by the logarithms of its two shapes:

    >>> shapes = torch.tensor([0.2, 1.0], dtype=torch.float64, requires_grad=True)
    >>> def moment(k):
    ...     a, b = shapes.exp()
    ...     return torch.stack([(5 - j) * (a + j) / (a + b + j) for j in range(k)]).prod().expand(4)
    >>> z = fini_from_moments(torch.tensor([0.0, 1.0, 1.0, 5.0]), moment, degree=3)
    >>> (z**2).sum().backward()
    >>> shapes.grad.shape
    torch.Size([2])
    """
    counts = _as_counts(counts, torch.get_default_dtype(), check_counts)
    _fini.check_degree(degree, max(_fini.DEGREES), "these")
    moments = [moment(order).double() for order in range(1, 2 * degree - 1)]
    return _fini.from_factorial_moments(counts, moments, degree)


def _as_counts(counts: Tensor, dtype: torch.dtype, check: bool) -> Tensor:
    """Counts as floats; `ValueError` at the first that is not a count."""
    counts = counts if counts.is_floating_point() else counts.to(dtype)
    if check:
        wrong = counts[~((counts >= 0) & (counts == counts.round()))]
        if wrong.numel():
            raise ValueError(
                f"counts hold {wrong[0].item():g}, which is no count: give non-negative integers, such as "
                "law.sample(); relaxed counts have a gradient of their own"
            )
    return counts
