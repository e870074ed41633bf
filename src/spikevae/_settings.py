"""Checks of numeric settings of estimators: `ValueError` of one line that names the setting and what to give."""

import math
import numbers
from typing import Any


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuse anything but a whole number of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(f"{name} is {value!r}; give a whole number, {least} or more")


def positive(name: str, value: Any, *, finite: bool = True) -> None:
    """Refuse anything but a positive number, and infinity where it must be `finite`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) > 0:
        raise ValueError(f"{name} is {value!r}; give a positive number")
    if finite and math.isinf(float(value)):
        raise ValueError(f"{name} is {value!r}; give a finite number")


def layer_widths(name: str, value: Any, example: tuple[int, ...]) -> None:
    """Refuse anything but a tuple or list of one or more positive whole numbers."""
    if not isinstance(value, tuple | list) or not value:
        raise ValueError(f"{name} is {value!r}; give the widths of one or more layers, as {example}")
    for width in value:
        whole_number(name, width, 1)
