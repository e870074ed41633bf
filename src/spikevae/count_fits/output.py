"""Fits of counts as text, CSV, JSON and a figure."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from .._files import atomic_write, write_bytes
from ..plotting import save, settings
from .result import CountFits

STYLES = {  # colour (Okabe-Ito), line
    "poisson": ("#000000", "--"),
    "negative_binomial": ("#0072B2", "-"),
    "zero_inflated_poisson": ("#D55E00", "-."),
    "conway_maxwell_poisson": ("#009E73", ":"),
    "binomial": ("#CC79A7", "-"),
}
MAX_BARS = 40
"""Most bars of a histogram; with more counts, one bar contains several."""
MAX_NAME = 24
"""Longest name of a unit or condition in a figure."""
DISPERSION_STYLES = {"over": ("#0072B2", "^"), "under": ("#CC79A7", "v"), "neither": ("#59636e", "o")}
COLUMNS = (
    "unit", "name", "condition", "law", "n_trials",
    "log_likelihood", "n_parameters", "aic", "bic", "weight", "mean", "variance", "fano", "at_limit",
    "fit_p_value",
)  # fmt: skip


def words(law: str) -> str:
    """A law's name in tables and figures."""
    return {"conway_maxwell_poisson": "Conway-Maxwell-Poisson", "poisson": "Poisson"}.get(
        law, law.replace("_", " ").replace("poisson", "Poisson")
    )


def text(found: CountFits) -> str:
    """One line per law, the summary, and the line of Python that uses the law."""
    shares, by_aic = found.share(), found.share("aic")
    gaps = found.choice.gaps if found.choice else dict.fromkeys(found.laws, math.nan)
    lines = [
        f"{'law':<24}{'best by BIC':>12}{'by AIC':>9}{'summed BIC − least':>20}{'fits (p > .05)':>16}{'at limit':>10}"
    ]
    for law in found.laws:
        rows = [row for row in found.fits if row["law"] == law]
        p = np.array([row["fit_p_value"] for row in rows])
        tested = np.isfinite(p)
        fits = f"{np.mean(p[tested] > 0.05):.0%}" if tested.any() else "–"
        gap = "–" if math.isnan(gaps[law]) else f"{gaps[law]:,.1f}"
        limit = f"{sum(row['at_limit'] for row in rows)}{'*' if law == 'conway_maxwell_poisson' else ''}"
        lines.append(f"{words(law):<24}{shares[law]:>12.0%}{by_aic[law]:>9.0%}{gap:>20}{fits:>16}{limit:>10}")
    lines.append(
        f"at limit: {'units' if found.conditions is None else 'units and conditions'} for which the law is Poisson"
        + "; * of shape 1/4 or 4, this library's bounds" * ("conway_maxwell_poisson" in found.laws)
    )
    code = [] if found.code is None else ["", found.code]
    return "\n".join([*lines, "", found.summary(), *code])


def figure(found: CountFits, path: Path) -> None:
    """Variance against mean, counts of one unit with the laws, and differences in BIC, as one picture."""
    from matplotlib.figure import Figure

    firing = found.firing
    with settings():
        sheet = Figure(figsize=(12.5, 4.1), layout="constrained")
        left, middle, right = sheet.subplots(1, 3)
        _variances(left, found, firing)
        if firing:
            _histogram(middle, found)
            _criteria(right, found)
        save(sheet, path)


