"""Stacks on the workers of a Dask cluster: that of a scheduler which is running already, or processes on this machine.

Dask decides which worker trains which stack, and gives the stack of a lost worker to another one. A worker receives the
stimuli once. It sends the cells of a stack back when all are done, and this process alone writes them to the run
folder, so that the report of an unfinished run can be written at any time.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, Queue
from typing import Any, final
from uuid import uuid4

from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, get_worker

from ...training.checks import stack_bytes
from ..plan import Cell, StackPlan
from ..remote import (
    Task,
    compared_versions,
    facts_of_machine,
    own_versions,
    state_files,
    train_remotely,
    write_files,
)
from ..store import RunFolder
from ..work import Failure, Work
from . import Executor
from .local import WORKER_ENVIRONMENT, interrupts_blocked

CONNECT_SECONDS = 30.0
WORKER_SECONDS = 60.0
"""How long a run waits for the first worker of a scheduler, or for a scheduler that does not answer any more."""
POLL_SECONDS = 1.0
MAX_STOP_SECONDS = 60.0
"""Longest time that an interrupted run waits for the checkpoints of its workers."""


@final
class DaskExecutor(Executor):
    """Trains on the workers of a Dask cluster.

    A worker trains one stack at a time, on one thread or on its GPU. Stacks that the memory of the smallest worker does
    not hold are split.

    Parameters
    ----------
    scheduler
        Address of a scheduler, such as "tcp://HOST:8786"; None starts `n_workers` processes on this machine.
    n_workers
        Number of those processes; None: one for each CPU that this process may use.
    device
        Torch device of the workers; with "auto", those that have a GPU use it.
    """

    def __init__(self, scheduler: str | None = None, *, n_workers: int | None = None, device: str = "auto"):
        self.scheduler, self.device = scheduler, device
        self.n_workers = n_workers or len(os.sched_getaffinity(0))

    def run(self, work: Work) -> None:
        with self._client() as client:
            _Run(work, client, self.device).run()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        """A connection to the scheduler, or to that of a new cluster."""
        if self.scheduler is not None:
            try:
                client = Client(self.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(
                    f"no Dask scheduler answers at {self.scheduler}: {error}; start one with `dask scheduler`, and "
                    "give the address that it prints"
                ) from None
            with client:
                yield client
            return
        with ExitStack() as stack:
            with interrupts_blocked():  # workers inherit it: only this process gets a Ctrl-C, and passes it on once
                cluster = LocalCluster(
                    n_workers=self.n_workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    env=WORKER_ENVIRONMENT,
                )
            stack.enter_context(cluster)
            yield stack.enter_context(Client(cluster, set_as_default=False))


class TrainingPlugin(WorkerPlugin):
    """What one worker keeps while a run trains on it: whether it is to stop, and that it trains one stack at a time."""

    def __init__(self, name: str):
        self.name = name

    def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker, also on those that join later."""
        self.stopped, self.lock = threading.Event(), threading.Lock()


def train_on_worker(plan: dict[str, Any], stimuli: Any, task: Task, name: str, key: str) -> dict[str, Any]:
    """Train one stack, on a worker of the cluster; progress goes to the topic `name`."""
    worker = get_worker()
    plugin: Any = worker.plugins[name]

    def send(work: float, text: str) -> None:
        worker.log_event(name, {"key": key, "work": work, "text": text})

    with plugin.lock:
        return train_remotely(plan, stimuli, task, send, plugin.stopped.is_set)


def stop_training(name: str, dask_worker: Worker) -> None:
    """Ask the stack that a worker trains to end with a checkpoint."""
    plugin: Any = dask_worker.plugins.get(name)
    if plugin is not None:
        plugin.stopped.set()


def facts_of_worker(device: str, dask_worker: Worker) -> dict[str, Any]:
    """Versions, device, and the memory that a stack can have on a worker."""
    return facts_of_machine(device, dask_worker.memory_manager.memory_limit)


