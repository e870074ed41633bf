"""Every model with every inference: a scan over its weight, and the point where a number equals the model's own.

The weight, called `price` in names, is the sparsity weight of sparse inference or the beta of iterative inference.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import checked_seed
from ..data import PatchSet
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.metrics import Metrics
from ..metrics.sparsity import corner_distance
from ..models._model import Model
from .reading import Trained
from .recodings import OWN, RECODINGS, Effort, Scan

Match = Literal["zeros", "r2"]
MATCHED: dict[str, str] = {"zeros": "fraction_zeros", "r2": "r2_pooled"}
MATCH_TOLERANCE = 0.003
"""Difference in the fraction of zeros, or in R2, at which two codes count as equal."""
MATCH_TRIALS = 6
"""Largest number of further weights that are tried for a match."""
EXTENSION_FACTOR = 5.0
"""Factor by which the scan is extended below its lowest weight, at most twice, where the match lies there."""
LEVEL, RESAMPLES = 0.95, 1000
"""Coverage of the bootstrap intervals, and number of resamples."""
MIN_IMAGES = 10
"""With fewer images, stimuli are resampled one by one: an interval from so few images says nothing."""
MAX_TIMED, TIMING_REPEATS, MAX_REPEAT_SECONDS = 256, 3, 1.0
"""Most stimuli that are timed at once; repeats, of which the fastest counts; seconds above which there is no other."""
MAX_TRAINING = 1000
"""Most training stimuli for fitting what an inference needs and a model does not have."""

Role = Literal["own", "scan", "matched", "nearest"]


@dataclass(frozen=True)
class Point:
    """One dictionary, coded by one inference at one weight."""

    model: str
    inference: str
    price: float | None
    """Sparsity weight, or beta; None for an inference that has neither."""
    role: Role
    """own: as trained; scan: of the scan; matched: where the chosen number equals the model's own; nearest: the nearest
    point, where no point matches."""
    metrics: Metrics
    corner_distance: float
    """Distance from R2 = 1 with every code entry zero, of `r2_pooled` and `fraction_zeros`."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals of `r2_pooled`, `fraction_zeros` and `corner_distance`."""
    facts: dict[str, float] = field(default_factory=dict)
    """Means over stimuli of numbers about the inference: steps, converged (share), events (synaptic operations if only
    active units send)."""
    milliseconds: float | None = None
    """Time of inference per stimulus; of matched, nearest and own points."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "metrics": self.metrics.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """All points and how they were made."""

    models: list[Trained]
    points: list[Point]
    match: Match
    data: str
    n_stimuli: int
    resampled: str
    """What the intervals resample: images or stimuli."""
    device: str

    def of(self, model: str, inference: str) -> list[Point]:
        """The points of one model and inference, in increasing order of the weight."""
        chosen = [p for p in self.points if p.model == model and p.inference == inference]
        return sorted(chosen, key=lambda p: p.price or 0.0)


@own_scope()
def compare(
    models: Sequence[Trained],
    data: PatchSet,
    *,
    inferences: Sequence[str],
    match: Match = "zeros",
    n_prices: int = 8,
    n_stimuli: int = 500,
    effort: Effort = Effort(),  # noqa: B008 - frozen
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float, float, str], None] = lambda done, total, text: None,
) -> Comparison:
    """Code held-out stimuli by every inference with every dictionary.

    Parameters
    ----------
    models
        As of :func:`read_models`, all for stimuli of the data's size.
    inferences
        Keys of :data:`~spikevae.compare.recodings.RECODINGS`.
    match
        The number at which inferences are compared: the model's own fraction of zeros, or its own R2, both of the codes
        that it samples.
    n_prices, n_stimuli
        Number of weights in a scan, and of test stimuli, evenly spread over the test set.
    seed
        Seed of sampled codes and of the bootstrap.
    progress
        Called with (done, total, what is being done).

    Raises
    ------
    ValueError
        For unknown inferences, fewer than two weights, or stimuli of another size than a model's.
    """
    _check_arguments(models, data, inferences, match, n_prices, n_stimuli)
    where = resolve_device(device)
    x, groups, resampled = _held_out(data, n_stimuli)
    job = _Job(x.to(where), _spread(data.train, MAX_TRAINING).to(where), groups, effort, seed, match)
    sizes = {name: 1 if RECODINGS[name].scan is None else n_prices + MATCH_TRIALS for name in inferences}
    counter = _Counter(progress, len(models) * (1 + sum(sizes.values())))
    points: list[Point] = []
    for one in models:
        model = one.model.to(where, x.dtype)
        counter.report(f"{one.label}: as trained")
        own = job.point(one.name, OWN, model, None, "own")
        counter.done += 1
        for name in inferences:
            recoding, end = RECODINGS[name], counter.done + sizes[name]
            if recoding.scan is None:
                points.append(job.timed(own, model))
            else:
                scan = recoding.scan(model, job.x, n_prices)
                advance = partial(counter.advance, f"{one.label}: {recoding.label}")
                points += job.line(one.name, name, model, scan, own, advance)
            counter.done = end
        one.model.cpu()
    counter.report("done")
    return Comparison(list(models), points, match, data.name, len(x), resampled, where)


def _check_arguments(
    models: Sequence[Trained], data: PatchSet, inferences: Sequence[str], match: str, n_prices: int, n_stimuli: int
) -> None:
    for name in inferences:
        if name not in RECODINGS:
            raise ValueError(f"unknown inference {name!r}; use one of {', '.join(RECODINGS)}")
    if match not in MATCHED:
        raise ValueError(f"match is {match!r}; use one of {', '.join(MATCHED)}")
    if n_prices < 2 or n_stimuli < 2:
        raise ValueError(f"{n_prices} weights and {n_stimuli} stimuli; give two or more of both")
    for one in models:
        if one.model.n_features != data.test.shape[1]:
            raise ValueError(
                f"{one.path} takes stimuli of {one.model.n_features} pixels, shape {one.model.shape}, but {data.name} "
                f"has {data.test.shape[1]}, shape {data.shape}; compare models of stimuli of one size"
            )


def _evenly(n: int, count: int) -> np.ndarray:
    """At most `count` of n indices, evenly spread."""
    return np.linspace(0, n - 1, min(count, n)).round().astype(int)


def _spread(stimuli: np.ndarray, count: int) -> Tensor:
    """At most `count` stimuli, evenly spread over all."""
    return torch.from_numpy(stimuli[_evenly(len(stimuli), count)])


def _held_out(data: PatchSet, count: int) -> tuple[Tensor, np.ndarray, str]:
    """Test stimuli (m, D), the groups (m,) that the bootstrap resamples, and what these are."""
    x = _spread(data.test, count)
    groups = data.test_group[_evenly(len(data.test), count)]
    if len(np.unique(groups)) < MIN_IMAGES:
        return x, np.arange(len(x)), "stimuli"
    return x, groups, "images"


@dataclass
class _Counter:
    """Progress, counted in points."""

    progress: Callable[[float, float, str], None]
    total: float
    done: float = 0.0

    def report(self, text: str) -> None:
        """Report what is done now."""
        self.progress(self.done, self.total, text)

    def advance(self, label: str, text: str) -> None:
        """Count one more point and report it."""
        self.done += 1
        self.report(f"{label}, {text}")


@dataclass(frozen=True)
class _Job:
    """What all points have in common."""

    x: Tensor
    train: Tensor
    groups: np.ndarray
    effort: Effort
    seed: int
    match: Match

    def point(self, model_name: str, inference: str, model: Any, price: float | None, role: Role) -> Point:
        """Evaluate one model."""
        evaluation = evaluate(model, self.x, seed=self.seed)
        m = evaluation.metrics
        names = [name for name in ("steps", "converged", "events") if name in evaluation.stimuli]
        return Point(
            model_name,
            inference,
            price,
            role,
            m,
            corner_distance(m.r2_pooled, m.fraction_zeros),
            intervals(evaluation, self.groups, model.n_latents, self.seed),
            {name: float(evaluation.stimuli[name].mean()) for name in names},
        )

    def timed(self, point: Point, model: Any, role: Role | None = None) -> Point:
        """The same point with the time that its inference takes."""
        taken = milliseconds(model, self.x[:MAX_TIMED], self.seed)
        return Point(**{**vars(point), "role": role or point.role, "milliseconds": taken})

    def line(
        self, name: str, inference: str, model: Any, scan: Scan, own: Point, advance: Callable[[str], None]
    ) -> list[Point]:
        """The scan of one inference, and the point that matches the model's own."""
        recoding, metric = RECODINGS[inference], MATCHED[self.match]
        target = getattr(own.metrics, metric)

        def at(price: float) -> Point:
            advance(f"weight {price:.3g}")
            return self.point(name, inference, recoding.build(model, price, self.effort, self.train), price, "scan")

        points = [at(price) for price in scan.prices]
        ends = {"fraction_zeros": 1.0, "r2_pooled": 0.0}  # where all codes are zero
        tried = {p.price or 0.0: getattr(p.metrics, metric) for p in points}
        trials: list[Point] = []
        for _ in range(MATCH_TRIALS):
            if min(abs(value - target) for value in tried.values()) <= MATCH_TOLERANCE:
                break
            price = crossing(tried | ({} if scan.silent is None else {scan.silent: ends[metric]}), target)
            if price is None:  # outside the scan: try below its lowest weight
                price = min(tried) / EXTENSION_FACTOR
                nearest = min(tried, key=lambda p: abs(tried[p] - target))
                if nearest != min(tried) or price < 0.99 * scan.prices[0] / EXTENSION_FACTOR**2:
                    break
            trials.append(at(price))
            tried[price] = getattr(trials[-1].metrics, metric)
        best = min([*points, *trials], key=lambda p: abs(getattr(p.metrics, metric) - target))
        near = abs(getattr(best.metrics, metric) - target) <= MATCH_TOLERANCE
        chosen = recoding.build(model, best.price or 0.0, self.effort, self.train)
        return [*points, self.timed(best, chosen, "matched" if near else "nearest")]


