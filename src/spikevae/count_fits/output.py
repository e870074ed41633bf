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
DISPERSION_STYLES = {"over": ("#0072B2", "^"), "under": ("#CC79A7", "v"), "neither": ("#59636e", "o")}
COLUMNS = (
    "unit", "law", "log_likelihood", "n_parameters", "aic", "bic", "weight", "mean", "variance", "fano", "at_limit",
    "fit_p_value",
)  # fmt: skip


def words(law: str) -> str:
    """A law's name in tables and figures."""
    return {"conway_maxwell_poisson": "Conway-Maxwell-Poisson", "poisson": "Poisson"}.get(
        law, law.replace("_", " ").replace("poisson", "Poisson")
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}".replace("-", "−")


def text(found: CountFits) -> str:
    """One line per law, and the summary."""
    shares, by_aic = found.share(), found.share("aic")
    lines = [
        f"{'law':<24}{'best by BIC':>12}{'by AIC':>9}{'median BIC − Poisson':>22}{'fits (p > .05)':>16}{'at limit':>10}"
    ]
    for law in found.laws:
        rows = [row for row in found.fits if row["law"] == law]
        gaps = [row["bic"] - found.of(row["unit"], "poisson")["bic"] for row in rows if "poisson" in found.laws]
        p = np.array([row["fit_p_value"] for row in rows])
        tested = np.isfinite(p)
        fits = f"{np.mean(p[tested] > 0.05):.0%}" if tested.any() else "–"
        gap = _number(float(np.median(gaps))) if gaps else "–"
        limit = f"{sum(row['at_limit'] for row in rows)}{'*' if law == 'conway_maxwell_poisson' else ''}"
        lines.append(f"{words(law):<24}{shares[law]:>12.0%}{by_aic[law]:>9.0%}{gap:>22}{fits:>16}{limit:>10}")
    lines.append(
        "at limit: units for which the law is Poisson"
        + "; * of shape 1/4 or 4, this library's bounds" * ("conway_maxwell_poisson" in found.laws)
    )
    return "\n".join([*lines, "", found.summary()])


def figure(found: CountFits, path: Path) -> None:
    """Variance against mean, counts of one unit with the laws, and differences in BIC, as one picture."""
    from matplotlib.figure import Figure

    firing = [row for row in found.units if not row["silent"]]
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
        r = [row["parameters"]["r"] for row in found.fits if row["law"] == "negative_binomial" and not row["at_limit"]]
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

    firing = [row for row in found.units if not row["silent"]]
    clear = [row for row in firing if row["dispersion"] != "neither"] or firing
    unit = sorted(clear, key=lambda row: row["mean"])[len(clear) // 2]["unit"]
    z = found.counts[:, unit]
    top = int(np.quantile(z, 0.999)) + 2
    low = max(0, min(int(z.min()) - 1, top - 3))
    wide = math.ceil((top - low) / MAX_BARS)
    grid = np.arange(low, low + wide * math.ceil((top - low) / wide))
    middles = grid.reshape(-1, wide).mean(1)
    shares = np.bincount(z, minlength=grid[-1] + 1)[low : grid[-1] + 1] / len(z)
    bars = shares.reshape(-1, wide).sum(1)
    axis.bar(middles, bars, width=0.85 * wide, color="#d0d7de", label=f"unit {unit}")
    for law in sorted(found.laws, key=lambda law: law == "poisson"):  # drawn last, over laws that are Poisson here
        colour, line = STYLES[law]
        mass = _mass(found.of(unit, law), grid).reshape(-1, wide).sum(1)
        axis.plot(middles, mass, line, color=colour, linewidth=1.6, label=words(law))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    of = "share of trials" if wide == 1 else f"share of trials in {wide} counts"
    axis.set(title=f"b  counts of unit {unit}", xlabel="spikes in a trial", ylabel=of)
    axis.legend(fontsize=7.5, frameon=False)


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
    least: dict[int, float] = {}
    for row in found.fits:
        least[row["unit"]] = min(least.get(row["unit"], math.inf), row["bic"])
    rng = np.random.default_rng(0)  # for the horizontal scatter only
    for place, law in enumerate(found.laws):
        gaps = np.array([row["bic"] - least[row["unit"]] for row in found.fits if row["law"] == law])
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
        writer.writerow([*COLUMNS, *names, *errors])
        for row in found.fits:
            writer.writerow(
                [row[name] for name in COLUMNS]
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
