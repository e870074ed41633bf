"""`make bench-gpu`: correctness and speed on one GPU, in at most eight minutes; writes benchmarks/RESULTS_GPU.md.

It needs nothing but the package, pytest with beartype (for the tests), and a PyTorch that finds a GPU: `PYTHONPATH=src
python benchmarks/gpu.py`. Results are written after every row, so that a run which is cut off still counts. Stages have
shares of the time; a stage whose share is spent says what it left out. `--dry-run` does the same with tiny sizes, on a
CPU where there is no GPU: it shows that the script works, and its times say nothing.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gpu_checks
import gpu_steps
import torch
from gpu_rows import OutOfTime, Setting, Table
from machine import machine

from spikevae.training import recorded

SECONDS = 470.0
"""Time of a whole run: what starts and ends around it takes the rest of eight minutes."""
STAGES: dict[str, tuple[Callable[[Setting, Table], None], float, str]] = {
    # name: function, share of the time until which it may run, what it shows
    "correctness": (gpu_checks.correctness, 0.22, "Tests that need a GPU, and the sampler against exact moments"),
    "sampler": (gpu_checks.sampler, 0.3, "Relaxed Poisson counts, forward and backward"),
    "step": (gpu_steps.steps, 0.55, "One training step of a linear Poisson model"),
    "stacks": (gpu_steps.stacks, 0.65, "Fits that train together"),
    "grid": (gpu_steps.grid, 0.75, "The published grid: measured stacks, and its whole budget projected"),
    "dictionary": (gpu_steps.dictionary, 0.8, "A sparse dictionary of the size that interpretability uses"),
    "whole fits": (gpu_steps.whole_fits, 1.0, "A tenth of the published epochs of the four smallest sizes, run whole"),
}


@dataclass
class Report:
    """What has been measured so far, as a page."""

    path: Path
    facts: dict[str, str | int | float]
    tables: dict[str, Table] = field(default_factory=dict)

    def write(self) -> None:
        lines = ["# Results on a GPU", "", "Written by `make bench-gpu` on", ""]
        lines += [f"- {key}: {value}" for key, value in self.facts.items()]
        for name, table in self.tables.items():
            lines += ["", f"## {name[0].upper()}{name[1:]}", "", f"{STAGES[name][2]}.", "", *table.markdown()]
        self.path.write_text("\n".join(lines) + "\n")


def facts(setting: Setting) -> dict[str, str | int | float]:
    """The machine, with its card."""
    if setting.on_gpu:
        properties = torch.cuda.get_device_properties(setting.device)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    else:
        card = "none: a dry run on a CPU, whose times say nothing"
    return {"card": card, "sizes": "tiny" if setting.dry else "full", **machine()}


def run(path: Path, *, dry: bool, names: list[str], seconds: float = SECONDS) -> Report:
    """Run the named stages and write the page; an error of one stage is written down, and the next one runs."""
    usual, recorded.CALLS_BEFORE_TRACE = recorded.CALLS_BEFORE_TRACE, 1  # stacks are soon what they are in long fits
    try:
        return _run(path, dry, names, seconds)
    finally:
        recorded.CALLS_BEFORE_TRACE = usual


def _run(path: Path, dry: bool, names: list[str], seconds: float) -> Report:
    began = time.monotonic()
    setting = Setting(torch.device("cuda" if torch.cuda.is_available() else "cpu"), dry, began)
    report = Report(path, facts(setting))
    for name in names:
        stage, share, _ = STAGES[name]
        setting.deadline = began + share * seconds
        table = report.tables[name] = Table(report.write)
        print(f"\n{name}", flush=True)
        try:
            stage(setting, table)
        except OutOfTime as error:
            table.say(f"Cut off: {error}.")
        except Exception as error:
            if dry:
                raise
            table.say(f"Failed: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
        table.say(f"{time.monotonic() - began:.0f} s after the start.")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help=f"which of {', '.join(STAGES)}; all by default")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, also without a GPU; writes no page")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS_GPU.md"), metavar="FILE")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.stages if name not in STAGES]:
        parser.error(f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    if not (chosen.dry_run or torch.cuda.is_available()):
        sys.exit("PyTorch finds no GPU here: `--dry-run` runs the same script with tiny sizes on the CPU")
    run(Path("/dev/null") if chosen.dry_run else chosen.out, dry=chosen.dry_run, names=chosen.stages or list(STAGES))


if __name__ == "__main__":
    main()
