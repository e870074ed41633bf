"""The decoder by least squares, and the prior in closed form, of a linear model whose encoder is given."""

import torch
from torch import Tensor

from ..models.amortised import AmortisedVAE
from .ranks import Ranks

RIDGE = 1e-7  # added to the unit diagonal, for units that never fire
STIMULI_AT_ONCE = 5000


def solve_decoder(second: Tensor, cross: Tensor) -> Tensor:
    """Dictionary that minimises the expected squared error, given E[z z^T] (..., K, K) and E[z x^T] (..., K, D).

    Solved in float64 after scaling to a unit diagonal; not finite where the moments are not.
    """
    scale = second.diagonal(dim1=-2, dim2=-1).double().clamp_min(1e-30).rsqrt()
    scaled = second.double() * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
    factor = torch.linalg.cholesky_ex(scaled).L
    solution = torch.cholesky_solve(cross.double() * scale.unsqueeze(-1), factor)
    return (solution * scale.unsqueeze(-1)).to(cross.dtype)


@torch.no_grad()
def set_optimal_decoder_and_prior(model: AmortisedVAE, stimuli: Tensor, ranks: Ranks | None = None) -> None:
    """Set the dictionary, and a prior in closed form, to those that are optimal for the codes of these stimuli (n, D).

    A dictionary that is not finite is not taken. `ranks` are processes that code a share of the stimuli each.
    """
    k, d = model.n_latents, stimuli.shape[1]
    second, cross, variance = stimuli.new_zeros(k, k), stimuli.new_zeros(k, d), stimuli.new_zeros(k)
    closed_form = model.prior_mode == "closed_form"
    moments = torch.zeros_like(model.get_buffer("prior_moments")) if closed_form else None
    own = stimuli if ranks is None else stimuli[ranks.rank :: ranks.size]
    for x in own.split(STIMULI_AT_ONCE):
        q = model.posterior(x)
        second += q.mean.mT @ q.mean / len(stimuli)
        cross += q.mean.mT @ x / len(stimuli)
        variance += q.variance.sum(0) / len(stimuli)
        if moments is not None:
            moments += q.moments().sum(-2) / len(stimuli)
    if ranks is not None:
        second, cross, variance = (ranks.sum(part) for part in (second, cross, variance))
        moments = None if moments is None else ranks.sum(moments)
    if moments is not None:
        model.get_buffer("prior_moments").copy_(moments)
        for name, value in model.law.prior_from_moments(moments).items():
            model.get_buffer(f"prior_{name}").copy_(value)
    dictionary = solve_decoder(second + torch.diag(variance), cross).mT
    if torch.isfinite(dictionary).all():
        model.decoder.get_parameter("head.weight").copy_(dictionary)
