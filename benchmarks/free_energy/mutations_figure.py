"""The figure of the study of mutants: measured differences against log odds and against the cycle."""

from pathlib import Path
from typing import Any

import numpy as np
from mutations_tables import scores_of

from spikevae.free_energy.mutations import BindingEnergy
from spikevae.free_energy.mutations.result import standard_errors
from spikevae.plotting import BLUE, GREY, INK, ORANGE, save, settings


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw and save."""
    from matplotlib.figure import Figure

    scores, ddg = scores_of(found), np.array(found["measured"])
    single = np.array([len(mutant) == 1 for mutant in scores.mutants])
    panels = {
        "log odds in the complex": (scores.log_odds, standard_errors(scores.log_odds_draws)),
        "thermodynamic cycle": (scores.binding, scores.standard_errors),
    }
    with settings():
        figure = Figure(figsize=(9.6, 4.5))
        axes = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.92, bottom=0.23, wspace=0.08)
        for axis, (title, (score, error)) in zip(axes, panels.items()):
            axis.axhline(0, color=GREY, linewidth=0.8, zorder=0)
            axis.axvline(0, color=GREY, linewidth=0.8, zorder=0)
            for rows, colour, marker, name in (
                (single, BLUE, "o", "one mutation"),
                (~single, ORANGE, "s", "several mutations"),
            ):
                axis.errorbar(
                    score[rows],
                    ddg[rows],
                    xerr=error[rows],
                    fmt=marker,
                    color=colour,
                    markersize=4,
                    linewidth=0.8,
                    label=f"{name} ({int(rows.sum())})",
                )
            ends = np.array(axis.get_xlim())
            scalar = BindingEnergy().fit(score[:, None], ddg).scalar_
            axis.plot(ends, scalar * ends, color=INK, linewidth=1.2, label="least squares through 0")
            axis.set(xlim=ends, title=title, xlabel="score, nats (± 1 standard error)")
        axes[0].set_ylabel("measured ΔΔG, kcal/mol\n(positive: weaker binding)")
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=9)
        save(figure, path)
