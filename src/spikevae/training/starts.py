"""Initial weights of linear fits: the code that is optimal in the limit of signals small against firing rates.

In this limit every distribution is locally Gaussian: unit k codes a signal s_k, in standard deviations of its code, at
a coding rate of s_k^2 / 2, and adds noise of variance ||phi_k||^2. With a linear encoder and decoder the best such code
is known (`linear_limit`). For Poisson units it is the same at every firing rate: with a prior that follows the
posterior, the free energy does not depend on the number of spikes. At a finite firing rate the free energy differs from
the limit by the order of the signal's variance over the firing rate. The lowest firing rate is chosen at which the
limit nearly holds.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.amortised import AmortisedVAE

MAX_LOG_RATE, LOG_RATE_STEP = 4.0, 0.5  # largest log firing rate tried, and distance between two of them
OBJECTIVE_TOLERANCE = 0.02  # relative distance from the lowest objective within which a firing rate is accepted
N_FIT, N_COMPARE = 2000, 1000  # stimuli from which decoder and prior are computed; others that compare firing rates
MIN_RELATIVE_BETA = 3e-5  # of the largest eigenvalue: below, signals saturate at every rate, distortion rises again
RIDGE = 1e-7  # added to the unit diagonal, for units that never fire


class Spectrum(NamedTuple):
    """Eigenvalues (D,), largest first, and eigenvectors (D, D) in columns, of E[x x^T]; float64."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Spectrum":
        """Spectrum of stimuli (n, D)."""
        scale = x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
        moment = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for part in (x / scale).split(10_000):
            moment += (part.mT @ part).double()
        values, vectors = torch.linalg.eigh(moment / len(x))
        return cls(values.flip(0).clamp_min(0) * scale.double().square(), vectors.flip(1))


def linear_limit(eigenvalues: Tensor, beta: float, n_latents: int, noise_variance: float = 0.5) -> Tensor:
    r"""Free energy of the best linear code when signals are small against firing rates.

    A direction of variance e is encoded by a unit with gain w and decoded with phi: squared error
    (1 - w phi)^2 e + phi^2, coding rate w^2 e / 2. At the minimum w phi = 1 - sqrt(b / 2e), and the direction
    contributes sqrt(2 b e) - b / 2 where e > b / 2, else it is not coded and contributes e; b = 2 v beta.

    Parameters
    ----------
    eigenvalues
        (D,) of E[x x^T].
    beta
        Weight of the coding rate.
    n_latents
        K, the largest number of directions that are coded.
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

    The optimum is a subspace: a random rotation spreads the coded directions over all units. Its columns sum to zero
    over units, so that a decoder without bias can cancel the mean code. Gains grow without bound as beta goes to zero:
    beta is at least `MIN_RELATIVE_BETA` times the largest eigenvalue.
    """
    values = spectrum.values.clamp_min(1e-12)
    beta = max(beta, MIN_RELATIVE_BETA * float(values[0]))
    k = max(1, min(n_latents - 1, int((values > beta / 2).sum())))
    values, vectors = values[:k], spectrum.vectors[:, :k]
    product = 1 - (beta / (2 * values)).sqrt().clamp_max(0.99)
    gain = (product / (beta * values / 2).sqrt()).sqrt()
    normal = torch.randn(n_latents, k, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(normal - normal.mean(0) if n_latents > 1 else normal).Q.to(values.device)
    return (rotation * gain) @ vectors.mT


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
    """Set a linear model's encoder, decoder and prior; return its initial log firing rate.

    Log firing rates from `lowest` upwards in steps of 0.5 are compared, each with the optimal decoder and prior for its
    encoder. The lowest one is chosen whose objective is within 2 % of the best.

    Parameters
    ----------
    model
        Linear encoder with bias, linear decoder without, Gaussian likelihood; changed in place.
    spectrum
        Spectrum of the training stimuli.
    stimuli
        (n, D) training stimuli; the first few thousand are used.
    beta, spike_price
        Weights of the objective.
    lowest
        Lowest log firing rate considered.
    generator
        Draws the rotation.

    References
    ----------
    For Gaussian codes this is the optimum of the linear VAE, probabilistic PCA: Lucas et al. (2019), arXiv 1911.02469.
    """
    variance = float(torch.exp(model.log_noise_variance))
    signal = limit_encoder(spectrum, 2 * variance * beta, model.n_latents, generator).to(stimuli)
    fit, compare = stimuli[:N_FIT], stimuli[N_FIT : N_FIT + N_COMPARE]
    if len(compare) < N_COMPARE:
        compare = fit
    top = max(lowest, MAX_LOG_RATE if model.clamp is None else min(MAX_LOG_RATE, model.clamp - 1))
    n_tried = 1 + int((top - lowest) // LOG_RATE_STEP) if model.law.has_rate else 1
    tried = [lowest + LOG_RATE_STEP * i for i in range(n_tried)]
    objectives = []
    clamp, model.clamp = model.clamp, None  # the clamp bounds log rates smoothly in training; the limit has none
    for log_rate in tried:
        _set_weights(model, signal, log_rate, fit)
        objectives.append(float(model(compare, beta, spike_price, exact=True).total))
    model.clamp = clamp
    usable = [value if math.isfinite(value) else math.inf for value in objectives]
    best = min(usable)
    chosen = next(r for r, value in zip(tried, usable) if value <= best + OBJECTIVE_TOLERANCE * abs(best))
    _set_weights(model, signal, chosen, fit)
    return chosen


def _set_weights(model: AmortisedVAE, signal: Tensor, log_rate: float, stimuli: Tensor) -> None:
    """Set the limit's encoder at this firing rate, and the prior and the decoder that are optimal for it."""
    residual = model.prior_mode != "closed_form"
    gain = model.law.signal_gain(log_rate)
    assert gain is not None, "the configuration allows this start only for distributions with this limit"
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
