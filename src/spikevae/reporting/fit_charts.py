"""Interactive figures of a few fits shown one by one: units, codes, training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._text import exact, shown
from ..plotting import BETA_COLOURS, GREY
from .charts import MAX_CURVE_POINTS, MAX_UNITS_SHOWN, Chart, axis, layout, plain
from .curves import histogram
from .families import Family
from .reading import Cell, Run
from .style import Axis


def beta_names(cells: Sequence[Cell]) -> list[tuple[Cell, str, str]]:
    """Each shown fit of one family with a colour and a name for its beta."""
    colours = BETA_COLOURS if len(cells) > 2 else (BETA_COLOURS[0], BETA_COLOURS[2])
    return [(cell, colour, f"β = {exact(cell.beta)}") for cell, colour in zip(cells, colours)]


def shown_of(run: Run, family: Family) -> list[Cell]:
    """The few fits of a family that are shown one by one."""
    return [cell for cell in run.shown if cell.family == family]


SYMBOLS = ("circle", "square", "diamond")


def prior_posterior(run: Run, family: Family) -> Chart | None:
    """Each unit's prior rate and its mean posterior rate, on equal logarithmic axes."""
    traces, every = [], []
    for (cell, colour, name), symbol in zip(beta_names(shown_of(run, family)), SYMBOLS):
        prior, rate = cell.units.get("prior_firing_rate", np.empty(0)), cell.units.get("firing_rate", np.empty(0))
        if len(prior) != len(rate):
            continue
        keep = np.isfinite(prior) & np.isfinite(rate) & (prior > 0) & (rate > 0)
        if not keep.any():
            continue
        x, y = rate[keep][:MAX_UNITS_SHOWN], prior[keep][:MAX_UNITS_SHOWN]
        every += [x, y]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": plain(x),
                "y": plain(y),
                "name": name,
                "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.65},
                "hovertemplate": "posterior mean %{x}<br>prior %{y}<extra>" + name + "</extra>",
                "meta": {"family": family.index, "size": None},
            }
        )
    if not traces:
        return None
    values = np.concatenate(every)
    ends = [float(values.min()) / 1.5, float(values.max()) * 1.5]
    identity: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": ends,
        "y": ends,
        "name": "equal",
        "hoverinfo": "skip",
    }
    identity["line"] = {"color": GREY, "width": 1, "dash": "dash"}
    identity["meta"] = {"family": family.index, "size": None}
    x_axis = axis(Axis("", "Mean posterior firing rate of the unit", log=True), values)
    y_axis = axis(Axis("", "Prior firing rate of the unit", log=True), values)
    return {"data": [identity, *traces], "layout": layout(x_axis, y_axis)}


def code_histogram(run: Run, family: Family) -> Chart | None:
    """Histogram of the sampled codes of all units: probability per unit of code, the share at zero as a star."""
    traces: list[dict[str, Any]] = []
    for cell, colour, name in beta_names(shown_of(run, family)):
        centres, density, zero = histogram(cell)
        meta = {"family": family.index, "size": None}
        keep = density > 0
        group = {"legendgroup": name, "meta": meta}
        line = {"color": colour, "shape": "hvh"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": plain(centres[keep]),
                "y": plain(density[keep]),
                "name": name,
            }
            | {"line": line, "marker": {"size": 4}, "hovertemplate": "code %{x}<br>%{y}<extra>" + name + "</extra>"}
            | group
        )
        traces.append(
            {"type": "scatter", "mode": "markers", "x": [0], "y": plain([zero]), "name": f"zeros, {name}"}
            | {"marker": {"symbol": "star", "size": 11, "color": colour}, "showlegend": False}
            | {"hovertemplate": f"share of zeros {shown(zero)}<extra>{name}</extra>"}
            | group
        )
    if not traces:
        return None
    y = axis(Axis("", "Share of codes (per unit of code)", log=True))
    x = axis(Axis("", "Code (spikes)" if family.has_rate else "Code"))
    return {"data": traces, "layout": layout(x, y)}


STEP_DASHES = ("solid", "dot", "dash", "dashdot")


def training(run: Run, family: Family) -> Chart | None:
    """Training objective against the step: a colour for each beta, a line style for each start."""
    traces: list[dict[str, Any]] = []
    used: list[float] = []
    for cell, colour, name in beta_names(shown_of(run, family)):
        first = True
        for start, step, value in training_curves(run, cell):
            used += [start.start] * (start.start not in used)
            style = STEP_DASHES[used.index(start.start) % len(STEP_DASHES)]
            traces.append(
                {"type": "scatter", "mode": "lines", "x": plain(step), "y": plain(value), "name": name}
                | {"line": {"color": colour, "dash": style, "width": 2}, "legendgroup": name, "showlegend": first}
                | {"meta": {"family": family.index, "size": None}}
                | {"hovertemplate": f"step %{{x}}<br>%{{y}}<extra>{name}, start {exact(start.start)}</extra>"}
            )
            first = False
    if not traces:
        return None
    for i, began in enumerate(used):
        line = {"color": GREY, "dash": STEP_DASHES[i % len(STEP_DASHES)], "width": 2}
        entry = {
            "type": "scatter",
            "mode": "lines",
            "x": [None],
            "y": [None],
            "name": f"start {exact(began)}",
            "line": line,
        }
        traces.append(entry | {"meta": {"family": family.index, "size": None}})
    values = np.array([v for t in traces for v in t["y"] if v is not None])
    y = axis(Axis("", "Training objective (nats/stimulus)", log=True), values)
    return {"data": traces, "layout": layout(axis(Axis("", "Optimiser step")), y)}


def training_curves(run: Run, cell: Cell) -> list[tuple[Cell, np.ndarray, np.ndarray]]:
    """Every start of a cell with its steps and training objectives, thinned."""
    found = []
    for start in starts_of(run, cell):
        step, value = start.history.get("step"), start.history.get("objective")
        if step is not None and value is not None and len(step) == len(value) and np.isfinite(value).any():
            chosen = np.unique(np.linspace(0, len(step) - 1, MAX_CURVE_POINTS).round().astype(int))
            found.append((start, step[chosen], value[chosen]))
    return found


def starts_of(run: Run, cell: Cell) -> list[Cell]:
    """Every fit that differs from a cell only in start or budget, lowest start first."""
    same = [other for other in run.cells if other.check.group == cell.check.group]
    return sorted(same, key=lambda other: (other.start, other.budget))
