"""A traced path: table, knees, sentences."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from .._files import atomic_write
from .._html import html_table
from .._json import write_json
from .._scope import own_scope
from .._text import percent, shown
from ..models._model import Model
from ..models.config import ModelConfig
from ..training import train
from .path import FITS_FOR_PRICES, Path, Progress, check, label_of
from .point import REMEDY, Point, measured, read_point
from .unfinished import Unfinished

if TYPE_CHECKING:
    import pyarrow as pa


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
    @own_scope()
    def trace(
        cls,
        configs: Sequence[ModelConfig],
        train_stimuli: Tensor,
        test_stimuli: Tensor,
        shape: tuple[int, ...],
        *,
        n_prices: int = 12,
        fits: float = FITS_FOR_PRICES,
        models: Sequence[Model] | None = None,
        device: torch.device | str = "cpu",
        folder: FilePath | None = None,
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
        fits
            Training time of all fits with a price together, in single fits.
        models
            Trained models of the configurations, in their order, for the path to start from; without them it trains
            its own.
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
            On Ctrl-C; finished prices and the steps of the present one are kept in `folder`.
        """
        check(configs, n_prices)
        path = Path(configs, train_stimuli, shape, n_prices, device, fits, models)
        kept = Unfinished(folder, configs, n_prices)
        points, last = list(kept.points), None
        done = len(points) // len(configs)
        if done:
            last = path.stack(done - 1)
            kept.load(last)
        for index in range(done, n_prices):
            stack = path.stack(index)
            if last is not None:
                stack.start_from([last.result(i).model for i in range(len(last))])
            if index or models is None:
                train(stack, checkpoint_path=kept.running, on_steps=path.report(index, stack, progress))
            points += [measured(stack, i, test_stimuli) for i in range(len(configs))]
            kept.keep(points, stack)
            last = stack
        kept.finish()
        return cls(label_of(configs[0]), tuple(points))

    def to_dict(self) -> dict[str, Any]:
        """The path as a mapping, for a JSON file."""
        return {"label": self.label, "points": [asdict(point) for point in self.points]}

    @classmethod
    def from_dict(cls, values: Any, path: FilePath, remedy: str = REMEDY) -> Self:
        """A path from the content of a JSON file.

        Raises
        ------
        ValueError
            With the file's name and the remedy, where the content is damaged.
        """
        points = values.get("points") if isinstance(values, dict) else None
        if not isinstance(points, list) or not isinstance(values.get("label"), str):
            raise ValueError(f"{path} is no path along the spike price: it has no label or no points; {remedy}")
        return cls(values["label"], tuple(read_point(entry, path, remedy) for entry in points))

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
        best = max((i for i in range(len(path)) if saved[i] > 0), key=gain.__getitem__)
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

    def _repr_html_(self) -> str:
        """The table and the knees, for notebooks."""
        names = ("beta", "spike_price", "objective", "bits", "r2", "fraction_zeros", "spikes", "joules")
        rows = [[shown(getattr(point, name), 4) for name in names] for beta in self.betas for point in self.of(beta)]
        return html_table(self.label, names, rows, note=" ".join(self.sentences()))

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

    def write(self, folder: FilePath) -> dict[str, FilePath]:
        """Write frontier.csv and frontier.json; return their paths. :func:`spikevae.plot.frontier` draws them."""
        from pyarrow import csv

        with atomic_write(folder / "frontier.csv") as scratch:
            csv.write_csv(self.table(), scratch)
        write_json(folder / "frontier.json", self.to_dict())
        return {"table": folder / "frontier.csv", "points": folder / "frontier.json"}
