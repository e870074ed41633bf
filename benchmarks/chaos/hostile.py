"""Hostile files given to every reader, in processes whose time, memory and actions are watched."""

import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from spikevae._terminal import printable

from .attempts import limit_memory
from .bench import Bench
from .crafted import CRAFTED
from .judge import Outcome
from .mutations import CANARY
from .operations import EVENTS, WRITES
from .readers import Reader, readers

BATCH = 250
"""Inputs of one process."""
MAX_CPU_SECONDS, MAX_SECONDS = 10.0, 400.0
MAX_GROWTH = 512 << 20
"""Memory in bytes that the reading of one small file may take."""
ALL_MEMORY = 6 << 30
"""Memory in bytes that a process is never given, so that the machine stays usable."""
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen"),
    *(
        "socket.connect",
        "socket.getaddrinfo",
        "pickle.find_class",
        "webbrowser.open",
        "shutil.rmtree",
        "ftplib.connect",
    ),
)
ALLOWED_PLACES = ("/dev/null", "/proc/self/")


def inject_batch(bench: Bench, rng: random.Random, name: str) -> Outcome:
    """Read `BATCH` mutated files with one reader."""
    reader = readers(bench.whole)[name]
    folder = bench.scratch / "hostile"
    folder.mkdir()
    valid = reader.write(folder)
    contents = [path.read_bytes() for path in valid]
    inputs = []
    for _ in range(BATCH):
        chosen = rng.randrange(len(valid))
        inputs.append((valid[chosen], reader.mutate(contents[chosen], rng, contents)))
    outcome = read_all(reader, folder, inputs, valid)
    outcome.times = len(inputs)
    return outcome


def inject_crafted(bench: Bench, rng: random.Random) -> Outcome:
    """Read every file of the list of known attacks."""
    whole = Outcome(times=0)
    for number, (name, make) in enumerate(CRAFTED):
        reader = readers(bench.whole)[name]
        folder, others = (bench.scratch / f"{part}{number}" for part in ("crafted", "valid"))
        folder.mkdir()
        others.mkdir()
        target = make(folder, reader.write(folder))  # it may change a valid file, so others are read before it
        found = read_all(reader, folder, [(target, None)], reader.write(others))
        whole.times += 1
        for part in ("lost", "wrong", "ugly"):
            getattr(whole, part).extend(f"{make.__name__}: {line}" for line in getattr(found, part))
    return whole


def read_all(reader: Reader, folder: Path, inputs: list[tuple[Path, bytes | None]], valid: list[Path]) -> Outcome:
    """Read inputs one after the other; where one ends the process, a new process goes on behind it."""
    outcome = Outcome()
    place = mmap.mmap(-1, 8)
    findings, errors = (folder.parent / f"{folder.name}.{name}" for name in ("findings", "errors"))
    Path(CANARY).unlink(missing_ok=True)
    begin = 0
    while begin < len(inputs):
        place[:] = struct.pack("<q", begin)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
                _read_from(reader, folder, inputs, valid, begin, place, findings)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            break
        if code == 1:
            raise RuntimeError(f"{folder.name}: {errors.read_text()[-800:]}")
        (at,) = struct.unpack("<q", place[:])
        reason = {-signal.SIGPROF: "takes too long", -signal.SIGALRM: "waits for ever"}.get(code, f"ends with {code}")
        outcome.lost.append(f"{reason}: {_shown(*inputs[at])}")
        begin = at + 1
    if findings.exists():
        for line in findings.read_text().splitlines():
            kind, text = json.loads(line)
            getattr(outcome, kind).append(text)
    if Path(CANARY).exists():
        outcome.wrong.append("code inside an input was executed")
    return outcome


def _read_from(
    reader: Reader,
    folder: Path,
    inputs: list[tuple[Path, bytes | None]],
    valid: list[Path],
    begin: int,
    place: mmap.mmap,
    findings: Path,
) -> None:
    """Body of a process that reads inputs from number `begin` on."""
    warnings.simplefilter("ignore")
    for path in valid:
        reader.read(path)  # imports everything, and shows that the valid files are valid
    originals = {path: path.read_bytes() for path in valid}
    log = open(findings, "a", buffering=1)  # noqa: SIM115 - closed when the process ends
    done: list[str] = []
    _watch_actions(folder, done)
    limit_memory(ALL_MEMORY)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def note(kind: str, text: str) -> None:
        log.write(json.dumps([kind, text]) + "\n")

    for number in range(begin, len(inputs)):
        path, content = inputs[number]
        place[:] = struct.pack("<q", number)
        if content is not None:
            path.write_bytes(content)
        done.clear()
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
        try:
            reader.read(path)
        except Exception as error:
            if complaint := _complaint(reader, path, error):
                note("ugly", f"{complaint} on {_shown(path, content)}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if done:
            note("wrong", f"{done[0]} on {_shown(path, content)}")
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if 1024 * (now - peak) > MAX_GROWTH:
            note("lost", f"takes {(now - peak) / 1e6:.1f} GB: {_shown(path, content)}")
        peak = max(peak, now)
        if path in originals:
            path.write_bytes(originals[path])


def _complaint(reader: Reader, path: Path, error: Exception) -> str | None:
    """What is wrong with an error, or None."""
    text = str(error)
    if type(error) not in reader.errors:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} ({text[:100]}) from {Path(where.filename).name}:{where.lineno}"
    if reader.names_file and path.name not in text and printable(path.name) not in text:
        return f"message without the file: {text[:100]}"
    return None


def _shown(path: Path, content: bytes | None) -> str:
    return f"{path.name} ({len(content or b'')} bytes) {(content or b'')[:60]!r}"


def _watch_actions(folder: Path, done: list[str]) -> None:
    """Note whatever a reader must not do."""
    inside = (str(folder.parent), *ALLOWED_PLACES)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            done.append(f"{event} {str(arguments)[:80]}")
            return
        if event == "open":
            path = arguments[0] if isinstance(arguments[2], int) and arguments[2] & WRITES else None
        else:
            path = arguments[EVENTS[event]] if event in EVENTS else None
        if isinstance(path, str | bytes) and not os.path.abspath(os.fsdecode(path)).startswith(inside):
            done.append(f"{event} {os.fsdecode(path)}")

    sys.addaudithook(audit)
