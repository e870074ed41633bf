"""`python -m chaos`: inject faults, print the table; exit code 1 where anything was lost, wrong or ugly."""

import argparse
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from .attempts import adopt_orphans, children, end_orphans
from .bench import Bench
from .faults import FAULTS, Fault
from .judge import Outcome
from .table import Row, as_text

FAILING = ("lost", "wrong", "ugly")
MAX_EXAMPLES = 3
"""Findings that are printed per fault."""
PROGRESS_EVERY = 50
"""Faults between two lines of progress where standard error is a file."""
NO_TIME = "no time left"
MAX_TRIES = 3
"""How often an injection is tried whose moment came too late, after the command had ended."""


@dataclass(frozen=True)
class Case:
    """One injection."""

    fault: Fault
    number: int
    seed: int
    deadline: float

    def run(self, bench: Bench) -> tuple[str, int, float, Outcome]:
        """Inject the fault; an error of the test itself is a finding too."""
        if time.monotonic() > self.deadline:
            return self.fault.name, self.number, 0.0, Outcome(fired=False, skipped=NO_TIME)
        rng = random.Random(f"{self.seed}/{self.fault.name}/{self.number}")
        began = time.monotonic()
        for _ in range(MAX_TRIES):
            outcome = self._try(bench, rng)
            if outcome.fired or outcome.skipped:
                break
        return self.fault.name, self.number, time.monotonic() - began, outcome

    def _try(self, bench: Bench, rng: random.Random) -> Outcome:
        known = set(children())
        bench.scratch = Path(tempfile.mkdtemp(dir=bench.root))
        try:
            outcome = self.fault.inject(bench, rng)
        except Exception:
            outcome = Outcome(ugly=[f"the test itself failed: {traceback.format_exc()[-800:]}"])
        if end_orphans(known):
            outcome.ugly.append("a process was left over and had to be killed")
        if not (outcome.lost or outcome.wrong or outcome.ugly):
            shutil.rmtree(bench.scratch, ignore_errors=True)
        return outcome


_bench: Bench
"""In the processes that inject faults, which are forked from the one that prepared it."""


def _run(case: Case) -> tuple[str, int, float, Outcome]:
    return case.run(_bench)


def _begin() -> None:
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def inject(bench: Bench, cases: list[Case], n_processes: int) -> dict[str, Row]:
    """Inject faults, several at once; a row for each fault."""
    global _bench
    _bench = bench
    chosen = {case.fault.name for case in cases}
    rows = {fault.name: Row(fault.name) for fault in FAULTS if fault.name in chosen}
    with multiprocessing.get_context("fork").Pool(n_processes, _begin) as pool:
        for count, (name, number, seconds, outcome) in enumerate(pool.imap_unordered(_run, cases), 1):
            rows[name].add(outcome, f"#{number}", seconds)
            if sys.stderr.isatty() or count % PROGRESS_EVERY == 0:
                end = "" if sys.stderr.isatty() else "\n"
                print(f"\r{count} of {len(cases)} faults", end=end, file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--share", action="store_true", help="a part of all that takes two minutes")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--times", type=int, help="times to inject each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes that inject")
    parser.add_argument("--minutes", type=float, default=24.0, help="inject no new fault after so many minutes")
    parser.add_argument("--keep", type=Path, help="keep the run folders of findings here")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    root = given.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    chosen = [fault for fault in FAULTS if given.only.lower() in fault.name.lower()]
    if not chosen:
        parser.error(f"--only {given.only}: no such fault; there are {', '.join(fault.name for fault in FAULTS)}")
    began = time.monotonic()
    bench = Bench.prepare(root.resolve(), with_report=any(fault.with_report for fault in chosen))
    cases = [
        Case(fault, number, given.seed, deadline)
        for fault in chosen
        for number in range(given.times or (fault.share if given.share else fault.times))
    ]
    random.Random(given.seed).shuffle(cases)  # an early end leaves out some of each
    rows = list(inject(bench, cases, max(1, given.jobs)).values())
    command = shlex.join(["python", "-m", "chaos", *sys.argv[1:]])
    minutes, n_left = (time.monotonic() - began) / 60, sum(row.skips[NO_TIME] for row in rows)
    text = (
        f"{as_text(rows)}\n\n`{command}`, {time.strftime('%-d %B %Y')}: {minutes:.0f} minutes, {given.jobs} processes"
        + (f"; {n_left} of {len(cases)} injections were left out, since the time was over." if n_left else ".")
    )
    print(text)
    for row in rows:
        for line in row.examples[:MAX_EXAMPLES]:
            print(line[:500])
    if given.markdown:
        given.markdown.write_text(text + "\n")
    if not given.keep:
        shutil.rmtree(root, ignore_errors=True)
    return int(any(row.counts[name] for row in rows for name in FAILING))


if __name__ == "__main__":
    sys.exit(main())
