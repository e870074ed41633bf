"""The run folder: one JSON file per cell, written atomically, and a Parquet table that is rebuilt from these files."""

import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import atomic_write
from .._json import REMEDY, jsonable, read_json, write_json
from ..config import OPTIONS, SweepConfig
from ..data import PatchSet
from ..evaluation.metrics import Metrics
from ..frontier import Frontier
from ..models._model import Model
from ..models.files import load_model, save_model
from .convergence import Convergence, flag_groups
from .file_checks import CELL_REMEDY, CONFIG_REMEDY, FORMAT, check_cell, check_config, differences
from .plan import Cell, cells_of

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

TEXT = ("id", "block", "convergence", "noise_variance", "hidden", "upper")
"""Columns of the table that are text: null where there is no value, lists as they are printed."""
UNITS = {field.name: {"unit": field.metadata["unit"]} for field in fields(Metrics)}
RESULTS = {"cells": ".json", "checkpoints": ".safetensors"}
"""Folders of results, and how the names of their files end."""
PACKAGES = ("spikevae", "torch", "numpy", "scipy", "scikit-learn", "scikit-image")


@dataclass(frozen=True)
class RunFrontier:
    """Paths along the spike price that start from fits of a run."""

    cells: tuple[str, ...]
    """Ids of the fits without a price, one for each beta."""
    frontier: Frontier

    def to_dict(self) -> dict[str, Any]:
        """The content of a file."""
        return {"cells": list(self.cells), **self.frontier.to_dict()}


