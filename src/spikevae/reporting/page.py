"""The page: the answer and two figures, then everything else folded, in one offline HTML file."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._text import exact, plural, shown
from ..evaluation.prices import PRICES
from ..models.codes import CODES
from ..plot.panel import Panel
from ..plot.style import colour, dash, marker
from ..sweep.convergence import FLAGS
from ..sweep.reading import Run
from .answer import claims, convergence_sentence, demo_warning, family_sentences, sides
from .drawing import BESIDE, HEIGHT, LEADING, WIDTH, marker_path, svg
from .sections import Figure, Gallery
from .summary import Summary
from .tables import FIRST_COLUMNS, SIDE_COLUMNS, columns, side_rows, slope_tables, table_data

TEMPLATES = Path(__file__).parent / "templates"


def render(run: Run, words: Summary, figures: Sequence[Figure], galleries: Sequence[Gallery] = ()) -> str:
    """The whole page as text: the first two of the figures, then all others folded."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    texts: dict[str, int] = {}
    drawn = [figure_view(run, figure, words.size, texts) for figure in figures]
    both = sides(run)
    every = columns(run)
    sweep = run.config["sweep"]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        title=run.title,
        facts=facts(run),
        words=words,
        figures=drawn,
        galleries=galleries,
        claims=[{"title": s.title, "lines": claims(s), "families": family_sentences(s)} for s in both],
        convergence=convergence_sentence(run),
        sides=both,
        side_rows=side_rows(both),
        side_columns=list(SIDE_COLUMNS.values()),
        slope_tables=[{"title": side.title, "tables": slope_tables(side)} for side in both],
        flags=FLAGS,
        columns=[{"label": c.label, "unit": c.unit} for c in every],
        first=FIRST_COLUMNS,
        rows=[{"flag": cell.check.flag, "cells": [c.entry(cell) for c in every[:FIRST_COLUMNS]]} for cell in run.cells],
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
        data_json=Markup(script_json({"texts": list(texts), "table": table_data(run)})),
    )


def figure_view(run: Run, figure: Figure, size: int, texts: dict[str, int]) -> dict[str, Any]:
    """A figure for the template: its panels as SVG and its key."""
    from markupsafe import Markup

    shown_size = figure.fullest_size(size)
    return {
        "id": figure.id,
        "title": figure.title,
        "note": figure.note,
        "panels": [
            {
                "title": p.title,
                "leads": p.leads,
                "drawn": [Markup(one) for one in drawings(figure, p, shown_size, texts)],
            }
            for p in figure.panels
        ],
        "key": [
            {
                "index": f.index,
                "label": figure.labels[f.index],
                "colour": colour(f),
                "path": marker_path(marker(f)),
                "dashes": {"-": "none", "--": "5 3", ":": "2 2", "-.": "6 2 2 2"}[dash(f)],
            }
            for f in run.families
            if f.index in figure.labels
        ],
        "sizes": figure.sizes,
        "size": shown_size,
    }


def drawings(figure: Figure, panel: Panel, size: int, texts: dict[str, int]) -> list[str]:
    """A panel as SVG; one that leads its figure twice, of which the page shows the one that fits its width."""
    if panel.leads:
        return [svg(panel, size, texts), svg(replace(panel, id=f"{panel.id}-large"), size, texts, LEADING)]
    return [svg(panel, size, texts, BESIDE if figure.panels[0].leads else (WIDTH, HEIGHT))]


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
    parts = [
        f"{len(run.cells)} {plural(len(run.cells), 'fit')} on {name}",
        f"{len(run.families)} {'family' if len(run.families) == 1 else 'families'}",
        f"K {between(run.sizes)}",
        f"β {between(betas)}",
        f"{len(run.seeds)} {plural(len(run.seeds), 'seed')}",
        f"{shown(minutes, 2)} min of training",
        demo_warning(run),
    ]
    return " · ".join(part for part in parts if part)


def between(values: Sequence[float]) -> str:
    """Lowest to highest."""
    return exact(values[0]) if len(values) == 1 else f"{exact(values[0])} to {exact(values[-1])}"


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
