"""The rank or the penalty of a Poisson log-normal model, chosen by an information criterion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import clone

from ..progress import show_progress
from .poisson_log_normal import PoissonLogNormal

Criterion = Literal["bic", "ebic", "icl", "aic"]
CRITERIA = ("bic", "ebic", "icl", "aic")
N_PENALTIES, SMALLEST_PENALTY = 8, 0.1
"""Number of penalties of a path by default, and the smallest over the largest."""


@dataclass(frozen=True)
class Selection:
    """Fits along a path of ranks or penalties.

    Attributes
    ----------
    name
        "rank" or "penalty".
    values
        Of it.
    models
        Fitted, in the order of `values`.
    criterion
        "bic", "ebic", "icl" or "aic": smaller is better.
    gamma
        Weight of the number of possible edges in "ebic".
    """

    name: str
    values: tuple[float, ...]
    models: tuple[PoissonLogNormal, ...]
    criterion: Criterion
    gamma: float

    def table(self) -> list[dict[str, Any]]:
        """One row a fit: value, bound in nats, number of parameters and of edges, criteria, converged."""
        rows = []
        for value, model in zip(self.values, self.models):
            edges = int(np.count_nonzero(np.triu(model.precision_, 1)))
            ebic = model.bic_ + 4 * self.gamma * edges * math.log(model.n_features_in_)
            rows.append(
                {
                    self.name: value,
                    "bound": model.bound_,
                    "parameters": model.n_parameters_,
                    "edges": edges,
                    "bic": model.bic_,
                    "ebic": ebic,
                    "icl": model.icl_,
                    "aic": model.aic_,
                    "converged": model.converged_,
                }
            )
        return rows

    @property
    def best(self) -> PoissonLogNormal:
        """The model whose criterion is least."""
        return self.models[int(np.argmin([row[self.criterion] for row in self.table()]))]


def select(
    model: PoissonLogNormal,
    Y: Any,
    X: Any = None,
    offsets: Any = None,
    mask: Any = None,
    *,
    ranks: Sequence[int] | None = None,
    penalties: Sequence[float] | None = None,
    criterion: Criterion = "bic",
    gamma: float = 0.5,
) -> Selection:
    """Fit `model` at each rank or each penalty.

    Parameters
    ----------
    model
        Estimator whose other settings are kept; it is not changed.
    ranks
        Ranks to try. Without these, penalties are tried.
    penalties
        Penalties to try; by default eight, from the largest absolute correlation of the fit without penalty down to a
        tenth of it.
    criterion
        "bic", "ebic" (Foygel & Drton, NeurIPS 2010: bic + 4 gamma edges log p), "icl" or "aic".
    gamma
        Of "ebic", 0 to 1.

    Raises
    ------
    ValueError
        For settings that cannot be fitted, or ranks and penalties at once.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(200, 1)) @ [[1.0, -1.0, 1.0]]
    >>> found = select(PoissonLogNormal(n_starts=1), rng.poisson(np.exp(1 + z)), ranks=[1, 2])
    >>> found.best.rank
    1
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; give one of {', '.join(CRITERIA)}")
    if ranks is not None and penalties is not None:
        raise ValueError("ranks and penalties are given: give one of them")
    name = "penalty" if ranks is None else "rank"
    plain = clone(model).set_params(rank=None, penalty=None)
    values: tuple[float, ...] = tuple(ranks if ranks is not None else penalties if penalties is not None else ())
    if ranks is None and penalties is None:
        values = _path(plain, Y, X, offsets, mask)
    if not values:
        raise ValueError(f"no {name} is given: give one or more")
    models = []
    with show_progress(f"select {name}", enabled=model.verbose) as report:
        for i, value in enumerate(values):
            report(i, len(values), f"{name} {value:g}")
            setting: dict[str, Any] = {name: value, "verbose": False}
            models.append(clone(plain).set_params(**setting).fit(Y, X, offsets, mask))
        report(len(values), len(values), "done")
    return Selection(name, values, tuple(models), criterion, gamma)


def _path(model: PoissonLogNormal, Y: Any, X: Any, offsets: Any, mask: Any) -> tuple[float, ...]:
    covariance = clone(model).fit(Y, X, offsets, mask).covariance_
    deviation = np.sqrt(np.diagonal(covariance))
    largest = float(np.abs(np.triu(covariance / np.outer(deviation, deviation), 1)).max(initial=0.0))
    return tuple(float(x) for x in max(largest, 1e-3) * np.geomspace(1.0, SMALLEST_PENALTY, N_PENALTIES))
