r"""Finite-order exact gradients through integer counts ("Fini"): weights of f' at the counts.

The gradient of an expectation over counts by a parameter is estimated by w(z) f'(z). For a degree D the weight w is the
polynomial of degree D - 1 for which this has the right mean for every polynomial f up to degree D: of all weights with
that property the one of least mean square. With the monic orthogonal polynomials :math:`p_k` of the distribution and
their antiderivatives :math:`Q_k`,

.. math:: w = \sum_{k < D} \frac{\partial\, \mathbb E\, Q_k}{\mathbb E\, p_k^2}\, p_k .

At D = 2 this is :math:`\partial m + (z - m)\, \partial \log\sqrt V`: the counts move like a location-scale family.
Poisson, binomial and negative binomial counts have variance :math:`V = m + \kappa m^2` with :math:`\kappa` = 0, -1/n
and 1/r (Morris 1982), and the same weights in terms of :math:`m` and :math:`\kappa`.

References
----------
He and Wu (2026), finite-order exact pathwise gradients; derived here again. Morris (1982), Natural exponential families
with quadratic variance functions.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .arrivals import Pathwise

DEGREES = (2, 3, 4)
"""Degrees for which there are weights."""

MIN_VARIANCE = 0.01
"""Where the counts have less variance, degree 4 is replaced by 3: the variance of its last term grows as 1 / 96 V."""

GREGORY = (1.0, 1 / 2, -1 / 12, 1 / 24)
"""Coefficients of x / log(1 + x): a derivative as a series in differences, and so antiderivatives of falling
factorials, :math:`\\int z_{(k)} = \\sum_j G_j\\, k! / (k + 1 - j)!\\, z_{(k + 1 - j)}`."""


def check_degree(degree: int, largest: int, label: str) -> int:
    """Return the degree; `ValueError` if there are no weights of it, or not for counts of this distribution."""
    if isinstance(degree, bool) or degree not in DEGREES:
        raise ValueError(f"degree is {degree}: weights have degree 2, 3 or 4")
    if largest < 2:
        raise ValueError(
            f"{label} codes are not counts and have their own pathwise gradient: draw them by relaxed(...).rsample(...)"
        )
    if degree > largest:
        raise ValueError(
            f"degree is {degree}, but {label} counts take too few values to have a weight above degree {largest}: use "
            f"degree={largest}"
        )
    return degree


def _polynomials(z: Tensor, mean: Tensor, curvature: Tensor | float, degree: int) -> tuple[Tensor, Tensor | None]:
    """p_2 / V, and p_3 / V^2 for degree 4, of counts of this mean with variance V = mean + curvature mean^2.

    From falling factorials of z for means below 1, where no two large terms are subtracted; else from z - mean.
    """
    few = mean < 1
    second, third = 1 + curvature, 1 + 2 * curvature
    variance = (mean * (1 + curvature * mean)).clamp_min(torch.finfo(mean.dtype).tiny)
    off, slope = z - mean, 1 + 2 * curvature * mean
    pairs = z * (z - 1)
    by_pairs = pairs - second * mean * (2 * z - mean)
    p2 = torch.where(few, by_pairs, (off - slope) * off - variance) / variance
    if degree < 4:
        return p2, None
    by_triples = pairs * (z - 2) - 3 * third * mean * pairs + third * second * mean.square() * (3 * z - mean)
    centred = (off - 2 * slope) * p2 - 2 * second * off
    return p2, torch.where(few, by_triples / variance, centred) / variance


def family_weight(z: Tensor, mean: Tensor, curvature: Tensor | float, degree: int) -> Tensor:
    """Weight by the natural parameter, d mean / d parameter = variance = mean + curvature mean^2."""
    slope = 1 + 2 * curvature * mean
    weight = 0.5 * (mean + slope * z)
    if degree < 3:
        return weight
    second, third = 1 + curvature, 1 + 2 * curvature
    p2, p3 = _polynomials(z, mean, curvature, degree)
    weight = weight - p2 / (12 * second)
    if p3 is None:
        return weight
    enough = mean * (1 + curvature * mean) >= MIN_VARIANCE
    return weight + torch.where(enough, slope * p3 / (24 * second * third), 0.0)


def poisson_weight(z: Float[Tensor, "*shape"], rate: Float[Tensor, "*shape"], degree: int) -> Float[Tensor, "*shape"]:
    """Weight by the log-rate at Poisson counts.

    Examples
    --------
    >>> poisson_weight(torch.tensor([0.0, 1.0, 2.0]), torch.ones(3), 2)
    tensor([0.5000, 1.0000, 1.5000])
    """
    return torch.lerp(rate, z, 0.5) if degree == 2 else family_weight(z, rate, 0.0, degree)


def binomial_weight(
    z: Float[Tensor, "*shape"], logit: Float[Tensor, "*shape"], n: Float[Tensor, "*#shape"] | int, degree: int
) -> Float[Tensor, "*shape"]:
    """Weight by the log odds at counts of n slots; of the slots without a spike where these are fewer."""
    rare = torch.sigmoid(-logit.abs())
    return family_weight(torch.where(logit > 0, n - z, z), n * rare, -1.0 / n, degree)


def negative_binomial_weights(
    z: Float[Tensor, "*shape"], log_mean: Float[Tensor, "*shape"], log_dispersion: Float[Tensor, "*shape"], degree: int
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Weights by the log mean and by the log dispersion, each with the other one constant."""
    mean, curvature = log_mean.exp(), (-log_dispersion).exp()
    excess = (log_mean - log_dispersion).exp()  # V = mean (1 + excess)
    by_mean = family_weight(z, mean, curvature, degree) / (1 + excess)
    total = 0.5 * (z - mean)
    if degree > 2:
        second, third = 1 + curvature, 1 + 2 * curvature
        p2, p3 = _polynomials(z, mean, curvature, degree)
        total = total + (3 + 2 * excess) / (12 * second) * p2
        if p3 is not None:
            last = (1 + (4 + 2 * excess) * excess) / (24 * second * third) * p3
            total = total - torch.where(mean * (1 + excess) >= MIN_VARIANCE, last, 0.0)
    return by_mean, -torch.sigmoid(log_mean - log_dispersion) * total


