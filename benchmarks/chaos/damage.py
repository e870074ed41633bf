"""Files of a run that are cut off or changed in one bit between two calls of the command."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from .attempts import attempt
from .bench import Bench
from .judge import Outcome, settle


def files_of(run: Path) -> list[Path]:
    """Regular files of a run with content, in a fixed order."""
    return sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)


def choose_file(run: Path, rng: random.Random) -> Path:
    """A file of the run; every kind (folder, and name or suffix) is as likely as any other."""
    kinds: dict[str, list[Path]] = {}
    for path in files_of(run):
        inside = path.relative_to(run)
        kinds.setdefault(f"{inside.parts[0]}{path.suffix if len(inside.parts) > 1 else ''}", []).append(path)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def cut_off(path: Path, rng: random.Random) -> None:
    """Truncate a file at any byte, to nothing in every fifth case."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(0 if rng.random() < 0.2 else rng.randrange(size))


def flip_bit(path: Path, rng: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def damaged(bench: Bench, rng: random.Random, change: Callable[[Path, random.Random], None]) -> Outcome:
    """One file of a finished run, or of one that was stopped, is damaged.

    The command must end with the results of the undisturbed run, after `spikevae verify` and `repair` where a finished
    file is damaged that nothing reads. A damaged config.json is refused by a message that says to put back a copy.
    """
    run = bench.new(rng)
    shutil.copytree(bench.whole if rng.random() < 0.6 else bench.stopped, run)
    victim = choose_file(run, rng)
    copy = victim.read_bytes()
    change(victim, rng)
    first = bench.sweep(run)
    refused = first.code == 2 and victim.name == "config.json" and f"{victim} " in first.err
    if refused and "put back a copy of it" in first.err:
        victim.write_bytes(copy)
        outcome = settle(run, bench.expected, lambda: bench.sweep(run))
        outcome.asked.append(first.message)
        outcome.ugly += [first.complaint] if first.complaint else []
        return outcome
    return mended(bench, run, settle(run, bench.expected, lambda: bench.sweep(run), [first]), victim)


def mended(bench: Bench, run: Path, outcome: Outcome, victim: Path) -> Outcome:
    """The outcome after `spikevae verify` and `repair`, where the command alone does not bring back a finished file.

    Parameters
    ----------
    victim
        A file or folder that is damaged or removed; the output of `verify` must name it.
    """
    if not outcome.lost and not outcome.wrong:
        return outcome
    verified = attempt(["verify", str(run)])
    repaired = attempt(["repair", str(run)])
    if verified.code == 0 or victim.name not in verified.out + verified.err or repaired.code != 0:
        outcome.ugly.append(f"verify does not name {victim.relative_to(run)}: {verified.message}")
        return outcome
    last = settle(run, bench.expected, lambda: bench.sweep(run))
    last.ugly += outcome.ugly
    last.asked += [*outcome.asked, verified.message]
    return last


def report_of_damaged(bench: Bench, rng: random.Random) -> Outcome:
    """The report of a run with a damaged file is written, or its message names the file; results stay."""
    run = bench.copy_of_whole(rng)
    victim = choose_file(run, rng)
    rng.choice((cut_off, flip_bit))(victim, rng)
    before = victim.read_bytes()
    first = bench.report(run)
    outcome = Outcome()
    if first.complaint:
        outcome.ugly.append(first.complaint)
    if first.code not in (0, 1, 2):
        outcome.ugly.append(f"exit code {first.code}")
    if first.code in (1, 2) and victim.name not in first.err:
        outcome.ugly.append(f"{victim.relative_to(run)} is not named: {first.message}")
    made_again = victim.relative_to(run).parts[0] in ("figures", "report.html", "log.jsonl")
    if not made_again and victim.read_bytes() != before:
        outcome.wrong.append(f"the report changed {victim.relative_to(run)}")
    return outcome
