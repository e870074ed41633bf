"""Small file systems and read-only folders that only one process and its children see (Linux)."""

import ctypes
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str | None, target: Path | str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else str(text).encode() for text in (source, target, kind, data)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def _own_mounts() -> None:
    """Give this process its own table of mounts."""
    try:
        _call("unshare", CLONE_NEWNS)
    except OSError:
        user, group = os.getuid(), os.getgid()
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)


def with_own_mounts(function: Callable[[], Any]) -> Any:
    """Call a function in a forked process with its own table of mounts; its JSON-serialisable result.

    Raises
    ------
    OSError
        Where this system does not allow it.
    RuntimeError
        With the traceback of the function.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            _own_mounts()
        except OSError as error:
            answer = {"refused": f"{error}"}
        else:
            try:
                answer = {"value": function()}
            except BaseException:
                answer = {"error": traceback.format_exc()}
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"error": "the process ended without an answer"}')
    if "refused" in answer:
        raise OSError(answer["refused"])
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]


def mount_small(folder: Path, size: int) -> None:
    """Put a file system of `size` bytes in memory on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def fill(folder: Path, free: int) -> None:
    """Leave about `free` bytes on the file system of a folder: everything else goes to the file `filler`."""
    left = shutil.disk_usage(folder).free - free
    if left > 0:
        descriptor = os.open(folder / "filler", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(descriptor, 0, left)
        os.close(descriptor)


def mount_read_only(folder: Path) -> None:
    """Make a folder read-only, for root too, until :func:`unmount`."""
    _mount(str(folder), folder, None, MS_BIND)
    _mount(None, folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def unmount(folder: Path) -> None:
    """Undo the last mount on a folder."""
    _call("umount2", str(folder).encode(), 2)
