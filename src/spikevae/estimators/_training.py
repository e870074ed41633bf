"""Training of the estimators: progress, callbacks, checkpoint, divergence."""

import numbers
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._files import check_target, user_path
from ..progress import show_progress
from ..training import Callback, FitResult, FitStack, train
from ..training.fits import DIVERGED
from ..training.watching import progress_text


def checked_checkpoint(path: str | Path | None, random_state: Any) -> Path | None:
    """The path of a checkpoint, which must be writable and of a fit that can be continued.

    Raises
    ------
    ValueError, OSError
        With the remedy.
    """
    if path is None:
        return None
    if not isinstance(random_state, numbers.Integral):
        raise ValueError(
            f"checkpoint={str(path)!r} needs a random_state that is a whole number, given {random_state!r:.40}: only "
            "the same seed continues the same fit"
        )
    found = user_path(path)
    check_target(found)
    return found


def trained(
    build: Callable[[Callable[[str], None]], FitStack],
    title: str,
    remedy: str,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    verbose: bool = False,
) -> FitResult:
    """Train a stack of one fit, from its checkpoint where there is one.

    Parameters
    ----------
    build
        Makes the stack; it is given a function to call with what it does where that may take over two seconds.
    title
        Of the progress bar.
    remedy
        What to do where training diverges; its checkpoint is removed then.

    Raises
    ------
    ValueError
        Where training diverged.
    """
    with show_progress(title, enabled=verbose) as report:
        stack = build(lambda text: report(0, 1, text))
        train(
            stack,
            checkpoint_path=checkpoint,
            on_steps=lambda _: report(stack.step_number, stack.n_steps, progress_text(stack)),
            callbacks=callbacks,
        )
    result = stack.result(0)
    if result.status == DIVERGED:
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        raise ValueError(
            f"training diverged at step {result.frozen_at} of {stack.n_steps}: a loss or gradient was not finite. "
            f"{remedy}"
        )
    return result
