"""The first screen in words: what beta does and whether that is special to counts, what converged, what is cheapest."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .._text import exact, plural, shown
from ..evaluation.prices import joules_per_spike
from ..plot.along import number
from ..plot.style import short_labels
from ..sweep.convergence import FIRING_RATE_TOLERANCE, FLAGS
from ..sweep.curves import curves
from ..sweep.families import Family
from ..sweep.reading import Cell, Run
from .findings import Finding, findings
from .words import percentage, two_places

PAPER = ("poisson", "rectified_gaussian")
"""The two laws that the paper compares."""
CLEAR_CHANGE = 0.05
"""Change of the share of zeros, and share of its range by which it may turn back, that are worth a word."""
MOST, MANY = 0.9, 0.25
"""Shares of fits for the verdict: "converged" from `MOST`, "not converged" or "rate free" from `MANY`."""


def plain(cells: Sequence[Cell]) -> bool:
    """Whether fits of a family have neither a price nor a budget, and infer in one pass."""
    configs = [cell.config for cell in cells]
    priced = any(c.get(name) for c in configs for name in ("spike_price", "spike_budget", "energy_budget"))
    return not priced and all(c.get("inference", "amortised") == "amortised" for c in configs)


def leading(run: Run) -> list[Family]:
    """The families of the first figure: those of the paper's two laws, our recipe rather than the published one.

    A run without Poisson counts is led by its first count family; one without counts by its first families.
    """
    order = {}
    for family in run.families:
        own = [cell for cell in run.cells if cell.family == family]
        betas = len({cell.beta for cell in own})
        order[family] = (not plain(own), family.published, -betas, family.index)
    ranked = sorted(run.families, key=order.__getitem__)
    found: list[Family] = []
    for law, like in zip(PAPER, ("is_count", "is_control")):
        choice = [f for f in ranked if f.law == law] or [f for f in ranked if getattr(f, like)]
        found += [f for f in choice[:1] if f not in found]
    return found or ranked[:2]


def shown_size(run: Run, families: Iterable[Family]) -> int:
    """The latent size that figures show at first: the largest that all of some families have, else the largest."""
    sizes = [{cell.n_latents for cell in run.cells if cell.family == family} for family in families]
    common = set.intersection(*sizes) if sizes else set()
    return max(common or set(run.sizes))


@dataclass(frozen=True)
class Summary:
    """Sentences of the first two screens."""

    answer: str
    badge: str
    verdict: str
    cheapest: str
    size: int


def summary(run: Run) -> Summary:
    """The first two screens of a run in words."""
    families = leading(run)
    size = shown_size(run, families)
    found = {f.family: f for f in findings(run.best) if f.n_latents == size}
    own = [found[family] for family in families if family in found]
    badge, line = verdict(run, families)
    return Summary(answer(own, size), badge, line, cheapest(run), size)


def headline_of(run: Run) -> list[str]:
    """The answer, the verdict and the cheapest code, one line each."""
    words = summary(run)
    lines = [words.answer, f"{words.badge}: {words.verdict[0].lower()}{words.verdict[1:]}", words.cheapest]
    return [line for line in lines if line]


def answer(found: Sequence[Finding], size: int) -> str:
    """What beta does to the families of the first figure, in one sentence."""
    counts = [f for f in found if f.family.is_count]
    controls = [f for f in found if not f.family.is_count]
    if not found:
        return "No fit of this run can be shown."
    if not any(f.trends["r2_pooled"].defined for f in found):
        return "There is one β only, so no trend: the figures compare codes at that β."
    low, high = next(f.betas for f in found)
    lead = f"Raising β from {exact(low)} to {exact(high)} (K = {size})"
    if not counts:
        return f"{lead}: {'; '.join(f'{f.family.law_label}: {_change(f)}' for f in controls)}."
    first = counts[0]
    law, zeros = first.family.law_label, first.trends["fraction_zeros"]
    sparser, worse = zeros.monotone.change > CLEAR_CHANGE, _loses(first)
    if sparser:
        lead += f" buys the {law} code sparsity and energy with fidelity" if worse else f" makes the {law} code sparser"
        lead += ", though not at every step" if zeros.monotone.violation_share > CLEAR_CHANGE else ""
        lead += "" if worse else " at nearly the same fidelity"
    elif worse:
        lead += f" costs the {law} code fidelity without making it clearly sparser"
    else:
        lead += f" changes neither zeros nor fidelity of the {law} code clearly"
    return f"{lead}: {_change(first)}{_control(zeros.monotone.change, controls)}."


def _loses(finding: Finding) -> bool:
    """Whether R2 falls clearly from the lowest to the highest beta."""
    r2 = finding.trends["r2_pooled"]
    return r2.first - r2.last > CLEAR_CHANGE


def _change(finding: Finding) -> str:
    """Zeros, spikes and R2 at both ends of beta."""
    r2, zeros, rate = (finding.trends[name] for name in ("r2_pooled", "fraction_zeros", "firing_rate"))
    parts = [f"zeros {shares(zeros.first, zeros.last)}"]
    if finding.family.is_count and rate.first > 0:
        k = finding.n_latents
        spikes = f"{shown(rate.first * k, 2)} → {shown(rate.last * k, 2)}"
        parts.append(f"spikes {spikes} per stimulus (energy {_factor(rate.last / rate.first)})")
    return ", ".join([*parts, f"R² {_ends(r2.first, r2.last)}"])


def _ends(first: float, last: float) -> str:
    return f"{two_places(first)} → {two_places(last)}"


def shares(first: float, last: float) -> str:
    """Two shares in percent."""
    return f"{percentage(first)} → {percentage(last)}"


def _factor(ratio: float) -> str:
    return f"÷\u00a0{shown(1 / ratio, 2)}" if 0 < ratio < 1 else f"×\u00a0{shown(ratio, 2)}"


def _control(change: float, controls: Sequence[Finding]) -> str:
    """Whether the control's code gets sparser as well."""
    if not controls:
        return ""
    other = controls[0]
    zeros, r2 = other.trends["fraction_zeros"], other.trends["r2_pooled"]
    if not (zeros.defined and r2.defined):
        return ""
    label = other.family.law_label
    name = f"the {label[0].lower()}{label[1:]}"
    ends = f"zeros {shares(zeros.first, zeros.last)}"
    fidelity = f"{'loses R² as well' if _loses(other) else 'keeps its R²'} ({_ends(r2.first, r2.last)})"
    if not change > CLEAR_CHANGE:
        return f"; {name}: {ends}, R² {_ends(r2.first, r2.last)}"
    if zeros.monotone.change <= CLEAR_CHANGE:
        return f"; this is special to counts: {name} {fidelity} and gets no sparser ({ends})"
    empty = other.family.silent_share
    if abs(zeros.last - empty) <= CLEAR_CHANGE and empty < 1 - CLEAR_CHANGE:
        return (
            f"; this is special to counts: {name} {fidelity}, but its zeros only approach "
            f"the {100 * empty:.0f}\u00a0% of an empty code ({shares(zeros.first, zeros.last)})"
        )
    return f"; this is not special to counts: {name} {fidelity} and gets sparser too ({ends})"


