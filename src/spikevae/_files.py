"""Atomic writes of files, and a check that a path is a regular file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a scratch file beside `path` that replaces it once it is written; missing folders are made.

    Raises
    ------
    OSError
        Where the file cannot be written: the message has its name and the remedy, and the old file is unchanged.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
        mode = stat.S_IMODE(scratch.stat().st_mode)  # as the umask sets it; safetensors would write a private file
        yield scratch
        with open(scratch, "r+b") as file:
            os.fsync(file.fileno())
        scratch.chmod(mode)
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"{path} cannot be written: {reason}; free space there or make it writable, and give the same command again"
        ) from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def check_regular(path: Path, kind: str) -> None:
    """Refuse what is not a regular file: reading a pipe or a device may never end.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        With the file's name.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no {kind} at {path}") from None
    if stat.S_ISDIR(mode):
        raise FileNotFoundError(f"no {kind} at {path}, which is a folder")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no regular file, so no {kind}")
    with open(path, "rb"):
        pass
