"""What a fit of count distributions returns."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .dispersion import FALSE_DISCOVERY_RATE


@dataclass(frozen=True)
class CountFits:
    """Laws fitted to each unit, as :func:`fit_counts` returns them."""

    n_trials: int
    """Number of trials."""
    laws: tuple[str, ...]
    """The laws that were fitted."""
    units: list[dict[str, Any]]
    """Per unit: ``mean`` and ``variance`` (unbiased), ``fano``, its standard error ``fano_se``, ``zeros``, ``silent``;
    the dispersion test's ``index`` (sum of squared deviations over the mean), ``p_value`` and ``dispersion`` ("over",
    "under", "neither"); ``best_bic`` and ``best_aic``."""
    fits: list[dict[str, Any]]
    """Per unit and law: ``log_likelihood``, ``n_parameters``, ``aic``, ``bic``, ``weight`` (Akaike), fitted ``mean``,
    ``variance`` and ``fano``, ``parameters`` and ``standard_errors`` (NaN where there is none), ``at_limit`` (the law
    is Poisson; of Conway-Maxwell-Poisson: its shape is at this library's bound) and ``fit_p_value``."""
    counts: np.ndarray
    """(n_trials, n_units)."""

    def of(self, unit: int, law: str) -> dict[str, Any]:
        """One fit.

        Raises
        ------
        KeyError
            For a unit or law that was not fitted.
        """
        for row in self.fits:
            if (row["unit"], row["law"]) == (unit, law):
                return row
        raise KeyError(f"no fit of unit {unit!r} by {law!r}: units 0 to {len(self.units) - 1}, {', '.join(self.laws)}")

    def share(self, criterion: str = "bic") -> dict[str, float]:
        """Share of the firing units for which each law is best, by `bic` or `aic`."""
        firing = [row for row in self.units if not row["silent"]]
        return {law: sum(row[f"best_{criterion}"] == law for row in firing) / max(len(firing), 1) for law in self.laws}

    def summary(self) -> str:
        """Sentences that state which law describes the most units best."""
        firing = [row for row in self.units if not row["silent"]]
        if not firing:
            return f"None of {len(self.units)} units fires: no law can be chosen."
        over, under = (sum(row["dispersion"] == word for row in firing) for word in ("over", "under"))
        bic, aic = self.share(), self.share("aic")
        best = max(bic, key=lambda law: bic[law])
        silent = len(self.units) - len(firing)
        quiet = f" ({silent} silent left out)" if silent else ""
        return (
            f"{len(firing)} units{quiet}, {self.n_trials} trials: {over} over-dispersed and {under} under-dispersed "
            f"against Poisson at a false discovery rate of {FALSE_DISCOVERY_RATE:.0%}. Best by BIC: {best} for "
            f"{bic[best]:.0%} of units (by AIC {aic[best]:.0%}); as a latent law: latent = {best!r}."
        )
