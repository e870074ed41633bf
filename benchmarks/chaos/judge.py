"""Whether a run holds what a run without faults holds."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from .attempts import HUNG, Attempt

TIMES = ("seconds",)
"""Entries of a cell that hold wall-clock times, and differ between two runs."""
Contents = dict[str, dict[str, Any]]
"""Of each part of a run (table, cells, models), what it holds by the id of the cell."""


@dataclass
class Outcome:
    """What one injected fault led to. Each list holds a line per finding; all are empty where nothing went wrong."""

    times: int = 1
    """How many faults or inputs it is about; findings are counted one by one where there are several."""
    fired: bool = True
    """Whether the fault took place; it is counted only then."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ugly: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Advice that had to be followed by hand before the command went on."""
    skipped: str = ""
    """Why this fault cannot be injected on this machine."""


def contents(run: Path) -> Contents:
    """Table, cells and models of a run folder, without wall-clock times; damaged files stand for nothing."""
    found: Contents = {"table": {}, "cells": {}, "models": {}}
    try:
        for row in pq.read_table(run / "cells.parquet").to_pylist():
            found["table"][row["id"]] = {name: repr(value) for name, value in row.items()}
    except (OSError, ValueError, KeyError):
        pass
    for path in sorted(run.glob("cells/*.json")):
        try:
            cell = json.loads(path.read_text())
            kept = {name: value for name, value in cell.items() if name not in TIMES}
            found["cells"][path.stem] = {name: json.dumps(kept[name]) for name in RESULTS if name in kept}
        except (OSError, ValueError, AttributeError):
            continue
    for path in sorted(run.glob("models/*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                metadata = {f"/{name}": value for name, value in (file.metadata() or {}).items() if name in METADATA}
                values = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            found["models"][path.stem] = metadata | {
                name: f"{value.dtype}{value.shape}{value.tobytes().hex()}" for name, value in values.items()
            }
        except (OSError, SafetensorError, ValueError):
            continue
    return found


RESULTS = ("id", "block", "config", "metrics", "objective", "fit_objective", "fit_objective_half", "units",
           "code_histogram", "history", "diverged", "steps_done", "budget")  # fmt: skip
METADATA = ("format", "shape", "config", "extra")


def compare(found: Contents, expected: Contents, without: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Lines that say what is missing, and lines that say what differs; cells in `without` are not looked at."""
    lost, wrong = [], []
    for part, cells in expected.items():
        extra = sorted(set(found[part]) - set(cells) - set(without))
        if extra:
            wrong.append(f"{part}: has {extra}, which the undisturbed run does not have")
        for cell, values in cells.items():
            if cell in without:
                continue
            if cell not in found[part]:
                lost.append(f"{part}: no {cell}")
                continue
            other = found[part][cell]
            names = [
                name
                for name in (*values, *(n for n in other if n not in values))
                if values.get(name) != other.get(name)
            ]
            if names:
                name = names[0]
                wrong.append(
                    f"{part} {cell}: {name} is {str(other.get(name))[:40]}, not {str(values.get(name))[:40]}"
                    + (f" ({len(names)} entries differ)" if len(names) > 1 else "")
                )
    return lost, wrong


def leftovers(run: Path) -> list[str]:
    """Scratch files, checkpoints and locks that a finished run still has."""
    scratch = [path for path in run.rglob("*") if path.is_file() and re.search(r"\.tmp$|\.tmp\.|~$", path.name)]
    kept = [path for name in ("checkpoints", "locks") for path in (run / name).glob("*")]
    return [str(path.relative_to(run)) for path in (*scratch, *kept)]


def settle(
    run: Path,
    expected: Contents,
    again: "Again",
    attempts: Sequence[Attempt] = (),
    *,
    without: Collection[str] = (),
) -> Outcome:
    """Give the command again until it is done, following what its messages advise; then compare.

    Parameters
    ----------
    run, expected
        The run folder after the fault, and the contents of the undisturbed run.
    again
        Gives the same command once more.
    attempts
        Calls that the fault disturbed. One that ended with exit code 0 must have been complete by then.
    """
    outcome = Outcome()
    for one in attempts:
        if one.complaint:
            outcome.ugly.append(one.complaint)
    if attempts and attempts[-1].code == 0:
        lost, wrong = compare(contents(run), expected, without)
        outcome.wrong += [f"said done, but {line}" for line in (*lost, *wrong)]
    for _ in range(MAX_ROUNDS):
        last = again()
        if last.complaint:
            outcome.ugly.append(last.complaint)
        if last.code == 0:
            break
        if last.code == HUNG:
            outcome.lost.append("hangs")
            return outcome
        named = [path for path in advised(last.err, run) if path.exists()]
        if not named:
            outcome.lost.append(f"does not go on: {last.message}")
            return outcome
        outcome.asked.append(last.message)
        for path in named:
            path.unlink()
    lost, wrong = compare(contents(run), expected, without)
    outcome.lost += lost
    outcome.wrong += wrong
    outcome.ugly += [f"left over: {name}" for name in leftovers(run)]
    return outcome


MAX_ROUNDS = 12
Again = Any
"""A function without arguments that makes an `Attempt`."""


def advised(message: str, run: Path) -> list[Path]:
    """Files below a run that a message says to delete."""
    if "delete" not in message:
        return []
    names = re.findall(re.escape(str(run)) + r"/[\w./-]*\w", message)
    return [path for path in map(Path, dict.fromkeys(names)) if path.is_file()]
