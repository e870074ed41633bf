"""Table and figures of experiments on one model: receptive fields, tuning, suppression and moving bar."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from .._json import jsonable
from .._text import exact, plural, shown
from ..data.sequences import image_size
from ..models._model import LatentModel
from ..plotting import GREY, INK, Static, canvas, settings, write
from ..progress import Report
from .examination import Examination, examine
from .film import ticks, write_film
from .neurons import Neurons
from .tuning import RESPONSIVE, Gratings, Response

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours of four example units (Okabe and Ito, 2008), each with its own marker and line style."""
MARKERS, LINES = ("o", "s", "^", "D"), ("-", "--", ":", "-.")
MAX_FIELDS = 12
"""Most units whose receptive fields are drawn."""
RESPONSE_LABEL = "Spikes per step (expected)"
DEGREES = "(degrees; 0: vertical stripes)"
"""Unit of orientations, which are those of the wave vector and increase clockwise."""
N_PICTURES = 6
"""Number of pictures in a strip of film."""


def draw(found: Examination, folder: Path, stem: str = "") -> list[Static]:
    """Write every figure as PNG and SVG; their names begin with `stem`."""
    return [
        one(found, folder, f"{stem}{name}")
        for name, one in (
            ("receptive_fields", _fields),
            ("tuning", _tuning),
            ("preferences", _preferences),
            ("cross_orientation", _suppression),
            ("moving_bar", _bar),
        )
    ]


def write_all(
    model: Neurons | LatentModel,
    gratings: Gratings,
    folder: Path,
    *,
    noise_frames: int = 200,
    seed: int = 0,
    progress: Report | None = None,
) -> tuple[Examination, dict[str, Path]]:
    """Examine a model and write table (JSON), figures and film into a folder.

    Returns
    -------
    found, paths
        The results, and the files by name: PNG of figures, `physiology` for the table, `film`.
    """

    def part(done: float, total: float, text: str) -> None:
        if progress is not None:
            progress(0.5 * done / total, 1.0, text)

    found = examine(model, gratings, noise_frames=noise_frames, seed=seed, progress=part)
    table = folder / "physiology.json"
    write_bytes(table, json.dumps(jsonable(found.to_dict()), indent=1).encode())
    if progress is not None:
        progress(0.5, 1.0, "figures")
    paths = {one.name: one.png for one in draw(found, folder)}
    if progress is not None:
        progress(0.8, 1.0, "film")
    film = write_film(found, folder / "moving_bar.gif")
    if progress is not None:
        progress(1.0, 1.0, "done")
    return found, {**paths, "physiology": table, "film": film}


def describe(found: Examination) -> str:
    """The medians in a few lines.

    Suppression is shown with that of the filters alone, which is not due to lateral inhibition.
    """
    numbers = found.summary()
    ending = "s" if numbers["responsive_units"] == 1 else ""
    lines = [
        f"{numbers['responsive_units']:.0f} of {numbers['units']:.0f} units respond{ending} to a grating more than "
        f"{exact(RESPONSIVE)} times as much as to a blank field; medians over them:",
        f"  orientation selectivity index     {shown(numbers['osi'])}",
        f"  circular variance                 {shown(numbers['circular_variance'])}",
        f"  preferred cycles per pixel        {shown(numbers['preferred_frequency_cycles_per_pixel'])}",
        f"  cross-orientation suppression     {shown(numbers['suppression_index'])}",
    ]
    if "suppression_index_control" in numbers:
        lines.append(f"    same filters, no inhibition     {shown(numbers['suppression_index_control'])}")
        lines.append(f"  receptive field with dictionary   r = {shown(numbers['field_dictionary_correlation'])}")
    return "\n".join(lines)


def _picture(axes: Any, row: np.ndarray, shape: tuple[int, ...], limit: float | None = None) -> None:
    """A stimulus on its own grey scale, with zero mid-grey; in colour if it has three channels."""
    channels, height, width = image_size(shape)
    picture = np.nan_to_num(row).reshape(channels, height, width).transpose(1, 2, 0)
    top = (float(np.abs(picture).max()) or 1.0) if limit is None else limit
    scaled = np.clip(0.5 + 0.5 * picture / top, 0, 1)
    grey = scaled if channels == 3 else np.repeat(scaled.mean(2, keepdims=True), 3, 2)
    axes.imshow(grey, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)


def _fields(found: Examination, folder: Path, name: str) -> Static:
    """Decoder columns above receptive fields from white noise, best-tuned units first."""
    from matplotlib.figure import Figure

    from .fields import correlation

    units = found.order[:MAX_FIELDS]
    rows: list[tuple[str, np.ndarray]] = [("Spike-triggered\naverage", found.fields.field)]
    if found.dictionary is not None:
        rows.insert(0, ("Dictionary", found.dictionary))
        alike = correlation(np.nan_to_num(found.fields.field), found.dictionary)
    with settings():
        figure = Figure(figsize=(1.1 + 0.72 * len(units), 0.45 + 0.8 * len(rows)))
        panels = figure.subplots(len(rows), len(units), squeeze=False)
        wide, tall = figure.get_size_inches()
        figure.subplots_adjust(1.1 / wide, 0.22 / tall, 1 - 0.05 / wide, 1 - 0.2 / tall, 0.08, 0.08)
        for line, (label, pictures) in zip(panels, rows):
            for axes, unit in zip(line, units):
                _picture(axes, pictures[unit], found.shape)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for place, unit in enumerate(units):
            panels[0, place].set_title(f"unit {unit}", fontsize=7, color=GREY, pad=3)
            if found.dictionary is not None:
                panels[-1, place].set_xlabel(f"r = {shown(alike[unit], 2)}", fontsize=7, color=GREY, labelpad=2)
        alt = f"Receptive fields of the {len(units)} best-tuned units by white noise"
        return write(figure, folder, name, alt)