def crossing(values: dict[float, float], target: float) -> float | None:
    """The weight at which a number, known at some weights, should equal its target; None if the target is out of range.

    Linear interpolation in the logarithm of the weight, between the two neighbours on either side of the target.

    Examples
    --------
    >>> round(crossing({0.1: 0.2, 10.0: 0.6}, 0.4), 6), crossing({0.1: 0.2, 10.0: 0.6}, 0.7)
    (1.0, None)
    """
    prices = sorted(values)
    for low, high in pairwise(prices):
        a, b = values[low] - target, values[high] - target
        if a * b <= 0 and a != b:
            share = min(max(a / (a - b), 0.05), 0.95)  # not too near to a neighbour, which is known already
            return float(np.exp((1 - share) * np.log(low) + share * np.log(high)))
    return None


def intervals(evaluation: Evaluation, groups: np.ndarray, n_units: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the pooled R2, the fraction of zeros and the distance from the ideal corner.

    Parameters
    ----------
    groups
        (m,) stimuli of equal number are drawn together (patches of one image are similar).
    """
    if not evaluation.stimuli:
        return {}
    members = np.unique(groups, return_inverse=True)[1]
    n = int(members.max()) + 1
    sums = np.stack(
        [np.bincount(members, evaluation.stimuli[name], n) for name in ("residual", "contrast", "nonzero")]
        + [np.bincount(members, minlength=n).astype(float)]
    )
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # (RESAMPLES, n)
    residual, contrast, nonzero, count = sums @ weights.T
    seen = contrast > 0
    r2 = 1.0 - residual[seen] / contrast[seen]
    zeros = 1.0 - nonzero[seen] / (n_units * count[seen])
    found = {"r2_pooled": r2, "fraction_zeros": zeros, "corner_distance": np.hypot(1 - r2, 1 - zeros)}
    ends = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    return {
        name: (float(np.percentile(values, ends[0])), float(np.percentile(values, ends[1])))
        for name, values in found.items()
        if len(values)
    }


@torch.inference_mode()
def milliseconds(model: Model, x: Tensor, seed: int) -> float:
    """Milliseconds of wall-clock time per stimulus to sample codes of all given stimuli in one batch."""
    best = float("inf")
    for _ in range(1 + TIMING_REPEATS):  # the first one warms up
        generator = torch.Generator(device=x.device).manual_seed(checked_seed(seed))
        began = time.perf_counter()
        model.sample_codes(x, generator=generator)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        best = min(best, time.perf_counter() - began)
        if best > MAX_REPEAT_SECONDS:
            break
    return 1e3 * best / len(x)
