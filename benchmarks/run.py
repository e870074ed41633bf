"""`make bench`: every benchmark of this folder on this machine. Prints tables; writes a file only with --json FILE."""

import argparse
import json
from pathlib import Path

import iterative
import sampler
import stacks
from machine import machine

BENCHMARKS = {"iterative": iterative.compare, "sampler": sampler.compare, "stacks": stacks.compare}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: python benchmarks/run.py sampler --json s.json"
    )
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write machine and rows to this file")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    results = {}
    for name in chosen.names or BENCHMARKS:
        results[name], text = BENCHMARKS[name]()
        print(f"\n{name}\n{text}", flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": facts, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
