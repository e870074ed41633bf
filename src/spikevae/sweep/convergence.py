"""Convergence of fits: do other starts and other budgets give the same result?

A free energy that still falls when the budget doubles, or that depends on the start, is a property of the training and
not of the model. Even at equal free energy, codes can have very different firing rates. :func:`flag_groups` finds these
cases.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..evaluation.metrics import Metrics

OBJECTIVE_TOLERANCE = 0.01
"""Relative difference in the objective above which two starts or two budgets disagree."""
FIRING_RATE_TOLERANCE = 0.05
"""Relative difference in the mean firing rate above which the codes of fits of equal objective differ."""

Flag = Literal["converged", "not converged", "rate not identified", "not checked"]
FLAGS: tuple[Flag, ...] = ("converged", "not converged", "rate not identified", "not checked")

FREE_SETTINGS = ("start", "steps", "epochs")
"""Settings that may differ within a group: start and budget."""
RESULTS = frozenset(field.name for field in fields(Metrics)) | {
    "id",
    "block",
    "objective",
    "objective_half",
    "fit_objective",
    "fit_objective_half",
    "diverged",
    "seconds",
    "steps_done",
    "convergence",
}
"""Columns of a cell's row that are not settings."""


@dataclass(frozen=True)
class Convergence:
    """Result of the comparison of one cell with its group."""

    flag: Flag
    """The result in words."""
    budget_change: float | None
    """|objective - objective at another budget| / |objective at the larger budget|; None without another budget."""
    start_gap: float | None
    """(highest - lowest) / |lowest| objective over the starts of the group; None for a single start."""
    firing_rate_spread: float | None
    """Largest |firing rate - the best cell's| / the best cell's of the group; None for one cell or signed codes."""
    is_best: bool
    """Whether this cell has the lowest objective of its group."""
    group: int
    """Number of the group, in order of first appearance."""


def relative_change(a: float, b: float) -> float:
    """|a - b| / |b|; zero where both are zero.

    Examples
    --------
    >>> relative_change(101.0, 100.0)
    0.01
    """
    if a == b:
        return 0.0
    return abs(a - b) / abs(b) if b else math.inf


def flag_groups(rows: Sequence[Mapping[str, Any]], settings: Collection[str] | None = None) -> list[Convergence]:
    """Compare every cell with the cells that differ from it only in start and budget.

    A group holds the cells whose settings agree except for `start`, `steps` and `epochs`. A cell is

    - *not converged* if it diverged, if the longest fits of two starts of its group differ in objective by over 1 %,
      or if another budget changes its objective by over 1 %: the longest fit from the same start if that is longer,
      else its own `objective_half`, else the next shorter fit;
    - *rate not identified* if objectives agree but the mean firing rate differs by over 5 % from the best cell's;
    - *not checked* if its group has a single start and no second budget;
    - *converged* otherwise.

    Parameters
    ----------
    rows
        One flat mapping per cell: its settings, `objective`, `firing_rate` and, where known, `objective_half` and
        `diverged`. None and NaN stand for undefined.
    settings
        Names of the settings; by default every field that is not in :data:`RESULTS`.

    Returns
    -------
    list of Convergence
        One per row, in the order given.

    Examples
    --------
    >>> low = {"beta": 1.0, "start": -5.0, "steps": 100, "objective": 249.0, "firing_rate": 0.06}
    >>> high = {"beta": 1.0, "start": 0.5, "steps": 100, "objective": 192.0, "firing_rate": 1.18}
    >>> [c.flag for c in flag_groups([low, high])]
    ['not converged', 'not converged']
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if "objective" not in row:
            raise ValueError(f"row {index} has no 'objective'; its fields are {', '.join(row)}")
        groups.setdefault(group_key(row, settings), []).append(index)
    found: dict[int, Convergence] = {}
    for number, members in enumerate(groups.values()):
        found |= zip(members, _compare([rows[i] for i in members], number))
    return [found[index] for index in range(len(rows))]


def group_key(row: Mapping[str, Any], settings: Collection[str] | None = None) -> str:
    """Text that is equal for cells that differ only in start and budget."""
    names = [name for name in row if name in settings] if settings is not None else [k for k in row if k not in RESULTS]
    shared = {name: row[name] for name in names if name not in FREE_SETTINGS}
    unit = "steps" if row.get("steps") is not None else "epochs"
    return json.dumps([unit, shared], sort_keys=True, default=str)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _compare(rows: Sequence[Mapping[str, Any]], group: int) -> list[Convergence]:
    """One :class:`Convergence` per cell of a group."""
    objective = [math.nan if row.get("diverged") else _number(row["objective"]) for row in rows]
    starts = [_number(row.get("start")) for row in rows]
    budgets = [_number(row["steps"] if row.get("steps") is not None else row.get("epochs")) for row in rows]
    finite = [i for i in range(len(rows)) if math.isfinite(objective[i])]
    best = min(finite, key=lambda i: objective[i]) if finite else None

    longest: dict[float, int] = {}  # start -> its finite cell of the largest budget
    for i in finite:
        if starts[i] not in longest or budgets[i] > budgets[longest[starts[i]]]:
            longest[starts[i]] = i
    final = sorted(objective[i] for i in longest.values())
    start_gap = relative_change(final[-1], final[0]) if len(final) > 1 else None

    firing_rates = {i: r for i in longest.values() if math.isfinite(r := _number(rows[i].get("firing_rate")))}
    reference = min(firing_rates, key=lambda i: objective[i]) if firing_rates else None
    spread = None
    if reference is not None and len(firing_rates) > 1:
        spread = max(relative_change(rate, firing_rates[reference]) for rate in firing_rates.values())

    results = []
    for i, row in enumerate(rows):
        change = _budget_change(i, objective, starts, budgets, _number(row.get("objective_half")))
        own_spread = spread
        if i not in longest.values() and reference is not None and math.isfinite(_number(row.get("firing_rate"))):
            own_spread = max(spread or 0.0, relative_change(_number(row["firing_rate"]), firing_rates[reference]))
        flag: Flag
        if i not in finite or max(change or 0.0, start_gap or 0.0) > OBJECTIVE_TOLERANCE:
            flag = "not converged"
        elif change is None and start_gap is None:
            flag = "not checked"
        elif own_spread is not None and own_spread > FIRING_RATE_TOLERANCE:
            flag = "rate not identified"
        else:
            flag = "converged"
        results.append(Convergence(flag, change, start_gap, own_spread, i == best, group))
    return results


def _budget_change(
    i: int, objective: Sequence[float], starts: Sequence[float], budgets: Sequence[float], half: float
) -> float | None:
    """Relative change of cell i's objective between two budgets, or None where there is no second one."""
    same = [j for j in range(len(objective)) if starts[j] == starts[i] and math.isfinite(objective[j])]
    longer = [j for j in same if budgets[j] > budgets[i]]
    shorter = [j for j in same if budgets[j] < budgets[i]]
    if not math.isfinite(objective[i]):
        return None
    if longer:
        return relative_change(objective[i], objective[max(longer, key=lambda j: budgets[j])])
    if math.isfinite(half):
        return relative_change(half, objective[i])
    if shorter:
        return relative_change(objective[max(shorter, key=lambda j: budgets[j])], objective[i])
    return None
