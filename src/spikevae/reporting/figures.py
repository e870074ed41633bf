"""Static figures of a run, PNG and SVG, for papers and slides, and for the page in browsers without scripts."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._text import exact
from ..plotting import DASHES, GREY, INK, MARKERS, Static, canvas, log_ticks, spans_decades, write
from .charts import HEAT_METRICS, MAX_UNITS_SHOWN, tight
from .curves import banded, curves, heat_map, histogram, several_prices, start_pairs
from .families import Family
from .fit_charts import beta_names, shown_of, training_curves
from .reading import Run
from .style import AXES, dash, family_colours, marker, size_colours, size_widths
from .style import colour as line_colour


def write_figures(run: Run, folder: Path, advance: Callable[[str], None]) -> dict[str, Static]:
    """Write every figure for which the run has numbers."""
    written = {}
    for draw in (beta_figure, cost_figure, frontier_figure, heat_figure, prior_figure, start_figure, price_figure,
                 code_figure, training_figure):  # fmt: skip
        advance(draw.__name__.replace("_", " "))
        static = draw(run, folder)
        if static is not None:
            written[static.name] = static
    return written


def _label(axes: Any, x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> None:
    """Label axes by metric or words, and set logarithmic ones with readable ticks."""
    from matplotlib.ticker import NullFormatter

    for which, name, log in (("x", x, log_x), ("y", y, log_y)):
        getattr(axes, f"set_{which}label")(AXES[name].label if name in AXES else name)
        drawn = getattr(axes.dataLim, f"interval{which}")
        if log and spans_decades(np.array([getattr(axes.dataLim, f"minpos{which}"), drawn[1]])):
            getattr(axes, f"set_{which}scale")("log")
            low, high = getattr(axes, f"get_{which}lim")()
            ticks = log_ticks(np.array([low, high]))
            if ticks is not None:
                kept = [t for t in ticks if low <= t <= high]
                getattr(axes, f"set_{which}ticks")(kept, [exact(float(f"{t:.3g}")) for t in kept])
                getattr(axes, f"{which}axis").set_minor_formatter(NullFormatter())


def literal(text: str) -> str:
    """Text from a file, with dollar signs escaped, so that Matplotlib does not read them as mathematics."""
    return text.replace("$", r"\$")


def _positive(values: np.ndarray, log: bool) -> np.ndarray:
    return np.where(values > 0, values, np.nan) if log else values


KEY_COLUMNS = 6


def _key_rows(run: Run) -> int:
    """Number of lines of the legends of :func:`_keys`."""
    return -(-len(run.families) // 3) + -(-len(run.sizes) // KEY_COLUMNS)


def _keys(run: Run, figure: Any, *, lines: bool = True) -> None:
    """Legends below the axes: families by line and marker, latent sizes by colour and width."""
    from matplotlib.lines import Line2D

    own = family_colours(run)
    families = [
        Line2D([], [], color=own[f.index % len(own)] if own else GREY,
               linestyle=dash(f, static=True) if lines else "", marker=marker(f, static=True),
               markersize=5, label=literal(f.label))
        for f in run.families
    ]  # fmt: skip
    colours, widths = size_colours(run), size_widths(run)
    sizes = [Line2D([], [], color=colours[k], linewidth=1.6 * widths[k], label=f"K = {k}") for k in run.sizes]
    tall = figure.get_figheight()
    style = {"loc": "lower center", "fontsize": 8, "borderpad": 0.1, "borderaxespad": 0.0}
    rows = -(-len(sizes) // KEY_COLUMNS)
    figure.legend(handles=sizes, ncols=min(len(sizes), KEY_COLUMNS), bbox_to_anchor=(0.5, 0.03 / tall), **style)
    figure.legend(
        handles=families, ncols=min(len(families), 3), bbox_to_anchor=(0.5, (0.05 + 0.19 * rows) / tall), **style
    )


def _against_beta(run: Run, axes: Any, metric: str) -> None:
    log = AXES[metric].log
    widths = size_widths(run)
    for curve in curves(run.best):
        mean = _positive(curve.mean(metric), log)
        if not np.isfinite(mean).any():
            continue
        colour = line_colour(run, curve.family, curve.n_latents)
        bars = [mean - curve.low(metric), curve.high(metric) - mean]
        style = {"color": colour, "linestyle": dash(curve.family, static=True)}
        axes.errorbar(
            curve.beta, mean, yerr=np.nan_to_num(np.maximum(bars, 0)), linewidth=widths[curve.n_latents],
            elinewidth=0.8, capsize=2, **style,
        )  # fmt: skip
        for ok, face in ((True, colour), (False, "white")):
            here = curve.converged == ok
            axes.plot(
                curve.beta[here], mean[here], marker(curve.family, static=True), color=colour, markerfacecolor=face,
                markersize=4,
            )  # fmt: skip
        if metric == "joules" and banded(run, curve):
            low, high = _positive(curve.mean("joules_low"), True), curve.mean("joules_high")
            axes.fill_between(curve.beta, low, high, color=colour, alpha=0.10, linewidth=0)
    _label(axes, "β", metric, log_x=True, log_y=log)


def beta_figure(run: Run, folder: Path) -> Static:
    """Fraction of zeros with firing rate and R2 beside it, against beta."""
    with canvas(1, 3, key_rows=_key_rows(run)) as (figure, axes):
        for ax, metric in zip(axes[0], ("fraction_zeros", "firing_rate", "r2_pooled")):
            _against_beta(run, ax, metric)
        _keys(run, figure)
        return write(figure, folder, "sparsity", "Fraction of zeros, mean firing rate and R² against β")


def cost_figure(run: Run, folder: Path) -> Static:
    """Bits, bits per spike and joules against beta."""
    with canvas(1, 3, key_rows=_key_rows(run)) as (figure, axes):
        for ax, metric in zip(axes[0], ("bits", "bits_per_spike", "joules")):
            _against_beta(run, ax, metric)
        _keys(run, figure)
        return write(figure, folder, "cost", "Bits per stimulus, bits per spike and joules against β")


def frontier_figure(run: Run, folder: Path) -> Static:
    """Distortion against bits and against joules, all families on one axis."""
    widths = size_widths(run)
    with canvas(1, 2, 4.2, 3.6, key_rows=_key_rows(run)) as (figure, axes):
        for ax, x_metric in zip(axes[0], ("bits", "joules")):
            log = AXES[x_metric].log
            for curve in curves(run.best):
                x, y = _positive(curve.mean(x_metric), log), curve.mean("distortion")
                style = {
                    "color": line_colour(run, curve.family, curve.n_latents),
                    "linestyle": dash(curve.family, static=True),
                }
                ax.plot(x, y, marker=marker(curve.family, static=True), markersize=4,
                        linewidth=widths[curve.n_latents], **style)  # fmt: skip
            _label(ax, x_metric, "distortion", log_x=log)
        _keys(run, figure)
        return write(figure, folder, "frontiers", "Distortion against coding rate and against energy along β")


def heat_figure(run: Run, folder: Path) -> Static:
    """Fraction of zeros, firing rate and R2 over beta and latent size, a row for each family."""
    from matplotlib.colors import LogNorm, Normalize

    tall = max(1.2, 0.26 * len(run.sizes))
    with canvas(len(run.families), len(HEAT_METRICS), 3.8, tall) as (figure, axes):
        for column, metric in enumerate(HEAT_METRICS):
            maps = [heat_map(run, family, metric) for family in run.families]
            log = AXES[metric].log
            values = np.concatenate([m.values.ravel() for m in maps])
            values = values[np.isfinite(values) & ((values > 0) if log else True)]
            if len(values):
                low, high = float(values.min()), float(values.max())
                norm = LogNorm(low, max(high, low * 1.001)) if log else Normalize(low, max(high, low + 1e-9))
            for row, m in enumerate(maps):
                ax = axes[row, column]
                ax.set_title(f"{literal(m.family.label)}: {AXES[metric].label.split(' (')[0]}", fontsize=8)
                if not len(values) or not np.isfinite(m.values).any():
                    ax.set_axis_off()
                    continue
                image = ax.imshow(_positive(m.values, log), aspect="auto", origin="lower", cmap="viridis", norm=norm)
                ax.set_xticks(range(len(m.betas)), [exact(b) for b in m.betas])
                ax.set_yticks(range(len(m.sizes)), [str(k) for k in m.sizes])
                ax.set(xlabel="β", ylabel="K")
                ax.grid(False)
                _write_values(ax, m.values, norm, metric)
                figure.colorbar(image, ax=ax, pad=0.03)
        return write(figure, folder, "heat_maps", "Fraction of zeros, mean firing rate and R² over β and latent size")


def _write_values(ax: Any, values: np.ndarray, norm: Any, metric: str) -> None:
    """Write each value into its field, dark on light and light on dark."""
    for i, j in np.argwhere(np.isfinite(values)):
        scaled = norm(values[i, j])
        pale = not np.ma.is_masked(scaled) and float(scaled) < 0.6
        ax.text(
            j, i, tight(values[i, j], metric), ha="center", va="center", fontsize=6, color="white" if pale else "black"
        )


def _family_panels(
    run: Run, folder: Path, name: str, alt: str, draw: Callable[[Run, Family, Any], bool]
) -> Static | None:
    """One panel for each family for which `draw` draws something."""
    families = [f for f in run.families if shown_of(run, f)]
    with canvas(1, max(1, len(families)), 3.4, 2.9) as (figure, axes):
        drawn = 0
        for ax, family in zip(axes[0], families):
            if draw(run, family, ax):
                drawn += 1
                ax.set_title(literal(family.label), fontsize=9)
                ax.legend(fontsize=7)
            else:
                ax.set_axis_off()
        return write(figure, folder, name, alt) if drawn else None


def _draw_prior(run: Run, family: Family, ax: Any) -> bool:
    every = []
    for (cell, colour, name), symbol in zip(beta_names(shown_of(run, family)), ("o", "s", "D")):
        prior, rate = cell.units.get("prior_firing_rate", np.empty(0)), cell.units.get("firing_rate", np.empty(0))
        if len(prior) != len(rate):
            continue
        keep = np.isfinite(prior) & np.isfinite(rate) & (prior > 0) & (rate > 0)
        if keep.any():
            ax.plot(
                rate[keep][:MAX_UNITS_SHOWN],
                prior[keep][:MAX_UNITS_SHOWN],
                symbol,
                color=colour,
                markersize=3,
                alpha=0.6,
                label=name,
            )
            every += [rate[keep], prior[keep]]
    if not every:
        return False
    values = np.concatenate(every)
    ends = [values.min() / 1.5, values.max() * 1.5]
    ax.plot(ends, ends, "--", color=GREY, linewidth=0.8, label="equal")
    _label(ax, "Mean posterior firing rate of the unit", "Prior firing rate of the unit", log_x=True, log_y=True)
    return True


def prior_figure(run: Run, folder: Path) -> Static | None:
    """Prior against mean posterior firing rate, a point for each unit."""
    return _family_panels(run, folder, "prior_posterior", "Prior against mean posterior firing rate", _draw_prior)


def start_figure(run: Run, folder: Path) -> Static | None:
    """Objective and firing rate of the lowest start against those of the highest."""
    pairs = start_pairs(run)
    if not pairs:
        return None
    with canvas(1, 2, 3.8, 3.6, key_rows=_key_rows(run)) as (figure, axes):
        for ax, metric in zip(axes[0], ("fit_objective", "firing_rate")):
            log = AXES[metric].log
            values = np.array([[low[metric], high[metric]] for low, high in pairs])
            keep = np.isfinite(values).all(axis=1) & ((values > 0).all(axis=1) if log else True)
            for (low, _), (x, y) in zip([p for p, k in zip(pairs, keep) if k], values[keep]):
                ax.plot(x, y, marker(low.family, static=True), markersize=4, alpha=0.8,
                        color=line_colour(run, low.family, low.n_latents))  # fmt: skip
            if keep.any():
                ends = [values[keep].min(), values[keep].max()]
                ax.plot(ends, ends, "--", color=GREY, linewidth=0.8)
            short = {"fit_objective": "Objective (nats per stimulus)", "firing_rate": "Mean firing rate"}[metric]
            scale = bool(log and keep.any())
            _label(ax, f"{short}, lowest start", f"{short}, highest start", log_x=scale, log_y=scale)
        _keys(run, figure, lines=False)
        return write(figure, folder, "starts", "Objective and mean firing rate from the lowest and the highest start")


def price_figure(run: Run, folder: Path) -> Static | None:
    """Distortion, bits and spikes in one figure, for runs with several spike prices."""
    cells = [c for c in run.best if math.isfinite(c["spikes"]) and c["spikes"] > 0]
    if not several_prices(run) or not cells:
        return None
    from matplotlib.colors import LogNorm

    spikes = [c["spikes"] for c in cells]
    norm = LogNorm(min(spikes), max(spikes) * 1.001)
    with canvas(1, 1, 4.6, 3.4) as (figure, axes):
        ax = axes[0, 0]
        for i, price in enumerate(sorted({c.spike_price for c in cells})):
            own = [c for c in cells if c.spike_price == price]
            dots = ax.scatter(
                [c["bits"] for c in own], [c["distortion"] for c in own], c=[c["spikes"] for c in own], norm=norm,
                marker=MARKERS[i % len(MARKERS)][1], edgecolor=INK, linewidth=0.4, label=f"{exact(price)} nats",
            )  # fmt: skip
        _label(ax, "bits", "distortion")
        figure.colorbar(dots, ax=ax, label="Spikes per stimulus")
        ax.legend(fontsize=7, title="Spike price")
        return write(figure, folder, "spike_price", "Distortion, bits and spikes at several spike prices")


def _draw_code(run: Run, family: Family, ax: Any) -> bool:
    drawn = False
    for cell, colour, name in beta_names(shown_of(run, family)):
        centres, density, zero = histogram(cell)
        keep = density > 0
        if keep.any():
            ax.step(centres[keep], density[keep], where="mid", color=colour, label=name)
            drawn = True
        if zero > 0:
            ax.plot(0, zero, "*", color=colour, markersize=9, label=None if keep.any() else name)
            drawn = True
    _label(ax, "Code (spikes)" if family.has_rate else "Code", "Share of codes (per unit of code)", log_y=drawn)
    return drawn


def code_figure(run: Run, folder: Path) -> Static | None:
    """Histogram of the sampled codes of all units."""
    return _family_panels(
        run, folder, "code_histograms", "Histograms of sampled codes; stars: share at zero", _draw_code
    )


def _draw_training(run: Run, family: Family, ax: Any) -> bool:
    used: list[float] = []
    positive = True
    for cell, colour, name in beta_names(shown_of(run, family)):
        label = name
        for start, step, value in training_curves(run, cell):
            used += [start.start] * (start.start not in used)
            style = DASHES[used.index(start.start) % len(DASHES)][1]
            ax.plot(step, value, color=colour, linestyle=style, linewidth=1.3, label=label)
            label, positive = "_", positive and bool(np.nanmin(value) > 0)
    for i, began in enumerate(used):
        ax.plot([], [], color=GREY, linestyle=DASHES[i % len(DASHES)][1], label=f"start {exact(began)}")
    _label(ax, "Optimiser step", "Training objective (nats/stimulus)", log_y=bool(used) and positive)
    return bool(used)


def training_figure(run: Run, folder: Path) -> Static | None:
    """Training objective against the step."""
    return _family_panels(run, folder, "training", "Training objective against the optimiser step", _draw_training)