def verdict(run: Run, families: Sequence[Family]) -> tuple[str, str]:
    """A word on the convergence of the fits behind the first figure, and a line with the numbers."""
    cells = [cell for cell in run.best if cell.family in families]
    flags = Counter(cell.check.flag for cell in cells)
    n = len(cells)
    if not cells:
        badge = "Not converged"
    elif flags["converged"] >= MOST * n:
        badge = "Converged"
    elif flags["not checked"] > MANY * n:
        badge = "Not checked"
    elif flags["not converged"] > MANY * n:
        badge = "Not converged"
    elif flags["rate not identified"] > MANY * n:
        badge = "Rate not identified"
    else:
        badge = "Mostly converged"
    words = {
        "converged": "converged", "not converged": "did not", "not checked": "not checked (one start, one budget)",
        "rate not identified": f"leave the firing rate free{free_rate(cells, run)}",
    }  # fmt: skip
    counts = ", ".join(f"{flags[flag]} {words[flag]}" for flag in FLAGS if flags[flag])
    unfinished = run.n_planned - len(run.cells)
    diverged = sum(cell.diverged for cell in run.cells)
    return badge, (
        f"Of {n} {plural(n, 'fit')} behind this figure, {counts or 'none converged'}."
        f"{f' {diverged} of all {len(run.cells)} fits diverged.' if diverged else ''}"
        f"{f' {unfinished} of the planned fits are not done yet.' if unfinished > 0 else ''}"
    )


