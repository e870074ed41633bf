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
from .._html import html_table
from .._json import write_json
from .._scope import own_scope
from ..config import FitConfig, SweepConfig
from ..data import PatchSet, load_config
from ..frontier import Frontier
from ..progress import Report, show_progress
from ..training import warn_of_scale
from ..training.ranks import active_ranks
from .executors import Executor
from .executors.choice import default_executor
from .frontiers import Paths, plan_frontiers
from .integrity import sealed
from .locks import Presence
from .plan import Cell, StackPlan, cells_of, plan_stacks
from .shards import Shard
from .stimuli import Stimuli
from .store import RunFolder, RunFrontier
from .train import evenly_spaced
from .upkeep import remove_leftovers, set_damage_aside
from .work import Failure, Work

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

    def _repr_html_(self) -> str:
        """For notebooks: what was done, and the fits of the folder."""
        done = f"{self.n_trained} of {self.n_cells} fits trained now, {self.seconds:.0f} s"
        return html_table(done, [], []) + RunFolder(self.path)._repr_html_()


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

    def check(self, out: str | Path, shard: Shard | None = None) -> None:
        """Check that `out` can hold this sweep and that its data can be loaded, without writing anything.

        Raises
        ------
        ValueError, FileNotFoundError
            Where `out` holds another sweep (the message shows the difference) or other files, or where the data cannot
            be loaded or are not those of the results in `out`.
        """
        folder = RunFolder(out)
        folder.check(self.config, shard)
        if self._unfinished(folder, self._cells_in(folder, shard)) or self._untraced(folder, shard):
            stored = folder.digest
            if stored not in (None, self.data.digest) and folder.has_results:
                raise ValueError(self._other_stimuli(out))

    def _other_stimuli(self, out: str | Path) -> str:
        return (
            f"{out} was begun with other stimuli: the files of {self.config.data.source!r} have changed since, "
            "or other versions of packages prepare them differently (config.json lists those of the run). Put "
            "the former files or versions back, run the sweep into another folder, or delete this one"
        )

    def plans(self) -> list[StackPlan]:
        """All stacks, the largest first, so that workers end at about the same time."""
        plans = plan_stacks(self.cells, len(self.data.train), self.data.shape)
        return sorted(plans, key=lambda plan: -plan.work)

    def _cells_in(self, folder: RunFolder, shard: Shard | None) -> list[Cell]:
        """The cells of the sweep or of a shard: every n-th of its stacks, so that shards take about equally long."""
        if shard is None:
            return self.cells
        if folder.config_path.exists():
            own = {entry["id"] for entry in folder.read_config()["cells"]}
        else:
            number, count = shard
            own = {cell.id for plan in self.plans()[number - 1 :: count] for cell in plan.cells}
            if not own:
                raise ValueError(f"shard {number} of {count} is empty: the sweep has {len(self.plans())} stacks")
        return [cell for cell in self.cells if cell.id in own]

    def _unfinished(self, folder: RunFolder, cells: list[Cell]) -> list[Cell]:
        return [cell for cell in cells if not folder.is_done(cell)]

    def _untraced(self, folder: RunFolder, shard: Shard | None = None) -> list[Paths]:
        """Paths along the spike price that the folder does not have yet."""
        if self.config.frontier is None or shard:  # a path may start from fits of several shards
            return []
        sizes = folder.sizes  # a complete run needs no stimuli
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
        shard: Shard | None = None,
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
        shard
            (i, n): train the i-th of n parts, in a folder of its own; :func:`spikevae.sweep.merge` joins them.
        progress
            True shows a bar on standard error; a function is called with (done, total, text).

        Raises
        ------
        ValueError, FileNotFoundError
            As :meth:`check`, before anything is changed.
        RuntimeError
            Where cells could not be trained or evaluated, after all others are stored.
        spikevae.training.Interrupted
            On Ctrl-C; the same call continues.

        Notes
        -----
        Several processes may run one sweep in one folder at the same time: they share the stacks.
        """
        if n_jobs is not None and n_jobs < 1:
            raise ValueError(f"n_jobs is {n_jobs}; give 1 or more, or None for one per CPU")
        if active_ranks() is not None and (executor is not None or n_jobs not in (None, 1)):
            raise ValueError(
                "the processes that torchrun started train the sweep: drop the executor and the number of jobs, or "
                "start one process without torchrun"
            )
        device = resolve_device(device)
        began = time.monotonic()
        folder = RunFolder(out)
        with show_progress(self.config.name, enabled=progress is True) as shown:
            report = progress if callable(progress) else shown
            report(0, 1, "loading data")
            self.check(out, shard)
            cells = self._cells_in(folder, shard)
            folder.begin(self.config, cells, shard)
            with Presence(folder.path) as presence:
                if not presence.others():
                    remove_leftovers(folder, cells)
                digests = set_damage_aside(folder, cells)
                unfinished = self._unfinished(folder, cells)
                missing = bool(unfinished or self._untraced(folder, shard))
                if missing and digests - {self.data.digest}:
                    raise ValueError(self._other_stimuli(out))
                if missing or not folder.has_data_record:
                    self._keep_data_record(folder, needed=missing)
                trained, failures = 0, []
                if missing:
                    work = self._work(folder, {cell.id for cell in cells}, device, presence, report)
                    work.total += sum(path.work for path in self._untraced(folder, shard))
                    self._train(work, executor, n_jobs)
                    trained, failures = work.trained, work.failures
                    if not self._unfinished(folder, cells):
                        self._trace(work, folder, shard, executor, n_jobs)
                if not presence.others():
                    remove_leftovers(folder, cells)
        seconds = time.monotonic() - began
        self._conclude(folder, cells, unfinished, failures)
        folder.log("done", trained=trained, seconds=seconds)
        return SweepResult(folder.path, len(cells), trained, seconds)

    def _conclude(self, folder: RunFolder, cells: list[Cell], trained: list[Cell], failures: list[Failure]) -> None:
        """Write the table, and raise an error unless every cell is there, and the model of each that was `trained`."""
        if len(self._unfinished(folder, cells)) < len(cells):
            folder.write_table()
        missing = self._unfinished(folder, cells)  # files may be removed while the table is written, too
        failed = {cell.id for failure in failures for cell in failure.cells} & {cell.id for cell in missing}
        if failed:
            raise RuntimeError(
                f"{len(failed)} of {len(cells)} cells failed, the others are stored: {failures[0].error} (tracebacks "
                f"are in {folder.path / 'log.jsonl'}; the same command trains them again)"
            )
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(cells)} cells have no file in {folder.path / 'cells'}, though they were "
                "trained: the files were removed meanwhile; the same command trains them again"
            )
        without = {cell.id for cell in cells if not folder.model_path(cell.id).is_file()}
        text = f"{len(without)} of {len(cells)} cells have no file in {folder.path / 'models'}"
        remedy = f"`spikevae repair {folder.path}` trains them again"
        if without & {cell.id for cell in trained}:
            raise RuntimeError(f"{text}, though they were stored: the files were removed meanwhile; {remedy}")
        if without:
            warnings.warn(f"{text}; {remedy}", stacklevel=3)

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

    def _work(self, folder: RunFolder, own: set[str], device: str, presence: Presence, report: Report) -> Work:
        """What is left to train of the cells `own`."""
        data = self.data
        configs = [cell.config for cell in self.cells]
        FitConfig.warn_unused(configs, {name for block in self.config.blocks for name in (*block.fit, *block.grid)})
        for config in {(config.likelihood, config.noise_variance): config for config in configs}.values():
            warn_of_scale(config, torch.from_numpy(data.train))
        plans = [plan for plan in self.plans() if plan.cells[0].id in own]
        pending = []
        for plan in plans:
            if not all(folder.is_done(cell) for cell in plan.cells):
                pending.append(plan)
                continue
            for path in (folder.checkpoint_path(plan.id), folder.half_path(plan.id)):
                path.unlink(missing_ok=True)
        work = Work(pending, Stimuli.of(data, self.config.data), folder, folder.path, device, report, folder.log)
        work.total = sum(plan.work for plan in plans)
        work.done = work.total - sum(plan.work for plan in pending)
        work.claim, work.release = presence.claim, presence.release
        report(work.done, work.total, "starting")
        return work

    def _train(self, work: Work, executor: Executor | None, n_jobs: int | None) -> None:
        """Train what is pending, here or where `executor` does."""
        sizes = self.data.shape, len(self.data.train)
        chosen = executor or default_executor(work.device, n_jobs, work.pending, *sizes)
        work.log("start", stacks=len(work.pending), device=work.device, executor=type(chosen).__name__)
        while work.wait():
            chosen.run(work)

    def _trace(
        self, work: Work, folder: RunFolder, shard: Shard | None, executor: Executor | None, n_jobs: int | None
    ) -> None:
        """Trace the paths that are missing, where the fits were trained, from the finished fits."""
        if self.config.frontier is None:
            return
        plans = [paths.plan(self.config.frontier, folder) for paths in self._untraced(folder, shard)]
        for plan in plans:
            if not plan.cells:  # all fits diverged
                write_json(folder.frontier_path(plan.id), sealed(RunFrontier((), Frontier("", ())).to_dict()))
        work.pending = [plan for plan in plans if plan.cells]
        if work.pending:
            self._train(work, executor, n_jobs)
        if work.failures:
            raise RuntimeError(
                f"paths along the spike price failed: {work.failures[0].error} (tracebacks are in "
                f"{folder.path / 'log.jsonl'}; the same command traces them again)"
            )
