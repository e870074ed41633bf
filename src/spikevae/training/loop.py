"""The training loop: step, report, save, stop."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from . import checkpoint
from .stack import Stack

SAVE_EVERY_SECONDS = 20.0


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; the checkpoint that it names continues it."""


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
        File to continue from if it exists, written every 20 seconds and when interrupted. Left in place at the end:
        whoever has stored the results removes it.
    on_steps
        Called with the number of steps just done, a few times a second, for progress bars.
    at_half
        Called once half the budget is spent, where there are two cycles.
    until
        Stop after this step (for looking inside).

    Raises
    ------
    Interrupted
        On Ctrl-C, after the checkpoint was written. Steps are never cut in two, and the noise of a step depends on
        its number alone, so the continued fit equals the uninterrupted one to the bit.
    """
    if checkpoint_path is not None and checkpoint_path.exists():
        done = stack.step_number
        checkpoint.load(stack, checkpoint_path)
        if on_steps is not None:
            on_steps(stack.step_number - done)
    last = stack.n_steps if until is None else min(until, stack.n_steps)
    half = stack.n_steps // 2 if stack.config.cycles == 2 else None
    reported, report_time, save_time = stack.step_number, time.monotonic(), time.monotonic()
    try:
        while not stack.finished and stack.step_number < last:
            stack.step()
            if stack.step_number == half and at_half is not None:
                at_half(stack)
            now = time.monotonic()
            if on_steps is not None and now - report_time > 0.2:
                on_steps(stack.step_number - reported)
                reported, report_time = stack.step_number, now
            if checkpoint_path is not None and now - save_time > SAVE_EVERY_SECONDS:
                checkpoint.save(stack, checkpoint_path)
                save_time = now
    except KeyboardInterrupt:
        if checkpoint_path is not None:
            checkpoint.save(stack, checkpoint_path)
        raise Interrupted(f"stopped at step {stack.step_number} of {stack.n_steps}") from None
    if on_steps is not None:
        on_steps((stack.n_steps if stack.finished else stack.step_number) - reported)
    if stack.device.type == "cuda":
        torch.cuda.synchronize(stack.device)
