"""Panels of figures as data: lines and points with their families, latent sizes and texts; drawn by `drawing`."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .._text import exact, shown
from ..plotting import BETA_COLOURS
from .curves import Curve, curves, histogram, start_pairs
from .families import Family
from .reading import Cell, Run
from .style import AXES, Axis, colour, dash, marker

MAX_UNITS_SHOWN = 400
MAX_CURVE_POINTS = 120
FLOOR = 0.02
"""Points of lower R2 do not extend the axis of a frontier: a collapsed code has any small number of spikes."""


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


def number(curve: Curve, metric: str, which: str = "mean") -> np.ndarray:
    """A quantity along a curve: a metric, `beta`, or one of those that depend on the kind of code."""
    if metric == "beta":
        return curve.beta
    if metric == "activation":
        return getattr(curve, which)("firing_rate")
    if metric == "operations":  # an accumulate for each spike of counts, a multiply-accumulate for each graded value
        return getattr(curve, which)("synops_events" if curve.family.is_count else "synops_nonzero")
    return getattr(curve, which)(metric)


def defined(family: Family, metric: str) -> bool:
    """Whether a family has a quantity."""
    if metric == "activation":
        return family.is_control
    return family.is_count or not (metric in AXES and AXES[metric].counts_only)


def point_texts(curve: Curve) -> tuple[str, ...]:
    """Each point of a curve in words."""
    names = [
        ("fraction_zeros", "zeros"), ("r2_pooled", "R²"), ("firing_rate", "spikes per unit"),
        ("spikes", "spikes per stimulus"), ("activation", "mean activation"), ("bits", "bits per stimulus"),
        ("joules", "J per stimulus"), ("operations", "decoder operations"),
    ]  # fmt: skip
    columns = [
        (word, number(curve, name), number(curve, name, "low"), number(curve, name, "high"))
        for name, word in names
        if defined(curve.family, name)
    ]
    texts = []
    for i, flag in enumerate(curve.flags):
        lines = [f"{curve.family.label}", f"K = {curve.n_latents}, β = {exact(curve.beta[i])}"]
        for word, mean, low, high in columns:
            if math.isfinite(mean[i]):
                ends = [shown(low[i]), shown(high[i])]
                seeds = f" ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else ""
                lines.append(f"{word}: {shown(mean[i])}{seeds}")
        texts.append("\n".join([*lines, flag]))
    return tuple(texts)


def along(run: Run, id: str, x: str, y: str, families: Iterable[Family], title: str | None = None) -> Panel | None:
    """One quantity against another along beta, a line for each family and latent size; None without numbers."""
    chosen = {f.index for f in families if defined(f, x) and defined(f, y)}
    lines = []
    for curve in curves(run.best):
        if curve.family.index not in chosen:
            continue
        xs, ys = number(curve, x), number(curve, y)
        keep = np.isfinite(xs) & np.isfinite(ys)
        for axis, values in ((x, xs), (y, ys)):
            if AXES[axis].log:
                keep &= np.nan_to_num(values) > 0
        if not keep.any():
            continue
        seeds = any(len(point) > 1 for point in curve.cells) and x == "beta"
        low, high = (number(curve, y, which)[keep] for which in ("low", "high")) if seeds else (None, None)
        texts = point_texts(curve)
        lines.append(
            Line(
                xs[keep], ys[keep], colour(curve.family), marker(curve.family), curve.family.index, curve.n_latents,
                low, high, curve.converged[keep], tuple(t for t, k in zip(texts, keep) if k), dash=dash(curve.family),
            )
        )  # fmt: skip
    if not lines:
        return None
    reach = None
    if y == "r2_pooled" and x != "beta":
        near = np.concatenate([line.x[line.y >= min(FLOOR, line.y.max())] for line in lines])
        reach = (float(near.min()), float(near.max()))
    alt = f"{AXES[y].label} against {AXES[x].label}, a line for each family"
    return Panel(id, title or AXES[y].label, AXES[x], AXES[y], tuple(lines), alt, reach=reach)


def with_paths(run: Run, panel: Panel) -> Panel:
    """A panel of R2 against spikes with the paths along the spike price in the colours of their families."""
    lines = []
    for path in run.paths:
        family, cell = path.start.family, path.start
        points = [p for p in path.points if p.spikes > 0 and math.isfinite(p.r2)]
        if family.index not in panel.families or len(points) < 2:
            continue
        texts = tuple(
            f"{family.label}\nK = {cell.n_latents}, β = {exact(p.beta)}, spike price {shown(p.spike_price)} nats\n"
            f"zeros: {shown(p.fraction_zeros)}\nR²: {shown(p.r2)}\nspikes per stimulus: {shown(p.spikes)}\n"
            f"bits per stimulus: {shown(p.bits)}\nJ per stimulus: {shown(p.joules)}"
            for p in points
        )
        x, y = np.array([p.spikes for p in points]), np.array([p.r2 for p in points])
        lines.append(Line(x, y, colour(family), ".", family.index, cell.n_latents, texts=texts, fine=True))
    near = [x for line in lines for x, y in zip(line.x, line.y) if y >= FLOOR]
    reach = panel.reach and (min([panel.reach[0], *near]), max([panel.reach[1], *near]))
    return replace(panel, lines=(*panel.lines, *lines), reach=reach)


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
        if len(prior) != len(rate):
            continue
        keep = np.isfinite(prior) & np.isfinite(rate) & (prior > 0) & (rate > 0)
        if keep.any():
            x, y = rate[keep][:MAX_UNITS_SHOWN], prior[keep][:MAX_UNITS_SHOWN]
            lines.append(Line(x, y, tint, symbol, joined=False, label=name))
    word = "rate" if family.is_count else "activation"
    x_axis, y_axis = (Axis("", f"{what} {word} of the unit", log=True) for what in ("Mean posterior", "Prior"))
    alt = f"Prior against mean posterior {word} of each unit, {family.label}"
    return Panel(f"prior-{family.index}", family.label, x_axis, y_axis, tuple(lines), alt, True) if lines else None


def code_histogram(run: Run, family: Family) -> Panel | None:
    """Histogram of the sampled codes of all units; a star marks the share at zero."""
    lines = []
    for cell, tint, name in beta_names(shown_of(run, family)):
        centres, density, zero = histogram(cell)
        keep = density > 0
        if keep.any():
            symbol = "o" if keep.sum() == 1 else ""  # a single bin, as of binary codes, has no line
            lines.append(Line(centres[keep], density[keep], tint, symbol, label=name, stepped=True))
        if zero > 0:
            at = np.array([0.0]), np.array([zero])
            lines.append(Line(*at, tint, "*", joined=False, label="" if keep.any() else name))
    x, y = Axis("", "Code (spikes)" if family.is_count else "Code (own unit)"), Axis("", "Share of codes", log=True)
    alt = f"Histogram of sampled codes, {family.label}"
    return Panel(f"code-{family.index}", family.label, x, y, tuple(lines), alt) if lines else None


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
    x, y = Axis("", "Optimiser step"), Axis("", "Objective (nats per stimulus)", log=True)
    alt = f"Training curves, {family.label}"
    return Panel(f"training-{family.index}", family.label, x, y, tuple(lines), alt) if lines else None


def training_curves(run: Run, cell: Cell) -> list[tuple[Cell, np.ndarray, np.ndarray]]:
    """Every start of a cell with its steps and training objectives, thinned."""
    found = []
    for start in starts_of(run, cell):
        step, value = start.history.get("step"), start.history.get("objective")
        if step is not None and value is not None and len(step) == len(value) and np.isfinite(value).any():
            chosen = np.unique(np.linspace(0, len(step) - 1, MAX_CURVE_POINTS).round().astype(int))
            found.append((start, step[chosen], value[chosen]))
    return found


def starts_of(run: Run, cell: Cell) -> list[Cell]:
    """Every fit that differs from a cell only in start or budget, lowest start first."""
    same = [other for other in run.cells if other.check.group == cell.check.group]
    return sorted(same, key=lambda other: (other.start, other.budget))
