"""The objective and its parts over training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..training.watching import COLUMNS, NATS
from ._axes import axes_of, draw_on, fitted, next_colour
from .panel import Line, Panel
from .style import Axis

MAX_CURVE_POINTS = 120
STEP = Axis("", "Optimiser step")
OBJECTIVE = Axis("", "Objective (nats per stimulus)", log=True)
DASHES = ("-", "--", ":", "-.")


def thinned(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve by at most `MAX_CURVE_POINTS` of its points."""
    chosen = np.unique(np.linspace(0, len(step) - 1, MAX_CURVE_POINTS).round().astype(int))
    return step[chosen], value[chosen]


def history(m: Any, columns: str | Sequence[str] | None = None, *, label: str = "", ax: Any = None) -> Any:
    """Means over windows of training steps, on training batches.

    The objective moves while beta or the temperature is annealed.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` or :class:`~spikevae.SparseCoder`.
    columns
        Column of its `history_`, or several in one unit; by default all in nats per stimulus.
    label
        Put before the names in the legend, to compare models on one pair of axes.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        For a column that the history lacks, or columns in several units.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> ax = sv.plot.history(m)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['objective', 'distortion', 'coding rate (kl)']
    >>> ax = sv.plot.history(m, ["spikes"], label="Poisson")
    """
    held = fitted(m, "history_").history_
    known = [name for name in COLUMNS if name in held]
    given = [columns] if isinstance(columns, str) else columns
    names = [name for name in known if COLUMNS[name][1] == NATS] if given is None else list(given)
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise ValueError(f"columns {missing or names}: the history of this fit has {', '.join(known)}")
    units = {COLUMNS[name][1]: name for name in names}
    if len(units) > 1:
        raise ValueError(f"columns {', '.join(names)} are in {' and '.join(units)}: draw them on axes of their own")
    ax = axes_of(ax)
    colour, before = next_colour(ax), f"{label}: " if label else ""
    lines = []
    for name, dash in zip(names, DASHES):
        step, value = thinned(np.array(held["step"]), np.array(held[name]))
        lines.append(Line(step, value, colour, dash=dash, label=before + COLUMNS[name][0]))
    title = COLUMNS[names[0]][0].capitalize() if len(names) == 1 else "Objective and parts"
    return draw_on(Panel("", "", STEP, Axis("", title, next(iter(units)), log=True), tuple(lines), ""), ax)