class _Run:
    """The stacks of one call that are in training, and what the cluster says about them."""

    def __init__(self, work: Work, client: Client, device: str):
        self.work, self.client, self.device = work, client, device
        self.name = f"spikevae-{uuid4().hex[:12]}"
        self.events: Queue[dict[str, Any]] = Queue()
        self.running: dict[str, tuple[StackPlan, Future]] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.count = 0
        self.last_look = self.last_answer = time.monotonic()

    def run(self) -> None:
        """Train until there is nothing left to take."""
        self._find_workers(wait=WORKER_SECONDS)
        self.client.register_plugin(TrainingPlugin(self.name), name=self.name)
        self.stimuli = self._scatter()
        self.client.subscribe_topic(self.name, lambda event: self.events.put(event[1]))
        try:
            self._submit()
            while self.running:
                self._receive()
                self._submit()
        except BaseException:
            self._stop()
            raise
        finally:
            with suppress(OSError, TimeoutError, ValueError):
                self.client.unsubscribe_topic(self.name)
                self.client.unregister_worker_plugin(self.name)

    def _scatter(self) -> Future:
        """Give the stimuli to each worker; workers that join later get them from another one."""
        return self.client.scatter(self.work.stimuli, broadcast=True, hash=False)

    def _find_workers(self, wait: float = 0.0) -> None:
        """Ask new workers for their versions and memory.

        Raises
        ------
        RuntimeError
            Where there is none after `wait` seconds, or where one has no package or another version of it.
        """
        if wait:
            with suppress(TimeoutError):
                self.client.wait_for_workers(1, timeout=wait)
        present = self.client.ncores()
        if wait and not present:
            raise RuntimeError(
                f"the scheduler {self._address} has no worker after {wait:.0f} s; start one on each machine with "
                f"`dask worker {self._address} --nthreads 1`"
            )
        new = [address for address in present if address not in self.workers]
        self.workers = {address: facts for address, facts in self.workers.items() if address in present}
        if not new:
            return
        try:
            found = self.client.run(facts_of_worker, self.device, workers=new, on_error="return")
        except (OSError, KeyError):  # it has left meanwhile
            return
        for address, facts in found.items():
            if isinstance(facts, OSError):
                continue
            problem = f"{type(facts).__name__}: {facts}" if isinstance(facts, Exception) else compared_versions(facts)
            if problem:
                raise RuntimeError(f"worker {address} cannot train: {problem}; {REMEDY} {own_versions()['spikevae']}")
            self.workers[address] = facts
            if present[address] > 1:
                warnings.warn(
                    f"worker {address} has {present[address]} threads and trains one stack at a time: start it with "
                    "--nthreads 1, one worker for each core or GPU",
                    stacklevel=2,
                )

    @property
    def _address(self) -> str:
        return str(self.client.scheduler.address)

    def _submit(self) -> None:
        """Give the cluster a stack for each of its workers."""
        while len(self.running) < max(1, len(self.workers)) and (plan := self.work.take()) is not None:
            if self._too_large(plan):
                continue
            self.count += 1
            key = f"{self.name}-{plan.id}-{self.count}"
            task = Task.of(plan, self.work.store, self.work.run, self.device)
            given = (plan.to_dict(), self.stimuli, task, self.name, key)
            future = self.client.submit(train_on_worker, *given, key=key, pure=False)
            self.running[key] = (plan, future)
            future.add_done_callback(lambda future: self.events.put({"ended": future.key}))

    def _too_large(self, plan: StackPlan) -> bool:
        """Split a stack that the smallest worker cannot hold; whether it was put back, or failed."""
        limits = [facts["memory"] for facts in self.workers.values() if facts["memory"] is not None]
        config = plan.cells[0].config
        need = stack_bytes(config, self.work.stimuli.shape, len(plan.cells), steps=config.steps_kept)
        if plan.prices or not limits or need <= min(limits):
            return False
        text = f"MemoryError: training needs about {need / 1e9:.3g} GB, the smallest worker has {min(limits) / 1e9:.3g}"
        self.work.failed(plan, Failure(plan.cells, text, ""), memory=True)
        return True

    def _receive(self) -> None:
        """Wait for what the workers say next; now and then, look for new workers."""
        with suppress(Empty):
            event = self.events.get(timeout=POLL_SECONDS)
            if "ended" in event:
                self._ended(event["ended"])
            elif event["key"] in self.running:
                self.work.progress(self.running[event["key"]][0], event["work"], event["text"])
        if time.monotonic() - self.last_look < POLL_SECONDS:
            return
        self.last_look = time.monotonic()
        try:
            if self.client.status != "running":
                raise OSError("connection lost")
            self._find_workers()
            self.last_answer = time.monotonic()
        except (OSError, TimeoutError):
            if time.monotonic() - self.last_answer > WORKER_SECONDS:
                raise RuntimeError("the Dask scheduler does not answer any more; the same command continues") from None

    def _ended(self, key: str) -> None:
        """Store what a worker sends, or put the stack back."""
        plan, future = self.running.pop(key, (None, None))
        if plan is None or future is None:
            return
        try:
            answer = future.result()
        except KilledWorker as error:  # after several workers in a row: most often their memory ran out
            reason = f"the workers that trained this stack were lost, the last one was {error.last_worker.address}"
            self.work.failed(plan, Failure(plan.cells, f"KilledWorker: {reason}", str(error)), memory=True)
        except (CancelledError, OSError, TimeoutError) as error:
            if self.stimuli.status != "finished":  # every worker that held them was lost
                self.stimuli = self._scatter()
            self.work.lost(plan, f"the cluster lost this stack ({type(error).__name__})")
        except Exception as error:
            self.work.failed(plan, Failure.of(plan.cells, error))
        else:
            self._store(plan, answer)

    def _store(self, plan: StackPlan, answer: dict[str, Any]) -> None:
        for text in answer["warnings"]:
            warnings.warn(text, stacklevel=2)
        folder = RunFolder(self.work.run)
        if "stopped" in answer:
            write_files(folder, answer["stopped"])
        elif "failed" in answer:
            self.work.failed(plan, Failure.from_dict(answer["failed"]), memory=answer["memory"])
        else:
            for cell, content, model, extra in answer.get("cells", ()):
                self.work.store.keep_cell(Cell.from_dict(cell), content, model, extra)
            write_files(folder, answer.get("files", {}))
            failures = [Failure.from_dict(one) for one in answer["failures"]]
            for path in state_files(folder, plan) if not failures else ():
                path.unlink(missing_ok=True)
            self.work.finished(plan, answer["done"], failures)

    def _stop(self) -> None:
        """Let the workers write checkpoints, collect those that are not in the run folder, cancel what is left."""
        until = time.monotonic() + MAX_STOP_SECONDS
        try:
            self.client.run(stop_training, self.name, wait=True)
            while self.running and time.monotonic() < until:
                self._collect_one(until - time.monotonic())
        except (OSError, TimeoutError, ValueError, KeyboardInterrupt):
            pass
        finally:
            with suppress(OSError, TimeoutError, ValueError):
                self.client.cancel([future for _, future in self.running.values()], force=True)

    def _collect_one(self, seconds: float) -> None:
        with suppress(Empty, KilledWorker, CancelledError):
            event = self.events.get(timeout=max(seconds, 0.0))
            plan, future = self.running.pop(event.get("ended", ""), (None, None))
            if plan is not None and future is not None:
                self._store(plan, future.result(timeout=max(seconds, 0.1)))


REMEDY = "install there the version of spikevae that this machine has,"
