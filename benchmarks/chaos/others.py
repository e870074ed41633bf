"""Clocks that jump, fits that become NaN, memory that ends, and several processes on one folder."""

import json
import os
import random
import signal
import time
from pathlib import Path

from .attempts import Attempt, Running
from .bench import N_STACKS, Bench
from .disks import KINDS, when
from .judge import Outcome, compare, contents, leftovers, settle
from .stops import die_in

YEAR = 365.25 * 86400


def clock_jumps(bench: Bench, rng: random.Random) -> Outcome:
    """The wall clock jumps by up to ten years in either direction while files are written; then the run goes on.

    The first call is killed half-way, and the files that it left are dated by the changed clock.
    """
    run = bench.new(rng)
    jump = rng.choice([-1, 1]) * rng.choice([5.0, 3700.0, 86400.0, YEAR, 10 * YEAR])
    kind, number = bench.choose(rng, KINDS)
    true_time = time.time

    def jumped(path: str) -> None:
        time.time = lambda: true_time() + jump

    before, delay = when(run, kind, number, jumped), rng.uniform(0.3, 2.0) * bench.seconds

    def both() -> None:
        before()
        die_in(delay)

    first = bench.sweep(run, both)
    for path in run.rglob("*"):
        if path.is_file():
            os.utime(path, (true_time() + jump,) * 2)
    return settle(run, bench.expected, lambda: bench.sweep(run), [first])


def nan_in_one_fit(bench: Bench, rng: random.Random) -> Outcome:
    """The parameters of one fit of a stack become NaN at a step: it is marked as diverged, and no other changes."""
    run, trace = bench.new(rng), bench.scratch / "poisoned.json"
    stack_number, step, share = rng.randrange(N_STACKS), rng.randrange(5, 35), rng.random()

    def poison() -> None:
        import torch

        from spikevae.training.stack import Stack

        usual, stacks = Stack.step, []

        def poisoned_step(self: Stack) -> None:
            if self not in stacks:
                stacks.append(self)
            if stacks.index(self) == stack_number and self.step_number == step:
                fit = int(share * len(self))
                name = rng.choice(sorted(self.by_gradient))
                with torch.no_grad():
                    self.params[name][fit] = torch.nan
                beta = self.configs[fit].beta, self.configs[fit].start, self.configs[fit].latent
                trace.write_text(json.dumps(beta))
            usual(self)

        Stack.step = poisoned_step

    first = bench.sweep(run, poison)
    outcome = Outcome(fired=trace.exists())
    if not outcome.fired:
        return outcome
    beta, start, latent = json.loads(trace.read_text())
    cells = [json.loads(path.read_text()) for path in run.glob("cells/*.json")]
    (victim,) = (
        name
        for name, row in bench.expected["table"].items()
        if (row["beta"], row["start"], row["latent"]) == (repr(beta), repr(start), repr(latent))
    )
    if first.complaint or first.code:
        outcome.ugly.append(first.complaint or f"exit code {first.code}: {first.message}")
    if not any(cell["id"] == victim and cell["diverged"] for cell in cells):
        outcome.wrong.append(f"{victim} is not marked as diverged")
    expected = {part: dict(cells) for part, cells in bench.expected.items()}
    expected["table"] = {name: _own_numbers(row) for name, row in expected["table"].items()}
    found = contents(run)
    found["table"] = {name: _own_numbers(row) for name, row in found["table"].items()}
    outcome.lost, outcome.wrong = (
        a + b for a, b in zip((outcome.lost, outcome.wrong), compare(found, expected, [victim]))
    )
    return outcome


def _own_numbers(row: dict[str, str]) -> dict[str, str]:
    """A row without the columns that depend on other fits of its group."""
    return {k: v for k, v in row.items() if k not in ("convergence", "best_of_group", "budget_change", "start_gap")}


