"""Files that are whole or not there, files that can be read to an end, and names that can be shown."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a scratch file beside `path`, which takes its place once it is written; its folder is made.

    Raises
    ------
    OSError
        With the file's name and the remedy where it cannot be written; what stood there before still does.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
        mode = stat.S_IMODE(scratch.stat().st_mode)  # as the umask has it; safetensors puts a private file there
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
    """Refuse what is not a file that can be read: a pipe would be waited for, a device read, without end.

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
