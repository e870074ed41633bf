"""Several processes on one run folder: who is there, and who trains which stack.

Each process keeps a file `locks/process-TOKEN.json` with its machine and process number, and touches it every few
seconds. A stack in training has a file `locks/stack-ID` with the token of its process. A process counts as gone when,
on this machine, no such process runs; or elsewhere, when its file was not touched for `STALE_SECONDS`. Both times come
from the file system, so that clocks of machines need not agree. What a process that is gone had taken is taken over.
Should two processes train one stack nevertheless, both write the same numbers.
"""

import json
import os
import platform
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from .._files import create

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
MAX_LOCK_BYTES = 10_000


class Presence:
    """This process in a run folder, from `with` to its end.

    Parameters
    ----------
    run
        The run folder; its folder `locks` is made, and removed by the last process that leaves.
    """

    def __init__(self, run: Path):
        self.folder = run / "locks"
        self.token = secrets.token_hex(8)
        self._file = self.folder / f"process-{self.token}.json"
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        create(self._file, json.dumps(identity()).encode())
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        alone = not self.others()
        self._ended.set()
        for path in self._claims():
            holder = _read(path)
            if holder == self.token:
                _discard(path)
            elif alone:  # of a process that was killed
                self._remove(path, holder)
        for path in (*(self.folder.glob("gone-*") if alone else ()), self._file):
            _discard(path)
        with suppress(OSError):
            self.folder.rmdir()  # fails where another process is there

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self._touch()

    def _touch(self) -> None:
        try:
            os.utime(self._file)
        except FileNotFoundError:  # somebody took this process for gone, or emptied the folder
            with suppress(OSError):
                if not self._ended.is_set():
                    create(self._file, json.dumps(identity()).encode())
        except OSError:
            pass

    def _claims(self) -> list[Path]:
        return [*self.folder.glob("stack-*")]

    def others(self) -> int:
        """Number of other processes that are there; files of those that are gone are removed."""
        self._touch()
        count = 0
        for path in self.folder.glob("process-*.json"):
            if path == self._file:
                continue
            if self._is_there(path):
                count += 1
            else:
                _discard(path)
        return count

    def _is_there(self, path: Path) -> bool:
        """Whether the process of a file is there still."""
        try:
            age = self._file.stat().st_mtime - path.stat().st_mtime
            found = json.loads(_read(path))
        except (OSError, ValueError):
            return False
        own = identity()
        if isinstance(found, dict) and all(found.get(name) == own[name] for name in ("host", "boot", "namespace")):
            return _started(found.get("pid")) == found.get("started") is not None
        return age < STALE_SECONDS

    def claim(self, stack_id: str) -> bool:
        """Take a stack for this process; False where another process that is there has it."""
        path = self.folder / f"stack-{stack_id}"
        for _ in range(3):
            if create(path, self.token.encode()):
                return True
            holder = _read(path)
            if holder == self.token:
                return True
            if holder and self._is_there(self.folder / f"process-{holder}.json"):
                return False
            self._remove(path, holder)
        return False

    def _remove(self, path: Path, holder: str) -> None:
        """Remove a claim of a process that is gone, unless somebody else was faster and has it now."""
        aside = path.with_name(f"gone-{secrets.token_hex(8)}")
        with suppress(OSError):
            path.rename(aside)
            if _read(aside) != holder:
                os.link(aside, path)
        _discard(aside)

    def release(self, stack_id: str) -> None:
        """Give a stack back."""
        path = self.folder / f"stack-{stack_id}"
        if _read(path) == self.token:
            _discard(path)


def _discard(path: Path) -> None:
    """Remove a lock; one that cannot be removed counts as left by a process that is gone, once this one has ended."""
    with suppress(OSError):
        path.unlink()


def _read(path: Path) -> str:
    """Text of a lock; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_LOCK_BYTES).decode(errors="replace")
    except OSError:
        return ""


def identity() -> dict[str, Any]:
    """Facts that identify a process on this machine; process numbers are unique within a namespace only."""
    facts = {"host": platform.node(), "boot": "", "namespace": "", "pid": os.getpid(), "started": _started(os.getpid())}
    with suppress(OSError):
        facts["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        facts["namespace"] = os.readlink("/proc/self/ns/pid")
    return facts


def _started(pid: Any) -> str | None:
    """When a process of this machine was started, in ticks since boot; None where no such process runs.

    Where there is no /proc, the text "running" stands for a process that runs.
    """
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "running"
