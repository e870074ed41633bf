r"""Learning by natural gradient, without back-propagation: the decoder flows, noise and prior relax.

With posteriors held fixed the free energy of a linear decoder with Gaussian pixels is quadratic in the dictionary,
:math:`\tfrac1{2v}\langle\|x\|^2 - 2\,\mathrm{tr}\,C^T\Phi + \mathrm{tr}\,\Phi^T E\,\Phi\rangle`, with the second
moments :math:`E = \langle\operatorname{diag}\mathrm{Var} z + \bar z \bar z^T\rangle` and
:math:`C = \langle \bar z x^T\rangle` of the posteriors. The Fisher information of the dictionary is the second moment
M of the prior, over v, so the natural-gradient flow

.. math:: \dot\Phi = -M^{-1} (E\,\Phi - C)

holds no noise variance and is solved by a matrix exponential in the metric M. In the prior's mean parameters and in the
noise variance the natural gradient points at the batch's own, at unit speed: both relax exponentially. Everything is
local to a synapse but M and E, which are K x K for all pixels together.

References
----------
The learning scheme of Bernoulli FOND (Vafaii and colleagues), here for every law of the code; Amari (1998), Neural
Computation 10.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...distributions._law import Law
from .flows import relative_gain


class Moments(NamedTuple):
    """What a batch's posteriors say to the decoder; K' is K, or K + 1 with a last unit that is always one (bias)."""

    second: Tensor
    """(K', K') mean of E[z z^T]."""
    cross: Tensor
    """(K', D) mean of E[z] x^T."""
    square: Tensor
    """Mean of x^2 over stimuli and pixels."""


def second_moment(mean: Tensor, variance: Tensor, *, bias: bool) -> Tensor:
    """(K', K') mean over stimuli of E[z z^T] for codes of these moments, each (B, K).

    Examples
    --------
    >>> second_moment(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]), bias=False)
    tensor([[1.5000, 2.0000],
            [2.0000, 4.0000]])
    """
    mean, variance = _with_one(mean, 1.0, bias), _with_one(variance, 0.0, bias)
    return torch.diag_embed(variance.mean(-2)) + mean.mT @ mean / mean.shape[-2]


def _with_one(code: Tensor, value: float, bias: bool) -> Tensor:
    return torch.cat([code, torch.full_like(code[..., :1], value)], -1) if bias else code


def moments_of(x: Tensor, law: Law, *, bias: bool) -> Moments:
    """Moments of stimuli (B, D) and their posteriors (B, K)."""
    cross = _with_one(law.mean, 1.0, bias).mT @ x / x.shape[-2]
    return Moments(second_moment(law.mean, law.variance, bias=bias), cross, x.square().mean())


def flowed_decoder(weights: Tensor, moments: Moments, metric: Tensor, time: float) -> Tensor:
    """Decoder weights (K', D) after their natural-gradient flow for `time` with posteriors and prior held fixed.

    Parameters
    ----------
    metric
        (K', K') second moment of the prior.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> flowed_decoder(torch.zeros(1, 1), Moments(one, one, one), one, 1.0)  # 1 - exp(-1)
    tensor([[0.6321]])
    """
    scale = metric.diagonal(dim1=-2, dim2=-1).rsqrt().unsqueeze(-1)  # units of one firing rate each
    root = torch.linalg.cholesky(scale * metric * scale.mT)

    def whitened(matrix: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(root, scale * matrix, upper=False)

    rates, modes = torch.linalg.eigh(whitened(whitened(moments.second).mT))
    rates = rates.clamp_min(0).unsqueeze(-1)  # a second moment has none below zero but by rounding
    slope = modes.mT @ whitened(moments.second @ weights - moments.cross)
    change = modes @ (time * relative_gain(rates * time) * slope)
    return weights - scale * torch.linalg.solve_triangular(root.mT, change, upper=True)


def residual_variance(weights: Tensor, moments: Moments) -> Tensor:
    """Mean expected squared error of a pixel: the noise variance of the highest likelihood."""
    n_pixels = weights.shape[-1]
    explained = (weights * (2 * moments.cross - moments.second @ weights)).sum((-2, -1))
    return moments.square - explained / n_pixels


def relaxed(value: Tensor, target: Tensor, time: float) -> Tensor:
    """`value` after relaxing towards `target` at unit speed for `time`."""
    share = -torch.expm1(torch.full_like(value, -time))
    return torch.lerp(value, target, share)
