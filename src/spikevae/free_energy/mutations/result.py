"""Binding scores of mutants over draws: differences, their standard errors, what common draws gain."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .mutation import Mutant


@dataclass(frozen=True)
class BindingScores:
    """Log probabilities of a wild type and its mutants, in nats.

    All differences are positive where the mutant binds more weakly (of `log_odds`: where it is less likely).
    """

    mutants: list[Mutant]
    """n mutants."""
    terms: Float[np.ndarray, "draws systems m"]
    """Log probabilities: of each draw; in the complex, then in each partner alone; of the wild type, then of each
    mutant."""

    @property
    def draws(self) -> Float[np.ndarray, "draws n"]:
        """Differences of the binding scores of each draw."""
        scores = self.terms[:, 0] - self.terms[:, 1:].sum(1)
        return scores[:, :1] - scores[:, 1:]

    @property
    def binding(self) -> Float[np.ndarray, " n"]:
        """Differences of the binding scores, means over draws."""
        return self.draws.mean(0)

    @property
    def log_odds_draws(self) -> Float[np.ndarray, "draws n"]:
        """Log odds of the wild type in the complex, of each draw: without the partners alone."""
        return self.terms[:, 0, :1] - self.terms[:, 0, 1:]

    @property
    def log_odds(self) -> Float[np.ndarray, " n"]:
        """Log odds of the wild type against the mutant in the complex, means over draws."""
        return self.log_odds_draws.mean(0)

    @property
    def standard_errors(self) -> Float[np.ndarray, " n"]:
        """Of `binding`, from the spread over draws; infinite for one draw."""
        return standard_errors(self.draws)

    @property
    def independent_variances(self) -> Float[np.ndarray, " n"]:
        """Variances of one draw if the four terms had draws of their own: the sum of the variances of the terms."""
        own = _variances(self.terms).sum(0)
        return own[0] + own[1:]

    @property
    def variances(self) -> Float[np.ndarray, " n"]:
        """Variances of one draw as they are."""
        return _variances(self.draws)


def _variances(values: Float[np.ndarray, "draws ..."]) -> Float[np.ndarray, "..."]:
    if len(values) < 2:
        return np.full(values.shape[1:], math.inf)
    found: np.ndarray = values.var(0, ddof=1)
    return found


def standard_errors(draws: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " n"]:
    """Of means over draws; infinite for one draw."""
    found: np.ndarray = np.sqrt(_variances(draws) / max(len(draws), 1))
    return found
