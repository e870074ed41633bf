"""The page: sentences, figures, tables and configuration in one offline HTML file."""

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..distributions import LAWS
from ..energy import PRICES
from ..metrics.convergence import FLAGS
from . import charts
from .answer import QUANTITIES, claims, convergence_sentence, demo_warning, exact, family_sentences, shown, sides
from .figures import Static
from .pictures import Picture
from .reading import Run
from .style import AXES, size_colours, size_widths
from .tables import SIDE_COLUMNS, columns, side_rows, slope_tables

TEMPLATES = Path(__file__).parent / "templates"


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

    @property
    def has_key(self) -> bool:
        """Whether lines stand for families and latent sizes, so that it needs the key to both."""
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


def render(
    run: Run,
    statics: dict[str, Static],
    dictionaries: Sequence[Picture],
    strips: Sequence[Picture],
    advance: Callable[[str], None],
) -> str:
    """The whole page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    advance("interactive figures")
    sections = [*figure_sections(run, statics), *picture_sections(run, dictionaries, strips)]
    specs = {chart.id: chart.spec for section in sections for chart in section.charts}
    both = sides(run)
    sweep = run.config["sweep"]
    advance("page")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        title=run.title,
        facts=facts(run),
        warning=demo_warning(run),
        cards=[
            {"title": s.title, "explanation": s.explanation, "claims": claims(s), "families": family_sentences(s)}
            for s in both
        ],
        convergence=convergence_sentence(run),
        sides=both,
        side_rows=side_rows(both),
        side_columns=list(SIDE_COLUMNS.values()),
        slope_tables=[{"title": side.title, "tables": slope_tables(side)} for side in both],
        quantities=[q.label for q in QUANTITIES],
        families=family_swatches(run),
        sizes=[
            {"size": k, "colour": size_colours(run)[k], "width": round(1.5 * size_widths(run)[k], 1)} for k in run.sizes
        ],
        sections=sections,
        flags=FLAGS,
        columns=[{"label": c.label, "unit": c.unit} for c in columns(run)],
        rows=[{"flag": cell.check.flag, "numbers": [c.entry(cell) for c in columns(run)]} for cell in run.cells],
        data_text=str(run.data.get("description") or json.dumps(sweep.get("data", {}), indent=2)),
        data_citation=str((run.data.get("info") or {}).get("citation") or "").rstrip("."),
        prices=price_rows(),
        laws=[LAWS[name] for name in dict.fromkeys(f.law for f in run.families)],
        seeds=", ".join(map(str, run.seeds)),
        versions=versions(run),
        config_text=json.dumps(sweep, indent=2, ensure_ascii=False),
        settings=shared_settings(run),
        version=version("spikevae"),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        charts_json=Markup(script_json(specs)),
    )


def script_json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def facts(run: Run) -> str:
    """One line under the title."""
    betas = sorted({c.beta for c in run.cells})
    minutes = sum(c.seconds for c in run.cells if math.isfinite(c.seconds)) / 60
    name = str(run.data.get("name") or run.config["sweep"].get("data", {}).get("source", "unknown data"))
    return (
        f"{len(run.cells)} fits on {name}: {', '.join(f.label for f in run.families)}; "
        f"K = {', '.join(map(str, run.sizes))}; β = {', '.join(exact(b) for b in betas)}; "
        f"{len(run.seeds)} {'seed' if len(run.seeds) == 1 else 'seeds'}; {shown(minutes, 2)} minutes of training."
    )


# How it was run -----------------------------------------------------------------------------------------------------


def price_rows() -> list[dict[str, str]]:
    """Every constant behind the joules, with its source."""
    rows = []
    for level in ("low", "central", "high"):
        price = getattr(PRICES, level)
        for constant in (price.atp_per_spike, price.joules_per_atp):
            rows.append(
                {"name": level, "value": f"{shown(constant.value)} {constant.unit}", "source": constant.citation}
            )
    for constant in (PRICES.joules_per_mac, PRICES.joules_per_ac):
        rows.append(
            {"name": "hardware", "value": f"{shown(constant.value)} {constant.unit}", "source": constant.citation}
        )
    return rows


def versions(run: Run) -> str:
    """Versions recorded when the run began."""
    recorded = run.config.get("versions")
    if not isinstance(recorded, dict) or not recorded:
        return "Versions were not recorded."
    return "Trained with " + ", ".join(f"{name} {number}" for name, number in recorded.items()) + "."


def shared_settings(run: Run) -> list[dict[str, str]]:
    """Of each family, the settings that all its fits have in common."""
    entries = []
    for family in run.families:
        own = [c.config for c in run.cells if c.family == family]
        shared = {k: v for k, v in own[0].items() if all(other.get(k) == v for other in own)}
        entries.append({"label": family.label, "text": json.dumps(shared, indent=2, ensure_ascii=False)})
    return entries


def family_swatches(run: Run) -> list[dict[str, Any]]:
    """The families with a swatch of line and marker."""
    from markupsafe import Markup

    dashes = ("", "7 4", "2 3", "7 3 2 3", "12 4")
    shapes = (
        '<circle cx="19" cy="6" r="4"/>',
        '<rect x="15" y="2" width="8" height="8"/>',
        '<path d="M19 1l5 5-5 5-5-5z"/>',
        '<path d="M19 1l5 9h-10z"/>',
        '<path d="M19 1l5 4-2 6h-6l-2-6z"/>',
        '<path d="M19 1l1.5 3.5 4 .5-3 2.5 1 4-3.500-2-3.500 2 1-4-3-2.500 4-.5z"/>',
    )
    return [
        {
            "index": f.index,
            "label": f.label,
            "dashes": dashes[f.index % len(dashes)],
            "marker": Markup(f'<g fill="#59636e">{shapes[f.index % len(shapes)]}</g>'),
        }
        for f in run.families
    ]


# Figures -------------------------------------------------------------------------------------------------------------


def embedded(statics: dict[str, Static], *names: str) -> tuple[Embedded, ...]:
    """Static figures for readers without scripts."""
    return tuple(
        Embedded(
            "data:image/png;base64," + base64.b64encode(statics[name].png.read_bytes()).decode(), statics[name].alt
        )
        for name in names
        if name in statics
    )


def view(name: str, title: str, spec: charts.Chart | None, alt: str, height: int | None = None) -> list[ChartView]:
    """A chart if there is something to draw."""
    drawn = spec is not None and any(t["meta"].get("size") is not None or len(t["x"]) > 1 or "z" in t
                                     for t in spec["data"] if "meta" in t)  # fmt: skip
    return [ChartView(f"chart-{name}", title, alt, spec, height)] if spec is not None and drawn else []


def figure_sections(run: Run, statics: dict[str, Static]) -> list[Section]:
    """Every figure with its caption; those without numbers in this run are left out."""
    several = len(run.seeds) > 1
    bars = " Bars run from the lowest to the highest seed." if several else ""
    points = (
        f"Best of starts, mean over {len(run.seeds)} seeds.{bars} Colour and line width: K. Line and marker: family. Hollow "
        "markers: not every seed is flagged converged. Hover or tap for values."
        if several
        else "Best of starts, one seed. Colour and line width: K. Line and marker: family. Hollow markers: not flagged "
        "converged. Hover or tap for values."
    )
    sections = [
        Section(
            "sparsity", "Sparsity", "Sparsity, firing rate and fidelity against β",
            "Fraction of zeros, mean firing rate and R² of held-out stimuli against β. " + points,
            [c for m in ("fraction_zeros", "firing_rate", "r2") for c in _beta(run, m)], (), embedded(statics, "sparsity"),
        ),
        Section(
            "cost", "Cost", "Information and its price against β",
            "Coding rate, bits per spike and modelled energy against β; bands of the energy from the low to the high price "
            "of a spike. " + points,
            [c for m in ("bits", "bits_per_spike", "joules") for c in _beta(run, m)], (), embedded(statics, "cost"),
        ),
        Section(
            "frontiers", "Frontiers", "What a nat of distortion costs",
            "Distortion against coding rate (left) and against energy at the central price (right), one line a family and K "
            "along β: lower left is better. Signed codes have no spikes and so no energy. " + points,
            [
                *view("rate-distortion", "Rate and distortion", charts.frontier(run, "bits", "distortion"),
                      "Distortion against bits per stimulus, every family and latent size"),
                *view("energy-distortion", "Energy and distortion", charts.frontier(run, "joules", "distortion"),
                      "Distortion against joules per stimulus, every family and latent size"),
            ], (), embedded(statics, "frontiers"),
        ),
        Section(
            "heat-maps", "Heat maps", "β and latent size together",
            "Fraction of zeros, mean firing rate (logarithmic colours) and R² over β and K; one colour scale for all families. "
            "Best of starts, mean over seeds.",
            _heat_views(run), (), embedded(statics, "heat_maps"),
        ),
        Section(
            "prior", "Prior and posterior", "Prior against mean posterior firing rate",
            "A point is a unit; on the dashed line the prior is optimal for the encoder. " + shown_fits(run),
            [
                c for f in run.families
                for c in view(f"prior-{f.index}", f.label, charts.prior_posterior(run, f),
                              f"Prior against posterior firing rate of each unit, {f.label}")
            ], (), embedded(statics, "prior_posterior"),
        ),
        Section(
            "starts", "Starts", "Does it matter where training starts?",
            "Objective (on training stimuli, by which convergence is judged) and mean firing rate of the fit from the lowest "
            "start against those of the fit from the highest; a point for each family, K, β and seed. On the dashed line the start does not matter. Equal objectives with "
            "unequal firing rates: the rate is not identified.",
            [
                *view("starts-objective", "Objective", charts.starts(run, "fit_objective"),
                      "Objective from the lowest against the highest start"),
                *view("starts-rate", "Mean firing rate", charts.starts(run, "firing_rate"),
                      "Mean firing rate from the lowest against the highest start"),
            ], (), embedded(statics, "starts"),
        ),
        Section(
            "price", "Spike price", "Distortion, bits and spikes with a price on spikes",
            "A point is a fit (best of starts): colour and size show expected spikes per stimulus, the symbol the price of a "
            "spike in the objective.",
            view("three-way", "Three-way view", charts.three_way(run), "Distortion against bits, coloured by spikes", 460),
            (), embedded(statics, "spike_price"),
        ),
        Section(
            "codes", "Codes", "Histograms of the code",
            "Sampled codes of all units and held-out stimuli; the star at zero is the share of silent entries. "
            + shown_fits(run),
            [
                c for f in run.families
                for c in view(f"code-{f.index}", f.label, charts.code_histogram(run, f), f"Code histogram of {f.label}")
            ], (), embedded(statics, "code_histograms"),
        ),
        Section(
            "training", "Training", "Training curves",
            "Objective on training batches against the step, a line for each start. " + shown_fits(run),
            [
                c for f in run.families
                for c in view(f"training-{f.index}", f.label, charts.training(run, f), f"Training curves of {f.label}")
            ], (), embedded(statics, "training"),
        ),
    ]  # fmt: skip
    return [section for section in sections if section.charts]


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
    more = f" The first {len({c.family.index for c in run.shown})} families." if len(run.families) > 6 else ""
    return (
        "Shown for each family: its largest K and first seed at the lowest β, the β nearest to 1 and the highest β, "
        f"best of starts.{more}"
    )


def picture_sections(run: Run, dictionaries: Sequence[Picture], strips: Sequence[Picture]) -> list[Section]:
    """Dictionaries and reconstructions."""
    found = []
    if dictionaries:
        found.append(
            Section(
                "dictionaries", "Dictionaries", "Learned dictionaries, most used first",
                "Decoder columns in order of use (mean posterior firing rate; KL for signed codes), row by row; each on its own "
                "grey scale, zero mid-grey. At most 256 units. " + shown_fits(run), (), dictionaries,
            )
        )  # fmt: skip
    if strips:
        found.append(
            Section(
                "reconstructions", "Reconstructions", "Reconstructions of held-out stimuli",
                "Decoded from one sampled code each, on the grey scale of the stimuli; numbers are over all held-out stimuli. "
                + shown_fits(run), (), strips,
            )
        )  # fmt: skip
    return found
