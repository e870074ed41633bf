"""The answer in sentences: what beta does to sparsity, firing rate, bits and fidelity, with intervals over seeds."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np

from .._text import exact, p_text, percent, plural, power, shown, signed, span
from ..config import FitConfig
from ..sweep.convergence import FIRING_RATE_TOLERANCE, FLAGS, OBJECTIVE_TOLERANCE
from .families import PUBLISHED, Family
from .reading import Cell, Run
from .trend import Monotonicity, Slope, monotonicity, slope_per_decade


@dataclass(frozen=True)
class Quantity:
    """A metric whose trend is reported."""

    name: str
    label: str
    direction: Literal["up", "down"]
    """Where the paper, or for bits and R2 the theory, says that it goes as beta rises."""
    factor: bool
    """Whether the slope is of the logarithm, told as a factor per tenfold of beta."""


QUANTITIES = (
    Quantity("fraction_zeros", "fraction of zeros", "up", factor=False),
    Quantity("firing_rate", "mean firing rate", "down", factor=True),
    Quantity("bits", "bits per stimulus", "down", factor=False),
    Quantity("r2_pooled", "R²", "down", factor=False),
)


@dataclass(frozen=True)
class Trend:
    """How one quantity follows beta."""

    quantity: Quantity
    slope: Slope
    """Per tenfold of beta; of log10 where `quantity.factor`."""
    monotone: Monotonicity
    first: float
    last: float
    """Means over seeds at the lowest and the highest beta."""

    @property
    def defined(self) -> bool:
        """Whether the quantity exists for this law and there are two betas."""
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
    """The fits behind it."""

    @property
    def n_converged(self) -> int:
        """Of these, the ones flagged converged."""
        return sum(cell.check.flag == "converged" for cell in self.cells)


def findings(cells: Iterable[Cell]) -> list[Finding]:
    """Trends of each family and latent size; `cells` hold one fit for each family, size, beta and seed.

    Fits at beta = 0 have no place on a logarithmic axis and are left out.
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
    """The slope alone: `+0.081` or `×0.43`."""
    if not trend.defined:
        return "-"
    return f"×{shown(10**trend.slope.estimate)}" if trend.quantity.factor else signed(trend.slope.estimate)


def interval_text(trend: Trend) -> str:
    """The interval alone: `0.080 to 0.082`; empty where there is none."""
    low, high = trend.slope.low, trend.slope.high
    if not math.isfinite(low):
        return ""
    if trend.quantity.factor:
        return f"×{shown(power(low))} to ×{shown(power(high))}"
    return f"{signed(low)} to {signed(high)}"


def verdict(trend: Trend) -> str:
    """Whether the means over seeds are monotone, and if not, by how much they turn back."""
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
    """One family at one latent size: every slope with its interval, and what R2 did meanwhile."""
    parts = []
    for trend in finding.trends.values():
        if trend.defined and trend.quantity.name != "r2_pooled":
            interval = f" ({interval_text(trend)})" if interval_text(trend) else ""
            parts.append(f"{trend.quantity.label} {slope_text(trend)}{interval}, {verdict(trend)}")
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
    """Where the firing rate began and ended."""
    rate = finding.trends["firing_rate"]
    if not math.isfinite(rate.first):
        return ""
    return f", the mean firing rate from {shown(rate.first)} to {shown(rate.last)} spikes per unit per stimulus"


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
                f"{q.label} {slope_text(last)}{interval}{at}, {word} at every step of β at {count} of "
                f"{len(trends)} {plural(len(trends), 'latent size')} (τ = {shown(last.monotone.tau, 2)}, "
                f"{p_text(last.monotone.p_value)}{reversal})"
            )
    r2 = top.trends["r2_pooled"]
    return (
        f"{name}, per tenfold β from {exact(top.betas[0])} to {exact(top.betas[1])}, {r2.slope.describe}: "
        f"{'; '.join(parts)}. R² meanwhile goes from {shown(r2.first)} to {shown(r2.last)}{rate_words(top)}."
    )


