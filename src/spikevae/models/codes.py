"""Every kind of code that a model may have: the laws, and sparse codes, which have none."""

from typing import Any

from ..distributions import LAWS, named
from .sparse.model import SparseCode

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
    return named(name, CODES)
