"""Atomic writes of files, and checks of paths before anything is read or written there."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

SCRATCH = ".tmp"
"""End of the names of scratch files."""
MAX_NAME_BYTES = 200
"""Of the name of a file within that of its scratch file; file systems allow 255 bytes."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with `~` replaced by the home folder.

    Raises
    ------
    ValueError
        Where it is empty, holds a NUL character, or there is no home folder.

    Examples
    --------
    >>> user_path("runs/a").as_posix()
    'runs/a'
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("an empty path was given; give the name of a file or folder")
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL character, which no path can")
    expanded = os.path.expanduser(text)
    if expanded == text and (text == "~" or text.startswith("~/")):
        raise ValueError(f"{text}: the home folder that ~ stands for is not known; write the whole path")
    return Path(expanded)


def check_target(path: Path) -> os.stat_result | None:
    """Refuse a path that :func:`atomic_write` cannot write to; the status of the file that is there, None if none is.

    Symbolic links are followed, as by any program that writes.

    Raises
    ------
    OSError
        With the name of the path and the remedy.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; choose another name") from None
    if found is None:
        above = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
        if not above.is_dir():
            raise OSError(f"{path} cannot be written: {above} is a file; choose another name")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} cannot be written: no permission to write to {above}")
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is a device, pipe or socket, which a file would replace; name a file")
    # An administrator may write to every file: the permission bits say what its owner wants.
    if not found.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only; make it writable (chmod u+w) or choose another name")
    return found


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a scratch file beside `path` that replaces it once it is written; missing folders are made.

    The file keeps the permissions and the owner of the one before; where `path` is a symbolic link, the file that it
    points to is replaced.

    Raises
    ------
    OSError
        Where the file cannot be written: the message has its name and the remedy, and the old file is unchanged.
    """
    path = user_path(path)
    before = check_target(path)
    target = Path(os.path.realpath(path))
    name = os.fsdecode(os.fsencode(target.name)[:MAX_NAME_BYTES])
    scratch = target.with_name(f"{name}.{secrets.token_hex(8)}{SCRATCH}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = stat.S_IMODE((before or scratch.stat()).st_mode)  # safetensors would write a private file
        yield scratch
        with open(scratch, "r+b") as file:
            os.fsync(file.fileno())
        if before is not None:
            with suppress(OSError):
                os.chown(scratch, before.st_uid, before.st_gid)
        scratch.chmod(mode)
        os.replace(scratch, target)
        _sync_folder(target.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"{path} cannot be written: {reason}; free space there or make it writable, and give the same command again"
        ) from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as :func:`atomic_write` does."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)


def create(path: Path, content: bytes) -> bool:
    """Write a new file whole; False, with nothing changed, where the name is taken.

    Of several processes that do this at once, one succeeds.

    Raises
    ------
    OSError
        As :func:`atomic_write`.
    """
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}{SCRATCH}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with open(path, "xb") as file:
                file.write(content)
        _sync_folder(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}; free space there or make it writable") from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
    return True


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as far as the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    except OSError as error:  # a link to itself, a name that is too long, a folder that may not be read
        raise PermissionError(f"no {kind} at {path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise FileNotFoundError(f"no {kind} at {path}, which is a folder")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no regular file, so no {kind}")
    with open(path, "rb"):
        pass
