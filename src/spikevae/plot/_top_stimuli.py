"""The stimuli that drive a unit most."""

from numbers import Integral
from typing import Any

import numpy as np

from .._text import shown
from ._axes import at_least_one, axes_of, fitted, title
from .pictures import full_rows, mosaic, show, shown_as


def top_stimuli(m: Any, X: Any, unit: int, *, n: int = 16, shape: tuple[int, ...] | None = None, ax: Any = None) -> Any:
    """The stimuli with the largest mean code of one unit, the largest first, each on its own grey scale.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` or :class:`~spikevae.SparseCoder`.
    X
        Stimuli, as for its methods.
    unit
        Its place, from zero.
    n
        Most stimuli to show.
    shape
        As in :func:`dictionary`.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    IndexError
        For a unit that the model does not have.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> sv.plot.top_stimuli(m, X, unit=3, n=8).get_title(loc="left").partition(":")[0]
    'Unit 3, top 8 of 200 stimuli'
    """
    at_least_one(n=n)
    tile = shown_as(fitted(m).shape_, shape)
    codes = np.asarray(m.transform(X))
    if not isinstance(unit, Integral) or not 0 <= unit < codes.shape[1]:
        raise IndexError(f"unit is {unit!r}; the model has units 0 to {codes.shape[1] - 1}")
    order = np.argsort(-codes[:, unit], kind="stable")[:n]
    stimuli = np.asarray(X, np.float32).reshape(len(codes), -1)[order]
    ax = axes_of(ax)
    show(ax, mosaic(stimuli, tile, full_rows(len(order)), None))
    ends = [shown(float(codes[i, unit])) for i in (order[0], order[-1])]
    word = "expected spikes" if m.model_.law.is_count else "mean code"
    title(ax, f"Unit {unit}, top {len(order)} of {len(codes)} stimuli: {ends[0]} to {ends[1]} {word}")
    return ax
