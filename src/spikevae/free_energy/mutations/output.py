"""Binding scores in files: draws that a later run continues, and a table."""

import csv
import hashlib
import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from ..._files import write_bytes
from ..._json import json_text, read_json
from .binding import BindingEnergy, leave_positions_out
from .cycle import Cycle
from .result import BindingScores
from .skempi import Measured

REMEDY = "delete it, or give another --out"
MAX_BYTES = 2**30
"""Of a file of draws."""


def settings_of(cycle: Cycle, weights: str | Path) -> dict[str, Any]:
    """What the draws of a cycle depend on, with checksums of the structure and of the file of weights."""
    structure, _ = cycle.systems[0]
    digest = hashlib.sha256(structure.coordinates.numpy().tobytes())
    digest.update(repr((structure.letters, structure.chains, structure.residues)).encode())
    with open(Path(weights).expanduser(), "rb") as file:
        of_weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "structure": digest.hexdigest(),
        "weights": of_weights,
        "partners": [list(system.structure.chain_names) for system in cycle.systems[1:]],
        "mutants": [str(mutant) for mutant in cycle.mutants],
        "noise": cycle.noise,
        "seed": cycle.seed,
    }


def draws_file(out: Path) -> Path:
    """Where the draws of a table are."""
    return out.with_suffix(".draws.json")


def save_draws(path: Path, settings: dict[str, Any], scores: BindingScores) -> None:
    """Write the draws so far."""
    write_bytes(path, json_text({"settings": settings, "terms": scores.terms}).encode())


def load_draws(path: Path, settings: dict[str, Any], cycle: Cycle) -> BindingScores | None:
    """Draws of the same settings in a file, None where there is no file.

    Raises
    ------
    ValueError
        For a damaged file, and one of other settings; with its name and the remedy.
    """
    if not path.exists():
        return None
    found = read_json(path, REMEDY, MAX_BYTES)
    if not isinstance(found, dict) or set(found) != {"settings", "terms"} or not isinstance(found["settings"], dict):
        raise ValueError(f"{path} holds no draws of mutants; {REMEDY}")
    other = [name for name, value in settings.items() if found["settings"].get(name) != value]
    if other:
        raise ValueError(f"{path} has draws of other settings ({', '.join(other)}); {REMEDY}")
    try:
        terms = np.array(found["terms"], dtype=np.float64)
    except (ValueError, TypeError):
        terms = np.empty(0)
    if terms.ndim != 3 or terms.shape[1:] != cycle.scores.terms.shape[1:] or not np.isfinite(terms).all():
        raise ValueError(f"{path} is damaged; {REMEDY}")
    return BindingScores(cycle.mutants, terms)


class Predicted:
    """Measured differences beside those predicted by a scalar that other residues taught."""

    def __init__(self, scores: BindingScores, measured: Measured):
        binding = scores.binding[:, None]
        self.measured: Float[np.ndarray, " n"] = measured.ddg
        self.predicted: Float[np.ndarray, " n"] = np.full(len(measured.ddg), math.nan)
        """kcal/mol, each from a scalar fitted to mutants of other residues; NaN where there are none."""
        splits: list[tuple[Any, Any]] = []
        with suppress(ValueError):
            splits = leave_positions_out(measured.mutants)
        for train, test in splits:
            if binding[train].any():
                self.predicted[test] = BindingEnergy().fit(binding[train], measured.ddg[train]).predict(binding[test])
        self.scalar = BindingEnergy().fit(binding, measured.ddg).scalar_ if binding.any() else math.nan
        """kcal/mol per nat, fitted to all mutants; NaN where all scores are 0."""
        varied = len(binding) > 2 and np.ptp(binding) > 0 and np.ptp(measured.ddg) > 0
        self.spearman = float(spearmanr(binding[:, 0], measured.ddg).statistic) if varied else math.nan
        """Rank correlation of the scores with the measured differences; NaN for fewer than three, and where all scores
        or all measured differences are equal."""


def rows_of(scores: BindingScores, predicted: Predicted | None) -> list[dict[str, Any]]:
    """A row per mutant."""
    rows: list[dict[str, Any]] = [
        {"mutant": str(mutant), "score": float(score), "standard_error": float(error), "log_odds": float(odds)}
        for mutant, score, error, odds in zip(scores.mutants, scores.binding, scores.standard_errors, scores.log_odds)
    ]
    if predicted is not None:
        for row, one, other in zip(rows, predicted.measured, predicted.predicted):
            row |= {"measured": float(one), "predicted": float(other)}
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as .csv."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def text_of(scores: BindingScores, rows: list[dict[str, Any]], predicted: Predicted | None) -> str:
    """A line per mutant, those that bind most weakly first, and what was measured."""
    width = max(6, *(len(row["mutant"]) for row in rows))
    head = f"{'mutant':{width}} {'score':>9} {'error':>7}"
    lines = [head if predicted is None else f"{head} {'measured':>9} {'predicted':>9}"]
    for row in sorted(rows, key=lambda row: -row["score"]):
        line = f"{row['mutant']:{width}} {row['score']:>9.3f} {row['standard_error']:>7.3f}"
        lines.append(line if predicted is None else f"{line} {row['measured']:>9.2f} {row['predicted']:>9.2f}")
    lines += ["", f"{len(scores.terms)} draws; scores and standard errors in nats, positive for weaker binding"]
    if predicted is not None:
        lines += [
            "measured and predicted in kcal/mol, each prediction from a scalar fitted to mutants of other residues",
            f"rank correlation with the measured {predicted.spearman:.2f}; scalar {predicted.scalar:.3f} kcal/mol "
            "per nat",
        ]
    return "\n".join(lines)
