"""Ensembles and posteriors over parameters: three studies, each under five minutes on two cores.

    python benchmarks/free_energy/ensembles.py --out FOLDER [--study regression|off_data|vaes]

regression: noise ten times the model's, five seeds: coverage, interval score and negative log-likelihood of each
objective. off_data: a well-specified regression, and how far members differ away from the data. vaes: ensembles of
Poisson VAEs on bundled photographs: bounds of their mixture, and the similarity of their dictionaries. Without --study
all three. `--out` also writes STUDY.json and STUDY.md, after each seed, and ensembles.png; the same command continues
a run that was stopped.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensembles_regression import off_data, off_data_table, regression, regression_table
from ensembles_vaes import vaes, vaes_table

from spikevae._files import write_bytes

Rows = list[dict[str, Any]]
STUDIES: dict[str, tuple[Callable[[int, int], Rows], Callable[[Rows], str], int]] = {
    "regression": (regression, regression_table, 800),
    "off_data": (off_data, off_data_table, 1000),
    "vaes": (vaes, vaes_table, 800),
}
"""From a seed and a number of steps to rows, from rows to a table, and the default number of steps."""


def started(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left, or none."""
    if path is None or not path.exists():
        return {"settings": settings, "rows": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    return found


def study(name: str, seeds: int, steps: int | None, out: Path | None) -> Rows:
    """Run a study, seed by seed, and print its table."""
    run, table, default = STUDIES[name]
    path = None if out is None else out / f"{name}.json"
    found = started(path, {"steps": steps or default})
    rows: Rows = found["rows"]
    done = {row["seed"] for row in rows}
    for seed in range(seeds):
        if seed not in done:
            rows += run(seed, steps or default)
            print(f"{name}: seed {seed} done", file=sys.stderr, flush=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, json.dumps(found, indent=1).encode())
    text = table([row for row in rows if row["seed"] < seeds])
    if path is not None:
        write_bytes(path.with_suffix(".md"), (text + "\n").encode())
    print(f"{name}\n\n{text}\n")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=[*STUDIES, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="training steps of each fit; by default those of the study")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error("intervals need --seeds of 2 or more")
    for name in STUDIES if chosen.study == "all" else [chosen.study]:
        study(name, chosen.seeds, chosen.steps, chosen.out)
    if chosen.out is not None and all((chosen.out / f"{name}.json").exists() for name in STUDIES):
        from ensembles_figure import draw

        found = {
            name: json.loads((chosen.out / f"{name}.json").read_text(encoding="utf-8"))["rows"] for name in STUDIES
        }
        draw(found, chosen.out / "ensembles.png")


if __name__ == "__main__":
    main()
