"""Counts, covariates, offsets and masks from arrays, data frames and AnnData; errors name row and column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import qr, solve_triangular
from sklearn.utils.validation import validate_data

from .._arrays import plain
from ._bound import Counts

DEPENDENT = 1e-8
"""Share of a standardised covariate's norm beyond the others below which it counts as their combination."""


def is_annotated(table: Any) -> bool:
    """Whether it is an AnnData object, or has the same parts: counts, and tables of rows and of columns."""
    return all(hasattr(table, name) for name in ("X", "obs", "var", "var_names"))


def counts_and_annotations(Y: Any) -> tuple[Any, Any]:
    """The table of counts, and the table of the rows of an AnnData object or None."""
    if not is_annotated(Y):
        return Y, None
    X = Y.X.toarray() if hasattr(Y.X, "toarray") else np.asarray(Y.X)
    return type(Y.obs)(X, columns=[str(name) for name in Y.var_names], index=Y.obs.index), Y.obs


def read_counts(estimator: Any, Y: Any, offsets: Any, mask: Any, *, reset: bool) -> Counts:
    """(n, p) counts with offsets and mask; sets the names and the number of features of `estimator` where `reset`.

    Raises
    ------
    ValueError, TypeError
        Where a count that is observed is negative, fractional or not finite, or the tables do not match; in one line.
    """
    Y = Y.toarray() if hasattr(Y, "nnz") and hasattr(Y, "toarray") else plain(Y, "Y")
    try:
        values = validate_data(estimator, Y, reset=reset, dtype=np.float64, ensure_all_finite=False)
    except (ValueError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        text = " ".join(line for line in lines if line and not line.startswith(("[", "array=")))
        raise type(error)(
            text if text.startswith(("X", "Y")) else f"Y cannot be read as counts (n, p): {text}"
        ) from None
    observed = _mask(mask, values.shape)
    shift = _offsets(offsets, values.shape)
    names = getattr(estimator, "feature_names_in_", None)
    observed_infinity = observed & ~np.isfinite(values)
    if observed_infinity.any():
        raise ValueError(
            f"{_where('Y', observed_infinity, names)} is NaN or infinity: set its entry of the mask to False to "
            "leave it out"
        )
    bad = observed & ~((values >= 0) & (values == np.floor(values)))
    if bad.any():
        raise ValueError(
            f"{_where('Y', bad, names)} is {values[bad][0]:g}: counts are whole numbers of zero or more; correct it, "
            "or set its entry of the mask to False"
        )
    impossible = observed & ~(np.isfinite(shift) | ((shift == -np.inf) & (values == 0)))
    if impossible.any():
        raise ValueError(
            f"{_where('offsets', impossible, names)} is {shift[impossible][0]:g} where the count is "
            f"{values[impossible][0]:g}: give a finite logarithm, or set its entry of the mask to False"
        )
    observed &= np.isfinite(shift)  # an exposure of zero leaves no information
    if observed.all():
        return Counts(values, shift)
    return Counts(np.where(observed, values, 0.0), np.where(observed, shift, 0.0), observed.astype(np.float64))


def _mask(mask: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "n p"]:
    if mask is None:
        return np.ones(shape, dtype=bool)
    given = np.asarray(plain(mask, "mask"))
    if given.shape != shape:
        raise ValueError(f"mask has shape {given.shape}, but Y has {shape}; give one entry for each count")
    if not np.isin(given, (0, 1)).all():
        raise ValueError("mask has entries other than True and False; True stands for a count that was observed")
    return given.astype(bool)


def _offsets(offsets: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "n p"]:
    if offsets is None:
        return np.zeros(shape)
    try:
        given = np.asarray(plain(offsets, "offsets"), dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError(
            "offsets cannot be read as numbers; give logarithms of exposures, (n, p), (n,) or (n, 1)"
        ) from None
    if given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or given.shape[0] != shape[0] or given.shape[1] not in (1, shape[1]):
        raise ValueError(
            f"offsets have shape {np.shape(offsets)}, but Y has {shape}; give one for each row or for each count, as "
            "logarithms"
        )
    return np.array(np.broadcast_to(given, shape))


def _where(table: str, bad: Bool[np.ndarray, "n p"], names: Any) -> str:
    row, column = (int(index) for index in np.argwhere(bad)[0])
    return f"{table}, row {row}, column {column if names is None else repr(str(names[column]))}"


def read_covariates(X: Any, n: int | None) -> tuple[Float[np.ndarray, "n d"], list[str]]:
    """(n, d) covariates and their names.

    Raises
    ------
    ValueError
        For text, values that are not finite, or another number of rows than `n`; with the column.
    """
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    values = np.asarray(plain(X, "X"))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(f"X has shape {values.shape}; covariates are (n, d)")
    names = names or [str(j) for j in range(values.shape[1])]
    numbers = np.empty(values.shape)
    for j, name in enumerate(names):
        try:
            numbers[:, j] = values[:, j].astype(np.float64)
        except (ValueError, TypeError):
            raise ValueError(
                f"X, column {name!r} holds {values[0, j]!r:.40}, no number; give numbers, or name the columns in a "
                f"formula: formula='1 + {name}'"
            ) from None
    if n is not None and len(numbers) != n:
        raise ValueError(f"X has {len(numbers)} rows, but Y has {n}; give one row of covariates for each row of counts")
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise ValueError(
            f"{_where('X', bad, names)} is {numbers[bad][0]}: fill it in, or leave out the row from X and Y alike"
        )
    return numbers, names


@dataclass(frozen=True)
class Design:
    """Covariates, standardised and made orthonormal for the fit.

    Attributes
    ----------
    basis
        (n, d) orthonormal columns, the intercept among them.
    triangle
        (d, d) upper triangle R: basis @ R are the standardised columns.
    centre, scale
        (d - 1 or d,) of the covariates.
    intercept
        Whether the first column is the intercept.
    """

    basis: Float[np.ndarray, "n d"]
    triangle: Float[np.ndarray, "d d"]
    centre: np.ndarray
    scale: np.ndarray
    intercept: bool

    def in_user_scale(self, coefficients: Float[np.ndarray, "d p"]) -> tuple[np.ndarray, np.ndarray]:
        """Intercept (p,) and coefficients (p, d) of the covariates from coefficients of the basis."""
        found = solve_triangular(self.triangle, coefficients) if len(coefficients) else coefficients
        first = int(self.intercept)
        coef = found[first:].T / self.scale
        level = found[0] if self.intercept else np.zeros(coefficients.shape[1])
        return level - coef @ self.centre, coef


def design_of(X: Float[np.ndarray, "n d"], names: Sequence[str], *, intercept: bool) -> Design:
    """The design of covariates.

    Raises
    ------
    ValueError
        Where a covariate is constant or a combination of others; with their names.
    """
    n, d = X.shape
    if n <= d + intercept:
        raise ValueError(
            f"{n} rows (n_samples = {n}) are too few for {d + intercept} coefficients of each unit; give more than "
            f"{d + intercept} rows"
        )
    centre = X.mean(0) if intercept else np.zeros(d)
    scale = np.sqrt(((X - centre) ** 2).mean(0))
    constant = scale <= 1e-12 * np.abs(X).max(0, initial=0.0)
    if constant.any():
        name = names[int(np.flatnonzero(constant)[0])]
        cause = "is constant, as the intercept is" if intercept else "is zero"
        raise ValueError(f"X, column {name!r} {cause}: leave it out" + (", or set fit_intercept=False" * intercept))
    columns = (X - centre) / scale
    if intercept:
        columns = np.column_stack([np.ones(n), columns])
    if d:
        _check_rank(columns, ["the intercept", *names] if intercept else list(names))
    basis, triangle = np.linalg.qr(columns)
    return Design(basis, triangle, centre, scale, intercept)


def _check_rank(columns: np.ndarray, names: list[str]) -> None:
    _, triangle, order = qr(columns, mode="economic", pivoting=True)
    size = np.abs(np.diagonal(triangle))
    rank = int((size > DEPENDENT * size[0]).sum())
    if rank == len(names):
        return
    j = order[rank]
    others = solve_triangular(triangle[:rank, :rank], triangle[:rank, rank])
    partners = [names[order[i]] for i in range(rank) if abs(others[i]) > 1e-6]
    raise ValueError(
        f"X is singular: column {names[j]!r} is a combination of {', '.join(map(repr, partners))}; leave one of "
        "them out"
    )
