"""`Metrics`: the numbers that every model reports, each with unit, direction, source and definition."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from .._html import html_table
from .._text import shown

Direction = Literal["higher", "lower", "neither"]

# Sources
PVAE = "Vafaii, Galor & Yates 2024 (arXiv:2405.14473)"
CODE = "code of Vafaii, Galor & Yates 2024 (github.com/hadivafaii/PoissonVAE)"
COST = "Vafaii & Yates 2026 (arXiv:2602.13421)"
SPARSENESS = "Treves & Rolls 1991, normalised as Vinje & Gallant 2000"
NEUROBENCH = "NeuroBench (synaptic operations)"
OWN = "this library"
MODELLED = "modelled: constants of spikevae.evaluation.prices"


def _number(unit: str, direction: Direction, source: str, description: str) -> Any:
    return field(metadata={"unit": unit, "direction": direction, "source": source, "description": description})


def plain_unit(unit: str) -> str:
    """A unit as people read it: nothing for a pure number, and what it is a mean over where the unit says that.

    Examples
    --------
    >>> plain_unit("1"), plain_unit("1, mean over stimuli"), plain_unit("J per stimulus")
    ('', 'mean over stimuli', 'J per stimulus')
    """
    return unit.removeprefix("1").removeprefix(", ") if unit.split(",")[0] == "1" else unit


@dataclass(frozen=True)
class Metrics:
    """Numbers of one model on one set of stimuli, codes sampled at temperature 0.

    A number that is not defined for the model's law (spikes of a signed code, say) is NaN. If the
    model gave a value that is not finite, all but `nan_count` and the static operation counts are NaN. All but the
    operations of inference describe the code at the end of inference: the spikes of an iterative model before it are in
    :func:`spikevae.evaluation.inference_energy.inference_energy`. Unit, direction (``"higher"`` or ``"lower"`` is
    better, or ``"neither"``), source and definition of each field are in its ``dataclasses.fields`` metadata;
    :meth:`describe` prints them.
    """

    free_energy: float = _number(
        "nats per stimulus",
        "lower",
        PVAE,
        "distortion + kl: minus the evidence bound, beta = 1, no spike price",
    )
    distortion: float = _number(
        "nats per stimulus",
        "lower",
        PVAE,
        "expected minus log-likelihood of the pixels, constants dropped; exact where the decoder allows",
    )
    kl: float = _number(
        "nats per stimulus", "neither", PVAE, "coding rate: KL from prior to posterior, summed over units"
    )
    mse: float = _number(
        "squared pixel units per stimulus",
        "lower",
        PVAE,
        "squared error summed over pixels, from sampled codes",
    )
    mse_mean_code: float = _number(
        "squared pixel units per stimulus", "lower", PVAE, "squared error summed over pixels, from mean codes"
    )
    r2: float = _number(
        "1, mean over stimuli",
        "higher",
        PVAE,
        "explained share of a stimulus' pixel variance, mean over stimuli, sampled codes",
    )
    r2_pooled: float = _number(
        "1, pooled over stimuli",
        "higher",
        OWN,
        "explained share of the pixel variance of all stimuli together, sampled codes",
    )
    r2_mean_code: float = _number("1, mean over stimuli", "higher", PVAE, "r2 from mean codes")
    r2_pooled_mean_code: float = _number("1, pooled over stimuli", "higher", OWN, "r2_pooled from mean codes")
    fraction_zeros: float = _number("1", "neither", CODE, "share of sampled code entries that are zero")
    lifetime_sparseness: float = _number(
        "1",
        "neither",
        SPARSENESS,
        "of each unit over stimuli, sampled codes, mean over units; silent units are 1",
    )
    population_sparseness: float = _number(
        "1", "neither", SPARSENESS, "of each stimulus over units, sampled codes, mean over stimuli"
    )
    l0: float = _number("units per stimulus", "neither", OWN, "sampled code entries that are not zero")
    firing_rate: float = _number(
        "spikes per unit per stimulus", "lower", CODE, "posterior mean, averaged over stimuli and units"
    )
    prior_firing_rate: float = _number("spikes per unit per stimulus", "lower", COST, "prior mean, averaged over units")
    prior_posterior_gap: float = _number(
        "1",
        "lower",
        OWN,
        "sum over units of |prior - mean posterior rate| by the sum of mean posterior rates",
    )
    bits: float = _number("bits per stimulus", "neither", PVAE, "coding rate: kl / ln 2")
    bits_per_spike: float = _number("bits per spike", "higher", OWN, "bits / spikes")
    spikes: float = _number(
        "spikes per stimulus",
        "lower",
        OWN,
        "posterior means summed over units. Of an iterative model those of its final code alone, not those emitted "
        "during inference (spikevae.evaluation.inference_energy); of real-valued codes a value of one counts as a "
        "spike, in a unit that the prior's scale sets",
    )
    atp_low: float = _number("ATP per stimulus", "lower", MODELLED, "spikes at the low price")
    atp: float = _number("ATP per stimulus", "lower", MODELLED, "spikes at the central energy cost")
    atp_high: float = _number("ATP per stimulus", "lower", MODELLED, "spikes at the high price")
    joules_low: float = _number("J per stimulus", "lower", MODELLED, "energy of atp_low at the low J per ATP")
    joules: float = _number(
        "J per stimulus",
        "lower",
        MODELLED,
        "energy of atp at the central J per ATP; like spikes, of the final code alone; resting potentials and "
        "housekeeping are not included",
    )
    joules_high: float = _number("J per stimulus", "lower", MODELLED, "energy of atp_high at the high J per ATP")
    encoder_macs: float = _number(
        "multiply-accumulates per stimulus",
        "lower",
        NEUROBENCH,
        "of the dense encoder, all weights counted; of models without encoder, of all steps of inference",
    )
    decoder_macs: float = _number(
        "multiply-accumulates per stimulus", "lower", NEUROBENCH, "of the dense decoder, all weights counted"
    )
    decoder_acs: float = _number(
        "accumulates per stimulus",
        "neither",
        NEUROBENCH,
        "the part of synops_nonzero without multiplications: units with exactly one spike x fan-out",
    )
    synops_events: float = _number(
        "accumulates per stimulus", "lower", NEUROBENCH, "if spikes are sent one by one: sampled counts x fan-out"
    )
    synops_nonzero: float = _number(
        "operations per stimulus",
        "lower",
        NEUROBENCH,
        "graded messages: non-zero units x fan-out; counts above one are multiply-accumulates",
    )
    hardware_joules: float = _number(
        "J per stimulus",
        "lower",
        MODELLED,
        "dense encoder or all steps of iterative inference, and the decoder's operations for each spike of the final "
        "code (graded codes: for each non-zero unit)",
    )
    active_units: float = _number("units", "higher", PVAE, "units with a mean kl above 0.01 nats per stimulus")
    fano: float = _number(
        "1",
        "neither",
        OWN,
        "variance over mean of a unit's sampled code across stimuli, mean over units that fire; "
        "1 for Poisson counts of one rate, more where stimuli modulate it; undefined for codes that are no counts",
    )
    dead_units: float = _number("units", "lower", OWN, "units whose sampled code is zero for every stimulus")
    nan_count: float = _number("values", "lower", OWN, "posterior means, kl and pixels that are not finite")

    def to_dict(self) -> dict[str, float | None]:
        """Every field by name, None where undefined: ready for JSON and for a table row.

        Examples
        --------
        >>> Metrics.undefined().to_dict()["r2"] is None
        True
        """
        values = {f.name: float(getattr(self, f.name)) for f in fields(self)}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    @classmethod
    def undefined(cls, **known: float) -> "Metrics":
        """Every field NaN except those given."""
        return cls(**{f.name: math.nan for f in fields(cls)} | known)

    def describe(self, names: Collection[str] | None = None) -> str:
        """One line per field: name, value, unit, and whether higher (↑) or lower (↓) is better.

        Parameters
        ----------
        names
            Of the fields to show where they are defined; all by default, also undefined ones.

        Examples
        --------
        >>> print(Metrics.undefined(r2=0.5).describe(["r2", "spikes"]))
        r2                           0.5 ↑ mean over stimuli
        """
        arrow = {"higher": "↑", "lower": "↓", "neither": " "}
        lines = []
        for f in fields(self):
            if names is not None and (f.name not in names or math.isnan(getattr(self, f.name))):
                continue
            value, unit = getattr(self, f.name), f.metadata["unit"]
            shown = "undefined" if math.isnan(value) else f"{value:.5g}"
            line = f"{f.name:<20} {shown:>11} {arrow[f.metadata['direction']]} {plain_unit(unit)}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same as a table for notebooks, with the definitions."""
        arrow = {"higher": "↑", "lower": "↓", "neither": ""}
        rows = [
            [f.name, shown(getattr(self, f.name), 4), plain_unit(f.metadata["unit"]), arrow[f.metadata["direction"]],
             f.metadata["description"]]
            for f in fields(self)
        ]  # fmt: skip
        return html_table("", ["metric", "value", "unit", "better", "definition"], rows)