def attached(z: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """z with the gradient `weight` by each `parameter`, given as pairs (parameter, weight); once differentiable."""
    z = z.detach()
    (first, weight), *others = parts
    result: Tensor = Pathwise.apply(first, z, weight.detach())
    for parameter, weight in others:
        result = result + Pathwise.apply(parameter, torch.zeros_like(z), weight.detach())
    return result


def from_two_moments(
    z: Float[Tensor, "*#shape"], mean: Float[Tensor, "*#shape"], variance: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Counts whose gradient is that of degree 2, for any distribution with a differentiable mean and variance.

    Examples
    --------
    >>> rate = torch.ones(1, requires_grad=True)
    >>> from_two_moments(torch.tensor([3.0]), rate, rate).backward()  # 1 + (3 - 1) / 2
    >>> rate.grad
    tensor([2.])
    """
    z = z.detach()
    log_variance = variance.clamp_min(torch.finfo(variance.dtype).tiny).log()
    stretch = 0.5 * (z - mean.detach()) * (log_variance - log_variance.detach())
    return z + ((mean - mean.detach()) + stretch)


def _product_moment(i: int, j: int, known: Sequence[Tensor]) -> Tensor:
    """E z_(i) z_(j) of falling factorials, from the factorial moments known[k] = E z_(k)."""
    terms = (math.comb(i, k) * math.comb(j, k) * math.factorial(k) * known[i + j - k] for k in range(min(i, j) + 1))
    return torch.stack(list(terms)).sum(0)


def _multipliers(z: Tensor, moments: Sequence[Tensor], degree: int) -> list[Tensor]:
    """The inverse Gram matrix of the falling factorials 1, z, z (z - 1), ... times their values at z.

    By elimination (L D L^T), which is orthogonalisation: `value[i]` becomes p_i(z), `size[i]` its mean square.
    """
    known = [torch.ones_like(moments[0]), *moments]
    falling, value, size = torch.ones_like(z), [torch.ones_like(z)], [known[0]]
    factor: list[list[Tensor]] = [[]]  # below the diagonal, row by row
    for i in range(1, degree):
        row: list[Tensor] = []
        for j in range(i):
            rest = _product_moment(i, j, known)
            for k in range(j):
                rest = rest - row[k] * factor[j][k] * size[k]
            row.append(rest / size[j])
        square, falling = _product_moment(i, i, known), falling * (z - (i - 1))
        orthogonal = falling
        for k in range(i):
            square = square - row[k].square() * size[k]
            orthogonal = orthogonal - row[k] * value[k]
        factor.append(row)
        value.append(orthogonal)
        size.append(square.clamp_min(torch.finfo(square.dtype).tiny))
    found = [v / s for v, s in zip(value, size)]
    if degree == 4:
        found[3] = torch.where(size[1] >= MIN_VARIANCE, found[3], 0.0)
    for i in reversed(range(degree)):
        for j in range(i + 1, degree):
            found[i] = found[i] - factor[j][i] * found[j]
    return found


def from_factorial_moments(
    z: Float[Tensor, "*#shape"], moments: Sequence[Float[Tensor, "*#shape"]], degree: int
) -> Float[Tensor, "*shape"]:
    """Counts whose gradient is that of this degree, from differentiable factorial moments; computed in float64.

    Parameters
    ----------
    z
        Counts.
    moments
        E z, E z (z - 1), E z (z - 1) (z - 2), ...: `2 * degree - 2` of them, float64, shaped like the counts.
    degree
        2, 3 or 4; the counts must take at least so many values.
    """
    wide = z.detach().double()
    multipliers = _multipliers(wide, [moment.detach() for moment in moments], degree)
    moved = [moment - moment.detach() for moment in moments[:degree]]
    total = torch.zeros_like(wide)
    for i, multiplier in enumerate(multipliers):
        for j in range(i + 1):
            ratio = GREGORY[j] * math.factorial(i) / math.factorial(i + 1 - j)
            total = total + ratio * multiplier * moved[i - j]
    return z.detach() + total.to(z.dtype)
