r"""Learning along natural-gradient flows of decoder, noise and prior, without backpropagation.

With posteriors held fixed the free energy of a linear decoder with Gaussian pixels is quadratic in the dictionary,
:math:`\tfrac{1}{2v}\langle\|x\|^2 - 2\,\mathrm{tr}\,C^T\Phi + \mathrm{tr}\,\Phi^T E\,\Phi\rangle`, with the second
moments :math:`E = \langle\operatorname{diag}\mathrm{Var} z + \bar z \bar z^T\rangle` and
:math:`C = \langle \bar z x^T\rangle` of the posteriors. The Fisher information of the dictionary is the second moment
M of the prior, over v, so the natural-gradient flow

.. math:: \dot\Phi = -M^{-1} (E\,\Phi - C)

does not depend on the noise variance and is solved by a matrix exponential in the metric M. For the prior's mean
parameters and the noise variance the flow is the value of the batch minus the present value, so that both approach it
exponentially. Everything is local to a synapse except M and E, which are K x K for all pixels together.

References
----------
The learning scheme of Bernoulli FOND (Vafaii and colleagues), here for every law of the code; Amari (1998), Neural
Computation 10.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...distributions._law import Law
from .flows import relative_gain


class Moments(NamedTuple):
    """Moments of stimuli and posteriors; K' is K, or K + 1 with a last unit that is always one (bias)."""

    second: Float[Tensor, "units units"]
    """(K', K') mean of E[z z^T]."""
    cross: Float[Tensor, "units D"]
    """(K', D) mean of E[z] x^T."""
    square: Float[Tensor, ""]
    """Mean of x^2 over stimuli and pixels."""


def second_moment(
    mean: Float[Tensor, "B K"], variance: Float[Tensor, "B K"], *, bias: bool
) -> Float[Tensor, "units units"]:
    """(K', K') mean over stimuli of E[z z^T] for codes of these moments, each (B, K).

    Examples
    --------
    >>> second_moment(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]), bias=False)
    tensor([[1.5000, 2.0000],
            [2.0000, 4.0000]])
    """
    mean, variance = _with_one(mean, 1.0, bias), _with_one(variance, 0.0, bias)
    return torch.diag_embed(variance.mean(-2)) + mean.mT @ mean / mean.shape[-2]


def _with_one(code: Float[Tensor, "B K"], value: float, bias: bool) -> Float[Tensor, "B units"]:
    return torch.cat([code, torch.full_like(code[..., :1], value)], -1) if bias else code


def moments_of(x: Float[Tensor, "B D"], law: Law, *, bias: bool) -> Moments:
    """Moments of stimuli (B, D) and their posteriors (B, K)."""
    cross = _with_one(law.mean, 1.0, bias).mT @ x / x.shape[-2]
    return Moments(second_moment(law.mean, law.variance, bias=bias), cross, x.square().mean())


def decoder_after_flow(
    weights: Float[Tensor, "units D"], moments: Moments, metric: Float[Tensor, "units units"], time: float
) -> Float[Tensor, "units D"]:
    """Decoder weights (K', D) after their natural-gradient flow for `time` with posteriors and prior fixed.

    Parameters
    ----------
    metric
        (K', K') second moment of the prior.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> decoder_after_flow(torch.zeros(1, 1), Moments(one, one, one), one, 1.0)  # 1 - exp(-1)
    tensor([[0.6321]])
    """
    scale = metric.diagonal(dim1=-2, dim2=-1).rsqrt().unsqueeze(-1)  # normalises the metric to a unit diagonal
    root = torch.linalg.cholesky(scale * metric * scale.mT)

    def whitened(matrix: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(root, scale * matrix, upper=False)

    eigenvalues, modes = torch.linalg.eigh(whitened(whitened(moments.second).mT))
    eigenvalues = eigenvalues.clamp_min(0).unsqueeze(-1)  # negative only by rounding
    slope = modes.mT @ whitened(moments.second @ weights - moments.cross)
    change = modes @ (time * relative_gain(eigenvalues * time) * slope)
    return weights - scale * torch.linalg.solve_triangular(root.mT, change, upper=True)


def residual_variance(weights: Float[Tensor, "units D"], moments: Moments) -> Float[Tensor, ""]:
    """() mean expected squared error per pixel, the noise variance that maximises the likelihood."""
    n_pixels = weights.shape[-1]
    explained = (weights * (2 * moments.cross - moments.second @ weights)).sum((-2, -1))
    return moments.square - explained / n_pixels


def approach(value: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], time: float) -> Float[Tensor, "*shape"]:
    """`value` after an exponential approach to `target` with time constant one for `time`."""
    share = -torch.expm1(torch.full_like(value, -time))
    return torch.lerp(value, target, share)


def flow_ends(
    x: Float[Tensor, "B D"],
    law: Law,
    prior: Law,
    dictionary: Float[Tensor, "K D"],
    bias: Float[Tensor, " D"] | None,
    noise_variance: Float[Tensor, ""] | None,
    time: float,
    *,
    learns_prior: bool,
) -> dict[str, Float[Tensor, "..."]]:
    """The learned parameters of a model after their natural-gradient flow for `time`, by name.

    Parameters
    ----------
    law
        Posteriors (B, K) of the stimuli `x` (B, D).
    dictionary, bias
        (K, D) and (D,) of the decoder; None without bias.
    noise_variance
        () of a pixel; None if it is not learned.
    """
    found = moments_of(x, law, bias=bias is not None)
    metric = second_moment(prior.mean.unsqueeze(0), prior.variance.unsqueeze(0), bias=bias is not None)
    weights = dictionary if bias is None else torch.cat([dictionary, bias.unsqueeze(0)])
    found = Moments(*(torch.nan_to_num(part) for part in found))  # NaN of one fit must not stop the rest of a stack
    end = decoder_after_flow(weights, found, torch.nan_to_num(metric), time)
    ends = {"decoder.head.weight": end[: len(dictionary)].mT}
    if bias is not None:
        ends["decoder.head.bias"] = end[-1]
    if noise_variance is not None:
        variance = approach(noise_variance, residual_variance(weights, found), time)
        ends["log_noise_variance"] = variance.clamp_min(torch.finfo(variance.dtype).tiny).log()
    if learns_prior:
        moments = approach(prior.moments(), law.moments().mean(-2), time)
        ends |= {f"prior_{name}": value for name, value in type(law).prior_from_moments(moments).items()}
    return ends


def zero_with_gradient(value: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """() zero, with the gradient `value - end` with respect to `value`."""
    gradient = (value - end).detach()
    return (gradient * (value - value.detach())).sum()
