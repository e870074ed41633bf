"""Where a linear fit starts: at the code that becomes optimal when signals are small against firing rates.

In that limit every law is locally Gaussian: unit k carries a signal s_k, measured in standard deviations of its code,
at a coding rate of s_k^2 / 2, and adds noise of variance ||phi_k||^2. With a linear encoder and decoder the best such
code is known (`linear_limit`). For Poisson units it is the same at every firing rate: with a prior that follows the
posterior, the free energy does not know how many spikes carry the signal. A finite rate costs a remainder of the order
of the signal's variance over the rate, so of all rates at which the limit nearly holds the lowest is taken.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.amortised import AmortisedVAE

HIGHEST, STEP = 4.0, 0.5  # log firing rates tried: from the lowest asked for to this one
SLACK = 0.02  # relative distance from the lowest objective within which the lowest firing rate is taken
N_FIT, N_JUDGE = 2000, 1000  # stimuli from which decoder and prior are computed, and others by which rates are compared
RIDGE = 1e-7  # on the diagonal of a unit-diagonal matrix, for units that never fire


class Spectrum(NamedTuple):
    """Eigenvalues (D,) and vectors (D, D) in columns, largest first, of E[x x^T]; float64."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Spectrum":
        """Of stimuli (n, D)."""
        scale = x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
        moment = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for part in (x / scale).split(10_000):
            moment += (part.mT @ part).double()
        values, vectors = torch.linalg.eigh(moment / len(x))
        return cls(values.flip(0).clamp_min(0) * scale.double().square(), vectors.flip(1))


def linear_limit(eigenvalues: Tensor, beta: float, n_latents: int, noise_variance: float = 0.5) -> Tensor:
    r"""Free energy of the best linear code when signals are small against firing rates.

    A direction of variance e is coded through a unit of the code with gain w and written back with phi: squared
    error (1 - w phi)^2 e + phi^2, coding rate w^2 e / 2. At the minimum w phi = 1 - sqrt(b / 2e), and the direction
    contributes sqrt(2 b e) - b / 2 where e > b / 2, else it is left out and contributes e; b = 2 v beta.

    Parameters
    ----------
    eigenvalues
        (D,) of E[x x^T].
    beta
        Weight of the coding rate.
    n_latents
        K: at most so many directions are coded.
    noise_variance
        v of the Gaussian likelihood.

    Returns
    -------
    () nats per stimulus, without the constant D/2 log 2v. With K >= D units and unbounded firing rates the infimum of
    the Poisson free energy with an optimal prior is at most this.

    Examples
    --------
    >>> linear_limit(torch.tensor([8.0, 0.1]), beta=1.0, n_latents=2)
    tensor(3.6000)
    """
    values = eigenvalues.sort(descending=True).values
    b = 2 * noise_variance * beta
    coded = torch.where(values > b / 2, (2 * b * values).sqrt() - b / 2, values)
    k = min(n_latents, len(values))
    return (coded[:k].sum() + values[k:].sum()) / (2 * noise_variance)


