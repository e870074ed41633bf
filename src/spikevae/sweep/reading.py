"""The contents of a run folder: fits in families, each with its convergence flag."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._json import REMEDY
from ..data.arrays import load_arrays
from ..evaluation.metrics import Metrics
from ..frontier import Point
from .convergence import OBJECTIVE_TOLERANCE, Convergence
from .families import Family, families_of
from .store import RunFolder
from .table import flags

MAX_EXAMPLE_VALUES = 1 << 22
MAX_HISTORY = 100_000


READOUT = ("stimuli", "joules")
"""Numbers of the read-out of a fit that stand among its metrics, as ``readout_stimuli`` and ``readout_joules``."""


@dataclass(frozen=True)
class Cell:
    """One fit: its settings and its numbers on held-out stimuli (NaN where undefined)."""

    id: str
    family: Family
    n_latents: int
    beta: float
    spike_price: float
    seed: int
    start: float
    budget: int
    """Steps, or epochs if the configuration gives those."""
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    objective: float
    """On held-out stimuli, at the fit's own beta and spike price."""
    fit_objective: float
    """The same on training stimuli, used to compare starts and to judge convergence."""
    units: Mapping[str, np.ndarray]
    histogram: Mapping[str, Any]
    history: Mapping[str, np.ndarray]
    diverged: bool
    seconds: float
    check: Convergence

    def __getitem__(self, name: str) -> float:
        """A metric or an objective."""
        return getattr(self, name) if name in ("objective", "fit_objective") else self.metrics[name]


@dataclass(frozen=True)
class PricePath:
    """Codes along a rising spike price, from one fit on."""

    start: Cell
    points: tuple[Point, ...]
    """By rising price, the fit without a price first; those that diverged left out."""


