"""All kinds of codes: the laws, and sparse codes, which have no distribution."""

from typing import Any, ClassVar, Protocol

from ..distributions import LAWS, named


class CodeKind(Protocol):
    """Properties of a code that metrics and prices depend on; every law has them."""

    name: ClassVar[str]
    """The value of `latent` in configurations."""
    is_count: ClassVar[bool]
    """Whether codes are non-negative integers."""
    has_rate: ClassVar[bool]
    """Whether codes are non-negative numbers of spikes, or count as such, so that a firing rate is defined."""


class SparseCode:
    """Real-valued, deterministic codes in the unit of the stimulus: neither counts nor firing rates."""

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
        """None: sparse codes have no limit of small signals."""

    @classmethod
    def silent_share(cls) -> float:
        """Fraction of zeros of a code without information: one."""
        return 1.0


CODES: dict[str, Any] = {**LAWS, SparseCode.name: SparseCode}
"""All kinds of codes by the value of `latent` in configurations."""


def get_code(name: str) -> Any:
    """Return the kind of code called `name` in configurations.

    Raises
    ------
    ValueError
        If there is none; the message lists all names and the most similar one.

    Examples
    --------
    >>> get_code("poisson").label, get_code("sparse").label
    ('Poisson', 'Sparse code')
    """
    return named(name, CODES)
