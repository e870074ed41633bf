"""A comparison as text, JSON and a figure."""

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from ..plotting import GREY, INK, save, settings
from .points import LEVEL, MATCHED, Comparison, Point
from .recodings import OWN, RECODINGS

MAX_COLUMNS = 3
CONTOUR_COLOUR = "#c6cdd5"
CONTOUR_WIDTH, RIGHT_EDGE = 0.9, 1.02
"""Width of contours in points, and the right edge of a panel."""
AXES = {"fraction_zeros": "Fraction of zeros", "r2_pooled": "R² (pooled over stimuli)"}


def number(value: float | None, digits: int = 3) -> str:
    """A number as an entry of a table; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{max(digits - 2, 1)}e}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _with_interval(point: Point, name: str, value: float) -> str:
    low, high = point.intervals.get(name, (math.nan, math.nan))
    return f"{value:.3f} ({low:.3f}, {high:.3f})" if math.isfinite(low) else number(value)


def _entries(point: Point) -> list[str]:
    """One row of the table."""
    m, facts = point.metrics, point.facts
    label = RECODINGS[point.inference].label
    if point.role == "nearest":
        label += " ~"
    joules = "-" if math.isnan(m.joules) else f"{m.joules_low:.1e} / {m.joules:.1e} / {m.joules_high:.1e}"
    return [
        label,
        number(point.price),
        _with_interval(point, "r2_pooled", m.r2_pooled),
        _with_interval(point, "fraction_zeros", m.fraction_zeros),
        _with_interval(point, "corner_distance", point.corner_distance),
        number(m.l0),
        number(m.spikes),
        joules,
        number(m.encoder_macs),
        number(facts.get("events")),
        number(m.synops_events if math.isfinite(m.synops_events) else m.synops_nonzero),
        number(m.hardware_joules),
        number(point.milliseconds),
        number(facts.get("steps")),
        f"{facts['converged']:.0%}" if "converged" in facts else "-",
    ]


HEAD = (
    "inference",
    "weight",
    "R2",
    "zeros",
    "to the corner",
    "L0",
    "spikes",
    "joules low/central/high",
    "MACs",
    "events",
    "decoder ops",
    "hardware J",
    "ms",
    "steps",
    "converged",
)


def table(comparison: Comparison) -> str:
    """The points at which inferences are compared, one table per model; the scans are in the JSON file."""
    lines = [
        f"{comparison.n_stimuli} held-out stimuli of {comparison.data}, on {comparison.device}; weights chosen for the "
        f"{AXES[MATCHED[comparison.match]].replace('Fraction', 'fraction')} of the codes as trained (~: nearest, "
        "where no weight gives it).",
        f"In brackets {LEVEL:.0%} bootstrap intervals over {comparison.resampled}. All numbers are means over stimuli. "
        "MACs: dense operations of inference; events: the",
        "same if only active units send; spikes and joules: of the code, not of inference; decoder ops: synaptic",
        "operations of the code; ms: time of inference.",
    ]
    for one in comparison.models:
        chosen = [p for p in comparison.points if p.model == one.name and p.role != "scan"]
        own = next((p for p in chosen if p.role == "own"), None)
        lines += ["", f"{one.label}  ({one.path})"]
        lines += _aligned([list(HEAD), *(_entries(p) for p in chosen)])
        if own is not None and math.isfinite(own.metrics.bits):
            lines.append(f"as trained, mean instead of sampled codes: R2 {own.metrics.r2_pooled_mean_code:.3f}")
    found = sentences(comparison)
    return "\n".join([*lines, *(["", *found] if found else [])])


def sentences(comparison: Comparison) -> list[str]:
    """How much of the difference in R2 between a model and a sparse coder is due to inference, one sentence per pair.

    Both at the model's own fraction of zeros, where the sparse coder's R2 is interpolated in its scan. Empty without a
    sparse coder among the models, or if its inference was not asked for.
    """
    found = []
    coders = [one for one in comparison.models if not one.model.has_posterior]
    for reference, one in product(coders, comparison.models):
        inference = reference.model.algorithm
        own = next((p for p in comparison.of(one.name, OWN)), None)
        other = next((p for p in comparison.of(one.name, inference) if p.role == "matched"), None)
        line = comparison.of(reference.name, inference)
        scan: list[tuple[float, float]] = sorted((p.metrics.fraction_zeros, p.metrics.r2_pooled) for p in line)
        if one in coders or own is None or other is None or comparison.match != "zeros":
            continue
        zeros, trained, recoded = own.metrics.fraction_zeros, own.metrics.r2_pooled, other.metrics.r2_pooled
        if not scan or not scan[0][0] <= zeros <= scan[-1][0]:
            continue
        best = float(np.interp(zeros, [x for x, _ in scan], [y for _, y in scan]))
        text = (
            f"At {zeros:.0%} zeros {one.label} has R2 {trained:.3f} as trained, {recoded:.3f} when {inference} codes "
            f"with its dictionary; {reference.label} has {best:.3f}."
        )
        if best > trained:
            text += f" Inference accounts for {(recoded - trained) / (best - trained):.0%} of the difference."
        found.append(text)
    return found


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    kept = [i for i in range(len(rows[0])) if any(row[i] != "-" for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    return ["  ".join(row[i].ljust(widths[i]) if i == 0 else row[i].rjust(widths[i]) for i in kept) for row in rows]


def facts(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain values; numbers that are not defined are None."""
    return {
        "data": comparison.data,
        "stimuli": comparison.n_stimuli,
        "match": comparison.match,
        "device": comparison.device,
        "resampled": comparison.resampled,
        "models": [
            {"name": one.name, "label": one.label, "path": str(one.path), "seed": one.seed, "settings": one.settings}
            for one in comparison.models
        ],
        "points": [point.to_dict() for point in comparison.points],
    }


