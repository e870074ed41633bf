"""Training of a stack on a machine that may not see the run folder: what it is given, and what it sends back."""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

from .._device import resolve_device
from .._files import atomic_write
from .._machine import available_bytes
from ..models._model import Model
from .frontiers import trace_frontier
from .plan import Cell, StackPlan
from .stimuli import Stimuli
from .store import RunFolder
from .train import train_stack
from .work import Failure, StackStore, is_memory_error

MESSAGE_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """What training a stack needs besides its plan and the stimuli."""

    run: str
    """Absolute path of the run folder, which the machine may see."""
    stamp: tuple[int, int]
    """Time and size of its configuration file, by which it is recognised."""
    done: tuple[str, ...]
    """Cells of the stack that are stored already."""
    device: str
    """Torch device, or "auto"."""
    files: dict[str, bytes]
    """Files of the run folder that training starts from, by their path in it: the state of an earlier call, and the
    models from which paths along the spike price start."""

    @classmethod
    def of(cls, plan: StackPlan, store: StackStore, run: Path, device: str) -> Self:
        """For a stack of a run folder."""
        folder = RunFolder(run)
        models = [folder.model_path(cell.id) for cell in plan.cells] if plan.prices else []
        done = tuple(cell.id for cell in plan.cells if store.is_done(cell))
        files = contents(folder, [*state_files(folder, plan), *models])
        return cls(str(run.absolute()), _stamp(run), done, device, files)


def state_files(folder: RunFolder, plan: StackPlan) -> list[Path]:
    """Files that a stack in training has in a run folder."""
    of_path = (folder.path / "checkpoints" / plan.id).glob("*")
    return [path for path in (folder.checkpoint_path(plan.id), folder.half_path(plan.id), *of_path) if path.is_file()]


def contents(folder: RunFolder, paths: Iterable[Path]) -> dict[str, bytes]:
    """Content of those files that exist, by their path in the folder."""
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in paths if path.is_file()}


def write_files(folder: RunFolder, files: Mapping[str, bytes]) -> None:
    """Write what :func:`contents` gave, each file atomically.

    Raises
    ------
    ValueError
        For a path that leads out of the folder.
    """
    for name, content in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"a worker sent a file for {name!r}, which is not below {folder.path}: it was not written")
        with atomic_write(folder.path / name) as scratch:
            scratch.write_bytes(content)


def _stamp(run: Path) -> tuple[int, int]:
    facts = (run / "config.json").stat()
    return facts.st_mtime_ns, facts.st_size


@dataclass
class CollectedCells:
    """A store of the cells of one stack, in memory; its checkpoint lies in a folder like a run folder."""

    folder: RunFolder
    done: tuple[str, ...]
    kept: list[tuple[dict[str, Any], dict[str, Any], Model, dict[str, Any]]] = field(default_factory=list)

    def checkpoint_path(self, stack_id: str) -> Path:
        return self.folder.checkpoint_path(stack_id)

    def half_path(self, stack_id: str) -> Path:
        return self.folder.half_path(stack_id)

    def is_done(self, cell: Cell) -> bool:
        return cell.id in self.done

    def set_aside(self, path: Path, reason: str) -> None:
        self.folder.set_aside(path, reason)

    def keep_cell(self, cell: Cell, result: dict[str, Any], model: Model, extra: dict[str, Any]) -> None:
        self.kept.append((cell.to_dict(), result, model, extra))


def train_remotely(
    given: Mapping[str, Any],
    stimuli: Stimuli,
    task: Task,
    send: Callable[[float, str], None],
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    """Train a stack and return its cells.

    Checkpoints are written to the run folder where this machine sees it, so that another worker can go on from them.

    Parameters
    ----------
    given
        The plan of the stack, as `StackPlan.to_dict` writes it.
    send
        Called with work and a text, at most every `MESSAGE_SECONDS`.
    stopped
        Whether the run was interrupted: training then ends with a checkpoint.

    Returns
    -------
    dict
        "warnings", and either "done" and "failures" with "cells" (paths: with "files"), or "failed" and "memory", or
        "stopped": the files from which another call continues, where they are not in the run folder.
    """
    plan = StackPlan.from_dict(given)
    run = Path(task.run)
    shared = not plan.prices and _sees(run, task.stamp)
    with tempfile.TemporaryDirectory(prefix="spikevae-") as scratch, _collected_warnings() as texts:
        folder = RunFolder(run if shared else scratch)
        if not shared:
            write_files(folder, task.files)
        answer: dict[str, Any]
        try:
            answer = _trained(plan, stimuli.aligned(), folder, task, _Messages(send, stopped))
        except KeyboardInterrupt:
            answer = {"stopped": {} if shared else contents(folder, state_files(folder, plan))}
        except Exception as error:
            answer = {"failed": Failure.of(plan.cells, error).to_dict(), "memory": is_memory_error(error)}
    return answer | {"warnings": texts}


class _Messages:
    """Called with the work that is done: sends it now and then, and ends training where the run was interrupted."""

    def __init__(self, send: Callable[[float, str], None], stopped: Callable[[], bool]):
        self._send, self._stopped = send, stopped
        self._unsent, self._last = 0.0, time.monotonic()

    def __call__(self, work: float, text: str) -> None:
        if self._stopped():
            raise KeyboardInterrupt
        self._unsent += work
        if time.monotonic() - self._last >= MESSAGE_SECONDS:
            self._send(self._unsent, text)
            self._unsent, self._last = 0.0, time.monotonic()


def _trained(plan: StackPlan, stimuli: Stimuli, folder: RunFolder, task: Task, advance: _Messages) -> dict[str, Any]:
    device = resolve_device(task.device)
    if device == "cpu":
        torch.set_num_threads(1)  # as in the worker processes of one machine: results do not depend on the cluster
    if plan.prices:
        facts, failures = trace_frontier(plan, stimuli, folder, device, advance)
        return {"done": facts, "failures": [], "files": contents(folder, [folder.frontier_path(plan.id)])}
    store = CollectedCells(folder, task.done)
    facts, failures = train_stack(plan, stimuli, store, device, advance)
    return {"done": facts, "failures": [failure.to_dict() for failure in failures], "cells": store.kept}


def _sees(run: Path, stamp: tuple[int, int]) -> bool:
    """Whether a path on this machine is the run folder with this configuration file."""
    try:
        return _stamp(run) == tuple(stamp)
    except OSError:
        return False


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the texts of warnings, which nobody would see on another machine."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *place: texts.append(str(message))
        yield texts


def facts_of_machine(device: str, memory_limit: int | None) -> dict[str, Any]:
    """Versions, torch device, and bytes that a stack can have here (None: unknown)."""
    chosen = resolve_device(device)
    if chosen == "cpu":
        known = [size for size in (memory_limit, available_bytes()) if size]
        return {**own_versions(), "device": chosen, "memory": min(known, default=None)}
    return {**own_versions(), "device": chosen, "memory": torch.cuda.mem_get_info(chosen)[0]}


def own_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: version(name) for name in ("spikevae", "torch", "numpy")}


def compared_versions(facts: Mapping[str, Any]) -> str | None:
    """How the versions of another machine differ from those here, where its results could not be used; or None.

    Another version of torch or NumPy is warned of: results may then differ by rounding.
    """
    other = [f"{name} {facts[name]} there, {own} here" for name, own in own_versions().items() if facts[name] != own]
    if facts["spikevae"] != own_versions()["spikevae"]:
        return ", ".join(other)
    if other:
        warnings.warn(
            f"a worker has other versions, so its results may differ by rounding: {', '.join(other)}", stacklevel=3
        )
    return None
