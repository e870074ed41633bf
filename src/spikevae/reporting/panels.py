"""Panels of the report alone: against the latent size, between starts, and of a few fits of each family."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .._text import exact, shown
from ..plot._codes import SHARE, code_axis, histogram_lines
from ..plot._history import OBJECTIVE, STEP, thinned
from ..plot._rates import rate_axes, rate_line
from ..plot.along import defined, number, point_texts
from ..plot.panel import Line, Panel
from ..plot.style import AXES, colour, dash, marker
from ..plotting import BETA_COLOURS
from ..sweep.curves import curves, start_pairs
from ..sweep.families import Family
from ..sweep.reading import Cell, Run


def nearest_to_one(run: Run, families: Iterable[Family]) -> float:
    """Of the betas that most of some families have the one nearest to 1."""
    wanted = {f.index for f in families}
    pairs = {(cell.family.index, cell.beta) for cell in run.best if cell.family.index in wanted and cell.beta > 0}
    counts = Counter(beta for _, beta in pairs)
    most = max(counts.values(), default=0)
    return min((b for b in counts if counts[b] == most), key=lambda b: abs(math.log(b)), default=1.0)


def against_size(run: Run, y: str, families: Iterable[Family], beta: float) -> Panel | None:
    """A quantity against the latent size at one beta, a line for each family with several sizes."""
    lines = []
    for family in families:
        points = [
            (curve.n_latents, number(curve, y)[at], curve.converged[at], point_texts(curve)[at])
            for curve in curves(run.best)
            if curve.family == family and defined(family, y)
            for at in np.flatnonzero(curve.beta == beta)
        ]
        points = [p for p in points if math.isfinite(p[1]) and (p[1] > 0 or not AXES[y].log)]
        if len(points) > 1:
            size, value, ok, texts = zip(*points)
            x, filled = np.array(size, float), np.array(ok, bool)
            look = colour(family), marker(family), family.index
            lines.append(Line(x, np.array(value), *look, filled=filled, texts=tuple(texts), dash=dash(family)))
    alt = f"{AXES[y].label} against the number of latent units"
    return Panel("", AXES[y].label, AXES["size"], AXES[y], tuple(lines), alt) if lines else None


def starts(run: Run, metric: str) -> Panel | None:
    """The lowest start against the highest, a point for each family, latent size, beta and seed."""
    pairs = [
        p
        for p in start_pairs(run)
        if math.isfinite(p[0][metric]) and math.isfinite(p[1][metric]) and defined(p[0].family, metric)
        and (metric != "firing_rate" or min(p[0][metric], p[1][metric]) > 0)
    ]  # fmt: skip
    if not pairs:
        return None
    lines = []
    for family in dict.fromkeys(low.family for low, _ in pairs):
        for size in run.sizes:
            own = [p for p in pairs if p[0].family == family and p[0].n_latents == size]
            if own:
                texts = tuple(
                    f"{family.label}\nK = {size}, β = {exact(a.beta)}, seed {a.seed}\nfrom log rate "
                    f"{exact(a.start)}: {shown(a[metric], 4)}\nfrom {exact(b.start)}: {shown(b[metric], 4)}"
                    f"\n{a.check.flag}"
                    for a, b in own
                )
                x, y = (np.array([pair[i][metric] for pair in own]) for i in (0, 1))
                lines.append(Line(x, y, colour(family), marker(family), family.index, size, texts=texts, joined=False))
    axis = AXES[metric]
    x_axis, y_axis = axis.named("From the lowest start"), axis.named("From the highest start")
    alt = f"{axis.label}, highest against lowest start"
    return Panel(f"starts-{metric}", axis.label, x_axis, y_axis, tuple(lines), alt, diagonal=True)


# ---------------------------------------------------------------------------- a few fits of each family, one by one


def beta_names(cells: Sequence[Cell]) -> list[tuple[Cell, str, str]]:
    """Each shown fit of one family with a colour and a name for its beta."""
    colours = BETA_COLOURS if len(cells) > 2 else (BETA_COLOURS[0], BETA_COLOURS[2])
    return [(cell, colour, f"β = {exact(cell.beta)}") for cell, colour in zip(cells, colours)]


def shown_of(run: Run, family: Family) -> list[Cell]:
    """The few fits of a family that are shown one by one."""
    return [cell for cell in run.shown if cell.family == family]


def prior_posterior(run: Run, family: Family) -> Panel | None:
    """Prior and mean posterior firing rate of each unit."""
    lines = []
    for (cell, tint, name), symbol in zip(beta_names(shown_of(run, family)), ("o", "s", "D")):
        prior, rate = cell.units.get("prior_firing_rate", np.empty(0)), cell.units.get("firing_rate", np.empty(0))
        line = rate_line(rate, prior, tint, symbol, name) if len(prior) == len(rate) else None
        lines += [line] if line else []
    x, y = rate_axes(family.is_count)
    alt = f"Prior against mean posterior {'rate' if family.is_count else 'activation'} of each unit, {family.label}"
    return Panel(f"prior-{family.index}", family.label, x, y, tuple(lines), alt, True) if lines else None


def code_histogram(run: Run, family: Family) -> Panel | None:
    """Histogram of the sampled codes of all units; a star marks the share at zero."""
    lines: list[Line] = []
    for cell, tint, name in beta_names(shown_of(run, family)):
        lines += histogram_lines(cell.histogram, tint, name)
    alt = f"Histogram of sampled codes, {family.label}"
    id = f"code-{family.index}"
    return Panel(id, family.label, code_axis(family.is_count), SHARE, tuple(lines), alt) if lines else None


STEP_DASHES = ("-", ":", "--", "-.")


def training(run: Run, family: Family) -> Panel | None:
    """Training objective against the step: a colour for each beta, a line style for each start."""
    lines = []
    used: list[float] = []
    for cell, tint, name in beta_names(shown_of(run, family)):
        for i, (start, step, value) in enumerate(training_curves(run, cell)):
            used += [start.start] * (start.start not in used)
            dash = STEP_DASHES[used.index(start.start) % len(STEP_DASHES)]
            lines.append(Line(step, value, tint, dash=dash, label="" if i else name))
    nothing = np.empty(0)
    if len(used) > 1:
        for i, began in enumerate(used):
            dash = STEP_DASHES[i % len(STEP_DASHES)]
            lines.append(Line(nothing, nothing, "#59636e", dash=dash, label=f"start {exact(began)}"))
    alt = f"Training curves, {family.label}"
    return Panel(f"training-{family.index}", family.label, STEP, OBJECTIVE, tuple(lines), alt) if lines else None


def training_curves(run: Run, cell: Cell) -> list[tuple[Cell, np.ndarray, np.ndarray]]:
    """Every start of a cell with its steps and training objectives, thinned."""
    found = []
    for start in starts_of(run, cell):
        step, value = start.history.get("step"), start.history.get("objective")
        if step is not None and value is not None and len(step) == len(value) and np.isfinite(value).any():
            found.append((start, *thinned(step, value)))
    return found


def starts_of(run: Run, cell: Cell) -> list[Cell]:
    """Every fit that differs from a cell only in start or budget, lowest start first."""
    same = [other for other in run.cells if other.check.group == cell.check.group]
    return sorted(same, key=lambda other: (other.start, other.budget))
