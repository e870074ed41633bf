"""What every verb of the command line does: input checked, places to write to checked, results printed, ends heeded."""

import json
import os
import signal
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UsageError(Exception):
    """The command was given something that it cannot use; ends with exit code 2."""


@contextmanager
def checking_input() -> Iterator[None]:
    """What is wrong with the user's input ends with exit code 2, not 1."""
    try:
        yield
    except ValueError as error:
        from pydantic import ValidationError

        from ._records import readable

        text = readable(error, error.title) if isinstance(error, ValidationError) else str(error)
        raise UsageError(text) from None
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(str(error)) from None


def check_out(path: Path, *, folder: bool) -> None:
    """Refuse a place that results cannot be written to, before there are any."""
    if path.exists() and path.is_dir() != folder:
        raise ValueError(f"{path} is a {'file' if folder else 'folder'}; name a {'folder' if folder else 'file'}")
    place = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir():
        raise ValueError(f"{path}: {place} is a file, so nothing can be written below it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: no permission to write to {place}")


def emit(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the result: JSON for programs, text for people."""
    if as_json:
        from ._json import jsonable

        print(json.dumps(jsonable(facts)))
    else:
        from rich.console import Console

        Console(highlight=False, soft_wrap=True).print(printable(text, keep="\n"), markup=False)


@contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """A program that is told to end, or whose terminal is closed, stops as by Ctrl-C: with its checkpoints written.

    Where Ctrl-C is ignored, as in the background of a shell script, it ends at once.
    """
    heeded = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if threading.current_thread() is not threading.main_thread() or not heeded:
        yield
        return
    taken = {number for number in ENDINGS if signal.getsignal(number) is signal.SIG_DFL}
    for number in taken:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def printable(text: object, keep: str = "") -> str:
    r"""A text from anywhere as any terminal and UTF-8 hold it: what a terminal obeys (but characters in `keep`) and
    bytes that could not be decoded are escaped.

    Examples
    --------
    >>> print(printable("a\udcff\x1b[1m.png"))
    a\udcff\x1b[1m.png
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in OBEYED and c not in keep else c
        for c in str(text)
    )


OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, format, surrogate and line characters."""
