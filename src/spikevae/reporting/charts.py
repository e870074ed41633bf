"""Interactive figures as Plotly specifications: plain data, drawn by the page's script.

Every trace has ``meta = {"family", "size"}``, by which the page's selector shows and hides it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._text import exact, shown
from ..plotting import GREY, GRID, INK, log_ticks, spans_decades
from .curves import Curve, HeatMap, banded, curves, heat_map, several_prices, start_pairs
from .families import Family
from .reading import Run, escaped
from .style import AXES, Axis, colour, dash, marker, size_widths

Chart = dict[str, Any]
"""``{"data": traces, "layout": layout}``"""

HEAT_METRICS = ("fraction_zeros", "firing_rate", "r2_pooled")
MAX_HEAT_TEXT = 120
MAX_UNITS_SHOWN = 1024
MAX_CURVE_POINTS = 200


def plain(values: Iterable[float]) -> list[float | None]:
    """Floats to five digits for JSON, None where undefined."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in map(float, values)]


def axis(what: Axis, values: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """Layout of an axis; on a logarithmic one, ticks at powers of ten if the values span enough of them."""
    layout: dict[str, Any] = {"title": title(what.label), "automargin": True, **more}
    if what.log and (values is None or spans_decades(values)):
        layout |= log_axis(values)
    return BASE_AXIS | layout


def title(text: str) -> dict[str, Any]:
    """Title of an axis."""
    return {"text": text, "standoff": 6, "font": {"size": 12.5}}


def log_axis(values: np.ndarray | None) -> dict[str, Any]:
    """A log axis with powers of ten, or with 1-2-5 ticks over a narrow range."""
    ticks = log_ticks(values) if values is not None else None
    if ticks is None:
        return {"type": "log", "dtick": 1, "exponentformat": "power", "minor": {"ticks": "outside", "ticklen": 3}}
    return {"type": "log", "tickvals": plain(ticks), "ticktext": [exact(float(f"{t:.3g}")) for t in ticks]}


BASE_AXIS: dict[str, Any] = {
    "gridcolor": GRID,
    "linecolor": GREY,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": GREY,
    "showline": True,
}
BASE_LAYOUT: dict[str, Any] = {
    "paper_bgcolor": "#fff",
    "plot_bgcolor": "#fff",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
    "margin": {"l": 56, "r": 12, "t": 10, "b": 48},
    "hovermode": "closest",
    "hoverlabel": {"font": {"size": 13}, "align": "left"},
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top", "font": {"size": 12}},
    "autosize": True,
}
BETA_AXIS = BASE_AXIS | {"title": title("β (weight of the coding rate)")} | log_axis(None)


def layout(xaxis: dict[str, Any], yaxis: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole layout."""
    return BASE_LAYOUT | {"xaxis": xaxis, "yaxis": yaxis} | more


def _line(run: Run, curve: Curve, x: np.ndarray, y: np.ndarray, hover: list[str], **more: Any) -> dict[str, Any]:
    symbol = marker(curve.family)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": plain(x),
        "y": plain(y),
        "text": hover,
        "hoverinfo": "text",
        "line": {
            "color": colour(run, curve.family, curve.n_latents),
            "dash": dash(curve.family),
            "width": size_widths(run)[curve.n_latents],
        },
        "marker": {"symbol": [symbol if ok else f"{symbol}-open" for ok in curve.converged], "size": 8},
        "showlegend": False,
        "meta": {"family": curve.family.index, "size": curve.n_latents},
    } | more


def _place(curve: Curve, i: int) -> str:
    return f"<b>{escaped(curve.family.label)}</b><br>K = {curve.n_latents}, β = {exact(curve.beta[i])}"


def _hover(curve: Curve, metrics: Sequence[str]) -> list[str]:
    """Hover text of each point: the place, the numbers with their range over seeds, the flag."""
    texts = []
    columns = {name: (curve.mean(name), curve.low(name), curve.high(name)) for name in metrics}
    for i, flag in enumerate(curve.flags):
        lines = [_place(curve, i)]
        for name, (mean, low, high) in columns.items():
            seeds = f" ({shown(low[i])} to {shown(high[i])})" if len(curve.cells[i]) > 1 else ""
            lines.append(f"{AXES[name].label}: {shown(mean[i])}{seeds}")
        texts.append("<br>".join([*lines, flag]))
    return texts


def against_beta(run: Run, metric: str) -> Chart:
    """A metric against beta: mean over seeds, bars from the lowest to the highest seed."""
    what, traces, everything = AXES[metric], [], []
    beside = {"fraction_zeros": ("fraction_zeros", "r2_pooled", "firing_rate")}.get(metric, (metric, "r2_pooled"))
    for curve in curves(run.best):
        mean, low, high = curve.mean(metric), curve.low(metric), curve.high(metric)
        if not np.isfinite(mean).any():
            continue
        everything.append(mean)
        bars = {}
        if any(len(point) > 1 for point in curve.cells):
            bars = {
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": plain(high - mean),
                    "arrayminus": plain(mean - low),
                    "thickness": 1,
                    "width": 3,
                }
            }
        if metric == "joules" and banded(run, curve):
            traces.append(_band(run, curve))
        traces.append(_line(run, curve, curve.beta, mean, _hover(curve, tuple(dict.fromkeys(beside))), **bars))
    values = np.concatenate(everything) if everything else None
    y_axis = axis(what, values)
    return {"data": traces, "layout": layout(BETA_AXIS, y_axis)}


def _band(run: Run, curve: Curve) -> dict[str, Any]:
    """The area between the low and the high energy cost of a spike."""
    low, high = curve.mean("joules_low"), curve.mean("joules_high")
    keep = np.isfinite(low) & np.isfinite(high) & (low > 0)
    red, green, blue = (int(colour(run, curve.family, curve.n_latents)[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": plain([*curve.beta[keep], *curve.beta[keep][::-1]]),
        "y": plain([*high[keep], *low[keep][::-1]]),
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.10)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"family": curve.family.index, "size": curve.n_latents},
    }


def frontier(run: Run, x_metric: str, y_metric: str) -> Chart:
    """One metric against another along beta, all families on one axis."""
    traces, xs = [], []
    for curve in curves(run.best):
        x, y = curve.mean(x_metric), curve.mean(y_metric)
        if not (np.isfinite(x) & np.isfinite(y)).any():
            continue
        xs.append(x)
        hover = _hover(curve, (x_metric, y_metric, "r2_pooled", "fraction_zeros", "firing_rate"))
        traces.append(_line(run, curve, x, y, hover))
    x_axis = axis(AXES[x_metric], np.concatenate(xs) if xs else None)
    return {"data": traces, "layout": layout(x_axis, axis(AXES[y_metric]))}


def heat(run: Run, family: Family, metric: str) -> Chart | None:
    """A heat map over beta and latent size, on the scale that all families share."""
    maps = {other.index: heat_map(run, other, metric) for other in run.families}
    own = maps[family.index]
    if not np.isfinite(own.values).any():
        return None
    log = AXES[metric].log
    all_values = np.concatenate([m.values.ravel() for m in maps.values()])
    all_values = all_values[np.isfinite(all_values) & ((all_values > 0) if log else True)]
    if not len(all_values):
        return None
    low, high = float(all_values.min()), float(all_values.max())
    scale = (math.log10(low), math.log10(high)) if log else (low, high)
    positive = np.where(own.values > 0, own.values, np.nan)
    z = np.log10(positive) if log else own.values
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "xpad": 4}
    if log:
        ticks = np.linspace(*scale, 4)
        bar |= {"tickvals": plain(ticks), "ticktext": [shown(10**t, 2) for t in ticks]}
    trace = {
        "type": "heatmap",
        "z": [plain(row) for row in z],
        "x": [exact(beta) for beta in own.betas],
        "y": [str(size) for size in own.sizes],
        "zmin": scale[0],
        "zmax": scale[1] if scale[1] > scale[0] else scale[0] + 1e-9,
        "colorscale": "Viridis",
        "colorbar": bar,
        "text": _heat_text(own),
        "hovertext": _heat_hover(own),
        "hoverinfo": "text",
        "xgap": 1,
        "ygap": 1,
        "meta": {"family": family.index, "size": None},
    }
    if own.values.size <= MAX_HEAT_TEXT:
        trace |= {"texttemplate": "%{text}", "textfont": {"size": 10}}
    x = BASE_AXIS | {"type": "category", "title": title("β"), "tickangle": 0}
    y = BASE_AXIS | {"type": "category", "title": title("Latent units K"), "automargin": True}
    return {"data": [trace], "layout": layout(x, y)}


def _heat_text(heat: HeatMap) -> list[list[str]]:
    return [[tight(v, heat.metric) for v in row] for row in heat.values]


def tight(value: float, metric: str) -> str:
    """A short form of a number: `.93`; two decimals, or two significant digits on logarithmic scales."""
    text = (
        shown(value, 2)
        if AXES[metric].log or not math.isfinite(value)
        else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")
    )
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _heat_hover(heat: HeatMap) -> list[list[str]]:
    label = AXES[heat.metric].label
    return [
        [
            f"K = {size}, β = {exact(beta)}<br>{label}: {shown(value)}<br>{flag}"
            for beta, value, flag in zip(heat.betas, row, flags)
        ]
        for size, row, flags in zip(heat.sizes, heat.values, heat.flags)
    ]


def starts(run: Run, metric: str) -> Chart | None:
    """The lowest start against the highest start, a point for each family, latent size, beta and seed."""
    pairs = [p for p in start_pairs(run) if math.isfinite(p[0][metric]) and math.isfinite(p[1][metric])]
    if not pairs:
        return None
    what, traces = AXES[metric], []
    for family in dict.fromkeys(low.family for low, _ in pairs):
        for size in run.sizes:
            own = [p for p in pairs if p[0].family == family and p[0].n_latents == size]
            if not own:
                continue
            symbol = marker(family)
            hover = [
                f"<b>{escaped(family.label)}</b><br>K = {size}, β = {exact(a.beta)}, seed {a.seed}<br>start "
                f"{exact(a.start)}: {shown(a[metric], 4)}<br>start {exact(b.start)}: {shown(b[metric], 4)}"
                f"<br>{a.check.flag}"
                for a, b in own
            ]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": plain(a[metric] for a, _ in own),
                    "y": plain(b[metric] for _, b in own),
                    "text": hover,
                    "hoverinfo": "text",
                    "marker": {"color": colour(run, family, size), "symbol": symbol, "size": 8, "opacity": 0.8},
                    "showlegend": False,
                    "meta": {"family": family.index, "size": size},
                }
            )
    values = np.array([c[metric] for pair in pairs for c in pair])
    ends = [float(values.min()), float(values.max())]
    identity: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": ends,
        "y": ends,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    identity["line"] = {"color": GREY, "width": 1, "dash": "dash"}
    short = {"fit_objective": "Objective", "firing_rate": "Mean firing rate"}[metric]
    x_axis = axis(Axis(metric, f"{short}, lowest start", what.log), values)
    y_axis = axis(Axis(metric, f"{short}, highest start", what.log), values)
    return {"data": [identity, *traces], "layout": layout(x_axis, y_axis)}


def three_way(run: Run) -> Chart | None:
    """Distortion, bits and spikes at once, for runs with several spike prices."""
    if not several_prices(run):
        return None
    cells = [c for c in run.best if math.isfinite(c["spikes"]) and c["spikes"] > 0]
    if not cells:
        return None
    log = [math.log10(c["spikes"]) for c in cells]
    prices = sorted({c.spike_price for c in cells})
    traces = []
    for i, price in enumerate(prices):
        own = [c for c in cells if c.spike_price == price]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{exact(price)} nats per spike",
                "x": plain(c["bits"] for c in own),
                "y": plain(c["distortion"] for c in own),
                "text": [
                    f"<b>{escaped(c.family.label)}</b><br>K = {c.n_latents}, β = {exact(c.beta)}"
                    f"<br>bits {shown(c['bits'])}"
                    f"<br>distortion {shown(c['distortion'])}<br>spikes {shown(c['spikes'])}"
                    f"<br>R² {shown(c['r2_pooled'])}"
                    for c in own
                ],
                "hoverinfo": "text",
                "marker": {
                    "symbol": ("circle", "square", "diamond", "triangle-up", "x", "star")[i % 6],
                    "size": [
                        6 + 8 * (math.log10(c["spikes"]) - min(log)) / max(1e-9, max(log) - min(log)) for c in own
                    ],
                    "color": [math.log10(c["spikes"]) for c in own],
                    "cmin": min(log),
                    "cmax": max(log) if max(log) > min(log) else min(log) + 1e-9,
                    "colorscale": "Viridis",
                    "showscale": i == 0,
                    "colorbar": {
                        "title": {"text": "Spikes", "side": "top"},
                        "thickness": 12,
                        "tickvals": plain(np.linspace(min(log), max(log), 4)),
                        "ticktext": [shown(10**t, 2) for t in np.linspace(min(log), max(log), 4)],
                    },
                    "line": {"width": 0.5, "color": INK},
                },
                "meta": {"family": None, "size": None},
            }
        )
    return {"data": traces, "layout": layout(axis(AXES["bits"]), axis(AXES["distortion"]))}
