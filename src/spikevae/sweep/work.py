"""The stacks of a run that are still to be trained: who takes them, and what becomes of them."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from .._terminal import debugging
from ..models._model import Model
from .plan import Cell, StackPlan
from .stimuli import Stimuli

WAIT_SECONDS = 1.0
MAX_LOSSES = 3
"""How often a stack is trained again after the process that trained it was lost, before it is split."""


class StackStore(Protocol):
    """Where a stack in training keeps its checkpoint, and where its cells go; a run folder is one.

    An executor whose workers do not share the run folder gives them a store of their own, and hands over what it
    collected.
    """

    def checkpoint_path(self, stack_id: str) -> Path:
        """File of the checkpoint of a stack; its folder need not exist."""

    def half_path(self, stack_id: str) -> Path:
        """File of the objectives at half the budget."""

    def is_done(self, cell: Cell) -> bool:
        """Whether the result of this cell is stored."""

    def set_aside(self, path: Path, reason: str) -> None:
        """Move a damaged checkpoint out of the way, and say so."""

    def keep_cell(self, cell: Cell, result: dict[str, Any], model: Model, extra: dict[str, Any]) -> None:
        """Store the result of a cell and its model, whose file also holds the facts `extra`."""


@dataclass(frozen=True)
class Failure:
    """Why a stack, or a cell of it, has no result."""

    cells: tuple[Cell, ...]
    error: str
    """One line: the type of the error and its message."""
    details: str
    """The traceback, for the log."""

    @classmethod
    def of(cls, cells: Sequence[Cell], error: BaseException) -> Self:
        """From an exception that is being handled."""
        return cls(tuple(cells), f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON values, for another process; :meth:`from_dict` reads it."""
        return {"cells": [cell.to_dict() for cell in self.cells], "error": self.error, "details": self.details}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote."""
        return cls(tuple(Cell.from_dict(cell) for cell in given["cells"]), given["error"], given["details"])


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory of the machine or of the GPU ran out."""
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return allocator or isinstance(error, MemoryError | torch.OutOfMemoryError)