def _variances(axis: Any, found: CountFits, firing: list[dict[str, Any]]) -> None:
    for word, (colour, mark) in DISPERSION_STYLES.items():
        every = [row for row in firing if row["dispersion"] == word]
        own = [row for row in every if row["variance"] > 0]
        label = {"over": "over-dispersed", "under": "under-dispersed", "neither": "consistent with Poisson"}[word]
        flat = len(every) - len(own)
        shown = f"{len(every)}, {flat} of variance 0 not drawn" if flat else f"{len(every)}"
        axis.plot(
            [row["mean"] for row in own], [row["variance"] for row in own], mark, color=colour, markersize=4,
            alpha=0.7, label=f"{label} ({shown})", linestyle="none",
        )  # fmt: skip
    means = [row["mean"] for row in firing if row["variance"] > 0]
    if means:
        grid = np.geomspace(min(means) / 1.5, max(means) * 1.5, 100)
        axis.plot(grid, grid, "--", color="#000000", linewidth=1.2, label="Poisson: variance = mean")
        over = {row["unit"] for row in firing if row["dispersion"] == "over"}
        fits = [row for row in found.fits if row["law"] == "negative_binomial" and not row["at_limit"]]
        r = [row["parameters"]["r"] for row in fits if row["unit"] in over] or [row["parameters"]["r"] for row in fits]
        if r:
            middle = float(np.median(r))
            label = f"negative binomial, r = {middle:.2g} (median)"
            axis.plot(grid, grid + grid**2 / middle, "-", color="#0072B2", linewidth=1.2, label=label)
        axis.set(xscale="log", yscale="log")
    axis.set(title="a  each unit", xlabel="mean count (spikes per trial)", ylabel="variance (spikes²)")
    axis.legend(fontsize=7.5, frameon=False)