def _examples(found: Examination) -> Sequence[int]:
    """Best-tuned units of different preferred orientations."""
    chosen: list[int] = []
    for unit in found.order:
        if all(found.tuning.orientation[unit] != found.tuning.orientation[other] for other in chosen):
            chosen.append(int(unit))
        if len(chosen) == len(COLOURS):
            break
    return chosen


def _tuning(found: Examination, folder: Path, name: str) -> Static:
    """Orientation, spatial frequency and contrast tuning of a few units; the first orientation is shown again half a
    circle later."""
    grid, tuning = found.gratings, found.tuning
    angles = np.degrees(grid.orientations)
    circle = Response(*(np.concatenate([part, part[:1]]) for part in tuning.orientation_curve))
    curves = (
        (np.append(angles, angles[0] + 180), circle, f"Orientation {DEGREES}", False),
        (np.array(grid.frequencies), tuning.frequency_curve, "Spatial frequency (cycles/pixel)", True),
        (np.array(grid.contrasts), found.contrast, "Contrast (amplitude, pixel units)", True),
    )
    units = _examples(found)
    with canvas(1, 3, 2.9, 2.5, key_rows=1) as (figure, panels):
        for axes, (x, curve, label, log) in zip(panels[0], curves):
            for unit, colour, marker, line in zip(units, COLOURS, MARKERS, LINES):
                y, error = curve.mean[:, unit], curve.error[:, unit]
                axes.errorbar(x, y, yerr=error, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2)
                axes.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=4, linewidth=1.4,
                          label=f"unit {unit}")  # fmt: skip
            if log:
                _log_axis(axes, x)
            else:
                axes.set_xticks(np.arange(0, 181, 30))
            axes.set_xlabel(label)
            axes.set_ylim(bottom=0)
        panels[0, 0].set_ylabel(RESPONSE_LABEL)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, borderaxespad=0.1)
        alt = (
            f"Tuning of {len(units)} {plural(len(units), 'unit')} to orientation, spatial frequency and contrast of "
            "drifting gratings; error bars: standard errors over starting phases"
        )
        return write(figure, folder, name, alt)


