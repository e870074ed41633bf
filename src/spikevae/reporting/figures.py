"""Every figure of the page as PNG and SVG files, for papers and slides."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..plot.drawing import draw
from ..plot.panel import Panel
from ..plot.style import colour, dash, marker
from ..plotting import Static, canvas, write
from ..sweep.reading import Run
from .sections import Figure

KEY_COLUMNS = 3


def write_figures(
    run: Run, folder: Path, figures: Sequence[Figure], advance: Callable[[str], None]
) -> dict[str, Static]:
    """Write each figure, with a row for each latent size; returns them by name."""
    written = {}
    for figure in figures:
        advance(figure.title)
        written[figure.id] = write_figure(run, folder, figure)
    return written


def literal(text: str) -> str:
    """Text from a file, with dollar signs escaped, so that Matplotlib does not read them as mathematics."""
    return text.replace("$", r"\$")


def write_figure(run: Run, folder: Path, figure: Figure) -> Static:
    """One figure."""
    from matplotlib.lines import Line2D

    sizes: list[int | None] = [*figure.sizes] or [None]
    rows, columns = (len(sizes), len(figure.panels)) if figure.sizes else wrapped(len(figure.panels))
    shown = [f for f in run.families if f.index in figure.labels]
    with canvas(rows, columns, 3.6, 2.9, key_rows=-(-len(shown) // KEY_COLUMNS)) as (sheet, axes):
        places = axes.ravel() if not figure.sizes else None
        for i, panel in enumerate(figure.panels):
            for j, size in enumerate(sizes):
                ax = places[i] if places is not None else axes[j, i]
                _panel(panel, ax, size)
        for ax in [] if places is None else places[len(figure.panels) :]:
            ax.set_axis_off()
        looks: list[dict[str, Any]] = [
            {"color": colour(f), "linestyle": dash(f), "marker": marker(f), "markersize": 6} for f in shown
        ]
        keys = [Line2D([], [], label=literal(figure.labels[f.index]), **look) for f, look in zip(shown, looks)]
        if keys:
            style = {"loc": "lower center", "fontsize": 9, "borderpad": 0.1, "borderaxespad": 0.2}
            sheet.legend(handles=keys, ncols=min(len(keys), KEY_COLUMNS), **style)
        return write(sheet, folder, figure.id.replace("-", "_"), f"{figure.title}. {figure.note}")


def _panel(panel: Panel, ax: Any, size: int | None) -> None:
    """One panel with its title."""
    draw(replace(panel, second=None), ax, size)
    where = "" if size is None else f", K = {size}"
    ax.set_title(literal(panel.title) + where, fontsize=9, loc="left")


def wrapped(n: int) -> tuple[int, int]:
    """Rows and columns for some panels, at most four in a row."""
    columns = min(n, 4)
    return -(-n // columns), columns
