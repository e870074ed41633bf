"""`BindingEnergy`: binding scores and contact energies in kcal/mol, with the learned scalar."""

import math
import numbers
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .mutation import Mutant


@final
class BindingEnergy(RegressorMixin, BaseEstimator):
    r"""Differences of binding free energy as a scaled binding score, and perhaps scaled contact energies.

    .. math:: \Delta\Delta G = b\, x_1 + \sum_{j>1} w_j x_j,

    without intercept, since the wild type differs from itself by nothing. :math:`x_1` is the difference of binding
    scores of a :class:`Cycle`, in nats, and b the learned scalar (Boltzmann scalar): least squares through the origin.
    Scales of contact energies, if there are any, are penalised: ridge regression with

    .. math:: \sum_n (y_n - \hat y_n)^2 + \lambda \sum_{j>1} w_j^2\, \overline{x_j^2},

    so that :math:`\lambda` counts as that many measurements of zero.

    Parameters
    ----------
    penalty
        lambda, 0 or more.

    Attributes
    ----------
    scalar_ : float
        b, kcal/mol per nat.
    scales_ : array
        (F - 1) scales of the contact energies, kcal/mol per unit of these.
    n_features_in_ : int
        F.

    References
    ----------
    Jiao et al. (2024), arXiv 2410.09543 (the scalar); 2508.10629 (log odds plus a difference of energies).

    Examples
    --------
    >>> scores = np.array([[1.0], [2.0], [-1.0]])
    >>> fit = BindingEnergy().fit(scores, [0.6, 1.2, -0.6])
    >>> round(fit.scalar_, 3), fit.predict([[3.0]]).round(3).tolist()
    (0.6, [1.8])
    """

    def __init__(self, *, penalty: float = 1.0):
        self.penalty = penalty

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the scales.

        Parameters
        ----------
        X
            (n, F): differences of binding scores in nats, then contact energies in any unit; positive for weaker
            binding.
        y
            (n,) measured differences of binding free energy, kcal/mol.

        Raises
        ------
        ValueError
            For numbers that are not finite, columns that are zero everywhere, and a penalty below 0.
        """
        if (
            isinstance(self.penalty, bool)
            or not isinstance(self.penalty, numbers.Real)
            or not 0 <= self.penalty < math.inf
        ):
            raise ValueError(f"penalty is {self.penalty!r}; give a finite number, 0 or more")
        x, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        size = np.sqrt((x**2).mean(0))
        if not size.all():
            raise ValueError(f"column {int(np.argmin(size))} of X is zero everywhere: leave it out")
        z = x / size
        ridge = np.diag([0.0, *[float(self.penalty)] * (x.shape[1] - 1)])
        coefficients = np.linalg.lstsq(z.T @ z + ridge, z.T @ target, rcond=None)[0] / size
        self.scalar_: float = float(coefficients[0])
        self.scales_: NDArray[np.float64] = coefficients[1:]
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """(n,) differences of binding free energy, kcal/mol."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        found: NDArray[np.float64] = x @ np.array([self.scalar_, *self.scales_])
        return found


def leave_positions_out(mutants: Sequence[Mutant]) -> list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]:
    """Splits for cross-validation: mutants of one set of residues against those that share no residue with it.

    A split of residues that are mutated together in many ways has a smaller training set, since mutants that share a
    residue with the test set are in neither. Each mutant is tested once.

    Raises
    ------
    ValueError
        Where a set of residues leaves no other mutant to train on.

    Examples
    --------
    >>> from spikevae.free_energy.mutations import parse_mutant
    >>> mutants = [parse_mutant(text) for text in ("DD26A", "DD26W", "EA58A", "DD26A,EA58A", "KA66A")]
    >>> [(train.tolist(), test.tolist()) for train, test in leave_positions_out(mutants)]
    [([2, 4], [0, 1]), ([0, 1, 4], [2]), ([4], [3]), ([0, 1, 2, 3], [4])]
    """
    positions = [one.positions for one in mutants]
    splits = []
    for held_out in dict.fromkeys(positions):
        train = [i for i, own in enumerate(positions) if not own & held_out]
        if not train:
            raise ValueError(
                "every mutant shares a residue with those of "
                f"{mutants[positions.index(held_out)]}: nothing is left to train on; give more mutants"
            )
        splits.append((np.array(train), np.flatnonzero([own == held_out for own in positions])))
    return splits