class RunFolder:
    """One sweep on disk.

    Parameters
    ----------
    path
        The folder; :meth:`begin` makes it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    def cell_path(self, cell_id: str) -> Path:
        return self.path / "cells" / f"{cell_id}.json"

    def model_path(self, cell_id: str) -> Path:
        return self.path / "models" / f"{cell_id}.safetensors"

    def read_model(self, cell_id: str) -> Any:
        """The trained model of a cell, or None where it was not kept.

        Raises
        ------
        ValueError
            Where the file is damaged; with its name and the remedy.
        """
        path = self.model_path(cell_id)
        if not path.is_file():
            return None
        try:
            return load_model(path)[0]
        except ValueError as error:
            raise ValueError(
                f"{error}; delete it to leave out its pictures; delete {self.cell_path(cell_id)} too and give the "
                "sweep's command again: the cell is trained again"
            ) from None

    def checkpoint_path(self, stack_id: str) -> Path:
        return self.path / "checkpoints" / f"{stack_id}.safetensors"

    def frontier_path(self, name: str) -> Path:
        return self.path / "frontiers" / f"{name}.json"

    def half_path(self, stack_id: str) -> Path:
        """Objectives at half the budget, kept until the stack is done."""
        return self.path / "checkpoints" / f"{stack_id}.half.json"

    def check(self, sweep: SweepConfig) -> None:
        """Check that the folder can hold this sweep, without writing anything.

        Raises
        ------
        ValueError
            Where the folder holds another sweep (the message shows the difference) or other files, or is a file.
        """
        given = sweep.model_dump(mode="json")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, not a folder; choose another name for the run")
        if self.config_path.exists():
            stored = {"frontier": None, **self.read_config()["sweep"]}  # runs of before paths have no such entry
            if stored != given:
                lines = "\n".join(differences(stored, given))
                raise ValueError(
                    f"{self.path} holds another sweep; nothing was changed. Differences (stored -> given):\n{lines}\n"
                    "Choose another folder with --out, or delete this one."
                )
            return
        if self.path.exists() and any(path.suffix != ".tmp" for path in self.path.iterdir()):
            raise ValueError(f"{self.path} is not empty and holds no sweep (no config.json); choose another folder")

    def begin(self, sweep: SweepConfig) -> None:
        """Make the folder, or :meth:`check` that it holds this sweep."""
        self.check(sweep)
        if self.config_path.exists():
            return
        given = sweep.model_dump(mode="json")
        versions = {name: version(name) for name in PACKAGES}
        versions["python"] = platform.python_version()
        cells = [{"id": c.id, "block": c.block} for c in cells_of(sweep)]
        write_json(self.config_path, {"format": FORMAT, "sweep": given, "cells": cells, "versions": versions})

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration of this run."""
        if not self.config_path.is_file():
            raise FileNotFoundError(f"{self.path} is not a run folder: it has no config.json")
        config = read_json(self.config_path, CONFIG_REMEDY)
        check_config(config, self.config_path)
        return config

    def sweep(self) -> SweepConfig:
        """The sweep that this folder holds."""
        return SweepConfig.from_mapping(self.read_config()["sweep"], where=str(self.config_path))

    @property
    def has_data_record(self) -> bool:
        """Whether the folder has the description of its stimuli and a few of them for the report."""
        return (self.path / "data.json").is_file() and (self.path / "examples.npy").is_file()

    @property
    def has_results(self) -> bool:
        """Whether the folder has finished cells or checkpoints."""
        return any(any((self.path / name).glob(f"*{suffix}")) for name, suffix in RESULTS.items())

    def read_data_record(self) -> dict[str, Any]:
        """Sizes, digest, description and preparation of the stimuli; empty where there is no record."""
        path = self.path / "data.json"
        record = read_json(path) if path.is_file() else {}
        return record if isinstance(record, dict) else {}

    def keep_data_record(self, data: PatchSet, examples: np.ndarray) -> None:
        """Write what :meth:`read_data_record` reads, and the examples."""
        with atomic_write(self.path / "examples.npy") as scratch, open(scratch, "wb") as handle:
            np.save(handle, examples)
        sizes = {"train": len(data.train), "test": len(data.test), "shape": list(data.shape), "name": data.name}
        facts = {"digest": data.digest, "info": data.info, "variance": data.variance, "description": data.describe()}
        write_json(self.path / "data.json", sizes | facts)

    def is_done(self, cell: Cell) -> bool:
        """Whether the result of this cell is stored."""
        return self.cell_path(cell.id).is_file()

    def keep_cell(self, cell: Cell, result: Mapping[str, Any], model: Model, extra: Mapping[str, Any]) -> None:
        """Store the result of a cell and its model, whose file also holds the facts `extra`."""
        save_model(model, self.model_path(cell.id), dict(extra))
        head = {"id": cell.id, "block": cell.block, "config": cell.config.model_dump(mode="json")}
        write_json(self.cell_path(cell.id), {**head, **result})

    def read_cells(self) -> list[dict[str, Any]]:
        """Results of the finished cells in the order of the sweep."""
        cells = []
        for entry in self.read_config()["cells"]:
            path = self.cell_path(str(entry["id"]))
            if path.is_file():
                cell = read_json(path, CELL_REMEDY)
                check_cell(cell, str(entry["id"]), path)
                cells.append(cell)
        return cells

    def frontiers(self) -> list[RunFrontier]:
        """The paths along the spike price that the run has traced.

        Raises
        ------
        ValueError
            Where a file is damaged; with its name and the remedy.
        """
        found = []
        for path in sorted((self.path / "frontiers").glob("*.json")):
            values = read_json(path)
            frontier = Frontier.from_dict(values, path, REMEDY)
            cells = values.get("cells")
            if not isinstance(cells, list) or len(cells) != len(frontier.betas) or not all(map(str, cells)):
                raise ValueError(f"{path} does not name one fit for each beta; {REMEDY}")
            found.append(RunFrontier(tuple(map(str, cells)), frontier))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per finished cell: configuration, metrics, objective and convergence.

        There are no wall-clock times, so that the table of an interrupted and continued run equals that of another one.
        """
        rows = []
        for cell in self.read_cells():
            config = {k: v for k, v in cell["config"].items() if k in OPTIONS}
            budget = cell.get("budget") or {}
            rows.append(
                {
                    "id": cell["id"],
                    "block": cell["block"],
                    **{k: str(v) if k in TEXT and v is not None else v for k, v in config.items()},
                    **cell["metrics"],
                    "objective": cell["objective"],
                    "fit_objective": cell["fit_objective"],
                    "fit_objective_half": cell["fit_objective_half"],
                    "diverged": cell["diverged"],
                    "steps_done": cell["steps_done"],
                    **{name: budget.get(name) for name in ("spikes_allowed", "shadow_price", "shadow_price_per_joule")},
                    "budget_met": budget.get("met"),
                }
            )
        for row, flag in zip(rows, flags(rows), strict=True):
            row["convergence"] = flag.flag
            row["best_of_group"] = flag.is_best
            row["budget_change"] = flag.budget_change
            row["start_gap"] = flag.start_gap
        return rows

    @property
    def table(self) -> "pa.Table":
        """One row per finished fit, as a pyarrow table: options, metrics, objective and convergence.

        It is rebuilt from the files of the cells. Columns of metrics have their unit as metadata; options that a model
        does not have are null.

        Raises
        ------
        ValueError
            Where no fit is finished yet.
        """
        import pyarrow as pa

        rows = self.rows()
        if not rows:
            raise ValueError(f"{self.path} has no finished cell yet")
        columns, described = [], []
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            if name not in TEXT and not any(isinstance(value, str | bool) for value in values):
                values = [math.nan if value is None else value for value in values]
            columns.append(pa.array(values, pa.string() if name in TEXT else None))
            described.append(pa.field(name, columns[-1].type, metadata=UNITS.get(name)))
        return pa.table(columns, schema=pa.schema(described))

    def to_pandas(self) -> "pandas.DataFrame":
        """:attr:`table` as a pandas data frame.

        Raises
        ------
        ImportError
            Without pandas; the message names the extra that installs it.
        """
        try:
            import pandas  # noqa: F401 - pyarrow would import it too, with a message that names no extra
        except ImportError:
            raise ImportError("RunFolder.to_pandas needs pandas: pip install 'spikevae[pandas]'") from None
        return self.table.to_pandas()

    def write_table(self) -> Path:
        """Write :attr:`table` to cells.parquet."""
        import pyarrow.parquet as pq

        path, table = self.path / "cells.parquet", self.table
        with atomic_write(path) as scratch:
            pq.write_table(table, scratch)
        return path

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to log.jsonl."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(jsonable({"time": time.time(), "event": event, **facts})) + "\n")


def flags(rows: Sequence[Mapping[str, Any]]) -> list[Convergence]:
    """Convergence of the cells of these rows, by the objective that the fits minimise."""
    compared = [{**row, "objective": row["fit_objective"], "objective_half": row["fit_objective_half"]} for row in rows]
    return flag_groups(compared, settings=OPTIONS)
