"""The dictionary of a model with a linear decoder."""

from typing import Any

from ._axes import at_least_one, axes_of, fitted, title
from .pictures import full_rows, mosaic, most_used, show, shown_as

MAX_ATOMS = 144
"""Most units of a dictionary that are shown, if no other number is asked for."""


def dictionary(m: Any, *, n: int = MAX_ATOMS, shape: tuple[int, ...] | None = None, ax: Any = None) -> Any:
    """What each unit adds to a stimulus: the rows of `components_`, each on its own grey scale, zero mid-grey.

    Units are in order of their prior firing rate, the highest first, where the model has one.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` or :class:`~spikevae.SparseCoder` with a linear decoder.
    n
        Most units to show.
    shape
        Shape of a stimulus as an image, (H, W) or (C, H, W); by default that of the stimuli of the fit, and square for
        flat ones.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        Where the decoder is not linear, or stimuli are no images.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> sv.plot.dictionary(m).get_title(loc="left")
    'Dictionary: 8 units, most used first'
    """
    at_least_one(n=n)
    atoms = fitted(m, "components_").components_
    tile = shown_as(m.shape_, shape)
    use = getattr(m, "prior_rates_", None)
    chosen = most_used(atoms, use, n)
    ax = axes_of(ax)
    show(ax, mosaic(chosen, tile, full_rows(len(chosen)), None))
    number = f"{len(chosen)} units" if len(chosen) == len(atoms) else f"{len(chosen)} of {len(atoms)} units"
    title(ax, f"Dictionary: {number}" + ("" if use is None else ", most used first"))
    return ax
