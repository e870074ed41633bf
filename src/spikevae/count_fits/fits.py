"""Maximum likelihood of laws of counts, one unit at a time but all units at once, and what tells the laws apart."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special, stats
from torch import Tensor

from ..distributions import ConwayMaxwellPoisson, NegativeBinomial, Poisson, ZeroInflatedPoisson
from ..distributions._law import Law
from ..distributions.conway_maxwell_poisson import LOG_SHAPE_LIMIT
from ..progress import Report
from .dispersion import dispersion_p

MAX_COUNT = 1_000_000
STEP = 3e-4
"""Of numerical derivatives, in log parameters."""
ITERATIONS, SHRINKS = 100, 16
CLOSED = 1e-7
"""Parameters that move by less than this have arrived."""
ENOUGH = 1e-9
"""Nats that a step, or a second parameter, must bring."""
EXPECTED = 5.0
"""Fewest expected trials of a bin in the test of fit."""
WIDTHS = 12.0
"""Standard deviations of a law that this test goes through count by count."""
LEVEL = 0.05
"""False discovery rate of the dispersion tests."""

LogLikelihood = Callable[[Tensor], Tensor]


class Kind(NamedTuple):
    """A law with parameters on the whole line."""

    build: Callable[[Tensor, Tensor], Law]
    start: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Second parameter from means, variances and fractions of zeros."""
    inside: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Where the likelihood has its maximum inside, not in the limit that is the Poisson law."""
    natural: dict[str, Callable[[Any], Tensor]]
    """What is reported of a law besides its mean."""
    limit: dict[str, float]
    """The natural parameters that have a value in that limit."""


KINDS: dict[str, Kind] = {
    "negative_binomial": Kind(
        NegativeBinomial,
        lambda m, v, zero: np.log(m**2 / np.maximum(v - m, 0.02 * m)),
        lambda m, v, zero: v > m,  # of the likelihood's own variance, over n: Levin and Reeds 1977
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
"""The laws that are fitted, by their words in configurations."""
N_PARAMETERS = {law: 1 if law == "poisson" else 2 for law in LAWS}


@dataclass(frozen=True)
class CountFits:
    """Laws fitted to each unit."""

    n_trials: int
    """Trials."""
    laws: tuple[str, ...]
    """The laws that were fitted."""
    units: list[dict[str, Any]]
    """Per unit: ``mean`` and ``variance`` (unbiased), ``fano`` with ``fano_se``, ``zeros``, ``silent``; the dispersion
    test's ``index`` (sum of squared deviations over the mean), ``p_value`` and ``dispersion`` ("over", "under",
    "neither"); ``best_bic`` and ``best_aic``."""
    fits: list[dict[str, Any]]
    """Per unit and law: ``log_likelihood``, ``n_parameters``, ``aic``, ``bic``, ``weight`` (Akaike), fitted ``mean``,
    ``variance`` and ``fano``, ``parameters`` and ``standard_errors`` (NaN where there is none), ``at_limit`` (the law
    is Poisson; of Conway-Maxwell-Poisson: its shape is at this library's bound) and ``fit_p_value``."""
    counts: np.ndarray
    """(n_trials, n_units)."""

    def of(self, unit: int, law: str) -> dict[str, Any]:
        """One fit.

        Raises
        ------
        KeyError
            For a unit or law that was not fitted.
        """
        for row in self.fits:
            if (row["unit"], row["law"]) == (unit, law):
                return row
        raise KeyError(f"no fit of unit {unit!r} by {law!r}: units 0 to {len(self.units) - 1}, {', '.join(self.laws)}")

    def share(self, criterion: str = "bic") -> dict[str, float]:
        """For what share of the units that fire each law is best, by bic or aic."""
        firing = [row for row in self.units if not row["silent"]]
        return {law: sum(row[f"best_{criterion}"] == law for row in firing) / max(len(firing), 1) for law in self.laws}

    def summary(self) -> str:
        """Which law to take, in sentences."""
        firing = [row for row in self.units if not row["silent"]]
        if not firing:
            return f"None of {len(self.units)} units fires: there is nothing to choose."
        over, under = (sum(row["dispersion"] == word for row in firing) for word in ("over", "under"))
        bic, aic = self.share(), self.share("aic")
        best = max(bic, key=lambda law: bic[law])
        silent = len(self.units) - len(firing)
        quiet = f" ({silent} silent left out)" if silent else ""
        return (
            f"{len(firing)} units{quiet}, {self.n_trials} trials: {over} over-dispersed and {under} under-dispersed "
            f"against Poisson at a false discovery rate of {LEVEL:.0%}. Best by BIC: {best} for {bic[best]:.0%} of "
            f"units (by AIC {aic[best]:.0%}); as a latent law: latent = {best!r}."
        )


def fit_counts(counts: ArrayLike, laws: Sequence[str] | str = LAWS, *, report: Report | None = None) -> CountFits:
    """Fit laws of counts to each unit of a recording by maximum likelihood.

    Standard errors are from the observed information. Where the maximum lies in the limit in which a law is Poisson (a
    negative binomial of under-dispersed counts, say) the fit is that limit, ``at_limit`` says so, and its second
    parameter has no standard error. The number of slots and the p of a binomial have none either: the number is whole,
    and p moves with it. ``at_limit`` of the Conway-Maxwell-Poisson law is not Poisson: there its shape is at this
    library's bound, 1/4 or 4, and the maximum may lie beyond.

    The dispersion test compares the sum of squared deviations over the mean with its law given the number of spikes,
    two-sided: exactly for units of fewer than 50 sqrt(n) spikes, else with chi-squared of n - 1 degrees of freedom. It
    is corrected over units (Benjamini and Hochberg). Trials are taken as independent repeats of one condition.

    Parameters
    ----------
    counts
        (n_trials, n_units) or (n_trials,) whole numbers, zero or more; two trials or more.
    laws
        Which, one or several: poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson, binomial.
    report
        Called with what is done, the whole, and words, as progress is made.

    Raises
    ------
    ValueError
        For counts that are negative, not whole, not finite, over a million, of another shape, or an unknown law.

    References
    ----------
    Fisher 1950 (doi 10.2307/3001660) for the dispersion test; Goris, Movshon & Simoncelli 2014 (doi 10.1038/nn.3711)
    for why cortical counts are over-dispersed; Schwarz 1978 and Akaike 1974 for the criteria.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = fit_counts(rng.negative_binomial(2, 0.4, size=(500, 3)))
    >>> [unit["best_bic"] for unit in found.units]
    ['negative_binomial', 'negative_binomial', 'negative_binomial']
    >>> row = found.of(0, "negative_binomial")
    >>> bool(abs(row["parameters"]["r"] - 2) < 3 * row["standard_errors"]["r"])
    True
    """
    z = _checked(counts)
    laws = [laws] if isinstance(laws, str) else laws
    unknown = [law for law in laws if law not in LAWS]
    if unknown or not len(laws):
        raise ValueError(f"unknown laws {unknown}: choose from {', '.join(LAWS)}")
    n = len(z)
    values, inverse = np.unique(z, return_inverse=True)
    place = inverse.reshape(z.shape) + len(values) * np.arange(z.shape[1])
    frequency = np.bincount(place.ravel(), minlength=len(values) * z.shape[1]).reshape(z.shape[1], -1)
    unit_rows = _units(z)
    firing = np.flatnonzero([not row["silent"] for row in unit_rows])
    rows: list[dict[str, Any]] = []
    for i, law in enumerate(dict.fromkeys(laws)):
        if report is not None:
            report(i, len(laws), law.replace("_", " "))
        found = _fit(law, values.astype(float), frequency[firing].astype(float)) if len(firing) else []
        rows += [{"unit": int(unit), "law": law, **row} for unit, row in zip(firing, found)]
    rows.sort(key=lambda row: (row["unit"], laws.index(row["law"])))
    for unit in firing:
        own = [row for row in rows if row["unit"] == unit]
        for row in own:
            k = row["n_parameters"] = N_PARAMETERS[row["law"]]
            row["aic"], row["bic"] = (2 * k - 2 * row["log_likelihood"], k * math.log(n) - 2 * row["log_likelihood"])
        least = min(row["aic"] for row in own)
        total = sum(math.exp((least - row["aic"]) / 2) for row in own)
        for row in own:
            row["weight"] = math.exp((least - row["aic"]) / 2) / total
        for criterion in ("aic", "bic"):
            unit_rows[unit][f"best_{criterion}"] = min(own, key=lambda row: row[criterion])["law"]
    return CountFits(n, tuple(dict.fromkeys(laws)), unit_rows, rows, z)


def _checked(counts: ArrayLike) -> np.ndarray:
    z = np.asarray(counts)
    if z.dtype.kind not in "buif":
        raise ValueError(f"counts have type {z.dtype}; whole numbers are needed: counts.astype(int), if they are")
    z = z[:, None] if z.ndim == 1 else z
    if z.ndim != 2 or len(z) < 2 or not z.shape[1]:
        raise ValueError(f"counts have shape {np.shape(counts)}; expected (n_trials, n_units), two trials or more")
    if not np.isfinite(z).all():
        raise ValueError("counts hold NaN or infinite values: leave these trials out")
    if (z < 0).any() or (z != np.round(z)).any():
        worst = z[(z < 0) | (z != np.round(z))][0]
        raise ValueError(f"counts must be whole numbers, zero or more; found {worst:g}. Rates need a window's length")
    if z.max() > MAX_COUNT:
        raise ValueError(f"the largest count is {z.max():g}, more than {MAX_COUNT:,}")
    return z.astype(np.int64)


def _units(z: np.ndarray) -> list[dict[str, Any]]:
    """What is known of each unit before any fit."""
    n = len(z)
    mean, variance = z.mean(0), z.var(0, ddof=1)
    silent = mean == 0
    safe = np.where(silent, 1.0, mean)
    fano = variance / safe
    influence = ((z - mean) ** 2 - variance) / safe - fano * (z - mean) / safe
    index = (n - 1) * fano
    p = dispersion_p(z)
    adjusted = np.full(len(p), np.nan)
    if (~silent).any():
        adjusted[~silent] = stats.false_discovery_control(p[~silent])
    return [
        {
            "unit": u,
            "mean": float(mean[u]),
            "variance": float(variance[u]),
            "fano": math.nan if silent[u] else float(fano[u]),
            "fano_se": math.nan if silent[u] else float(influence[:, u].std(ddof=1) / math.sqrt(n)),
            "zeros": float((z[:, u] == 0).mean()),
            "silent": bool(silent[u]),
            "index": math.nan if silent[u] else float(index[u]),
            "p_value": float(p[u]),
            "p_adjusted": float(adjusted[u]),
            "dispersion": "neither" if not adjusted[u] < LEVEL else "over" if fano[u] > 1 else "under",
            "best_bic": None,
            "best_aic": None,
        }
        for u in range(z.shape[1])
    ]


@torch.no_grad()
def _fit(law: str, values: np.ndarray, frequency: np.ndarray) -> list[dict[str, Any]]:
    """Fits of one law to units of frequencies (U, V) of the values (V,), none of them silent."""
    n = frequency.sum(1)
    mean = frequency @ values / n
    plain = _poisson(values, frequency, mean)
    if law == "poisson":
        return plain
    if law == "binomial":
        return _binomial(values, frequency, mean, plain)
    kind, variance = KINDS[law], frequency @ values**2 / n - mean**2
    zero = frequency[:, values == 0].sum(1) / n
    inside = kind.inside(mean, variance, zero)
    rows = [
        {
            **row,
            "parameters": {"mean": row["mean"], **kind.limit},
            "standard_errors": {"mean": row["standard_errors"]["mean"]} | dict.fromkeys(kind.limit, math.nan),
            "at_limit": True,
        }
        for row in plain
    ]
    which = np.flatnonzero(inside)
    if not len(which):
        return rows
    start = np.stack([np.log(mean), kind.start(mean, variance, zero)], -1)[which]
    f, v = torch.from_numpy(frequency[which]), torch.from_numpy(values)

    def build(u: Tensor) -> Law:
        return kind.build(u[..., :1], u[..., 1:])

    def log_likelihood(u: Tensor) -> Tensor:
        return (f * build(u).log_prob(v)).sum(-1)

    top, value, hessian = _maximise(log_likelihood, torch.from_numpy(start))

    def natural(u: Tensor) -> Tensor:
        law = build(u)
        columns = [law.mean, law.variance / law.mean, *(of(law) for of in kind.natural.values())]
        return torch.cat(columns, -1)

    found, spread = natural(top), _delta(natural, top, hessian)
    names = ["mean", "fano", *kind.natural]

    def pmf(unit: int, counts: np.ndarray) -> np.ndarray:
        return build(top[unit : unit + 1]).log_prob(torch.from_numpy(counts).double())[0].exp().numpy()

    for i, u in enumerate(which.tolist()):
        numbers = dict(zip(names, found[i].tolist()))
        errors = dict(zip(names, spread[i].tolist()))
        edge = law == "conway_maxwell_poisson" and abs(math.log(numbers["shape"])) > 0.98 * LOG_SHAPE_LIMIT
        if edge:
            errors["shape"] = errors["rate"] = math.nan
        rows[u] = {
            "log_likelihood": float(value[i]),
            "mean": numbers["mean"],
            "variance": numbers["mean"] * numbers["fano"],
            "fano": numbers["fano"],
            "parameters": {name: numbers[name] for name in names if name != "fano"},
            "standard_errors": {name: errors[name] for name in names},
            "at_limit": edge,
            "fit_p_value": _fit_p(
                frequency[u], values, partial(pmf, i), numbers["mean"], numbers["mean"] * numbers["fano"], 2
            ),
        }
    return rows


def _poisson(values: np.ndarray, frequency: np.ndarray, mean: np.ndarray) -> list[dict[str, Any]]:
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
            "fit_p_value": _fit_p(frequency[u], values, stats.poisson(m).pmf, m, m, 1),
        }
        for u, m in enumerate(mean)
    ]


