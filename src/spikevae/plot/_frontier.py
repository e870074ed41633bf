"""What fidelity costs: paths along the spike price, and the fits of a sweep."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..frontier import Frontier
from ..plotting import FAMILY_COLOURS, GREY, INK, Static, canvas, write
from ..sweep.reading import Run, read_run
from ..sweep.store import RunFolder
from ._axes import axes_of, draw_on
from .along import along, with_paths
from .style import AXES, colour, dash, marker, short_labels

OF_PATHS = {
    "objective": "Objective (distortion + β × coding rate, nats)",
    "free_energy": "Free energy (nats per stimulus)",
    "r2_pooled": "R² (pooled, held-out)",
    "bits": "Coding rate (bits per stimulus)",
    "fraction_zeros": "Zeros (share of code entries)",
}
"""Numbers of a path along the spike price that can be drawn against spikes."""
OF_RUNS = ("r2_pooled", "fraction_zeros", "bits", "bits_per_spike", "distortion")
"""Numbers of the fits of a run that can be drawn against spikes."""
DASHES = ("-", "--", ":", "-.")
"""Of latent sizes."""


def frontier(source: Any, y: str = "r2_pooled", *, ax: Any = None) -> Any:
    """A number of each code against its spikes per stimulus.

    Of a :class:`~spikevae.Frontier` a line for each beta along the spike price, with a star at its knee; of a run a
    line for each family and latent size along beta: means over seeds, the best of the starts, hollow where not
    converged; a dash for each latent size.

    Parameters
    ----------
    source
        A :class:`~spikevae.Frontier`, a :class:`~spikevae.RunFolder`, or the path of a run folder.
    y
        "r2_pooled", "bits" or "fraction_zeros"; of a path also "objective" and "free_energy", of a run
        "bits_per_spike" and "distortion".
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        For another source or `y`, a run without codes of counts, or a folder that is no run.

    Examples
    --------
    >>> import torch
    >>> import spikevae as sv
    >>> x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    >>> config = sv.FitConfig.from_recipe(n_latents=8, steps=40)
    >>> path = sv.Frontier.trace([config], x[:250], x[250:], (16,), n_prices=4)
    >>> sv.plot.frontier(path).get_xlabel()
    'Spikes per stimulus'
    """
    if not isinstance(source, Frontier | RunFolder | str | os.PathLike):
        raise TypeError(f"source is {source!r:.80}; give a Frontier, a RunFolder or the path of a run folder")
    known = tuple(OF_PATHS) if isinstance(source, Frontier) else OF_RUNS
    if y not in known:
        raise ValueError(f"y is {y!r}; of this source one of {', '.join(known)} can be drawn against spikes")
    if isinstance(source, Frontier):
        return _of_path(source, y, axes_of(ax))
    return _of_run(read_run(source.path if isinstance(source, RunFolder) else os.fspath(source)), y, ax)


def _of_path(path: Frontier, y: str, ax: Any) -> Any:
    """A line for each beta, a star at its knee."""
    name = "r2" if y == "r2_pooled" else y
    for number, beta in enumerate(path.betas):
        points = [p for p in path.of(beta) if not p.diverged and p.spikes > 0]
        tint = FAMILY_COLOURS[number % len(FAMILY_COLOURS)]
        style = {"color": tint, "marker": "osD^v<>p"[number % 8], "markersize": 4, "linewidth": 1.4}
        ax.plot([p.spikes for p in points], [getattr(p, name) for p in points], label=f"β = {beta:g}", **style)
        knee = path.knee(beta)
        if knee is not None:
            star = {"marker": "*", "s": 130, "color": tint, "edgecolor": INK, "zorder": 3}
            ax.scatter([knee.point.spikes], [getattr(knee.point, name)], **star)
    ax.set_xscale("log")
    ax.set(xlabel="Spikes per stimulus", ylabel=OF_PATHS[y])
    if len(path.betas) > 1:
        ax.legend(frameon=False)
    return ax


def _of_run(run: Run, y: str, ax: Any) -> Any:
    """A line for each family and latent size, with the paths along the spike price."""
    from matplotlib.lines import Line2D

    panel = along(run, "", "spikes", y, run.families, "")
    if panel is None:
        raise ValueError(f"{run.path} has no codes of counts with {AXES[y].title}, to be drawn against spikes")
    if y == "r2_pooled":
        panel = with_paths(run, panel)
    dashes: dict[int | None, str] = dict(zip(panel.sizes, DASHES * len(panel.sizes))) if len(panel.sizes) > 1 else {}
    lines = tuple(replace(line, dash=dashes.get(line.size, line.dash)) for line in panel.lines)
    ax = draw_on(replace(panel, title="", lines=lines), axes_of(ax))
    by_index = {family.index: family for family in run.families}
    shown = [by_index[i] for i in panel.families]
    labels = short_labels(shown)
    looks: list[dict[str, Any]] = [{"color": colour(f), "linestyle": dash(f), "marker": marker(f)} for f in shown]
    texts = [labels[f.index].replace("$", r"\$") for f in shown]
    looks += [{"color": GREY, "linestyle": line} for line in dashes.values()]
    texts += [f"K = {size}" for size in dashes]
    ax.legend(handles=[Line2D([], [], label=text, **look) for text, look in zip(texts, looks)], frameon=False)
    return ax


def frontier_figure(path: Frontier, folder: Path) -> Static:
    """Write frontier.png and .svg: objective and R2 along the spike price, one line for each beta."""
    with canvas(1, 2, key_rows=1 + (len(path.betas) - 1) // 4) as (figure, axes):
        for ax, y, title in (
            (axes[0, 0], "objective", "distortion + β × coding rate (nats)"),
            (axes[0, 1], "r2_pooled", "R² (pooled, held-out); star: knee"),
        ):
            _of_path(path, y, ax)
            ax.set(xlabel="spikes per stimulus", ylabel="")
            ax.set_title(title, fontsize=9, loc="left")
            if ax.get_legend() is not None:
                ax.get_legend().remove()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4)
        return write(figure, folder, "frontier", f"{path.label}: the path along the spike price")
