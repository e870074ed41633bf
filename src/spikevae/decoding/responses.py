"""Decisions of a decoder at a threshold, and the times that they take."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from .._seeds import checked_seed
from ..progress import show_progress
from .decoder import Floats, SpikeDecoder

MAX_STEPS, TOLERANCE = 200, 1e-10
"""Most steps to the time of a crossing, which takes five or so, and the log odds at which it counts as reached."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Decisions, one per trial; arrays have m entries."""

    choice: NDArray[np.int64]
    """Place in the decoder's `labels` of the class that was chosen: the most probable one at the end."""
    time: Floats
    """Time of the decision, or the deadline."""
    spikes: NDArray[np.int64]
    """Spikes of all units until then."""
    posterior: Floats
    """Probability of the chosen class then: the threshold if it was reached between spikes, above it if at a spike."""
    decided: NDArray[np.bool_]
    """Whether the threshold was reached before the deadline."""

    def describe(self, truth: ArrayLike | None = None) -> str:
        """One line; with the right choices (m,), also the share of trials that are right.

        Examples
        --------
        >>> one = np.array([1])
        >>> print(Responses(one, np.array([0.5]), one * 7, np.array([0.96]), one > 0).describe([1]))
        decided 100%, right 100%, median time 0.5, median spikes 7
        """
        right = "" if truth is None else f"right {np.mean(self.choice == np.asarray(truth)):.0%}, "
        return (
            f"decided {self.decided.mean():.0%}, {right}median time {np.median(self.time):.3g}, "
            f"median spikes {np.median(self.spikes):.3g}"
        )


def respond(
    decoder: SpikeDecoder,
    rates: Float[np.ndarray, "m K"] | ArrayLike,
    *,
    threshold: float = 0.95,
    deadline: float = 10.0,
    seed: int = 0,
    verbose: bool = False,
) -> Responses:
    """Simulate spikes of each trial until a class has the probability `threshold`.

    The decision is exact in time: at a spike, or between two spikes, since time without spikes is evidence for
    classes that fire less.

    Parameters
    ----------
    decoder
        What the observer believes.
    rates
        (m, K) firing rates at which the units fire in each trial, in the decoder's unit of time; for stimuli the rates
        of their code, `SpikeVAE.transform`.
    threshold
        Probability of a class at which it is chosen; above 1/2 and below 1.
    deadline
        Time at which undecided trials end.
    seed
        Seed of the spikes.
    verbose
        Show progress.

    Raises
    ------
    ValueError
        For rates that are negative or of other units, and thresholds or deadlines outside their range.

    References
    ----------
    Wald (1945), Annals of Mathematical Statistics 16, 117, the sequential test of two classes; Dragalin, Tartakovsky
    and Veeravalli (1999), IEEE Transactions on Information Theory 45, 2448, of several. After Johnson et al. (2025),
    Inferring response times of perceptual decisions with Poisson variational autoencoders.

    Examples
    --------
    >>> decoder = SpikeDecoder([[20.0, 5.0], [5.0, 20.0]])
    >>> found = respond(decoder, np.tile([20.0, 5.0], (1000, 1)), threshold=0.95)
    >>> bool((found.choice == 0).mean() > 0.95), bool(found.time.mean() < 0.5)
    (True, True)
    """
    true = np.asarray(rates, np.float64)
    if true.ndim != 2 or true.shape[1:] != decoder.rates.shape[1:]:
        raise ValueError(f"rates have shape {true.shape}; expected (m, {decoder.rates.shape[1]}), as the decoder's")
    if not (np.isfinite(true).all() and (true >= 0).all()):
        raise ValueError("rates must be firing rates: finite, zero or more")
    if not 0.5 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; give a probability above 0.5 and below 1")
    if not 0 < deadline < np.inf:
        raise ValueError(f"deadline is {deadline}; give a positive, finite time")
    rng = np.random.default_rng(checked_seed(seed))
    with show_progress("responses", enabled=verbose) as report:
        trials = _Trials(decoder, true, threshold, deadline)
        while len(trials.open):
            trials.next_spike(rng)
            report(len(true) - len(trials.open), len(true), f"of {len(true)} trials")
    return trials.result()


