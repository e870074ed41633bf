"""Trends of sparsity, firing rate, bits and fidelity with beta, and their description in sentences."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .._text import exact, p_text, percent, plural, power, shown, signed
from ..sweep.families import Family
from ..sweep.reading import Cell
from .trend import Monotonicity, Slope, monotonicity, slope_per_decade


@dataclass(frozen=True)
class Quantity:
    """A metric whose trend is reported."""

    name: str
    label: str
    direction: Literal["up", "down"]
    """Expected direction as beta rises: according to the paper or, for bits and R2, to theory."""
    factor: bool
    """Whether the slope is that of the logarithm and is reported as a factor per tenfold beta."""

    def label_for(self, family: Family) -> str:
        """The label; real-valued codes have an activation instead of a firing rate."""
        return self.label if family.is_count or self.name != "firing_rate" else "mean activation"


QUANTITIES = (
    Quantity("fraction_zeros", "fraction of zeros", "up", factor=False),
    Quantity("firing_rate", "mean firing rate", "down", factor=True),
    Quantity("bits", "bits per stimulus", "down", factor=False),
    Quantity("r2_pooled", "R²", "down", factor=False),
)


@dataclass(frozen=True)
class Trend:
    """How one quantity depends on beta."""

    quantity: Quantity
    slope: Slope
    """Per tenfold of beta; of log10 where `quantity.factor`."""
    monotone: Monotonicity
    first: float
    last: float
    """Means over seeds at the lowest and the highest beta."""

    @property
    def defined(self) -> bool:
        """Whether the quantity exists for this law and there are at least two values of beta."""
        return math.isfinite(self.slope.estimate)


@dataclass(frozen=True)
class Finding:
    """What beta does in one family at one latent size."""

    family: Family
    n_latents: int
    betas: tuple[float, float]
    seeds: tuple[int, ...]
    trends: dict[str, Trend]
    cells: tuple[Cell, ...]
    """The fits from which it was computed."""

    @property
    def n_converged(self) -> int:
        """Number of these fits that are flagged as converged."""
        return sum(cell.check.flag == "converged" for cell in self.cells)


def findings(cells: Iterable[Cell]) -> list[Finding]:
    """Trends of each family and latent size; `cells` contains one fit for each family, size, beta and seed.

    Fits with beta = 0 are left out, because trends are on a logarithmic axis of beta.
    """
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        if cell.beta > 0:
            groups.setdefault((cell.family.index, cell.n_latents), []).append(cell)
    found = []
    for (_, size), group in sorted(groups.items()):
        betas = (min(c.beta for c in group), max(c.beta for c in group))
        found.append(
            Finding(
                family=group[0].family,
                n_latents=size,
                betas=betas,
                seeds=tuple(sorted({c.seed for c in group})),
                trends={q.name: _trend(group, q, betas) for q in QUANTITIES},
                cells=tuple(group),
            )
        )
    return found


def _trend(cells: Sequence[Cell], quantity: Quantity, betas: tuple[float, float]) -> Trend:
    beta = [c.beta for c in cells]
    seed = [c.seed for c in cells]
    value = np.array([c[quantity.name] for c in cells])
    scaled = value
    if quantity.factor:
        positive = value > 0
        scaled = np.where(positive, np.log10(np.where(positive, value, 1.0)), math.nan)
    first, last = (_mean(v for v, b in zip(value, beta) if b == end) for end in betas)
    return Trend(
        quantity,
        slope_per_decade(beta, scaled, seed),
        monotonicity(beta, value, seed, quantity.direction),
        first,
        last,
    )


def _mean(values: Iterable[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def slope_text(trend: Trend) -> str:
    """The slope without its interval: `+0.081` or `×0.43`."""
    if not trend.defined:
        return "-"
    return f"×{shown(10**trend.slope.estimate)}" if trend.quantity.factor else signed(trend.slope.estimate)


def interval_text(trend: Trend) -> str:
    """The interval without the slope: `0.080 to 0.082`; empty where there is none."""
    low, high = trend.slope.low, trend.slope.high
    if not math.isfinite(low):
        return ""
    if trend.quantity.factor:
        return f"×{shown(power(low))} to ×{shown(power(high))}"
    return f"{signed(low)} to {signed(high)}"


def verdict(trend: Trend) -> str:
    """Whether the means over seeds are monotone, and if not, the largest reversal."""
    m = trend.monotone
    if not trend.defined:
        return "-"
    if m.holds:
        return f"monotone (τ = {shown(m.tau, 2)}, {p_text(m.p_value)})"
    if m.violation_at is None:
        return f"flat in places, never against the trend (τ = {shown(m.tau, 2)}, {p_text(m.p_value)})"
    low, high = m.violation_at
    way = "falls" if m.direction == "up" else "rises"
    share = f"{percent(m.violation_share)} of its range, " if math.isfinite(m.violation_share) else ""
    seeds = f"{m.violating_seeds} of {m.n_seeds} {plural(m.n_seeds, 'seed')}"
    return (
        f"not monotone: {way} by {shown(m.violation)} ({share}{seeds}) from "
        f"β = {exact(low)} to {exact(high)}; τ = {shown(m.tau, 2)}, {p_text(m.p_value)}"
    )


def sentence(finding: Finding) -> str:
    """One family at one latent size: every slope with its interval, and the change of R2."""
    parts = []
    for trend in finding.trends.values():
        if trend.defined and trend.quantity.name != "r2_pooled":
            interval = f" ({interval_text(trend)})" if interval_text(trend) else ""
            parts.append(f"{trend.quantity.label_for(finding.family)} {slope_text(trend)}{interval}, {verdict(trend)}")
    r2 = finding.trends["r2_pooled"]
    if not r2.defined:
        return f"K = {finding.n_latents}: one β only, so no trend; R² = {shown(r2.first)}."
    low, high = finding.betas
    return (
        f"K = {finding.n_latents}, per tenfold β from {exact(low)} to {exact(high)} "
        f"({r2.slope.describe}): {'; '.join(parts)}. R² meanwhile went from {shown(r2.first)} to {shown(r2.last)} "
        f"({slope_text(r2)}{' (' + interval_text(r2) + ')' if interval_text(r2) else ''})"
        f"{rate_words(finding)}."
    )


def rate_words(finding: Finding) -> str:
    """Mean firing rates (or activations) at the lowest and the highest beta."""
    rate = finding.trends["firing_rate"]
    if not math.isfinite(rate.first):
        return ""
    what = rate.quantity.label_for(finding.family)
    unit = " spikes per unit per stimulus" if finding.family.is_count else ""
    return f", the {what} from {shown(rate.first)} to {shown(rate.last)}{unit}"


def family_sentence(found: Sequence[Finding]) -> str:
    """One family over all latent sizes, for the headline; the interval is that of the largest size."""
    top = found[-1]
    name = top.family.label
    sizes = "K = " + ", ".join(str(f.n_latents) for f in found)
    if not top.trends["r2_pooled"].defined:
        return f"{name}, {sizes}: one β only, so no trend."
    parts = []
    for q in QUANTITIES[:3]:
        trends = [f.trends[q.name] for f in found if f.trends[q.name].defined]
        if trends:
            last = trends[-1]
            interval = f" ({interval_text(last)})" if interval_text(last) else ""
            count = sum(t.monotone.holds for t in trends)
            word = "rising" if q.direction == "up" else "falling"
            at = f" at K = {top.n_latents}" if len(found) > 1 else ""
            reversal = "" if count == len(trends) else f"; largest reversal {largest_reversal(trends)}"
            parts.append(
                f"{q.label_for(top.family)} {slope_text(last)}{interval}{at}, {word} at every step of β at {count} of "
                f"{len(trends)} {plural(len(trends), 'latent size')} (τ = {shown(last.monotone.tau, 2)}, "
                f"{p_text(last.monotone.p_value)}{reversal})"
            )
    r2 = top.trends["r2_pooled"]
    return (
        f"{name}, per tenfold β from {exact(top.betas[0])} to {exact(top.betas[1])}, {r2.slope.describe}: "
        f"{'; '.join(parts)}. R² meanwhile goes from {shown(r2.first)} to {shown(r2.last)}{rate_words(top)}."
    )


def largest_reversal(trends: Sequence[Trend]) -> str:
    """Largest reversal of any of the trends, as a share of its range."""
    shares = [t.monotone.violation_share for t in trends if math.isfinite(t.monotone.violation_share)]
    return f"{percent(max(shares))} of the range" if shares else "none, but flat in places"
