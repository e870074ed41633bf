"""A fitted population as text, tables and files."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_bytes
from .._text import plural
from .correlation import Correlations
from .figures import figure
from .poisson_log_normal import PoissonLogNormal


def unit_rows(model: PoissonLogNormal, counts: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row per unit: name, mean count, share of zeros, intercept, coefficients, variance of the log rate."""
    rows = []
    for j, name in enumerate(names):
        row = {"unit": name, "mean_count": float(counts[:, j].mean()), "zeros": float((counts[:, j] == 0).mean())}
        row["intercept"] = float(model.intercept_[j])
        row |= {f"coef {c}": float(model.coef_[j, i]) for i, c in enumerate(model.covariate_names_)}
        row["log_rate_variance"] = float(model.covariance_[j, j])
        rows.append(row)
    return rows


def facts(model: PoissonLogNormal, found: Correlations, n_rows: int) -> dict[str, Any]:
    """Numbers of the fit, for JSON."""
    off = ~np.eye(len(found.noise), dtype=bool)
    mean = lambda matrix: float(np.nanmean(matrix[off])) if off.any() and np.isfinite(matrix[off]).any() else None
    return {
        "rows": n_rows,
        "units": len(found.noise),
        "covariates": list(model.covariate_names_),
        "settings": {k: v for k, v in model.get_params().items() if k not in ("random_state", "verbose")},
        "bound": model.bound_,
        "parameters": model.n_parameters_,
        "bic": model.bic_,
        "aic": model.aic_,
        "icl": model.icl_,
        "converged": model.converged_,
        "starts_disagree": model.starts_disagree_,
        "inflated_zeros": None if model.zero_inflation is None else float(model.prob_zero_inflation_.mean()),
        "mean_noise_correlation": mean(found.noise),
        "mean_log_rate_correlation": mean(found.log_rate),
        "mean_signal_correlation": None if found.signal is None else mean(found.signal),
        "dimensionality": found.dimensionality,
        "signal_dimensionality": found.signal_dimensionality,
    }


def text(numbers: dict[str, Any]) -> str:
    """The main numbers as lines."""
    show = lambda value: "–" if value is None else f"{value:.3g}"
    lines = [
        f"{len(numbers['covariates'])} {plural(len(numbers['covariates']), 'covariate')}, "
        f"{numbers['parameters']} parameters",
        f"bound {numbers['bound']:,.1f} nats, BIC {numbers['bic']:,.1f}, "
        f"AIC {numbers['aic']:,.1f}, ICL {numbers['icl']:,.1f}",
        f"mean correlation: noise (counts) {show(numbers['mean_noise_correlation'])}, log rates "
        f"{show(numbers['mean_log_rate_correlation'])}, signal {show(numbers['mean_signal_correlation'])}",
        f"dimensionality (participation ratio): noise {show(numbers['dimensionality'])}, signal "
        f"{show(numbers['signal_dimensionality'])}",
    ]
    if numbers["inflated_zeros"] is not None:
        lines.append(f"share of counts that are inflated zeros: {numbers['inflated_zeros']:.1%}")
    if not numbers["converged"]:
        lines.append("The search did not converge: give more steps.")
    if numbers["starts_disagree"]:
        lines.append("Starts ended at different bounds; the best is kept.")
    return "\n".join(lines)


def write(
    model: PoissonLogNormal,
    found: Correlations,
    counts: np.ndarray,
    names: tuple[str, ...],
    numbers: dict[str, Any],
    folder: Path,
    colour: tuple[str, np.ndarray] | None = None,
) -> list[Path]:
    """`units.csv`, `noise_correlations.csv`, `log_rate_correlations.csv`, `signal_correlations.csv` (with covariates),
    `latent.csv`, `population.png`, `model.safetensors` and `fit.json`, each written whole, the last one last."""
    rows = unit_rows(model, counts, names)
    tables = {"units": [list(rows[0]), *(list(row.values()) for row in rows)]}
    squares = {"noise": found.noise, "log_rate": found.log_rate, "signal": found.signal}
    for kind, matrix in squares.items():
        if matrix is not None:
            tables[f"{kind}_correlations"] = [["unit", *names], *([n, *r] for n, r in zip(names, matrix.tolist()))]
    latent = model.latent_
    columns = names if model.rank is None else tuple(f"score {i + 1}" for i in range(latent.shape[1]))
    tables["latent"] = [["row", *columns], *([i, *r] for i, r in enumerate(latent.tolist()))]
    paths = []
    for name, lines in tables.items():
        out = io.StringIO()
        csv.writer(out).writerows(lines)
        paths.append(folder / f"{name}.csv")
        write_bytes(paths[-1], out.getvalue().encode())
    picture, file, data = folder / "population.png", folder / "model.safetensors", folder / "fit.json"
    name, values = colour or ("", None)
    figure(found, names, latent, picture, colour=values, colour_name=name)
    model.save(file)
    write_bytes(data, (json.dumps(numbers, indent=1) + "\n").encode())
    return [*paths, picture, file, data]
