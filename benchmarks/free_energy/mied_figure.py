"""The figure of the study of particle samplers: particles on four targets, energy distances of all methods."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mied import EXACT, METHODS, TARGETS

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval

from spikevae.plotting import BLUE, GREEN, INK, ORANGE, VERMILION, save, settings

SHOWN = ("Gaussian, 2 dimensions", "uniform, heart", "four Gaussians in a box", "Dirichlet (2, 3, 5)")
STYLES = dict(zip((*METHODS, EXACT), ((BLUE, "o"), (ORANGE, "s"), (VERMILION, "^"), (INK, "x"))))
TICKS = (0.1, 0.2, 0.5, 1, 2, 5)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])


def draw(rows: list[dict[str, Any]], path: Path, particles: int, steps: int) -> None:
    """Draw and save; particles are those of seed 0, sampled again."""
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(9.6, 6.6))
        above = figure.add_gridspec(1, 4, left=0.03, right=0.98, top=0.94, bottom=0.62, wspace=0.12)
        for column, name in enumerate(SHOWN):
            particles_on(figure.add_subplot(above[0, column]), name, particles, steps)
        below = figure.add_gridspec(1, 1, left=0.23, right=0.97, top=0.57, bottom=0.14)
        distances_of(figure.add_subplot(below[0, 0]), rows)
        save(figure, path)


def particles_on(axis: Any, name: str, particles: int, steps: int) -> None:
    """Particles of MIED over exact samples; points of a simplex in the triangle of its corners."""
    target = TARGETS[name]
    sampler = METHODS["MIED"](target.log_density, constraint=target.constraint)
    points = sampler.sample(particles, steps, dimension=target.dimension, seed=0)
    exact = target.exact(1500, np.random.default_rng(0))
    if target.dimension == 3:
        points, exact = points @ CORNERS, exact @ CORNERS
        axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color=INK, linewidth=0.8)
    elif target.constraint is not None:
        x = np.stack(np.meshgrid(np.linspace(-1.4, 1.4, 281), np.linspace(-1.4, 1.4, 281)), -1)
        outside = target.constraint.outside(torch.from_numpy(x.reshape(-1, 2))).numpy().reshape(281, 281)
        axis.contour(x[..., 0], x[..., 1], outside, levels=[0.5], colors=INK, linewidths=0.8)
    axis.scatter(*exact.T, s=2, color="#b8c0c8", linewidths=0)
    axis.scatter(*points.T, s=11, color=BLUE, linewidths=0)
    axis.set(aspect="equal", xticks=[], yticks=[], title=name)
    axis.title.set_fontsize(9)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def distances_of(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Energy distance over that of exact samples: mean and 95 % interval over seeds of the logarithm of the ratio."""
    names = [name for name in TARGETS if any(row["target"] == name for row in rows)]
    for k, (method, (colour, marker)) in enumerate(STYLES.items()):
        if method == EXACT:
            continue
        ratios = []
        for name in names:
            mine = [row for row in rows if row["target"] == name]
            exact = {row["seed"]: row["energy"] for row in mine if row["method"] == EXACT}
            found = [row for row in mine if row["method"] == method]
            ratios.append(interval([math.log(row["energy"] / exact[row["seed"]]) for row in found]))
        mean, half = np.array(ratios).T
        low, middle, high = np.exp([mean - half, mean, mean + half])
        at = np.arange(len(names)) + 0.2 * (k - 1)
        axis.errorbar(
            middle,
            at,
            xerr=(middle - low, high - middle),
            fmt=marker,
            color=colour,
            markersize=5,
            linewidth=1.2,
            label=method,
        )
    axis.axvline(1, color=GREEN, linewidth=1, linestyle="--", label="exact samples (independent)")
    axis.set(yticks=range(len(names)), xscale="log", xlabel="energy distance / that of as many exact samples")
    axis.set_yticklabels(names)
    axis.invert_yaxis()
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks([], minor=True)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.15), ncols=4, fontsize=9)
