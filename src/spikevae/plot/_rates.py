"""Prior and posterior firing rates of the units."""

from typing import Any

import numpy as np

from ._axes import axes_of, draw_on, fitted, is_count, next_colour
from .panel import Line, Panel
from .style import Axis

MAX_UNITS_SHOWN = 400


def rate_axes(counts: bool) -> tuple[Axis, Axis]:
    """The axes of mean posterior and prior rates."""
    word = "rate" if counts else "activation"
    posterior, prior = (Axis("", f"{what} {word} of the unit", log=True) for what in ("Mean posterior", "Prior"))
    return posterior, prior


def rate_line(posterior: np.ndarray, prior: np.ndarray, colour: str, marker: str, label: str) -> Line | None:
    """A point for each unit (K,) whose rates are positive, at most `MAX_UNITS_SHOWN`; None without any."""
    keep = np.isfinite(prior) & np.isfinite(posterior) & (prior > 0) & (posterior > 0)
    if not keep.any():
        return None
    x, y = posterior[keep][:MAX_UNITS_SHOWN], prior[keep][:MAX_UNITS_SHOWN]
    return Line(x, y, colour, marker, joined=False, label=label)


def rates(m: Any, X: Any, *, label: str = "", ax: Any = None) -> Any:
    """Prior against mean posterior firing rate of each unit, spikes per stimulus.

    On the dashed line the prior is the mean posterior, which is the best prior for an encoder. Units whose rate is zero
    are left out; of many units, the first 400 are shown.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` of one layer whose code has firing rates.
    X
        Stimuli over which the posterior rates are averaged.
    label
        Name in the legend, to compare models on one pair of axes.
    ax
        Matplotlib axes; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        Where the model has no prior rates, or no unit has a positive rate.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=20, random_state=0).fit(X)
    >>> len(sv.plot.rates(m, X).get_lines()[-1].get_xdata())
    8
    """
    prior = fitted(m, "prior_rates_").prior_rates_
    posterior = np.asarray(m.transform(X)).mean(0)
    ax = axes_of(ax)
    line = rate_line(posterior, prior, next_colour(ax), "o", label)
    if line is None:
        raise ValueError(f"no unit of {m!r:.80} has a positive firing rate: the code has collapsed; lower beta")
    x, y = rate_axes(is_count(m))
    unit = "spikes per stimulus" if is_count(m) else "own unit"
    return draw_on(
        Panel("", "", x.named(f"{x.title}\n({unit})"), y.named(f"{y.title}\n({unit})"), (line,), "", True), ax
    )
