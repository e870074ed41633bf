"""Tables of docs/results/findings.md and the picture of README, from the run of `make demo`.

    python benchmarks/findings.py runs/demo

prints the tables as Markdown; with playwright and Chromium it also writes docs/_static/report.png, an uncut screenshot
of the report in a window of 1280 x 800 pixels.
"""

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from spikevae._text import exact, shown
from spikevae.reporting import build_report
from spikevae.sweep import RunFolder

SIZE = 48
BETAS = (0.1, 0.5, 1.0, 2.0, 4.0)
PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "report.png"
Row = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def mean(rows: Sequence[Row], name: str) -> str:
    """Mean over seeds, "-" where undefined."""
    values = [float(row[name]) for row in rows if row[name] is not None]
    return shown(fmean(values), 5 if name == "fit_objective" else 3) if values else "-"


def at(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def best(rows: Sequence[Row]) -> list[Row]:
    """Of each seed the start with the fewest spikes among those within 1 % of the lowest objective."""
    chosen = []
    for seed in sorted({row["seed"] for row in rows}):
        own = at(rows, seed=seed)
        limit = 1.01 * min(row["fit_objective"] for row in own)
        chosen.append(min((row for row in own if row["fit_objective"] <= limit), key=lambda row: row["firing_rate"]))
    return chosen


def starts_table(rows: Sequence[Row], size: int) -> str:
    """Poisson fits of this size from each start, and the rectified Gaussian ones beside them."""
    own = at(rows, block="default", n_latents=size)
    names = {
        "fraction_zeros": "zeros",
        "firing_rate": "spikes per unit",
        "fit_objective": "objective",
        "r2_pooled": "R²",
    }
    lines = [
        [f"{label}, from {exact(start)}", *(mean(at(own, beta=b, start=start), name) for b in BETAS)]
        for name, label in names.items()
        for start in sorted({row["start"] for row in own})
    ]
    rectified = [best(at(rows, block="default, rectified", n_latents=size, beta=b)) for b in BETAS]
    shares = [f"{mean(found, 'fraction_zeros')} / {mean(found, 'r2_pooled')}" for found in rectified]
    lines.append(["rectified Gaussian: zeros / R²", *shares])
    return table([f"Poisson, K = {size}", *(f"β = {exact(b)}" for b in BETAS)], lines)


def codes_table(rows: Sequence[Row]) -> str:
    """Spikes per unit, R2 and zeros of each code at each beta, and the shadow price of those at a budget."""
    groups: dict[str, Callable[[float], list[Row]]] = {
        "no budget": lambda b: best(at(rows, block="default", n_latents=SIZE, beta=b))
    }
    for budget in sorted({row["spike_budget"] for row in rows if row["spike_budget"]}, reverse=True):
        groups[f"budget {exact(budget)}"] = lambda b, budget=budget: at(rows, spike_budget=budget, beta=b)
    for block in ("binary", "iterative"):
        groups[block] = lambda b, block=block: at(rows, block=block, beta=b)
    lines = []
    for name, rows_at in groups.items():
        found = [rows_at(b) for b in BETAS]
        numbers = [" / ".join(mean(f, m) for m in ("firing_rate", "r2_pooled", "fraction_zeros")) for f in found]
        lines.append([f"{name}: spikes per unit / R² / zeros", *numbers])
        if name.startswith("budget"):
            lines.append(["shadow price, nats per spike", *(mean(f, "shadow_price") for f in found)])
    return table([f"K = {SIZE}", *(f"β = {exact(b)}" for b in BETAS)], lines)


def screenshot(page: Path) -> None:
    """The report in a window of 1280 x 800 pixels, as it opens."""
    from playwright.sync_api import sync_playwright

    browser_path = next(
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 800})
        view.goto(page.absolute().as_uri())
        view.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder of make demo")
    parser.add_argument("--no-picture", action="store_true", help="print the tables alone")
    given = parser.parse_args()
    folder = RunFolder(given.run)
    rows = folder.rows()
    flags = Counter(row["convergence"] for row in rows)
    for size in sorted({row["n_latents"] for row in at(rows, block="default")}):
        print(starts_table(rows, size))
    print(codes_table(rows))
    for one in folder.frontiers():
        print(*(f"{one.frontier.label}, {line}" for line in one.frontier.sentences()), sep="\n")
    print(f"\nOf {len(rows)} fits", ", ".join(f"{count} {flag}" for flag, count in flags.most_common()))
    if not given.no_picture:
        screenshot(build_report(given.run))
        print(f"Picture: {PICTURE}")


if __name__ == "__main__":
    main()