def _binomial(
    values: np.ndarray, frequency: np.ndarray, mean: np.ndarray, plain: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The number of slots by its profile likelihood; none where that gains nothing over Poisson.

    The profile has one peak, at a finite number just where counts are under-dispersed (as scans in the tests show). Of
    p there is no standard error: given n it would be far too small.
    """
    rows = []
    for u, m in enumerate(mean.tolist()):
        slots, gain = _slots(values[frequency[u] > 0].astype(int), frequency[u][frequency[u] > 0].astype(int))
        if gain < ENOUGH:
            row = {**plain[u], "parameters": {"mean": m, "n": math.inf, "p": 0.0}, "at_limit": True}
            row["standard_errors"] = {**plain[u]["standard_errors"], "n": math.nan, "p": math.nan}
            rows.append(row)
            continue
        p, n = m / slots, float(frequency[u].sum())
        rows.append(
            {
                "log_likelihood": plain[u]["log_likelihood"] + gain,
                "mean": float(m),
                "variance": float(m * (1 - p)),
                "fano": 1 - p,
                "parameters": {"mean": float(m), "n": float(slots), "p": p},
                "standard_errors": {"mean": math.sqrt(m * (1 - p) / n), "n": math.nan, "p": math.nan},
                "at_limit": False,
                "fit_p_value": _fit_p(frequency[u], values, stats.binom(slots, p).pmf, m, m * (1 - p), 2),
            }
        )
    return rows


def _slots(v: np.ndarray, f: np.ndarray) -> tuple[int, float]:
    """The best number of slots for counts `v` found `f` times, and its log likelihood less Poisson's.

    With x = m / s and t(i) trials of more than i spikes that difference is, with nothing that cancels to rounding,
    sum_i t(i) log(1 - i / s) + n s (x^2 / 2) 2F1(1, 1; 3; x), where s x^2 2F1 / 2 = (s - m) log(1 - x) + m.
    """
    n, total, squares, most = (
        int(f.sum()),
        int(f @ v),
        sum(int(a) * int(a) * int(c) for a, c in zip(v, f)),
        int(v.max()),
    )
    if n * squares - total**2 >= n * total:  # in whole numbers: the variance is at least the mean
        return most, 0.0
    m, i = total / n, np.arange(1.0, max(most, 1))
    above = n - np.cumsum(np.bincount(v, weights=f, minlength=most + 1))[1:most]

    def gain(s: int) -> float:
        return float(above @ np.log1p(-i / s) + n * m * (m / s) / 2 * special.hyp2f1(1, 1, 3, m / s))

    def slope(s: int) -> float:
        """s times the derivative."""
        return float(above @ (i / (s - i)) - n * m * (m / s) / 2 * special.hyp2f1(1, 2, 3, m / s))

    low = high = most
    while slope(high) > 0:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    best = max(low, high, key=gain)
    return best, gain(best)


def _stencil(f: LogLikelihood, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value (U,), gradient (U, 2) and Hessian (U, 2, 2) by central differences."""
    moves = STEP * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]], dtype=u.dtype)
    here, right, left, up, down, both, neither = (f(u + move) for move in moves)
    gradient = torch.stack([right - left, up - down], -1) / (2 * STEP)
    xx, yy = right + left - 2 * here, up + down - 2 * here
    xy = 0.5 * (both + neither - right - left - up - down + 2 * here)
    hessian = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2) / STEP**2
    return here, gradient, hessian