def write(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write comparison.json, comparison.txt and comparison.png / .svg into a folder; their paths."""
    from .._json import jsonable

    paths = {ending: folder / f"comparison.{ending}" for ending in ("json", "txt", "png", "svg")}
    write_bytes(paths["json"], json.dumps(jsonable(facts(comparison)), indent=1).encode())
    write_bytes(paths["txt"], f"{table(comparison)}\n".encode())
    _figure(comparison, paths["png"], paths["svg"])
    return paths


def _figure(comparison: Comparison, png: Path, svg: Path) -> None:
    """R2 against the fraction of zeros: one panel per model, one line per inference."""
    from matplotlib.figure import Figure

    models = comparison.models
    columns = min(MAX_COLUMNS, len(models))
    rows = math.ceil(len(models) / columns)
    names = [name for name in RECODINGS if any(p.inference == name for p in comparison.points)]
    key_rows = math.ceil((len(names) + 3) / (2 * columns))
    width, height, key = 4.4 * columns, 3.7 * rows, 0.2 * key_rows + 0.1
    with settings({"axes.grid": False}):
        figure = Figure(figsize=(width, height + key), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[height, key])
        body, foot = parts
        panels = body.subplots(rows, columns, squeeze=False)
        lowest = min((p.metrics.r2_pooled for p in comparison.points), default=0.0)
        for axes, one in zip(panels.flat, models):
            _panel(axes, comparison, one.name, names, lowest)
            axes.set_title(one.label, loc="left", fontsize=9, color=INK)
        for axes in panels.flat[len(models) :]:
            axes.axis("off")
        foot.legend(handles=_legend(names), loc="center", ncols=2 * columns, fontsize=8.5)
        save(figure, png)
        save(figure, svg)


def _legend(names: Sequence[str]) -> list[Any]:
    """Handles of the figure's legend."""
    from matplotlib.lines import Line2D

    def handle(label: str, **style: Any) -> Any:
        options: dict[str, Any] = {"linestyle": "none", "markersize": 11, "label": label}
        return Line2D([], [], **(options | style))

    lines = [
        handle(one.label, color=one.colour, marker=one.marker)
        if name == OWN
        else handle(one.label, color=one.colour, marker=one.marker, markersize=5, linestyle="-")
        for name, one in RECODINGS.items()
        if name in names
    ]
    if OWN in names:
        lines.append(handle("as trained, R² of its mean code", color=INK, marker="*", markerfacecolor="none"))
    return [
        *lines,
        handle("compared in the table", color=GREY, marker="o", markerfacecolor="none"),
        handle("distance to R² = 1, all zeros", color=CONTOUR_COLOUR, linestyle="-", linewidth=CONTOUR_WIDTH),
    ]


def _panel(axes: Any, comparison: Comparison, model: str, names: Sequence[str], lowest: float) -> None:
    angle = np.linspace(0, np.pi / 2, 60)
    for radius in (0.2, 0.4, 0.6, 0.8, 1.0):  # equal distance from the ideal corner
        circle = 1 - radius * np.cos(angle), 1 - radius * np.sin(angle)
        axes.plot(*circle, color=CONTOUR_COLOUR, linewidth=CONTOUR_WIDTH, zorder=0)
        axes.text(
            RIGHT_EDGE, 1 - radius, f" {radius:g}", color=GREY, fontsize=7, ha="left", va="center"
        )  # outside the axes
    for place, name in enumerate(names):
        style, line = RECODINGS[name], comparison.of(model, name)
        x = [p.metrics.fraction_zeros for p in line]
        y = [p.metrics.r2_pooled for p in line]
        if name == OWN:
            axes.plot(x, y, style.marker, color=style.colour, markersize=13, zorder=5)
            means = [p.metrics.r2_pooled_mean_code for p in line]
            axes.plot(x, means, style.marker, color=style.colour, markerfacecolor="none", markersize=13, zorder=5)
            continue
        wide = max(2.8 - 0.4 * place, 1.0)  # so that lines that coincide can all be seen
        axes.plot(
            x, y, style.marker, color=style.colour, linestyle="-", linewidth=wide, markersize=3.5 + wide, zorder=3
        )
        compared = [p for p in line if p.role in ("matched", "nearest")]
        axes.plot(
            [p.metrics.fraction_zeros for p in compared],
            [p.metrics.r2_pooled for p in compared],
            "o",
            color=style.colour,
            markerfacecolor="none",
            markersize=11,
            zorder=4,
        )
    axes.plot([1], [1], "o", color=INK, markersize=4, clip_on=False, zorder=6)
    axes.annotate("ideal", (1, 1), (-4, 4), textcoords="offset points", fontsize=8, ha="right", color=INK)
    axes.set_xlim(-0.02, RIGHT_EDGE)
    axes.set_ylim(min(-0.02, lowest - 0.03), 1.02)
    axes.set_xlabel(AXES["fraction_zeros"])
    axes.set_ylabel(AXES["r2_pooled"])
