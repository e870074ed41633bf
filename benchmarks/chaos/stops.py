"""Processes that are killed or told to stop, at moments that the seed chooses."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .attempts import Running, children, cpu_seconds, stat_of
from .bench import Bench
from .judge import Outcome, settle
from .operations import Watch

PHASES = {
    "checkpoint": ("checkpoint", "half"),
    "append": ("cell", "model", "log"),
    "table": ("table",),
    "begin": ("config", "data record", "examples", "folder", "lock"),
}
"""Kinds of file that are written in each phase of a sweep."""
MAX_DELAY = 0.004
"""Processor seconds from the beginning of an operation within which the process is killed, in the middle of a write."""
SLOWER = 1.05
"""Longest time until a kill, as a multiple of the time that the undisturbed run takes."""


def die_in(seconds: float) -> None:
    """Let the kernel end this process after so much processor time: no Python code runs any more."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-6))


def die_at(run: Path, kind: str, number: int, delay: float) -> Callable[[], None]:
    """Installs the end of the process, `delay` seconds after an operation on a file of this kind begins."""

    def act(count: int, name: str, found: str, path: str) -> None:
        if found == kind and count == number:
            if delay:
                die_in(delay)
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: Watch(run, act) and None


def killed(code: int) -> bool:
    """Whether an exit code is that of a process that the kernel ended."""
    return code in (-signal.SIGKILL, -signal.SIGPROF)


def kill_while_writing(bench: Bench, rng: random.Random, phase: str) -> Outcome:
    """SIGKILL at a file operation of a phase, or a few milliseconds after it begins."""
    run = bench.new(rng)
    kind, number = bench.choose(rng, PHASES[phase])
    first = bench.sweep(run, die_at(run, kind, number, rng.choice([0.0, rng.uniform(0, MAX_DELAY)])))
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
    outcome.fired = killed(first.code)
    return outcome


def kill_while_training(bench: Bench, rng: random.Random) -> Outcome:
    """SIGKILL at any time after the first file of the run is written, twice in every third case."""
    run, attempts = bench.new(rng), []
    for _ in range(2 if rng.random() < 1 / 3 else 1):
        delay = rng.uniform(0, SLOWER * bench.seconds)
        attempts.append(bench.sweep(run, lambda delay=delay: die_in(delay)))
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), attempts)
    outcome.fired = any(killed(one.code) for one in attempts)
    return outcome


def kill_while_reporting(bench: Bench, rng: random.Random) -> Outcome:
    """SIGKILL while the report is written: it can be written again, and the results stay."""
    run = bench.copy_of_whole(rng)
    pages = [path for path in (run / "report.html", run / "figures" / "cost.png") if path.exists()]
    before = {path: path.stat().st_size for path in pages}
    kind, number = bench.choose(rng, ("figure", "report"), of_report=True)
    first = bench.report(run, die_at(run, kind, number, rng.choice([0.0, rng.uniform(0, 10 * MAX_DELAY)])))
    whole = [path for path in pages if not path.exists() or path.stat().st_size < 0.5 * before[path]]
    outcome = settle(run, bench.expected, lambda: bench.report(run), [first])
    outcome.fired = killed(first.code)
    outcome.lost += [f"{path.name} is gone or cut off after a kill" for path in whole]
    return outcome


def signal_to_parent(bench: Bench, rng: random.Random, number: int) -> Outcome:
    """SIGTERM or Ctrl-C at any time: exit code 130, and the same command continues."""
    run = bench.new(rng)
    running = bench.start(run)
    while not (run / "config.json").exists():
        time.sleep(0.001)
    running.wait_for_cpu(cpu_seconds(running.pid) + rng.uniform(0, bench.seconds))
    running.send(number)
    first = running.wait()
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
    outcome.fired = first.code != 0  # else it ended before the signal came
    if first.code not in (0, 130):
        outcome.ugly.append(f"exit code {first.code} after signal {number}: {first.message}")
    return outcome


def workers_of(pid: int) -> list[int]:
    """Worker processes of a sweep."""
    return [child for child in children(pid) if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _until_working(running: Running, seconds: float) -> list[int]:
    """Wait until one of the workers has used so much processor time; the workers that there are then."""
    while (found := workers_of(running.pid)) == [] or max(map(cpu_seconds, found)) < seconds:
        if stat_of(running.pid) is None or stat_of(running.pid)[0] == "Z":
            return []
        time.sleep(0.01)
    return found


def worker_killed(bench: Bench, rng: random.Random) -> Outcome:
    """SIGKILL to one of two workers: another one trains its stack."""
    run = bench.new(rng)
    running = bench.start(run, jobs=2)
    found = _until_working(running, rng.uniform(0, WORKER_SECONDS))
    if found:
        os.kill(rng.choice(found), signal.SIGKILL)
    first = running.wait()
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
    outcome.fired = bool(found)
    return outcome


WORKER_SECONDS = 3.0
"""About the processor time of a worker."""


def parent_killed(bench: Bench, rng: random.Random) -> Outcome:
    """SIGKILL to the parent of two workers; the same command is given at once, while they may still be at work."""
    run = bench.new(rng)
    running = bench.start(run, jobs=2)
    _until_working(running, rng.uniform(0, WORKER_SECONDS))
    running.send(signal.SIGKILL)
    first = running.wait()
    outcome = settle(run, bench.expected, lambda: bench.sweep(run), [first])
    outcome.fired = killed(first.code)
    return outcome
