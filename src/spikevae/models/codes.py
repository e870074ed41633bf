"""Every kind of code that a model may have: the laws, and sparse codes, which have none."""

import difflib
from typing import Any

from ..distributions import LAWS
from .sparse_model import SparseCode

CODES: dict[str, Any] = {**LAWS, SparseCode.name: SparseCode}
"""By the word for `latent` in configurations; what figures, configurations and stacks ask of a law, all of them say."""


def get_code(name: str) -> Any:
    """Return the kind of code called `name` in configurations.

    Raises
    ------
    ValueError
        If there is none; the message lists the kinds and the nearest.

    Examples
    --------
    >>> get_code("poisson").label, get_code("sparse").label
    ('Poisson', 'Sparse code')
    """
    if name in CODES:
        return CODES[name]
    nearest = difflib.get_close_matches(str(name), CODES, n=1, cutoff=0.0)
    raise ValueError(f"unknown law {name!r}: choose one of {', '.join(CODES)}; did you mean {nearest[0]!r}?")
