"""`PoissonLogNormal`: multivariate counts whose log rates are Gaussian, as a scikit-learn estimator."""

import copy
import math
import numbers
import warnings
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from .._seeds import MAX_SEED
from ..progress import show_progress
from ._bound import Inflation
from ._formula import Terms, covariates_of
from ._gaussian_fit import Posterior
from ._results import Results, read_fit, write_fit
from ._search import check_settings, infer, search, settings_of
from ._tables import counts_and_annotations, design_of, read_counts, read_covariates

FINER = 1e-3
"""Of the tolerance: posteriors under known parameters cost little, and rows should hardly depend on one another."""
MAX_ONE_THREAD = 256
"""Units up to which one thread computes: of matrices with a hundred rows the threads mostly wait for each other."""


class PoissonLogNormal(Results, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Counts of many units whose log rates are jointly Gaussian, given covariates.

    Row i has covariates x_i and offsets o_i. Its log rates are ``Z_i ~ N(o_i + intercept + coef x_i, covariance)``, and
    the counts are ``Y_ij ~ Poisson(exp(Z_ij))``; with inflated zeros, a count is zero with a probability beside that.
    The covariance says how units covary beyond covariates and counting noise. The fit maximises a lower bound of the
    log-likelihood over a Gaussian posterior ``N(M_ij, S_ij^2)`` of each log rate; the variances S^2 are too small as
    measures of uncertainty, as those of all such posteriors.

    Parameters
    ----------
    covariance : str
        "full", "diagonal", or "spherical": one variance for all units.
    rank : int or None
        q: the covariance is C C' with loadings C (p, q), and the latent variables are q scores a row.
    penalty : float or None
        Of the entries of the precision off its diagonal, as in the graphical lasso: many of them become zero.
    zero_inflation : str or None
        None, or whose probability of an inflated zero is fitted: "global" one for all, "per_unit" one for each unit, or
        "covariates", a logistic regression of each unit on the covariates.
    zero_inflation_posterior : str
        "independent": the posterior of a log rate is the same whether a zero is inflated or not. Its bound is loose
        where many zeros are inflated, and can be best without any. "conditional": where a zero is inflated, the log
        rate has the mean of the regression and a variance of its unit. "auto": the second, and with `rank` or
        `penalty`, which know the first alone, the first.
    formula : str or None
        Which covariates to make of the columns of X, such as ``"1 + site + log(depth)"`` (extra `population`); X is
        then a data frame or a dictionary of columns, or, where Y is an AnnData object and X is not given, its `obs`.
        Columns of text are categories, as is ``C(column)``. The formula decides on the intercept.
    fit_intercept : bool
        Whether log rates have an intercept beside the covariates; X then holds no constant column. Without a formula.
    n_starts : int
        Starts of the search: the logarithms of the counts, shrunk ones, then ones with noise. The best is kept.
    max_iter : int
        Most Newton steps of each start.
    tol : float
        The search ends when a Newton step promises a gain below this many nats per row.
    random_state : int, Generator, RandomState or None
        For the starts with noise: with up to two starts nothing is random.
    verbose : bool
        Show progress while fitting.

    Attributes
    ----------
    intercept_, coef_ : ndarray (p,), (p, d)
        Of the log rates, in the scale of X.
    covariance_, precision_ : ndarray (p, p)
        Of the log rates, and its inverse.
    latent_, latent_variance_ : ndarray (n, p)
        Posterior means and variances of the latent variables of the rows of the fit: the log rates without offsets, or
        with `rank` the scores (n, q).
    loadings_ : ndarray (p, q)
        With `rank` alone: C, in the order of the variance that its columns explain.
    inflation_intercept_, inflation_coef_ : ndarray (1,) or (p,), (p, d)
        Logits of an inflated zero; the coefficients with "covariates" alone.
    prob_zero_inflation_ : ndarray (n, p)
        Posterior probability that a count of the fit is an inflated zero.
    bound_ : float
        The bound of the log-likelihood, in nats, over all rows, with exact log factorials.
    bic_, aic_, icl_ : float
        ``-2 bound + k log n``, ``-2 bound + 2 k``, and ``bic_`` plus twice the entropy of the posterior: smaller is
        better.
    n_parameters_ : int
        k: coefficients, entries of the covariance on and above its diagonal, and parameters of inflation.
    bounds_of_starts_ : ndarray (n_starts,)
        The bound that each start reached.
    starts_disagree_ : bool
        Whether some start ended more than half a nat below the best: others may be better still.
    n_iter_, converged_, gradient_norm_ : int, bool, float
        Newton steps of all starts; whether the best ended by `tol`; the root of twice the gain, in nats, that the
        diagonal of the Hessian promises from there.
    n_features_in_, feature_names_in_ : int, ndarray
        p, and the names of units where Y has them.
    covariate_names_ : list of str
        The columns of X.

    References
    ----------
    Aitchison & Ho, Biometrika 76 (1989), the model; Chiquet, Mariadassou & Robin, Frontiers in Ecology and Evolution 9
    (2021), the bound and its parameters in closed form.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> common, own = rng.normal(size=(300, 1)), rng.normal(size=(300, 2))
    >>> m = PoissonLogNormal().fit(rng.poisson(np.exp(1 + 0.9 * common + 0.4 * own)))
    >>> m.covariance_.round(1)
    array([[1.1, 0.7],
           [0.7, 1. ]])
    >>> m.transform([[3, 4]]).shape, m.converged_, m.starts_disagree_
    ((1, 2), True, False)
    """

    def __init__(
        self,
        covariance: Literal["full", "diagonal", "spherical"] = "full",
        *,
        rank: int | None = None,
        penalty: float | None = None,
        zero_inflation: Literal["global", "per_unit", "covariates"] | None = None,
        zero_inflation_posterior: Literal["auto", "independent", "conditional"] = "auto",
        formula: str | None = None,
        fit_intercept: bool = True,
        n_starts: int = 2,
        max_iter: int = 500,
        tol: float = 1e-4,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.covariance = covariance
        self.rank = rank
        self.penalty = penalty
        self.zero_inflation = zero_inflation
        self.zero_inflation_posterior = zero_inflation_posterior
        self.formula = formula
        self.fit_intercept = fit_intercept
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, Y: Any, X: Any = None, offsets: Any = None, mask: Any = None) -> Self:
        """Fit parameters and posterior; where this fails or is interrupted, an earlier fit stays as it was.

        Parameters
        ----------
        Y
            (n, p) counts: array, data frame, sparse matrix or AnnData.
        X
            (n, d) covariates, without a constant column where `fit_intercept`.
        offsets
            (n, p), (n, 1) or (n,) offsets of the log rates: logarithms of exposures. An exposure of zero (minus
            infinity) leaves its count, which must be zero, out of the fit.
        mask
            (n, p) True where a count was observed; what the others hold is not read.

        Raises
        ------
        ValueError
            For counts, covariates or settings that cannot be fitted: one line with row, column and remedy.
        """
        fitted = copy.copy(self)
        fitted._fit(Y, X, offsets, mask)
        self.__dict__ = fitted.__dict__  # at once
        if not self.converged_:
            warnings.warn(
                f"the search did not converge in {self.max_iter} steps a start; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _fit(self, Y: Any, X: Any, offsets: Any, mask: Any) -> None:
        self._check_settings()
        Y, rows = counts_and_annotations(Y)
        counts = read_counts(self, Y, offsets, mask, reset=True)
        if not counts.Y.any():
            raise ValueError("every count of Y that was observed is zero: there is nothing to fit")
        n = counts.shape[0]
        X = rows if X is None and self.formula is not None else X
        covariates, self.covariate_names_, self._terms = self._covariates(X, n, None)
        intercept = self.fit_intercept if self._terms is None else self._terms.intercept
        design = design_of(covariates, self.covariate_names_, intercept=intercept)
        inflation = None
        if self.zero_inflation is not None:
            inflation = Inflation(self.zero_inflation, design.basis * math.sqrt(n), counts.shape[1])
        with show_progress("PoissonLogNormal", enabled=self.verbose) as report, _threads(counts.shape[1]):
            found = search(
                counts,
                design,
                inflation,
                settings_of(self, self.tol * n),
                _generator(self.random_state),
                lambda step, bound: report(min(step, self.max_iter), self.max_iter, f"bound {bound:.1f} nats"),
            )
        self._adopt(found.parameters, found.posterior, found.climbed.summary())

    def _check_settings(self) -> None:
        check_settings(self)

    def _covariates(self, X: Any, n: int | None, terms: Terms | None) -> tuple[np.ndarray, list[str], Terms | None]:
        if self.formula is not None:
            return covariates_of(self.formula, X, n, terms)
        return (*((np.zeros((n or 1, 0)), []) if X is None else read_covariates(X, n)), None)

    def _new_covariates(self, X: Any, n: int | None) -> Float[np.ndarray, "n d"]:
        found, names, _ = self._covariates(X, n, self._terms)
        if found.shape[1] != len(self.covariate_names_):
            raise ValueError(
                f"X has {found.shape[1]} covariates, but the fit had {len(self.covariate_names_)}: "
                f"{', '.join(self.covariate_names_) or 'none'}; give the same"
            )
        if hasattr(X, "columns") and names != self.covariate_names_:
            raise ValueError(
                f"X has columns {', '.join(names)}; give those of the fit: {', '.join(self.covariate_names_)}"
            )
        return found

    def posterior(self, Y: Any, X: Any = None, offsets: Any = None, mask: Any = None) -> Posterior:
        """Posterior of the latent variables of rows, the parameters held as they are; arguments as for `fit`."""
        check_is_fitted(self)
        Y, rows = counts_and_annotations(Y)
        X = rows if X is None and self.formula is not None else X
        counts = read_counts(self, Y, offsets, mask, reset=False)
        covariates = self._new_covariates(X, counts.shape[0])
        tolerance = FINER * self.tol * counts.shape[0]
        with _threads(counts.shape[1]):
            return infer(counts, covariates, self._parameters, settings_of(self, tolerance))

    def transform(self, Y: Any, X: Any = None, offsets: Any = None, mask: Any = None) -> Float[np.ndarray, "n l"]:
        """Posterior means of the latent variables of rows, new or not: `latent_` of them; arguments as for `fit`."""
        return self.posterior(Y, X, offsets, mask).mean

    def fit_transform(self, Y: Any, X: Any = None, offsets: Any = None, mask: Any = None) -> Float[np.ndarray, "n l"]:
        """Fit, and `latent_` of the rows."""
        return self.fit(Y, X, offsets, mask).latent_

    def score(self, Y: Any, X: Any = None, offsets: Any = None, mask: Any = None) -> float:
        """Mean bound of the log-likelihood, nats per row, the parameters held as they are: higher is better."""
        return float(self.posterior(Y, X, offsets, mask).bounds.mean())

    def predict(self, X: Any = None, offsets: Any = None) -> Float[np.ndarray, "n p"]:
        """Expected counts (n, p) at covariates and offsets, over the Gaussian and the inflated zeros.

        Without both, the one row of a fit without covariates.
        """
        check_is_fitted(self)
        return self._parameters.expected_counts(*self._rows(X, offsets, None))

    def sample(
        self, n: int | None = None, X: Any = None, offsets: Any = None, random_state: Any = None
    ) -> Int[np.ndarray, "n p"]:
        """Counts (n, p) drawn from the model: one row for each row of X or of offsets, or n rows without either."""
        check_is_fitted(self)
        return self._parameters.draw(*self._rows(X, offsets, n), _generator(random_state))

    def _rows(self, X: Any, offsets: Any, n: int | None) -> tuple[np.ndarray, np.ndarray]:
        given = None if offsets is None else np.asarray(offsets, np.float64)
        given = given[:, None] if given is not None and given.ndim == 1 else given
        covariates = self._new_covariates(X, n if given is None else len(given))
        if given is not None and (given.ndim != 2 or given.shape[1] not in (1, self.n_features_in_)):
            raise ValueError(f"offsets have shape {given.shape}; give (n, {self.n_features_in_}), (n, 1) or (n,)")
        return covariates, np.zeros((len(covariates), 1)) if given is None else given

    def save(self, path: str | Path) -> None:
        """Write parameters, posterior and settings to one safetensors file; nothing is pickled."""
        check_is_fitted(self)
        write_fit(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError, PermissionError, ValueError
            Where the file is missing, damaged or holds another thing; with its name.
        """
        model = cls()
        read_fit(model, path)
        return model

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_parameters")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        return tags


def _threads(n_units: int) -> Any:
    """A context in which products of small matrices take one thread."""
    return threadpool_limits(limits=1 if n_units <= MAX_ONE_THREAD else None, user_api="blas")


def _generator(random_state: Any) -> np.random.Generator:
    """A generator from scikit-learn's `random_state`.

    Raises
    ------
    ValueError
        Where it is no seed, Generator, RandomState or None.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(int(random_state.randint(2**31 - 1)))
    whole = isinstance(random_state, numbers.Integral) and 0 <= int(random_state) <= MAX_SEED
    if whole or random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    raise ValueError(f"random_state is {random_state!r:.80}; give a seed, a NumPy Generator or RandomState, or None")
