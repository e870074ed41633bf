"""Poisson regression of each unit on covariates, and the dispersion test given them."""

import numpy as np
from jaxtyping import Float
from scipy import stats

MAX_STEPS = 60
SETTLED = 1e-9
"""Gain of the log-likelihood of a unit, nats, below which its fit ends."""
MAX_HALVINGS = 12
DEPENDENT = 1e-8
"""Share of a covariate's norm beyond the others below which it counts as their combination."""

MIN_VARIANCE = 1e-6
"""Smallest variance of the score: units with a single spike in each place have none, and no dispersion to test."""


def design_matrix(columns: dict[str, np.ndarray], n: int) -> Float[np.ndarray, "n d"]:
    """Orthonormal columns that span a constant and the covariates; text becomes one indicator per value but the first.

    Raises
    ------
    ValueError
        For another number of rows, entries that are not finite, and covariates that are a combination of others.
    """
    parts, names = [np.ones((n, 1))], ["the constant"]
    for name, values in columns.items():
        column = np.asarray(values)
        if column.shape != (n,):
            raise ValueError(f"covariate {name!r} has shape {column.shape}, and there are {n} trials: give one each")
        if column.dtype.kind in "buif":
            if not np.isfinite(column).all():
                raise ValueError(f"covariate {name!r} is missing or not finite in some trial: leave these trials out")
            spread = column - column.mean()
            parts.append(spread[:, None] / max(np.abs(spread).max(), np.finfo(float).tiny))
            names.append(name)
        else:
            levels = np.unique(column.astype(str))
            parts.append((column.astype(str)[:, None] == levels[1:]).astype(float))
            names += [f"{name} = {level}" for level in levels[1:]]
    x = np.concatenate(parts, 1)
    if x.shape[1] >= n:
        raise ValueError(f"covariates have {x.shape[1]} columns for {n} trials: give fewer covariates")
    q, r = np.linalg.qr(x)
    alone = np.abs(np.diag(r)) <= DEPENDENT * np.maximum(np.linalg.norm(x, axis=0), 1.0)
    if alone.any():
        name = names[int(np.flatnonzero(alone)[0])]
        raise ValueError(f"covariate {name!r} is constant, or a combination of the others: leave it out")
    return q


def fit_means(
    z: np.ndarray, x: Float[np.ndarray, "n d"], offsets: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n u"], Float[np.ndarray, "n u"]]:
    """Maximum likelihood means of Poisson counts (n, u) with log means ``offsets + x b``, and their leverages.

    Newton's method with step halving, all units at once. A unit that is silent at some value of a covariate has means
    that tend to zero there; its steps end where they gain less than `SETTLED`.
    """
    z = z.astype(float)
    exposure = np.exp(offsets)[:, None]
    eta = np.log(z.sum(0) / exposure.sum()) + np.zeros(z.shape)
    value, moving = _log_likelihood(z, eta, exposure), np.ones(z.shape[1], dtype=bool)
    for _ in range(MAX_STEPS):
        units = np.flatnonzero(moving)
        if not len(units):
            break
        own, at = z[:, units], eta[:, units]
        mean = exposure * np.exp(at)
        step = x @ np.linalg.solve(_information(x, mean), (x.T @ (own - mean)).T[..., None])[..., 0].T
        size = np.ones(len(units))
        for _ in range(MAX_HALVINGS):
            after = _log_likelihood(own, at + size * step, exposure)
            worse = ~(after >= value[units] - 1e-12 * np.abs(value[units]))
            if not worse.any():
                break
            size[worse] /= 2
        size[worse] = 0.0
        eta[:, units] = at + size * step
        after = np.where(worse, value[units], after)
        moving[units] = after - value[units] > SETTLED
        value[units] = after
    mean = exposure * np.exp(eta)
    inverse = np.linalg.inv(_information(x, mean))
    return mean, mean * np.einsum("ni,uij,nj->nu", x, inverse, x, optimize=True)


def _log_likelihood(z: np.ndarray, eta: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Of each unit, without constants."""
    with np.errstate(over="ignore"):
        return (z * eta - exposure * np.exp(eta)).sum(0)


def _information(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(u, d, d); a little is added to the diagonal, as directions in which all means are zero have none."""
    d = x.shape[1]
    found = np.einsum("ni,nu,nj->uij", x, mean, x, optimize=True)
    return found + (1e-12 * np.trace(found, axis1=1, axis2=2) / d)[:, None, None] * np.eye(d)


def dispersion_given(
    z: np.ndarray, x: Float[np.ndarray, "n d"], offsets: Float[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dispersion of counts about the means that covariates give: index, two-sided p-value, and sign, (u,) each.

    The index is Pearson's, the sum of (z - m)^2 / m. The test is the score test of Dean and Lawless (1989): the sum of
    (z - m)^2 - z + h m with the leverages h, which is zero on average under Poisson. Its variance, the sum of
    2 m^2 (1 - h), and its third moment, the sum of 8 m^3 + 4 m^2, give a shifted gamma distribution (chi-squared for
    large means); one is taken off for the steps of the statistic. p is twice the smaller tail. Without covariates it
    agrees with the exact test (`dispersion_p`). With fewer than about 50 trials per covariate, small p-values of
    under-dispersion are too frequent.

    NaN for silent units.

    References
    ----------
    Dean & Lawless 1989 (doi 10.1080/01621459.1989.10478792).
    """
    totals = z.sum(0)
    index, p, sign = (np.full(z.shape[1], np.nan) for _ in range(3))
    firing = np.flatnonzero(totals)
    if not len(firing):
        return index, p, sign
    own = z[:, firing].astype(float)
    mean, leverage = fit_means(own, x, offsets)
    excess = ((own - mean) ** 2 - own + leverage * mean).sum(0)
    variance = np.maximum((2 * mean**2 * (1 - leverage)).sum(0), MIN_VARIANCE)
    skewness = (8 * mean**3 + 4 * mean**2).sum(0) / variance**1.5
    shape, scale = 4 / skewness**2, np.sqrt(variance) * skewness / 2
    low = stats.gamma(shape).cdf(shape + (excess + 1) / scale)
    high = stats.gamma(shape).sf(shape + (excess - 1) / scale)
    p[firing] = np.minimum(1.0, 2 * np.minimum(low, high))
    index[firing] = ((own - mean) ** 2 / np.maximum(mean, np.finfo(float).tiny)).sum(0)
    sign[firing] = np.sign(excess)
    return index, p, sign
