"""What a process does to the files of a run: seen before it happens, so that a fault can be put in its place."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {  # audit events of Python that change files, and which of their arguments is the path
    "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.chmod": 0, "os.truncate": 0, "os.link": 1,
    "os.symlink": 1,
}  # fmt: skip
KINDS = (
    ("figures/", "figure"),
    ("report.html", "report"),
    ("cells.parquet", "table"),
    ("cells/", "cell"),
    ("models/", "model"),
    (r"checkpoints/.*half\.json", "half"),
    ("checkpoints/", "checkpoint"),
    ("config.json", "config"),
    ("data.json", "data record"),
    ("examples.npy", "examples"),
    ("locks/", "lock"),
    ("log", "log"),
    (r"\.?$", "folder"),
)
"""Kinds of file of a run folder, by how the path below it begins."""
Operation = tuple[str, str]
"""Name of an operation, and kind of the file that it changes."""


def kind_of(path: str, run: Path) -> str | None:
    """The kind of a path below a run folder; None of paths elsewhere."""
    path = os.path.abspath(path)
    if path != str(run) and not path.startswith(f"{run}/"):
        return None
    inside = os.path.relpath(path, run)
    return next((kind for pattern, kind in KINDS if re.match(pattern, inside)), "other")


class Watch:
    """Calls a function before each operation that changes files of a run, in this process, from now on.

    Parameters
    ----------
    run
        The run folder.
    act
        Called with (number of the operation among those on files of its kind, name, kind, path). What it raises is
        raised by the operation.
    """

    def __init__(self, run: Path, act: Callable[[int, str, str, str], None]):
        self.run, self.act = run, act
        self._counts: Counter[str] = Counter()
        self._busy = False
        sys.addaudithook(self._audit)
        fsync = os.fsync

        def watched_fsync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            self._see("fsync", os.readlink(f"/proc/self/fd/{number}"))
            fsync(handle)

        os.fsync = watched_fsync

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES:
                self._see("open", path)
        elif event in EVENTS:
            self._see(event.removeprefix("os."), arguments[EVENTS[event]])

    def _see(self, name: str, path: Any) -> None:
        if self._busy or not isinstance(path, str | bytes | os.PathLike):
            return
        text = os.fsdecode(path)
        kind = kind_of(text, self.run)
        if kind is None:
            return
        self._busy = True
        try:
            self.act(self._counts[kind], name, kind, text)
        finally:
            self._busy = False
            self._counts[kind] += 1
