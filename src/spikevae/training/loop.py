"""The training loop: step, report, save, stop."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from . import checkpoint
from .stack import Stack

SAVE_EVERY_SECONDS = 20.0


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; the same call with the same checkpoint continues it."""


@contextmanager
def interrupts_held_back() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed, in place of an exception in the middle of a step.

    Pressed again, it interrupts at once. Where the program has a handler of its own, or another thread than the main
    one trains, nothing is changed.
    """
    asked = False

    def remember(signum: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(
    stack: Stack,
    *,
    checkpoint_path: Path | None = None,
    on_steps: Callable[[int], None] | None = None,
    at_half: Callable[[Stack], None] | None = None,
    until: int | None = None,
) -> None:
    """Train a stack to its last step, or until no fit is left to train.

    Parameters
    ----------
    stack
        Fits that start, or continue where `checkpoint_path` left them.
    checkpoint_path
        File to continue from if it exists, written every 20 seconds (where that fails, training warns and goes on) and
        when interrupted. Left in place at the end: whoever has stored the results removes it.
    on_steps
        Called with the number of steps just done, a few times a second, for progress bars.
    at_half
        Called once half the budget is spent, where there are two cycles.
    until
        Stop after this step (for looking inside).

    Raises
    ------
    Interrupted
        On Ctrl-C, once the step is complete and the checkpoint written. Steps are never cut in two, and the noise of
        a step depends on its number alone, so the continued fit equals the uninterrupted one to the bit.
    """
    resumed = checkpoint_path is not None and checkpoint_path.exists()
    if checkpoint_path is not None and resumed:
        done = stack.step_number
        checkpoint.load(stack, checkpoint_path)
        if on_steps is not None:
            on_steps(stack.step_number - done)
    last = stack.n_steps if until is None else min(until, stack.n_steps)
    half = stack.n_steps // 2 if stack.config.cycles == 2 else None
    reported, report_time, save_time = stack.step_number, time.monotonic(), time.monotonic()
    stepping = False
    try:
        with interrupts_held_back() as stop:
            if resumed and stack.step_number == half and at_half is not None:
                at_half(stack)  # it may have been stopped in the middle of it
            while not stack.finished and stack.step_number < last:
                stepping = True
                stack.step()
                stepping = False
                if stack.step_number == half and at_half is not None:
                    at_half(stack)
                now = time.monotonic()
                if on_steps is not None and now - report_time > 0.2:
                    on_steps(stack.step_number - reported)
                    reported, report_time = stack.step_number, now
                if checkpoint_path is not None and now - save_time > SAVE_EVERY_SECONDS:
                    _try_to_save(stack, checkpoint_path)
                    save_time = now
                if stop():
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        if checkpoint_path is not None and not stepping:
            checkpoint.save(stack, checkpoint_path)
        raise Interrupted(f"stopped at step {stack.step_number} of {stack.n_steps}") from None
    if on_steps is not None:
        on_steps((stack.n_steps if stack.finished else stack.step_number) - reported)
    if stack.device.type == "cuda":
        torch.cuda.synchronize(stack.device)


def _try_to_save(stack: Stack, path: Path) -> None:
    try:
        checkpoint.save(stack, path)
    except OSError as error:
        warnings.warn(f"{error}. Training goes on without it", stacklevel=3)
