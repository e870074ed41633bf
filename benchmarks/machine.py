"""The machine on which timings were taken, and how long a case is timed."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

import spikevae
from spikevae.training import Stack, recorded

MIN_SECONDS, MIN_REPEATS = 4.0, 2
"""A case is timed for so long and with so many counted repeats."""


def machine() -> dict[str, str | int | float]:
    """Processor, cores, threads, load and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "waiting threads": os.environ.get("OMP_WAIT_POLICY", "active").lower(),
        "spin count": os.environ.get("GOMP_SPINCOUNT", "not set"),
        "torch": torch.__version__,
        "numba": version("numba") if find_spec("numba") else "not installed",
        "spikevae": spikevae.__version__,
    }


def processor() -> str:
    """Name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def step_of_a_long_fit(stack: Stack) -> Callable[[], None]:
    """The stack's step once it is recorded, which a fit does on its way: here within the first two steps."""
    usual, recorded.CALLS_BEFORE_TRACE = recorded.CALLS_BEFORE_TRACE, 1
    try:
        for _ in range(3):
            stack.step()
    finally:
        recorded.CALLS_BEFORE_TRACE = usual
    return stack.step


def enough(began: float, counted: int) -> bool:
    """Whether a case has been timed for long enough (`perf_counter` seconds since `began`) after so many repeats."""
    return counted >= MIN_REPEATS and time.perf_counter() - began > MIN_SECONDS
