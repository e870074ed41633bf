"""Styles of lines in static and interactive figures: colour and width for latent size, line style and marker for
family, and also colour for family in runs with one size."""

from dataclasses import dataclass
from typing import Any

from ..plotting import DASHES, FAMILY_COLOURS, MARKERS
from .families import Family
from .reading import Run


@dataclass(frozen=True)
class Axis:
    """Quantity and label of an axis."""

    metric: str
    label: str
    """With its unit."""
    log: bool = False


AXES = {
    axis.metric: axis
    for axis in (
        Axis("fraction_zeros", "Fraction of zeros"),
        Axis("firing_rate", "Mean firing rate (spikes/unit/stimulus)", log=True),
        Axis("r2_pooled", "R² (pooled over stimuli)"),
        Axis("bits", "Coding rate (bits per stimulus)"),
        Axis("bits_per_spike", "Bits per spike", log=True),
        Axis("joules", "Energy (J per stimulus)", log=True),
        Axis("distortion", "Distortion (nats per stimulus)"),
        Axis("fit_objective", "Objective (nats per stimulus)"),
        Axis("spikes", "Spikes per stimulus", log=True),
    )
}


def size_colours(run: Run) -> dict[int, str]:
    """A colour for each latent size, dark to light in order of size (viridis without its palest part)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    n = len(run.sizes)
    return {k: to_hex(colormaps["viridis"](0.82 * i / max(1, n - 1))) for i, k in enumerate(run.sizes)}


def family_colours(run: Run) -> tuple[str, ...]:
    """Colours (Okabe-Ito) of families in runs with one latent size; empty in others."""
    return FAMILY_COLOURS if len(run.sizes) == 1 and len(run.families) > 1 else ()


def colour(run: Run, family: Family, size: int) -> str:
    """Colour of a line: that of its latent size or, in runs with one size, of its family."""
    own = family_colours(run)
    return own[family.index % len(own)] if own else size_colours(run)[size]


def size_widths(run: Run) -> dict[int, float]:
    """A line width for each latent size, thin to thick, so that sizes differ not only in colour."""
    n = len(run.sizes)
    return {k: 1.3 + 1.7 * i / max(1, n - 1) for i, k in enumerate(run.sizes)}


def dash(family: Family, static: bool = False) -> Any:
    """Line style of a family."""
    return DASHES[family.index % len(DASHES)][static]


def marker(family: Family, static: bool = False) -> str:
    """Marker of a family."""
    return MARKERS[family.index % len(MARKERS)][static]
