"""How the C library of this process treats memory that was freed."""

import ctypes
import os
import sys
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
"""Variables by which a user decides this; then nothing is changed."""
KEPT = {MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}


def keep_freed_memory() -> None:
    """Let freed memory be used again instead of going back to the kernel; where the C library is not glibc, nothing.

    A training step makes and drops arrays of megabytes. By default glibc asks the kernel for each and gives it back,
    and the page faults cost a good part of the time. It is for programs: a library has no business to decide this.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in CHOSEN):
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            for parameter, value in KEPT.items():
                mallopt(parameter, value)
