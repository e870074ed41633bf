"""The figure of the study of diffusion priors: decoded samples, energy distances and divergences by steps."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from diffusion_prior import NAMES, STEPS, values

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval

from spikevae.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, save, settings

STYLES = dict(zip(NAMES, ((GREY, "v"), (SKY, "^"), (ORANGE, "s"), (PURPLE, "D"), (BLUE, "o"), (VERMILION, "x"))))
ROWS = {
    "data": "held-out codes",
    "prior": "factorised prior",
    "shuffled": "units shuffled",
    "matched 4 uniform": "uniform, 4 steps",
    "matched 4 edm": "EDM, 4 steps",
    "matched 4 cosine": "cosine, 4 steps",
    "matched 4 loss_adaptive": "loss-adaptive, 4 steps",
    "matched 16 cosine": "cosine, 16 steps",
    "matched 16 loss_adaptive": "loss-adaptive, 16 steps",
    "matched 32 loss_adaptive": "loss-adaptive, 32 steps",
}


def draw(rows: list[dict[str, Any]], pictures: dict[str, np.ndarray], path: Path) -> None:
    """Draw and save; pictures are those of the first seed."""
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(10.4, 4.9))
        samples_on(figure.add_axes((0.15, 0.02, 0.452, 0.96)), pictures)
        distances = figure.add_axes((0.685, 0.60, 0.305, 0.36))
        nats = figure.add_axes((0.685, 0.195, 0.305, 0.32))
        along_steps(distances, rows, "decoded", "energy distance × 1000", 1000)
        distances.set_yticks((30, 100, 300, 600), ("30", "100", "300", "600"))
        for name, words, dash in (("prior", "factorised prior", "--"), ("held out", "other held-out images", ":")):
            mean = 1000 * interval([row[name]["decoded"] for row in rows])[0]
            distances.axhline(mean, color=GREEN if name == "prior" else INK, linestyle=dash, linewidth=1.2, label=words)
        distances.tick_params(labelbottom=False)
        along_steps(nats, rows, "nats", "divergence, nats")
        nats.set_yticks((2, 5, 10, 20), ("2", "5", "10", "20"))
        nats.set_xlabel("steps")
        figure.legend(
            *distances.get_legend_handles_labels(),
            loc="lower center",
            bbox_to_anchor=(0.81, 0.0),
            ncols=3,
            fontsize=7.5,
            columnspacing=1.2,
        )
        save(figure, path)


def samples_on(axis: Any, pictures: dict[str, np.ndarray]) -> None:
    """Rows of decoded samples with their names."""
    side = math.isqrt(pictures["data"].shape[1])
    rows = [np.hstack([np.pad(one.reshape(side, side), 1) for one in pictures[name]]) for name in ROWS]
    grid = np.vstack(rows)
    low, high = np.percentile(pictures["data"], [1, 99.5])
    axis.imshow(grid, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set_yticks((np.arange(len(ROWS)) + 0.5) * (side + 2), list(ROWS.values()), fontsize=8.5)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def along_steps(axis: Any, rows: list[dict[str, Any]], key: str, label: str, unit: float = 1.0) -> None:
    """One line per schedule: means over seeds with 95 % intervals, matched noise."""
    for k, (name, (colour, marker)) in enumerate(STYLES.items()):
        found = unit * np.array([interval(values(rows, key, noise="matched", steps=n, schedule=name)) for n in STEPS])
        at = np.array(STEPS) * 1.02 ** (k - 2.5)
        low = np.minimum(found[:, 1], 0.9 * found[:, 0])  # stays on the logarithmic axis
        axis.errorbar(
            at,
            found[:, 0],
            yerr=(low, found[:, 1]),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.1,
            label=NAMES[name],
        )
    axis.set(xscale="log", yscale="log", ylabel=label)
    axis.set_xticks(STEPS, [str(n) for n in STEPS])
    axis.set_xticks([], minor=True)
    axis.set_yticks([], minor=True)
