"""The figures of the page, in the order in which a reader asks, as data; and the pictures below them."""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .._text import exact
from ..evaluation.prices import joules_per_spike
from ..plot._dictionary import MAX_ATOMS
from ..plot.along import along, with_paths
from ..plot.panel import Panel
from ..plot.style import short_labels
from ..plotting import Static
from ..sweep.families import Family
from ..sweep.reading import Run
from . import panels
from .drawing import shared
from .physiology import Shown
from .pictures import Picture
from .summary import leading


@dataclass(frozen=True)
class Figure:
    """Panels side by side that share one key."""

    id: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    labels: dict[int, str]
    """Label of each family by its index, for the key; empty without a key."""

    @property
    def sizes(self) -> list[int]:
        """Latent sizes to choose from."""
        return sorted({size for panel in self.panels for size in panel.sizes})

    def fullest_size(self, wish: int) -> int:
        """The latent size that most of its lines have; of several `wish`, else the largest."""
        lines = Counter(line.size for panel in self.panels for line in panel.lines if line.size is not None)
        return max(lines, key=lambda size: (lines[size], size == wish, size), default=wish)


@dataclass(frozen=True)
class Embedded:
    """A static figure inside the page."""

    uri: str
    alt: str
    title: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures of a few fits of each family, under one heading."""

    id: str
    title: str
    note: str
    rows: Sequence[tuple[str, Sequence[Picture]]] = ()
    """Heading and pictures of each family."""
    figures: Sequence[Embedded] = ()
    scale: int = 1
    """Screen pixels per stimulus pixel."""


def embed(static: Static, title: str = "") -> Embedded:
    """A figure as part of the page."""
    uri = "data:image/png;base64," + base64.b64encode(static.png.read_bytes()).decode()
    return Embedded(uri, static.alt, title)


def _figure(run: Run, id: str, title: str, note: str, drawn: Sequence[Panel | None]) -> list[Figure]:
    """The figure if there is anything to draw."""
    found = tuple(replace(p, id=f"{id}-{i}") for i, p in enumerate(drawn) if p)
    by_index = {f.index: f for f in run.families}
    families = [by_index[i] for i in dict.fromkeys(i for p in found for i in p.families)]
    return [Figure(id, title, note, found, short_labels(families))] if found else []


def answer_figure(run: Run) -> list[Figure]:
    """Zeros, spikes and R2 against beta for the families of the paper."""
    families = leading(run)
    real = [f.law_label for f in families if not f.is_count]
    note = f"{points(run)} {' and '.join(real)} codes are real-valued: no spikes to count." if real else points(run)
    drawn = [along(run, "", "beta", y, families) for y in ("fraction_zeros", "firing_rate", "r2_pooled")]
    return _figure(run, "sparsity", "Zeros, spikes and R² against β", note, drawn)


def cheapest_figure(run: Run) -> list[Figure]:
    """R2 against spikes for counts, and against bits and operations for all codes."""
    bits = along(run, "", "bits", "r2_pooled", run.families, "R² against bits (all codes)")
    chip = along(run, "", "operations", "r2_pooled", run.families, "R² against operations (all codes)")
    spikes = along(run, "", "spikes", "r2_pooled", run.families, "R² against spikes (count codes)")
    if spikes:
        spikes = with_paths(run, spikes)
        top = "Energy at the central cost (J per stimulus)", joules_per_spike()
        spikes = replace(spikes, second=top, leads=bool(bits and chip))
    paths = f"; thin lines with dots: along a rising spike price, {path_starts(run)}" if run.paths else ""
    note = (
        f"Upper left is better. Lines: along β{paths}. Real-valued codes have no spikes, so they meet counts only in "
        "bits and in operations: for each pixel an accumulate (0.9 pJ) per spike of counts, a multiply-accumulate "
        "(4.6 pJ) per non-zero value of the others."
    )
    if any(cell.config.get("inference", "amortised") != "amortised" for cell in run.cells):
        note += " Of iterative models these are the spikes of the final code, without those of inference."
    return _figure(run, "frontiers", "What fidelity costs", note, [spikes, bits, chip])


def path_starts(run: Run) -> str:
    """The values of beta from which paths start."""
    betas = sorted({path.start.beta for path in run.paths})
    return f"from β = {' and '.join(map(exact, betas))} on"


def all_figures(run: Run) -> list[Figure]:
    """Every figure: the two that are always in sight, then those that are folded."""
    return [*answer_figure(run), *cheapest_figure(run), *folded_figures(run)]


def points(run: Run) -> str:
    """How to read the lines of a figure against beta."""
    n = len(run.seeds)
    seeds = f"Mean over {n} seeds, bars from the lowest to the highest" if n > 1 else "One seed"
    starts = ", best of starts" if run.has_starts else ""
    return f"{seeds}{starts}; hollow: not converged or not checked."


MIN_SIZES = 3
"""Latent sizes from which quantities are shown against them."""


def folded_figures(run: Run) -> list[Figure]:
    """The figures below the first two, those without numbers left out."""
    first = leading(run)
    both = [f for f in run.families if f.law in {one.law for one in first} and (f.published or f in first)]
    against = ("fraction_zeros", "firing_rate", "r2_pooled")
    found: list[Figure] = []
    if any(f.published for f in both) and not all(f.published for f in both):
        found += _figure(
            run, "published", "The published recipe beside ours",
            f"Recipe of arXiv 2602.13421 at this budget, and ours, of the same laws. {points(run)}",
            [along(run, "", "beta", y, both) for y in against],
        )  # fmt: skip
    if len(run.families) > len(first) or any(f.is_control for f in run.families):
        found += _figure(
            run, "families", "All families against β",
            f"{points(run)} The mean activation of real-valued codes is in the unit of each code's prior, not in "
            "spikes.",
            [along(run, "", "beta", y, run.families) for y in (*against, "activation")],
        )  # fmt: skip
    found += _figure(
        run, "cost", "Information and energy against β",
        f"Energy: expected spikes at the central energy cost, for counts alone. {points(run)}",
        [along(run, "", "beta", y, run.families) for y in ("bits", "bits_per_spike", "joules")],
    )  # fmt: skip
    found += _figure(
        run, "readout", "How many stimuli does a decoder need?",
        "Predicted number of stimuli from which a linear read-out of the codes tells 90 % of what it can ever tell of "
        f"them, and the energy of the spikes in so many stimuli, at the central energy cost. {points(run)}",
        [along(run, "", "beta", y, run.families) for y in ("readout_stimuli", "readout_joules")],
    )  # fmt: skip
    if len(run.sizes) >= MIN_SIZES:
        beta = panels.nearest_to_one(run, run.families)
        found += _figure(
            run, "sizes", "Does the number of latent units matter?",
            f"At β = {exact(beta)}. {points(run)}",
            [panels.against_size(run, y, run.families, beta) for y in against],
        )  # fmt: skip
    found += _figure(
        run, "starts", "Does it matter where training starts?",
        "A point is a fit from the lowest start against the same fit from the highest; on the dashed line the start "
        "does not matter. Equal objectives (on training stimuli) with other firing rates: the objective leaves the "
        "rate free.",
        [panels.starts(run, metric) for metric in ("fit_objective", "firing_rate")],
    )  # fmt: skip
    return found + _unit_figures(run)


def _unit_figures(run: Run) -> list[Figure]:
    """A panel for each family."""

    def each(draw: Callable[[Run, Family], Panel | None], axes: str = "") -> list[Panel]:
        return shared((draw(run, family) for family in run.families), axes)

    which = "Each family's largest K and first seed at the lowest β, the one nearest to 1 and the highest."
    return [
        *_figure(run, "training", "Training curves", "Objective on training batches; it moves while β or the "
                 f"temperature is annealed. {which}", each(panels.training, "xy")),
        *_figure(run, "codes", "Histograms of the code", "Sampled codes of all units; the star is the share at zero, "
                 f"the last bin holds all beyond it. {which}", each(panels.code_histogram, "y")),
        *_figure(run, "prior", "Prior against posterior rate of each unit", "On the dashed line the prior is the "
                 f"mean posterior. {which}", each(panels.prior_posterior)),
    ]  # fmt: skip


def galleries(run: Run, dictionaries: Sequence[Picture], strips: Sequence[Picture]) -> list[Gallery]:
    """Dictionaries and reconstructions."""

    def rows(group: Sequence[Picture]) -> list[tuple[str, list[Picture]]]:
        names = {f.index: f.label for f in run.families}
        return [(names[i], [p for p in group if p.family == i]) for i in dict.fromkeys(p.family for p in group)]

    found = []
    if dictionaries:
        note = (
            f"Decoder columns, most used first, row by row, each on its own grey scale; at most {MAX_ATOMS} units of "
            "each family's largest K."
        )
        found.append(Gallery("dictionaries", "Dictionaries", note, rows(dictionaries), scale=2))
    if strips:
        note = "First row: held-out stimuli. Below: decoded from one sampled code each, on the same grey scale."
        found.append(Gallery("reconstructions", "Reconstructions", note, rows(strips), scale=4))
    return found


MAX_EMBEDDED = 600_000
"""Bytes that figures of physiology take on the page at most; the others are in files."""


def physiology_section(figures: Sequence[Shown], sentences: str) -> list[Gallery]:
    """Results of experiments on single units, if they can be done on any model of the run."""
    if not figures:
        return []
    note = (
        "Drifting gratings, white noise and bars with contrast and mean of the test stimuli, shown frame by frame to "
        "one fit of each family that infers step by step; the state is kept between frames. Responses are expected "
        f"spikes per unit per step; bars: standard errors over phases. Modelled units, not recorded ones. {sentences}"
    )
    shown: list[Embedded] = []
    for one in figures:
        picture = embed(one.figure, one.title)
        if sum(len(other.uri) for other in shown) + len(picture.uri) <= MAX_EMBEDDED:
            shown.append(picture)
    if len(shown) < len(figures):
        note += f" {len(figures) - len(shown)} more figures are in the folder figures/."
    return [Gallery("physiology", "Units examined as neurons", note, figures=shown)]
