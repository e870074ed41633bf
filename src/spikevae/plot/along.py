"""Quantities of the fits of a run against each other, a line for each family and latent size."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .._text import exact, shown
from ..sweep.curves import Curve, curves
from ..sweep.families import Family
from ..sweep.reading import Run
from .panel import Line, Panel
from .style import AXES, colour, dash, marker

FLOOR = 0.02
"""Points of lower R2 do not extend the axis of a frontier: a collapsed code has any small number of spikes."""


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
