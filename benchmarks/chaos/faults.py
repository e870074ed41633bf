"""Every fault that is injected, how often, and the function that injects it."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import damage, disks, hostile, others, stops
from .bench import Bench
from .judge import Outcome


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    times: int
    share: int
    """Times in the short run."""
    inject: Callable[[Bench, random.Random], Outcome]
    with_report: bool = False
    """Whether it needs the run without faults to have a report."""


FAULTS = (
    Fault("SIGKILL while training", 60, 4, stops.kill_while_training),
    Fault("SIGKILL while the run begins", 50, 3, partial(stops.kill_while_writing, phase="begin")),
    Fault("SIGKILL in a checkpoint", 60, 4, partial(stops.kill_while_writing, phase="checkpoint")),
    Fault("SIGKILL while a result is stored", 60, 4, partial(stops.kill_while_writing, phase="append")),
    Fault("SIGKILL in the table", 50, 3, partial(stops.kill_while_writing, phase="table")),
    Fault("SIGKILL in the report", 50, 1, stops.kill_while_reporting, True),
    Fault("SIGTERM", 25, 2, partial(stops.signal_to_parent, number=signal.SIGTERM)),
    Fault("Ctrl-C", 25, 2, partial(stops.signal_to_parent, number=signal.SIGINT)),
    Fault("one worker killed", 12, 1, stops.worker_killed),
    Fault("parent of workers killed", 8, 0, stops.parent_killed),
    Fault("disk full", 80, 4, disks.full_disk, True),
    Fault("temporary folder full", 6, 1, disks.full_temporary_folder),
    Fault("one failed file operation", 80, 4, disks.one_error),
    Fault("folder read-only", 40, 3, disks.read_only),
    Fault("folder or file removed", 40, 3, disks.vanishing),
    Fault("clock jumps", 25, 2, others.clock_jumps),
    Fault("file cut off", 80, 5, partial(damage.damaged, change=damage.cut_off), True),
    Fault("one bit changed", 120, 7, partial(damage.damaged, change=damage.flip_bit), True),
    Fault("report of a damaged run", 30, 1, damage.report_of_damaged, True),
    Fault("NaN in one fit of a stack", 30, 2, others.nan_in_one_fit),
    Fault("no memory for a stack", 20, 2, others.memory_ends),
    Fault("two processes on one folder", 30, 3, others.two_processes),
    Fault("one process suspended, another on its folder", 10, 1, others.suspended),
    Fault("two sweeps into one folder", 25, 2, others.two_sweeps),
)
HOSTILE = {
    "configurations (TOML)": 56,
    "configurations (tables)": 60,
    "settings (--set)": 24,
    "arrays (npy, npz)": 60,
    "images": 32,
    "idx files": 40,
    "model files": 44,
    "recordings (csv, npy, npz)": 52,
    "run folders": 24,
    "checkpoints": 8,
}
"""Batches of hostile files, `hostile.BATCH` inputs each: 100,000 in all."""
FAULTS += tuple(
    Fault(f"hostile {name}", batches, max(1, batches // 40), partial(hostile.inject_batch, name=name))
    for name, batches in HOSTILE.items()
)
FAULTS += (Fault("hostile files made by hand", 1, 1, hostile.inject_crafted),)
