"""The sweep that faults are injected into, and what it gives without faults."""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from .attempts import Attempt, Running, attempt
from .judge import Contents, contents
from .operations import Operation, Watch

SWEEP = """
[data]
source = "synthetic"
n = 200
patch = 8
[[blocks]]
label = "one"
fit = { n_latents = 4, batch_size = 50, steps = 40, latent = "poisson" }
grid = { beta = [0.5, 2.0], start = [-1.0, 0.5] }
[[blocks]]
label = "two"
fit = { n_latents = 3, batch_size = 50, steps = 40, latent = "rectified_gaussian" }
grid = { beta = [0.5, 2.0] }
"""
"""Two stacks, of four fits and of two, that train in a fraction of a second."""
N_STACKS = 2
CHECKPOINT_SECONDS = 0.03
"""Seconds between checkpoints, so that a short training has many."""


def save_often() -> None:
    """Let this process write checkpoints every `CHECKPOINT_SECONDS` instead of every 20 seconds."""
    from spikevae.training import loop

    assert loop.SAVE_EVERY_SECONDS > 1
    loop.SAVE_EVERY_SECONDS = CHECKPOINT_SECONDS


@dataclass
class Bench:
    """A folder with the sweep, the run without faults, and a record of what that run did to its files."""

    root: Path
    expected: Contents = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    """Of the sweep, with checkpoints `CHECKPOINT_SECONDS` apart."""
    report_operations: list[Operation] = field(default_factory=list)
    seconds: float = 0.0
    """Processor time of the sweep from its first file operation, which does not depend on what else runs."""
    scratch: Path = Path()
    """Folder of the present injection."""

    @classmethod
    def prepare(cls, root: Path, *, with_report: bool = True) -> "Bench":
        """Import what sweeps need, run the sweep (and the report) without faults, and record what it does."""
        bench = cls(root)
        root.mkdir(parents=True, exist_ok=True)
        bench.config.write_text(SWEEP)
        warm_up(bench, with_report)
        bench.operations, bench.seconds = bench._recorded(bench.sweep_arguments(bench.whole))
        if with_report:
            bench.report_operations, _ = bench._recorded(["report", str(bench.whole)])
        bench.expected = contents(bench.whole)
        bench._stop_halfway()
        assert len(bench.expected["table"]) == len(bench.expected["cells"]) == len(bench.expected["models"]) == 6
        return bench

    @property
    def stopped(self) -> Path:
        """A run folder that was stopped by a kill: some cells are done, and there is a checkpoint."""
        return self.root / "stopped"

    def _stop_halfway(self) -> None:
        seen: Counter[str] = Counter()

        def die(number: int, name: str, kind: str, path: str) -> None:
            if name == "rename" and (kind == "cell" or (kind == "checkpoint" and seen["cell"])):
                seen[kind] += 1
            if seen["checkpoint"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        killed = self.sweep(self.stopped, lambda: Watch(self.stopped, die) and None)
        assert killed.code == -signal.SIGKILL, killed.err
        assert list(self.stopped.glob("checkpoints/*.safetensors")) and list(self.stopped.glob("cells/*.json"))

    @property
    def config(self) -> Path:
        return self.root / "sweep.toml"

    @property
    def whole(self) -> Path:
        """The run folder without faults, with its report."""
        return self.root / "whole"

    def new(self, rng: random.Random) -> Path:
        """A name for a run folder that does not exist."""
        return Path(tempfile.mkdtemp(dir=self.scratch)) / f"run{rng.randrange(1000)}"

    def sweep_arguments(self, run: Path, jobs: int = 1) -> list[str]:
        jobs_of_one = ["--device", "cpu", "--no-report", "--jobs", str(jobs)]
        return ["sweep", str(self.config), "--out", str(run), *jobs_of_one]

    def start(self, run: Path, before: Callable[[], None] | None = None, jobs: int = 1) -> Running:
        """Start the sweep in a process of its own, which writes checkpoints often."""

        def prepared() -> None:
            save_often()
            if before is not None:
                before()

        return Running(self.sweep_arguments(run, jobs), prepared)

    def sweep(self, run: Path, before: Callable[[], None] | None = None, jobs: int = 1) -> Attempt:
        """Run or continue the sweep."""
        return self.start(run, before, jobs).wait()

    def report(self, run: Path, before: Callable[[], None] | None = None) -> Attempt:
        """Write the report of a run."""
        return attempt(["report", str(run)], before)

    def copy_of_whole(self, rng: random.Random) -> Path:
        """A run folder with everything that a finished run has."""
        run = self.new(rng)
        shutil.copytree(self.whole, run)
        return run

    def choose(self, rng: random.Random, kinds: Collection[str], of_report: bool = False) -> tuple[str, int]:
        """One operation of the run without faults on a file of these kinds: its kind, and number within the kind.

        Every kind is as likely as any other.
        """
        counts = Counter(kind for _, kind in (self.report_operations if of_report else self.operations))
        kind = rng.choice(sorted(kind for kind in kinds if counts[kind]))
        return kind, rng.randrange(counts[kind])

    def _recorded(self, arguments: list[str]) -> tuple[list[Operation], float]:
        """Operations and seconds of a call that must succeed."""
        listing = self.root / "operations.jsonl"
        listing.unlink(missing_ok=True)

        def record() -> None:
            save_often()
            handle = open(listing, "a", buffering=1)  # noqa: SIM115 - closed when the process ends

            def note(number: int, name: str, kind: str, path: str) -> None:
                handle.write(json.dumps([time.process_time(), name, kind]) + "\n")

            Watch(self.whole, note)

        done = attempt(arguments, record)
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in listing.read_text().splitlines()]
        return [(name, kind) for _, name, kind in lines], lines[-1][0] - lines[0][0]


def warm_up(bench: Bench, with_report: bool) -> None:
    """Import and use everything once in this process, so that the processes forked from it start at once."""
    import contextlib
    import io

    from spikevae.cli import main

    run = bench.root / "warm-up"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(bench.sweep_arguments(run)) or (with_report and main(["report", str(run)]))
    assert code == 0, errors.getvalue()
    shutil.rmtree(run)