def limit_encoder(spectrum: Spectrum, beta: float, n_latents: int, generator: torch.Generator) -> Tensor:
    """(K, D) weights w of the best linear code, in standard deviations of the code: signals are x @ w.T.

    The optimum is a subspace: the directions worth coding are spread over all units by a random rotation. One that
    leaves the sum over units alone, so that a decoder without bias can cancel what the units add at rest.
    """
    values = spectrum.values.clamp_min(1e-12)
    k = max(1, min(n_latents - 1, int((values > beta / 2).sum())))
    values, vectors = values[:k], spectrum.vectors[:, :k]
    product = 1 - (beta / (2 * values)).sqrt().clamp_max(0.99)
    gain = (product / (beta * values / 2).sqrt().clamp_min(1e-6)).sqrt()
    normal = torch.randn(n_latents, k, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(normal - normal.mean(0) if n_latents > 1 else normal).Q.to(values.device)
    return (rotation * gain) @ vectors.mT


def solve_decoder(second: Tensor, cross: Tensor) -> Tensor:
    """Dictionary that minimises the expected squared error, given E[z z^T] (..., K, K) and E[z x^T] (..., K, D).

    Solved in float64 on the scale of a unit diagonal; not finite where the moments are not.
    """
    scale = second.diagonal(dim1=-2, dim2=-1).double().clamp_min(1e-30).rsqrt()
    scaled = second.double() * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
    factor = torch.linalg.cholesky_ex(scaled).L
    solution = torch.cholesky_solve(cross.double() * scale.unsqueeze(-1), factor)
    return (solution * scale.unsqueeze(-1)).to(cross.dtype)


@torch.no_grad()
def start_at_linear_limit(
    model: AmortisedVAE,
    spectrum: Spectrum,
    stimuli: Tensor,
    *,
    beta: float,
    spike_price: float,
    lowest: float,
    generator: torch.Generator,
) -> float:
    """Set a linear model's encoder, decoder and prior; return the log firing rate it starts from.

    Of the log firing rates from `lowest` upwards, in steps of a half, the lowest is taken whose objective is within two
    per cent of the best of them, each with the optimal decoder and prior for its encoder.

    Parameters
    ----------
    model
        Linear encoder with bias, linear decoder without, Gaussian likelihood; changed in place.
    spectrum
        Of the training stimuli.
    stimuli
        (n, D) training stimuli; the first few thousand are used.
    beta, spike_price
        Of the objective.
    lowest
        Lowest log firing rate considered.
    generator
        Source of the rotation.

    References
    ----------
    For Gaussian codes this is the optimum of the linear VAE, probabilistic PCA: Lucas et al. (2019), arXiv 1911.02469.
    """
    variance = float(torch.exp(model.log_noise_variance))
    signal = limit_encoder(spectrum, 2 * variance * beta, model.n_latents, generator).to(stimuli)
    fit, judge = stimuli[:N_FIT], stimuli[N_FIT : N_FIT + N_JUDGE]
    if len(judge) < N_JUDGE:
        judge = fit
    top = max(lowest, HIGHEST if model.clamp is None else min(HIGHEST, model.clamp - 1))
    n_tried = 1 + int((top - lowest) // STEP) if model.law.has_rate else 1
    tried = [lowest + STEP * i for i in range(n_tried)]
    objectives = []
    clamp, model.clamp = model.clamp, None  # training bends the code to its bound; the limit's own code ignores it
    for log_rate in tried:
        _set_weights(model, signal, log_rate, fit)
        objectives.append(float(model(judge, beta, spike_price, exact=True).total))
    model.clamp = clamp
    usable = [value if math.isfinite(value) else math.inf for value in objectives]
    best = min(usable)
    chosen = next(r for r, value in zip(tried, usable) if value <= best + SLACK * abs(best))
    _set_weights(model, signal, chosen, fit)
    return chosen


def _set_weights(model: AmortisedVAE, signal: Tensor, log_rate: float, stimuli: Tensor) -> None:
    """The limit's encoder at this firing rate, with the prior and the decoder that are optimal for it."""
    residual = model.prior_mode != "closed_form"
    gain = model.law.signal_gain(log_rate)
    assert gain is not None, "the configuration allows this start only for laws that have the limit"
    weight = model.encoder.get_parameter("head.weight")
    weight.zero_()
    weight[: model.n_latents] = gain * signal
    model.encoder.get_parameter("head.bias").copy_(model.law.initial_raw(model.n_latents, log_rate, residual=residual))
    if residual and model.law.has_rate:
        for name, value in model.law.initial_prior(model.n_latents, log_rate, 0.0, torch.Generator()).items():
            getattr(model, f"prior_{name}").copy_(value)
    q = model.posterior(stimuli)
    if not residual:
        moments = q.moments().mean(-2)
        model.get_buffer("prior_moments").copy_(moments)
        for name, value in model.law.prior_from_moments(moments).items():
            model.get_buffer(f"prior_{name}").copy_(value)
    second = q.mean.mT @ q.mean / len(stimuli) + torch.diag(q.variance.mean(0))
    model.decoder.get_parameter("head.weight").copy_(solve_decoder(second, q.mean.mT @ stimuli / len(stimuli)).mT)
