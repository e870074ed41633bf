"""Input of the estimators: stimuli, codes and seeds in the forms that scikit-learn accepts."""

import numbers
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data


def codes_of(X: Any) -> torch.Tensor:
    """A copy of codes as a tensor."""
    return X.detach().cpu().clone() if isinstance(X, torch.Tensor) else torch.from_numpy(np.array(X))


def drawn_seed(random_state: Any) -> int:
    """A seed from scikit-learn's `random_state`: an integer as it is, else one drawn from it."""
    if isinstance(random_state, numbers.Integral):
        seed = int(random_state)
        if not 0 <= seed < 2**32:
            raise ValueError(f"random_state is {seed}; give 0 to 2**32 - 1")
        return seed
    return int(check_random_state(random_state).randint(2**31 - 1))


def checked_stimuli(estimator: Any, X: Any, *, reset: bool) -> NDArray[Any]:
    """(n, D) float32 or float64 stimuli from any array type; sets the estimator's `shape_` where `reset`.

    Raises
    ------
    ValueError
        For NaN, infinity, empty input, or stimuli of another shape than the estimator was fitted on.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    shape: tuple[int, ...] | None = None
    if not hasattr(X, "dtype") and not hasattr(X, "columns"):
        X = np.asarray(X) if isinstance(X, list | tuple) else X
    if isinstance(X, np.ndarray) and X.ndim in (3, 4):
        shape = (1, *X.shape[1:]) if X.ndim == 3 else X.shape[1:]
        if not reset and shape != estimator.shape_:
            raise ValueError(f"images have shape {shape}, but this model was fitted on {estimator.shape_}")
        X = X.reshape(len(X), -1)
    X = validate_data(estimator, X, reset=reset, dtype=[np.float32, np.float64], ensure_all_finite=True)
    if reset:
        estimator.shape_ = tuple(int(n) for n in shape) if shape else (X.shape[1],)
    return np.require(X, requirements=["C", "W"])  # torch needs writable memory
