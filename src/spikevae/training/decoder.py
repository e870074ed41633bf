"""The decoder by least squares, and the prior in closed form, of a linear model whose encoder is given."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.amortised import MAX_SOLVED_UNITS, AmortisedVAE
from .ranks import Ranks

RIDGE = 1e-7  # added to the unit diagonal, for units that never fire
STIMULI_AT_ONCE = 5000
AVERAGED_STEPS = 50
"""Steps over which second moments are averaged while a fit trains."""


class DecoderMoments:
    """Running second moments of codes, and of codes and stimuli, of fits whose decoders are solved while they train.

    Parameters
    ----------
    n_fits, n_latents
        F, K; the tensors are empty for K = 0.
    like
        (n, D) stimuli.
    """

    def __init__(self, n_fits: int, n_latents: int, like: Tensor) -> None:
        self.second = like.new_zeros(n_fits, n_latents, n_latents)
        self.cross = like.new_zeros(n_fits, n_latents, like.shape[1])

    @staticmethod
    def of_batch(x: Tensor, code: Tensor) -> list[Tensor]:
        """Means over a batch of products of codes, (F, K, K), and of codes and stimuli, (F, K, D)."""
        return [code.mT @ code / code.shape[1], code.mT @ x.expand(len(code), -1, -1) / code.shape[1]]

    def add(self, x: Tensor, code: Tensor, variance: Tensor, *, step: int, of_all: Sequence[Tensor] = ()) -> None:
        """Add a batch: stimuli (B, D) or (F, B, D), mean codes (F, B, K) and their mean variances (F, K).

        `of_all` is :meth:`of_batch` of the whole batch where several processes train, each with a part of it.
        """
        fresh = max(1 / (step + 1), 1 / AVERAGED_STEPS)
        if of_all:
            for mean, value in zip((self.second, self.cross), of_all):
                mean.mul_(1 - fresh).add_(value, alpha=fresh)
        else:
            share = fresh / code.shape[1]
            self.second.baddbmm_(code.mT, code, beta=1 - fresh, alpha=share)
            self.cross.baddbmm_(code.mT, x.expand(len(code), -1, -1), beta=1 - fresh, alpha=share)
        self.second.diagonal(dim1=1, dim2=2).add_(variance, alpha=fresh)

    def solve(self, stored: Tensor, which: Tensor) -> None:
        """Set the decoders' weights (F, D, K) of the fits (F,) to the best for these moments, where they are finite."""
        solved = solve_decoder(self.second, self.cross).mT
        usable = which & torch.isfinite(solved.flatten(1)).all(1)
        stored.copy_(torch.where(usable.view(-1, 1, 1), solved, stored))

    def state(self) -> dict[str, Tensor]:
        """Tensors that :meth:`load` takes back."""
        return {"ledger/second": self.second, "ledger/cross": self.cross}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a :meth:`state`."""
        for own, name in ((self.second, "ledger/second"), (self.cross, "ledger/cross")):
            own.copy_(tensors[name])


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


def solve_decoder_of_codes(mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    """The same dictionary as :func:`solve_decoder`, for fewer stimuli than units: the time is linear in the units.

    Parameters
    ----------
    mean, variance, x
        (n, K) means of the codes, (K,) means of their variances, (n, D) stimuli.

    Returns
    -------
    (K, D), by the identity of Woodbury: ``(W + Z^T Z)^-1 Z^T X = W^-1 Z^T (1 + Z W^-1 Z^T)^-1 X``.
    """
    z, v = mean.double() / len(x) ** 0.5, variance.double()
    scale = (z.square().sum(0) + v).clamp_min(1e-30).rsqrt()
    z *= scale
    weight = 1 / (v * scale.square() + RIDGE)  # of units, on the unit diagonal
    inner = (z * weight) @ z.mT
    inner.diagonal().add_(1)
    solution = torch.cholesky_solve(x.double() / len(x) ** 0.5, torch.linalg.cholesky_ex(inner).L)
    return ((z.mT @ solution) * (weight * scale)[:, None]).to(x.dtype)


@torch.no_grad()
def set_optimal_decoder_and_prior(model: AmortisedVAE, stimuli: Tensor, ranks: Ranks | None = None) -> None:
    """Set the dictionary, and a prior in closed form, to those that are optimal for the codes of these stimuli (n, D).

    A dictionary that is not finite is not taken. `ranks` are processes that code a share of the stimuli each.
    """
    k, d = model.n_latents, stimuli.shape[1]
    few = ranks is None and k > MAX_SOLVED_UNITS and len(stimuli) <= STIMULI_AT_ONCE
    second, cross, variance = stimuli.new_zeros(0 if few else k, k), stimuli.new_zeros(k, d), stimuli.new_zeros(k)
    closed_form = model.prior_mode == "closed_form"
    moments = torch.zeros_like(model.get_buffer("prior_moments")) if closed_form else None
    own = stimuli if ranks is None else stimuli[ranks.rank :: ranks.size]
    for x in own.split(STIMULI_AT_ONCE):
        q = model.posterior(x)
        if few:
            codes = q.mean  # of all stimuli: there is one part
        else:
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
    if few:
        dictionary = solve_decoder_of_codes(codes, variance, own).mT
    else:
        dictionary = solve_decoder(second + torch.diag(variance), cross).mT
    if torch.isfinite(dictionary).all():
        model.decoder.get_parameter("head.weight").copy_(dictionary)
