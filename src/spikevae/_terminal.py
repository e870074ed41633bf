"""What all verbs of the command line share: checks of input and output paths, printing, signals."""

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
    """Invalid input of the user; the program ends with exit code 2."""


@contextmanager
def checking_input() -> Iterator[None]:
    """Turn errors of the user's input into :class:`UsageError`, so that the exit code is 2 and not 1."""
    try:
        yield
    except ValueError as error:
        from pydantic import ValidationError

        from ._records import validation_message

        text = validation_message(error, error.title) if isinstance(error, ValidationError) else str(error)
        raise UsageError(text) from None
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(str(error)) from None


def check_out(path: Path, *, folder: bool) -> None:
    """Refuse a path that results cannot be written to, before they are computed."""
    if path.exists() and path.is_dir() != folder:
        raise ValueError(f"{path} is a {'file' if folder else 'folder'}; name a {'folder' if folder else 'file'}")
    nearest = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ValueError(f"{path}: {nearest} is a file, so nothing can be written below it")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: no permission to write to {nearest}")


def emit(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the result: JSON for programs, text for people."""
    if as_json:
        from ._json import jsonable

        print(json.dumps(jsonable(facts)))
    else:
        from rich.console import Console

        Console(highlight=False, soft_wrap=True).print(printable(text, keep="\n"), markup=False)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP (a closed terminal) as Ctrl-C, so that training writes its checkpoints.

    Where Ctrl-C is ignored, as in the background of a shell script, these signals end the program at once.
    """
    handles_interrupts = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if threading.current_thread() is not threading.main_thread() or not handles_interrupts:
        yield
        return
    replaced = {number for number in TERMINATION_SIGNALS if signal.getsignal(number) is signal.SIG_DFL}
    for number in replaced:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


TERMINATION_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def printable(text: object, keep: str = "") -> str:
    r"""Escape control characters, except those in `keep`, and bytes that could not be decoded.

    Examples
    --------
    >>> print(printable("a\udcff\x1b[1m.png"))
    a\udcff\x1b[1m.png
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ESCAPED_CATEGORIES and c not in keep else c
        for c in str(text)
    )


ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control, format, surrogate, line and paragraph separator characters."""
