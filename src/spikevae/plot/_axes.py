"""Axes that are given or made, and what the pictures of a model ask of it."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from ..plotting import FAMILY_COLOURS, settings
from .drawing import draw
from .panel import Panel


def axes_of(ax: Any, width: float = 4.6, height: float = 3.4) -> Any:
    """The axes given, or those of a new figure of this size in inches, with the settings of this package."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    with settings():
        _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return made


def draw_on(panel: Panel, ax: Any) -> Any:
    """Draw a panel on axes, whose limits include what they hold already."""
    if ax.has_data():
        held = ax.dataLim
        extent = ([*panel.extent[0], held.x0, held.x1], [*panel.extent[1], held.y0, held.y1])
        panel = replace(panel, extent=extent)
    draw(panel, ax)
    return ax


def title(ax: Any, text: str) -> None:
    """A title in the size of the labels, which says what is shown."""
    ax.set_title(text, loc="left", fontsize=9)


def next_colour(ax: Any) -> str:
    """The first colour of families that no line on the axes has yet."""
    from matplotlib.colors import to_hex

    used = {to_hex(line.get_color()).lower() for line in ax.get_lines()}
    return next((c for c in FAMILY_COLOURS if c.lower() not in used), FAMILY_COLOURS[0])


def at_least_one(**numbers: int) -> None:
    """Refuse numbers of things to show that are not whole, or below one.

    Raises
    ------
    ValueError
        With the name of the argument.
    """
    for name, number in numbers.items():
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name} is {number!r}; give a whole number, one or more to show")


def fitted(m: Any, *attributes: str) -> Any:
    """The estimator, which must be fitted and have these attributes.

    Raises
    ------
    sklearn.exceptions.NotFittedError, TypeError
        Where it is not fitted, or lacks one.
    """
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(m, "fit"):
        raise TypeError(f"{m!r:.80} is no fitted SpikeVAE or SparseCoder, of which a picture is drawn")
    check_is_fitted(m)
    for name in attributes:
        if not hasattr(m, name):
            raise TypeError(f"{m!r:.120} has no {name}: {WHY.get(name, 'fit a SpikeVAE')}")
    return m


WHY = {
    "components_": "its decoder is not linear, so it has no dictionary; see top_stimuli for what drives a unit",
    "prior_rates_": "its code has no firing rates, or several layers, so there is no prior rate to compare with",
    "sample_codes": "its codes are not drawn at random",
}
"""Why a fitted estimator may lack an attribute."""


def codes_of(m: Any, X: Any) -> np.ndarray:
    """(n, K) codes: sampled ones, with seed 0; of sparse coding the code itself."""
    return np.asarray(m.sample_codes(X) if hasattr(m, "sample_codes") else m.transform(X))


def is_count(m: Any) -> bool:
    """Whether the code is one of counts."""
    return bool(m.model_.law.is_count)
