"""What all verbs of the command line share: checks of input and output paths, printing, signals."""

import codecs
import io
import os
import signal
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._files import check_target, user_path


def prepare_streams() -> None:
    """Make standard output and error take every character, and stand in for those that are closed.

    What an encoding lacks is written in characters that it has. A closed stream would give its number to the next file
    that is opened, and whatever prints would write there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the program runs
    codecs.register_error("spikevae.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="spikevae.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replacement of what an encoding lacks; see :func:`codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    found = "".join(PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in missing)
    return found, error.end


GREEK = dict(zip("βαγλστμΔ", ("beta", "alpha", "gamma", "lambda", "sigma", "tau", "mu", "Delta")))
POWERS = {sign: f"^{digit}" for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")}
SIGNS = {
    "−": "-",
    "–": "-",
    "×": "x",
    "·": "*",
    "√": "sqrt",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "±": "+-",
    **GREEK,
    **POWERS,
}
PLAIN = SIGNS | GREEK | POWERS
"""Signs of the texts of this package in ASCII."""


def flush_output() -> None:
    """Write what standard output still holds, so that an error of it is an error of the program.

    Raises
    ------
    OSError
        Where it cannot be written; with a reader that has gone, nothing is raised.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        raise _unwritable(error) from None


def _unwritable(error: OSError) -> OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in memory would fail again at exit
    return OSError(f"standard output cannot be written: {error.strerror}; results in files are complete")


def debugging() -> bool:
    """Whether tracebacks are printed: SPIKEVAE_DEBUG=1."""
    return os.environ.get("SPIKEVAE_DEBUG") == "1"


def keep_traceback(error: BaseException) -> Path | None:
    """Append the traceback of an error to a file of the user, and give its path; None where it cannot be written."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    path = home / "spikevae" / "errors.log"
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(sys.argv)!r}\n" + "".join(traceback.format_exception(error))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        grown = path.is_file() and path.stat().st_size > MAX_LOG_BYTES
        with open(path, "w" if grown else "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except (OSError, RuntimeError):  # no home folder, or its disk is full
        return None
    return path


MAX_LOG_BYTES = 1 << 20


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


def check_out(path: Path, *, folder: bool) -> Path:
    """The path, with `~` expanded; one that results cannot be written to is refused before they are computed."""
    path = user_path(path)
    try:
        if not folder:
            check_target(path)
        elif path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; name a folder")
        else:
            check_target(path / "a file")
    except OSError as error:
        raise ValueError(str(error)) from None
    return path


def emit(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the result: JSON for programs, text for people.

    Raises
    ------
    OSError
        As :func:`flush_output`.
    """
    if as_json:
        from ._json import json_text

        shown = json_text(facts)
    else:
        shown = printable(text, keep="\n")
    try:
        print(shown)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(error) from None
    flush_output()


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
