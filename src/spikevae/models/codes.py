"""Every kind of code that a model may have: the laws, and sparse codes, which have none."""

from typing import Any, ClassVar, Protocol

from ..distributions import LAWS, named


class CodeKind(Protocol):
    """What has to be known of a code to account for it; every law of the code says it."""

    name: ClassVar[str]
    """The value of `latent` in configurations."""
    is_count: ClassVar[bool]
    """Whether codes are non-negative integers."""
    has_rate: ClassVar[bool]
    """Whether codes are non-negative with a unit of their own, so that a firing rate is defined."""


class SparseCode:
    """Graded, deterministic codes: neither counts nor, their unit being that of the stimulus, firing rates."""

    name: ClassVar[str] = "sparse"
    label: ClassVar[str] = "Sparse code"
    is_count: ClassVar[bool] = False
    has_rate: ClassVar[bool] = False
    formula: ClassVar[str] = "z = argmin 1/2 |x - z Phi|^2 + beta sum_k |z_k|, atoms of norm one; no posterior"
    citation: ClassVar[str] = "Olshausen and Field (1996), Nature 381; Rozell et al. (2008) for the LCA"
    independent: ClassVar[bool] = True
    closed_form_prior: ClassVar[bool] = False
    prior_params: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def signal_gain(cls, log_rate: float) -> None:
        """There is no limit of small signals to start from."""

    @classmethod
    def silent_share(cls) -> float:
        """Fraction of zeros of a code without information: all of it."""
        return 1.0


CODES: dict[str, Any] = {**LAWS, SparseCode.name: SparseCode}
"""By the value of `latent` in configurations. All kinds of codes have the attributes that figures, configurations and
stacks need."""


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
