"""Panels as SVG for the page, where its script shows and hides their lines."""

import io
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..plot.drawing import draw
from ..plot.panel import Line, Panel
from ..plotting import save_svg, settings

WIDTH, HEIGHT, FONT = 360, 272, 13.0
"""Of a panel on the page, in pixels at its natural size."""
LEADING, BESIDE = (745, 470), (WIDTH, 222)
"""Size of a panel that leads its figure, and of each of two panels beside it."""


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
