"""The executor that a sweep takes unless it is given one."""

import os

from . import Executor
from .inline import InlineExecutor
from .local import LocalExecutor


def default_executor(device: str, n_jobs: int | None) -> Executor:
    """Worker processes on a CPU, this process where one job is asked for or on a GPU.

    Parameters
    ----------
    device
        Torch device, without "auto".
    n_jobs
        Worker processes; None: one for each CPU that this process may use.
    """
    if device != "cpu" or n_jobs == 1:
        return InlineExecutor()
    return LocalExecutor(n_jobs or len(os.sched_getaffinity(0)))
