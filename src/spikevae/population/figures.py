"""Figure of a fitted population: correlations, network of the precision, latent variables."""

from pathlib import Path
from typing import Any

import numpy as np

from ..plotting import BLUE, FAMILY_COLOURS, GREY, INK, VERMILION, save, settings
from .correlation import Correlations, clustered_order

MAX_LABELS = 40
"""Most units whose names are written."""
MAX_NAME = 14
EDGES_PER_UNIT = 2
"""Most edges of a network that are drawn, per unit."""
MAX_CATEGORIES = 8
SIGNS = ((BLUE, "-", "positive"), (VERMILION, "--", "negative"))


def figure(
    found: Correlations,
    names: tuple[str, ...],
    latent: np.ndarray,
    path: Path,
    *,
    colour: np.ndarray | None = None,
    colour_name: str = "",
) -> None:
    """Noise correlations in the order of clusters, the strongest partial correlations, and the rows in latent space.

    Parameters
    ----------
    found
        Correlations of the model.
    names
        Of the units.
    latent
        (n, l) posterior means of the rows.
    path
        .png or .svg.
    colour
        (n,) covariate that colours the rows: numbers, or categories as text.
    colour_name
        Its name.
    """
    from matplotlib.figure import Figure

    order = clustered_order(found.noise)
    with settings():
        sheet = Figure(figsize=(13.5, 4.6), layout="constrained")
        left, middle, right = sheet.subplots(1, 3)
        _matrix(left, sheet, found.noise, [_short(names[i]) for i in order], order)
        _network(middle, found.partial, [_short(name) for name in names], order)
        _latents(right, sheet, latent, colour, colour_name)
        save(sheet, path)


def _short(name: str) -> str:
    text = str(name).replace("$", r"\$")
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"


def _matrix(axis: Any, sheet: Any, correlation: np.ndarray, labels: list[str], order: np.ndarray) -> None:
    shown = correlation[np.ix_(order, order)].copy()
    np.fill_diagonal(shown, np.nan)
    scale = max(float(np.nanmax(np.abs(shown), initial=0.0)), 1e-3)
    image = axis.imshow(shown, cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
    axis.grid(False)
    if len(labels) <= MAX_LABELS:
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
        axis.set_yticks(range(len(labels)), labels, fontsize=6)
    else:
        axis.set(xlabel="unit, in the order of clusters", ylabel="unit, in the order of clusters")
    axis.set_title("a  noise correlations of counts")
    sheet.colorbar(image, ax=axis, shrink=0.8, label="correlation given the covariates")


def strongest(partial: np.ndarray) -> tuple[list[tuple[int, int, float]], int]:
    """The strongest partial correlations (unit, unit, value), weakest first, and how many are not zero."""
    rows, columns = np.triu_indices(len(partial), 1)
    values = np.nan_to_num(partial[rows, columns])
    edges = np.flatnonzero(values)
    kept = edges[np.argsort(np.abs(values[edges]), kind="stable")][-EDGES_PER_UNIT * len(partial) :]
    return [(int(rows[e]), int(columns[e]), float(values[e])) for e in kept], len(edges)


def _network(axis: Any, partial: np.ndarray, labels: list[str], order: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    p = len(partial)
    angle = np.empty(p)
    angle[order] = 2 * np.pi * np.arange(p) / p
    x, y = np.cos(angle), np.sin(angle)
    edges, n = strongest(partial)
    largest = max((abs(value) for *_, value in edges), default=1.0)
    for i, j, value in edges:
        colour, share = (BLUE if value > 0 else VERMILION), abs(value) / largest
        style = "-" if value > 0 else "--"
        axis.plot([x[i], x[j]], [y[i], y[j]], style, color=colour, linewidth=0.3 + 2 * share, alpha=0.25 + 0.6 * share)
    axis.plot(x, y, "o", color=INK, markersize=5 if p <= MAX_LABELS else 2.5)
    if p <= MAX_LABELS:
        for i, label in enumerate(labels):
            degrees = np.degrees(angle[i])
            turned = degrees + 180 if 90 < degrees < 270 else degrees
            axis.text(
                1.06 * x[i], 1.06 * y[i], label, fontsize=6, rotation=turned, rotation_mode="anchor", va="center",
                ha="right" if 90 < degrees < 270 else "left",
            )  # fmt: skip
    keys = [
        Line2D([], [], color=BLUE, label="positive"),
        Line2D([], [], color=VERMILION, linestyle="--", label="negative"),
    ]
    axis.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=7.5)
    which = f"all {n}" if len(edges) == n else f"strongest {len(edges)} of {n}"
    axis.set_title(f"b  partial correlations: {which}")
    reach = 1.5 if p <= MAX_LABELS else 1.1
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.axis("off")


def components(latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows on the principal axes of the latent variables (n, 2), and the shares of variance of the axes."""
    centred = latent - latent.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    scores = np.zeros((len(latent), 2))
    shares = np.zeros(2)
    k = min(2, len(scale))
    scores[:, :k] = left[:, :k] * scale[:k]
    shares[:k] = scale[:k] ** 2 / max(float((scale**2).sum()), np.finfo(float).tiny)
    return scores, shares


def _latents(axis: Any, sheet: Any, latent: np.ndarray, colour: np.ndarray | None, name: str) -> None:
    scores, shares = components(latent)
    labels = [f"component {i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares)]
    axis.set(title="c  rows in latent space", xlabel=labels[0], ylabel=labels[1])
    if colour is None:
        axis.plot(scores[:, 0], scores[:, 1], "o", color=BLUE, markersize=3.5, alpha=0.7, label="row")
        return
    if np.asarray(colour).dtype.kind in "uif":
        drawn = axis.scatter(scores[:, 0], scores[:, 1], c=colour, cmap="viridis", s=14)
        sheet.colorbar(drawn, ax=axis, shrink=0.8, label=name)
        return
    levels, counts = np.unique(np.asarray(colour).astype(str), return_counts=True)
    shown = levels[np.argsort(-counts, kind="stable")][:MAX_CATEGORIES]
    for i, level in enumerate(sorted(shown)):
        own = np.asarray(colour).astype(str) == level
        mark = "os^vDPX*"[i]
        axis.plot(scores[own, 0], scores[own, 1], mark, color=FAMILY_COLOURS[i], markersize=4, label=_short(level))
    rest = ~np.isin(np.asarray(colour).astype(str), shown)
    if rest.any():
        axis.plot(scores[rest, 0], scores[rest, 1], ".", color=GREY, markersize=4, label="others")
    axis.legend(title=name, fontsize=7.5, title_fontsize=7.5)
