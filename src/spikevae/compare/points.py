"""Every model by every inference: a scan over the price, and the point where a number equals the model's own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._device import resolve_device
from ..data import PatchSet
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.metrics import Metrics
from ..metrics.sparsity import corner_distance
from ..models._model import Model
from ..models.files import load_model
from .recodings import OWN, RECODINGS, Effort, Recoding, Scan

Match = Literal["zeros", "r2"]
MATCHED: dict[str, str] = {"zeros": "fraction_zeros", "r2": "r2_pooled"}
MATCH_TOLERANCE = 0.003
"""Difference in the fraction of zeros, or in R2, at which two codes count as equal."""
MATCH_TRIALS = 6
"""Most further prices tried to match a number."""
BELOW = 5.0
"""Factor by which the scan goes on below its lowest price, at most twice, where the number is to be found there."""
LEVEL, RESAMPLES = 0.95, 1000
"""Coverage of the bootstrap intervals, and resamples they are made of."""
FEWEST_IMAGES = 10
"""Images below which stimuli are resampled one by one: an interval from a handful of images says nothing."""
TIMED, REPEATS, LONG_SECONDS = 256, 3, 1.0
"""Stimuli that are timed at once; the best of so many repeats, unless one takes longer than so many seconds."""
TRAINING = 1000
"""Training stimuli for what an inference needs and a model lacks."""
MOST_MODELS = 12

Role = Literal["own", "scan", "matched", "nearest"]


@dataclass(frozen=True)
class Trained:
    """A saved model."""

    name: str
    """Its file's stem, or path where two stems are equal."""
    label: str
    """Its law, size and beta (or price) in words."""
    path: Path
    model: Any
    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One dictionary, coded by one inference at one price."""

    model: str
    inference: str
    price: float | None
    """None for an inference that has none."""
    role: Role
    """own: as trained; scan: of the scan; matched: where the chosen number equals the model's own; nearest: as near to
    it as this inference comes."""
    metrics: Metrics
    corner_distance: float
    """Distance from R2 = 1 with every code entry zero, of `r2_pooled` and `fraction_zeros`."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals of `r2_pooled`, `fraction_zeros` and `corner_distance`."""
    facts: dict[str, float] = field(default_factory=dict)
    """Means over stimuli of what the inference says of itself: steps, converged (share), events (synaptic operations
    if only active units send)."""
    milliseconds: float | None = None
    """A stimulus, inference alone; of matched, nearest and own points."""

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
        """The points of one line, by rising price."""
        chosen = [p for p in self.points if p.model == model and p.inference == inference]
        return sorted(chosen, key=lambda p: p.price or 0.0)


def read_models(given: Sequence[str | Path]) -> list[Trained]:
    """Read saved models with linear decoders.

    Parameters
    ----------
    given
        Files; RUN/ID for a model of a run folder; or a run folder for all of its models.

    Raises
    ------
    FileNotFoundError, ValueError
        Where a file is missing or unreadable, or a decoder is not linear.
    """
    paths = [path for one in given for path in _paths(Path(one))]
    paths = list(dict.fromkeys(paths))
    if len(paths) > MOST_MODELS:
        raise ValueError(
            f"{len(paths)} models are more than the {MOST_MODELS} that one comparison takes; name some of them "
            f"(RUN/ID), such as {paths[0].parent.parent / paths[0].stem}"
        )
    stems = [path.stem for path in paths]
    return [_read(path, path.stem if stems.count(path.stem) == 1 else str(path)) for path in paths]


def _paths(path: Path) -> list[Path]:
    if (path / "config.json").is_file():
        found = sorted((path / "models").glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"{path} holds no models yet; run the sweep first")
        return found
    in_run = path.parent / "models" / f"{path.name}.safetensors"
    return [in_run if not path.exists() and in_run.is_file() else path]


