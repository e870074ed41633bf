"""Maximum likelihood of one law of counts, all units at once."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..distributions import ConwayMaxwellPoisson, NegativeBinomial, Poisson, ZeroInflatedPoisson
from ..distributions._law import Law
from ..distributions.conway_maxwell_poisson import LOG_SHAPE_LIMIT
from .binomial import fit_binomial
from .goodness import pearson_p
from .newton import maximise, standard_errors


class Kind(NamedTuple):
    """How a law with two parameters is fitted; its own parameters are unbounded."""

    build: Callable[[Tensor, Tensor], Law]
    start: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Initial second parameter from means, variances and fractions of zeros."""
    inside: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Whether the likelihood has its maximum at finite parameters, not in the limit in which the law is Poisson."""
    natural: dict[str, Callable[[Any], Tensor]]
    """The parameters that are reported besides the mean."""
    limit: dict[str, float]
    """Values of these parameters in that limit."""


KINDS: dict[str, Kind] = {
    "negative_binomial": Kind(
        NegativeBinomial,
        lambda m, v, zero: np.log(m**2 / np.maximum(v - m, 0.02 * m)),
        lambda m, v, zero: v > m,  # the variance over n, not n - 1: Levin and Reeds 1977
        {"r": lambda law: law.log_dispersion.exp()},
        {"r": math.inf},
    ),
    "zero_inflated_poisson": Kind(
        ZeroInflatedPoisson,
        lambda m, v, zero: np.full_like(m, -1.0),
        lambda m, v, zero: zero > np.exp(-m),
        {"rate_on": lambda law: law.log_rate.exp(), "off": lambda law: torch.sigmoid(law.logit_off)},
        {"off": 0.0},
    ),
    "conway_maxwell_poisson": Kind(
        ConwayMaxwellPoisson,
        lambda m, v, zero: np.clip(np.log(m / np.maximum(v, 1e-3 * m)), -1.2, 1.2),
        lambda m, v, zero: np.ones(len(m), dtype=bool),
        {"rate": lambda law: law.rate, "shape": lambda law: law.shape},
        {},
    ),
}
LAWS = ("poisson", *KINDS, "binomial")
"""The laws that are fitted, by their names in configurations."""
N_PARAMETERS = {law: 1 if law == "poisson" else 2 for law in LAWS}


@torch.no_grad()
def fit_law(law: str, values: np.ndarray, frequency: np.ndarray) -> list[dict[str, Any]]:
    """Fit one law to each unit.

    Parameters
    ----------
    law
        One of `LAWS`.
    values
        (V,) the values that occur.
    frequency
        (U, V) number of trials of each unit with each value; no unit may be silent.

    Returns
    -------
    rows
        One per unit, with the entries of :attr:`CountFits.fits` that concern a single law.
    """
    mean = frequency @ values / frequency.sum(1)
    poisson = _fit_poisson(values, frequency, mean)
    if law == "poisson":
        return poisson
    if law == "binomial":
        return fit_binomial(values, frequency, mean, poisson)
    return _fit_two_parameters(law, values, frequency, mean, poisson)


def _fit_two_parameters(
    law: str, values: np.ndarray, frequency: np.ndarray, mean: np.ndarray, poisson: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Fit a law of `KINDS`; units whose maximum is the Poisson limit keep the Poisson fit."""
    kind, n = KINDS[law], frequency.sum(1)
    variance = frequency @ values**2 / n - mean**2
    zero = frequency[:, values == 0].sum(1) / n
    rows = [_limit_row(row, kind) for row in poisson]
    which = np.flatnonzero(kind.inside(mean, variance, zero))
    if not len(which):
        return rows
    start = np.stack([np.log(mean), kind.start(mean, variance, zero)], -1)[which]
    f, v = torch.from_numpy(frequency[which]), torch.from_numpy(values)

    def build(u: Tensor) -> Law:
        return kind.build(u[..., :1], u[..., 1:])

    def log_likelihood(u: Tensor) -> Tensor:
        return (f * build(u).log_prob(v)).sum(-1)

    def natural(u: Tensor) -> Tensor:
        law = build(u)
        columns = [law.mean, law.variance / law.mean, *(of(law) for of in kind.natural.values())]
        return torch.cat(columns, -1)

    def pmf(unit: int, counts: np.ndarray) -> np.ndarray:
        return build(top[unit : unit + 1]).log_prob(torch.from_numpy(counts).double())[0].exp().numpy()

    top, value, hessian = maximise(log_likelihood, torch.from_numpy(start))
    found, errors = natural(top), standard_errors(natural, top, hessian)
    names = ["mean", "fano", *kind.natural]
    for i, u in enumerate(which.tolist()):
        row = _row(law, float(value[i]), dict(zip(names, found[i].tolist())), dict(zip(names, errors[i].tolist())))
        row["fit_p_value"] = pearson_p(frequency[u], values, partial(pmf, i), row["mean"], row["variance"], 2)
        rows[u] = row
    return rows


def _limit_row(poisson: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The fit of a law in its Poisson limit."""
    return {
        **poisson,
        "parameters": {"mean": poisson["mean"], **kind.limit},
        "standard_errors": {"mean": poisson["standard_errors"]["mean"]} | dict.fromkeys(kind.limit, math.nan),
        "at_limit": True,
    }


def _row(law: str, log_likelihood: float, numbers: dict[str, float], errors: dict[str, float]) -> dict[str, Any]:
    """The fit of a law with finite parameters; an error is NaN where the shape is at this library's bound."""
    at_bound = law == "conway_maxwell_poisson" and abs(math.log(numbers["shape"])) > 0.98 * LOG_SHAPE_LIMIT
    if at_bound:
        errors["shape"] = errors["rate"] = math.nan
    return {
        "log_likelihood": log_likelihood,
        "mean": numbers["mean"],
        "variance": numbers["mean"] * numbers["fano"],
        "fano": numbers["fano"],
        "parameters": {name: numbers[name] for name in numbers if name != "fano"},
        "standard_errors": errors,
        "at_limit": at_bound,
    }


def _fit_poisson(values: np.ndarray, frequency: np.ndarray, mean: np.ndarray) -> list[dict[str, Any]]:
    """The Poisson law of each unit; its maximum is the mean."""
    n = frequency.sum(1)
    law = Poisson(torch.from_numpy(np.log(mean))[:, None])
    total = (torch.from_numpy(frequency) * law.log_prob(torch.from_numpy(values))).sum(-1).numpy()
    return [
        {
            "log_likelihood": float(total[u]),
            "mean": float(m),
            "variance": float(m),
            "fano": 1.0,
            "parameters": {"mean": float(m)},
            "standard_errors": {"mean": math.sqrt(m / n[u])},
            "at_limit": False,
            "fit_p_value": pearson_p(frequency[u], values, partial(stats.poisson.pmf, mu=m), m, m, 1),
        }
        for u, m in enumerate(mean)
    ]
