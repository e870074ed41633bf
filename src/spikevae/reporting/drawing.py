"""Draw panels with Matplotlib: as SVG for the page, where the script shows and hides their lines, and in files."""

import io
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .._text import SUPERSCRIPT, exact, shown
from ..plotting import GREY, save_svg, settings, spans_decades
from .panels import Line, Panel
from .style import Axis

WIDTH, HEIGHT, FONT = 360, 272, 13.0
"""Of a panel on the page, in pixels at its natural size."""
LEADING, BESIDE = (745, 470), (WIDTH, 222)
"""Size of a panel that leads its figure, and of each of two panels beside it."""
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
        axes.legend(handlelength=1.6, borderaxespad=0.2, labelspacing=0.2)


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


def svg(panel: Panel, size: int | None, texts: dict[str, int], shape: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    """A panel as an SVG element for the page.

    Parameters
    ----------
    size
        The latent size whose lines are shown at first; all sizes are drawn.
    texts
        Numbers of the texts of points, which grow by those of this panel.
    shape
        Width and height in pixels at its natural size.
    """
    from matplotlib.figure import Figure

    groups: dict[str, Line] = {}
    margin = 50 if panel.second else 10
    with settings({"font.size": FONT, "axes.labelsize": FONT, "legend.fontsize": FONT}):
        width, height = shape
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.subplots()
        draw(panel, axes, groups=groups)
        left = max(42, 14 + 8 * _widest_tick(axes)) + (22 if axes.get_ylabel() else 0)
        figure.subplots_adjust(left / width, 46 / height, 1 - 14 / width, 1 - margin / height)
        file = io.StringIO()
        save_svg(figure, file, metadata={"Creator": None, "Type": None, "Format": None})
    return _for_page(file.getvalue(), panel, groups, size, texts)


def marker_path(name: str) -> str:
    """A marker as the path of an SVG element, 10 units wide, around zero."""
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(name)
    parts = style.get_path().transformed(style.get_transform()).to_polygons()
    return " ".join(f"M {' L '.join(f'{10 * x:.1f} {-10 * y:.1f}' for x, y in np.asarray(p))} Z" for p in parts)


def _widest_tick(axes: Any) -> int:
    """Characters of the longest number beside the y axis."""
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.yaxis.get_majorticklocs() if low <= tick <= high]
    return max((len(axes.yaxis.get_major_formatter()(tick)) for tick in ticks), default=1)


SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def _for_page(text: str, panel: Panel, groups: dict[str, Line], size: int | None, texts: dict[str, int]) -> str:
    """Matplotlib's file without what a page does not need, and with what its script needs."""
    root = ElementTree.fromstring(text)
    for child in list(root):
        if child.tag == f"{SVG}metadata" or child.find(f"{SVG}style") is not None:  # the page has its own style
            root.remove(child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "id": f"chart-{panel.id}", "role": "img",
                   "aria-label": panel.alt}  # fmt: skip
    for element in root.iter():
        _shorten(element, f"{panel.id}-")
    for element in root.iter(f"{SVG}g"):
        name = element.attrib.pop("id", "")
        stem, _, part = name.rpartition("-")
        if stem in groups:
            _tag(element, groups[stem], part, size, texts)
    _unwrap(root)
    body = ElementTree.tostring(root, encoding="unicode")
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", re.sub(r"(</?)\w+:", r"\1", body))
    return re.sub(r">\s+<", "><", body)


def _tag(element: Any, line: Line, part: str, size: int | None, texts: dict[str, int]) -> None:
    """Say whose line this is, and what to show for its points."""
    if line.family is not None:
        element.set("data-family", str(line.family))
    if line.size is not None:
        element.set("data-size", str(line.size))
        if line.size != size:
            element.set("class", "off")
    uses = list(element.iter(f"{SVG}use"))
    if uses:
        element.set("style", uses[0].attrib.get("style", ""))
        for use in uses:
            use.attrib.pop("style", None)
    if line.texts and part in "fh":
        filled = np.ones(len(line.x), bool) if line.filled is None else line.filled
        own = [t for t, f in zip(line.texts, filled) if f == (part == "f")]
        for use, text in zip(uses, own):
            use.set("data-t", str(texts.setdefault(text, len(texts))))


DROPPED = ("font-family", "stroke-linejoin", "stroke-linecap: square")


def _shorten(element: Any, prefix: str) -> None:
    """Make names unique on the page and numbers short."""
    given = element.attrib
    if LINK in given:
        given["href"] = "#" + prefix + given.pop(LINK)[1:]
    if "clip-path" in given:
        given["clip-path"] = given["clip-path"].replace("#", f"#{prefix}")
    if element.tag in (f"{SVG}path", f"{SVG}clipPath") and "id" in given:
        given["id"] = prefix + given["id"]
    if element.tag == f"{SVG}path" and "d" in given:
        given["d"] = re.sub(r"\s+", " ", _rounded(given["d"])).strip()
    for name in ("x", "y", "transform"):
        if name in given:
            given[name] = _rounded(given[name])
    if given.get("transform", "").startswith("rotate(-0 "):
        del given["transform"]
    if "style" in given:
        kept = [part for part in given["style"].split("; ") if not part.startswith(DROPPED)]
        given["style"] = "; ".join(p for p in kept if p != f"font-size: {FONT:g}px")


def _rounded(text: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", text)


def _unwrap(element: Any) -> None:
    """Replace groups without attributes by their children."""
    for i, child in reversed(list(enumerate(element))):
        _unwrap(child)
        if child.tag == f"{SVG}g" and not child.attrib:
            element.remove(child)
            for j, inner in enumerate(child):
                element.insert(i + j, inner)


def shared(panels: Iterable[Panel | None], axes: str = "xy") -> list[Panel]:
    """The panels that exist, with x axes, y axes or both in common."""
    found = [panel for panel in panels if panel]
    if not found:
        return []
    every = [line for panel in found for line in panel.lines]
    x, y = (ends(np.concatenate([getattr(line, which) for line in every])) for which in ("x", "y"))
    return [replace(panel, extent=(x if "x" in axes else [], y if "y" in axes else [])) for panel in found]


def ends(values: np.ndarray) -> list[float]:
    """Lowest and highest of the finite values, if there are any."""
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if len(finite) else []
