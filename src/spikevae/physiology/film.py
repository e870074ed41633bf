"""The moving bar as a film, and where the ticks of a raster of spikes are."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sequences import image_size
from ..plotting import INK, PNG_DPI, SETTINGS, VERMILION
from .examination import Examination

MOST_TICKS = 40
"""Ticks in a step of a raster: as many are a solid block, and more look the same."""


def ticks(spikes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a raster of spikes (T, rows) has its ticks: times in steps, and rows.

    A step's spikes are spread evenly over it, half a step to either side, since a model says how many there are and not
    when. Values that are no counts have one tick each, in the middle.

    Examples
    --------
    >>> ticks(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    (array([0.  , 0.75, 1.25, 2.  ]), array([0, 0, 0, 1]))
    """
    counts = spikes if (spikes == np.rint(spikes)).all() else spikes > 0
    step, row = np.nonzero(counts > 0)
    of_each = np.minimum(counts[step, row], MOST_TICKS).astype(int)
    first = np.repeat(of_each.cumsum() - of_each, of_each)
    place = (np.arange(len(first)) - first + 0.5) / np.repeat(of_each, of_each)
    return np.repeat(step, of_each) + place - 0.5, np.repeat(row, of_each)


def write_film(found: Examination, path: Path, *, milliseconds: int = 60) -> Path:
    """An animated GIF: the bar that moves in the preferred direction, and the spikes of all units as they come.

    Parameters
    ----------
    path
        Where to write.
    milliseconds
        Of a frame.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    film = found.bar
    pictures, n = film.pictures[0] - found.gratings.background, film.pictures.shape[1]
    order = np.argsort(found.tuning.orientation, kind="stable")
    order = order[np.isin(order, found.order[:96])]  # no more rows than can be told apart
    row_of = np.full(len(found.order), -1)
    row_of[order] = np.arange(len(order))
    with rc_context(SETTINGS):
        figure = Figure(figsize=(6.6, 3.0), dpi=PNG_DPI)
        agg = FigureCanvasAgg(figure)
        screen = figure.add_axes((0.02, 0.2, 0.3, 0.66))
        screen.axis("off")
        screen.set_title("stimulus", fontsize=9)
        raster = figure.add_axes((0.43, 0.16, 0.55, 0.7))
        time, unit = ticks(film.population[0])
        here = (row_of[unit] >= 0) & (unit != film.unit)
        raster.plot(time[here], row_of[unit[here]], "|", color=INK, markersize=3, markeredgewidth=0.6)
        own = unit == film.unit
        raster.plot(time[own], row_of[unit[own]], "|", color=VERMILION, markersize=9, markeredgewidth=0.8)
        raster.set(xlim=(-1, n), ylim=(-2, len(order) + 1), xlabel="Frame", ylabel="Unit, by preferred orientation")
        raster.grid(False)
        raster.set_title(f"spikes (long ticks: unit {film.unit})", fontsize=9)
        agg.draw()
        whole = np.asarray(agg.buffer_rgba())[..., :3].copy()
        height = len(whole)

        def box(axes: Any) -> tuple[int, int, int, int]:
            """Left, right, top and bottom in pixels of the picture."""
            extent = axes.get_window_extent()
            return round(extent.x0), round(extent.x1), height - round(extent.y1), height - round(extent.y0)

        _, _, top, bottom = box(raster)
        to_pixels = raster.transData
        end_of = [round(to_pixels.transform((t + 0.5, 0))[0]) for t in range(n)]
        at = box(screen)
    channels, tall, wide = image_size(found.shape)
    limit = float(np.abs(pictures).max()) or 1.0
    factor = max(1, min((at[1] - at[0]) // wide, (at[3] - at[2]) // tall))
    sheets = []
    for t in range(n):
        sheet = whole.copy()
        sheet[top + 1 : bottom - 1, end_of[t] + 1 :] = 255
        sheet[top + 1 : bottom - 1, end_of[t] : end_of[t] + 1] = (89, 99, 110)
        scaled = np.clip(127.5 + 127.5 * pictures[t].reshape(channels, tall, wide) / limit, 0, 255).astype(np.uint8)
        small = scaled.transpose(1, 2, 0) if channels == 3 else np.repeat(scaled[:1].transpose(1, 2, 0), 3, 2)
        big = small.repeat(factor, 0).repeat(factor, 1)
        y, x = at[2] + (at[3] - at[2] - len(big)) // 2, at[0] + (at[1] - at[0] - big.shape[1]) // 2
        sheet[y : y + len(big), x : x + big.shape[1]] = big
        sheets.append(Image.fromarray(sheet).quantize(64))
    handle = io.BytesIO()
    sheets[0].save(handle, "GIF", save_all=True, append_images=sheets[1:], duration=milliseconds, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(handle.getvalue())
    return path
