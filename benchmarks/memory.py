"""Peak memory that a call adds to this process. Linux only."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
# The allocator returns freed memory to the system at once, so that resident memory is memory in use.
LEAN_ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def can_measure() -> bool:
    """Whether the system reports the peak of the resident memory."""
    return STATUS.is_file() and Path("/proc/self/clear_refs").is_file()


def resident(key: str) -> float:
    """VmRSS (now) or VmHWM (highest) of this process in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def added_mib(call: Callable[[], Any]) -> float:
    """MiB that a call adds at its peak; an earlier call, not measured, allocates what is made on first use."""
    call()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of resident memory
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before
