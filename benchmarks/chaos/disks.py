"""Full, failing, read-only and vanishing disks."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from . import mounts
from .attempts import Attempt
from .bench import Bench
from .damage import mended
from .judge import Outcome, settle
from .operations import Watch

KINDS = ("config", "data record", "examples", "log", "lock", "checkpoint", "half", "model", "cell", "table")
"""Kinds of file that a sweep writes."""
REPORT_KINDS = ("figure", "report")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ESTALE)
MOUNT_BYTES = 64 << 20


def when(run: Path, kind: str, number: int, act: Callable[[str], None]) -> Callable[[], None]:
    """Installs a function of the path, called before one operation on a file of this kind."""

    def see(count: int, name: str, found: str, path: str) -> None:
        if found == kind and count == number:
            act(path)

    return lambda: Watch(run, see) and None


def _with_own_mounts(function: Callable[[], Outcome]) -> Outcome:
    try:
        return Outcome(**mounts.with_own_mounts(lambda: asdict(function())))
    except OSError as error:
        return Outcome(fired=False, skipped=str(error))


def full_disk(bench: Bench, rng: random.Random) -> Outcome:
    """The disk is full from one write on, in the sweep or in the report; then it has room again."""
    of_report = rng.random() < 0.2
    kinds = REPORT_KINDS if of_report else KINDS
    kind, number = bench.choose(rng, kinds, of_report)
    free = rng.choice([0, 0, 4096, 8192, 16384])

    def disturbed() -> Outcome:
        run = bench.new(rng)
        mounts.mount_small(run.parent, MOUNT_BYTES)
        if of_report:
            shutil.copytree(bench.whole, run)
        fault = when(run, kind, number, lambda path: mounts.fill(run.parent, free))
        first = bench.report(run, fault) if of_report else bench.sweep(run, fault)
        fired = (run.parent / "filler").exists()
        (run.parent / "filler").unlink(missing_ok=True)
        outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
        outcome.fired = fired
        if first.code == 1 and "No space left" not in first.err:
            outcome.ugly.append(f"full disk at {kind}: {first.message}")
        return outcome

    return _with_own_mounts(disturbed)


def read_only(bench: Bench, rng: random.Random) -> Outcome:
    """The folder of the run becomes read-only at some moment, and writable again afterwards."""
    kind, number = bench.choose(rng, KINDS)

    def disturbed() -> Outcome:
        run = bench.new(rng)
        run.mkdir()
        mounts.mount_small(run, MOUNT_BYTES)
        fault = when(run, kind, number, lambda path: mounts.mount_read_only(run))
        first = bench.sweep(run, fault)
        fired = os.statvfs(run).f_flag & os.ST_RDONLY != 0
        if fired:
            mounts.unmount(run)
        outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
        outcome.fired = fired
        if first.code == 1 and str(run) not in first.err:
            outcome.ugly.append(f"read-only at {kind}: {first.message}")
        return outcome

    return _with_own_mounts(disturbed)


def one_error(bench: Bench, rng: random.Random) -> Outcome:
    """One file operation fails with an error of the operating system."""
    run, number_of_error = bench.new(rng), rng.choice(ERRORS)
    kind, number = bench.choose(rng, KINDS)
    trace = run.parent / "fired"

    def fail(path: str) -> None:
        trace.touch()
        raise OSError(number_of_error, os.strerror(number_of_error), path)

    first = bench.sweep(run, when(run, kind, number, fail))
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
    outcome.fired = trace.exists()
    if first.code == 1 and str(run) not in first.err:
        outcome.ugly.append(f"{os.strerror(number_of_error)} at {kind}: {first.message}")
    return outcome


def vanishing(bench: Bench, rng: random.Random) -> Outcome:
    """A folder or a file of the run is removed while the sweep writes another file.

    Models that are removed come back by `spikevae repair`, which the sweep's message must say.
    """
    run = bench.new(rng)
    target = rng.choice(("cells", "models", "checkpoints", "data.json", "examples.npy", "."))
    kind, number = bench.choose(rng, ("cell", "model", "checkpoint", "table"))
    trace = run.parent / "fired"

    def remove(path: str) -> None:
        victim = run / target
        if victim.exists():
            trace.touch()
            shutil.rmtree(victim) if victim.is_dir() else victim.unlink()

    attempts = [bench.sweep(run, when(run, kind, number, remove))]

    def again() -> Attempt:
        attempts.append(bench.sweep(run))
        return attempts[-1]

    outcome = settle(run, bench.expected, again, attempts[:1])
    # The whole run folder (".") takes the models along that were stored before the cell of one of them.
    if target in ("models", ".") and not outcome.wrong and any("spikevae repair" in one.err for one in attempts):
        outcome = mended(bench, run, outcome, run / "models")
    outcome.fired = trace.exists()
    return outcome


def full_temporary_folder(bench: Bench, rng: random.Random) -> Outcome:
    """No room in the folder of temporary files, where the stimuli of the workers go."""

    def disturbed() -> Outcome:
        run = bench.new(rng)
        scratch = run.parent / "temporary"
        mounts.mount_small(scratch, 1 << 16)
        mounts.fill(scratch, rng.choice([0, 4096, 16384]))

        def set_folder() -> None:
            os.environ["TMPDIR"] = str(scratch)

        first = bench.sweep(run, set_folder, jobs=2)
        outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
        if first.code == 1 and "No space left" not in first.err:
            outcome.ugly.append(f"full temporary folder: {first.message}")
        outcome.ugly += [f"left over: {path.name}" for path in scratch.iterdir() if path.name != "filler"]
        return outcome

    return _with_own_mounts(disturbed)
