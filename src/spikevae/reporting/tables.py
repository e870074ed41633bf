"""Tables of the page: recipes side by side, slopes with intervals, every fit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .._text import exact, percent, shown
from ..evaluation.metrics import Metrics
from .answer import Side
from .curves import several_prices
from .findings import Trend, interval_text, sentence, slope_text, verdict
from .reading import Cell, Run


def ends(trend: Trend) -> str:
    """Values at the lowest and at the highest beta."""
    return f"{shown(trend.first)} → {shown(trend.last)}" if trend.defined else shown(math.nan)


def short_verdict(trend: Trend) -> str:
    """Monotone or not, with the effect size."""
    m = trend.monotone
    if not trend.defined:
        return ""
    if m.holds:
        return "monotone"
    share = f" ({percent(m.violation_share)} of range)" if math.isfinite(m.violation_share) else ""
    return f"turns back by {shown(m.violation, 2)}{share}" if m.violation else "flat in places"


def side_rows(both: Sequence[Side]) -> list[dict[str, Any]]:
    """Rows of the comparison, one per law and latent size, one entry per side; further families have own rows."""
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    for column, side in enumerate(both):
        families = list(dict.fromkeys(f.family for f in side.findings))
        for finding in side.findings:
            same_law = [f for f in families if f.law == finding.family.law]
            place = (finding.family.law, same_law.index(finding.family), finding.n_latents)
            row = rows.setdefault(place, {"names": [], "size": finding.n_latents, "entries": [None] * len(both)})
            row["names"].append(finding.family.label if len(same_law) > 1 else finding.family.law_label)
            row["entries"][column] = [
                {"ends": ends(t), "verdict": short_verdict(t)} for name in SIDE_COLUMNS for t in [finding.trends[name]]
            ]
    laws = list(dict.fromkeys(law for law, _, _ in rows))
    ordered = sorted(rows.items(), key=lambda item: (laws.index(item[0][0]), *item[0][1:]))
    return [{**row, "law": " | ".join(dict.fromkeys(row["names"]))} for _, row in ordered]


SIDE_COLUMNS = {"fraction_zeros": "fraction of zeros", "firing_rate": "mean firing rate", "r2_pooled": "R²"}


def slope_tables(side: Side) -> list[dict[str, Any]]:
    """Slopes of each family at every latent size."""
    tables = []
    for family in dict.fromkeys(f.family for f in side.findings):
        found = [f for f in side.findings if f.family == family]
        rows = [
            {
                "size": f.n_latents,
                "trends": [
                    {"slope": slope_text(t), "interval": interval_text(t), "ends": ends(t), "verdict": verdict(t)}
                    for t in f.trends.values()
                ],
                "converged": f"{f.n_converged} of {len(f.cells)}",
            }
            for f in found
        ]
        tables.append(
            {
                "label": family.label,
                "interval": found[-1].trends["r2_pooled"].slope.describe,
                "rows": rows,
                "sentences": [sentence(f) for f in found],
            }
        )
    return tables


@dataclass(frozen=True)
class Column:
    """A column of the table of every fit."""

    label: str
    value: Callable[[Cell], Any]
    unit: str = ""
    digits: int | None = 3
    """Significant digits; None for settings, which are shown as they are."""

    def entry(self, cell: Cell) -> dict[str, Any]:
        """Text of an entry and, for a number, the number to sort by."""
        value = self.value(cell)
        if isinstance(value, str):
            return {"text": value, "number": None}
        text = exact(value) if self.digits is None else shown(float(value), self.digits)
        return {"text": text, "number": f"{value:.6g}" if math.isfinite(value) else ""}


OBJECTIVE = "own β and price, nats per stimulus"


def columns(run: Run) -> list[Column]:
    """Columns of the table of every fit."""
    units = {f.name: f.metadata["unit"] for f in fields(Metrics)}
    names = {
        "r2_pooled": "R²",
        "r2": "R² per stimulus",
        "fraction_zeros": "zeros",
        "firing_rate": "firing rate",
        "prior_firing_rate": "prior rate",
        "bits": "bits",
        "bits_per_spike": "bits per spike",
        "spikes": "spikes",
        "joules": "joules",
        "lifetime_sparseness": "lifetime sparseness",
        "active_units": "active units",
        "dead_units": "dead units",
        "free_energy": "free energy (β = 1)",
    }
    head = [
        Column("family", lambda c: c.family.label),
        Column("K", lambda c: c.n_latents, digits=None),
        Column("β", lambda c: c.beta, digits=None),
        Column("seed", lambda c: c.seed, digits=None),
        Column("start", lambda c: c.start, "log firing rate at the start", None),
        Column("convergence", lambda c: c.check.flag + (" (diverged)" if c.diverged else "")),
        Column("best start", lambda c: "best" if c.check.is_best else ""),
        Column("objective", lambda c: c.objective, f"held-out stimuli, {OBJECTIVE}", 4),
    ]
    if several_prices(run):
        head.insert(3, Column("spike price", lambda c: c.spike_price, "nats per spike", None))
    metrics = [
        Column(label, lambda c, name=name: c[name], units[name], 4 if name == "free_energy" else 3)  # type: ignore[misc]
        for name, label in names.items()
    ]
    tail = [
        Column("objective, training", lambda c: c.fit_objective, f"training stimuli, {OBJECTIVE}", 4),
        Column("change with budget", lambda c: _or_nan(c.check.budget_change), "relative change of the objective", 2),
        Column("gap between starts", lambda c: _or_nan(c.check.start_gap), "relative difference in objective", 2),
        Column("budget", lambda c: c.budget, "optimiser steps or epochs", None),
        Column("seconds", lambda c: c.seconds, "its share of the stack's time", 2),
        Column("id", lambda c: c.id),
    ]
    return head + metrics + tail


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