def largest_reversal(trends: Sequence[Trend]) -> str:
    """How far the worst of some trends turns back, as a share of its range."""
    shares = [t.monotone.violation_share for t in trends if math.isfinite(t.monotone.violation_share)]
    return f"{percent(max(shares))} of the range" if shares else "none, but flat in places"


@dataclass(frozen=True)
class Side:
    """One side of the comparison of the published recipe with converged fits."""

    title: str
    explanation: str
    findings: tuple[Finding, ...]
    by_start: tuple[tuple[Finding, ...], ...] = ()
    """The same fits from the lowest start alone and from the highest alone, where there are several."""


def sides(run: Run) -> list[Side]:
    """The published recipe (or, in a run without it, the lowest start) and the best of the starts.

    A side without cells is left out.
    """
    published = [cell for cell in run.best if cell.family.published]
    own = [cell for cell in run.best if not cell.family.published]
    low = [cell for cell in run.low if not cell.family.published]
    both: list[Side] = []
    if published:
        why = f"settings of arXiv 2602.13421{departures(published)}{shortfall(published, own)}"
        both.append(Side("Published recipe", why, tuple(findings(published))))
    elif run.has_starts:
        start = min(cell.start for cell in low)
        title = "Lowest start only"
        why = f"log firing rate {exact(start)} at the start, as silent as published; otherwise the recipe beside it"
        both.append(Side(title, why, tuple(findings(low))))
    if own:
        why = "of each fit's starts the one with the lowest objective" if run.has_starts else "one start each"
        title = "Best of starts" if run.has_starts else "Default recipe"
        ends = (low, [cell for cell in run.high if not cell.family.published]) if run.has_starts else ()
        both.append(Side(title, why, tuple(findings(own)), tuple(tuple(findings(end)) for end in ends)))
    return both


def shortfall(published: Iterable[Cell], own: Iterable[Cell]) -> str:
    """How far the published recipe's objectives lie above ours where both were fitted: how short of the optimum it is.

    Both models have the same free energy; ours adds a bias to the encoder, which can only lower it.
    """
    ours = {_place(cell): cell.fit_objective for cell in own}
    gaps: dict[str, list[float]] = {}
    for cell in published:
        if _place(cell) in ours:
            gap = cell.fit_objective / ours[_place(cell)] - 1
            gaps.setdefault(cell.family.law.replace("_", " "), []).append(100 * gap)
    if not gaps:
        return ""
    each = "; ".join(f"{law} {span(values)} %, median {signed(median(values))} %" for law, values in gaps.items())
    return f"; objective beside the best of our starts at the same K, β and seed: {each}"


def _place(cell: Cell) -> tuple[str, int, float, float, int]:
    return cell.family.law, cell.n_latents, cell.beta, cell.spike_price, cell.seed


def starts_of(finding: Finding) -> list[float]:
    """The starts of its fits, increasing."""
    return sorted({cell.start for cell in finding.cells})


