"""Stimuli and what the codes say of them."""

from typing import Any

import numpy as np

from .._text import shown
from ..metrics.reconstruction import r2_pooled
from ._axes import at_least_one, axes_of, codes_of, fitted, is_count, title
from .pictures import mosaic, show, shown_as


def reconstructions(m: Any, X: Any, *, n: int = 8, shape: tuple[int, ...] | None = None, ax: Any = None) -> Any:
    """Stimuli (first row) and their reconstructions from one sampled code each (second row), on one grey scale.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` or :class:`~spikevae.SparseCoder`.
    X
        Stimuli, as for its methods.
    n
        Most stimuli to show: the first ones. The title has the explained share of the variance (R², pooled) and the
        mean number of spikes of these.
    shape
        As in :func:`dictionary`.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> [text.get_text() for text in sv.plot.reconstructions(m, X).get_yticklabels()]
    ['stimulus', 'reconstruction']
    """
    at_least_one(n=n)
    tile = shown_as(fitted(m).shape_, shape)
    codes = codes_of(m, X[:n])
    stimuli = np.asarray(X[:n], np.float32).reshape(len(codes), -1)
    pixels = m.inverse_transform(codes)
    ax = axes_of(ax, 7.2, 2.1)
    limit = float(np.abs(stimuli).max()) or 1.0
    show(ax, mosaic(np.concatenate([stimuli, pixels]), tile, len(stimuli), limit))
    step = tile[1] + 1
    ax.set_yticks([step / 2, 1.5 * step], ["stimulus", "reconstruction"])
    ax.tick_params(left=False)
    numbers = [f"R² {float(r2_pooled(stimuli, pixels)):.2f}"]
    numbers += [f"{shown(float(codes.sum(1).mean()))} spikes per stimulus"] if is_count(m) else []
    title(ax, ", ".join(numbers))
    return ax
