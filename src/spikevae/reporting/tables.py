"""Tables of the page: recipes side by side, slopes with intervals, every fit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .._text import exact, percent, shown
from ..evaluation.metrics import Metrics
from ..sweep.curves import several_prices
from ..sweep.reading import Cell, Run
from .answer import Side
from .findings import QUANTITIES, Trend, interval_text, sentence, slope_text, verdict


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


SIDE_COLUMNS = {"fraction_zeros": "zeros", "firing_rate": "firing rate (real-valued: activation)", "r2_pooled": "R²"}


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
                "quantities": [q.label_for(family) for q in QUANTITIES],
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
        return {"text": text, "number": float(f"{value:.6g}") if math.isfinite(value) else ""}


OBJECTIVE = "own β and price, nats per stimulus"


def counted(metric: str) -> Callable[[Cell], float]:
    """A metric that counts alone have: real-valued codes have no spikes."""
    return lambda cell: cell[metric] if cell.family.is_count else math.nan


FIRST_COLUMNS = 10
"""Columns that are shown at first; the rest on request."""


def columns(run: Run) -> list[Column]:
    """Columns of the table of every fit, the first ten of which are shown at first."""
    units = {f.name: f.metadata["unit"] for f in fields(Metrics)}

    def metric(name: str, label: str, digits: int = 3) -> Column:
        return Column(label, lambda c: c[name], units[name], digits)

    head = [
        Column("family", lambda c: c.family.label),
        Column("K", lambda c: c.n_latents, "latent units", None),
        Column("β", lambda c: c.beta, digits=None),
        Column("seed", lambda c: c.seed, digits=None),
        Column("R²", lambda c: c["r2_pooled"], "pooled over stimuli"),
        metric("fraction_zeros", "zeros"),
        Column("spikes", counted("spikes"), units["spikes"].partition(";")[0]),
        metric("bits", "bits"),
        metric("free_energy", "free energy", 4),
        Column("convergence", lambda c: c.check.flag + (" (diverged)" if c.diverged else "")),
    ]
    rest = [
        Column("spike price", lambda c: c.spike_price, "nats per spike", None),
        Column("start", lambda c: c.start, "log firing rate at the start", None),
        Column("best start", lambda c: "best" if c.check.is_best else ""),
        Column("objective", lambda c: c.objective, f"held-out stimuli, {OBJECTIVE}", 4),
        Column("objective, training", lambda c: c.fit_objective, f"training stimuli, {OBJECTIVE}", 4),
        Column("firing rate", counted("firing_rate"), units["firing_rate"]),
        Column("prior rate", counted("prior_firing_rate"), units["prior_firing_rate"]),
        Column("bits per spike", counted("bits_per_spike"), units["bits_per_spike"]),
        Column("joules", counted("joules"), units["joules"]),
        Column("accumulates", counted("synops_events"), "of the decoder, per stimulus"),
        Column(
            "multiply-accumulates",
            lambda c: math.nan if c.family.is_count else c["synops_nonzero"],
            "of the decoder, per stimulus",
        ),
        Column(
            "mean activation",
            lambda c: c["firing_rate"] if c.family.is_control else math.nan,
            "of real-valued codes, own unit",
        ),
        metric("r2", "R² per stimulus"),
        metric("lifetime_sparseness", "lifetime sparseness"),
        metric("active_units", "active units"),
        metric("dead_units", "dead units"),
        Column("stimuli for a read-out", lambda c: c["readout_stimuli"], "until 90 % of what it can tell"),
        Column("joules for a read-out", counted("readout_joules"), "of the spikes in those stimuli"),
        Column("change with budget", lambda c: _or_nan(c.check.budget_change), "relative change of the objective", 2),
        Column("gap between starts", lambda c: _or_nan(c.check.start_gap), "relative difference in objective", 2),
        Column("budget", lambda c: c.budget, "optimiser steps or epochs", None),
        Column("seconds", lambda c: c.seconds, "its share of the stack's time", 2),
        Column("id", lambda c: c.id),
    ]
    return head + (rest if several_prices(run) else rest[1:])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def table_data(run: Run) -> dict[str, Any]:
    """Every fit for the script: values of all columns to sort, search and save, and texts of the columns on request."""
    every = columns(run)
    rows = []
    for cell in run.cells:
        entries = [column.entry(cell) for column in every]
        values = [e["text"] if e["number"] is None else e["number"] for e in entries]
        rows.append({"values": values, "texts": [e["text"] for e in entries[FIRST_COLUMNS:]]})
    return {
        "columns": [{"label": column.label, "unit": column.unit} for column in every],
        "first": FIRST_COLUMNS,
        "rows": rows,
    }
