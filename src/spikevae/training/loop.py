"""The training loop: step, report, call back, save, stop."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .._scope import own_scope
from . import checkpoint
from .fits import FitStack
from .parallel import together
from .watching import Callback, StopTraining, Watch

SAVE_EVERY_SECONDS = 20.0
REPORT_EVERY_SECONDS = 0.2


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; the same call with the same checkpoint continues it."""


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Give a function that returns whether Ctrl-C was pressed; the first Ctrl-C raises no exception.

    The second one raises KeyboardInterrupt at once. Nothing is changed where the program has its own handler, or where
    another thread than the main one trains.
    """
    pressed = False

    def remember(signum: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _StepReports:
    """Calls `on_steps` with the number of steps since its last call, at most every `REPORT_EVERY_SECONDS`."""

    def __init__(self, on_steps: Callable[[int], None] | None, step: int) -> None:
        self._on_steps, self._step, self._time = on_steps, step, time.monotonic()

    def __call__(self, step: int, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._on_steps is not None and (at_once or now - self._time > REPORT_EVERY_SECONDS):
            self._on_steps(step - self._step)
            self._step, self._time = step, now


@own_scope()
def train(
    stack: FitStack,
    *,
    checkpoint_path: Path | None = None,
    on_steps: Callable[[int], None] | None = None,
    callbacks: Sequence[Callback] = (),
    at_half: Callable[[FitStack], None] | None = None,
    until: int | None = None,
) -> None:
    """Train a stack to its last step, or until no fit is left to train.

    Parameters
    ----------
    stack
        Fits that start, or continue where `checkpoint_path` left them.
    checkpoint_path
        File to continue from if it exists, written every 20 seconds (where that fails, training warns and goes on) and
        when interrupted. It is kept at the end: the caller removes it once the results are stored.
    on_steps
        Called with the number of steps just done, a few times a second, for progress bars.
    callbacks
        Functions that are called with a :class:`~spikevae.training.Window` of every fit that is training, each time a
        window of steps has ended. If one raises :class:`~spikevae.training.StopTraining`, training ends there as if
        all steps were done. After any other exception the checkpoint is written, and the exception raised.
    at_half
        Called once half the budget is spent, where there are two cycles.
    until
        Stop after this step, to examine an unfinished stack.

    Raises
    ------
    Interrupted
        On Ctrl-C, once the step is complete and the checkpoint written. The noise of a step depends on its number
        alone, so the continued fit equals the uninterrupted one to the bit.
    TypeError
        Where a callback is no function.
    ValueError
        Where several processes train together (:func:`~spikevae.training.data_parallel`) and cannot divide this fit.
    RanksLost
        Where another one of them has ended.
    """
    resumed = checkpoint_path is not None and checkpoint_path.exists()
    report = _StepReports(on_steps, stack.step_number)
    if checkpoint_path is not None and resumed:
        checkpoint.load(stack, checkpoint_path)
        report(stack.step_number, at_once=True)
    last = stack.n_steps if until is None else min(until, stack.n_steps)
    half = stack.n_steps // 2 if stack.config.cycles == 2 else None
    watch, ended_by = Watch(stack, callbacks), None
    save_time, stepping = time.monotonic(), False
    try:
        with deferred_interrupts() as interrupted, together(stack, last) as stops:
            if resumed and stack.step_number == half and at_half is not None:
                at_half(stack)  # it may have been interrupted
            while not stack.finished and stack.step_number < last:
                stepping = True
                stack.step()
                stepping = False
                if stack.step_number == half and at_half is not None:
                    at_half(stack)
                report(stack.step_number)
                ended_by = watch()
                save_time = _save_if_due(stack, checkpoint_path, save_time)
                if stops(interrupted() or ended_by is not None):
                    if ended_by is None:
                        raise KeyboardInterrupt
                    break
            if stack.finished and ended_by is None:
                stack.finish()
    except KeyboardInterrupt:
        if checkpoint_path is not None and not stepping:
            checkpoint.save(stack, checkpoint_path)
        raise Interrupted(f"stopped at step {stack.step_number} of {stack.n_steps}") from None
    if ended_by is not None:
        _end(stack, checkpoint_path, ended_by)
    report(stack.n_steps if stack.finished else stack.step_number, at_once=True)
    if stack.device.type == "cuda":
        torch.cuda.synchronize(stack.device)


def _end(stack: FitStack, path: Path | None, ended_by: Exception) -> None:
    """End training where a callback has raised an exception."""
    if isinstance(ended_by, StopTraining):
        stack.finished = True
        stack.finish()
        return
    kept = "give a checkpoint to be able to continue"
    if path is not None:
        kept = f"the same call continues from {path}"
        try:
            checkpoint.save(stack, path)
        except OSError as error:
            kept = str(error)
    ended_by.add_note(f"A callback raised this at step {stack.step_number} of {stack.n_steps}; {kept}.")
    raise ended_by


def _save_if_due(stack: FitStack, path: Path | None, saved: float) -> float:
    """Save a checkpoint where the last one is `SAVE_EVERY_SECONDS` old; the time of the last one."""
    now = time.monotonic()
    if path is None or now - saved <= SAVE_EVERY_SECONDS:
        return saved
    try:
        checkpoint.save(stack, path)
    except OSError as error:
        warnings.warn(f"{error}. Training goes on without a checkpoint", stacklevel=3)
    return now
