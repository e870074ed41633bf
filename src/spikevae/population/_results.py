"""Attributes of a fitted model, and its file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .._records import to_builtins
from ._files import read_arrays, write_arrays
from ._formula import Terms
from ._gaussian import Covariance
from ._gaussian_fit import Posterior
from ._parameters import Parameters


class Results:
    """Attributes of a fitted model that follow from its parameters and its posterior."""

    _parameters: Parameters
    _posterior: Posterior
    _terms: Terms | None
    covariance: Covariance
    fit_intercept: bool

    def _adopt(self, parameters: Parameters, posterior: Posterior, summary: dict[str, Any]) -> None:
        self._parameters, self._posterior, self._summary = parameters, posterior, summary
        self._n_features_out = posterior.mean.shape[1]
        self.bounds_of_starts_ = np.array(summary["bounds_of_starts"])
        self.starts_disagree_ = bool(summary["starts_disagree"])
        self.n_iter_ = int(summary["n_iter"])
        self.converged_ = posterior.converged
        self.gradient_norm_ = float(summary["gradient_norm"])

    @property
    def bound_(self) -> float:
        """The bound of the log-likelihood over all rows of the fit, in nats."""
        return float(self._posterior.bounds.sum())

    @property
    def inflation_intercept_(self) -> np.ndarray:
        """Intercepts of the logits of an inflated zero."""
        return _given(self._parameters.inflation_intercept, "inflation_intercept_ needs a fit with zero_inflation")

    @property
    def inflation_coef_(self) -> Float[np.ndarray, "p d"]:
        """Coefficients of the logits of an inflated zero."""
        found = self._parameters.inflation_coef
        return _given(found, "inflation_coef_ needs a fit with zero_inflation='covariates'")

    @property
    def intercept_(self) -> Float[np.ndarray, " p"]:
        """Intercepts of the log rates."""
        return self._parameters.intercept

    @property
    def coef_(self) -> Float[np.ndarray, "p d"]:
        """Coefficients of the log rates."""
        return self._parameters.coef

    @property
    def covariance_(self) -> Float[np.ndarray, "p p"]:
        """Covariance of the log rates."""
        found = self._parameters.covariance
        return np.diag(found) if found.ndim == 1 else found

    @property
    def precision_(self) -> Float[np.ndarray, "p p"]:
        """Inverse of the covariance."""
        found = self._parameters.precision
        return np.diag(found) if found.ndim == 1 else found

    @property
    def loadings_(self) -> Float[np.ndarray, "p q"]:
        """Loadings of the units on the latent variables."""
        return _given(self._parameters.loadings, "loadings_ needs a fit with rank")

    @property
    def latent_(self) -> Float[np.ndarray, "n l"]:
        """Posterior means of the rows of the fit."""
        return self._posterior.mean

    @property
    def latent_variance_(self) -> Float[np.ndarray, "n l"]:
        """Posterior variances of the rows of the fit."""
        return self._posterior.variance

    @property
    def prob_zero_inflation_(self) -> Float[np.ndarray, "n p"]:
        """Posterior probabilities of inflated zeros of the rows of the fit."""
        return _given(self._posterior.inflated, "prob_zero_inflation_ needs a fit with zero_inflation")

    @property
    def n_parameters_(self) -> int:
        """Number of parameters."""
        intercept = self.fit_intercept if self._terms is None else self._terms.intercept
        return self._parameters.size(self.covariance, intercept=intercept)

    @property
    def aic_(self) -> float:
        """Akaike's criterion of the bound."""
        return -2 * self.bound_ + 2 * self.n_parameters_

    @property
    def bic_(self) -> float:
        """The Bayesian information criterion of the bound."""
        return -2 * self.bound_ + self.n_parameters_ * math.log(len(self.latent_))

    @property
    def icl_(self) -> float:
        """The integrated classification criterion: `bic_` and twice the entropy of the posterior."""
        return self.bic_ + 2 * self._posterior.entropy


def _given(value: np.ndarray | None, otherwise: str) -> np.ndarray:
    if value is None:
        raise AttributeError(otherwise)
    return value


def write_fit(model: Any, path: str | Path) -> None:
    """Write a fitted model."""
    posterior: Posterior = model._posterior
    arrays = model._parameters.arrays() | {
        "latent": posterior.mean,
        "latent_variance": posterior.variance,
        "bounds": posterior.bounds,
    }
    if posterior.inflated is not None:
        arrays["inflated"] = posterior.inflated
    settings = model.get_params()
    if not isinstance(settings["random_state"], int):
        settings["random_state"] = None
    names = getattr(model, "feature_names_in_", None)
    facts = {
        "settings": to_builtins(settings),
        "summary": model._summary | {"converged": bool(posterior.converged)},
        "units": None if names is None else [str(name) for name in names],
        "covariates": model.covariate_names_,
        "terms": None if model._terms is None else model._terms.facts(),
    }
    write_arrays(path, arrays, facts)


def read_fit(model: Any, path: str | Path) -> None:
    """Set the settings and attributes of `model` to those of a file.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        With the file's name.
    """
    arrays, facts = read_arrays(path)
    try:
        model.set_params(**facts["settings"])
        model._check_settings()
        terms = None if facts["terms"] is None else Terms.of_facts(facts["terms"])
        if (terms is None) != (model.formula is None):
            raise ValueError("its formula and its terms do not match")
        summary, units, covariates = facts["summary"], facts["units"], facts["covariates"]
        n_units, n_covariates = arrays["coef"].shape
        for given, size in ((units, n_units), (covariates, n_covariates)):
            if given is not None and (len(given) != size or not all(isinstance(name, str) for name in given)):
                raise ValueError(f"its names are {given!r:.80}; they should be {size}")
        mean, variance, bounds = (arrays.pop(name) for name in ("latent", "latent_variance", "bounds"))
        posterior = Posterior(mean, variance, arrays.pop("inflated", None), bounds, bool(summary["converged"]))
        model._adopt(Parameters(**arrays), posterior, summary)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable model file: {error}") from None
    model._terms = terms
    model.n_features_in_, model.covariate_names_ = n_units, list(covariates or [])
    if units is not None:
        model.feature_names_in_ = np.array(units, dtype=object)