def _maximise(f: LogLikelihood, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's ascent of each unit, the best of steps from whole to 2^-15; maximum, its value and its Hessian."""
    shrink = 0.5 ** torch.arange(SHRINKS, dtype=u.dtype)
    for _ in range(ITERATIONS):
        here, gradient, hessian = _stencil(f, u)
        size, axes = torch.linalg.eigh(-hessian)
        size = size.abs().clamp_min(1e-6 * size.abs().amax(-1, keepdim=True)).clamp_min(1e-12)
        step = (axes @ ((axes.mT @ gradient[..., None]) / size[..., None])).squeeze(-1)
        step = step / (step.abs().amax(-1, keepdim=True) / 2).clamp_min(1.0)  # cut as a whole: still an ascent
        tried = torch.stack([f(u + s * step) for s in shrink]).nan_to_num(nan=-math.inf)
        best, place = tried.max(0)
        moved = torch.where((best > here + ENOUGH)[:, None], shrink[place][:, None] * step, 0.0)
        u = u + moved
        if float(moved.abs().max()) < CLOSED:
            break
    here, _, hessian = _stencil(f, u)
    return u, here, hessian


def _delta(natural: Callable[[Tensor], Tensor], u: Tensor, hessian: Tensor) -> Tensor:
    """Standard errors (U, Q) of functions of the parameters; NaN where the information is not positive."""
    columns = []
    for axis in range(2):
        move = STEP * torch.eye(2, dtype=u.dtype)[axis]
        columns.append((natural(u + move) - natural(u - move)) / (2 * STEP))
    slope = torch.stack(columns, -1)
    positive = torch.linalg.eigvalsh(-hessian)[:, 0] > 0
    information = torch.where(positive[:, None, None], -hessian, torch.eye(2, dtype=u.dtype))
    variance = (slope @ torch.linalg.inv(information) * slope).sum(-1)
    return torch.where(positive[:, None], variance.clamp_min(0).sqrt(), math.nan)


def _fit_p(
    frequency: np.ndarray,
    values: np.ndarray,
    pmf: Callable[[np.ndarray], np.ndarray],
    mean: float,
    variance: float,
    n_parameters: int,
) -> float:
    """p-value of Pearson's test on neighbouring counts pooled to `EXPECTED` trials; NaN if too few bins are left.

    Counts further than `WIDTHS` standard deviations of the fitted law from its mean belong to the outermost bins.
    Parameters are those of the whole likelihood, so p is a little too large.
    """
    n = frequency.sum()
    if not math.isfinite(variance) or n < EXPECTED * (n_parameters + 2):
        return math.nan
    reach, most = WIDTHS * math.sqrt(variance) + 1, int(values[frequency > 0].max())
    low, high = max(0, math.floor(mean - reach)), min(math.ceil(mean + reach), most + 1)
    low = min(low, high)
    observed = np.bincount(values.astype(int).clip(low, high) - low, weights=frequency, minlength=high - low + 1)
    expected = n * pmf(np.arange(low, high + 1))
    if low > 0:
        expected[0] += n * pmf(np.zeros(1, dtype=int))[0]  # silence may be an atom of its own, far from all else
    if not np.isfinite(expected).all():
        return math.nan
    expected[-1] = max(n - expected[:-1].sum(), 0.0)
    reached, ends = np.cumsum(expected), [-1]
    while True:
        end = int(np.searchsorted(reached, EXPECTED + (reached[ends[-1]] if ends[-1] >= 0 else 0.0)))
        if end == len(reached):
            break
        ends.append(end)
    freedom = len(ends) - 2 - n_parameters
    if freedom < 1:
        return math.nan
    starts = np.array(ends[:-1]) + 1  # the last bin takes what is left
    o, e = (np.add.reduceat(part, starts) for part in (observed, expected))
    return float(stats.chi2.sf(((o - e) ** 2 / e).sum(), freedom))