@dataclass
class Work:
    """The stacks of a run that are still to be trained; one thread calls its methods.

    An executor takes stacks with :meth:`take` and trains each with :func:`spikevae.sweep.train.train_stack`, wherever
    it likes and as many at once as it likes. For every stack that it took it calls :meth:`finished`, :meth:`failed` or
    :meth:`lost` once; in between, :meth:`progress` any number of times.
    """

    pending: list[StackPlan]
    """What is left, in the order of training: the largest first, so that workers end at about the same time."""
    stimuli: Stimuli
    store: StackStore
    """The run folder; :func:`train_stack` writes to it, or to a store of the executor's own."""
    run: Path
    """Path of the run folder, where executors on this machine let their workers write."""
    device: str
    """Torch device of the stacks, without "auto"."""
    report: Callable[[float, float, str], None] = lambda done, total, text: None
    """Called with (done, total, text), for progress bars."""
    log: Callable[..., None] = lambda event, **facts: None
    """Called with the name of an event and its facts, for the log of the run."""
    total: float = 0.0
    """Work of the whole run, in the unit of :attr:`StackPlan.work`."""
    done: float = 0.0
    """Work that is done, without that of the stacks in training."""
    trained: int = 0
    """Cells trained by this process."""
    claim: Callable[[str], bool] = lambda stack_id: True
    """Take a stack for this process; False where another process has it."""
    release: Callable[[str], None] = lambda stack_id: None
    """Give a stack back."""
    failures: list[Failure] = field(default_factory=list)
    """What could not be trained, by :meth:`failed`, :meth:`lost` and :meth:`finished`."""
    _shares: dict[str, float] = field(default_factory=dict)
    _losses: dict[str, int] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)

    def wait(self) -> bool:
        """Wait until a stack can be taken; False where none is left. Other processes may train those that are left."""
        told = False
        while True:
            self._drop_done()
            if not self.pending:
                self._report("done")
                return False
            if any(self.claim(plan.id) for plan in self.pending):
                return True
            if not told:
                self._report(f"waiting for another process, which trains {len(self.pending)} stacks")
                told = True
            time.sleep(WAIT_SECONDS)

    def take(self) -> StackPlan | None:
        """The next stack to train; None where none is left at the moment.

        A stack that is lost is there again later: an executor with stacks in training asks again when one ends.
        """
        for plan in list(self.pending):
            if not self.claim(plan.id):
                continue
            finished = self._is_finished(plan)  # another process may have been faster
            self.pending.remove(plan)
            if not finished:
                self._left[plan.id] = sum(not self.store.is_done(cell) for cell in plan.cells)
                return plan
            self.release(plan.id)
            self.done += plan.work
        return None

    def _drop_done(self) -> None:
        """Forget pending stacks whose cells are all stored."""
        for plan in list(self.pending):
            if self._is_finished(plan):
                self.pending.remove(plan)
                self.done += plan.work

    def _is_finished(self, plan: StackPlan) -> bool:
        if plan.prices:
            return (self.run / "frontiers" / f"{plan.id}.json").is_file()
        return all(self.store.is_done(cell) for cell in plan.cells)

    def progress(self, plan: StackPlan, work: float, text: str) -> None:
        """A stack in training did some more of its `plan.work`."""
        self._shares[plan.id] = min(self._shares.get(plan.id, 0.0) + work, plan.work)
        self._report(text)

    def finished(self, plan: StackPlan, facts: dict[str, Any], failures: Sequence[Failure] = ()) -> None:
        """A stack is trained and the store has its cells, except those of `failures`, which could not be evaluated."""
        self._shares.pop(plan.id, None)
        self.done += plan.work
        self.trained += self._left.get(plan.id, len(plan.cells)) - sum(len(failure.cells) for failure in failures)
        self.log("stack", id=plan.id, **facts)
        for failure in failures:
            self._keep(failure)
        self.release(plan.id)
        self._report(str(facts.get("text", "")))

    def failed(self, plan: StackPlan, failure: Failure, *, memory: bool = False) -> None:
        """A stack raised an error; with `memory`, the memory ran out, and its halves are put back instead."""
        if memory and self._split(plan, failure.error):
            return
        self._shares.pop(plan.id, None)
        self.done += plan.work
        self._keep(failure)
        self._report(failure.error)

    def lost(self, plan: StackPlan, reason: str) -> None:
        """The process that trained a stack was lost: put it back, to continue from its checkpoint if there is one.

        One that is lost more than `MAX_LOSSES` times is split, since most often memory ran out; a single cell fails.
        """
        losses = self._losses[plan.id] = self._losses.get(plan.id, 0) + 1
        self._shares.pop(plan.id, None)
        if losses <= MAX_LOSSES:
            self.log("lost", id=plan.id, reason=reason, times=losses)
            self.pending.insert(0, plan)
        elif not self._split(plan, reason):
            self.failed(plan, Failure(plan.cells, f"{reason}, {losses} times in training this cell", ""))

    def _split(self, plan: StackPlan, reason: str) -> bool:
        """Put back the halves of a stack; False where it has one cell, or traces paths.

        Fits do not depend on the stack that they train in, except for rounding.
        """
        self._shares.pop(plan.id, None)
        middle = len(plan.cells) // 2
        if middle == 0 or plan.prices:
            return False
        parts = (plan.cells[:middle], plan.cells[middle:])
        halves = [
            StackPlan(f"{cells[0].id}-{len(cells)}", cells, plan.work * len(cells) / len(plan.cells)) for cells in parts
        ]
        self.log("split", id=plan.id, reason=reason, into=[half.id for half in halves])
        self.pending[:0] = halves
        return True

    def _keep(self, failure: Failure) -> None:
        self.failures.append(failure)
        cells = [cell.id for cell in failure.cells]
        if debugging():
            print(failure.details, file=sys.stderr)
        self.log("failed", cells=cells, error=failure.error, traceback=failure.details)

    def _report(self, text: str) -> None:
        self.report(min(self.done + sum(self._shares.values()), self.total), self.total, text)
