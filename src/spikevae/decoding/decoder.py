"""The posterior of classes given spikes in time."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from .._seeds import checked_seed

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpikeDecoder:
    r"""Bayes' rule for spikes of units that fire as independent Poisson processes, at rates that the class sets.

    The units of a count code fire over the presentation of a stimulus; Poisson codes have their counts at its end.
    After time t with n_k spikes of unit k, the log posterior of class c is, up to a constant,

    .. math:: \log \pi_c + \sum_k n_k \log r_{ck} - t \sum_k r_{ck} .

    Each spike of unit k adds :math:`\log r_{ck}` at once; between spikes the evidence falls at the rate at which the
    class should have caused spikes. Order and times of the spikes do not matter beyond this. A class may have several
    templates (rows of rates with its label): its probability is the sum of theirs.

    Parameters
    ----------
    rates
        (M, K) positive firing rates of each template, spikes per unit of time; with rates of a code, the unit of
        time is the presentation of a stimulus.
    prior
        (M,) probabilities of the templates; equal ones if not given.
    classes
        (M,) class of each template, of any type; 0 to M - 1 if not given. Rows are sorted by it.

    Attributes
    ----------
    labels : ndarray (C,)
        The classes, sorted: the columns of posteriors.

    Raises
    ------
    ValueError
        If rates are not positive, or arrays do not fit each other.

    Examples
    --------
    >>> decoder = SpikeDecoder([[1.0, 2.0], [2.0, 1.0]])
    >>> decoder.posterior([1, 3], time=1.0).round(3)  # the second unit spikes more for the first class
    array([0.8, 0.2])
    """

    rates: Any
    prior: Any = None
    classes: Any = None

    labels: Any = field(init=False)
    starts: Any = field(init=False)
    """(C,) first row of each class."""

    def __post_init__(self) -> None:
        rates = np.asarray(self.rates, np.float64)
        if rates.ndim != 2 or len(rates) < 2 or not rates.shape[1]:
            raise ValueError(f"rates have shape {rates.shape}; expected (M, K) with two or more rows")
        if not (np.isfinite(rates).all() and (rates > 0).all()):
            raise ValueError(
                "rates must be positive and finite: a rate of zero makes a single spike exclude the class for good; "
                "SpikeDecoder.from_codes adds to each class a part of the mean of all"
            )
        prior = np.full(len(rates), 1 / len(rates)) if self.prior is None else np.asarray(self.prior, np.float64)
        if prior.shape != (len(rates),) or not (prior > 0).all() or not np.isclose(prior.sum(), 1):
            raise ValueError(f"prior must be {len(rates)} positive numbers with sum 1, one per row; given {prior!r}")
        classes = np.arange(len(rates)) if self.classes is None else np.asarray(self.classes)
        if classes.shape != (len(rates),):
            raise ValueError(f"classes have shape {classes.shape}; expected ({len(rates)},), one per row of rates")
        order = np.argsort(classes, kind="stable")
        labels, starts = np.unique(classes[order], return_index=True)
        if len(labels) < 2:
            raise ValueError(f"classes are all {labels[0]!r}; a decision needs two or more")
        sorted_ = {"rates": rates[order], "prior": prior[order], "classes": classes[order]}
        for name, value in (sorted_ | {"labels": labels, "starts": starts}).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_codes(
        cls, rates: ArrayLike, labels: ArrayLike, *, templates: int = 1, pseudo: float = 1.0, seed: int = 0
    ) -> Self:
        """From the firing rates of stimuli of known classes: their means, and the frequencies of the classes.

        Parameters
        ----------
        rates
            (n, K) firing rates, such as `SpikeVAE.transform` gives, or counts.
        labels
            (n,) class of each stimulus, of any type.
        templates
            Rows per class, at most: means of clusters of its stimuli, by k-means on the square roots of the rates,
            whose noise is about equal at all rates.
        pseudo
            Number of stimuli with the mean rates of all that are added to each template, > 0.
        seed
            Of k-means.

        Raises
        ------
        ValueError
            For negative rates, labels of another length or fewer than two classes.

        Examples
        --------
        >>> SpikeDecoder.from_codes([[4.0, 0.0], [0.0, 2.0]], ["a", "b"]).rates
        array([[3. , 0.5],
               [1. , 1.5]])
        """
        codes, names = np.asarray(rates, np.float64), np.asarray(labels)
        if codes.ndim != 2 or names.shape != codes.shape[:1]:
            raise ValueError(f"rates have shape {codes.shape} and labels {names.shape}; expected (n, K) and (n,)")
        if not (np.isfinite(codes).all() and (codes >= 0).all()):
            raise ValueError("rates must be firing rates or counts: finite, zero or more")
        if pseudo <= 0 or templates < 1:
            raise ValueError(f"pseudo is {pseudo} and templates {templates}; give positive numbers")
        mean = codes.mean(0)
        if not (mean > 0).any():
            raise ValueError("rates are all zero: there is nothing to decode")
        clusters = [_clusters(codes[names == name], templates, seed) for name in np.unique(names)]
        sizes = [[len(part) for part in parts] for parts in clusters]
        smoothed = [(part.sum(0) + pseudo * mean) / (len(part) + pseudo) for parts in clusters for part in parts]
        silent = mean[mean > 0].min()  # units that never fire say nothing
        n = np.concatenate(sizes)
        return cls(
            np.where(mean > 0, smoothed, silent), n / n.sum(), np.repeat(np.unique(names), [len(s) for s in sizes])
        )

    def log_posterior(self, counts: ArrayLike, time: ArrayLike) -> Float[np.ndarray, "*batch C"]:
        """(..., C) log probabilities of the classes, given counts (..., K) of the spikes until `time` (...)."""
        spikes, moment = np.asarray(counts, np.float64), np.asarray(time, np.float64)
        if spikes.shape[-1:] != self.rates.shape[1:] or not (spikes >= 0).all() or not (moment >= 0).all():
            raise ValueError(f"counts must be (..., {self.rates.shape[1]}) numbers and times be zero or more")
        return self.of_evidence(
            np.log(self.prior) + spikes @ np.log(self.rates).T - moment[..., None] * self.rates.sum(1)
        )

    def of_evidence(self, evidence: Float[np.ndarray, "*batch M"]) -> Float[np.ndarray, "*batch C"]:
        """(..., C) log probabilities of the classes from those of the templates (..., M), up to a constant."""
        value = np.logaddexp.reduceat(evidence, self.starts, -1)
        return value - np.logaddexp.reduce(value, -1, keepdims=True)

    def posterior(self, counts: ArrayLike, time: ArrayLike) -> Float[np.ndarray, "*batch C"]:
        """(..., C) probabilities of the classes; see :meth:`log_posterior`."""
        return np.exp(self.log_posterior(counts, time))

    def follow(self, units: ArrayLike, times: ArrayLike) -> Float[np.ndarray, "steps C"]:
        """(n + 1, C) probabilities of the classes at time zero and after each of n spikes.

        Parameters
        ----------
        units, times
            (n,) unit and time of each spike, in the order of time.

        Examples
        --------
        >>> SpikeDecoder([[1.0], [2.0]]).follow([0, 0], [0.1, 0.2]).round(2)
        array([[0.5 , 0.5 ],
               [0.36, 0.64],
               [0.23, 0.77]])
        """
        index, moments = np.asarray(units), np.asarray(times, np.float64)
        if index.shape != moments.shape or index.ndim != 1:
            raise ValueError(f"units and times have shapes {index.shape} and {moments.shape}; expected (n,) both")
        n_units = self.rates.shape[1]
        if len(index) and not (np.issubdtype(index.dtype, np.integer) and (index >= 0).all() and index.max() < n_units):
            raise ValueError(f"units must be whole numbers from 0 to {n_units - 1}")
        if (np.diff(moments, prepend=0.0) < 0).any():
            raise ValueError("times must be zero or more and not decrease: sort the spikes by time")
        gains = np.log(self.rates[:, index.astype(int)]).T.cumsum(0) - moments[:, None] * self.rates.sum(1)
        return np.exp(self.of_evidence(np.log(self.prior) + np.concatenate([np.zeros((1, len(self.prior))), gains])))


def _clusters(codes: Floats, templates: int, seed: int) -> list[Floats]:
    """Stimuli (n, K) of one class in at most so many groups."""
    n = min(templates, len(np.unique(codes, axis=0)))
    if n == 1:
        return [codes]
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init=1, random_state=seed).fit_predict(np.sqrt(codes))
    return [codes[found == i] for i in range(n) if (found == i).any()]


def spike_train(
    rates: ArrayLike, duration: float, *, seed: int = 0
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Units and times of the spikes of Poisson processes, in the order of time.

    Parameters
    ----------
    rates
        (K,) firing rates, spikes per unit of time.
    duration
        Time from 0 over which spikes are drawn.
    seed
        Seed of the spikes.

    Examples
    --------
    >>> units, times = spike_train([2.0, 8.0], duration=10.0)
    >>> len(units) == len(times), bool((np.diff(times) >= 0).all())
    (True, True)
    """
    given = np.asarray(rates, np.float64)
    if given.ndim != 1 or not (np.isfinite(given).all() and (given >= 0).all()) or not 0 <= duration < np.inf:
        raise ValueError("rates must be (K,) finite firing rates and the duration a finite time, zero or more")
    rng = np.random.default_rng(checked_seed(seed))
    units = np.repeat(np.arange(len(given)), rng.poisson(given * duration))
    times = rng.uniform(0, duration, len(units))
    order = np.argsort(times)
    return units[order], times[order]
