"""The terms of the bound that hold the counts, and their derivatives: Poisson, and Poisson with inflated zeros."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, gammaln

Matrix = Float[np.ndarray, "n p"]
Kind = Literal["global", "per_unit", "covariates"]

LARGEST_EXPONENT = 600.0
"""Exponents above this give infinite rates; the search then takes a shorter step."""
FLOOR = 1e-4
"""Least information about a coefficient that a preconditioner assumes, in nats: rates that vanish leave none."""


@dataclass(frozen=True)
class Counts:
    """Counts with their offsets; entries that were not observed have weight, count and offset zero.

    Attributes
    ----------
    Y
        (n, p) counts.
    offsets
        (n, p) offsets of the log rates.
    weights
        (n, p) one where an entry was observed, else zero; None where all were.
    """

    Y: Matrix
    offsets: Matrix
    weights: Matrix | None = None

    @cached_property
    def log_factorials(self) -> Float[np.ndarray, " n"]:
        """Sum of log y! over the observed entries of each row."""
        return gammaln(self.Y + 1.0).sum(1)

    @cached_property
    def zeros(self) -> Bool[np.ndarray, "n p"]:
        """(n, p) observed entries with count zero."""
        zero = self.Y == 0
        return zero if self.weights is None else zero & (self.weights > 0)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        return self.Y.shape[0], self.Y.shape[1]


@dataclass(frozen=True)
class Inflation:
    """Which logits of an inflated zero the parameters stand for.

    Attributes
    ----------
    kind
        "global": one parameter; "per_unit": p; "covariates": (d, p) coefficients.
    design
        (n, d) covariates, of which "covariates" alone makes use.
    n_units
        p.
    """

    kind: Kind
    design: Float[np.ndarray, "n d"]
    n_units: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the parameters."""
        rows = self.design.shape[1] if self.kind == "covariates" else 1
        return rows, 1 if self.kind == "global" else self.n_units

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.shape[0] * self.shape[1]

    def logits(self, parameters: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "rows m"]:
        """Logits that broadcast against (n, p)."""
        return self.design @ parameters if self.kind == "covariates" else parameters

    def pull_back(self, gradient: Matrix) -> Float[np.ndarray, "k m"]:
        """Gradient with respect to the parameters from that with respect to the logits (n, p)."""
        if self.kind == "covariates":
            return self.design.T @ gradient
        columns = gradient.sum(0, keepdims=True)
        return columns.sum(1, keepdims=True) if self.kind == "global" else columns

    def information(self, curvature: Matrix) -> Float[np.ndarray, "k m"]:
        """Diagonal of minus the Hessian with respect to the parameters from that with respect to the logits."""
        if self.kind == "covariates":
            return (self.design**2).T @ curvature
        return self.pull_back(curvature)

    def start(self, counts: Counts) -> Float[np.ndarray, "k m"]:
        """Parameters to start from: half of the zeros inflated, of each unit or of all."""
        observed = np.ones(counts.shape) if counts.weights is None else counts.weights
        if self.kind == "global":
            share = np.full((1, 1), counts.zeros.sum() / observed.sum())
        else:
            share = (counts.zeros.sum(0) / np.maximum(observed.sum(0), 1.0))[None]
        share = np.clip(share / 2, 0.01, 0.9)
        logits = np.log(share / (1 - share))
        return self.constant(logits)

    def constant(self, logits: float | np.ndarray) -> Float[np.ndarray, "k m"]:
        """Parameters for which all rows have these logits, one or (1, p), or the nearest that covariates allow."""
        if self.kind != "covariates":
            return np.array(np.broadcast_to(logits, self.shape))
        everywhere = np.broadcast_to(logits, (len(self.design), self.n_units))
        return np.linalg.lstsq(self.design, everywhere, rcond=None)[0]


