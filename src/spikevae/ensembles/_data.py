"""Inputs and targets as tensors, or an error of one line."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import plain


def _numbers(values: Any, name: str, dtype: torch.dtype) -> Tensor:
    """A finite tensor, with at least one row."""
    try:
        found = np.asarray(plain(values, name))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an array of numbers: {str(error).splitlines()[0]}") from None
    if found.dtype.kind not in "buif":
        raise ValueError(f"{name} has type {found.dtype}; give numbers")
    if not found.ndim or not len(found):
        raise ValueError(f"{name} has shape {found.shape}; give one or more rows")
    bad = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(1))
    if len(bad):
        raise ValueError(
            f"{name} has NaN or infinity in {len(bad)} of {len(found)} rows, the first of them row {bad[0]}: leave "
            "these rows out, or fill in the values"
        )
    return torch.tensor(found, dtype=dtype)


def checked_inputs(X: Any, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> Tensor:
    """(n, ...) inputs of a module; of this shape each, if it is known."""
    x = _numbers(X, "X", dtype)
    if x.ndim < 2:
        raise ValueError(f"X has shape {tuple(x.shape)}; give (n, d), as X.reshape(-1, 1) for one feature")
    if shape is not None and x.shape[1:] != shape:
        raise ValueError(f"rows of X have shape {tuple(x.shape[1:])}, but those of the fit had {shape}")
    return x


def checked_targets(y: Any, n: int, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> Tensor:
    """(n, ...) targets."""
    target = _numbers(y, "y", dtype)
    if len(target) != n:
        raise ValueError(f"X has {n} rows, but y has {len(target)}: give one y for each row of X")
    if shape is not None and target.shape[1:] != shape:
        raise ValueError(f"rows of y have shape {tuple(target.shape[1:])}, but those of the fit had {shape}")
    return target
