"""The figure of the study of a growing solute: a sample and its image, works, and estimates of all repeats."""

from pathlib import Path
from typing import Any

import numpy as np
from solvation import LENGTH, METHODS, RADII

from spikevae.plotting import BLUE, GREY, INK, ORANGE, VERMILION, save, settings

WINDOW = (-25.0, 60.0)
"""Works shown, in kT; those beyond are in the last bin."""


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw and save."""
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(10.8, 4.4))
        axes = figure.subplots(1, 3, width_ratios=[0.9, 1.25, 1.1])
        figure.subplots_adjust(left=0.05, right=0.985, top=0.92, bottom=0.3, wspace=0.32)
        kept = next(one["kept"] for one in found["repeats"] if one["kept"])
        places(axes[0], np.array(kept["place"]), np.array(kept["image"]))
        works(axes[1], kept["works"], found["reference"]["estimate"])
        estimates(axes[2], found)
        save(figure, path)


def places(axis: Any, place: np.ndarray, image: np.ndarray) -> None:
    """A sample of A, and where the map takes its particles; the solute in both states."""
    from matplotlib.patches import Circle

    for radius, style in zip(RADII, ("-", "--")):
        axis.add_patch(Circle((0, 0), radius, fill=False, color=INK, linestyle=style, linewidth=1.2))
    step = image - place
    step -= LENGTH * np.round(step / LENGTH)
    for start, move in zip(place, step):
        if np.hypot(*move) > 0.05:
            axis.annotate("", start + move, start, arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.9})
    axis.scatter(*place.T, color=BLUE, s=26, label="sample of A", zorder=3)
    axis.scatter(*(place + step).T, color=ORANGE, marker="s", s=22, label="its image", zorder=3)
    half = LENGTH / 2
    axis.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", title="map of a sample", xlabel="x", ylabel="y")
    axis.grid(False)
    axis.spines[:].set_visible(True)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8)


def works(axis: Any, found: dict[str, Any], truth: float) -> None:
    """Distributions of forward works and of minus reverse works, without map and through it."""
    bins = np.linspace(*WINDOW, 60)
    for name, style in (("BAR", ":"), ("LBAR", "-")):
        forward, reverse = (np.array(part) for part in found[name])
        for label, w, colour in (("forward", forward, BLUE), ("−reverse", -reverse, ORANGE)):
            counts = np.histogram(np.clip(w, *WINDOW), bins)[0] / len(w)
            what = "without map" if name == "BAR" else "through map"
            axis.stairs(counts, bins, color=colour, linestyle=style, linewidth=1.5, label=f"{label}, {what}")
    axis.axvline(truth, color=INK, linewidth=1, label="MBAR")
    axis.set(xlabel="work, kT (last bin: all beyond)", ylabel="share of samples", title="works", yscale="log")
    axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=2, fontsize=8)


def estimates(axis: Any, found: dict[str, Any]) -> None:
    """Estimates with one standard error, of each repeat."""
    truth = found["reference"]
    error = truth["standard_error"]
    axis.axhspan(truth["estimate"] - error, truth["estimate"] + error, color="#b8c0c8", label="MBAR ± 1 standard error")
    n = len(found["repeats"])
    for k, (name, colour, marker) in enumerate(zip(METHODS, (GREY, ORANGE, VERMILION, BLUE), "xs^o")):
        rows = [next(r for r in one["rows"] if r["method"] == name) for one in found["repeats"]]
        at = k + 0.5 * (np.arange(n) / max(n - 1, 1) - 0.5)
        axis.errorbar(
            at,
            [r["estimate"] for r in rows],
            [r["standard_error"] for r in rows],
            fmt=marker,
            color=colour,
            markersize=4,
            linewidth=1.2,
        )
    axis.set_xticks(range(len(METHODS)), METHODS)
    axis.set(ylabel="difference of free energy, kT", title="estimates of all repeats")
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8)
