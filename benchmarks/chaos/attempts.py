"""One call of the command line in a process of its own, forked from this one, which has everything imported already."""

import ctypes
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
IDLE_SECONDS, MAX_CPU_SECONDS = 90.0, 300.0
WAITING_SECONDS = 6.0
HUNG = -1000
"""Exit code of an attempt that used no processor for `IDLE_SECONDS`, or more of it than `MAX_CPU_SECONDS`."""
NEVER_PRINTED = ("Traceback (most recent", "nan s left", "nan %", "Exception ignored", "leaked", "error of the program")


@dataclass(frozen=True)
class Attempt:
    """How a call of the command line ended."""

    code: int
    """Exit code; minus the number of the signal that ended it; `HUNG`."""
    out: str
    err: str

    @property
    def complaint(self) -> str | None:
        """What nobody should have to read in its output, or None."""
        if self.code == HUNG:
            return f"hangs: {self.err[-300:]}"
        for text in NEVER_PRINTED:
            if text in self.err or text in self.out:
                return f"printed {text!r}: {self.err[-300:]}"
        if self.code not in (0, 130) and self.code > 0 and "spikevae: " not in self.err:
            return f"exit code {self.code} without a message: {self.err[-300:]}"
        return None

    @property
    def message(self) -> str:
        """The last lines of its standard error."""
        return self.err.replace("\r", "\n").strip()[-600:]


class Running:
    """A call of the command line that has been started.

    Parameters
    ----------
    arguments
        Of the command line, without the name of the program.
    before
        Called in the new process before the program starts: it installs the fault.
    environment
        Variables of the new process on top of those of this one.
    """

    def __init__(
        self,
        arguments: list[str],
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ):
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-output-"))
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_program(arguments, before, environment or {})

    def _be_the_program(
        self, arguments: list[str], before: Callable[[], None] | None, environment: dict[str, str]
    ) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(self._folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ.update(environment)
            tempfile.tempdir = None
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            from spikevae.cli import main

            if before is not None:
                before()
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait_for_cpu(self, seconds: float) -> None:
        """Wait until it has used so much processor time, which does not depend on what else runs; or until it ends.

        One that uses none for some seconds waits for something, and is not waited for.
        """
        used, active = -1.0, time.monotonic()
        while (fields := stat_of(self.pid)) and fields[0] != "Z" and (now := cpu_seconds(self.pid)) < seconds:
            if now > used:
                used, active = now, time.monotonic()
            elif time.monotonic() - active > WAITING_SECONDS:
                return
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Send a signal; nothing happens where the process has ended."""
        if self.pid:
            os.kill(self.pid, number)

    def wait(self) -> Attempt:
        """Wait until it ends; it is killed if it hangs."""
        code, used, active, pause = HUNG, 0.0, time.monotonic(), 0.001
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            if time.monotonic() - active > 5:
                now = cpu_seconds(self.pid)
                if now > used:
                    used, active = now, time.monotonic()
                if used > MAX_CPU_SECONDS or time.monotonic() - active > IDLE_SECONDS:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    break
        self.pid = 0
        texts = [
            path.read_text(errors="replace") if path.exists() else ""
            for path in (self._folder / "out", self._folder / "err")
        ]
        shutil.rmtree(self._folder, ignore_errors=True)
        return Attempt(code, *texts)


def attempt(
    arguments: list[str], before: Callable[[], None] | None = None, environment: dict[str, str] | None = None
) -> Attempt:
    """Run the command line once."""
    return Running(arguments, before, environment).wait()


def adopt_orphans() -> None:
    """Become the parent of processes whose parent has died, so that :func:`end_orphans` finds them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def stat_of(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on; None where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def children(of: int | None = None) -> list[int]:
    """Living processes whose parent is this one, or the one given."""
    parent = str(of or os.getpid())
    found = []
    for entry in os.listdir("/proc"):
        fields = stat_of(int(entry)) if entry.isdigit() else None
        if fields and fields[1] == parent and fields[0] != "Z":
            found.append(int(entry))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, its children and theirs."""
    fields = stat_of(pid)
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if fields else 0.0
    return own + sum(cpu_seconds(child) for child in children(pid))


def end_orphans(known: set[int], seconds: float = 90.0) -> int:
    """Wait for processes that attempts left behind, kill those that stay; the number that had to be killed."""
    until = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return 0
        left = [pid for pid in children() if pid not in known]
        if not left:
            return 0
        if time.monotonic() > until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return len(left)
        time.sleep(0.02)


def limit_memory(extra: int) -> None:
    """Let this process allocate at most `extra` bytes more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE") + extra
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
