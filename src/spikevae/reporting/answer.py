"""The headline of the report: the effect of beta on the code, and how many fits converged."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .._text import exact, percent, plural, shown, signed, span
from ..config import FitConfig
from ..sweep.convergence import FIRING_RATE_TOLERANCE, FLAGS, OBJECTIVE_TOLERANCE
from ..sweep.families import PUBLISHED
from ..sweep.reading import Cell, Run
from .findings import Finding, Trend, family_sentence, findings, largest_reversal


@dataclass(frozen=True)
class Side:
    """One of the two sets of fits that the report compares: the published recipe, or the best of the starts."""

    title: str
    explanation: str
    findings: tuple[Finding, ...]
    by_start: tuple[tuple[Finding, ...], ...] = ()
    """The same fits from the lowest start alone and from the highest alone, where there are several."""


def sides(run: Run) -> list[Side]:
    """The published recipe (or, in a run without it, the lowest start) and the best of the starts.

    A side without fits is left out.
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
        why = f"log firing rate {exact(start)} at the start, as published; other settings as in the recipe beside it"
        both.append(Side(title, why, tuple(findings(low))))
    if own:
        why = "of each fit's starts the one with the lowest objective" if run.has_starts else "one start each"
        title = "Best of starts" if run.has_starts else "Default recipe"
        ends = (low, [cell for cell in run.high if not cell.family.published]) if run.has_starts else ()
        both.append(Side(title, why, tuple(findings(own)), tuple(tuple(findings(end)) for end in ends)))
    return both


def shortfall(published: Iterable[Cell], own: Iterable[Cell]) -> str:
    """How far the objectives of the published recipe are above ours where both were fitted.

    Both models have the same free energy; ours adds a bias to the encoder, which can only lower its minimum.
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
    """The starts of the fits of a finding, in increasing order."""
    return sorted({cell.start for cell in finding.cells})


def departures(cells: Iterable[Cell]) -> str:
    """Settings in which fits of the published recipe differ from it."""
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
    """One sentence per family of this side."""
    families = dict.fromkeys(f.family for f in side.findings)
    return [f"{side.title}: {family_sentence([f for f in side.findings if f.family == one])}" for one in families]


def claim(side: Side) -> str | None:
    """Whether the paper's statement about the Poisson code holds, at how many sizes, and the change of R2."""
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
    """Results of the rectified Gaussian control on this side."""
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
        f"{span((t.last for t in zeros), plus=False)} and the mean activation by "
        f"{span((_ratio(f.trends['firing_rate']) for f in found), times=True)}, while R² changes by "
        f"{span(f.trends['r2_pooled'].monotone.change for f in found)} to end at "
        f"{span((f.trends['r2_pooled'].last for f in found), plus=False)}. A collapsed code of this law has "
        f"{'exactly half' if silent == 0.5 else percent(silent) + ' of'} its entries at zero whatever β is{unbiased}."
    )


def start_claim(side: Side) -> str | None:
    """Whether the zeros of the Poisson code rise with beta when only one start is considered."""
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
    """Sentences about the paper's claim on this side."""
    return [line for line in (claim(side), start_claim(side), control_claim(side), basis(side)) if line]


def basis(side: Side) -> str:
    """How many fits of this side converged, and where the best start changes with beta."""
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
    """The laws of some findings, named as in the figures."""
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
    """How many fits converged."""
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
    """Largest ratio of firing rates where objectives agree."""
    rates: dict[int, list[float]] = {}
    for cell in run.cells:
        if cell.check.flag in ("rate not identified", "converged"):
            rates.setdefault(cell.check.group, []).append(cell["firing_rate"])
    ratios = [max(group) / min(group) for group in rates.values() if len(group) > 1 and min(group) > 0]
    if not ratios or max(ratios) < 1 + FIRING_RATE_TOLERANCE:
        return ""
    return (
        f" Where starts agree in objective to {percent(OBJECTIVE_TOLERANCE)}, their mean firing rates lie up to "
        f"×{shown(max(ratios))} apart: there the objective does not determine how many spikes the code has."
    )


def statements(run: Run) -> list[str]:
    """Every sentence of the statistics."""
    both = sides(run)
    lines = [line for side in both for line in claims(side)]
    return [*lines, *(line for side in both for line in family_sentences(side)), convergence_sentence(run)]


def demo_warning(run: Run) -> str | None:
    """A warning about results on the bundled photographs."""
    source = str(run.config["sweep"].get("data", {}).get("source", ""))
    if source.partition(":")[0] != "bundled":
        return None
    return "Demo: a few bundled photographs, which are not a sample of natural images."
