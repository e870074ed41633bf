"""Run a sweep in a run folder: train the stacks that are not done yet, rebuild the table."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from .._device import resolve_device
from .._json import write_json
from .._scope import own_scope
from ..config import FitConfig, SweepConfig
from ..data import PatchSet, load_config
from ..frontier import Frontier
from ..progress import Report, show_progress
from ..training import warn_of_scale
from ..training.checks import check_memory
from .executors import Executor
from .executors.choice import default_executor
from .frontiers import Paths, plan_frontiers
from .plan import Cell, cells_of, plan_stacks
from .stimuli import Stimuli
from .store import RunFolder, RunFrontier
from .train import evenly_spaced
from .work import Work

N_EXAMPLES = 16


@dataclass(frozen=True)
class SweepResult:
    """What a call of :meth:`Sweep.run` did."""

    path: Path
    """The run folder."""
    n_cells: int
    """Cells of the sweep, all finished now."""
    n_trained: int
    """Cells trained by this call; 0 if all were finished before."""
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
            raise TypeError(f"data is {type(data).__name__}; give fields of DataConfig, e.g. {{'source': 'bundled'}}")
        values = {"name": name, "data": dict(data or {}), "fit": dict(fit or {}), "grid": dict(grid)}
        return cls(SweepConfig.from_mapping(values))

    @cached_property
    def data(self) -> PatchSet:
        """The stimuli, loaded at first use."""
        return load_config(self.config.data)

    def check(self, out: str | Path) -> None:
        """Check that `out` can hold this sweep and that its data can be loaded, without writing anything.

        Raises
        ------
        ValueError, FileNotFoundError
            Where `out` holds another sweep (the message shows the difference) or other files, or where the data cannot
            be loaded or are not those of the results in `out`.
        """
        folder = RunFolder(out)
        folder.check(self.config)
        if self._unfinished(folder) or self._untraced(folder):
            stored = folder.read_data_record().get("digest")
            if stored not in (None, self.data.digest) and folder.has_results:
                raise ValueError(
                    f"{out} was begun with other stimuli: the files of {self.config.data.source!r} have changed since, "
                    "or other versions of packages prepare them differently (config.json lists those of the run). Put "
                    "the former files or versions back, run the sweep into another folder, or delete this one"
                )

    def _unfinished(self, folder: RunFolder) -> list[Cell]:
        return [cell for cell in self.cells if not folder.is_done(cell)]

    def _untraced(self, folder: RunFolder) -> list[Paths]:
        """Paths along the spike price that the folder does not have yet."""
        if self.config.frontier is None:
            return []
        sizes = folder.read_data_record()  # a complete run needs no stimuli
        n_train, shape = sizes.get("train"), sizes.get("shape")
        if not (isinstance(n_train, int) and isinstance(shape, list)):
            n_train, shape = len(self.data.train), list(self.data.shape)
        plans = plan_frontiers(self.config, self.cells, n_train, tuple(shape))
        return [plan for plan in plans if not folder.frontier_path(plan.id).is_file()]

    @own_scope()
    def run(
        self,
        out: str | Path,
        *,
        device: str = "cpu",
        n_jobs: int | None = None,
        executor: Executor | None = None,
        progress: bool | Report = False,
    ) -> SweepResult:
        """Train every cell whose result the folder does not have yet.

        Parameters
        ----------
        out
            The run folder; made if absent, continued if it holds this sweep.
        device
            Torch device of the stacks; "auto" takes a GPU if there is one.
        n_jobs
            Worker processes on the CPU, of one thread each; None: one for each CPU that this process may use. Results
            do not depend on their number. With 1, the fits train in this process with torch's own threads: results
            may then differ by rounding.
        executor
            Where to train instead, and then without `n_jobs`; see :class:`spikevae.sweep.executors.Executor`.
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
            raise ValueError(f"n_jobs is {n_jobs}; give 1 or more, or None for one per core")
        device = resolve_device(device)
        began = time.monotonic()
        folder = RunFolder(out)
        with show_progress(self.config.name, enabled=progress is True) as shown:
            report = progress if callable(progress) else shown
            report(0, 1, "loading data")
            self.check(out)
            folder.begin(self.config)
            unfinished = self._unfinished(folder)
            missing = bool(unfinished or self._untraced(folder))
            if missing or not folder.has_data_record:
                self._keep_data_record(folder, needed=missing)
            if missing:
                local = default_executor(device, n_jobs)
                work = self._train(folder, device, executor or local, report)
                self._trace(work, folder, local)
        folder.write_table()
        seconds = time.monotonic() - began
        folder.log("done", trained=len(unfinished), seconds=seconds)
        return SweepResult(folder.path, len(self.cells), len(unfinished), seconds)

    def _keep_data_record(self, folder: RunFolder, *, needed: bool) -> None:
        """Write the description of the stimuli and the examples that the report shows, where they are missing."""
        try:
            data = self.data
        except (ValueError, OSError) as error:
            if needed:
                raise
            warnings.warn(f"the report shows no stimuli, because they cannot be loaded: {error}", stacklevel=3)
            return
        if needed or folder.read_data_record().get("digest") in (None, data.digest):
            folder.keep_data_record(data, evenly_spaced(data.test, N_EXAMPLES).numpy())

    def _train(self, folder: RunFolder, device: str, executor: Executor, report: Report) -> Work:
        data = self.data
        configs = [cell.config for cell in self.cells]
        FitConfig.warn_unused(configs, {name for block in self.config.blocks for name in (*block.fit, *block.grid)})
        for config in {(config.likelihood, config.noise_variance): config for config in configs}.values():
            warn_of_scale(config, torch.from_numpy(data.train))
        plans = plan_stacks(self.cells, len(data.train), data.shape)
        for plan in plans if device == "cpu" else ():
            check_memory(plan.cells[0].config, data.shape, len(plan.cells), n_train=len(data.train))
        pending = [plan for plan in plans if not all(folder.is_done(cell) for cell in plan.cells)]
        pending.sort(key=lambda plan: -plan.work)  # the largest first, so that the workers end at about the same time
        left = sum(path.work for path in self._untraced(folder))
        total = sum(plan.work for plan in plans) + left
        work = Work(pending, Stimuli.of(data, self.config.data), folder, folder.path, device, report, folder.log)
        work.total, work.done = total, total - left - sum(plan.work for plan in pending)
        folder.log("start", cells=len(self.cells), stacks=len(pending), device=device, executor=type(executor).__name__)
        report(work.done, total, "starting")
        executor.run(work)
        failed = {cell.id for failure in work.failures for cell in failure.cells}
        if failed:
            first = work.failures[0].error
            raise RuntimeError(
                f"{len(failed)} of {len(self.cells)} cells failed, the others are stored: {first} (tracebacks are in "
                f"{folder.path / 'log.jsonl'}; the same command trains them again)"
            )
        return work

    def _trace(self, work: Work, folder: RunFolder, executor: Executor) -> None:
        """Trace the paths that are missing, on this machine, from the finished fits."""
        if self.config.frontier is None:
            return
        plans = [paths.plan(self.config.frontier, folder) for paths in self._untraced(folder)]
        for plan in plans:
            if not plan.cells:  # all fits diverged
                write_json(folder.frontier_path(plan.id), RunFrontier((), Frontier("", ())).to_dict())
        work.pending = [plan for plan in plans if plan.cells]
        if work.pending:
            executor.run(work)
        if work.failures:
            raise RuntimeError(
                f"paths along the spike price failed: {work.failures[0].error} (tracebacks are in "
                f"{folder.path / 'log.jsonl'}; the same command traces them again)"
            )