def free_rate(cells: Sequence[Cell], run: Run) -> str:
    """By how much firing rates differ between starts of equal objective."""
    groups = {cell.check.group for cell in cells}
    rates: dict[int, list[float]] = {}
    for cell in run.cells:
        if cell.check.group in groups and cell.check.flag == "rate not identified":
            rates.setdefault(cell.check.group, []).append(cell["firing_rate"])
    ratios = [max(group) / min(group) for group in rates.values() if len(group) > 1 and min(group) > 0]
    if not ratios or max(ratios) < 1 + FIRING_RATE_TOLERANCE:
        return ""
    return f" (up to ×{shown(max(ratios), 2)} at one objective)"


# --------------------------------------------------------------------------------- which code is cheapest at a fidelity

TARGETS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Fidelities at which codes are compared."""
MAX_NAMED = 4


@dataclass(frozen=True)
class Trace:
    """Fidelity and spikes of codes of one family, along beta or along the spike price."""

    name: str
    r2: np.ndarray
    spikes: np.ndarray


def traces(run: Run, size: int) -> dict[int, list[Trace]]:
    """The traces of each count family at a latent size, by its index."""
    group = [c for c in curves(run.best) if c.family.is_count and c.n_latents == size]
    names = short_labels(c.family for c in group)
    found: dict[int, list[Trace]] = {}
    for c in group:
        own = Trace(names[c.family.index], number(c, "r2_pooled"), number(c, "spikes"))
        found.setdefault(c.family.index, []).append(own)
    for path in run.paths:
        family = path.start.family.index
        if family in found and path.start.n_latents == size:
            r2, spikes = (np.array([getattr(p, name) for p in path.points]) for name in ("r2", "spikes"))
            found[family].append(Trace(f"{names[family]} at a spike price", r2, spikes))
    return found


def reached(trace: Trace, target: float) -> float:
    """Fewest spikes with which a code has at least a fidelity, between its points on lines; NaN if never."""
    r2, amount = trace.r2, trace.spikes
    keep = np.isfinite(r2) & np.isfinite(amount) & (amount > 0)
    r2, log = r2[keep], np.log(amount[keep])
    found = [log[i] for i in np.flatnonzero(r2 >= target)]
    for i in range(len(r2) - 1):
        if (r2[i] - target) * (r2[i + 1] - target) < 0:
            share = (target - r2[i]) / (r2[i + 1] - r2[i])
            found.append(log[i] + share * (log[i + 1] - log[i]))
    return float(math.exp(min(found))) if found else math.nan


def target_of(families: Iterable[Sequence[Trace]]) -> float | None:
    """A fidelity that more than half of the families reach, the middle one of several."""
    group = list(families)
    covered = {t: sum(any(math.isfinite(reached(one, t)) for one in own) for own in group) for t in TARGETS}
    common = [t for t in TARGETS if covered[t] > len(group) / 2]
    return common[len(common) // 2] if common else None


def cheapest(run: Run) -> str:
    """Which count code needs the fewest spikes at one fidelity, at the latent size that most of them have."""
    counts = [c for c in curves(run.best) if c.family.is_count]
    sizes = Counter(c.n_latents for c in counts)
    size = max(sizes, key=lambda k: (sizes[k], k), default=0)
    families = traces(run, size).values()
    target = target_of(families)
    if target is None:
        return ""
    every_need = [[(reached(one, target), one.name) for one in own] for own in families]
    finite = [[need for need in own if math.isfinite(need[0])] for own in every_need]
    needs = sorted(min(own) for own in finite if own)
    (least, name), others = needs[0], needs[1:]
    energy = shown(least * joules_per_spike(), 2)
    needed = f"{shown(least, 2)} spikes per stimulus ({energy} J)"
    text = f"For R² of {exact(target)} or more (K = {size}) {name} needs {needed}"
    if not others:
        return text + "."
    rest = ", ".join(f"{other} {shown(spikes, 2)}" for spikes, other in others[: MAX_NAMED - 1])
    more = f" and {len(others) - MAX_NAMED + 1} more up to {shown(others[-1][0], 2)}"
    return f"{text}, the fewest; {rest}{more if len(others) >= MAX_NAMED else ''}."
