"""Worker processes on this machine, one thread each.

Small matrix products do not use several threads well, and threads that wait for each other are slow on a busy machine;
independent processes avoid both. One thread also makes results independent of the number of cores. What a worker prints
goes to standard error; it talks to this process over a socket (:mod:`spikevae.sweep.worker`).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any, final

from ..plan import StackPlan
from ..work import Failure, Work
from . import Executor

WORKER_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PROGRAM = "import sys; sys.path.append(sys.argv.pop()); from runpy import run_module; " + (
    "run_module('spikevae.sweep.worker', run_name='__main__', alter_sys=False)"
)
"""Run by workers. The folder of this package comes last on the path: it need not be installed."""
PACKAGE_FOLDER = str(Path(__file__).parents[3])
MAX_STOP_SECONDS = 60.0  # that an interrupted worker may take to write its checkpoint
MAX_FAILED_STARTS = 3
POLL_SECONDS = 1.0


@final
class LocalExecutor(Executor):
    """Trains in worker processes on this machine, on the CPU.

    Parameters
    ----------
    n_workers
        Number of processes; fewer where there are fewer stacks.
    """

    def __init__(self, n_workers: int):
        self.n_workers = n_workers

    def run(self, work: Work) -> None:
        with work.stimuli.shared() as (file, facts):
            _Pool(work, {"file": file, "facts": facts, "run": str(work.run.absolute())}, self.n_workers).run()


class _Worker:
    """A process, and the stack that it trains."""

    def __init__(self, task: dict[str, Any], messages: "Queue[tuple[_Worker, dict[str, Any] | None]]"):
        self.plan: StackPlan | None = None
        self.ready = False
        self.socket, theirs = socket.socketpair()
        with theirs, interrupts_blocked():  # until the worker has its own handler
            number = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(number), PACKAGE_FOLDER],
                stdin=subprocess.DEVNULL,
                stdout=_standard_error(),
                pass_fds=(number, task["file"]),
                env={**os.environ, **WORKER_ENVIRONMENT},
                start_new_session=True,  # only the parent gets a Ctrl-C, and passes it on once
            )

        def read_messages() -> None:
            try:
                with self.socket.makefile("r", encoding="utf-8") as lines:
                    for line in lines:
                        messages.put((self, json.loads(line)))
            except (OSError, ValueError):
                pass  # the socket was closed, or what came is no message: the worker counts as lost
            finally:
                messages.put((self, None))

        self.send(task)
        self.reader = threading.Thread(target=read_messages, daemon=True)
        self.reader.start()

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the worker has ended: its end is a message of its own
            self.socket.sendall((json.dumps(message) + "\n").encode())

    def end_input(self) -> None:
        """Say that there is no more to train."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """Wait for the process, and close the socket."""
        self.process.wait()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the reader, should a program that the worker started hold it
        self.socket.close()

    @property
    def reason(self) -> str:
        """How the process ended."""
        code = self.process.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"a worker process was ended by {signal.Signals(-code).name}"
        return f"a worker process ended with exit code {code}"


class _Pool:
    """The workers of one call, and what they say."""

    def __init__(self, work: Work, task: dict[str, Any], n_workers: int):
        self.work, self.task, self.n_workers = work, task, n_workers
        self.messages: Queue[tuple[_Worker, dict[str, Any] | None]] = Queue()
        self.workers: list[_Worker] = []
        self.failed_starts = 0

    def run(self) -> None:
        """Train until there is nothing left to take."""
        try:
            self._fill()
            while self.workers:
                worker, message = self._next()
                if worker not in self.workers:
                    continue
                if message is None:
                    self._ended(worker)
                else:
                    self._receive(worker, message)
        except BaseException:
            _stop(self.workers)
            raise
        finally:
            for worker in self.workers:
                worker.end()

    def _fill(self) -> None:
        """Start workers while there are stacks for them."""
        while len(self.workers) < self.n_workers and (plan := self.work.take()) is not None:
            worker = _Worker(self.task, self.messages)
            self.workers.append(worker)
            self._assign(worker, plan)

    def _assign(self, worker: _Worker, plan: StackPlan | None) -> None:
        """Send the worker its next stack, or the end of its input."""
        worker.plan = plan
        if plan is None:
            worker.end_input()
        else:
            worker.send(plan.to_dict())

    def _next(self) -> tuple[_Worker, dict[str, Any] | None]:
        """The next message; None where a worker has ended, whoever still holds its socket."""
        while True:
            with suppress(Empty):
                return self.messages.get(timeout=POLL_SECONDS)
            for worker in self.workers:
                if worker.process.poll() is not None:
                    worker.reader.join(POLL_SECONDS)
                    if worker.reader.is_alive():
                        return worker, None

    def _receive(self, worker: _Worker, message: dict[str, Any]) -> None:
        plan = worker.plan
        if "ready" in message:
            worker.ready, self.failed_starts = True, 0
        elif "warning" in message:
            warnings.warn(message["warning"], stacklevel=2)
        elif "error" in message:
            self.work.log("worker", error=message["error"], traceback=message["traceback"])
            raise RuntimeError(message["error"])
        elif plan is None:
            return
        elif "work" in message:
            self.work.progress(plan, message["work"], message["text"])
        else:
            worker.plan = None
            if "done" in message:
                self.work.finished(plan, message["done"], [Failure.from_dict(one) for one in message["failures"]])
            else:
                self.work.failed(plan, Failure.from_dict(message["failed"]), memory=message["memory"])
            self._assign(worker, self.work.take())
            self._fill()

    def _ended(self, worker: _Worker) -> None:
        """Put back the stack of a worker that was lost, and start another worker where there is work."""
        worker.process.kill()  # it may have closed its socket alone
        worker.end()
        self.workers.remove(worker)
        if worker.plan is not None:
            self.failed_starts += not worker.ready
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise RuntimeError(f"no worker process can be started: {worker.reason} before it was ready")
            self.work.lost(worker.plan, worker.reason)
        self._fill()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from this thread, and from processes that it starts meanwhile until they unblock it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _standard_error() -> int:
    """Where workers print: standard error, or nowhere if it is closed."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _stop(workers: Sequence[_Worker]) -> None:
    """Interrupt the workers, so that they write their checkpoints; kill those that take too long."""
    try:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGINT)
        for worker in workers:
            worker.process.wait(MAX_STOP_SECONDS)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        pass
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
