"""Compute the `Metrics` of a model on stimuli."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .._scope import own_scope
from .._seeds import checked_seed
from ..metrics.coding import active_units, bits, bits_per_spike, fano_of_sums, prior_posterior_gap
from ..metrics.reconstruction import r2_of_sums, r2_pooled_of_sums
from ..metrics.sparsity import sparseness_of_sums
from ..models._model import Model
from ..models.config import COUNT_LIKELIHOODS
from ..models.pixels import check_support
from .evidence import Evidence, check_evidence, evidence_of
from .inputs import checked
from .metrics import Metrics as Metrics
from .prices import PRICES, Prices, SynapticOperations, atp_to_joules, hardware_joules, spikes_to_atp
from .sums import Sums

SUMMED = ("code", "square", "distortion", "penalty")
"""Numbers of each stimulus that are kept only for sums."""


@dataclass(frozen=True)
class Evaluation:
    """Results of one model on one set of stimuli."""

    metrics: Metrics
    """Numbers of the model as a whole."""
    objective: float
    """distortion + beta * kl + spike_price * spikes at the given beta and spike price, nats per stimulus; of a model
    without a posterior, distortion + penalty."""
    units: dict[str, list[float]]
    """Per unit: ``prior_firing_rate``, ``firing_rate`` (posterior mean), ``kl`` (nats per stimulus) and ``nonzero``
    (share of stimuli for which its code is not zero)."""
    layers: list[dict[str, float]]
    """Per layer of codes, the lowest first: ``units``, and per stimulus ``kl`` (nats), ``spikes`` (posterior mean; NaN
    without firing rates) and ``nonzero`` (units)."""
    code_histogram: dict[str, Any]
    """Sampled codes of all units: ``zero``, the share at zero, and ``mass`` (n,), the shares of the others
    in the bins between ``edges`` (n + 1,); the end bins also contain all values beyond them."""
    stimuli: dict[str, np.ndarray]
    """Per stimulus, (m,) each: ``residual`` and ``residual_of_mean`` (squared error from sampled and from mean codes),
    ``contrast`` (squared deviation from the stimulus' mean), ``nonzero`` (units), and other numbers that the model
    gives about its inference. Empty if any value was not finite."""
    evidence: Evidence | None = None
    """Estimate of log p(x) and the gap of the bound, if asked for."""


BATCH_SIZE = 1024
"""Number of stimuli coded at once."""


@own_scope()
@torch.inference_mode()
def evaluate(
    model: Model,
    x: Any,
    *,
    beta: float = 1.0,
    spike_price: float = 0.0,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    prices: Prices = PRICES,
    evidence: int = 0,
    annealing_steps: int = 0,
    verbose: bool = False,
) -> Evaluation:
    """Compute every number that models report, in one pass over the stimuli.

    Codes are sampled at temperature 0 (integer counts), once per stimulus. Rates and coding rates are the
    posterior's own means; the distortion is exact where the model has a closed form and that of the sampled
    codes otherwise. ``metrics.free_energy`` is at beta = 1 and spike price 0 whatever is given here. Models without a
    posterior (sparse coding) have neither coding rate nor firing rates; their ``encoder_macs`` are those of inference.

    Parameters
    ----------
    model
        A trained model.
    x
        (m, D) stimuli, numpy or torch.
    beta, spike_price
        Weights of the ``objective``: of the coding rate, and nats per expected spike.
    seed
        Seed of the sampled codes.
    batch_size
        Number of stimuli coded at once; affects memory only.
    prices
        Energy cost of spikes and operations.
    evidence
        Samples per stimulus of an estimate of log p(x), which also gives the gap of the bound; 0: none. See
        :func:`spikevae.evaluation.log_evidence`.
    annealing_steps
        Intermediate distributions of that estimate; 0: importance sampling.
    verbose
        Show progress of that estimate.

    Raises
    ------
    ValueError
        If the stimuli are not a finite, non-empty matrix with the model's number of pixels, or the model has no
        evidence that can be estimated so.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2405.14473; Vafaii & Yates, arXiv:2602.13421. Each field of `Metrics` names
    its own.

    Examples
    --------
    >>> from spikevae.models import AmortisedConfig, AmortisedVAE
    >>> model = AmortisedVAE((4,), AmortisedConfig(n_latents=3), torch.Generator().manual_seed(0))
    >>> result = evaluate(model, torch.ones(8, 4), beta=2.0)
    >>> m = result.metrics
    >>> math.isclose(result.objective, m.distortion + 2.0 * m.kl), len(result.units["kl"])
    (True, 3)
    >>> 0 < evaluate(model, torch.ones(8, 4), evidence=1000).evidence.gap < m.free_energy
    True
    """
    stimuli = checked(x, model.n_features)
    if model.config.likelihood in COUNT_LIKELIHOODS:
        check_support(model.config.likelihood, stimuli)
    if annealing_steps and not evidence:
        raise ValueError(f"annealing_steps is {annealing_steps}, but evidence is 0: give the samples per stimulus too")
    if evidence:
        check_evidence(model, evidence, annealing_steps)
    weight = next(model.parameters())
    generator = torch.Generator(device=weight.device).manual_seed(checked_seed(seed))
    sums = Sums(model.law)
    for batch in stimuli.split(batch_size):
        batch = batch.to(weight).clone(memory_format=torch.contiguous_format)  # rounding depends on the place in memory
        sums.add(batch, model.code(batch, generator=generator))
    rates = model.prior_firing_rates()
    if rates is not None:
        sums.n_bad += rates.numel() - int(rates.isfinite().sum())
    if sums.n_bad:
        return _undefined(model, sums)
    found = _evaluation(model, sums, beta, spike_price, prices)
    if not evidence:
        return found
    estimate = evidence_of(
        model,
        stimuli,
        -found.metrics.free_energy,
        samples=evidence,
        annealing_steps=annealing_steps,
        generator=generator,
        verbose=verbose,
    )
    return replace(found, evidence=estimate)


def _undefined(model: Model, sums: Sums) -> Evaluation:
    """The evaluation of a model that gave values that are not finite."""
    return Evaluation(
        Metrics.undefined(nan_count=float(sums.n_bad), **_macs(model, sums)),
        math.nan,
        dict.fromkeys(("prior_firing_rate", "firing_rate", "kl", "nonzero"), [math.nan] * model.n_latents),
        [],
        {"edges": [], "mass": [], "zero": math.nan},
        {},
    )


def _evaluation(model: Model, sums: Sums, beta: float, spike_price: float, prices: Prices) -> Evaluation:
    firing_rates = _firing_rates(model, sums)
    metrics = _metrics(model, sums, firing_rates, prices)
    cost = spike_price * metrics.spikes if model.law.has_rate else 0.0
    means = {name: sums.per_unit(name) / sums.n_stimuli for name in ("kl", "nonzero")}
    return Evaluation(
        metrics,
        metrics.distortion + sums.mean("penalty", beta * metrics.kl + cost),
        {name: value.tolist() for name, value in (firing_rates | means).items()},
        [_layer(units, sums, firing_rates["firing_rate"]) for units in model.layers],
        sums.histogram.result(sums.n_stimuli * model.n_latents),
        {name: sums.per_stimulus(name) for name in sums.stimuli if name not in SUMMED},
    )


def _macs(model: Model, sums: Sums) -> dict[str, float]:
    """Multiply-accumulates per stimulus of inference and of the dense decoder."""
    dense = model.inference_macs()
    encoder_macs = sums.mean("macs", math.nan) if dense is None else float(dense)
    return {"encoder_macs": encoder_macs, "decoder_macs": float(model.decoder_macs())}


def _firing_rates(model: Model, sums: Sums) -> dict[str, np.ndarray]:
    """(K,) mean firing rates of prior and posterior; NaN where they are not defined."""
    rates = {name: np.full(model.n_latents, np.nan) for name in ("prior_firing_rate", "firing_rate")}
    prior = model.prior_firing_rates()
    if prior is not None:
        rates["prior_firing_rate"] = prior.double().cpu().numpy()
    if model.law.has_rate:
        rates["firing_rate"] = sums.per_unit("mean") / sums.n_stimuli
        given_stimulus = sums.per_unit("prior") / sums.n_stimuli
        if np.isfinite(given_stimulus).all():
            rates["prior_firing_rate"] = given_stimulus
    return rates


def _layer(units: slice, sums: Sums, firing_rate: np.ndarray) -> dict[str, float]:
    """The row of one layer in `Evaluation.layers`."""
    return {
        "units": float(units.stop - units.start),
        "kl": float(sums.per_unit("kl")[units].sum() / sums.n_stimuli),
        "spikes": float(firing_rate[units].sum()),
        "nonzero": float(sums.per_unit("nonzero")[units].sum() / sums.n_stimuli),
    }


def describe_layers(layers: list[dict[str, float]]) -> str:
    """A table of the layers of codes; empty for a single one.

    Examples
    --------
    >>> print(describe_layers([{"units": 8, "kl": 2.0, "spikes": 1.0, "nonzero": 0.5}] * 2))
    layer  units  nats  spikes  nonzero
        1      8     2       1      0.5
        2      8     2       1      0.5
    """
    if len(layers) < 2:
        return ""
    lines = ["layer  units  nats  spikes  nonzero"]
    for number, row in enumerate(layers, 1):
        values = (f"{row[name]:.3g}" for name in ("units", "kl", "spikes", "nonzero"))
        units, kl, spikes, nonzero = values
        lines.append(f"{number:>5} {units:>6} {kl:>5} {spikes:>7} {nonzero:>8}")
    return "\n".join(lines)


def _metrics(model: Model, sums: Sums, firing_rates: dict[str, np.ndarray], prices: Prices) -> Metrics:
    m, n_units, macs = sums.n_stimuli, model.n_latents, _macs(model, sums)
    kl = sums.per_unit("kl") / m
    distortion, total_kl = float(sums.per_stimulus("distortion").mean()), float(kl.sum())
    spikes = float(firing_rates["firing_rate"].sum())
    nonzero = float(sums.per_unit("nonzero").sum() / m)
    residual, residual_of_mean = sums.per_stimulus("residual"), sums.per_stimulus("residual_of_mean")
    contrast = sums.per_stimulus("contrast")
    return Metrics(
        free_energy=distortion + total_kl,
        distortion=distortion,
        kl=total_kl,
        mse=float(residual.mean()),
        mse_mean_code=float(residual_of_mean.mean()),
        r2=r2_of_sums(residual, contrast),
        r2_pooled=r2_pooled_of_sums(residual, contrast),
        r2_mean_code=r2_of_sums(residual_of_mean, contrast),
        r2_pooled_mean_code=r2_pooled_of_sums(residual_of_mean, contrast),
        fraction_zeros=1.0 - nonzero / n_units,
        l0=nonzero,
        firing_rate=spikes / n_units,
        prior_firing_rate=float(firing_rates["prior_firing_rate"].mean()),
        prior_posterior_gap=prior_posterior_gap(firing_rates["prior_firing_rate"], firing_rates["firing_rate"]),
        bits=bits(total_kl),
        bits_per_spike=bits_per_spike(total_kl, spikes),
        spikes=spikes,
        active_units=float(active_units(kl)) if math.isfinite(total_kl) else math.nan,
        dead_units=float((sums.per_unit("nonzero") == 0).sum()),
        nan_count=0.0,
        **_sparseness(model, sums),
        **_energy_of_spikes(spikes, prices),
        **_operations(model, sums, sum(macs.values()), prices),
        **macs,
    )


def _sparseness(model: Model, sums: Sums) -> dict[str, float]:
    """Sparseness, of codes that are never negative, and Fano factor, of counts."""
    lifetime = population = fano = math.nan
    unit_sums = sums.per_unit("code"), sums.per_unit("square")
    stimulus_sums = sums.per_stimulus("code"), sums.per_stimulus("square")
    if model.law.has_rate or not sums.negative:  # in sums of signed codes, values cancel
        lifetime = float(sparseness_of_sums(*unit_sums, sums.n_stimuli).mean())
        population = float(sparseness_of_sums(*stimulus_sums, model.n_latents).mean())
    if model.law.is_count:
        factors = fano_of_sums(*unit_sums, sums.n_stimuli)
        fano = float(np.nanmean(factors)) if np.isfinite(factors).any() else math.nan
    return {"lifetime_sparseness": lifetime, "population_sparseness": population, "fano": fano}


def _energy_of_spikes(spikes: float, prices: Prices) -> dict[str, float]:
    """ATP and joules of spikes at the low, central and high prices."""
    found = {}
    for suffix, level in (("_low", prices.low), ("", prices.central), ("_high", prices.high)):
        found[f"atp{suffix}"] = spikes_to_atp(spikes, level)
        found[f"joules{suffix}"] = atp_to_joules(found[f"atp{suffix}"], level)
    return found


def _operations(model: Model, sums: Sums, macs: float, prices: Prices) -> dict[str, float]:
    """Synaptic operations of the code, and the energy of hardware; `macs` are those of dense encoder and decoder."""
    m, is_count = sums.n_stimuli, model.law.is_count
    fan_outs = np.array(model.fan_outs(), dtype=float)
    counts = float(sums.per_unit("code") @ fan_outs / m) if is_count else math.nan
    ones = float(sums.per_unit("ones") @ fan_outs / m) if is_count else 0.0
    synops = SynapticOperations(counts, float(sums.per_unit("nonzero") @ fan_outs / m), ones)
    dense = macs - fan_outs.sum()  # operations that do not depend on which code entries are zero
    if is_count:
        joules = hardware_joules(dense, synops.events, prices)
    else:
        joules = hardware_joules(dense + synops.macs, synops.acs, prices)
    return {
        "decoder_acs": synops.acs,
        "synops_events": synops.events,
        "synops_nonzero": synops.nonzero,
        "hardware_joules": joules,
    }