def _read(path: Path, name: str) -> Trained:
    model, _ = load_model(path)
    config = model.config
    if model.dictionary is None:
        raise ValueError(
            f"{path}: decoder {config.decoder!r} is not linear, so there is no dictionary that "
            "another inference could use; train with decoder='linear' (--set 'decoder=\"linear\"')"
        )
    if config.likelihood != "gaussian":
        raise ValueError(
            f"{path}: likelihood {config.likelihood!r} puts a sigmoid behind the dictionary; the inferences here need "
            "pixels that are linear in the code: train with likelihood='gaussian'"
        )
    label = f"{model.label} K={model.n_latents} beta={config.beta:g} seed={config.seed}"
    return Trained(name, label, path, model, config.seed, config.model_dump(mode="json"))


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
    n_prices
        Prices of the scan.
    n_stimuli
        Test stimuli, evenly spread over the test set.
    seed
        Of sampled codes and of the bootstrap.
    progress
        Called with (done, total, what is being done).

    Raises
    ------
    ValueError
        For unknown inferences, too few prices, or stimuli that do not fit a model.
    """
    for name in inferences:
        if name not in RECODINGS:
            raise ValueError(f"unknown inference {name!r}; use one of {', '.join(RECODINGS)}")
    if match not in MATCHED:
        raise ValueError(f"match is {match!r}; use one of {', '.join(MATCHED)}")
    if n_prices < 2 or n_stimuli < 2:
        raise ValueError(f"{n_prices} prices and {n_stimuli} stimuli; give two or more of both")
    for one in models:
        if one.model.n_features != data.test.shape[1]:
            raise ValueError(
                f"{one.path} takes stimuli of {one.model.n_features} pixels, shape {one.model.shape}, but {data.name} "
                f"has {data.test.shape[1]}, shape {data.shape}; compare models of one kind of stimulus"
            )
    where = resolve_device(device)
    chosen = np.linspace(0, len(data.test) - 1, min(n_stimuli, len(data.test))).round().astype(int)
    x = torch.from_numpy(data.test[chosen]).to(where)
    groups, resampled = data.test_group[chosen], "images"
    if len(np.unique(groups)) < FEWEST_IMAGES:
        groups, resampled = np.arange(len(chosen)), "stimuli"
    spread = np.linspace(0, len(data.train) - 1, min(TRAINING, len(data.train))).round().astype(int)
    job = _Job(x, torch.from_numpy(data.train[spread]).to(where), groups, effort, seed, match)
    per_line = {name: 1 if RECODINGS[name].scan is None else n_prices + MATCH_TRIALS for name in inferences}
    total, done = len(models) * (1 + sum(per_line.values())), 0.0
    points: list[Point] = []
    for one in models:
        model = one.model.to(where, x.dtype)
        progress(done, total, f"{one.label}: as trained")
        own = job.point(one.name, OWN, model, None, "own")
        done += 1
        for name in inferences:
            recoding, begun = RECODINGS[name], done
            if recoding.scan is None:
                points.append(job.timed(own, model))
            else:

                def advance(text: str, one: Trained = one, recoding: Recoding = recoding, begun: float = begun) -> None:
                    nonlocal done
                    done += 1
                    progress(min(done, begun + per_line[name]), total, f"{one.label}: {recoding.label}, {text}")  # noqa: B023

                scan = recoding.scan(model, x, n_prices)
                points += job.line(one.name, name, model, scan, own, advance)
            done = begun + per_line[name]
        one.model.cpu()
    progress(total, total, "done")
    return Comparison(list(models), points, match, data.name, len(x), resampled, where)


@dataclass(frozen=True)
class _Job:
    """What all points share."""

    x: Tensor
    train: Tensor
    groups: np.ndarray
    effort: Effort
    seed: int
    match: Match

    def point(self, model_name: str, inference: str, model: Any, price: float | None, role: Role) -> Point:
        """Evaluate one model that codes."""
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
        taken = milliseconds(model, self.x[:TIMED], self.seed)
        return Point(**{**vars(point), "role": role or point.role, "milliseconds": taken})

    def line(
        self, name: str, inference: str, model: Any, scan: Scan, own: Point, advance: Callable[[str], None]
    ) -> list[Point]:
        """The scan of one inference, and the point that matches the model's own."""
        recoding, metric = RECODINGS[inference], MATCHED[self.match]
        target = getattr(own.metrics, metric)

        def at(price: float) -> Point:
            advance(f"price {price:.3g}")
            return self.point(name, inference, recoding.build(model, price, self.effort, self.train), price, "scan")

        points = [at(price) for price in scan.prices]
        ends = {"fraction_zeros": 1.0, "r2_pooled": 0.0}  # of silence
        tried = {p.price or 0.0: getattr(p.metrics, metric) for p in points}
        trials: list[Point] = []
        for _ in range(MATCH_TRIALS):
            if min(abs(value - target) for value in tried.values()) <= MATCH_TOLERANCE:
                break
            price = crossing(tried | ({} if scan.silent is None else {scan.silent: ends[metric]}), target)
            if price is None:  # beyond the scan: below its lowest price, if anywhere
                price = min(tried) / BELOW
                nearest = min(tried, key=lambda p: abs(tried[p] - target))
                if nearest != min(tried) or price < 0.99 * scan.prices[0] / BELOW**2:
                    break
            trials.append(at(price))
            tried[price] = getattr(trials[-1].metrics, metric)
        best = min([*points, *trials], key=lambda p: abs(getattr(p.metrics, metric) - target))
        near = abs(getattr(best.metrics, metric) - target) <= MATCH_TOLERANCE
        chosen = recoding.build(model, best.price or 0.0, self.effort, self.train)
        return [*points, self.timed(best, chosen, "matched" if near else "nearest")]


def crossing(values: dict[float, float], target: float) -> float | None:
    """The price at which a number that was found at some prices should equal its target; None where it never does.

    Linear in the logarithm of the price between the neighbours that hold the target between them.

    Examples
    --------
    >>> round(crossing({0.1: 0.2, 10.0: 0.6}, 0.4), 6), crossing({0.1: 0.2, 10.0: 0.6}, 0.7)
    (1.0, None)
    """
    prices = sorted(values)
    for low, high in pairwise(prices):
        a, b = values[low] - target, values[high] - target
        if a * b <= 0 and a != b:
            share = min(max(a / (a - b), 0.05), 0.95)  # never a neighbour itself again
            return float(np.exp((1 - share) * np.log(low) + share * np.log(high)))
    return None


def intervals(evaluation: Evaluation, groups: np.ndarray, n_units: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the pooled R2, the fraction of zeros and the distance from the ideal corner.

    Parameters
    ----------
    groups
        (m,) stimuli of one number are drawn together (patches of an image are alike).
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
    """Milliseconds of wall-clock time that finding the code of a stimulus takes, in one batch of all given."""
    best = float("inf")
    for _ in range(1 + REPEATS):  # the first one warms up
        generator = torch.Generator(device=x.device).manual_seed(seed)
        began = time.perf_counter()
        model.sample_codes(x, generator=generator)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        best = min(best, time.perf_counter() - began)
        if best > LONG_SECONDS:
            break
    return 1e3 * best / len(x)
