"""Figure settings and small helpers for every figure of the package: colours, fonts, sizes, files, axes.

Matplotlib is imported by the functions that draw, never at import. Colours are those of Okabe and Ito (2008), which
colour-blind readers can distinguish; lines also differ in marker or dash.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._files import write_bytes

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, GRID = "#1b1f24", "#59636e", "#d8dee4"
BETA_COLOURS = ("#0072B2", "#E69F00", "#D55E00")  # Okabe-Ito: lowest beta, near 1, highest
FAMILY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1b1f24", "#8C8C00")

PNG_DPI = 110
SETTINGS: Any = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "spikevae",
}


@dataclass(frozen=True)
class Static:
    """A figure in a file."""

    name: str
    png: Path
    alt: str


NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that no XML file may contain (XML 1.0, section 2.2)."""


def settings(changes: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
    """Matplotlib's own settings with those of this package, whatever styles the caller has chosen, for a while.

    Parameters
    ----------
    changes
        Further settings.
    """
    from matplotlib import style

    context: AbstractContextManager[None] = style.context(["default", {**SETTINGS, **(changes or {})}])
    return context


def save_svg(figure: Any, file: Any, metadata: dict[str, Any] | None = None) -> None:
    """Write a figure as SVG, without a date; characters in labels that XML does not allow become U+FFFD.

    Parameters
    ----------
    figure
        A Matplotlib figure.
    file
        Path, or file object for text.
    metadata
        As of `savefig`, beside the date.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, **(metadata or {})})
    clean = NOT_IN_XML.sub("\ufffd", text.getvalue())
    if hasattr(file, "write"):
        file.write(clean)
    else:
        Path(file).write_text(clean, encoding="utf-8")


@contextmanager
def canvas(
    rows: int, columns: int, width: float = 3.6, height: float = 3.0, *, key_rows: int = 0
) -> Iterator[tuple[Any, np.ndarray]]:
    """A figure and its (rows, columns) axes with these settings, which do not change global state.

    Margins are fixed in inches (labels and titles have known sizes), which is faster than a layout engine that
    measures every label. Space for `key_rows` lines is left for a legend below the axes.
    """
    from matplotlib.figure import Figure

    left, right, bottom, top, gap_x, gap_y = 0.7, 0.15, 0.5 + 0.2 * key_rows, 0.3, 0.8, 0.75
    wide = left + right + columns * width + (columns - 1) * gap_x
    tall = top + bottom + rows * height + (rows - 1) * gap_y
    with settings():
        figure = Figure(figsize=(wide, tall))
        figure.subplots_adjust(
            left / wide, bottom / tall, 1 - right / wide, 1 - top / tall, gap_x / width, gap_y / height
        )
        yield figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> None:
    """Write a figure without a date, so that equal figures give equal files; the ending of the name says how.

    Raises
    ------
    OSError
        Where the file cannot be written; the one before is unchanged.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind == "svg":
        text = io.StringIO()
        save_svg(figure, text)
        write_bytes(path, text.getvalue().encode())
    else:
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=PNG_DPI)
        write_bytes(path, drawn.getvalue())


def well_formed(svg: str) -> str:
    """The text of an SVG with characters that XML forbids, such as ESC in a label, replaced."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", svg)


def write(figure: Any, folder: Path, name: str, alt: str) -> Static:
    """Write PNG and SVG without a date, so that equal figures give equal files."""
    save(figure, folder / f"{name}.png")
    save(figure, folder / f"{name}.svg")
    return Static(name, folder / f"{name}.png", alt)


LINEAR_RATIO = 2.5
"""Positive values with a larger ratio get a logarithmic axis."""


def spans_decades(values: np.ndarray) -> bool:
    """Whether all values are positive and their range needs a logarithmic axis."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and finite.min() > 0 and finite.max() > LINEAR_RATIO * finite.min()
