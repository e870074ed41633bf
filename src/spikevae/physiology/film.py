"""The moving bar as a film, and positions of the ticks in a raster of spikes."""

import io
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from .._files import write_bytes
from ..data.sequences import image_size
from ..plotting import INK, PNG_DPI, VERMILION, settings
from .examination import Examination

MAX_TICKS = 40
"""Most ticks in one step of a raster, where they already look like a solid block."""
MAX_ROWS = 96
"""Most rows of the raster in a film: more could not be distinguished."""


def ticks(spikes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ticks of a raster of spikes (T, rows): their times, in steps, and rows.

    The spikes of a step are spread evenly over it, half a step to either side, since a model gives their number and not
    their times. Values that are not counts have one tick each, in the middle.

    Examples
    --------
    >>> ticks(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    (array([0.  , 0.75, 1.25, 2.  ]), array([0, 0, 0, 1]))
    """
    counts = spikes if (spikes == np.rint(spikes)).all() else spikes > 0
    step, row = np.nonzero(counts > 0)
    of_each = np.minimum(counts[step, row], MAX_TICKS).astype(int)
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
        Duration of a frame.
    """
    from PIL import Image

    film = found.bar
    pictures = film.pictures[0] - found.gratings.background
    whole, screen, raster, end_of = _last_frame(found)
    limit = float(np.abs(pictures).max()) or 1.0
    frames = []
    for t, picture in enumerate(pictures):
        frame = whole.copy()
        inside = slice(raster.top + 1, raster.bottom - 1)
        frame[inside, end_of[t] + 1 :] = 255
        frame[inside, end_of[t] : end_of[t] + 1] = (89, 99, 110)
        _paste(frame, screen, 127.5 + 127.5 * picture.reshape(image_size(found.shape)) / limit)
        frames.append(Image.fromarray(frame).quantize(64))
    handle = io.BytesIO()
    frames[0].save(handle, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    write_bytes(path, handle.getvalue())
    return path


class _Box(NamedTuple):
    """Where axes lie in a figure, pixels from its left upper corner."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def of(cls, axes: Any, height: int) -> Self:
        """Of matplotlib axes in a figure of this height."""
        extent = axes.get_window_extent()
        return cls(round(extent.x0), round(extent.x1), height - round(extent.y1), height - round(extent.y0))


def _last_frame(found: Examination) -> tuple[np.ndarray, _Box, _Box, list[int]]:
    """The figure with all spikes and no stimulus (H, W, 3), the boxes of the stimulus and of the raster of spikes, and
    the column of pixels at which each time step ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(6.6, 3.0), dpi=PNG_DPI)
        agg = FigureCanvasAgg(figure)
        screen = figure.add_axes((0.02, 0.2, 0.3, 0.66))
        screen.axis("off")
        screen.set_title("stimulus", fontsize=9)
        raster = figure.add_axes((0.43, 0.16, 0.55, 0.7))
        _draw_raster(raster, found)
        agg.draw()
        whole = np.asarray(agg.buffer_rgba())[..., :3].copy()
        to_pixels = raster.transData
        end_of = [round(to_pixels.transform((t + 0.5, 0))[0]) for t in range(found.bar.pictures.shape[1])]
        return whole, _Box.of(screen, len(whole)), _Box.of(raster, len(whole)), end_of


def _draw_raster(axes: Any, found: Examination) -> None:
    """Spikes of the units that are tuned best, by preferred orientation; the recorded unit has long ticks."""
    film = found.bar
    order = np.argsort(found.tuning.orientation, kind="stable")
    order = order[np.isin(order, found.order[:MAX_ROWS])]
    row_of = np.full(len(found.order), -1)
    row_of[order] = np.arange(len(order))
    time, unit = ticks(film.population[0])
    here = (row_of[unit] >= 0) & (unit != film.unit)
    axes.plot(time[here], row_of[unit[here]], "|", color=INK, markersize=3, markeredgewidth=0.6)
    own = unit == film.unit
    axes.plot(time[own], row_of[unit[own]], "|", color=VERMILION, markersize=9, markeredgewidth=0.8)
    n = film.pictures.shape[1]
    axes.set(xlim=(-1, n), ylim=(-2, len(order) + 1), xlabel="Frame", ylabel="Unit, by preferred orientation")
    axes.grid(False)
    axes.set_title(f"spikes (long ticks: unit {film.unit})", fontsize=9)


def _paste(frame: np.ndarray, box: _Box, picture: np.ndarray) -> None:
    """Draw a picture (C, H, W) of values from 0 to 255 in the middle of a box, enlarged by a whole factor."""
    channels, tall, wide = picture.shape
    factor = max(1, min((box.right - box.left) // wide, (box.bottom - box.top) // tall))
    scaled = np.clip(picture, 0, 255).astype(np.uint8)
    small = scaled.transpose(1, 2, 0) if channels == 3 else np.repeat(scaled[:1].transpose(1, 2, 0), 3, 2)
    big = small.repeat(factor, 0).repeat(factor, 1)
    y, x = box.top + (box.bottom - box.top - len(big)) // 2, box.left + (box.right - box.left - big.shape[1]) // 2
    frame[y : y + len(big), x : x + big.shape[1]] = big
