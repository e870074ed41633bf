"""`make bench`: every benchmark of this folder on this machine, about ten minutes on two cores.

Prints tables. Writes files only when asked: `--json FILE` machine and rows, `--markdown FILE` machine and tables with
figures in the same folder. `make bench BENCH="--markdown benchmarks/RESULTS.md"` writes the page in this folder again;
waiting threads of PyTorch sleep then as in the command line (OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=2000).
`convergence` (25 minutes more) runs only when named.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convergence
import growth
import iterative
import paper_grid
import sampler
import stacks
import step
from machine import machine

from spikevae._allocator import keep_freed_memory

Compared = tuple[list[dict[str, Any]], str]
BENCHMARKS: dict[str, Callable[[], Compared]] = {
    "sampler": sampler.compare,
    "step": step.compare,
    "stacks": stacks.compare,
    "growth": growth.compare,
    "iterative": iterative.compare,
    "paper_grid": paper_grid.compare,
}
LONG: dict[str, Callable[[], Compared]] = {"convergence": convergence.compare}
FIGURES = {"growth": growth.figure, "convergence": convergence.figure}


def page(facts: dict[str, Any], tables: dict[str, str], figures: dict[str, str]) -> str:
    """The results as Markdown."""
    lines = ["# Results", "", 'Written by `make bench BENCH="--markdown benchmarks/RESULTS.md"` on', ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    for name, text in tables.items():
        what = (sys.modules[name].__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {name}", "", what, "", "```text", text, "```"]
        if name in figures:
            lines += ["", f"![{name}]({figures[name]})"]
    return "\n".join(lines) + "\n"


def main() -> None:
    known = {**BENCHMARKS, **LONG}
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: python benchmarks/run.py sampler --json s.json"
    )
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(known)}; all but the last by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write machine and rows to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write machine and tables to this file")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in known:
            parser.error(f"unknown benchmark {name!r}; there are {', '.join(known)}")
    keep_freed_memory()  # as the command line and the workers of a sweep do
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    results, tables = {}, {}
    for name in chosen.names or BENCHMARKS:
        began = time.perf_counter()
        results[name], tables[name] = known[name]()
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)\n{tables[name]}", flush=True)
        write(chosen, facts, results, tables)  # after each, so that nothing is lost if a later one is interrupted


def write(chosen: argparse.Namespace, facts: dict[str, Any], results: dict[str, Any], tables: dict[str, str]) -> None:
    """The files that were asked for, with what there is so far."""
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": facts, **results}, indent=1) + "\n")
    if chosen.markdown is not None:
        figures = {name: f"{name}.png" for name in results if name in FIGURES}
        for name, file in figures.items():
            FIGURES[name](results[name], chosen.markdown.parent / file)
        chosen.markdown.write_text(page(facts, tables, figures))


if __name__ == "__main__":
    main()
