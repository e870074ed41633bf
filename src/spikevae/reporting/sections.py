"""Sections of the page: which figures stand under which heading, with captions."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..plotting import Static
from . import charts, fit_charts
from .families import Family
from .physiology import Shown
from .pictures import MAX_ATOMS, Picture
from .reading import MAX_SHOWN_FAMILIES, Run
from .style import AXES, family_colours


@dataclass(frozen=True)
class ChartView:
    """An interactive figure on the page."""

    id: str
    title: str
    alt: str
    spec: charts.Chart
    height: int | None = None


@dataclass(frozen=True)
class Section:
    """A heading, figures and what they show."""

    id: str
    short: str
    title: str
    caption: str
    charts: Sequence[ChartView] = ()
    pictures: Sequence[Picture] = ()
    statics: Sequence["Embedded"] = field(default_factory=tuple)
    """Figures for readers without scripts."""
    figures: Sequence["Embedded"] = field(default_factory=tuple)
    """Figures for all readers, with titles."""

    @property
    def has_key(self) -> bool:
        """Whether lines stand for families and latent sizes, so that the section needs the key to both."""
        return self.id in ("sparsity", "cost", "frontiers", "starts")

    @property
    def wide(self) -> bool:
        """Whether two panels stand side by side instead of three."""
        return len(self.charts) in (2, 4)


@dataclass(frozen=True)
class Embedded:
    """A static figure inside the page."""

    uri: str
    alt: str
    title: str = ""


def embed(static: Static, title: str = "") -> Embedded:
    """A figure as part of the page."""
    uri = "data:image/png;base64," + base64.b64encode(static.png.read_bytes()).decode()
    return Embedded(uri, static.alt, title)


def embedded(statics: dict[str, Static], *names: str) -> tuple[Embedded, ...]:
    """Static figures for readers without scripts."""
    return tuple(embed(statics[name]) for name in names if name in statics)


def view(name: str, title: str, spec: charts.Chart | None, alt: str, height: int | None = None) -> list[ChartView]:
    """A chart if there is something to draw."""
    drawn = spec is not None and any(t["meta"].get("size") is not None or len(t["x"]) > 1 or "z" in t
                                     for t in spec["data"] if "meta" in t)  # fmt: skip
    return [ChartView(f"chart-{name}", title, alt, spec, height)] if spec is not None and drawn else []


@dataclass(frozen=True)
class _Plan:
    """A section before its charts are drawn."""

    id: str
    short: str
    title: str
    caption: str
    static: str
    """Name of the static figure that is shown in browsers without scripts."""


def figure_sections(run: Run, statics: dict[str, Static]) -> list[Section]:
    """Every figure with its caption; those without numbers in this run are left out."""
    found = []
    for plan in PLANS:
        drawn = CHARTS[plan.id](run)
        if drawn:
            notes = {"points": points(run), "fits": shown_fits(run)}
            caption = plan.caption.format(**notes)
            found.append(Section(plan.id, plan.short, plan.title, caption, drawn, (), embedded(statics, plan.static)))
    return found


def points(run: Run) -> str:
    """Caption of a figure against beta: what its lines and markers mean."""
    n = len(run.seeds)
    seeds = f"mean over {n} seeds, bars from the lowest to the highest" if n > 1 else "one seed"
    hollow = (
        "Hollow markers: not every seed is flagged converged." if n > 1 else "Hollow markers: not flagged converged."
    )
    signs = (
        "Colour, line and marker: family."
        if family_colours(run)
        else "Colour and line width: K. Line and marker: family."
    )
    return f"Best of starts, {seeds}. {signs} {hollow} Hover or tap for values."


PLANS = (
    _Plan(
        "sparsity",
        "Sparsity",
        "Sparsity, firing rate and fidelity against β",
        "Fraction of zeros, mean firing rate and R² of held-out stimuli against β. {points}",
        "sparsity",
    ),
    _Plan(
        "cost",
        "Cost",
        "Information and its energy cost against β",
        "Coding rate, bits per spike and modelled energy at the central price against β; the band, drawn for the "
        "largest K of each family, extends from the low to the high energy cost of a spike. {points}",
        "cost",
    ),
    _Plan(
        "frontiers",
        "Frontiers",
        "What fidelity costs in bits and in energy",
        "Distortion against coding rate, and against energy at the central price, one line per family and K along β: "
        "lower left is better. Signed codes have no spikes and so no energy. {points}",
        "frontiers",
    ),
    _Plan(
        "heat-maps",
        "Heat maps",
        "β and latent size together",
        "Fraction of zeros, mean firing rate (logarithmic colours) and R² over β and K; one colour scale for all "
        "families. Best of starts, mean over seeds.",
        "heat_maps",
    ),
    _Plan(
        "prior",
        "Prior and posterior",
        "Prior against mean posterior firing rate",
        "A point is a unit, firing rates in spikes per stimulus; on the dashed line the prior is optimal for the "
        "encoder. {fits}",
        "prior_posterior",
    ),
    _Plan(
        "starts",
        "Starts",
        "Does it matter where training starts?",
        "Objective (on training stimuli, by which convergence is judged) and mean firing rate of the fit from the "
        "lowest start against those of the fit from the highest; a point for each family, K, β and seed. On the dashed "
        "line the start does not matter. Equal objectives with unequal firing rates: the firing rate is not "
        "identified.",
        "starts",
    ),
    _Plan(
        "price",
        "Spike price",
        "Distortion, bits and spikes at several spike prices",
        "A point is a fit (best of starts): colour and size show expected spikes per stimulus, the symbol the spike "
        "price.",
        "spike_price",
    ),
    _Plan(
        "codes",
        "Codes",
        "Histograms of the code",
        "Sampled codes of all units and held-out stimuli; the star at zero is the share of entries at zero; the "
        "last bin also contains all codes beyond it. {fits}",
        "code_histograms",
    ),
    _Plan(
        "training",
        "Training",
        "Training curves",
        "Objective on training batches against the step; colour: β, line: start. While β or the temperature is "
        "annealed the objective itself moves. {fits}",
        "training",
    ),
)


def _sparsity(run: Run) -> list[ChartView]:
    return [view for metric in ("fraction_zeros", "firing_rate", "r2_pooled") for view in _beta(run, metric)]


def _cost(run: Run) -> list[ChartView]:
    return [view for metric in ("bits", "bits_per_spike", "joules") for view in _beta(run, metric)]


def _frontiers(run: Run) -> list[ChartView]:
    rate = charts.frontier(run, "bits", "distortion")
    energy = charts.frontier(run, "joules", "distortion")
    return [
        *view("rate-distortion", "Rate and distortion", rate, "Distortion against bits, every family and latent size"),
        *view("energy-distortion", "Energy and distortion", energy, "Distortion against joules, every family and size"),
    ]


def _starts(run: Run) -> list[ChartView]:
    objective, rate = charts.starts(run, "fit_objective"), charts.starts(run, "firing_rate")
    return [
        *view("starts-objective", "Objective", objective, "Objective, lowest against highest start"),
        *view("starts-rate", "Mean firing rate", rate, "Mean firing rate, lowest against highest start"),
    ]


def _price(run: Run) -> list[ChartView]:
    return view(
        "three-way", "Three-way view", charts.three_way(run), "Distortion against bits, coloured by spikes", 460
    )


def _families(run: Run, name: str, draw: Callable[[Run, Family], charts.Chart | None], alt: str) -> list[ChartView]:
    """One panel per family."""
    return [
        chart
        for family in run.families
        for chart in view(f"{name}-{family.index}", family.label, draw(run, family), f"{alt}, {family.label}")
    ]


CHARTS: dict[str, Callable[[Run], list[ChartView]]] = {
    "sparsity": _sparsity,
    "cost": _cost,
    "frontiers": _frontiers,
    "heat-maps": lambda run: _heat_views(run),
    "prior": lambda run: _families(
        run, "prior", fit_charts.prior_posterior, "Prior against posterior firing rate of each unit"
    ),
    "starts": _starts,
    "price": _price,
    "codes": lambda run: _families(run, "code", fit_charts.code_histogram, "Histogram of sampled codes"),
    "training": lambda run: _families(run, "training", fit_charts.training, "Training curves"),
}


def _beta(run: Run, metric: str) -> list[ChartView]:
    label = AXES[metric].label
    return view(f"beta-{metric}", label.split(" (")[0], charts.against_beta(run, metric), f"{label} against β")


def _heat_views(run: Run) -> list[ChartView]:
    height = min(460, 130 + 26 * max(4, len(run.sizes)))
    return [
        c
        for family in run.families
        for metric in charts.HEAT_METRICS
        for c in view(
            f"heat-{family.index}-{metric}",
            f"{family.label}: {AXES[metric].label.split(' (')[0]}",
            charts.heat(run, family, metric),
            f"Heat map of {AXES[metric].label} over β and K, {family.label}",
            height,
        )
    ]


def shown_fits(run: Run) -> str:
    """Which few fits a figure shows."""
    more = f" The first {MAX_SHOWN_FAMILIES} families." if len(run.families) > MAX_SHOWN_FAMILIES else ""
    return (
        "Shown for each family: its largest K and first seed at the lowest β, the β nearest to 1 and the highest β, "
        f"best of starts.{more}"
    )


def picture_sections(run: Run, dictionaries: Sequence[Picture], strips: Sequence[Picture]) -> list[Section]:
    """Dictionaries and reconstructions."""
    found = []
    if dictionaries:
        caption = (
            "Decoder columns in order of use (mean posterior firing rate; KL for signed codes, share of stimuli for "
            "sparse ones), row by row; each on "
            f"its own grey scale, zero mid-grey. At most {MAX_ATOMS} units. {shown_fits(run)}"
        )
        title = "Learned dictionaries, most used first"
        found.append(Section("dictionaries", "Dictionaries", title, caption, (), dictionaries))
    if strips:
        caption = (
            "Decoded from one sampled code each, on the grey scale of the stimuli; numbers are over all held-out "
            f"stimuli. {shown_fits(run)}"
        )
        title = "Reconstructions of held-out stimuli"
        found.append(Section("reconstructions", "Reconstructions", title, caption, (), strips))
    return found


def physiology_section(figures: Sequence[Shown], sentences: str) -> list[Section]:
    """Results of experiments on single units, if they can be done on any model of the run."""
    if not figures:
        return []
    caption = (
        "Drifting gratings, white noise and bars with contrast and mean of the test stimuli, shown frame by frame to "
        "one fit of each family that infers step by step (largest K, first seed, β nearest to 1); the state is kept "
        "from frame to frame. Responses are expected spikes per unit per step; bars: standard errors over starting "
        f"phases. The units are modelled, not recorded. {sentences}"
    )
    shown = [embed(one.figure, one.title) for one in figures]
    return [Section("physiology", "Physiology", "Units examined as neurons", caption, figures=shown)]
