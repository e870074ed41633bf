"""Initial weights of linear fits: the code that is optimal in the limit of signals small against firing rates.

In this limit every distribution is locally Gaussian: unit k codes a signal s_k, in standard deviations of its code, at
a coding rate of s_k^2 / 2, and adds noise of variance ||phi_k||^2. With a linear encoder and decoder the best such code
is known (`linear_limit`). For Poisson units it is the same at every firing rate: with a prior that follows the
posterior, the free energy does not depend on the number of spikes. At a finite firing rate the free energy differs from
the limit by the order of the signal's variance over the firing rate. The lowest firing rate is chosen whose free energy
is near the least.

This choice takes about fifty solutions for the decoder, each of a time that is cubic in the number of units.
In the limit the directions that are coded do not depend on each other. Large fits therefore compare firing rates with a
share of the units and with the same share of the eigenvectors, evenly spaced in the order of their eigenvalues
(`thinning`), and solve for the decoder of all units once.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..models._model import Model
from ..models.amortised import AmortisedConfig, AmortisedVAE
from ..progress import OnPhase, silent
from .decoder import set_optimal_decoder_and_prior
from .spread import spread_over_units

MAX_LOG_RATE, LOG_RATE_STEP = 4.0, 0.5  # largest log firing rate tried, and distance between two of them
OBJECTIVE_TOLERANCE = 0.006  # rise of the objective, relative to it, that is accepted for a lower firing rate: times
MAX_OBJECTIVE_TOLERANCE = 0.04  # the squared number of units per coded direction, and at most this
GAIN_TOLERANCE = 0.15  # the same, relative to what the code gains over silence
HOPELESS = 0.1  # relative rise of the objective from which lower firing rates are not tried
GAIN_STEP, MIN_GAIN = 0.88, 0.02  # from one gain of the encoder that is tried to the next, and the smallest
N_SPREAD = 10_000  # stimuli from which independent components are found
N_FIT, N_COMPARE = 4000, 2000  # stimuli from which decoder and prior are computed; others that compare firing rates
MAX_OPERATIONS = 1e10  # multiplications of one comparison, up to which firing rates are compared with all units
THINNED_UNITS = 256  # beyond, they are compared with about this number of units
MIN_RELATIVE_BETA = 3e-5  # of the largest eigenvalue: below, signals saturate at every rate, distortion rises again
SOLUTIONS = 50  # solutions for the decoder that a comparison of firing rates takes, about
ANNOUNCED = 5e10  # multiplications from which on a phase is announced: about two seconds of a CPU core


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


def n_coded_directions(spectrum: Spectrum, beta: float, n_latents: int) -> int:
    """Number of directions that the best linear code transmits: their variance exceeds half of beta.

    One unit is left over, so that a decoder without bias can cancel the mean code.
    """
    beta = max(beta, MIN_RELATIVE_BETA * float(spectrum.values[0]))
    return max(1, min(n_latents - 1, int((spectrum.values > beta / 2).sum())))


def limit_encoder(
    spectrum: Spectrum, beta: float, n_latents: int, stimuli: Tensor, generator: torch.Generator
) -> Tensor:
    """(K, D) weights w of the best linear code, in standard deviations of the code: signals are x @ w.T.

    The optimum is a subspace. :func:`spread_over_units` chooses how its directions are spread over the units, from
    these `stimuli`. Gains grow without bound as beta goes to zero: beta is at least `MIN_RELATIVE_BETA` times the
    largest eigenvalue.
    """
    values = spectrum.values.clamp_min(1e-12)
    k = n_coded_directions(spectrum, beta, n_latents)
    beta = max(beta, MIN_RELATIVE_BETA * float(values[0]))
    values, vectors = values[:k], spectrum.vectors[:, :k]
    product = 1 - (beta / (2 * values)).sqrt().clamp_max(0.99)
    gain = (product / (beta * values / 2).sqrt()).sqrt()
    spread = spread_over_units(stimuli[:N_SPREAD] @ vectors.to(stimuli), n_latents, generator)
    return (spread.to(vectors) * gain) @ vectors.mT


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
    on_phase: OnPhase = silent,
) -> float:
    """Set a linear model's encoder, decoder and prior; return its initial log firing rate.

    Log firing rates from `lowest` upwards are compared, each with the gain of the encoder that is best for it and with
    the optimal decoder and prior for this encoder. The lowest one is chosen whose objective exceeds the least by no
    more than 0.6 % of it, times the squared number of units per coded direction, and no more than 4 % of it and 15 % of
    what the code gains over silence. Training removes most of this excess, and more of it where there are more units.
    Large fits compare with a share of the units and directions, see :func:`thinning`.

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
    on_phase
        Called with what is done next, where it may take over two seconds.

    References
    ----------
    For Gaussian codes this is the optimum of the linear VAE, probabilistic PCA: Lucas et al. (2019), arXiv 1911.02469.
    """
    stimuli = stimuli[:N_SPREAD].clone()  # rounding depends on the place in memory
    step, operations = thinning(model.n_latents, stimuli.shape[1]), _operations(model.n_latents, stimuli.shape[1])
    if step > 1:
        on_phase(f"directions of {model.n_latents:,} units")
    signal = _signal(model, spectrum, beta, stimuli, generator)
    clamp, model.clamp = model.clamp, None  # the clamp bounds log rates smoothly in training; the limit has none
    top = MAX_LOG_RATE if clamp is None else min(MAX_LOG_RATE, clamp - 1)
    if step == 1:
        if SOLUTIONS * operations > ANNOUNCED:
            on_phase("comparison of firing rates")
        compare = _Comparison(model, signal, stimuli, beta, spike_price)
        rate = _best_rate(compare, spectrum, lowest, top)
    else:
        on_phase(f"comparison of firing rates, with one of {step} units")
        small, part, seen = _thinned(model, spectrum, stimuli, step, generator)
        compare = _Comparison(small, _signal(small, part, beta, seen, generator), seen, beta, spike_price)
        rate = _best_rate(compare, part, lowest, top)
        on_phase(f"decoder of {model.n_latents:,} units")
    _set_weights(model, compare.gain * signal, rate, stimuli[:N_FIT])
    model.clamp = clamp
    return rate


def thinning(n_latents: int, n_pixels: int) -> int:
    """One of how many units and directions take part where firing rates are compared: 1 but for large fits.

    Examples
    --------
    >>> thinning(1024, 1024), thinning(3072, 768), thinning(16384, 2304)
    (1, 12, 64)
    """
    within = _operations(n_latents, n_pixels) <= MAX_OPERATIONS
    return 1 if within else max(1, math.ceil(n_latents / THINNED_UNITS))


def _operations(n_latents: int, n_pixels: int) -> float:
    """Multiplications of one comparison: second moments of the codes, and the solution for the decoder."""
    return N_FIT * n_latents * (n_latents + n_pixels) + n_latents**3 / 3 + n_latents**2 * n_pixels


def _thinned(
    model: AmortisedVAE, spectrum: Spectrum, stimuli: Tensor, step: int, generator: torch.Generator
) -> tuple[AmortisedVAE, Spectrum, Tensor]:
    """The model with one of `step` units, for stimuli along one of `step` eigenvectors; their spectrum and values."""
    chosen = slice(min(step // 2, len(spectrum.values) - 1), None, step)
    values, vectors = spectrum.values[chosen], spectrum.vectors[:, chosen]
    config = model.config.model_copy(update={"n_latents": max(1, model.n_latents // step)})
    small = AmortisedVAE((len(values),), cast(AmortisedConfig, config), generator).to(stimuli)
    small.clamp = None
    part = Spectrum(values, torch.eye(len(values), dtype=values.dtype, device=values.device))
    return small, part, stimuli @ vectors.to(stimuli)


def _signal(
    model: AmortisedVAE, spectrum: Spectrum, beta: float, stimuli: Tensor, generator: torch.Generator
) -> Tensor:
    """(K, D) weights of :func:`limit_encoder` for this model and its noise of the pixels."""
    variance = float(torch.exp(model.log_noise_variance))
    return limit_encoder(spectrum, 2 * variance * beta, model.n_latents, stimuli, generator).to(stimuli)


def _best_rate(compare: "_Comparison", spectrum: Spectrum, lowest: float, top: float) -> float:
    """The log firing rate at which to start; sets the gain that is best for it."""
    model, (beta, _) = compare.model, compare.weights
    if not model.law.has_rate:
        rate = lowest
    else:
        variance = float(torch.exp(model.log_noise_variance))
        n_pixels = compare.held_out.shape[1]
        silent = float(compare.held_out.square().sum(-1).mean()) / (2 * variance)
        silent += 0.5 * n_pixels * math.log(2 * variance)
        units = model.n_latents / n_coded_directions(spectrum, 2 * variance * beta, model.n_latents)
        tolerance = min(OBJECTIVE_TOLERANCE * units**2, MAX_OBJECTIVE_TOLERANCE)
        rate = _lowest_rate(compare, lowest, max(lowest, top), silent, tolerance)
    compare.gain = 1.0
    compare(rate)
    return rate


@torch.no_grad()
def start_at_mean_counts(models: Sequence[Model], counts: Tensor) -> None:
    """Set the bias of decoders of counts (n, D) to the logarithm of their means; others have none."""
    mean = (counts.mean(0) + 1 / (len(counts) + 1)).log()  # those that are all zero have about that of one count
    for model in models:
        bias = dict(model.named_parameters()).get("decoder.head.bias")
        if bias is not None:
            bias.copy_(mean if bias.shape == mean.shape else mean.exp().mean().log().expand_as(bias))


class _Comparison:
    """The objective at a log firing rate, with the best gain of the encoder, at most one step above the last one."""

    def __init__(self, model: AmortisedVAE, signal: Tensor, stimuli: Tensor, beta: float, spike_price: float) -> None:
        self.model, self.signal, self.weights = model, signal, (beta, spike_price)
        self.fit, self.held_out = stimuli[:N_FIT], stimuli[N_FIT : N_FIT + N_COMPARE]
        if len(self.held_out) < N_COMPARE:
            self.held_out = self.fit
        self.gain = 1.0

    def __call__(self, log_rate: float) -> float:
        """Objective, infinite where it is not finite; `gain` is lowered step by step until the objective rises."""
        gain = self.gain = min(1.0, self.gain / GAIN_STEP)
        least = math.inf
        while gain > MIN_GAIN:
            _set_weights(self.model, gain * self.signal, log_rate, self.fit)
            value = float(self.model(self.held_out, *self.weights, exact=True).total)
            if value >= least:
                break
            if math.isfinite(value):
                least, self.gain = value, gain
            gain *= GAIN_STEP
        return least


def _lowest_rate(
    objective: Callable[[float], float], lowest: float, top: float, silent: float, tolerance: float
) -> float:
    """Lowest log rate in [lowest, top] at which the objective is near its least value; see the caller."""
    tried: list[tuple[float, float]] = []
    least = limit = math.inf
    rate = top
    while rate >= lowest:
        tried.append((rate, objective(rate)))
        least = min(least, tried[-1][1])
        limit = least + min(tolerance * abs(least), GAIN_TOLERANCE * max(0.0, silent - least))
        if tried[-1][1] > least + HOPELESS * abs(least):
            break
        rate -= LOG_RATE_STEP
    usable = [i for i, (_, value) in enumerate(tried) if value <= limit]
    last = usable[-1] if usable else 0
    if last + 1 == len(tried) or not math.isfinite(tried[last + 1][1]):
        return tried[last][0]
    (rate, inside), (_, outside) = tried[last], tried[last + 1]
    return rate - LOG_RATE_STEP * (limit - inside) / (outside - inside)


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
    set_optimal_decoder_and_prior(model, stimuli)
