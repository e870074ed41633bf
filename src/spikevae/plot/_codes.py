"""The histogram of a code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..evaluation.sums import Histogram
from ._axes import axes_of, codes_of, draw_on, fitted, is_count, next_colour
from .panel import Line, Panel
from .style import Axis

SHARE = Axis("", "Share of codes", log=True)


def code_axis(counts: bool) -> Axis:
    """The axis of a code."""
    return Axis("", "Code (spikes)" if counts else "Code (own unit)")


def histogram_lines(found: Mapping[str, Any], colour: str, label: str) -> list[Line]:
    """A histogram as a stepped line of densities (per unit of code), and a star at the share of zeros.

    Parameters
    ----------
    found
        ``edges`` (n + 1,) and ``mass`` (n,) of the codes that are not zero, and ``zero``, the share of the others.
    """
    edges, mass, zero = np.asarray(found["edges"]), np.asarray(found["mass"]), float(found["zero"])
    usable = len(edges) == len(mass) + 1 and len(mass) > 0
    centres, density = ((edges[:-1] + edges[1:]) / 2, mass / np.diff(edges)) if usable else (np.empty(0), np.empty(0))
    keep, lines = density > 0, []
    if keep.any():
        symbol = "o" if keep.sum() == 1 else ""  # a single bin, as of binary codes, has no line
        lines.append(Line(centres[keep], density[keep], colour, symbol, label=label, stepped=True))
    if zero > 0:
        at = np.array([0.0]), np.array([zero])
        lines.append(Line(*at, colour, "*", joined=False, label="" if keep.any() else label))
    return lines


def codes(m: Any, X: Any, *, label: str = "", ax: Any = None) -> Any:
    """Histogram of the sampled codes of all units; a star marks the share of entries that are zero.

    The last bin holds all codes beyond it.

    Parameters
    ----------
    m
        A fitted :class:`~spikevae.SpikeVAE` or :class:`~spikevae.SparseCoder`.
    X
        Stimuli, as for its methods.
    label
        Name in the legend, to compare models on one pair of axes.
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
    >>> sv.plot.codes(m, X).get_xlabel()
    'Code (spikes)'
    """
    found = torch.from_numpy(codes_of(fitted(m), X)).to(torch.float32)
    histogram = Histogram(m.model_.law)
    histogram.add(found[found != 0])
    ax = axes_of(ax)
    lines = histogram_lines(histogram.result(found.numel()), next_colour(ax), label)
    return draw_on(Panel("", "", code_axis(is_count(m)), SHARE, tuple(lines), ""), ax)
