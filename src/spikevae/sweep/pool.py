"""Worker processes on this machine, one thread each.

Small matrix products do not use several threads well, and threads that wait for each other are slow on a busy machine;
independent processes avoid both. A worker reads ids of stacks from its standard input and writes lines of JSON to its
standard output. After the parent process has died the next line cannot be written, and the worker ends too. One thread
also makes results independent of the number of cores.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

WORKER_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
MAX_STOP_SECONDS = 60.0  # that an interrupted worker may take to write its checkpoint


def run_stacks(
    stack_ids: Sequence[str],
    run: Path,
    data: Path,
    *,
    n_workers: int,
    on_message: Callable[[dict[str, Any]], None],
) -> None:
    """Train the named stacks of a run folder.

    Parameters
    ----------
    stack_ids
        Ids from the run's plan, in the order of training.
    run, data
        The run folder, and the file of stimuli that the workers map into memory.
    n_workers
        Number of processes.
    on_message
        Called with each line that a worker writes: {"work": ..., "text": ...} or {"done": stack id, ...}.

    Raises
    ------
    RuntimeError
        With the error of a worker.
    KeyboardInterrupt
        After the workers have written their checkpoints.
    """
    messages: Queue[tuple[int, dict[str, Any] | None]] = Queue()
    workers = [_start(run, data, number, messages) for number in range(min(n_workers, len(stack_ids)))]
    waiting: Iterator[str] = iter(stack_ids)
    alive = len(workers)
    try:
        for worker in workers:
            _assign(worker, next(waiting, None))
        while alive:
            number, message = messages.get()
            if message is None:
                alive -= 1
                if workers[number].wait() != 0:
                    raise RuntimeError(f"a worker process ended with exit code {workers[number].returncode}")
            elif "error" in message:
                raise RuntimeError(message["error"])
            else:
                finished = "done" in message
                on_message(message)
                if finished:
                    _assign(workers[number], next(waiting, None))
    except BaseException:
        _stop(workers)
        raise
    finally:
        for worker in workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()


def _start(
    run: Path, data: Path, number: int, messages: "Queue[tuple[int, dict[str, Any] | None]]"
) -> "subprocess.Popen[str]":
    worker = subprocess.Popen(
        [sys.executable, "-m", "spikevae.sweep.worker", str(run), str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **WORKER_ENVIRONMENT},
        start_new_session=True,  # only the parent gets a Ctrl-C, and passes it on once
    )

    def read_messages() -> None:
        assert worker.stdout is not None
        with suppress(ValueError):  # the pipe was closed during a read
            for line in worker.stdout:
                messages.put((number, json.loads(line)))
        messages.put((number, None))

    threading.Thread(target=read_messages, daemon=True).start()
    return worker


def _assign(worker: "subprocess.Popen[str]", stack_id: str | None) -> None:
    """Send the worker its next stack, or the end of its input."""
    assert worker.stdin is not None
    if stack_id is None:
        worker.stdin.close()
        return
    try:
        worker.stdin.write(stack_id + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        raise RuntimeError(f"a worker process ended with exit code {worker.wait()}") from None


def _stop(workers: "Sequence[subprocess.Popen[str]]") -> None:
    """Interrupt the workers, so that they write their checkpoints; kill those that take too long."""
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGINT)
    for worker in workers:
        try:
            worker.wait(MAX_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
