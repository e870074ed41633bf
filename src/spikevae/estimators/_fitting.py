"""Fits that replace an earlier one at once."""

import copy
from collections.abc import Callable
from typing import Any


def fit_at_once(estimator: Any, fit: Callable[[Any], int]) -> None:
    """Fit a copy of an estimator and take over its state: where fitting fails, an earlier fit stays as it was.

    Parameters
    ----------
    estimator
        With a setting `n_steps`.
    fit
        Fits the estimator that it is given, and returns the number of steps done.

    Raises
    ------
    KeyboardInterrupt
        After fewer than `n_steps` steps, whose fit is kept.
    """
    fitted = copy.copy(estimator)
    done = fit(fitted)
    estimator.__dict__ = fitted.__dict__
    if done < estimator.n_steps:
        raise KeyboardInterrupt(f"stopped after {done} of {estimator.n_steps} steps; the fit so far is kept")
