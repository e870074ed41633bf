"""Scorers for scikit-learn: ``GridSearchCV(scoring=sv.scorers.r2)``; higher is always better.

Each is a function of (estimator, X, y=None), the estimator a fitted :class:`~spikevae.SpikeVAE` or
:class:`~spikevae.SparseCoder`, or a pipeline that ends in one. It gives the number of :class:`~spikevae.Metrics` of the
same name, with a minus sign where lower is better.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from .evaluation.metrics import Metrics

_FIELDS = {field.name: field for field in fields(Metrics)}


@dataclass(frozen=True)
class Scorer:
    """One number of :class:`~spikevae.Metrics` as a score.

    Parameters
    ----------
    name
        A field of `Metrics` for which higher or lower is better.

    Raises
    ------
    ValueError
        For any other name.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> from sklearn.model_selection import GridSearchCV
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> model = sv.SpikeVAE(n_latents=8, steps=40, random_state=0)
    >>> search = GridSearchCV(model, {"beta": [0.1, 10.0]}, scoring=sv.scorers.r2, cv=2).fit(X)
    >>> search.best_params_
    {'beta': 0.1}
    """

    name: str

    def __post_init__(self) -> None:
        usable = [name for name, field in _FIELDS.items() if field.metadata["direction"] != "neither"]
        if self.name not in usable:
            raise ValueError(f"no score {self.name!r}; those with a better direction are: {', '.join(usable)}")

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if _FIELDS[self.name].metadata["direction"] == "higher" else -1

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """The score of a fitted estimator on stimuli.

        Raises
        ------
        ValueError
            Where the number is not defined for the model, such as the energy of a code without spikes.
        """
        if not hasattr(estimator, "evaluate") and hasattr(estimator, "steps"):
            for _, step in estimator.steps[:-1]:
                X = X if step in (None, "passthrough") else step.transform(X)
            estimator = estimator.steps[-1][1]
        value = getattr(estimator.evaluate(X), self.name)
        if not math.isfinite(value):
            raise ValueError(f"{self.name} is undefined for {estimator!r:.200}; score it by another number, such as r2")
        return self.sign * value


r2 = Scorer("r2")
"""Explained share of a stimulus' pixel variance, mean over stimuli."""
free_energy = Scorer("free_energy")
"""Minus the free energy at beta = 1, nats per stimulus: the `score` of :class:`~spikevae.SpikeVAE`."""
bits_per_spike = Scorer("bits_per_spike")
"""Coding rate by expected spikes, bits per spike."""
joules = Scorer("joules")
"""Minus the modelled energy of the spikes at the central cost, J per stimulus."""
