"""What results were made with: versions of the packages, and the machine."""

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("spikevae", "torch", "numpy", "scipy", "scikit-learn", "scikit-image")


@cache
def versions() -> dict[str, str]:
    """Version of each package that takes part in the numbers, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # on the path, but not installed
            found[name] = "unknown"
    return found


def machine() -> dict[str, Any]:
    """System, processor and number of CPUs, and the GPU where one is in use."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_initialized() else None
    return {"system": platform.system(), "processor": _processor(), "cpus": os.cpu_count(), "gpu": gpu}


@cache
def _processor() -> str:
    """Name of the processor; its architecture where Linux does not say it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
