"""Training of the estimators: progress, callbacks, checkpoint, divergence."""

import numbers
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._files import check_target, user_path
from ..models.pixels import check_support
from ..progress import show_progress
from ..training import Callback, FitResult, FitStack, Rows, train
from ..training.fits import DIVERGED
from ..training.watching import progress_text
from ._stimuli import READ_WHOLE, free_bytes, stored
from ._validation import checked_stimuli


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


def training_stimuli(estimator: Any, X: Any, likelihood: str) -> Tensor | Rows:
    """Checked stimuli (n, D) to train on; sets the estimator's `shape_`.

    Arrays in files and data sets that take over a quarter of the free memory are read by batch.

    Raises
    ------
    ValueError, TypeError
        As :func:`checked_stimuli`, and where the likelihood gives them no probability.
    """
    found = stored(X)
    if found is not None:
        row = found.read(np.arange(1))
        if 4 * found.n * row.size > free_bytes(READ_WHOLE):
            checked_stimuli(estimator, row, reset=True)
            return Rows(found.read, found.n, row.size, partial(check_support, likelihood))
    x = torch.from_numpy(np.require(estimator._check(X, reset=True), requirements="W"))  # as torch needs it
    check_support(likelihood, x)
    return x


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
    if result.status == DIVERGED and checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    refuse_diverged(result, stack, remedy)
    return result


def refuse_diverged(result: FitResult, stack: FitStack, remedy: str) -> None:
    """Raise ValueError where training diverged."""
    if result.status == DIVERGED:
        raise ValueError(
            f"training diverged at step {result.frozen_at} of {stack.n_steps}: a loss or gradient was not finite. "
            f"{remedy}"
        )
