"""Regressions by ensembles and Gaussian posteriors: noise that the model does not know, and inputs without data."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

from spikevae.ensembles import Ensemble, GaussianPosterior, ParameterPosterior

LEVEL = 0.9545
NOISE = 10.0
"""Standard deviation of the noise; the model's is 1."""
TRAIN, TEST = 500, 1000
MEMBERS = (1, 2, 5, 10)
MISSPECIFIED = [
    *((Ensemble, m, "average" if m == 1 else "pac_m") for m in MEMBERS),
    *((Ensemble, 10, objective) for objective in ("average", "pac2", "pac2_tight", "repulsion")),
    *((GaussianPosterior, m, "average" if m == 1 else "pac_m") for m in MEMBERS),
    *((GaussianPosterior, 10, objective) for objective in ("pac2_tight", "repulsion")),
]
WELL_SPECIFIED = [
    (Ensemble, 1, "average"),
    *((Ensemble, 5, objective) for objective in ("average", "pac2", "pac2_tight", "repulsion", "pac_m")),
    *((GaussianPosterior, 5, objective) for objective in ("average", "repulsion", "pac_m")),
]
"""Class, K or m, objective."""


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))


def central_interval(means: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (n,) between which lies LEVEL of the mixture of Gaussians with means (K, n), by bisection."""
    bounds = []
    for mass in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        low, high = means.min(0) - 6 * scale, means.max(0) + 6 * scale
        for _ in range(40):
            middle = (low + high) / 2
            below = ndtr((middle - means) / scale).mean(0) < mass
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        bounds.append((low + high) / 2)
    return bounds[0], bounds[1]


def interval_score(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Width plus penalties outside (Gneiting and Raftery 2007): lower is better."""
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return float((high - low + 2 / (1 - LEVEL) * outside).mean())


def trend(x: np.ndarray) -> np.ndarray:
    """That of the regression of arXiv 1912.08335."""
    return 7 * np.sin(0.75 * x[:, 0]) + x[:, 0] / 2 + 1


def fitted(kind: type, n: int, objective: str, x: np.ndarray, y: np.ndarray, **settings: Any) -> ParameterPosterior:
    model: ParameterPosterior = kind(net(), n, objective=objective, learning_rate=0.02, batch_size=100, **settings)
    return model.fit(x, y)


def facts(kind: type, n: int, objective: str, seed: int) -> dict[str, Any]:
    return {"model": kind.__name__, "m": n, "objective": objective, "seed": seed}


def regression(seed: int, steps: int) -> list[dict[str, Any]]:
    """Every objective on data whose noise is ten times that of the model."""
    rng = np.random.default_rng(seed)
    x, x_test = rng.uniform(-10.5, 10.5, (TRAIN, 1)), rng.uniform(-10.5, 10.5, (TEST, 1))
    y, y_test = (trend(at) + NOISE * rng.normal(size=len(at)) for at in (x, x_test))
    grid, rows = np.linspace(-10.5, 10.5, 85)[:, None], []
    for kind, n, objective in MISSPECIFIED:
        fit = fitted(kind, n, objective, x, y, prior_scale=10.0, n_steps=steps, random_state=seed)
        low, high = central_interval(fit.predict_members(x_test), 1.0)
        row = facts(kind, n, objective, seed) | {
            "coverage": float(((y_test >= low) & (y_test <= high)).mean()),
            "score": interval_score(y_test, low, high),
            "nll": -fit.score(x_test, y_test),
            "rmse": float(np.sqrt(np.square(y_test - fit.predict(x_test)).mean())),
        }
        if seed == 0 and kind is GaussianPosterior and n in (1, 10) and objective in ("average", "pac_m"):
            row["curve"] = [bound.round(3).tolist() for bound in central_interval(fit.predict_members(grid), 1.0)]
            row |= {"grid": grid[:, 0].tolist(), "x": x[:, 0].round(3).tolist(), "y": y.round(3).tolist()}
        rows.append(row)
    return rows


def regression_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | K or m | objective | coverage | interval score | NLL, nats | error of the mean |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for kind, n, objective in MISSPECIFIED:
        mine = [r for r in rows if (r["model"], r["m"], r["objective"]) == (kind.__name__, n, objective)]
        columns = (("coverage", 3), ("score", 1), ("nll", 2), ("rmse", 2))
        cells = " | ".join(shown(interval([r[name] for r in mine]), digits) for name, digits in columns)
        lines.append(f"| {kind.__name__} | {n} | {objective} | {cells} |")
    return "\n".join(lines)


def curve_of(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * x[:, 0]) + 0.3 * x[:, 0]


def off_data(seed: int, steps: int) -> list[dict[str, Any]]:
    """Every objective on data with gaps, with the noise of the model."""
    rng, noise = np.random.default_rng(seed), 0.1

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.uniform(1, 3, (n, 1)) * rng.choice([-1, 1], (n, 1))
        return x, curve_of(x) + noise * rng.normal(size=n)

    x, y = drawn(100)
    x_test, y_test = drawn(TEST)
    grid = np.linspace(-5, 5, 101)[:, None]
    off = grid[(np.abs(grid[:, 0]) < 0.81) | (np.abs(grid[:, 0]) > 3.19)]
    rows = []
    for kind, n, objective in WELL_SPECIFIED:
        fit = fitted(kind, n, objective, x, y, prior_scale=3.0, noise_scale=noise, n_steps=steps, random_state=seed)
        row = facts(kind, n, objective, seed) | {
            "nll": -fit.score(x_test, y_test),
            "rmse": float(np.sqrt(np.square(y_test - fit.predict(x_test)).mean())),
            "on": float(np.sqrt(fit.predict_members(x_test).var(0).mean())),
            "off": float(np.sqrt(fit.predict_members(off).var(0).mean())),
            "off_rmse": float(np.sqrt(np.square(fit.predict(off) - curve_of(off)).mean())),
        }
        if seed == 0:
            row |= {"grid": grid[:, 0].tolist(), "spread": fit.predict_members(grid).std(0).round(5).tolist()}
        rows.append(row)
    return rows


def off_data_table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and the spread off data over that of "average" with the same seed."""
    lines = [
        "| model | K or m | objective | NLL, nats | error of the mean | spread on data | spread off data "
        "| over that of average | error off data |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]

    def of(kind: type, n: int, objective: str) -> list[dict[str, Any]]:
        return [r for r in rows if (r["model"], r["m"], r["objective"]) == (kind.__name__, n, objective)]

    for kind, n, objective in WELL_SPECIFIED:
        mine, plain = of(kind, n, objective), {row["seed"]: row for row in of(kind, n, "average")}
        columns = (("nll", 3), ("rmse", 4), ("on", 4), ("off", 3))
        cells = [shown(interval([r[name] for r in mine]), digits) for name, digits in columns]
        ratios = [r["off"] / plain[r["seed"]]["off"] for r in mine] if objective != "average" else []
        cells += [shown(interval(ratios) if ratios else None, 2), shown(interval([r["off_rmse"] for r in mine]), 2)]
        lines.append(f"| {kind.__name__} | {n} | {objective} | {' | '.join(cells)} |")
    return "\n".join(lines)
