"""The table of a run: one row per finished cell, made from the files of the cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._html import html_table
from .._text import exact, plural, shown
from ..config import OPTIONS
from ..evaluation.metrics import Metrics
from .convergence import Convergence, flag_groups

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = ("id", "block", "convergence", "noise_variance", "hidden", "upper")
"""Columns of the table that are text: null where there is no value, lists as they are printed."""
SETTINGS = tuple(name for name in OPTIONS if name != "objective")
"""Options with a column. The column "objective" has its value; `n_samples` and `robustness` say which one it is."""
UNITS = {field.name: {"unit": field.metadata["unit"]} for field in fields(Metrics)}


def rows_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One flat row per cell: configuration, metrics, objective and convergence.

    There are no wall-clock times, so that the table of an interrupted and continued run equals that of another one.
    """
    rows = []
    for cell in cells:
        config = {k: v for k, v in cell["config"].items() if k in SETTINGS}
        budget = cell.get("budget") or {}
        rows.append(
            {
                "id": cell["id"],
                "block": cell["block"],
                **{k: str(v) if k in TEXT and v is not None else v for k, v in config.items()},
                **cell["metrics"],
                "objective": cell["objective"],
                "fit_objective": cell["fit_objective"],
                "fit_objective_half": cell["fit_objective_half"],
                "diverged": cell["diverged"],
                "steps_done": cell["steps_done"],
                **{name: budget.get(name) for name in ("spikes_allowed", "shadow_price", "shadow_price_per_joule")},
                "budget_met": budget.get("met"),
            }
        )
    for row, flag in zip(rows, flags(rows), strict=True):
        row["convergence"] = flag.flag
        row["best_of_group"] = flag.is_best
        row["budget_change"] = flag.budget_change
        row["start_gap"] = flag.start_gap
    return rows


IN_NOTEBOOKS = ("block", "latent", "n_latents", "beta", "seed", "start", "r2_pooled", "bits", "spikes", "joules",
                "convergence")  # fmt: skip
MAX_ROWS = 20


def html_of(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as a table for notebooks."""

    def text(name: str, value: Any) -> str:
        if isinstance(value, float):
            return exact(value) if name in OPTIONS else shown(value, 4)
        return "-" if value is None else str(value)

    rest = len(rows) - MAX_ROWS
    note = f"and {rest} more: RunFolder.table and RunFolder.to_pandas() have all, with every column" if rest > 0 else ""
    body = [[text(name, row.get(name)) for name in IN_NOTEBOOKS] for row in rows[:MAX_ROWS]]
    return html_table(f"{path}: {len(rows)} {plural(len(rows), 'fit')}", IN_NOTEBOOKS, body, note=note)


def table_of(rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    """Rows as a pyarrow table; columns of metrics have their unit as metadata."""
    import pyarrow as pa

    columns, described = [], []
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if name not in TEXT and not any(isinstance(value, str | bool) for value in values):
            values = [math.nan if value is None else value for value in values]
        columns.append(pa.array(values, pa.string() if name in TEXT else None))
        described.append(pa.field(name, columns[-1].type, metadata=UNITS.get(name)))
    return pa.table(columns, schema=pa.schema(described))


def flags(rows: Sequence[Mapping[str, Any]]) -> list[Convergence]:
    """Convergence of the cells of these rows, by the objective that the fits minimise."""
    compared = [{**row, "objective": row["fit_objective"], "objective_half": row["fit_objective_half"]} for row in rows]
    return flag_groups(compared, settings=SETTINGS)