class CountTerms(NamedTuple):
    """The terms of the counts and their derivatives.

    Attributes
    ----------
    rows
        (n,) nats of each row, log factorials included.
    rates
        (n, p) expected counts under the posterior, weighted by the probability that a zero is not inflated: counts less
        these are the derivative with respect to the means of the log rates.
    logit_gradient
        (n, p) derivative with respect to the logits of an inflated zero; None without inflation.
    """

    rows: Float[np.ndarray, " n"]
    rates: Matrix
    logit_gradient: Matrix | None

    @property
    def value(self) -> float:
        """Sum over rows."""
        return float(self.rows.sum())


def count_terms(counts: Counts, mean: Matrix, variance: Matrix, logits: np.ndarray | None = None) -> CountTerms:
    """Expected log-likelihood of the counts under a Gaussian posterior of the log rates.

    Without inflation it is ``sum y (o + m) - A - log y!`` with ``A = exp(o + m + v / 2)``. With it, a posterior that
    makes an inflated zero independent of the rate has at its best probability ``P = sigmoid(logit + A)``, and an entry
    with count zero contributes ``log(pi + (1 - pi) exp(-A))``.

    Parameters
    ----------
    mean, variance
        (n, p) of the log rates without offsets.
    logits
        Of an inflated zero, broadcast against (n, p).

    Examples
    --------
    >>> one = np.ones((1, 1))
    >>> count_terms(Counts(2 * one, 0 * one), 0 * one, 0 * one).value  # log of the Poisson probability of 2 at rate 1
    -1.6931471805599454
    """
    eta = counts.offsets + mean
    exponent = eta + variance / 2
    if not exponent.max(initial=0.0) < LARGEST_EXPONENT:
        return CountTerms(
            np.full(len(eta), -np.inf), np.zeros_like(eta), None if logits is None else np.zeros_like(eta)
        )
    rates = np.exp(exponent)
    if counts.weights is not None:
        rates *= counts.weights
    rows = np.einsum("ij,ij->i", counts.Y, eta) - counts.log_factorials
    if logits is None:
        return CountTerms(rows - rates.sum(1), rates, None)
    zeros = counts.zeros
    prior = expit(logits)
    alive = expit(-(logits + rates))  # one minus the posterior probability of an inflated zero
    with_zero = np.where(zeros, np.logaddexp(logits, -rates), -rates)
    penalty = np.broadcast_to(np.logaddexp(0.0, logits), rates.shape)
    gradient = np.where(zeros, 1 - alive, 0.0) - prior
    if counts.weights is not None:
        penalty, gradient = penalty * counts.weights, gradient * counts.weights
    rows += with_zero.sum(1) - penalty.sum(1)
    return CountTerms(rows, np.where(zeros, alive * rates, rates), gradient)


def with_ridge(blocks: Float[np.ndarray, "m k k"], floor: float) -> Float[np.ndarray, "m k k"]:
    """Positive definite matrices with `floor` added to their diagonals, and as much as keeps rounding from making them
    singular."""
    k = blocks.shape[-1]
    ridge = floor + 1e-13 * np.trace(blocks, axis1=-2, axis2=-1)
    return blocks + ridge[:, None, None] * np.eye(k)


@dataclass
class Coarse:
    """Newton steps of regression coefficients at fixed residuals: the directions along which rates may vanish.

    Attributes
    ----------
    design
        (n, d) covariates.
    """

    design: Float[np.ndarray, "n d"]
    _inverses: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)), repr=False)

    def update(self, rates: Matrix) -> None:
        """Take the information about the coefficients of each unit from the rates (n, p)."""
        d = self.design.shape[1]
        products = (self.design[:, :, None] * self.design[:, None, :]).reshape(len(self.design), d * d)
        information = (rates.T @ products).reshape(rates.shape[1], d, d)
        self._inverses = np.linalg.inv(with_ridge(information, FLOOR))

    def apply(self, gradient: Float[np.ndarray, "d p"]) -> Float[np.ndarray, "d p"]:
        """Coefficients (d, p) from their gradient."""
        return np.einsum("jab,bj->aj", self._inverses, gradient)