def _histogram(axis: Any, found: CountFits) -> None:
    """Counts of one unit: that of median firing rate among the units that are not Poisson, or among all."""
    from matplotlib.ticker import MaxNLocator

    clear = [row for row in found.firing if row["dispersion"] != "neither"] or found.firing
    own = sorted(clear, key=lambda row: row["mean"])[len(clear) // 2]
    fits = [row for row in found.fits if row["unit"] == own["unit"]]
    fits = sorted(fits, key=lambda row: row["mean"])[len(fits) // 2 :]
    condition = fits[0].get("condition")
    z = found.counts_of(own["unit"], condition)
    top = int(np.quantile(z, 0.999)) + 2
    low = max(0, min(int(z.min()) - 1, top - 3))
    wide = math.ceil((top - low) / MAX_BARS)
    grid = np.arange(low, low + wide * math.ceil((top - low) / wide))
    middles = grid.reshape(-1, wide).mean(1)
    shares = np.bincount(z, minlength=grid[-1] + 1)[low : grid[-1] + 1] / len(z)
    bars = shares.reshape(-1, wide).sum(1)
    name = short(own["name"]) if condition is None else f"{short(own['name'])}, condition {short(condition)}"
    axis.bar(middles, bars, width=0.85 * wide, color="#d0d7de", label=f"unit {name}")
    for law in sorted(found.laws, key=lambda law: law == "poisson"):  # drawn last, over laws that are Poisson here
        colour, line = STYLES[law]
        mass = _mass(found.of(own["unit"], law, condition), grid).reshape(-1, wide).sum(1)
        axis.plot(middles, mass, line, color=colour, linewidth=1.6, label=words(law))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    of = "share of trials" if wide == 1 else f"share of trials in {wide} counts"
    axis.set(title=f"b  counts of unit {name}", xlabel="spikes in a trial", ylabel=of)
    axis.legend(fontsize=7.5, frameon=False)


def short(name: Any) -> str:
    """A name of at most `MAX_NAME` letters, without signs that Matplotlib reads as formulas."""
    text = str(name).replace("$", r"\$")
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"


def _mass(row: dict[str, Any], grid: np.ndarray) -> np.ndarray:
    """Probabilities of counts under a fit."""
    import torch
    from scipy import stats

    from ..distributions import ConwayMaxwellPoisson, NegativeBinomial, ZeroInflatedPoisson

    p, law = row["parameters"], row["law"]
    if law == "poisson" or (row["at_limit"] and law != "conway_maxwell_poisson"):
        return stats.poisson(row["mean"]).pmf(grid)
    if law == "binomial":
        return stats.binom(int(p["n"]), p["p"]).pmf(grid)
    log = lambda x: torch.tensor(math.log(x), dtype=torch.float64)
    z = torch.from_numpy(grid.astype(float))
    if law == "negative_binomial":
        return NegativeBinomial(log(p["mean"]), log(p["r"])).log_prob(z).exp().numpy()
    if law == "zero_inflated_poisson":
        odds = torch.logit(torch.tensor(p["off"], dtype=torch.float64))
        return ZeroInflatedPoisson(log(p["rate_on"]), odds).log_prob(z).exp().numpy()
    from ..distributions.conway_maxwell_poisson import LOG_SHAPE_LIMIT

    share = min(max(math.log(p["shape"]) / LOG_SHAPE_LIMIT, -1 + 1e-12), 1 - 1e-12)
    unbounded = torch.tensor(LOG_SHAPE_LIMIT * math.atanh(share), dtype=torch.float64)
    return ConwayMaxwellPoisson(log(p["rate"]), unbounded).log_prob(z).exp().numpy()


def _criteria(axis: Any, found: CountFits) -> None:
    """Difference in BIC between each law and the best law of the unit."""
    least = [min(row["bic"].values()) for row in found.firing]
    rng = np.random.default_rng(0)  # for the horizontal scatter only
    for place, law in enumerate(found.laws):
        gaps = np.array([row["bic"][law] - best for row, best in zip(found.firing, least)])
        scatter = place + rng.uniform(-0.25, 0.25, len(gaps))
        axis.plot(scatter, gaps, ".", color=STYLES[law][0], alpha=0.5, markersize=4)
        axis.plot([place - 0.35, place + 0.35], [np.median(gaps)] * 2, color=STYLES[law][0], linewidth=2)
    axis.axhline(10, color="#59636e", linewidth=0.8, linestyle=":")
    axis.set_xlim(-0.5, len(found.laws) - 0.5)
    axis.set_yscale("symlog", linthresh=10)
    axis.set_ylim(bottom=-1)
    axis.set_xticks(
        range(len(found.laws)), [words(law).replace(" ", "\n").replace("-", "-\n") for law in found.laws], fontsize=7.5
    )
    axis.set(title="c  each law and unit", ylabel="BIC above the best law's")
    axis.set_xlabel("bars: medians; dotted line: 10, very strong evidence")


def write(found: CountFits, folder: Path) -> list[Path]:
    """`fits.csv`, `fits.json` and `fits.png` in a folder."""
    rows, data, picture = (folder / f"fits.{kind}" for kind in ("csv", "json", "png"))
    names = sorted({name for row in found.fits for name in row["parameters"] if name != "mean"})
    with atomic_write(rows) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        errors = [f"{name}_se" for name in ("mean", *names)]
        columns = [name for name in COLUMNS if name != "condition" or found.conditions is not None]
        writer.writerow([*columns, *names, *errors])
        for row in found.fits:
            writer.writerow(
                [row[name] for name in columns]
                + [row["parameters"].get(name, "") for name in names]
                + [row["standard_errors"].get(name, "") for name in ("mean", *names)]
            )
    write_bytes(data, (json.dumps(facts(found), indent=1) + "\n").encode())
    figure(found, picture)
    return [rows, data, picture]


def facts(found: CountFits) -> dict[str, Any]:
    """Everything but the counts, for JSON: numbers that are not finite become null or "inf"."""
    return {
        "n_trials": found.n_trials,
        "laws": list(found.laws),
        "summary": found.summary(),
        "law": found.choice.law if found.choice else None,
        "mixed": found.choice.mixed if found.choice else None,
        "shares": found.choice.shares if found.choice else None,
        "summed_bic_above_least": found.choice.gaps if found.choice else None,
        "code": found.code,
        "covariates": list(found.covariates),
        "best_by_bic": found.share(),
        "best_by_aic": found.share("aic"),
        "units": _plain(found.units),
        "fits": _plain(found.fits),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value == math.inf else None
    return value
