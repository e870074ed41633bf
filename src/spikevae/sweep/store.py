"""The run folder: one atomic JSON file a cell is the truth, one Parquet table is rebuilt from them."""

import json
import math
import platform
import re
import reprlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from .._files import written_whole
from .._json import jsonable, read_json, write_json
from ..config import OPTIONS, FitConfig, SweepConfig, readable
from ..data import PatchSet
from ..evaluation.metrics import Metrics
from ..models.files import load_model
from .convergence import Convergence, flag_groups
from .plan import Cell, cells_of

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

FORMAT = "spikevae run 1"
PACKAGES = ("spikevae", "torch", "numpy", "scipy", "scikit-learn", "scikit-image")


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
                f"{error}; delete it to do without its pictures, and {self.cell_path(cell_id)} too to have it trained "
                "again by the sweep's command"
            ) from None

    def checkpoint_path(self, stack_id: str) -> Path:
        return self.path / "checkpoints" / f"{stack_id}.safetensors"

    def half_path(self, stack_id: str) -> Path:
        """Results at half the budget, kept until the stack is done."""
        return self.path / "checkpoints" / f"{stack_id}.half.json"

    def check(self, sweep: SweepConfig) -> None:
        """See that this very sweep can be kept here; nothing is written.

        Raises
        ------
        ValueError
            Where the folder holds another sweep (the difference is shown) or other files, or is no folder.
        """
        given = sweep.model_dump(mode="json")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, not a folder; choose another name for the run")
        if self.config_path.exists():
            stored = self.read_config()["sweep"]
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
        """Make the folder, or :meth:`check` that it belongs to this very sweep."""
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
        remedy = "put back a copy of it, or run the sweep into another folder"
        config = read_json(self.config_path, remedy)
        try:
            _check_parts(config, {"format": str, "sweep": dict, "cells": list})
            _check_parts(config["sweep"], {"data": dict})
            ids = [entry.get("id") for entry in config["cells"] if isinstance(entry, dict)]
            if config["format"] != FORMAT or len(ids) != len(config["cells"]) or len(set(map(str, ids))) != len(ids):
                raise ValueError("its format or its list of cells is another")
            if not all(isinstance(name, str) and re.fullmatch("[0-9a-f]{12}", name) for name in ids):
                raise ValueError("an id of a cell is not of twelve hexadecimal digits")
        except ValueError as error:
            raise ValueError(f"{self.config_path} is not a {FORMAT!r} file: {error}; {remedy}") from None
        return config

    def sweep(self) -> SweepConfig:
        """The sweep that this folder holds."""
        return SweepConfig.from_mapping(self.read_config()["sweep"], where=str(self.config_path))

    @property
    def has_data_record(self) -> bool:
        """Whether the folder says what stimuli it was begun with and keeps a few of them for the report."""
        return (self.path / "data.json").is_file() and (self.path / "examples.npy").is_file()

    @property
    def has_results(self) -> bool:
        """Whether something was trained here."""
        return any(any((self.path / place).glob(f"*{suffix}")) for place, suffix in RESULTS.items())

    def read_data_record(self) -> dict[str, Any]:
        """Sizes, digest, description and preparation of the stimuli; empty where there is no record."""
        path = self.path / "data.json"
        record = read_json(path) if path.is_file() else {}
        return record if isinstance(record, dict) else {}

    def keep_data_record(self, data: PatchSet, examples: np.ndarray) -> None:
        """Write what :meth:`read_data_record` reads, and the examples."""
        with written_whole(self.path / "examples.npy") as scratch, open(scratch, "wb") as handle:
            np.save(handle, examples)
        sizes = {"train": len(data.train), "test": len(data.test), "shape": list(data.shape), "name": data.name}
        facts = {"digest": data.digest, "info": data.info, "description": data.describe()}
        write_json(self.path / "data.json", sizes | facts)

    def is_done(self, cell: Cell) -> bool:
        """Whether the result of this cell is stored."""
        return self.cell_path(cell.id).is_file()

    def write_cell(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Store the result of a cell."""
        head = {"id": cell.id, "block": cell.block, "config": cell.config.model_dump(mode="json")}
        write_json(self.cell_path(cell.id), {**head, **result})

    def read_cells(self) -> list[dict[str, Any]]:
        """Results of the finished cells in the order of the sweep."""
        cells = []
        for entry in self.read_config()["cells"]:
            path = self.cell_path(str(entry["id"]))
            if path.is_file():
                cell = read_json(path, AGAIN)
                _check_cell(cell, str(entry["id"]), path)
                cells.append(cell)
        return cells

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a finished cell: configuration, metrics, objective and convergence. No wall-clock times, so
        that the table of a run that was killed and continued equals that of one that was not."""
        rows = []
        for cell in self.read_cells():
            config = {k: v for k, v in cell["config"].items() if k in OPTIONS}
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

        Rebuilt from the files of the fits. Columns of metrics have their unit as metadata; options that a model does
        not have are null.

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
            Without pandas; with the extra that brings it.
        """
        try:
            import pandas  # noqa: F401 - pyarrow imports it by itself, and says less where it is missing
        except ImportError:
            raise ImportError("RunFolder.to_pandas needs pandas: pip install 'spikevae[pandas]'") from None
        return self.table.to_pandas()

    def write_table(self) -> Path:
        """Write :attr:`table` to cells.parquet."""
        import pyarrow.parquet as pq

        path, table = self.path / "cells.parquet", self.table
        with written_whole(path) as scratch:
            pq.write_table(table, scratch)
        return path

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to log.jsonl."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(jsonable({"time": time.time(), "event": event, **facts})) + "\n")


def flags(rows: Sequence[Mapping[str, Any]]) -> list[Convergence]:
    """Convergence of the cells of these rows, judged by the objective that the fits minimise."""
    judged = [{**row, "objective": row["fit_objective"], "objective_half": row["fit_objective_half"]} for row in rows]
    return flag_groups(judged, settings=OPTIONS)


AGAIN = "delete it and give the sweep's command again: the cell is trained again"
NUMBER = int | float | None
CELL_PARTS: dict[str, Any] = {
    "id": str, "block": str, "config": dict, "metrics": dict, "objective": NUMBER, "fit_objective": NUMBER,
    "fit_objective_half": NUMBER, "diverged": bool, "steps_done": int,
}  # fmt: skip
NEEDED = ("latent", "n_latents", "beta", "seed", "start")
RESULTS = {"cells": ".json", "checkpoints": ".safetensors"}
OPTIONAL_PARTS = ("units", "code_histogram", "history")


def _check_cell(cell: Any, cell_id: str, path: Path) -> None:
    """Refuse a cell file that lacks what the table and every figure need, or holds it in another type."""
    try:
        _check_parts(cell, CELL_PARTS)
        if cell["id"] != cell_id:
            raise ValueError(f"its id is {cell['id']!r}")
        given = cell["config"]
        full = FitConfig.model_validate(given).model_dump(
            mode="json"
        )  # reads "1" as a number, which the table does not
        kinds: dict[type, Any] = {str: str, bool: bool, int: NUMBER, float: NUMBER}
        _check_parts(given, {name: kinds.get(type(full[name]), object) for name in (*NEEDED, *given)})
        _check_parts(cell, {name: dict for name in OPTIONAL_PARTS if cell.get(name) is not None})
        _check_parts(cell, {name: NUMBER for name in ("seconds",) if name in cell})
        _check_parts(cell["metrics"], dict.fromkeys(cell["metrics"], NUMBER))
    except ValidationError as error:
        raise ValueError(f"{readable(error, str(path))}; {AGAIN}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no sound cell file: {error}; {AGAIN}") from None


def _check_parts(given: Any, parts: Mapping[str, Any]) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{type(given).__name__} in place of a table")
    for name, kind in parts.items():
        if name not in given:
            raise ValueError(f"{name!r} is missing")
        value = given[name]
        usual = not isinstance(value, int) or abs(value) <= 2**53
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not usual:
            raise ValueError(f"{name!r} is {reprlib.repr(value)}, of another type or size than it should be")


TEXT = ("id", "block", "convergence", "noise_variance", "hidden", "upper")
"""Columns of the table that are text: null where there is none, lists as they are printed."""
UNITS = {field.name: {"unit": field.metadata["unit"]} for field in fields(Metrics)}


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, a line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(k for k in new if k not in old)]:
            lines += differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return lines
    if (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and any(isinstance(v, dict) for v in old)
    ):
        return [line for i, (a, b) in enumerate(zip(old, new)) for line in differences(a, b, f"{where}[{i}]")]
    return [] if old == new else [f"  {where}: {old!r} -> {new!r}"]
