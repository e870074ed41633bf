"""Conversion and checks of the inputs of metrics."""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .._arrays import plain

Array: TypeAlias = ArrayLike | Tensor


def as_float64(x: Array) -> np.ndarray:
    """`x` (numpy, torch on any device, or nested lists) as a float64 numpy array."""
    return np.asarray(plain(x, "the array"), dtype=np.float64)


def matrix(x: Array, name: str) -> np.ndarray:
    """`x` as a float64 matrix with at least one row and column, or an error with its name."""
    out = as_float64(x)
    if out.ndim != 2 or 0 in out.shape:
        raise ValueError(f"{name} has shape {out.shape}; give a non-empty (stimuli, columns) matrix")
    return out


def same_shape(a: Array, b: Array, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 matrices, or an error if their shapes differ."""
    first, second = matrix(a, names[0]), matrix(b, names[1])
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} has shape {first.shape} but {names[1]} {second.shape}; they must be equal")
    return first, second
