"""Axes, colours and markers of figures: every family has one colour and one marker, in all figures of a run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..plotting import FAMILY_COLOURS
from ..sweep.families import Family

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "*", "<", ">", "d", "h")
"""Prime in number to the colours, so that both together repeat only after 104 families."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and how."""

    metric: str
    title: str
    """The quantity, for the heading of a panel."""
    unit: str = ""
    log: bool = False
    zero: bool = False
    """Whether a linear axis begins at zero, or below it where values are negative."""
    top: float | None = None
    """End of the axis, if it has a natural one."""
    counts_only: bool = False
    """Whether the quantity is defined for counts alone: real-valued codes have no spikes."""

    @property
    def label(self) -> str:
        """Quantity with unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def named(self, title: str) -> "Axis":
        """The same axis with another title and no unit."""
        return replace(self, title=title, unit="")


AXES = {
    axis.metric: axis
    for axis in (
        Axis("beta", "β", log=True),
        Axis("size", "Latent units K", log=True),
        Axis("fraction_zeros", "Zeros", "share of code entries", zero=True, top=1.0),
        Axis("firing_rate", "Spikes per unit", "per stimulus", log=True, counts_only=True),
        Axis("activation", "Mean activation", "own unit of each code", log=True),
        Axis("r2_pooled", "Fidelity R²", "pooled, held-out", zero=True),
        Axis("bits", "Coding rate", "bits per stimulus", log=True),
        Axis("bits_per_spike", "Bits per spike", log=True, counts_only=True),
        Axis("joules", "Energy of spikes", "J per stimulus", log=True, counts_only=True),
        Axis("operations", "Operations of the decoder", "per stimulus", log=True),
        Axis("distortion", "Distortion", "nats per stimulus"),
        Axis("fit_objective", "Objective", "nats per stimulus"),
        Axis("spikes", "Spikes", "per stimulus", log=True, counts_only=True),
        Axis("readout_stimuli", "Stimuli to learn a read-out", log=True),
        Axis("readout_joules", "Energy of their spikes", "J", log=True, counts_only=True),
    )
}


def colour(family: Family) -> str:
    """Colour of a family (Okabe-Ito)."""
    return FAMILY_COLOURS[family.index % len(FAMILY_COLOURS)]


def dash(family: Family) -> str:
    """Line style of a family: solid for the first round of colours, dashed for the second."""
    return ("-", "--", ":", "-.")[family.index // len(FAMILY_COLOURS) % 4]


def marker(family: Family) -> str:
    """Marker of a family."""
    return MARKERS[family.index % len(MARKERS)]


def short_labels(families: Iterable[Family]) -> dict[int, str]:
    """Label of each family by its index: the law alone where no other of these families has it."""
    group = list(dict.fromkeys(families))
    laws = [f.law for f in group]
    return {f.index: f.law_label if laws.count(f.law) == 1 else f.label for f in group}
