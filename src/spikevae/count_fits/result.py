"""What a fit of count distributions returns."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .dispersion import FALSE_DISCOVERY_RATE
from .evidence import Choice, choose_law, code_line


@dataclass(frozen=True)
class CountFits:
    """Laws fitted to each unit, as :func:`fit_counts` returns them."""

    n_trials: int
    """Number of trials."""
    laws: tuple[str, ...]
    """The laws that were fitted."""
    units: list[dict[str, Any]]
    """Per unit: ``name``, ``n_trials`` in which it was recorded, ``mean`` and ``variance`` (unbiased; given conditions,
    covariates or durations, mean times ``fano``), ``fano`` (given these, the index over its degrees of freedom), its
    standard error ``fano_se``, ``zeros``, ``silent``; the dispersion test's ``index`` (sum of squared deviations over
    the mean), ``p_value``, ``p_adjusted`` and ``dispersion`` ("over", "under", "neither"); ``aic`` and ``bic`` by law,
    summed over conditions, ``best_bic`` and ``best_aic``."""
    fits: list[dict[str, Any]]
    """Per unit, condition (where there are some) and law: ``n_trials``, ``log_likelihood``, ``n_parameters``, ``aic``,
    ``bic``, ``weight`` (Akaike), fitted ``mean``, ``variance`` and ``fano``, ``parameters`` and ``standard_errors``
    (NaN where there is none), ``at_limit`` (the law is Poisson; of Conway-Maxwell-Poisson: its shape is at this
    library's bound) and ``fit_p_value``. Conditions in which a unit is silent are left out."""
    counts: np.ndarray
    """(n_trials, n_units)."""
    names: tuple[str, ...] = ()
    """Of the units."""
    conditions: np.ndarray | None = None
    """(n_trials,) where there are two or more."""
    mask: np.ndarray | None = None
    """(n_trials, n_units) True where recorded; None where all were."""
    covariates: tuple[str, ...] = ()
    """Names of the covariates of the dispersion test."""

    def of(self, unit: int | str, law: str, condition: Any = None) -> dict[str, Any]:
        """One fit.

        Parameters
        ----------
        unit
            Its place or its name.
        law
            One of `laws`.
        condition
            Where there are some, which.

        Raises
        ------
        KeyError
            For a unit, law or condition that was not fitted.
        """
        for row in self.fits:
            if unit in (row["unit"], row["name"]) and (row["law"], row.get("condition")) == (law, condition):
                return row
        within = "" if self.conditions is None else f" in condition {condition!r}"
        raise KeyError(
            f"no fit of unit {unit!r} by {law!r}{within}: units 0 to {len(self.units) - 1}, {', '.join(self.laws)}"
            + ("" if self.conditions is None else f", conditions {', '.join(map(str, np.unique(self.conditions)))}")
        )

    def counts_of(self, unit: int, condition: Any = None) -> np.ndarray:
        """Counts of a unit in the rows in which it was recorded, of one condition where one is given."""
        kept = np.ones(len(self.counts), bool) if self.mask is None else self.mask[:, unit].copy()
        if condition is not None and self.conditions is not None:
            kept &= self.conditions == condition
        found: np.ndarray = self.counts[kept, unit]
        return found

    @property
    def firing(self) -> list[dict[str, Any]]:
        """The rows of `units` that have a fit."""
        return [row for row in self.units if row["best_bic"] is not None]

    def share(self, criterion: str = "bic") -> dict[str, float]:
        """Share of the firing units for which each law is best, by `bic` or `aic`."""
        firing = self.firing
        return {law: sum(row[f"best_{criterion}"] == law for row in firing) / max(len(firing), 1) for law in self.laws}

    @cached_property
    def choice(self) -> Choice | None:
        """The law of the recording, by the evidence of all units; None where none fires."""
        firing = self.firing
        if not firing:
            return None
        return choose_law(self.laws, np.array([[row["bic"][law] for law in self.laws] for row in firing]))

    @property
    def code(self) -> str | None:
        """The line of Python that makes a model with this law as its code; None where no unit fires."""
        return None if self.choice is None else code_line(self.choice.law, len(self.firing))

    def summary(self) -> str:
        """Sentences that state which law describes the recording."""
        firing, choice = self.firing, self.choice
        if choice is None:
            return f"None of {len(self.units)} units fires: no law can be chosen."
        over, under = (sum(row["dispersion"] == word for row in firing) for word in ("over", "under"))
        silent = len(self.units) - len(firing)
        quiet = f" ({silent} silent left out)" if silent else ""
        within = "" if self.conditions is None else f" of {len(np.unique(self.conditions))} conditions"
        given = f" given {', '.join(self.covariates)}" if self.covariates else ""
        return (
            f"{len(firing)} units{quiet}, {self.n_trials} trials{within}: {over} over-dispersed and {under} "
            f"under-dispersed against Poisson{given} at a false discovery rate of {FALSE_DISCOVERY_RATE:.0%}. "
            f"{_verdict(choice)} As a latent law: latent = {choice.law!r}."
        )


def _verdict(choice: Choice) -> str:
    """Which law a recording follows."""
    others = sorted((gap, law) for law, gap in choice.gaps.items() if law != choice.law)
    next_best = f" (next: {others[0][1]}, {others[0][0]:+,.0f})" if others else ""
    one = f"{choice.law} has the least BIC summed over units{next_best}."
    if not choice.mixed:
        return f"The recording follows one law: {one}"
    shares = ", ".join(
        f"{law} {share:.0%}"
        for law, share in sorted(choice.shares.items(), key=lambda item: -item[1])
        if share >= 0.005
    )
    return (
        f"The recording is mixed: {shares} of units "
        f"(BIC {choice.gain:,.0f} below that of one law for all). Of single laws, {one}"
    )
