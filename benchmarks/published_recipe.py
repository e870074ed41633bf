"""Tables of docs/results/published_recipe.md, and its CSV, from runs of examples/published_recipe.toml.

    python benchmarks/published_recipe.py runs/published_recipe --csv docs/results/published_recipe.csv

Runs of parts of the sweep and CSV files of an earlier call can be given together; where two hold the same fit,
the later one counts.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from spikevae._text import exact, shown
from spikevae.sweep import RunFolder

FIT = ("block", "latent", "n_latents", "beta", "seed")
"""What names a fit."""
NUMBERS = ("steps", "fraction_zeros", "firing_rate", "lifetime_sparseness", "r2", "r2_pooled")
NUMBERS += ("free_energy", "kl", "distortion", "objective", "fit_objective")
SHOWN = {
    "fraction_zeros": "zeros",
    "firing_rate": "spikes per unit",
    "r2_pooled": "R²",
    "lifetime_sparseness": "lifetime sparseness",
    "fit_objective": "objective",
}
LATENTS = {"poisson": "Poisson", "rectified_gaussian": "rectified Gaussian"}
BLOCKS = {"published recipe": "published", "default": "ours"}
Row = dict[str, Any]


def read(source: Path) -> list[Row]:
    """Rows of a run folder, or of a CSV file that this script wrote."""
    if source.is_dir():
        return [{name: row[name] for name in FIT + NUMBERS} for row in RunFolder(source).rows()]
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    whole = {"n_latents", "seed", "steps"}
    kinds = {name: str if name in FIT[:2] else int if name in whole else float for name in FIT + NUMBERS}
    return [{name: kind(row[name]) for name, kind in kinds.items()} for row in rows]


def joined(sources: Iterable[Path]) -> list[Row]:
    """One row for each fit, in order."""
    rows = {tuple(row[name] for name in FIT): row for source in sources for row in read(source)}
    return [rows[key] for key in sorted(rows)]


def write(rows: Sequence[Row], path: Path) -> None:
    """The CSV file, numbers with five digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIT + NUMBERS)
        for row in rows:
            writer.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in (row[name] for name in FIT + NUMBERS)])


def table(rows: Sequence[Row], latent: str, size: int) -> str:
    """Means over seeds, Markdown: each measure of both recipes by beta."""
    own = [row for row in rows if (row["latent"], row["n_latents"]) == (latent, size)]
    betas = sorted({row["beta"] for row in own})
    lines = [f"| {LATENTS[latent]}, K = {size} | " + " | ".join(f"β = {exact(beta)}" for beta in betas) + " |"]
    lines.append("|---" * (len(betas) + 1) + "|")
    for name, label in SHOWN.items():
        label = "mean activation" if name == "firing_rate" and latent != "poisson" else label
        for block, who in BLOCKS.items():
            cells = [[row[name] for row in own if (row["block"], row["beta"]) == (block, beta)] for beta in betas]
            means = [shown(fmean(values)) if values else "-" for values in cells]
            lines.append(f"| {label}, {who} | " + " | ".join(means) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN", help="run folders, or CSV files of this script")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the row of each fit there")
    given = parser.parse_args()
    rows = joined(given.sources)
    for size in sorted({row["n_latents"] for row in rows}):
        for latent in LATENTS:
            print(table(rows, latent, size))
    if given.csv is not None:
        write(rows, given.csv)


if __name__ == "__main__":
    main()
