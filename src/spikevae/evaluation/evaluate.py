"""A model and stimuli in, `Metrics` out: the one place that computes what models report."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics.coding import active_units, bits, bits_per_spike, fano_of_sums, prior_posterior_gap
from ..metrics.reconstruction import r2_of_sums, r2_pooled_of_sums
from ..metrics.sparsity import sparseness_of_sums
from ..models._model import CodedBatch, Model
from ..models.codes import CodeKind
from .metrics import Metrics as Metrics
from .prices import PRICES, Prices, SynapticOperations, atp_to_joules, hardware_joules, spikes_to_atp

N_BINS = 64
"""Most bins of a code histogram."""
BULK = (0.001, 0.999)
"""Quantiles of the non-zero codes between which the bins lie: one outlier must not widen them all."""

SUMMED = ("code", "square", "distortion", "penalty")
"""What is kept of each stimulus only to be summed."""


@dataclass(frozen=True)
class Evaluation:
    """What one model does on one set of stimuli."""

    metrics: Metrics
    """Numbers of the whole model."""
    objective: float
    """distortion + beta * kl + spike_price * spikes at the given beta and price, nats per stimulus; of a model without
    a posterior, distortion + what its code costs in its own objective."""
    units: dict[str, list[float]]
    """Per unit: ``prior_firing_rate``, ``firing_rate`` (posterior mean), ``kl`` (nats per stimulus) and ``nonzero``
    (share of stimuli that it codes for)."""
    layers: list[dict[str, float]]
    """Per layer of codes, the lowest first: ``units``, and per stimulus ``kl`` (nats), ``spikes`` (posterior mean; NaN
    without firing rates) and ``nonzero`` (units)."""
    code_histogram: dict[str, Any]
    """Sampled codes of all units: ``zero``, the share at zero, and ``mass`` (n,), the shares of the others
    in the bins between ``edges`` (n + 1,); the end bins hold what lies beyond them too."""
    stimuli: dict[str, np.ndarray]
    """Per stimulus, (m,) each: ``residual`` and ``residual_of_mean`` (squared error from sampled and from mean codes),
    ``contrast`` (squared deviation from the stimulus' mean), ``nonzero`` (units), and what else the model says of how
    it found a code. Empty where a value was not finite."""


class _Histogram:
    """Histogram of the non-zero codes, its bins chosen from the first batch."""

    def __init__(self, law: type[CodeKind]) -> None:
        self.law = law
        self.edges = np.empty(0)
        self.counts = torch.empty(0)

    def add(self, nonzero: Tensor) -> None:
        """Count codes, a flat tensor without zeros."""
        if not len(self.edges):
            self.edges = self._choose(nonzero)
            self.counts = torch.zeros(len(self.edges) - 1, dtype=torch.float64, device=nonzero.device)
        low, high = float(self.edges[0]), float(self.edges[-1])
        self.counts += torch.histc(nonzero.clamp(low, high), len(self.counts), low, high)

    def _choose(self, nonzero: Tensor) -> np.ndarray:
        if not len(nonzero):
            return np.array([0.5, 1.5])
        low, high = (nonzero.kthvalue(min(len(nonzero), 1 + int(q * len(nonzero)))).values.item() for q in BULK)
        if self.law.is_count:
            width = math.ceil(high / N_BINS)
            return 0.5 + width * np.arange(math.ceil(high / width) + 1.0)
        low = 0.0 if self.law.has_rate else low
        return np.linspace(low, high if high > low else low + 1.0, N_BINS + 1)

    def result(self, n_codes: int) -> dict[str, Any]:
        counts = self.counts.cpu().numpy()
        zero = (n_codes - float(counts.sum())) / n_codes
        return {"edges": self.edges.tolist(), "mass": (counts / n_codes).tolist(), "zero": zero}


class _Sums:
    """Running sums over batches: nothing of size stimuli x units is kept."""

    def __init__(self, law: type[CodeKind]) -> None:
        self.law = law
        self.n_stimuli, self.n_bad, self.negative = 0, 0, False
        names = ("kl", "mean", "code", "square", "nonzero", "prior", "ones")
        self.units: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
        self.stimuli: dict[str, list[Tensor]] = {}
        self.histogram = _Histogram(law)

    def add(self, x: Tensor, coded: CodedBatch) -> None:
        """Account for a batch (B, D). One with a value that is not finite is only counted as bad."""
        code, mean, pixels, pixels_of_mean = coded.code, coded.mean, coded.pixels, coded.pixels_of_mean
        posterior = [value for value in (coded.kl, coded.prior_mean) if value is not None]
        if self._bad(mean, *posterior) or self._bad(code, pixels, pixels_of_mean, coded.distortion):
            return
        self.n_stimuli += len(x)
        nonzero, square = code != 0, code.square()
        for name, value in (
            ("kl", torch.full_like(mean, math.nan) if coded.kl is None else coded.kl),
            ("mean", mean),
            ("code", code),
            ("square", square),
            ("nonzero", nonzero),
            ("prior", torch.full_like(mean, math.nan) if coded.prior_mean is None else coded.prior_mean),
            ("ones", code == 1),
        ):
            # A variance is a difference of these sums, which float32 would swallow at high firing rates.
            self.units[name] += value.sum(0, dtype=torch.float64)
        if not (self.law.is_count or self.law.has_rate):
            self.negative |= bool((code < 0).any())
        self.histogram.add(code[nonzero])
        facts = {**(coded.facts or {}), "penalty": coded.penalty, "macs": coded.macs}
        for name, value in (
            *((name, fact) for name, fact in facts.items() if fact is not None),
            ("distortion", coded.distortion),
            ("residual", (x - pixels).square().sum(1)),
            ("residual_of_mean", (x - pixels_of_mean).square().sum(1)),
            ("contrast", (x - x.mean(1, keepdim=True)).square().sum(1)),
            ("code", code.sum(1)),
            ("square", square.sum(1)),
            ("nonzero", nonzero.sum(1)),
        ):
            self.stimuli.setdefault(name, []).append(value)

    def _bad(self, *values: Tensor) -> bool:
        n = sum(value.numel() - int(value.isfinite().sum()) for value in values)
        self.n_bad += n
        return n > 0

    def per_unit(self, name: str) -> np.ndarray:
        """(K,) sum over stimuli, float64."""
        total = self.units[name]
        assert isinstance(total, Tensor)
        return total.cpu().numpy()

    def per_stimulus(self, name: str) -> np.ndarray:
        """(m,) values, float64."""
        return torch.cat(self.stimuli[name]).double().cpu().numpy()

    def mean(self, name: str, default: float) -> float:
        """Mean over stimuli of what only some models give."""
        return float(self.per_stimulus(name).mean()) if name in self.stimuli else default


BATCH_SIZE = 1024
"""Stimuli that are coded at once."""


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
) -> Evaluation:
    """Compute every number that models report, in one pass over the stimuli.

    Codes are sampled at temperature 0 (integer counts), once per stimulus. Rates and coding rates are the
    posterior's own means; the distortion is exact where the model has a closed form and that of the sampled
    codes otherwise. ``metrics.free_energy`` is at beta = 1 and no spike price whatever is given here. Models without a
    posterior (sparse coding) have neither coding rate nor firing rates; their ``encoder_macs`` are what inference took.

    Parameters
    ----------
    model
        A trained model.
    x
        (m, D) stimuli, numpy or torch.
    beta, spike_price
        Weights of the ``objective``: of the coding rate, and nats per expected spike.
    seed
        Of the sampled codes.
    batch_size
        Stimuli handled at a time; memory only.
    prices
        What spikes and operations cost.

    Raises
    ------
    ValueError
        If the stimuli are not a finite, non-empty matrix with the model's number of pixels.

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
    """
    stimuli = x if isinstance(x, Tensor) else torch.tensor(np.asarray(x))
    if stimuli.ndim != 2 or stimuli.shape[1] != model.n_features or not len(stimuli):
        raise ValueError(
            f"stimuli have shape {tuple(stimuli.shape)}; expected (m, {model.n_features}), with one or more rows"
        )
    if not stimuli.isfinite().all():
        raise ValueError("stimuli hold NaN or infinite values; drop or fill these rows first")
    weight = next(model.parameters())
    generator = torch.Generator(device=weight.device).manual_seed(seed)
    sums, has_rate = _Sums(model.law), model.law.has_rate
    rates = {name: np.full(model.n_latents, np.nan) for name in ("prior_firing_rate", "firing_rate")}
    for batch in stimuli.split(batch_size):
        batch = batch.to(weight)
        sums.add(batch, model.code(batch, generator=generator))
    dense = model.inference_macs()
    encoder_macs = sums.mean("macs", math.nan) if dense is None else float(dense)
    static = {"encoder_macs": encoder_macs, "decoder_macs": float(model.decoder_macs())}
    prior = model.prior_firing_rates()
    if prior is not None:
        rates["prior_firing_rate"] = prior.double().cpu().numpy()
    if sums.n_bad:
        undefined = [math.nan] * model.n_latents
        return Evaluation(
            Metrics.undefined(nan_count=float(sums.n_bad), **static),
            math.nan,
            dict.fromkeys(("prior_firing_rate", "firing_rate", "kl", "nonzero"), undefined),
            [],
            {"edges": [], "mass": [], "zero": math.nan},
            {},
        )
    if has_rate:
        rates["firing_rate"] = sums.per_unit("mean") / sums.n_stimuli
        own = sums.per_unit("prior") / sums.n_stimuli
        if np.isfinite(own).all():
            rates["prior_firing_rate"] = own
    metrics = _metrics(model, sums, rates, static, prices)
    price = spike_price * metrics.spikes if has_rate else 0.0
    return Evaluation(
        metrics,
        metrics.distortion + sums.mean("penalty", beta * metrics.kl + price),
        {name: value.tolist() for name, value in rates.items()}
        | {name: (sums.per_unit(name) / sums.n_stimuli).tolist() for name in ("kl", "nonzero")},
        [
            {
                "units": float(units.stop - units.start),
                "kl": float(sums.per_unit("kl")[units].sum() / sums.n_stimuli),
                "spikes": float(rates["firing_rate"][units].sum()),
                "nonzero": float(sums.per_unit("nonzero")[units].sum() / sums.n_stimuli),
            }
            for units in model.layers
        ],
        sums.histogram.result(sums.n_stimuli * model.n_latents),
        {name: sums.per_stimulus(name) for name in sums.stimuli if name not in SUMMED},
    )


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


def _metrics(
    model: Model, sums: _Sums, rates: dict[str, np.ndarray], static: dict[str, float], prices: Prices
) -> Metrics:
    m, n_units, law = sums.n_stimuli, model.n_latents, model.law
    kl = sums.per_unit("kl") / m
    distortion, total_kl = float(sums.per_stimulus("distortion").mean()), float(kl.sum())
    spikes = float(rates["firing_rate"].sum())
    nonzero = float(sums.per_unit("nonzero").sum() / m)
    residual, residual_of_mean = sums.per_stimulus("residual"), sums.per_stimulus("residual_of_mean")
    contrast = sums.per_stimulus("contrast")

    lifetime = population = fano = math.nan
    unit_sums = sums.per_unit("code"), sums.per_unit("square")
    if law.has_rate or not sums.negative:  # cancelling signs would make these artefacts
        lifetime = float(sparseness_of_sums(*unit_sums, m).mean())
        population = float(sparseness_of_sums(sums.per_stimulus("code"), sums.per_stimulus("square"), n_units).mean())
    if law.is_count:
        factors = fano_of_sums(*unit_sums, m)
        fano = float(np.nanmean(factors)) if np.isfinite(factors).any() else math.nan

    fan_outs = np.array(model.fan_outs(), dtype=float)
    counts = float(sums.per_unit("code") @ fan_outs / m) if law.is_count else math.nan
    ones = float(sums.per_unit("ones") @ fan_outs / m) if law.is_count else 0.0
    synops = SynapticOperations(counts, float(sums.per_unit("nonzero") @ fan_outs / m), ones)
    dense = static["encoder_macs"] + static["decoder_macs"] - fan_outs.sum()  # all that no code entry gates
    if law.is_count:
        joules_of_hardware = hardware_joules(dense, synops.events, prices)
    else:
        joules_of_hardware = hardware_joules(dense + synops.macs, synops.acs, prices)
    atp = {level: spikes_to_atp(spikes, getattr(prices, level)) for level in ("low", "central", "high")}
    joules = {level: atp_to_joules(n, getattr(prices, level)) for level, n in atp.items()}
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
        lifetime_sparseness=lifetime,
        population_sparseness=population,
        l0=nonzero,
        firing_rate=spikes / n_units,
        prior_firing_rate=float(rates["prior_firing_rate"].mean()),
        prior_posterior_gap=prior_posterior_gap(rates["prior_firing_rate"], rates["firing_rate"]),
        bits=bits(total_kl),
        bits_per_spike=bits_per_spike(total_kl, spikes),
        spikes=spikes,
        atp_low=atp["low"],
        atp=atp["central"],
        atp_high=atp["high"],
        joules_low=joules["low"],
        joules=joules["central"],
        joules_high=joules["high"],
        decoder_acs=synops.acs,
        synops_events=synops.events,
        synops_nonzero=synops.nonzero,
        hardware_joules=joules_of_hardware,
        active_units=float(active_units(kl)) if math.isfinite(total_kl) else math.nan,
        fano=fano,
        dead_units=float((sums.per_unit("nonzero") == 0).sum()),
        nan_count=0.0,
        **static,
    )
