"""The figure of the study of ensembles: intervals, coverage, disagreement off data, dictionaries."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from ensembles_regression import LEVEL, MEMBERS

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval

from spikevae.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, save, settings

Rows = list[dict[str, Any]]
STYLES = {
    "average": (INK, "o", "-"),
    "pac2": (PURPLE, "v", ":"),
    "pac2_tight": (GREEN, "s", "--"),
    "repulsion": (VERMILION, "^", "-."),
    "pac_m": (BLUE, "D", "-"),
}
"""Colour, marker and line of each objective."""


def draw(found: dict[str, Rows], path: Path) -> None:
    """Draw and save."""
    from matplotlib.figure import Figure

    with settings():
        figure = Figure(figsize=(9.6, 7.0), layout="constrained")
        axes = figure.subplots(2, 2)
        intervals(axes[0, 0], found["regression"])
        coverages(axes[0, 1], found["regression"])
        disagreement(axes[1, 0], found["off_data"])
        dictionaries(axes[1, 1], found["vaes"])
        save(figure, path)


def intervals(axis: Any, rows: Rows) -> None:
    """Data, and intervals of two posteriors."""
    shown = [row for row in rows if "curve" in row]
    axis.scatter(shown[0]["x"], shown[0]["y"], s=4, color="#9aa4ae", linewidths=0, label="data")
    for row, colour in zip(shown, (INK, BLUE)):
        name = "free energy, m = 1" if row["m"] == 1 else f"PAC^m, m = {row['m']}"
        axis.plot(row["grid"], row["curve"][0], color=colour, linewidth=1.4, label=name)
        axis.plot(row["grid"], row["curve"][1], color=colour, linewidth=1.4)
    axis.set(xlabel="x", ylabel="y", title=f"{100 * LEVEL:.2f} % intervals, noise 10 for an assumed 1", ylim=(-40, 62))
    axis.legend(loc="upper left", ncols=3, fontsize=8, columnspacing=1, handlelength=1.4)


def coverages(axis: Any, rows: Rows) -> None:
    """Coverage of the intervals against m."""
    for model, colour, marker in (("Ensemble", ORANGE, "s"), ("GaussianPosterior", BLUE, "D")):
        per_m = [
            [r["coverage"] for r in rows if (r["model"], r["m"], r["objective"]) == (model, m, kind)]
            for m, kind in ((m, "average" if m == 1 else "pac_m") for m in MEMBERS)
        ]
        mean, half = np.array([interval(values) for values in per_m]).T
        axis.errorbar(MEMBERS, mean, yerr=half, fmt=marker + "-", color=colour, capsize=3, label=f"{model}, PAC^m")
    for objective, model in (("repulsion", "Ensemble"), ("pac2_tight", "Ensemble"), ("average", "Ensemble")):
        values = [r["coverage"] for r in rows if (r["model"], r["m"], r["objective"]) == (model, 10, objective)]
        mean, half = interval(values)
        colour, sign, _ = STYLES[objective]
        axis.errorbar([10], [mean], yerr=[half], fmt=sign, color=colour, capsize=3, label=f"Ensemble, {objective}")
    axis.axhline(LEVEL, color=GREY, linestyle="--", linewidth=1)
    axis.annotate(f"{LEVEL}", (1, LEVEL), xytext=(0, 3), textcoords="offset points", color=GREY, fontsize=8)
    axis.set(
        xlabel="members or draws, m", ylabel="coverage", ylim=(0, 1.05), title="Coverage on test data", xscale="log"
    )
    axis.set_xticks(MEMBERS, [str(m) for m in MEMBERS])
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.36, 0.0))


def disagreement(axis: Any, rows: Rows) -> None:
    """Standard deviation over members along x, of one seed."""
    for low, high in ((-3, -1), (1, 3)):
        axis.axvspan(low, high, color="#eef1f4", zorder=0)
    for row in (row for row in rows if "spread" in row and row["model"] == "Ensemble" and row["m"] > 1):
        colour, _, line = STYLES[row["objective"]]
        axis.plot(row["grid"], np.maximum(row["spread"], 1e-4), color=colour, linestyle=line, label=row["objective"])
    axis.set(xlabel="x (shaded: data)", ylabel="standard deviation over members", yscale="log")
    axis.set_title("Five members, noise as assumed (0.1)", pad=4)
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08), columnspacing=1)


def dictionaries(axis: Any, rows: Rows) -> None:
    """Bound of the mixture against the similarity of the members' dictionaries, both beside those of "average"."""
    names = ("similarity", "mixture")
    plain = {row["seed"]: row for row in rows if row["objective"] == "average"}
    axis.axhline(0, color=GREY, linestyle="--", linewidth=1)
    axis.axvline(0, color=GREY, linestyle="--", linewidth=1)
    for objective in dict.fromkeys(row["objective"] for row in rows):
        mine = [row for row in rows if row["objective"] == objective]
        (x, dx), (y, dy) = (interval([row[name] - plain[row["seed"]][name] for row in mine]) for name in names)
        colour, marker, _ = STYLES[objective]
        axis.errorbar([x], [y], xerr=[dx], yerr=[dy], fmt=marker, color=colour, capsize=3, label=objective)
    axis.set(xlabel="similarity of dictionaries, minus average", ylabel="free energy of the mixture, minus average")
    axis.set_title("Four Poisson VAEs, nats per stimulus")
    axis.set_ylim(top=0.4)
    axis.locator_params(axis="x", nbins=5)
    axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(0.9, 0.0))