def _log_axis(axes: Any, x: np.ndarray) -> None:
    """A logarithmic axis with ticks at the values that were shown, at most about five."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xscale("log")
    ticks = x[:: max(1, math.ceil(len(x) / 5))]
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _preferences(found: Examination, folder: Path, name: str) -> Static:
    """Preferred orientations and frequencies of responsive units, and their selectivity."""
    tuning, grid = found.tuning, found.gratings
    some = tuning.responsive
    angles = np.degrees(grid.orientations)
    with canvas(1, 3, 2.9, 2.4) as (figure, panels):
        counts = [(tuning.orientation[some] == angle).sum() for angle in grid.orientations]
        panels[0, 0].bar(angles, counts, 0.8 * (angles[1] - angles[0]), color=COLOURS[0])
        panels[0, 0].set_xticks(np.arange(0, 180, 30))
        panels[0, 0].set(xlabel=f"Preferred orientation {DEGREES}")
        places = np.arange(len(grid.frequencies))
        counts = [(tuning.frequency[some] == f).sum() for f in grid.frequencies]
        panels[0, 1].bar(places, counts, 0.8, color=COLOURS[0])
        panels[0, 1].set_xticks(places, [f"{f:.2g}" for f in grid.frequencies])
        panels[0, 1].set(xlabel="Preferred frequency (cycles/pixel)")
        edges = np.linspace(0, 1, 21)
        both = ((1 - tuning.circular_variance, "1 − circular variance", COLOURS[0], "-"),
                (tuning.osi, "selectivity index", COLOURS[1], "--"))  # fmt: skip
        for values, label, colour, line in both:
            panels[0, 2].stairs(
                np.histogram(values[some], edges)[0], edges, color=colour, linestyle=line, linewidth=1.6, label=label
            )
        panels[0, 2].set(xlabel="Orientation selectivity (0: none, 1: full)", xlim=(0, 1))
        panels[0, 2].set_ylim(0, 1.35 * max(panels[0, 2].get_ylim()[1], 1))
        panels[0, 2].legend(fontsize=8, loc="upper center", ncols=1, borderaxespad=0.1)
        for axes in panels[0]:
            axes.set_ylabel("Responsive units")
            axes.set_axisbelow(True)
            axes.grid(axis="x", visible=False)
            axes.yaxis.get_major_locator().set_params(integer=True)
        return write(
            figure, folder, name, "Preferred orientations and frequencies, and selectivity, of responsive units"
        )


def _suppression(found: Examination, folder: Path, name: str) -> Static:
    """Responses with and without a mask; the index of the model's responsive units, and of their filters alone."""
    ours, some = found.suppression, found.tuning.responsive
    contrast = exact(found.gratings.mask_contrast)
    with canvas(1, 2, 3.3, 2.9) as (figure, panels):
        x, y = ours.test.mean[some], ours.both.mean[some]
        left, right = panels[0]
        left.plot(x, y, "o", color=COLOURS[0], markersize=4, alpha=0.7, markeredgewidth=0)
        top = 1.05 * max([*x, *y]) if len(x) else 1.0
        if not len(x):
            left.text(0.5, 0.4, "no responsive unit", ha="center", color=GREY)
        left.plot([0, top], [0, top], "--", color=GREY, linewidth=0.9)
        left.set_title("dashed: no suppression", fontsize=8, color=GREY, loc="left")
        right.set_title(f"both gratings: contrast {contrast} (pixel units)", fontsize=8, color=GREY, loc="left")
        left.set(xlim=(0, top), ylim=(0, top), xlabel="Preferred grating (spikes per step)")
        left.set_ylabel("With orthogonal mask (spikes per step)")
        edges = np.linspace(-0.6, 1, 33)
        groups = [(ours.suppression[some], "iterative inference", COLOURS[0], "-")]
        if found.control is not None:
            groups.append((found.control.suppression[some], "filters without inhibition", COLOURS[1], "--"))
        most = 0.1
        for values, label, colour, line in groups:
            finite = np.clip(values[np.isfinite(values)], edges[0], edges[-1])
            share = np.histogram(finite, edges)[0] / max(1, len(finite))
            middle = float(np.median(finite)) if len(finite) else math.nan
            right.stairs(share, edges, color=colour, linestyle=line, linewidth=1.6,
                         label=f"{label}, median {shown(middle, 2)}")  # fmt: skip
            most = max(most, *share)
        right.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        right.set_axisbelow(True)
        right.set(
            xlabel="Suppression index, 1 − masked / alone",
            ylabel="Share of responsive units",
            xlim=(-0.6, 1),
            ylim=(0, 1.3 * most),
        )
        right.legend(fontsize=8, loc="upper right", borderaxespad=0.1)
        return write(figure, folder, name, f"Responses to gratings of contrast {contrast}, with and without a mask")


def _bar(found: Examination, folder: Path, name: str) -> Static:
    """Film strips, spikes of repeated trials and expected spikes, for two directions of motion."""
    from matplotlib.figure import Figure

    film = found.bar
    n = film.pictures.shape[1]
    limit = float(np.abs(film.pictures - found.gratings.background).max()) or 1.0
    degrees = math.degrees(film.orientation)
    titles = (
        f"unit {film.unit}, preferred direction ({degrees:.0f}°)",
        f"orthogonal direction ({degrees + 90:.0f}°)",
    )
    with settings():
        figure = Figure(figsize=(8.6, 4.3))
        columns: Any = figure.add_gridspec(1, 2, left=0.08, right=0.985, bottom=0.12, top=0.93, wspace=0.1)
        top = 1.08 * float(film.expected.max()) or 1.0
        for column in range(2):
            inner = columns[column].subgridspec(3, 1, height_ratios=(1.0, 1.7, 1.4), hspace=0.12)
            strip = inner[0].subgridspec(1, N_PICTURES, wspace=0.06)
            times = np.linspace(0.12, 0.88, N_PICTURES) * (n - 1)
            for place, time in enumerate(times.round().astype(int)):
                axes = figure.add_subplot(strip[place])
                _picture(axes, film.pictures[column, time] - found.gratings.background, found.shape, limit)
                for (
                    side
                ) in axes.spines.values():  # so that a bright bar at the edge does not look like a gap between pictures
                    side.set(visible=True, color=GREY, linewidth=0.5)
                axes.set_xlabel(f"{time}", fontsize=7, color=GREY, labelpad=1)
                if place == 0:
                    axes.set_title(titles[column], fontsize=9, loc="left")
            raster = figure.add_subplot(inner[1])
            raster.plot(*ticks(film.spikes[column]), "|", color=INK, markersize=4.5, markeredgewidth=0.6)
            raster.set(ylim=(film.spikes.shape[2] - 0.5, -0.5), xlim=(-0.5, n - 0.5))
            raster.tick_params(labelbottom=False)
            raster.grid(False)
            rate = figure.add_subplot(inner[2])
            rate.plot(np.arange(n), film.expected[column], color=COLOURS[column], linewidth=1.6)
            rate.set(xlim=(-0.5, n - 0.5), ylim=(0, top), xlabel="Frame")
            if column == 0:
                raster.set_ylabel("Trial")
                rate.set_ylabel("Expected spikes\nper step", fontsize=8)
            else:
                raster.tick_params(labelleft=False)
                rate.tick_params(labelleft=False)
        return write(figure, folder, name, f"Spikes of unit {film.unit} while bars move over it")
