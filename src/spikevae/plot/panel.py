"""Panels as data: lines and points with their families, latent sizes and texts; drawn by `drawing`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .style import Axis


@dataclass(frozen=True)
class Line:
    """Points of one family at one latent size, joined or not."""

    x: np.ndarray
    y: np.ndarray
    colour: str
    marker: str = ""
    family: int | None = None
    size: int | None = None
    """None: drawn whatever size is chosen."""
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    """Ends of the bars over seeds."""
    filled: np.ndarray | None = None
    """Which markers are filled; all if None."""
    texts: tuple[str, ...] = ()
    """What is shown for each point that the pointer reaches."""
    joined: bool = True
    dash: str = "-"
    label: str = ""
    """For a legend inside the panel."""
    stepped: bool = False
    fine: bool = False
    """Whether it is thin, with small markers: a path beside the line of its family."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    id: str
    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    alt: str
    diagonal: bool = False
    """Whether a line marks where x and y are equal."""
    second: tuple[str, float] | None = None
    """Label of an axis at the top, and the factor from the x axis to it."""
    reach: tuple[float, float] | None = None
    """Range of x to show, if not that of all points."""
    extent: tuple[Sequence[float], Sequence[float]] = field(default=((), ()))
    """Values of x and y that must be inside, for panels with shared axes."""
    leads: bool = False
    """Whether it is drawn large on wide screens, with the other panels of its figure beside it."""

    @property
    def families(self) -> list[int]:
        """Indices of the families in it."""
        return list(dict.fromkeys(line.family for line in self.lines if line.family is not None))

    @property
    def sizes(self) -> list[int]:
        """Latent sizes in it, increasing."""
        return sorted({line.size for line in self.lines if line.size is not None})
