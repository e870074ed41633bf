"""One function for the methods that need works alone."""

from collections.abc import Callable
from typing import Any

from .bar import bar
from .result import Difference
from .zwanzig import zwanzig

METHODS: dict[str, Callable[..., Difference]] = {"zwanzig": zwanzig, "bar": bar}


def difference(forward: Any, reverse: Any = None, *, method: str | None = None) -> Difference:
    """Estimate F(B) - F(A) from works of samples.

    Parameters
    ----------
    forward
        (n,) works u_B - u_A of samples of A.
    reverse
        (m,) works u_A - u_B of samples of B.
    method
        "zwanzig" or "bar"; by default "bar" where there are samples of both.

    Raises
    ------
    ValueError
        For works that are NaN or minus infinity, no samples, or an unknown method.

    Examples
    --------
    >>> difference([1.0, 1.0, 1.0], [-1.0, -1.0]).estimate
    1.0
    """
    chosen = method or ("zwanzig" if reverse is None else "bar")
    if chosen not in METHODS:
        raise ValueError(f"method is {method!r}; give one of {', '.join(METHODS)}")
    if chosen == "bar" and reverse is None:
        raise ValueError("method='bar' needs the works of samples of both states: give reverse, or method='zwanzig'")
    return METHODS[chosen](forward, reverse)
