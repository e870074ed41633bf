"""The result of every method: an estimate, its error, its bounds, and what speaks against it."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 10.0
"""Samples in the region that both states share below which an estimate is flagged."""
MAX_FLOAT_ERROR = 1e-9
"""Relative to the largest work: bounds that cross by less differ by rounding."""


@dataclass(frozen=True)
class Difference:
    """An estimate of F(B) - F(A), in units of kT (nats)."""

    estimate: float
    """The difference; nan where the samples say nothing about it."""
    standard_error: float
    """For independent samples, to first order in 1 / n; infinite where it cannot be estimated."""
    lower: float
    """Minus the mean reverse work: in expectation not above the difference. -inf without samples of B."""
    upper: float
    """The mean forward work: in expectation not below the difference. inf without samples of A."""
    overlap: float
    """From 0 to 1, where the states are equal. With samples of both, 1 minus the second largest eigenvalue of the
    overlap matrix of MBAR; with those of A alone, the share of effective samples, (sum of weights)^2 / (n sum of
    squares)."""
    method: str
    """Name of the estimator."""
    samples: tuple[int, ...]
    """Samples of each state, of A first."""
    flags: tuple[str, ...] = ()
    """Sentences on what speaks against the estimate; none, if nothing that can be seen does."""
    free_energies: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(K,) of every state minus that of the first, for :func:`mbar`; else empty."""
    standard_errors: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(K,) of `free_energies`."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def describe(self) -> str:
        """Some lines of text.

        Examples
        --------
        >>> print(Difference(1.5, 0.02, 1.0, 2.0, 0.6, "BAR", (900, 1000)).describe())
        difference    1.5000 +- 0.0200 kT, by BAR
        bounds        1.0000 and 2.0000
        overlap          0.6 of 1, 900 + 1000 samples
        """
        lines = [
            f"difference {self.estimate:>9.4f} +- {self.standard_error:.4f} kT, by {self.method}",
            f"bounds     {self.lower:>9.4f} and {self.upper:.4f}",
            f"overlap    {self.overlap:>9.2g} of 1, {' + '.join(map(str, self.samples))} samples",
        ]
        if len(self.free_energies):
            lines += ["state   free energy"]
            lines += [
                f"{k:>5} {f:>13.4f} +- {error:.4f}"
                for k, (f, error) in enumerate(zip(self.free_energies, self.standard_errors))
            ]
        return "\n".join([*lines, *(f"warning: {flag}" for flag in self.flags)])


def flags_of(samples: tuple[int, ...], overlap: float, shared: float, most: float, remedy: str) -> list[str]:
    """What speaks against an estimate: few samples, or few of them in the region that the states share.

    Parameters
    ----------
    overlap
        As in :class:`Difference`.
    shared, most
        Samples in the shared region, and how many there would be if the states were equal.
    remedy
        What to do.
    """
    found = []
    for name, n in zip(("A", "B") if len(samples) <= 2 else map(str, range(len(samples))), samples):
        if 0 < n < FEW:
            what = "1 sample" if n == 1 else f"{n} samples"
            found.append(f"{what} of state {name}: too few to estimate an error; take {FEW:g} or more")
    if shared < min(FEW, most / 2):
        found.append(
            f"overlap {overlap:.2g}: about {shared:.2g} samples are in the region that the states share, so that "
            f"neither the estimate nor its error is reliable; {remedy}"
        )
    return found


def crossed(forward: NDArray[np.float64], reverse: NDArray[np.float64]) -> str | None:
    """Flag where the mean forward work is below minus the mean reverse work by more than chance explains."""
    if not (len(forward) and len(reverse)):
        return None
    gap = float(forward.mean() + reverse.mean())
    if not math.isfinite(gap):
        return None
    error = math.sqrt(sum(w.var(ddof=1) / len(w) if len(w) > 1 else 0.0 for w in (forward, reverse)))
    rounding = MAX_FLOAT_ERROR * max(1.0, float(np.abs(forward).max()), float(np.abs(reverse).max()))
    if gap < -4 * error - rounding:
        return (
            f"the bounds cross: minus the mean reverse work, {-reverse.mean():.4g}, is above the mean forward work, "
            f"{forward.mean():.4g}; no two states have such works. Reverse works are u_A - u_B of samples of B, with "
            "their own sign, and samples must be of equilibrium"
        )
    return None


def bounds(forward: NDArray[np.float64], reverse: NDArray[np.float64]) -> tuple[float, float]:
    """Lower and upper bound, from mean works."""
    lower = -float(reverse.mean()) if len(reverse) else -math.inf
    return lower, float(forward.mean()) if len(forward) else math.inf
