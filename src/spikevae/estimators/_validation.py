"""Input of the estimators: stimuli, codes and seeds in the forms that scikit-learn accepts."""

import numbers
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from .._arrays import plain
from .._seeds import MAX_SEED
from ..evaluation.evaluate import BATCH_SIZE
from ._stimuli import gathered


def drawn_seed(random_state: Any) -> int:
    """A seed from scikit-learn's `random_state`: an integer as it is, else one drawn from it.

    Raises
    ------
    ValueError
        Where it is out of range, or no integer, RandomState, Generator or None.
    """
    if isinstance(random_state, numbers.Integral):
        seed = int(random_state)
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"random_state is {seed}; give 0 to 2**32 - 1")
        return seed
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if random_state is None or random_state is np.random or isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(2**31 - 1))
    given = " ".join(repr(random_state).split())
    raise ValueError(
        f"random_state is {given:.80}; give a seed (a whole number from 0 to 2**32 - 1), a NumPy Generator or "
        "RandomState, or None"
    )


def checked_stimuli(estimator: Any, X: Any, *, reset: bool) -> NDArray[Any]:
    """(n, D) float32 or float64 stimuli from any array type; sets the estimator's `shape_` where `reset`.

    Raises
    ------
    ValueError, TypeError
        For NaN, infinity, empty, masked or sparse input, or stimuli of another shape than the estimator was fitted on.
    """
    X = plain(gathered(X), "X")
    shape: tuple[int, ...] | None = None
    if not hasattr(X, "dtype") and not hasattr(X, "columns"):
        X = np.asarray(X) if isinstance(X, list | tuple) else X
    if isinstance(X, np.ndarray) and X.ndim in (3, 4):
        shape = (1, *X.shape[1:]) if X.ndim == 3 else X.shape[1:]
        if not reset and shape != estimator.shape_:
            raise ValueError(f"images have shape {shape}, but this model was fitted on {estimator.shape_}")
        X = X.reshape(len(X), -1)
    try:
        X = validate_data(estimator, X, reset=reset, dtype=[np.float32, np.float64], ensure_all_finite=False)
    except (ValueError, TypeError) as error:
        raise type(error)(_one_line(str(error))) from None
    bad = np.flatnonzero(~_finite_rows(X))
    if len(bad):
        raise ValueError(
            f"X has NaN or infinity in {len(bad)} of {len(X)} rows, the first of them row {bad[0]}: leave these rows "
            "out, or fill in the values"
        )
    if reset:
        estimator.shape_ = tuple(int(n) for n in shape) if shape else (X.shape[1],)
    return np.ascontiguousarray(X)


def _one_line(text: str) -> str:
    """A message of scikit-learn in one line, without the array that it prints."""
    text = re.sub(r"(?m)^\s*(array=)?\[[^\[\]]*\]\.?$|^\s*array=.*$", "", text)
    text = " ".join(text.split())
    return text if "X" in text.split() else f"X cannot be read as (n, D) numbers: {text}"


def _finite_rows(X: NDArray[Any]) -> NDArray[np.bool_]:
    rows = np.ones(len(X), dtype=bool)
    for start in range(0, len(X), BATCH_SIZE):
        rows[start : start + BATCH_SIZE] = np.isfinite(X[start : start + BATCH_SIZE]).all(axis=1)
    return rows


def checked_codes(X: Any, n_latents: int) -> NDArray[Any]:
    """(n, K) codes from any array type.

    Raises
    ------
    ValueError, TypeError
        For NaN, infinity, masked or sparse input, entries that are no numbers, or another number of columns.
    """
    try:
        codes = np.asarray(plain(X, "codes"))
        codes = codes if codes.dtype.kind in "buif" else codes.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"codes cannot be read as (n, {n_latents}) numbers: {_one_line(str(error))}") from None
    if codes.ndim != 2 or codes.shape[1] != n_latents:
        raise ValueError(f"codes have shape {codes.shape}; expected (n, {n_latents})")
    if codes.dtype.kind == "f" and not _finite_rows(codes).all():
        raise ValueError("codes have NaN or infinity: leave these rows out, or fill in the values")
    return codes


def in_batches(
    x: NDArray[Any], dtype: torch.dtype, function: Callable[[Tensor], Tensor], result: np.dtype[Any] | None = None
) -> NDArray[Any]:
    """Rows of `function` of rows of `x`, `BATCH_SIZE` at a time, so that little more than the results is in memory.

    Parameters
    ----------
    x
        (n, ...) numbers.
    dtype
        Type in which `function` takes them.
    function
        Takes (B, ...) and returns (B, columns).
    result
        Type of the results; by default the function's own.
    """
    found: NDArray[Any] | None = None
    for start in range(0, max(len(x), 1), BATCH_SIZE):
        batch = torch.tensor(x[start : start + BATCH_SIZE], dtype=dtype)
        with torch.inference_mode():
            part = function(batch).numpy()
        if found is None:
            found = np.empty((len(x), *part.shape[1:]), result or part.dtype)
        found[start : start + BATCH_SIZE] = part
    assert found is not None
    return found


def names_of(estimator: Any) -> list[str] | None:
    """Names of the columns that the estimator was fitted on, for its file; None without names."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def take_facts(estimator: Any, extra: dict[str, Any], model: Any, path: Any) -> None:
    """Set the attributes of a fitted estimator that its file keeps beside the model.

    Raises
    ------
    ValueError
        Where an entry has another type or length than `save` writes; with the file's name.
    """
    shape, history, names = extra.get("shape", model.shape), extra.get("history", {}), extra.get("features")
    if not isinstance(shape, list | tuple) or not all(isinstance(n, int) for n in shape):
        raise ValueError(f"{path}: its shape is {shape!r:.80}; it should be a list of whole numbers")
    if not isinstance(history, dict):
        raise ValueError(f"{path}: its history is {history!r:.80}; it should be a table")
    estimator.shape_, estimator.history_ = tuple(shape), history
    estimator.n_features_in_ = model.n_features
    if names is not None:
        if not isinstance(names, list) or len(names) != model.n_features or not all(isinstance(n, str) for n in names):
            raise ValueError(f"{path}: its features are {names!r:.80}; they should be {model.n_features} names")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    scale = extra.get("scale")
    estimator._scale = float(scale) if isinstance(scale, int | float) else None
