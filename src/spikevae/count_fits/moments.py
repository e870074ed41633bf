"""Moments of each unit, and whether they are those of Poisson counts."""

import math
from typing import Any

import numpy as np
from scipy import stats

from .dispersion import FALSE_DISCOVERY_RATE, dispersion_p
from .regression import design_matrix, dispersion_given


def table_of_units(conditions: np.ndarray | None, covariates: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What mean counts depend on: covariates, and conditions as text unless they are among them."""
    if conditions is None or len(np.unique(conditions)) < 2 or "condition" in covariates:
        return covariates
    return {"condition": conditions.astype(str)} | covariates


def describe_units(
    z: np.ndarray,
    mask: np.ndarray | None = None,
    columns: dict[str, np.ndarray] | None = None,
    offsets: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Moments and dispersion test of each unit; the best laws are added after the fits.

    Parameters
    ----------
    z
        (n_trials, n_units).
    mask
        True where recorded.
    columns
        (n_trials,) each: what mean counts depend on.
    offsets
        (n_trials,) logarithms of durations.
    """
    given = bool(columns) or offsets is not None
    rows: list[dict[str, Any]] = []
    patterns, group = (np.zeros((1, 1)), np.zeros(z.shape[1], int)) if mask is None else _patterns(mask)
    for i in range(len(patterns)):
        units = np.flatnonzero(group == i)
        kept = slice(None) if mask is None else mask[:, units[0]]
        own = z[kept][:, units]
        if len(own) < 2:
            raise ValueError(f"unit {units[0]} was recorded in {len(own)} rows: leave it out, two or more are needed")
        found = _moments(own, units)
        if given:
            n = len(own)
            x = design_matrix({name: np.asarray(column)[kept] for name, column in (columns or {}).items()}, n)
            _test_given(found, own, x, np.zeros(n) if offsets is None else offsets[kept])
        rows += found
    rows.sort(key=lambda row: row["unit"])
    p = np.array([row["p_value"] for row in rows])
    adjusted = np.full(len(p), np.nan)
    if np.isfinite(p).any():
        adjusted[np.isfinite(p)] = stats.false_discovery_control(p[np.isfinite(p)])
    for row, q in zip(rows, adjusted.tolist()):
        row["p_adjusted"] = q
        row["dispersion"] = "neither" if not q < FALSE_DISCOVERY_RATE else "over" if row.pop("above") else "under"
        row.pop("above", None)
    return rows


def _patterns(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns of a mask, and which of them each unit has."""
    patterns, group = np.unique(mask.T, axis=0, return_inverse=True)
    return patterns, group.reshape(-1)


def _moments(z: np.ndarray, units: np.ndarray) -> list[dict[str, Any]]:
    """Of units that were recorded in the same rows, with the dispersion test without covariates."""
    n = len(z)
    mean, variance = z.mean(0), z.var(0, ddof=1)
    silent = mean == 0
    safe = np.where(silent, 1.0, mean)
    fano = variance / safe
    influence = ((z - mean) ** 2 - variance) / safe - fano * (z - mean) / safe
    fano_se, zeros = influence.std(0, ddof=1) / math.sqrt(n), (z == 0).mean(0)
    p = dispersion_p(z)
    return [
        {
            "unit": int(unit),
            "n_trials": n,
            "mean": float(mean[u]),
            "variance": float(variance[u]),
            "fano": math.nan if silent[u] else float(fano[u]),
            "fano_se": math.nan if silent[u] else float(fano_se[u]),
            "zeros": float(zeros[u]),
            "silent": bool(silent[u]),
            "index": math.nan if silent[u] else float((n - 1) * fano[u]),
            "p_value": float(p[u]),
            "above": bool(fano[u] > 1),
        }
        for u, unit in enumerate(units)
    ]


def _test_given(rows: list[dict[str, Any]], z: np.ndarray, x: np.ndarray, offsets: np.ndarray) -> None:
    """Replace the dispersion test by that given covariates, and the variance by that about their means."""
    index, p, sign = dispersion_given(z, x, offsets)
    freedom = len(z) - x.shape[1]
    for u, row in enumerate(rows):
        if not row["silent"]:
            row |= {"index": float(index[u]), "p_value": float(p[u]), "above": bool(sign[u] > 0)}
            row |= {"fano": float(index[u] / freedom), "fano_se": math.nan}
            row["variance"] = row["mean"] * row["fano"]
