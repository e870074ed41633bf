"""How fast and how well classes of stimuli are decoded from the spikes of a model, and the figure of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import plotting
from .._scope import own_scope
from .._seeds import generator
from ..data._patches import PatchSet
from ..models._model import Model
from .decoder import Floats, SpikeDecoder, spike_train
from .responses import Responses, respond

THRESHOLDS = (0.6, 0.8, 0.9, 0.95, 0.99)
"""Probabilities at which decisions are made."""
BATCH_SIZE, GRID, ATTEMPTS = 1024, 1000, 20
"""Stimuli coded at once; of the figure: moments at which it shows a posterior, and draws of spikes for its trial."""


@dataclass(frozen=True, eq=False)
class DecodingStudy:
    """Decisions about held-out stimuli at some thresholds."""

    decoder: SpikeDecoder
    """Rates of the classes, from training stimuli."""
    rates: Floats
    """(m, K) firing rates of the held-out stimuli."""
    truth: NDArray[np.int64]
    """(m,) place in the decoder's `labels` of the right class."""
    responses: dict[float, Responses]
    """Decisions by threshold."""
    deadline: float
    """Time at which undecided trials end, in presentations."""
    seed: int
    """Seed of the spikes."""

    def rows(self) -> list[dict[str, float]]:
        """One per threshold: shares of trials that are right and decided, and means and medians of times and spikes."""
        return [
            {
                "threshold": threshold,
                "right": float((found.choice == self.truth).mean()),
                "decided": float(found.decided.mean()),
                "mean_time": float(found.time.mean()),
                "median_time": float(np.median(found.time)),
                "mean_spikes": float(found.spikes.mean()),
                "median_spikes": float(np.median(found.spikes)),
                "believed": float(found.posterior.mean()),
            }
            for threshold, found in self.responses.items()
        ]

    def describe(self) -> str:
        """A table; times in presentations of a stimulus."""
        head = "threshold  right  decided  mean probability  median time  median spikes"
        lines = [
            f"{row['threshold']:>9g} {row['right']:>6.1%} {row['decided']:>8.1%} {row['believed']:>17.3f} "
            f"{row['median_time']:>12.3g} {row['median_spikes']:>14.3g}"
            for row in self.rows()
        ]
        return "\n".join([head, *lines])

    def draw(self, path: str | Path) -> Path:
        """Write the figure: a trial in time, response times, and speed against accuracy; the ending says how."""
        path = Path(path)
        with plotting.canvas(1, 3, 3.2, 2.6) as (figure, axes):
            middle = list(self.responses)[len(self.responses) // 2]
            _draw_trial(axes[0, 0], self, middle)
            _draw_times(axes[0, 1], self, middle)
            _draw_tradeoff(axes[0, 2], self.rows())
            plotting.save(figure, path)
        return path


@own_scope()
@torch.inference_mode()
def study(
    model: Model,
    data: PatchSet,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    deadline: float = 10.0,
    templates: int = 10,
    trials: int = 1000,
    seed: int = 0,
    verbose: bool = False,
) -> DecodingStudy:
    """Decode the class of held-out stimuli from the spikes of a model.

    The units fire as Poisson processes at the rates of the mean code; one unit of time is the presentation of a
    stimulus, at whose end Poisson codes have the counts of the model. The decoder knows the mean rates of
    clusters of training stimuli of each class.

    Parameters
    ----------
    model
        A trained model of counts.
    data
        Stimuli with labels for training and test.
    thresholds
        Probabilities at which decisions are made, each above 1/2 and below 1.
    deadline
        Time at which undecided trials end.
    templates
        Clusters per class, at most.
    trials
        Most held-out stimuli, one trial each.
    seed
        Seed of the spikes.
    verbose
        Show progress.

    Raises
    ------
    ValueError
        For models without counts and data without labels.
    """
    labels, test_labels = check(model, data, thresholds)
    decoder = SpikeDecoder.from_codes(_rates(model, data.train, seed), labels, templates=templates)
    known = np.isin(test_labels, decoder.labels)
    chosen = np.flatnonzero(known)[:trials]
    if not len(chosen):
        raise ValueError("no held-out stimulus has a class of the training stimuli")
    rates = _rates(model, data.test[chosen], seed)
    truth = np.searchsorted(decoder.labels, test_labels[chosen])
    responses = {
        float(threshold): respond(decoder, rates, threshold=threshold, deadline=deadline, seed=seed, verbose=verbose)
        for threshold in sorted(thresholds)
    }
    return DecodingStudy(decoder, rates, truth, responses, deadline, seed)


def check(model: Model, data: PatchSet, thresholds: Sequence[float] = THRESHOLDS) -> tuple[Any, Any]:
    """The labels of training and test stimuli; `ValueError` with what to use where there is nothing to decode."""
    if not model.law.is_count:
        raise ValueError(f"{model.label} codes are no counts of spikes: decode a model of counts, such as 'poisson'")
    if data.train_labels is None or data.test_labels is None:
        raise ValueError(
            f"{data.name} has no labels, so there are no classes to decode: use stimuli of known classes, such as "
            "mnist:FOLDER, or an .npz file with `labels`"
        )
    wrong = [threshold for threshold in thresholds if not 0.5 < threshold < 1]
    if wrong or not thresholds:
        raise ValueError(f"thresholds are {list(thresholds)}; give probabilities above 0.5 and below 1")
    return data.train_labels, data.test_labels


def _rates(model: Model, stimuli: NDArray[np.float32], seed: int) -> Floats:
    """(n, K) mean codes."""
    weight, noise = next(model.parameters()), generator(seed, "evaluation")
    parts: list[Tensor] = [
        model.mean_code(batch.to(weight), generator=noise).double().cpu()
        for batch in torch.tensor(stimuli).split(BATCH_SIZE)
    ]
    return torch.cat(parts).numpy()


def _trial(found: DecodingStudy, threshold: float) -> tuple[int, Floats, Floats, Floats, float]:
    """A trial, its spike times, moments, probabilities (n, C) at them, and the time of its decision.

    The stimulus is that of the median response time among trials that are right, with spikes of which this is true too.
    """
    responses = found.responses[threshold]
    right = np.flatnonzero((responses.choice == found.truth) & responses.decided)
    usable = right if len(right) else np.arange(len(found.truth))
    trial = int(usable[np.argsort(responses.time[usable])[len(usable) // 2]])
    end = 3 * float(responses.time[trial]) + 1e-3
    for attempt in range(ATTEMPTS):
        units, times = spike_train(found.rates[trial], end, seed=found.seed + attempt)
        moments = np.linspace(0, end, GRID)
        counts = np.zeros((GRID + 1, found.rates.shape[1]))
        np.add.at(counts, (np.searchsorted(moments, times), units), 1)
        posterior = found.decoder.posterior(counts[:GRID].cumsum(0), moments)
        reached = np.flatnonzero(posterior.max(1) >= threshold)
        if len(reached) and posterior[reached[0]].argmax() == found.truth[trial]:
            return trial, times, moments, posterior, float(moments[reached[0]])
    return trial, times, moments, posterior, end


def _draw_trial(axes: Any, found: DecodingStudy, threshold: float) -> None:
    """Probabilities of the classes in time, until a little after the decision."""
    trial, times, moments, posterior, decision = _trial(found, threshold)
    seen = moments <= 1.2 * decision
    shown = np.argsort(-posterior[seen].max(0))[:4]
    for place, row in enumerate(sorted(shown)):
        truly = row == found.truth[trial]
        axes.plot(
            moments[seen],
            posterior[seen, row],
            color=plotting.FAMILY_COLOURS[place],
            lw=2 if truly else 1.2,
            ls="-" if truly else ("--", ":", "-.")[place % 3],
            label=f"{found.decoder.labels[row]}{' (true)' if truly else ''}",
        )
    spikes = times[times <= 1.2 * decision]
    axes.plot(spikes, np.full(len(spikes), -0.06), "|", color=plotting.GREY, ms=6, mew=0.6)
    axes.axhline(threshold, color=plotting.INK, lw=0.8, ls=(0, (1, 2)))
    axes.axvline(decision, color=plotting.INK, lw=0.8, ls=(0, (1, 2)))
    axes.set(xlabel="Time (presentations)", ylabel="Probability of the class", ylim=(-0.12, 1.05))
    axes.set_title("One trial; its spikes below")
    axes.legend(loc="best", fontsize=7)


def _draw_times(axes: Any, found: DecodingStudy, threshold: float) -> None:
    """Response times of trials that are right and of those that are wrong."""
    responses = found.responses[threshold]
    right = responses.choice == found.truth
    edges = np.linspace(0, float(np.quantile(responses.time, 0.995)) or 1.0, 41)
    for which, label, colour in ((right, "right", plotting.BLUE), (~right, "wrong", plotting.VERMILION)):
        times = np.minimum(responses.time[which], edges[-1])
        axes.hist(times, edges, histtype="step", color=colour, lw=1.4, label=f"{label} ({which.mean():.0%})")
    axes.set(xlabel="Response time (presentations)", ylabel="Trials", title=f"Threshold {threshold:g}")
    axes.legend(fontsize=7)


def _draw_tradeoff(axes: Any, rows: list[dict[str, float]]) -> None:
    """Share of right decisions against the mean response time, by threshold."""
    times, right = ([row[name] for row in rows] for name in ("mean_time", "right"))
    axes.plot(times, right, "o-", color=plotting.GREEN, label="right")
    axes.plot(times, [row["believed"] for row in rows], "s--", color=plotting.GREY, ms=4, label="mean probability")
    for row in rows:
        axes.annotate(
            f"{row['threshold']:g}", (row["mean_time"], row["right"]), (4, -9), textcoords="offset points", fontsize=7
        )
    axes.set(xlabel="Mean response time (presentations)", ylabel="Share", title="Speed and accuracy")
    axes.legend(fontsize=7)
