"""One look for static and interactive figures: a colour and a width for each latent size, a line and a marker for
each family, and a colour too where there is one size."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .families import Family
from .reading import Run

INK, GREY, GRID = "#1b1f24", "#59636e", "#d8dee4"
BETA_COLOURS = ("#0072B2", "#E69F00", "#D55E00")  # Okabe-Ito: lowest beta, near 1, highest
FAMILY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1b1f24", "#8C8C00")
DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."), ("longdash", (0, (8, 3))))
MARKERS = (("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("pentagon", "p"), ("star", "*"))


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

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


NARROW_DECADES = 1.3
LINEAR_RATIO = 2.5


def worth_a_log(values: np.ndarray) -> bool:
    """Whether positive values span enough for a logarithmic axis."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and finite.min() > 0 and finite.max() > LINEAR_RATIO * finite.min()


def log_ticks(values: np.ndarray) -> list[float] | None:
    """Ticks at 1, 2 and 5 times powers of ten for a log axis too short for powers alone; None for a longer one."""
    finite = values[np.isfinite(values) & (values > 0)]
    if not len(finite) or math.log10(finite.max() / finite.min()) > NARROW_DECADES:
        return None
    low, high = math.log10(finite.min()), math.log10(finite.max())
    steps = (1, 2, 5) if high - low > 0.4 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(low) - 1, math.ceil(high) + 1)
    every = [step * 10.0**power for power in powers for step in steps]
    return [t for t in every if low - 0.3 <= math.log10(t) <= high + 0.3]


def size_colours(run: Run) -> dict[int, str]:
    """A colour for each latent size, dark to light in order of size (viridis without its palest part)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    n = len(run.sizes)
    return {k: to_hex(colormaps["viridis"](0.82 * i / max(1, n - 1))) for i, k in enumerate(run.sizes)}


def family_colours(run: Run) -> tuple[str, ...]:
    """Where there is one latent size, families have colours (Okabe-Ito) too; elsewhere none."""
    return FAMILY_COLOURS if len(run.sizes) == 1 and len(run.families) > 1 else ()


def colour(run: Run, family: Family, size: int) -> str:
    """Of a line: its latent size's or, where there is one size, its family's."""
    own = family_colours(run)
    return own[family.index % len(own)] if own else size_colours(run)[size]


def size_widths(run: Run) -> dict[int, float]:
    """A line width for each latent size, thin to thick, so that colour is not the only sign."""
    n = len(run.sizes)
    return {k: 1.3 + 1.7 * i / max(1, n - 1) for i, k in enumerate(run.sizes)}


def dash(family: Family, static: bool = False) -> Any:
    """Line style of a family."""
    return DASHES[family.index % len(DASHES)][static]


def marker(family: Family, static: bool = False) -> str:
    """Marker of a family."""
    return MARKERS[family.index % len(MARKERS)][static]
