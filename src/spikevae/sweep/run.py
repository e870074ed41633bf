"""Run a sweep into a run folder: train the stacks that are not done yet, rebuild the table."""

import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from .._device import resolve_device
from ..config import FitConfig, SweepConfig
from ..data import PatchSet, load_config
from ..progress import Report, show_progress
from ..training import warn_of_scale
from ..training.checks import check_memory
from .plan import Cell, cells_of, plan_stacks
from .pool import run_stacks
from .store import RunFolder
from .train import Stimuli, evenly_spaced, train_stack

N_EXAMPLES = 16


@dataclass(frozen=True)
class SweepResult:
    """What a call of :meth:`Sweep.run` did."""

    path: Path
    """The run folder."""
    n_cells: int
    """Cells of the sweep, all finished now."""
    n_trained: int
    """Cells trained by this call; 0 when everything was there already."""
    seconds: float


class Sweep:
    """A grid of fits on one data set.

    Parameters
    ----------
    config
        What to run; see :class:`spikevae.config.SweepConfig`.

    Examples
    --------
    >>> sweep = Sweep.from_grid({"beta": [0.5, 2.0], "n_latents": [8]}, data={"source": "synthetic", "n": 400})
    >>> len(sweep.cells)
    2
    """

    def __init__(self, config: SweepConfig):
        self.config = config
        self.cells: list[Cell] = cells_of(config)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file with [data], [fit] and [grid] tables (or several [[blocks]])."""
        return cls(SweepConfig.from_toml(path))

    @classmethod
    def preset(cls, name: str) -> Self:
        """An embedded sweep: `demo`, `iterative`, `laws` or `paper`."""
        return cls(SweepConfig.preset(name))

    @classmethod
    def from_grid(
        cls,
        grid: Mapping[str, list[Any]],
        *,
        fit: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        name: str = "sweep",
    ) -> Self:
        """All combinations of the values in `grid`, on top of the values in `fit`."""
        if not isinstance(data, Mapping | None):
            raise TypeError(f"data is {type(data).__name__}; give fields of DataConfig, {{'source': 'bundled'}} say")
        values = {"name": name, "data": dict(data or {}), "fit": dict(fit or {}), "grid": dict(grid)}
        return cls(SweepConfig.from_mapping(values))

    @cached_property
    def data(self) -> PatchSet:
        """The stimuli, loaded when first asked for."""
        return load_config(self.config.data)

    def check(self, out: str | Path) -> None:
        """See that `out` can take this sweep and that the data it still needs are there; nothing is written.

        Raises
        ------
        ValueError, FileNotFoundError
            Where `out` holds another sweep (the difference is shown) or other files, where the data cannot be loaded,
            or are not those that the results in `out` come from.
        """
        folder = RunFolder(out)
        folder.check(self.config)
        if self._todo(folder):
            stored = folder.read_data_record().get("digest")
            if stored not in (None, self.data.digest) and folder.has_results:
                raise ValueError(
                    f"{out} was begun with other stimuli: what {self.config.data.source!r} holds has changed since, or "
                    "other versions of packages prepare it otherwise (config.json lists those of the run). Put the "
                    "former files or versions back, run the sweep into another folder, or delete this one"
                )

    def _todo(self, folder: RunFolder) -> list[Cell]:
        return [cell for cell in self.cells if not folder.is_done(cell)]

    def run(
        self,
        out: str | Path,
        *,
        device: str = "cpu",
        n_jobs: int | None = None,
        progress: bool | Report = False,
    ) -> SweepResult:
        """Train every cell that the folder does not hold yet.

        Parameters
        ----------
        out
            The run folder; made if absent, continued if it holds this very sweep.
        device
            Torch device of the stacks; "auto" takes a GPU if there is one.
        n_jobs
            Worker processes on the CPU; None: one a core. Results do not depend on it, save for rounding between one
            (this process, with torch's own threads) and several (a thread each).
        progress
            True shows a bar on standard error; a function is called with (done, total, text).

        Raises
        ------
        ValueError, FileNotFoundError
            As :meth:`check`, before anything is changed.
        spikevae.training.Interrupted
            On Ctrl-C; the same call continues.
        """
        if n_jobs is not None and n_jobs < 1:
            raise ValueError(f"n_jobs is {n_jobs}; give 1 or more, or None for one a core")
        device = resolve_device(device)
        began = time.monotonic()
        folder = RunFolder(out)
        with show_progress(self.config.name, enabled=progress is True) as shown:
            report = progress if callable(progress) else shown
            report(0, 1, "loading data")
            self.check(out)
            folder.begin(self.config)
            todo = self._todo(folder)
            if todo or not folder.has_data_record:
                self._keep_data_record(folder, needed=bool(todo))
            if todo:
                self._train(folder, device, n_jobs or os.cpu_count() or 1, report)
        folder.write_table()
        seconds = time.monotonic() - began
        folder.log("done", trained=len(todo), seconds=seconds)
        return SweepResult(folder.path, len(self.cells), len(todo), seconds)

    def _keep_data_record(self, folder: RunFolder, *, needed: bool) -> None:
        """Write what the report says of the stimuli and shows of them, where it is not there."""
        try:
            data = self.data
        except (ValueError, OSError) as error:
            if needed:
                raise
            warnings.warn(f"the report shows no stimuli, they cannot be loaded: {error}", stacklevel=3)
            return
        if needed or folder.read_data_record().get("digest") in (None, data.digest):
            folder.keep_data_record(data, evenly_spaced(data.test, N_EXAMPLES).numpy())

    def _train(self, folder: RunFolder, device: str, n_jobs: int, report: Report) -> None:
        data = self.data
        configs = [cell.config for cell in self.cells]
        FitConfig.warn_unused(configs, {name for block in self.config.blocks for name in (*block.fit, *block.grid)})
        for config in {(config.likelihood, config.noise_variance): config for config in configs}.values():
            warn_of_scale(config, torch.from_numpy(data.train))
        plans = plan_stacks(self.cells, len(data.train), data.shape)
        for plan in plans if device == "cpu" else ():
            check_memory(plan.cells[0].config, data.shape, len(plan.cells), n_train=len(data.train))
        pending = [plan for plan in plans if not all(folder.is_done(cell) for cell in plan.cells)]
        pending.sort(key=lambda plan: -plan.work)  # the longest first, so that the workers end together
        total = sum(plan.work for plan in plans)
        done = total - sum(plan.work for plan in pending)
        folder.log("start", cells=len(self.cells), stacks=len(pending), device=device, workers=n_jobs)

        def advance(work: float, text: str) -> None:
            nonlocal done
            done += work
            report(min(done, total), total, text)

        advance(0.0, "starting")
        stimuli = Stimuli.of(data)
        if device == "cpu" and n_jobs > 1 and len(pending) > 1:

            def hear(message: dict[str, Any]) -> None:
                advance(message.pop("work"), message.pop("text"))
                if "done" in message:
                    folder.log("stack", id=message.pop("done"), **message)

            with tempfile.TemporaryDirectory(prefix="spikevae-") as scratch:
                shared = stimuli.save(Path(scratch))
                run_stacks([p.id for p in pending], folder.path, shared, n_workers=n_jobs, on_message=hear)
        else:
            for plan in pending:
                folder.log("stack", id=plan.id, **train_stack(plan, stimuli, folder, device, advance))