@dataclass(frozen=True)
class Run:
    """Everything that a report or a picture needs."""

    path: Path
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    cells: tuple[Cell, ...]
    families: tuple[Family, ...]
    n_planned: int
    """Number of fits in the sweep; some may not be done yet."""
    paths: tuple[PricePath, ...] = ()

    @property
    def title(self) -> str:
        """The sweep's name."""
        return str(self.config["sweep"].get("name") or self.path.name)

    @cached_property
    def sizes(self) -> list[int]:
        """Latent sizes of all families, increasing."""
        return sorted({cell.n_latents for cell in self.cells})

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of all fits."""
        return sorted({cell.seed for cell in self.cells})

    @cached_property
    def best(self) -> list[Cell]:
        """Of each family, latent size, beta and seed the best of its starts: the one with the fewest spikes among
        those whose objective on training stimuli agrees with the lowest one (1 %); the lowest one without spikes."""
        return [_fewest_spikes(group) for group in self._groups()]

    @cached_property
    def low(self) -> list[Cell]:
        """The same with the lowest start (and the largest budget) instead of the best."""
        return self._choose(lambda cell: (cell.start, -cell.budget))

    @cached_property
    def high(self) -> list[Cell]:
        """The same with the highest start."""
        return self._choose(lambda cell: (-cell.start, -cell.budget))

    def _choose(self, order: Any) -> list[Cell]:
        return [min(group, key=order) for group in self._groups()]

    def _groups(self) -> list[list[Cell]]:
        """Fits that differ only in start and budget."""
        groups: dict[tuple[int, int, float, int], list[Cell]] = {}
        for cell in self.cells:
            if not cell.diverged and math.isfinite(cell.fit_objective):
                groups.setdefault((cell.family.index, cell.n_latents, cell.beta, cell.seed), []).append(cell)
        return [group for _, group in sorted(groups.items())]

    @cached_property
    def has_starts(self) -> bool:
        """Whether some fits differ only in the start."""
        return any(a.start != b.start for a, b in zip(self.low, self.high))

    @cached_property
    def shown(self) -> list[Cell]:
        """The few fits that are shown one by one: of each family the largest latent size and first seed, at the
        lowest beta, the one nearest to 1, and the highest; best of starts."""
        chosen = []
        for family in self.families:
            own = [cell for cell in self.best if cell.family == family]
            if not own:
                continue
            size = max(cell.n_latents for cell in own)
            own = [cell for cell in own if cell.n_latents == size]
            seed = min(cell.seed for cell in own)
            own = sorted((cell for cell in own if cell.seed == seed), key=lambda cell: cell.beta)
            near = min(own, key=lambda cell: abs(math.log(max(cell.beta, 1e-9))))
            chosen += sorted({c.id: c for c in (own[0], near, own[-1])}.values(), key=lambda cell: cell.beta)
        return chosen

    def examples(self) -> np.ndarray | None:
        """(n, D) test stimuli stored with the run, or None."""
        path = self.path / "examples.npy"
        if not path.is_file():
            return None
        try:
            values = load_arrays(path)["x"]
            if values.ndim != 2 or not 0 < values.size <= MAX_EXAMPLE_VALUES:
                raise ValueError(f"shape {values.shape}")
            return np.array(values, dtype=np.float32)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is not a small float matrix: {error}; {REMEDY}") from None


def read_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is no run, has no finished fit, or a file in it is damaged; the message names the file.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    raw = folder.read_cells()
    if not raw:
        raise ValueError(f"{folder.path} has no finished fit yet; run the sweep first")
    rows = [
        {
            **cell["config"],
            "firing_rate": cell["metrics"].get("firing_rate"),
            "fit_objective": cell["fit_objective"],
            "fit_objective_half": cell.get("fit_objective_half"),
            "diverged": cell.get("diverged"),
        }
        for cell in raw
    ]
    checks = flags(rows)
    families = families_of(raw)
    cells = tuple(_cell(c, families[i], check) for i, (c, check) in enumerate(zip(raw, checks)))
    return Run(
        paths=_paths(folder, cells),
        path=folder.path,
        config=config,
        data=folder.read_data_record(),
        cells=cells,
        families=tuple(dict.fromkeys(families)),
        n_planned=len(config.get("cells", raw)),
    )


def _fewest_spikes(group: Sequence[Cell]) -> Cell:
    """Of fits that differ only in start and budget, the one with the fewest spikes at nearly the lowest objective.

    Real-valued codes have no spikes: of them the one with the lowest objective.
    """
    least = min(cell.fit_objective for cell in group)
    near = [cell for cell in group if cell.fit_objective <= least + OBJECTIVE_TOLERANCE * abs(least)]
    return min(near, key=lambda cell: (cell["spikes"] if cell.family.is_count else 0.0, cell.fit_objective))


def _paths(folder: RunFolder, cells: Sequence[Cell]) -> tuple[PricePath, ...]:
    """The paths whose first fit is still there."""
    by_id = {cell.id: cell for cell in cells}
    found = []
    for one in folder.frontiers():
        for start, beta in zip(one.cells, one.frontier.betas):
            points = tuple(p for p in one.frontier.of(beta) if not p.diverged)
            if start in by_id and len(points) > 1:
                found.append(PricePath(by_id[start], points))
    return tuple(found)


def number(value: Any) -> float:
    """A JSON number as a float; null and anything else is NaN."""
    usual = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)
    return float(value) if usual else math.nan


def _vector(values: Any) -> np.ndarray:
    given = values if isinstance(values, list) else []
    return np.array([number(v) for v in given[:MAX_HISTORY]], dtype=np.float64)


def _cell(cell: Mapping[str, Any], family: Family, check: Convergence) -> Cell:
    config, histogram = cell["config"], cell.get("code_histogram") or {}
    return Cell(
        id=str(cell["id"]),
        family=family,
        n_latents=int(config["n_latents"]),
        beta=float(config["beta"]),
        spike_price=number(config.get("spike_price", 0.0)),
        seed=int(config["seed"]),
        start=float(config["start"]),
        budget=int(config.get("steps") or config.get("epochs") or 0),
        config=config,
        metrics={field.name: number(cell["metrics"].get(field.name)) for field in fields(Metrics)}
        | {f"readout_{name}": number((cell.get("readout") or {}).get(name)) for name in READOUT},
        objective=number(cell["objective"]),
        fit_objective=number(cell["fit_objective"]),
        units={name: _vector(values) for name, values in (cell.get("units") or {}).items()},
        histogram={
            "edges": _vector(histogram.get("edges")),
            "mass": _vector(histogram.get("mass")),
            "zero": number(histogram.get("zero")),
        },
        history={name: _vector(values) for name, values in (cell.get("history") or {}).items()},
        diverged=bool(cell.get("diverged")),
        seconds=number(cell.get("seconds")),
        check=check,
    )
