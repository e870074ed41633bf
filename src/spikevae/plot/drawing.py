"""Panels on Matplotlib's axes: lines, bars and markers, limits, ticks and labels."""

import math
from typing import Any

import numpy as np

from .._text import SUPERSCRIPT, exact, shown
from ..plotting import GREY, spans_decades
from .panel import Line, Panel
from .style import Axis

MAX_TICKS = 6
STEPS: tuple[tuple[float, ...], ...] = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5),
                                        (1, 3), (1,))  # fmt: skip


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two ends of a logarithmic axis, as many as fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in STEPS:
        ticks = [s * 10.0**p for p in range(first, last + 1) for s in steps if low <= s * 10.0**p <= high]
        if len(ticks) <= MAX_TICKS:
            return ticks
    stride = -(-len(ticks) // MAX_TICKS)
    return ticks[::-1][::stride][::-1]


def ticks_of(values: np.ndarray, low: float, high: float) -> list[float]:
    """The values themselves, those left out that are too near to the one before."""
    least = 0.09 * math.log10(high / low)
    kept: list[float] = []
    for value in sorted(set(values.tolist())):
        if not kept or math.log10(value / kept[-1]) >= least:
            kept.append(value)
    return kept


def tick_text(value: float) -> str:
    """A tick of a logarithmic axis: `0.01`, `300`, `10⁻⁹`."""
    if 1e-3 <= value < 1e5:
        return exact(float(f"{value:.3g}"))
    power = math.floor(math.log10(value) + 1e-9)
    times = exact(float(f"{value / 10**power:.2g}"))
    return ("" if times == "1" else f"{times}·") + f"10{str(power).translate(SUPERSCRIPT)}"


def limits(axis: Axis, values: np.ndarray) -> tuple[float, float, bool]:
    """Ends of an axis around some values, and whether it is logarithmic."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0, False
    low, high = float(finite.min()), float(finite.max())
    if axis.log and low > 0 and (axis.metric == "beta" or spans_decades(finite)):
        margin = max(0.04 * math.log10(high / low), 0.03)
        return low / 10**margin, high * 10**margin, True
    if axis.zero:
        low = min(low, 0.0)
    if axis.top is not None:
        high = max(high, axis.top)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - (0.3 if axis.zero and low == 0 else 1.0) * margin, high + margin, False


def draw(panel: Panel, axes: Any, size: int | None = None, groups: dict[str, Line] | None = None) -> None:
    """Draw a panel.

    Parameters
    ----------
    size
        Only lines of this latent size (and those of none); all if None.
    groups
        Filled with the line behind each name that is given to a part of the drawing.
    """
    _axes(panel, axes)
    for i, line in enumerate(panel.lines):
        if size is not None and line.size not in (None, size):
            continue
        name = f"line-{i}"
        if groups is not None:
            groups[name] = line
        _line(line, axes, name)
    labelled = [line for line in panel.lines if line.label]
    if labelled:
        axes.legend(handlelength=1.6, borderaxespad=0.2, labelspacing=0.2, frameon=False)


def _line(line: Line, axes: Any, name: str) -> None:
    """Bars, line and markers, filled and hollow ones."""
    if line.low is not None and line.high is not None and (line.high > line.low).any():
        axes.vlines(line.x, line.low, line.high, color=line.colour, linewidth=1.2, alpha=0.6, gid=f"{name}-b")
    label = line.label or None
    if line.joined:
        style = {"drawstyle": "steps-mid"} if line.stepped else {}
        axes.plot(
            line.x,
            line.y,
            line.dash,
            color=line.colour,
            linewidth=1.0 if line.fine else 1.8,
            gid=f"{name}-l",
            label=label,
            **style,
        )
        label = None
    if not line.marker:
        return
    filled = np.ones(len(line.x), bool) if line.filled is None else line.filled
    for word, here, face in (("f", filled, line.colour), ("h", ~filled, "white")):
        if here.any():
            axes.plot(
                line.x[here], line.y[here], line.marker, color=line.colour, markerfacecolor=face, markeredgewidth=1.3,
                markersize=7 if line.marker not in "sD" else 6, alpha=1.0 if line.joined else 0.75, label=label,
                gid=f"{name}-{word}", zorder=3,
            )  # fmt: skip
            label = None


def _axes(panel: Panel, axes: Any) -> None:
    """Limits, ticks and labels."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    ys = [v for line in panel.lines for v in (line.y, line.low, line.high) if v is not None]
    x = np.concatenate([*(line.x for line in panel.lines), panel.extent[0]])
    y = np.concatenate([*ys, panel.extent[1]])
    x_ends = limits(panel.x, np.array(panel.reach) if panel.reach else x)
    y_ends = limits(panel.y, y)
    if panel.diagonal:
        x_ends = y_ends = limits(panel.x, np.concatenate([x, y]))
        axes.plot(x_ends[:2], x_ends[:2], "--", color=GREY, linewidth=1)
    for which, (low, high, log) in (("x", x_ends), ("y", y_ends)):
        side = getattr(axes, f"{which}axis")
        getattr(axes, f"set_{which}scale")("log" if log else "linear")
        getattr(axes, f"set_{which}lim")(low, high)
        if log:
            own = which == "x" and panel.x.metric in ("beta", "size")
            side.set_major_locator(FixedLocator(ticks_of(x, low, high) if own else log_ticks(low, high)))
            side.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
            side.set_minor_locator(NullLocator())
        else:
            side.set_major_locator(MaxNLocator(5 if which == "x" else 6, steps=[1, 2, 5, 10]))
            side.set_major_formatter(FuncFormatter(lambda value, _: linear_text(value)))
    if panel.second:
        label, factor = panel.second
        second = axes.secondary_xaxis("top", functions=(lambda v: v * factor, lambda v: v / factor))
        low, high, log = x_ends
        if log:
            second.xaxis.set_major_locator(FixedLocator(log_ticks(low * factor, high * factor)))
            second.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
            second.xaxis.set_minor_locator(NullLocator())
        else:
            second.xaxis.set_major_locator(MaxNLocator(3))
            second.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, 2)))
        second.set_xlabel(label, labelpad=7)
    axes.set_xlabel(panel.x.label)
    if panel.y.label not in panel.title and not panel.title.startswith("R²"):
        axes.set_ylabel(panel.y.label)


def linear_text(value: float) -> str:
    """A tick of a linear axis."""
    return exact(float(f"{value:.6g}")) if abs(value) >= 1e-9 else "0"