def departures(cells: Iterable[Cell]) -> str:
    """In which settings fits that carry the published recipe's name depart from it."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        recipe = FitConfig.from_recipe(PUBLISHED, latent=cell.family.law).model_dump(mode="json")
        for name, value in recipe.items():
            given = cell.config.get(name)
            if name not in FREE and given is not None and given != value:
                instead = f"{recipe['epochs']} epochs" if name == "steps" else value
                text = f"{name.replace('_', ' ')} {given} for {instead}"
                found.setdefault(name, [])
                found[name] += [text] * (text not in found[name])
    return ", but " + ", ".join(text for texts in found.values() for text in texts) if found else ""


FREE = ("latent", "n_latents", "beta", "seed")
"""Settings that the published grid itself varies."""


def family_sentences(side: Side) -> list[str]:
    """One sentence a family of this side."""
    families = dict.fromkeys(f.family for f in side.findings)
    return [f"{side.title}: {family_sentence([f for f in side.findings if f.family == one])}" for one in families]


def claim(side: Side) -> str | None:
    """Whether the paper's sentence about the Poisson code holds on this side, at how many sizes, and what R2 did."""
    found = [f for f in side.findings if f.family.is_count and f.trends["firing_rate"].defined]
    if not found:
        return None
    zeros = [f.trends["fraction_zeros"].monotone for f in found]
    rates = [f.trends["firing_rate"].monotone for f in found]
    both = sum(z.holds and r.holds for z, r in zip(zeros, rates))
    places = _places(found)
    if both == len(found):
        where = "both " + places.removeprefix("2 ") if both == 2 else "all " * (both > 2) + places
        word = f"holds for means over seeds at {where}"
    else:
        word = (
            f"holds for means over seeds at {both} of {places} (zeros alone at {sum(z.holds for z in zeros)}, largest "
            f"reversal {largest_reversal([f.trends['fraction_zeros'] for f in found])}; mean firing rate alone at "
            f"{sum(r.holds for r in rates)}, {largest_reversal([f.trends['firing_rate'] for f in found])})"
        )
    return (
        f"{side.title}, {_laws(found)}: “raising β monotonically raises sparsity and lowers mean firing” {word}. "
        f"{_range(found)} the fraction of zeros changes by {span(z.change for z in zeros)} and the mean firing rate by "
        f"{span((_ratio(f.trends['firing_rate']) for f in found), times=True)}, while R² changes by "
        f"{span(f.trends['r2_pooled'].monotone.change for f in found)}."
    )


def control_claim(side: Side) -> str | None:
    """What the rectified Gaussian control did on this side."""
    found = [f for f in side.findings if f.family.is_control and f.trends["r2_pooled"].defined]
    if not found:
        return None
    zeros = [f.trends["fraction_zeros"] for f in found]
    biases = {cell.config.get("encoder_bias") for f in found for cell in f.cells}
    name = _laws(found)
    name = name[0].lower() + name[1:]
    silent = found[0].family.silent_share
    unbiased = ", and so, nearly, has one of a bias-free encoder, as here, on stimuli symmetric about zero"
    unbiased = unbiased if biases == {False} else ""
    return (
        f"{side.title}, {name} control (“remains unchanged”): {_range(found).lower()} the fraction of "
        f"zeros changes by {span(t.monotone.change for t in zeros)} to end at "
        f"{span((t.last for t in zeros), plus=False)} and the mean firing rate by "
        f"{span((_ratio(f.trends['firing_rate']) for f in found), times=True)}, while R² changes by "
        f"{span(f.trends['r2_pooled'].monotone.change for f in found)} to end at "
        f"{span((f.trends['r2_pooled'].last for f in found), plus=False)}. A collapsed code of this law has "
        f"{'exactly half' if silent == 0.5 else percent(silent) + ' of'} its entries at zero whatever β is{unbiased}."
    )


def start_claim(side: Side) -> str | None:
    """Whether the Poisson code's zeros follow beta from either start alone, without a change of start on the way."""
    parts = []
    laws = ""
    for found in side.by_start:
        zeros = [f.trends["fraction_zeros"] for f in found if f.family.is_count]
        zeros = [trend for trend in zeros if trend.defined]
        if zeros:
            laws = _laws([f for f in found if f.family.is_count])
            count = sum(trend.monotone.holds for trend in zeros)
            reversal = "" if count == len(zeros) else f" (largest reversal {largest_reversal(zeros)})"
            starts = ", ".join(exact(start) for start in sorted({cell.start for f in found for cell in f.cells}))
            cases = f"{count} of {len(zeros)} {plural(len(zeros), 'case')}"
            parts.append(f"from log firing rate {starts} in {cases}{reversal}")
    if len(parts) < 2:
        return None
    return f"{laws} from one start alone: zeros rise at every step of β {' and '.join(parts)}."


def claims(side: Side) -> list[str]:
    """What this side says of the paper's claim."""
    return [line for line in (claim(side), start_claim(side), control_claim(side), basis(side)) if line]


