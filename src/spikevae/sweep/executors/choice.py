"""The executor that a sweep takes unless it is given one."""

import warnings
from collections.abc import Sequence

from ..._machine import available_bytes, usable_cpus
from ...training.checks import check_memory, needed_bytes
from ...training.ranks import active_ranks
from ..plan import StackPlan
from . import Executor
from .inline import InlineExecutor
from .local import LocalExecutor

WORKER_BYTES = 200_000_000
"""Memory of a worker besides its stack, mostly of torch: measured, without the pages that all workers share."""


def default_executor(
    device: str, n_jobs: int | None, plans: Sequence[StackPlan], shape: tuple[int, ...], n_train: int
) -> Executor:
    """Worker processes on a CPU; this process where one job is asked for, on a GPU, or where several train together.

    Parameters
    ----------
    device
        Torch device, without "auto".
    n_jobs
        Worker processes; None: one for each CPU that this process may use, fewer where the memory is short.
    plans, shape, n_train
        What is to be trained, the shape of a stimulus, and the number of training stimuli.

    Raises
    ------
    ValueError
        Where the stacks need more memory than there is.
    """
    if device == "cpu":
        for plan in plans:
            check_memory(plan.cells[0].config, shape, len(plan.cells), n_train=n_train)
    if device != "cpu" or n_jobs == 1 or active_ranks() is not None:
        return InlineExecutor()
    wanted = min(n_jobs or usable_cpus(), len(plans))
    needs = [needed_bytes(plan.cells[0].config, shape, len(plan.cells), n_train=n_train) for plan in plans]
    fitting = workers_that_fit(needs, wanted, available_bytes())
    if fitting < wanted:
        text = f"the memory that is free holds {fitting} workers with the largest stacks of this sweep"
        if n_jobs is not None:
            raise ValueError(
                f"{text}, not {n_jobs}: ask for {fitting} (--jobs {fitting}), or lower n_latents, hidden or batch_size"
            )
        warnings.warn(f"{text}: {fitting} of {wanted} CPUs are used", stacklevel=2)
    return LocalExecutor(fitting)


def workers_that_fit(needs: Sequence[int], wanted: int, free: int | None) -> int:
    """How many workers have memory for the largest of these stacks at the same time, from 1 to `wanted`.

    Examples
    --------
    >>> workers_that_fit([8_000_000_000, 2_000_000_000, 4_000_000_000], 3, 13_000_000_000)
    2
    """
    if free is None:
        return wanted
    largest = sorted(needs, reverse=True)
    fitting = 1
    while fitting < wanted and sum(largest[: fitting + 1]) + (fitting + 1) * WORKER_BYTES <= free:
        fitting += 1
    return fitting


def dask_executor(scheduler: str | None, n_jobs: int | None, device: str) -> Executor:
    """The workers of a Dask cluster, or `n_jobs` processes of a new one on this machine.

    Raises
    ------
    ValueError
        Without dask.distributed; the message names the extra that installs it.
    """
    try:
        from .dask import DaskExecutor
    except ImportError as error:
        raise ValueError(f"--executor dask: {error}; install it with pip install 'spikevae[cluster]'") from None
    return DaskExecutor(scheduler, n_workers=n_jobs, device=device)
