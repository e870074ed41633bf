"""The page: sentences, figures, tables and configuration in one offline HTML file."""

import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._text import exact, shown
from ..evaluation.prices import PRICES
from ..models.codes import CODES
from ..plotting import GREY, Static
from ..sweep.convergence import FLAGS
from .answer import claims, convergence_sentence, demo_warning, family_sentences, sides
from .findings import QUANTITIES
from .pictures import Picture
from .reading import Run
from .sections import Section, figure_sections, picture_sections
from .style import family_colours, size_colours, size_widths
from .tables import SIDE_COLUMNS, columns, side_rows, slope_tables

TEMPLATES = Path(__file__).parent / "templates"


def render(
    run: Run,
    statics: dict[str, Static],
    dictionaries: Sequence[Picture],
    strips: Sequence[Picture],
    advance: Callable[[str], None],
    others: Sequence[Section] = (),
) -> str:
    """The whole page as text; `others` are sections that follow the pictures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    advance("interactive figures")
    sections = [*figure_sections(run, statics), *picture_sections(run, dictionaries, strips), *others]
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
        cards=[{"title": s.title, "claims": claims(s), "families": family_sentences(s)} for s in both],
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
        laws=[CODES[name] for name in dict.fromkeys(f.law for f in run.families)],
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
    """JSON for a script element, without characters that could end the element."""
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


def price_rows() -> list[dict[str, str]]:
    """Every constant of the joules, with its source."""
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
    """The settings that all fits of a family have in common, per family."""
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
    own = family_colours(run)
    colours = [own[f.index % len(own)] if own else GREY for f in run.families]
    return [
        {
            "index": f.index,
            "colour": colour,
            "label": f.label,
            "dashes": dashes[f.index % len(dashes)],
            "marker": Markup(f'<g fill="{colour}">{shapes[f.index % len(shapes)]}</g>'),
        }
        for f, colour in zip(run.families, colours)
    ]