def basis(side: Side) -> str:
    """What the fits behind this side are worth: how many converged, and where the best start changes with beta."""
    cells = [cell for finding in side.findings for cell in finding.cells]
    flags = Counter(cell.check.flag for cell in cells)
    counts = ", ".join(f"{flags[flag]} {flag}" for flag in FLAGS if flags[flag])
    text = f"{side.title} ({side.explanation}): of the {len(cells)} {plural(len(cells), 'fit')} behind this, {counts}."
    switches = [f for f in side.findings if len({cell.start for cell in f.cells}) > 1]
    if switches:
        first = switches[0]
        betas = {start: sorted({c.beta for c in first.cells if c.start == start}) for start in starts_of(first)}
        where = "; ".join(f"{exact(start)} at β = {', '.join(map(exact, at))}" for start, at in betas.items())
        text += (
            f" The best start changes with β at {len(switches)} of {len(side.findings)} combinations of family and "
            "latent size, so that part of a trend may be a change of start "
            f"({first.family.label}, K = {first.n_latents}: log firing rate {where})."
        )
    return text


def _laws(found: Sequence[Finding]) -> str:
    """The laws of some findings in the words of figures."""
    labels = [label.replace(", free dispersion", " of free dispersion") for label in _distinct(found)]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _distinct(found: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(f.family.law_label for f in found))


def _places(found: Sequence[Finding]) -> str:
    """How many latent sizes, or cases where there are several families."""
    if len({f.family for f in found}) > 1:
        return f"{len(found)} combinations of family and latent size"
    return f"{len(found)} {plural(len(found), 'latent size')}"


def _range(found: Sequence[Finding]) -> str:
    return f"From β = {exact(found[0].betas[0])} to {exact(found[0].betas[1])}"


def _ratio(trend: Trend) -> float:
    return trend.last / trend.first if trend.first else math.nan


def convergence_sentence(run: Run) -> str:
    """How many cells may be read as the optimum."""
    count = Counter(cell.check.flag for cell in run.cells)
    diverged = sum(cell.diverged for cell in run.cells)
    parts = [f"{count[flag]} {flag}" for flag in FLAGS if count[flag]]
    best = Counter(cell.check.flag for cell in run.best)
    unfinished = run.n_planned - len(run.cells)
    return (
        f"Of {len(run.cells)} {plural(len(run.cells), 'fit')}, {', '.join(parts)}"
        f"{f' ({diverged} diverged)' if diverged else ''}; of the {len(run.best)} best of their starts, "
        f"{best['converged']} converged."
        f"{f' {unfinished} of the planned fits are not done yet.' if unfinished > 0 else ''}"
        f"{_unidentified(run)}"
    )


def _unidentified(run: Run) -> str:
    """How far firing rates lie apart where objectives agree."""
    rates: dict[int, list[float]] = {}
    for cell in run.cells:
        if cell.check.flag in ("rate not identified", "converged"):
            rates.setdefault(cell.check.group, []).append(cell["firing_rate"])
    ratios = [max(group) / min(group) for group in rates.values() if len(group) > 1 and min(group) > 0]
    if not ratios or max(ratios) < 1 + FIRING_RATE_TOLERANCE:
        return ""
    return (
        f" Where starts agree in objective to {percent(OBJECTIVE_TOLERANCE)}, their mean firing rates lie up to "
        f"×{shown(max(ratios))} apart: there the objective does not say how many spikes the code has."
    )


def headline_of(run: Run) -> list[str]:
    """The sentences that lead the report."""
    both = sides(run)
    lines = [line for side in both for line in claims(side)]
    lines += [line for side in both for line in family_sentences(side)]
    lines.append(convergence_sentence(run))
    if demo := demo_warning(run):
        lines.append(demo)
    return lines


def demo_warning(run: Run) -> str | None:
    """What must be said of results on the bundled photographs."""
    source = str(run.config["sweep"].get("data", {}).get("source", ""))
    if source.partition(":")[0] != "bundled":
        return None
    return "Demo results: a handful of small bundled photographs, not a sample of natural images at large."
