"""What this process may use of the machine: CPUs and memory, as Linux's control groups limit them."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNLIMITED = 1 << 60
"""Limits of memory from here on mean that there is none."""


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: the fewer of its affinity and of the quota of its control groups, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(root, "cpu"):
        with suppress(OSError, ValueError):
            if (group / "cpu.max").is_file():
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota.strip() not in ("max", "-1"):
                count = min(count, math.ceil(int(quota) / int(period)))
    return max(count, 1)


def available_bytes(table: Path = Path("/proc/meminfo"), root: Path = Path("/")) -> int | None:
    """Memory that this process can take: what is free without swapping, as Linux estimates it, or what its control
    groups leave if that is less; None on other systems."""
    free = None
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    for group in _groups(root, "memory"):
        with suppress(OSError, ValueError):
            if (group / "memory.max").is_file():
                limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            else:
                names = ("limit_in_bytes", "usage_in_bytes")
                limit, used = ((group / f"memory.{name}").read_text().strip() for name in names)
            if limit != "max" and int(limit) < UNLIMITED:
                left = max(int(limit) - int(used) + _reclaimable(group), 0)
                free = left if free is None else min(free, left)
    return free


def _reclaimable(group: Path) -> int:
    """Bytes of files in memory, which the kernel gives up first; they count as used in a group."""
    with suppress(OSError, KeyError, ValueError):
        found = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(found.get("inactive_file") or found["total_inactive_file"])
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control group of this process and of all groups above it, for version 2 and version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if controllers == "":
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        own = top / inside.lstrip("/")  # a container may not see its own group, but sees the top
        while own != top and top in own.parents:
            yield own
            own = own.parent
        yield top
