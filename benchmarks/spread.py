"""Means over seeds with their intervals, and how tables show them."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval over seeds (Student)."""
    n = len(values)
    quantile = student.ppf(0.5 + LEVEL / 2, n - 1)
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n) * quantile)


def shown(value: tuple[float, float] | None, digits: int = 3) -> str:
    """Mean ± half-width, or a dash where it is not defined; no line break comes after the sign."""
    if value is None or not math.isfinite(value[0]):
        return "–"
    return f"{value[0]:.{digits}f} ±\u00a0{value[1]:.{digits}f}".replace("-", "−")
