"""Data-parallel training: the processes that `torchrun` starts train each stack of fits together.

The first process runs the program. All others follow it: for each stack that it trains they get the configurations, the
stimuli and the present state, and take part in every step. Each process computes the objective and the gradient for its
rows of every batch; the means over the processes are exchanged once a step, in one buffer. All processes then make the
same step. Random numbers are those of one process, so the fits are too, to rounding. Only the first process reads and
writes files, prints and evaluates.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._scope import own_scope
from ..config import FitConfig
from .build import build_stack
from .fits import FitStack
from .ranks import Ranks, RanksLost, activated, active_ranks

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets."""
TIMEOUT = timedelta(days=30)
"""How long a process waits for the others, which may evaluate or write a report; one that has ended is noticed at
once."""
CONNECT_TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others to start."""
Result = TypeVar("Result")


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun, or a program like it, started."""
    return all(name in os.environ for name in VARIABLES) and os.environ["WORLD_SIZE"] not in ("", "0", "1")


def data_parallel(program: Callable[[], Result]) -> Result | None:
    """Run a program, whose fits all processes that `torchrun` started train together.

    The first process runs the program, the others help it to train; started without torchrun, this process runs the
    program and trains alone.

    Parameters
    ----------
    program
        Trains whatever it likes: estimators, sweeps, stacks. Fits that it trains in threads or processes of its own are
        trained by the first process alone.

    Returns
    -------
    What `program` returns, in the first process; None in the others.

    Raises
    ------
    spikevae.training.RanksLost
        Where another process has ended.

    Examples
    --------
    >>> import numpy as np
    >>> from spikevae import SpikeVAE
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> model = data_parallel(lambda: SpikeVAE(n_latents=8, steps=40, random_state=0).fit(X))
    """
    if active_ranks() is not None or not started_by_torchrun():
        return program()
    import torch.distributed as group

    started = not group.is_initialized()
    if started:
        _connect()
    ranks = Ranks(group.get_rank(), group.get_world_size())
    try:
        if ranks.rank:
            _follow(ranks)
            return None
        try:
            with activated(ranks):
                return program()
        finally:
            if ranks.failure is None:
                ranks.send(None)
    finally:
        if started and ranks.failure is None:
            group.destroy_process_group()


def _connect() -> None:
    """Make the process group of the processes that torchrun started.

    Raises
    ------
    RanksLost
        Where they do not find each other.
    """
    import torch.distributed as group
    from torch.distributed.rendezvous import rendezvous

    with_gpus = torch.cuda.is_available() and group.is_nccl_available()
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=CONNECT_TIMEOUT)))
        backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
        group.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        names = ", ".join(VARIABLES)
        raise RanksLost(
            f"the {os.environ['WORLD_SIZE']} processes that train together do not meet at {where}: {error}. Start them "
            f"with torchrun; to start one process alone, remove {names} from the environment"
        ) from error


@contextmanager
def together(stack: FitStack, last: int) -> Iterator[Callable[[bool], bool]]:
    """Train a stack with the other processes, if there are any, up to the step `last`.

    Gives a function to be called after every step with whether training is to stop here; it returns the same, and sends
    it to the other processes.

    Raises
    ------
    ValueError
        Where the stack cannot be trained by this number of processes.
    """
    ranks = active_ranks()
    if ranks is None:
        yield lambda stop: stop
        return
    stack.join(ranks)
    stopped = False

    def agree(stop: bool) -> bool:
        nonlocal stopped
        stopped = stopped or ranks.flag(stop)
        return stopped

    try:
        _send_stack(ranks, stack, last)
        yield agree
    except BaseException as error:
        if not stopped:
            ranks.failure = ranks.failure or f"training ended by {type(error).__name__} ({error})"
        raise
    finally:
        stack.join(None)


def _send_stack(ranks: Ranks, stack: FitStack, last: int) -> None:
    """Give the other processes all that they need to train a stack."""
    ranks.send(
        {
            "fits": [config.model_dump(mode="json") for config in stack.configs],
            "shape": stack.shape,
            "window": stack.window,
            "device": stack.device.type,
            "last": last,
            "stimuli": stack.data_digest,
        }
    )
    if ranks.flag(ranks.stimuli != stack.data_digest):
        ranks.send_tensors({"train": stack.stimuli.cpu()})
        ranks.stimuli = stack.data_digest
    ranks.send_tensors(stack.state())


def _follow(ranks: Ranks) -> None:
    """Take part in the training of each stack that the first process trains, until it ends.

    Signals are left to the first process: it stops all others after a complete step.
    """
    with _signals_ignored():
        train = torch.empty(0)
        while (given := ranks.send(None)) is not None:
            if ranks.flag(False):
                train = ranks.send_tensors(None)["train"]
            _train_along(ranks, given, train)


@own_scope()
def _train_along(ranks: Ranks, given: dict[str, Any], train: Tensor) -> None:
    """Train the stack that the first process has described."""
    # All weights follow with the state, so the start of a fit need not be computed.
    configs = [FitConfig.model_validate({**fit, "init": "random"}) for fit in given["fits"]]
    device = _own_device(ranks) if given["device"] == "cuda" else given["device"]
    stack = build_stack(configs, train, tuple(given["shape"]), device=device, window=given["window"])
    stack.load_state(ranks.send_tensors(None))
    stack.join(ranks)
    while not stack.finished and stack.step_number < given["last"]:
        stack.step()
        if ranks.flag(False):
            return
    if stack.finished:
        stack.finish()


def _own_device(ranks: Ranks) -> str:
    """The GPU of this process."""
    number, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= n_gpus:
        raise RuntimeError(
            f"process {ranks.rank} of {ranks.size} is number {number + 1} of this machine, which has {n_gpus} GPUs: "
            f"start {n_gpus} processes (torchrun --nproc-per-node {max(n_gpus, 1)}), or train with --device cpu"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextmanager
def _signals_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
