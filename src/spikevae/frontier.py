"""The path of codes along the spike price: how much free energy, bits and fidelity each saved spike costs.

One fit without a spike price comes first. Then the price rises by a factor each time, and every fit starts from the one
before. Fits of several betas train as one stack. The whole path takes at most the time of four single fits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from . import plotting
from ._json import read_json, write_json
from ._text import percent, shown
from .evaluation.evaluate import evaluate
from .models.codes import get_code
from .models.config import ModelConfig
from .training import Stack, checkpoint, train
from .training.fits import DIVERGED

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_PRICE, LAST_PRICE = 0.01, 3.0
"""Smallest and largest positive spike price, as multiples of beta."""
FITS_FOR_PRICES = 3.0
"""Training time of all fits with a price, in single fits."""
REMEDY = "delete the folder and trace the path again"

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Point:
    """A code of the path, on held-out stimuli."""

    beta: float
    """Weight of the coding rate."""
    spike_price: float
    """Nats per spike."""
    objective: float
    """Distortion + beta x coding rate, without the price, nats per stimulus."""
    free_energy: float
    """The same at beta = 1."""
    bits: float
    """Coding rate, bits per stimulus."""
    r2: float
    """Pooled R2 of sampled codes."""
    fraction_zeros: float
    """Share of zeros among code entries."""
    spikes: float
    """Per stimulus, all units together."""
    firing_rate: float
    """Spikes per unit per stimulus."""
    joules: float
    """Modelled, per stimulus, at the central energy cost of a spike; NaN for real-valued codes."""
    diverged: bool
    """Whether training ended in numbers that are not finite."""


@dataclass(frozen=True)
class Knee:
    """The point of a path after which each percent of free energy saves fewer spikes than before."""

    point: Point
    saved: float
    """Share of the spikes of the code without a price that is saved."""
    lost: float
    """Relative rise of the objective."""

    @property
    def saved_per_percent(self) -> float:
        """Share of spikes saved per percent of the objective."""
        return self.saved / (100 * self.lost) if self.lost > 0 else math.inf


@dataclass(frozen=True)
class Frontier:
    """Codes along the spike price, for one or several betas.

    Examples
    --------
    >>> from spikevae.config import FitConfig
    >>> x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    >>> configs = [FitConfig.from_recipe(n_latents=8, beta=b, steps=40) for b in (0.5, 1.0)]
    >>> path = Frontier.trace(configs, x[:250], x[250:], (16,), n_prices=4)
    >>> path.betas, len(path.of(0.5))
    ((0.5, 1.0), 4)
    """

    label: str
    """Distribution and inference."""
    points: tuple[Point, ...]
    """By price, then by beta."""

    @classmethod
    def trace(
        cls,
        configs: Sequence[ModelConfig],
        train_stimuli: Tensor,
        test_stimuli: Tensor,
        shape: tuple[int, ...],
        *,
        n_prices: int = 12,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Train and evaluate a path.

        Parameters
        ----------
        configs
            Fits without a spike price or a budget that differ in beta only.
        train_stimuli, test_stimuli
            (n, D) and (m, D).
        shape
            Stimulus shape.
        n_prices
            Length of the path; the first price is zero, the others are 0.01 to 3 times beta.
        device
            Where to train.
        folder
            Where to keep finished prices, so that the same call continues an interrupted path.
        progress
            Called with (steps done, all steps, text).

        Raises
        ------
        ValueError
            For a code without a firing rate, or a price or budget of its own.
        spikevae.training.Interrupted
            On Ctrl-C; finished prices are kept in `folder`.
        """
        check(configs, n_prices)
        path = _Path(configs, train_stimuli, shape, n_prices, device)
        kept = _Kept(folder, configs, n_prices)
        points, last = list(kept.points), None
        done = len(points) // len(configs)
        if done:
            last = path.stack(done - 1)
            kept.load(last)
        for index in range(done, n_prices):
            stack = path.stack(index)
            if last is not None:
                stack.start_from(last)
            train(stack, on_steps=path.report(index, stack, progress))
            points += [_point(stack, i, test_stimuli) for i in range(len(configs))]
            kept.keep(points, stack)
            last = stack
        kept.finish()
        return cls(label_of(configs[0]), tuple(points))

    @property
    def betas(self) -> tuple[float, ...]:
        """The values of beta, in the order of the configurations."""
        return tuple(dict.fromkeys(point.beta for point in self.points))

    def of(self, beta: float) -> list[Point]:
        """The path of one beta, by rising price."""
        return [point for point in self.points if point.beta == beta]

    def knee(self, beta: float) -> Knee | None:
        """The point with the largest saved share minus relative loss, each as a share of its range; None without one.

        Points that diverged do not count; a path that saves no spikes or loses no free energy has no knee.
        """
        path = [p for p in self.of(beta) if not p.diverged and math.isfinite(p.objective)]
        if len(path) < 3 or not path[0].spikes > 0:
            return None
        saved = [1 - p.spikes / path[0].spikes for p in path]
        lost = [p.objective / path[0].objective - 1 for p in path]
        if not (max(saved) > 0 and max(lost) > 0):
            return None
        gain = [s / max(saved) - f / max(lost) for s, f in zip(saved, lost)]
        best = max(range(len(path)), key=gain.__getitem__)
        return Knee(path[best], saved[best], lost[best]) if gain[best] > 0 else None

    def table(self) -> "pa.Table":
        """One row per point, as a pyarrow table."""
        import pyarrow as pa

        return pa.Table.from_pylist([asdict(point) for point in self.points])

    def describe(self) -> str:
        """Table and knees, as text."""
        names = ("beta", "spike_price", "objective", "bits", "r2", "fraction_zeros", "spikes", "joules")
        lines = ["  ".join(f"{name:>14}" for name in names)]
        for beta in self.betas:
            for point in self.of(beta):
                lines.append("  ".join(f"{getattr(point, name):14.4g}" for name in names))
        return "\n".join([*lines, "", *self.sentences()])

    def sentences(self) -> list[str]:
        """One sentence per beta: where the knee is."""
        found = []
        for beta in self.betas:
            knee = self.knee(beta)
            if knee is None:
                found.append(f"β = {beta:g}: the path has no knee.")
                continue
            at = knee.point
            found.append(
                f"β = {beta:g}: the knee is at {shown(at.spike_price)} nats per spike. It saves {percent(knee.saved)} "
                f"of the spikes for {percent(knee.lost)} of the free energy, and leaves {shown(at.spikes)} spikes per "
                f"stimulus and R² {at.r2:.3f}."
            )
        return found

    def write(self, folder: Path) -> dict[str, Path]:
        """Write frontier.csv, frontier.json and frontier.png and .svg; return their paths."""
        from pyarrow import csv

        folder.mkdir(parents=True, exist_ok=True)
        csv.write_csv(self.table(), folder / "frontier.csv")
        write_json(folder / "frontier.json", {"label": self.label, "points": [asdict(p) for p in self.points]})
        figure = self.figure(folder)
        return {"table": folder / "frontier.csv", "points": folder / "frontier.json", "figure": figure.png}

    def figure(self, folder: Path) -> plotting.Static:
        """Objective and R2 against spikes per stimulus, one line per beta, a star at its knee."""
        with plotting.canvas(1, 2, key_rows=1 + (len(self.betas) - 1) // 4) as (figure, axes):
            for number, beta in enumerate(self.betas):
                path = [p for p in self.of(beta) if not p.diverged and p.spikes > 0]
                colour = plotting.FAMILY_COLOURS[number % len(plotting.FAMILY_COLOURS)]
                knee = self.knee(beta)
                for axis, name in zip(axes[0], ("objective", "r2")):
                    values = [getattr(p, name) for p in path]
                    style = {"color": colour, "marker": "osD^v<>p"[number % 8], "markersize": 4, "linewidth": 1.4}
                    axis.plot([p.spikes for p in path], values, label=f"β = {beta:g}", **style)
                    if knee is not None:
                        star = {"marker": "*", "s": 130, "color": colour, "edgecolor": plotting.INK, "zorder": 3}
                        axis.scatter([knee.point.spikes], [getattr(knee.point, name)], **star)
            for axis, text in zip(
                axes[0], ("distortion + β × coding rate (nats)", "R² (pooled, held-out); star: knee")
            ):
                axis.set_xscale("log")
                axis.set_xlabel("spikes per stimulus")
                axis.set_title(text, fontsize=9, loc="left")
            handles, labels = axes[0, 0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="lower center", ncols=4)
            return plotting.write(figure, folder, "frontier", f"{self.label}: the path along the spike price")


def check(configs: Sequence[ModelConfig], n_prices: int) -> None:
    """Refuse configurations that have no frontier.

    Raises
    ------
    ValueError
        With what to drop.
    """
    if not configs:
        raise ValueError("a frontier needs at least one beta")
    if n_prices < 3:
        raise ValueError(f"n_prices is {n_prices}; a path has at least 3 prices")
    for config in configs:
        if not get_code(config.latent).has_rate:
            raise ValueError(f"a frontier needs a latent with a firing rate, which {config.latent!r} lacks")
        if config.spike_price > 0 or config.has_budget:
            raise ValueError("a frontier sets the spike price: drop spike_price, spike_budget and energy_budget")
        if config.beta <= 0:
            raise ValueError("a frontier needs beta above zero, of which its prices are multiples")
    if len({c.beta for c in configs}) < len(configs):
        raise ValueError("a frontier needs each beta once")


def price_at(index: int, n_prices: int) -> float:
    """Spike price number `index` of a path, as a multiple of beta.

    Examples
    --------
    >>> [round(price_at(i, 4), 3) for i in range(4)]
    [0.0, 0.01, 0.173, 3.0]
    """
    if index == 0:
        return 0.0
    share = (index - 1) / max(1, n_prices - 2)
    return FIRST_PRICE * (LAST_PRICE / FIRST_PRICE) ** share


def label_of(config: ModelConfig) -> str:
    """Distribution and inference, for titles."""
    label = get_code(config.latent).label
    return label if config.inference == "amortised" else f"{label}, {config.inference}"


@dataclass(frozen=True)
class _Path:
    """The stacks of a path."""

    configs: Sequence[ModelConfig]
    train: Tensor
    shape: tuple[int, ...]
    n_prices: int
    device: torch.device | str

    @property
    def first_steps(self) -> int:
        """Steps of the fit without a price."""
        return self.configs[0].n_steps(len(self.train))

    @property
    def steps_per_price(self) -> int:
        """Steps of every other fit, which starts from the one before."""
        return max(1, min(self.first_steps, int(FITS_FOR_PRICES * self.first_steps / (self.n_prices - 1))))

    def stack(self, index: int) -> Stack:
        """Fits at price number `index`, before their first step."""
        fits = [self._at_price(config, index) if index else config for config in self.configs]
        return Stack(fits, self.train, self.shape, device=self.device)

    def _at_price(self, config: ModelConfig, index: int) -> ModelConfig:
        price = config.beta * price_at(index, self.n_prices)
        update = {"spike_price": price, "steps": self.steps_per_price, "epochs": None, "cycles": 1, "init": "random"}
        return config.model_copy(update=update)

    def report(self, index: int, stack: Stack, progress: Progress | None) -> Callable[[int], None] | None:
        """Function for the training loop that reports the progress of the whole path."""
        if progress is None:
            return None
        before = self.first_steps + (index - 1) * self.steps_per_price if index else 0
        total = self.first_steps + (self.n_prices - 1) * self.steps_per_price
        return lambda _: progress(before + stack.step_number, total, f"price {index + 1} of {self.n_prices}")


def _point(stack: Stack, index: int, test: Tensor) -> Point:
    result, config = stack.result(index), stack.configs[index]
    m = evaluate(result.model, test, beta=config.beta, seed=config.seed).metrics
    return Point(
        beta=config.beta,
        spike_price=config.spike_price,
        objective=m.distortion + config.beta * m.kl,
        free_energy=m.free_energy,
        bits=m.bits,
        r2=m.r2_pooled,
        fraction_zeros=m.fraction_zeros,
        spikes=m.spikes,
        firing_rate=m.firing_rate,
        joules=m.joules if get_code(config.latent).is_count else math.nan,
        diverged=result.status == DIVERGED,
    )


class _Kept:
    """Finished prices in a folder: their points, and the weights of the last one."""

    def __init__(self, folder: Path | None, configs: Sequence[ModelConfig], n_prices: int) -> None:
        self.folder = folder
        self.facts = {"fits": [c.model_dump(mode="json") for c in configs], "n_prices": n_prices}
        self.points: list[Point] = []
        if folder is not None and self._points_path.exists():
            found = read_json(self._points_path, REMEDY)
            if not isinstance(found, dict) or {k: found.get(k) for k in self.facts} != self.facts:
                raise ValueError(f"{folder} holds another path that was interrupted; {REMEDY}, or take another folder")
            self.points = [_read_point(entry, self._points_path) for entry in found.get("points", [])]

    @property
    def _points_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "unfinished.json"

    @property
    def _weights_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "unfinished.safetensors"

    def keep(self, points: Sequence[Point], stack: Stack) -> None:
        """Store the points so far, and the weights that the next price starts from."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(stack, self._weights_path)
            write_json(self._points_path, {**self.facts, "points": [asdict(p) for p in points]})

    def load(self, stack: Stack) -> None:
        """Give the stack of the last finished price its weights."""
        checkpoint.load(stack, self._weights_path)

    def finish(self) -> None:
        """Remove what only an interrupted path needs."""
        if self.folder is not None:
            for path in (self._points_path, self._weights_path):
                path.unlink(missing_ok=True)


def _read_point(entry: Any, path: Path) -> Point:
    names = [field.name for field in fields(Point)]
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise ValueError(f"{path} has a point that is {entry!r:.80}; {REMEDY}")
    values: dict[str, Any] = {name: math.nan if entry[name] is None else entry[name] for name in names}
    if not all(isinstance(value, int | float) for value in values.values()):
        raise ValueError(f"{path} has a point with text in place of a number; {REMEDY}")
    return Point(**values)