def memory_ends(bench: Bench, rng: random.Random) -> Outcome:
    """A stack of several fits does not get the memory that it asks for: it is trained in parts, to equal results."""
    run, trace = bench.new(rng), bench.scratch / "refused"
    largest, step = rng.choice([1, 2]), rng.randrange(0, 35)

    def limit() -> None:
        import torch

        from spikevae.training.stack import Stack

        usual = Stack.step

        def step_in_little_memory(self: Stack) -> None:
            if len(self) > largest and self.step_number == step:
                trace.touch()
                torch.empty(1 << 60, dtype=torch.uint8)  # raises the error of an allocation that fails
            usual(self)

        Stack.step = step_in_little_memory

    first = bench.sweep(run, limit)
    outcome = Outcome(fired=trace.exists())
    if first.complaint:
        outcome.ugly.append(first.complaint)
    if first.code:
        outcome.asked.append(first.message)
        bench.sweep(run)
    found = contents(run)
    outcome.lost += [
        f"{part}: no {cell}" for part, cells in bench.expected.items() for cell in set(cells) - set(found[part])
    ]
    for cell, row in bench.expected["table"].items():
        for name in ("fit_objective", "objective"):
            other = found["table"].get(cell, row)
            if abs(float(other[name]) - float(row[name])) > ROUNDING * abs(float(row[name])):
                outcome.wrong.append(f"{cell}: {name} is {other[name]}, not {row[name]}")
    outcome.ugly += [f"left over: {name}" for name in leftovers(run)]
    return outcome


ROUNDING = 1e-3
"""Largest relative difference between objectives of fits that train in stacks of different sizes."""


def two_processes(bench: Bench, rng: random.Random) -> Outcome:
    """The same command twice at once on one folder: both end well or say why not, and no stack is trained twice."""
    run = bench.new(rng)
    running = [bench.start(run)]
    running[0].wait_for_cpu(rng.choice([0.0, rng.uniform(0, bench.seconds)]))
    running.append(bench.start(run))
    attempts = [one.wait() for one in running]
    outcome = Outcome()
    if all(one.code for one in attempts):
        outcome.lost.append(f"neither of two processes ended well: {attempts[0].message} {attempts[1].message}")
    trained = _stacks_trained(run)
    outcome.wrong += [f"{a.code}: {a.message}" for a in attempts if a.code == 0 and _incomplete(bench, run)]
    rest = settle(run, bench.expected, lambda: bench.sweep(run), _in_order(attempts))
    for name in ("lost", "wrong", "ugly", "asked"):
        getattr(outcome, name).extend(getattr(rest, name))
    if trained > N_STACKS:
        outcome.ugly.append(f"{trained} stacks were trained where {N_STACKS} would do")
    return outcome


def _in_order(attempts: list[Attempt]) -> list[Attempt]:
    return sorted(attempts, key=lambda one: one.code == 0)


def _incomplete(bench: Bench, run: Path) -> bool:
    return bool(compare(contents(run), bench.expected)[0])


def _stacks_trained(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count('"event": "stack"') if log.exists() else 0


def two_sweeps(bench: Bench, rng: random.Random) -> Outcome:
    """Two different sweeps into one new folder: one is done, the other one says why it is not."""
    run = bench.new(rng)
    other = run.parent / "other.toml"
    other.write_text(bench.config.read_text().replace("beta = [0.5, 2.0]", "beta = [0.25]"))
    running = [bench.start(run)]
    running[0].wait_for_cpu(rng.choice([0.0, 0.0, rng.uniform(0, 0.1)]))
    running.append(Running([*bench.sweep_arguments(run)[:1], str(other), *bench.sweep_arguments(run)[2:]]))
    if rng.random() < 0.5:
        running.reverse()
    attempts = {one.pid: one for one in running}
    ended = [one.wait() for one in attempts.values()]
    outcome = Outcome()
    outcome.ugly += [one.complaint for one in ended if one.complaint]
    if sum(one.code == 0 for one in ended) != 1:
        outcome.wrong.append(f"exit codes {[one.code for one in ended]}: {[one.message for one in ended]}")
    stored = json.loads((run / "config.json").read_text())
    planned = {str(cell["id"]) for cell in stored["cells"]}
    found = set(contents(run)["table"])
    if found != planned:
        outcome.lost.append(f"the table has {len(found)} of {len(planned)} cells")
    strangers = {path.stem for path in run.glob("cells/*.json")} - planned
    if strangers:
        outcome.wrong.append(f"cells of another sweep: {sorted(strangers)}")
    return outcome


def suspended(bench: Bench, rng: random.Random) -> Outcome:
    """A process is suspended while another one is given the same command; both go on afterwards."""
    run = bench.new(rng)
    running = bench.start(run)
    while not (run / "config.json").exists():
        time.sleep(0.001)
    running.wait_for_cpu(rng.uniform(0, bench.seconds))
    running.send(signal.SIGSTOP)
    second = bench.start(run)
    second.wait_for_cpu(rng.uniform(0, 2 * bench.seconds))
    running.send(signal.SIGCONT)
    attempts = [running.wait(), second.wait()]
    return settle(run, bench.expected, lambda: bench.sweep(run), _in_order(attempts))
