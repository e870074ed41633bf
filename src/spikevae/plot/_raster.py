"""Spikes of many units while stimuli are shown one after the other."""

from typing import Any

import numpy as np

from ..physiology.film import ticks
from ..plotting import INK
from ._axes import at_least_one, axes_of, codes_of, fitted, is_count

MAX_UNITS, MAX_STIMULI = 60, 40


def raster(m: Any, X: Any, *, n: int = MAX_STIMULI, units: int = MAX_UNITS, ax: Any = None) -> Any:
    """Sampled spikes: a column for each stimulus, a row for each unit, those with the most spikes at the top.

    A code has the number of spikes in the presentation of a stimulus and not their times: they are spread evenly over
    it.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` whose code is one of counts.
    X
        Stimuli, as for its methods.
    n, units
        Most stimuli (the first ones) and units to show.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        For codes that are no counts.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> (line,) = sv.plot.raster(m, X).get_lines()
    >>> len(line.get_xdata()) == int(m.sample_codes(X[:40]).sum())
    True
    """
    at_least_one(n=n, units=units)
    if not is_count(fitted(m)):
        raise TypeError(f"codes of {m!r:.80} are no counts of spikes: draw their histogram with sv.plot.codes")
    spikes = codes_of(m, X[:n])
    order = np.argsort(-spikes.sum(0), kind="stable")[:units]
    time, row = ticks(spikes[:, order].astype(float))
    ax = axes_of(ax, 7.2, 4.0)
    ax.plot(time + 1, row, "|", color=INK, markersize=max(1.5, 190 / max(len(order), 40)), markeredgewidth=0.6)
    ax.set(xlim=(0.5, len(spikes) + 0.5), ylim=(len(order) - 0.5, -0.5))
    some = "" if len(order) == spikes.shape[1] else f", {len(order)} of {spikes.shape[1]}"
    ax.set(xlabel="Stimulus (presentations, one after the other)", ylabel=f"Unit, most spikes first{some}")
    ax.grid(False)
    return ax