class _Trials:
    """All trials at once; those that are not decided take one spike after the other."""

    def __init__(self, decoder: SpikeDecoder, true: Floats, threshold: float, deadline: float) -> None:
        self.decoder, self.threshold, self.deadline = decoder, threshold, deadline
        self.gain, self.loss = np.log(decoder.rates).T, decoder.rates.sum(1)
        self.chances, self.total = true.cumsum(1), true.sum(1)
        self.evidence = np.tile(np.log(decoder.prior), (len(true), 1))
        """(m, M) log posterior of the templates up to a constant."""
        self.time, self.spikes = np.zeros(len(true)), np.zeros(len(true), np.int64)
        self.decided = np.zeros(len(true), bool)
        self.open = np.arange(len(true))
        self._close_decided()

    def next_spike(self, rng: np.random.Generator) -> None:
        """Wait for the next spike of each open trial, the threshold or the deadline, and count the spike."""
        now = self.open
        with np.errstate(divide="ignore"):
            wait = rng.exponential(size=len(now)) / self.total[now]
        mark = rng.random(len(now))
        left = self.deadline - self.time[now]
        until = np.minimum(wait, left)
        crossing = first_crossing(self.evidence[now], self.loss, self.decoder.starts, self.threshold, until)
        crossed = np.isfinite(crossing)
        step = np.where(crossed, crossing, until)
        self.time[now] += step
        self.evidence[now] -= step[:, None] * self.loss
        self.decided[now[crossed]] = True
        spiking = ~crossed & (wait < left)
        active = now[spiking]
        unit = (self.chances[active] <= (mark[spiking] * self.total[active])[:, None]).sum(1)
        self.spikes[active] += 1
        self.evidence[active] += self.gain[np.minimum(unit, len(self.gain) - 1)]
        self.open = active
        self._close_decided()

    def _close_decided(self) -> None:
        reached = self.decoder.of_evidence(self.evidence[self.open]).max(1) >= np.log(self.threshold)
        self.decided[self.open[reached]] = True
        self.open = self.open[~reached]

    def result(self) -> Responses:
        posterior = self.decoder.of_evidence(self.evidence)
        return Responses(posterior.argmax(1), self.time, self.spikes, np.exp(posterior.max(1)), self.decided)


def first_crossing(
    evidence: Float[np.ndarray, "m M"],
    loss: Float[np.ndarray, " M"],
    starts: Int[np.ndarray, " C"],
    threshold: float,
    until: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    r"""Time until a class has the probability `threshold` while there are no spikes; inf if not before `until`.

    After time s the log odds against a class,
    :math:`h(s) = \log \sum_{j\,out} e^{a_j - R_j s} - \log \sum_{i\,in} e^{a_i - R_i s}`, must fall to -A, A the log
    odds of the threshold. Their slope is the mean rate in the class minus that outside, by posterior; both means fall
    in time. So from s on, h falls at most as fast as the mean outside at s minus the mean inside at `until`: steps of
    this slope never pass the first root. With one template per class they are those of Newton's method.

    Parameters
    ----------
    evidence, loss
        Log posteriors a of templates up to a constant, where no class has the threshold yet, and total rates R.
    starts
        First template of each class.
    until
        Longest wait.

    Examples
    --------
    >>> start = np.array([0, 1])
    >>> first_crossing(np.array([[0.0, 0.0]]), np.array([1.0, 2.0]), start, 0.75, np.array([9.0]))  # log 3
    array([1.09861229])
    """
    target = np.log(threshold) - np.log1p(-threshold)
    found, now, moment = np.full(len(evidence), np.inf), np.arange(len(evidence)), np.zeros(len(evidence))
    with np.errstate(divide="ignore", invalid="ignore"):
        inside, rate = _by_class(evidence - np.where(np.isfinite(until), until, 0)[:, None] * loss, loss, starts)
        least = np.where(inside > 0, rate / inside, np.minimum.reduceat(loss, starts))
        least = np.where(np.isfinite(until)[:, None], least, np.minimum.reduceat(loss, starts))
        for _ in range(MAX_STEPS):
            inside, rate = _by_class(evidence[now] - moment[now, None] * loss, loss, starts)
            outside = inside.sum(1, keepdims=True) - inside
            above = np.log(outside) - np.log(inside) + target
            slope = (rate.sum(1, keepdims=True) - rate) / outside - least[now]
            met = (above <= TOLERANCE).any(1)
            found[now[met]] = moment[now[met]]
            moment[now] += np.where(slope > 0, above / slope, np.inf).min(1)
            now = now[~met & (moment[now] <= until[now])]
            if not len(now):
                break
    return found


def _by_class(value: Floats, loss: Floats, starts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sums over the templates of each class of their probabilities, up to a factor, and of these times total rates."""
    weight = np.exp(value - value.max(1, keepdims=True))
    return np.add.reduceat(weight, starts, 1), np.add.reduceat(weight * loss, starts, 1)
