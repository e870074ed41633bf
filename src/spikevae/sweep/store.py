"""The run folder: one JSON file per cell, written atomically, and a Parquet table that is rebuilt from these files."""

import errno
import io
import os
import secrets
import stat
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import atomic_write, create, user_path, write_bytes
from .._html import html_table
from .._json import REMEDY, json_text, read_json, write_json
from ..config import SweepConfig
from ..data import PatchSet
from ..frontier import Frontier
from ..models._model import Model
from ..models.files import load_model, save_model, stored_checksum
from .file_checks import (
    CELL_REMEDY,
    CONFIG_REMEDY,
    FORMAT,
    check_cell,
    check_config,
    check_links,
    differences,
    is_left_over,
)
from .integrity import check_seal, file_checksum, sealed
from .plan import Cell, cells_of
from .provenance import machine, versions
from .shards import Shard, shard_text
from .table import html_of, rows_of, table_of

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

RESULTS = {"cells": ".json", "checkpoints": ".safetensors"}
"""Folders of results, and how the names of their files end."""


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
        self.path = user_path(path)

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
            found = self.read_cell(cell_id).get("model_checksum") if self.cell_path(cell_id).is_file() else None
            if found not in (None, stored_checksum(path)):
                raise ValueError(f"{path} is damaged: its checksum does not match that of the cell")
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

    def check(self, sweep: SweepConfig, shard: Shard | None = None) -> None:
        """Check that the folder can hold this sweep, or this shard of it, without writing anything.

        It can where it is new, holds the same sweep, or holds one whose cells are all in this one.

        Raises
        ------
        ValueError
            Where the folder holds another sweep (the message shows the difference) or other files, has links to other
            places, or is a file.
        """
        given = sweep.model_dump(mode="json")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, not a folder; choose another name for the run")
        check_links(self.path)
        if self.config_path.exists():
            config = self.read_config()
            part = config.get("shard")
            stored = {"frontier": None, **config["sweep"]}  # runs of before paths have no such entry
            if part != (list(shard) if shard else None):
                raise ValueError(
                    f"{self.path} holds {shard_text(part)} of a sweep, and {shard_text(shard)} was asked for; choose "
                    "another folder with --out"
                )
            if stored != given and not self._grew(stored, sweep):
                lines = "\n".join(differences(stored, given))
                raise ValueError(
                    f"{self.path} holds another sweep; nothing was changed. Differences (stored -> given):\n{lines}\n"
                    "Choose another folder with --out, or delete this one."
                )
            ids = [entry["id"] for entry in config["cells"]]
            if stored == given and not shard and ids != [cell.id for cell in cells_of(sweep)]:
                raise ValueError(f"{self.config_path} names other cells than its sweep has; {CONFIG_REMEDY}")
            return
        own = {cell.id for cell in cells_of(sweep)}
        if self.path.exists() and any(not is_left_over(path, own) for path in self.path.iterdir()):
            raise ValueError(f"{self.path} is not empty and holds no sweep (no config.json); choose another folder")

    def _grew(self, stored: Mapping[str, Any], sweep: SweepConfig) -> bool:
        """Whether every cell of the stored sweep is in this one, on the same data."""
        try:
            old = {cell.id for cell in cells_of(SweepConfig.from_mapping(stored))}
        except ValueError:
            return False
        if stored.get("frontier") is not None or sweep.frontier is not None:  # a path would miss the new betas
            return False
        return stored["data"] == sweep.data.model_dump(mode="json") and old <= {cell.id for cell in cells_of(sweep)}

    def begin(self, sweep: SweepConfig, cells: Sequence[Cell] | None = None, shard: Shard | None = None) -> None:
        """Make the folder, or :meth:`check` that it holds this sweep.

        Parameters
        ----------
        cells
            Those of the shard; by default all.
        shard
            Number of the shard, from 1, and number of shards.
        """
        is_there = self.config_path.exists()  # one that appears after the check is of another process
        self.check(sweep, shard)
        given = sweep.model_dump(mode="json")
        names = [{"id": c.id, "block": c.block} for c in (cells_of(sweep) if cells is None else cells)]
        content = {"format": FORMAT, "sweep": given, "cells": names, "versions": versions(), "machine": machine()}
        text = json_text(sealed(content | ({"shard": list(shard)} if shard else {})))
        if is_there:
            if self.read_config()["sweep"] != given:  # it grew
                write_bytes(self.config_path, text.encode())
        elif not create(self.config_path, text.encode()):  # another process was faster
            self.begin(sweep, cells, shard)

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
        """Sizes, digest, description and preparation of the stimuli; empty where there is no record.

        Raises
        ------
        ValueError
            Where the record or the examples are damaged, with the name of the file and the remedy.
        """
        path = self.path / "data.json"
        record = read_json(path) if path.is_file() else {}
        if not isinstance(record, dict):
            raise ValueError(f"{path} holds no table; {REMEDY}")
        _check_seal(record, path, REMEDY)
        examples = self.path / "examples.npy"
        if "examples" in record and examples.is_file() and file_checksum(examples) != record["examples"]:
            raise ValueError(f"{examples} is damaged: its checksum does not match that in data.json; {REMEDY}")
        return record

    def keep_data_record(self, data: PatchSet, examples: np.ndarray) -> None:
        """Write what :meth:`read_data_record` reads, and the examples."""
        path = self.path / "examples.npy"
        with atomic_write(path) as scratch, open(scratch, "wb") as handle:
            content = io.BytesIO()  # numpy's own writing to a full disk gives an error without its reason
            np.save(content, examples)
            handle.write(content.getbuffer())
        sizes = {"train": len(data.train), "test": len(data.test), "shape": list(data.shape), "name": data.name}
        facts = {"digest": data.digest, "info": data.info, "variance": data.variance, "description": data.describe()}
        write_json(self.path / "data.json", sealed(sizes | facts | {"examples": file_checksum(path)}))

    @property
    def sizes(self) -> dict[str, Any]:
        """The record of the data, empty where it is damaged."""
        try:
            return self.read_data_record()
        except ValueError:
            return {}

    @property
    def digest(self) -> str | None:
        """Digest of the stimuli of the results: of the record of the data, else of the first readable cell."""
        digest = self.sizes.get("digest")
        for path in [] if digest else sorted((self.path / "cells").glob("*.json")):
            try:
                digest = self.read_cell(path.stem).get("made_with", {}).get("data")
            except ValueError:
                continue
            break
        return digest if isinstance(digest, str) else None

    def is_done(self, cell: Cell) -> bool:
        """Whether the result of this cell is stored."""
        return self.cell_path(cell.id).is_file()

    def keep_cell(self, cell: Cell, result: Mapping[str, Any], model: Model, extra: Mapping[str, Any]) -> None:
        """Store the result of a cell and its model, whose file also holds the facts `extra`."""
        path = self.model_path(cell.id)
        save_model(model, path, dict(extra))
        made = {"versions": versions(), "machine": machine(), "data": self._own_digest}
        facts = {"made_with": made, "model_checksum": stored_checksum(path)}
        write_json(self.cell_path(cell.id), sealed({**cell.to_dict(), **result, **facts}))

    @cached_property
    def _own_digest(self) -> str | None:
        return self.digest

    def read_cell(self, cell_id: str) -> dict[str, Any]:
        """The result of a finished cell.

        Raises
        ------
        ValueError
            Where its file is damaged, with its name and the remedy.
        """
        path = self.cell_path(cell_id)
        cell = read_json(path, CELL_REMEDY)
        _check_seal(cell, path, CELL_REMEDY)
        check_cell(cell, cell_id, path)
        return cell

    def set_aside(self, path: Path, reason: str) -> None:
        """Move a damaged file to the folder `damaged`, warn, and log it; what it held is computed again."""
        kept = self.path / "damaged" / f"{path.parent.name}-{path.name}-{secrets.token_hex(4)}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, kept)
        self.log("damaged", file=str(path.relative_to(self.path)), kept=kept.name, reason=reason)
        warnings.warn(f"{path} is damaged and is made again; it is kept as {kept}: {reason}", stacklevel=2)

    def read_cells(self) -> list[dict[str, Any]]:
        """Results of the finished cells in the order of the sweep."""
        ids = [str(entry["id"]) for entry in self.read_config()["cells"]]
        return [self.read_cell(cell_id) for cell_id in ids if self.cell_path(cell_id).is_file()]

    def frontiers(self) -> list[RunFrontier]:
        """The paths along the spike price that the run has traced.

        Raises
        ------
        ValueError
            Where a file is damaged; with its name and the remedy.
        """
        return [self.read_frontier(path) for path in sorted((self.path / "frontiers").glob("*.json"))]

    def read_frontier(self, path: Path) -> RunFrontier:
        """One of the :meth:`frontiers`."""
        values = read_json(path)
        _check_seal(values, path, REMEDY)
        frontier = Frontier.from_dict(values, path, REMEDY)
        cells = values.get("cells")
        if not isinstance(cells, list) or len(cells) != len(frontier.betas) or not all(map(str, cells)):
            raise ValueError(f"{path} does not name one fit for each beta; {REMEDY}")
        return RunFrontier(tuple(map(str, cells)), frontier)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per finished cell: configuration, metrics, objective and convergence."""
        return rows_of(self.read_cells())

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
        rows = self.rows()
        if not rows:
            raise ValueError(f"{self.path} has no finished cell yet")
        return table_of(rows)

    def _repr_html_(self) -> str:
        try:
            return html_of(self.path, self.rows())
        except (ValueError, OSError) as error:
            return html_table(str(error), [], [])

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
        """Append a line to log.jsonl; where that cannot be, warn: a log is not worth a run."""
        line = json_text({"time": time.time(), "event": event, **facts}) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self.path / "log.jsonl", flags, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(errno.EINVAL, "it is no regular file")
                os.write(handle, line.encode())  # at once, since other processes write to it too
            finally:
                os.close(handle)
        except OSError as error:
            warnings.warn(
                f"{self.path / 'log.jsonl'} cannot be written: {error.strerror}; the run goes on", stacklevel=2
            )


def _check_seal(content: Any, path: Path, remedy: str) -> None:
    try:
        check_seal(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {remedy}") from None
