"""Check every file of a run folder, and set what is damaged aside so that it is made again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .._json import read_json
from ..models.files import load_model
from ..training.checkpoint import check_file
from .file_checks import check_links
from .integrity import check_seal
from .store import RunFolder


@dataclass(frozen=True)
class Damage:
    """A file of a run folder that cannot be used."""

    path: Path
    reason: str
    """What is wrong with it, with its name."""
    cell: str | None = None
    """The cell that has to be trained again, where the file belongs to one that is finished."""


@dataclass(frozen=True)
class Verified:
    """What :func:`verify` found."""

    damages: tuple[Damage, ...]
    n_cells: int
    """Cells of the sweep."""
    n_finished: int
    """Cells whose result is there and whole."""


def verify(run: str | Path) -> Verified:
    """Check every file of a run folder against its checksum and against the files that it belongs to.

    Nothing is changed. Report and figures are not checked: `spikevae report` makes them again.

    Raises
    ------
    FileNotFoundError, ValueError
        Where the folder is no run, its config.json is damaged, or it has links to other places.

    Examples
    --------
    >>> import tempfile
    >>> from spikevae.sweep import Sweep, verify
    >>> tiny = {"steps": 2, "n_latents": 2}
    >>> sweep = Sweep.from_grid({"beta": [1.0]}, fit=tiny, data={"source": "synthetic", "n": 50})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     verify(sweep.run(folder, n_jobs=1).path).damages
    ()
    """
    folder = RunFolder(run)
    ids = [str(entry["id"]) for entry in folder.read_config()["cells"]]
    check_links(folder.path)
    damages = tuple(_damages(folder, ids))
    lost = {damage.cell for damage in damages}
    finished = sum(folder.cell_path(cell_id).is_file() and cell_id not in lost for cell_id in ids)
    return Verified(damages, len(ids), finished)


def _damages(folder: RunFolder, ids: list[str]) -> Iterator[Damage]:
    try:
        folder.read_data_record()
    except ValueError as error:
        name = "data.json" if str(error).startswith(str(folder.path / "data.json")) else "examples.npy"
        yield Damage(folder.path / name, str(error))
    known = set(ids)
    for path in sorted((folder.path / "cells").glob("*.json")):
        if path.stem not in known:
            yield Damage(path, f"{path} is of no cell of this sweep")
    for cell_id in ids:
        if folder.cell_path(cell_id).is_file():
            yield from _damages_of_cell(folder, cell_id)
    for path in sorted((folder.path / "frontiers").glob("*.json")):
        try:
            folder.read_frontier(path)
        except ValueError as error:
            yield Damage(path, str(error))
    for path in sorted((folder.path / "checkpoints").glob("*.*")):
        try:
            if path.suffix == ".safetensors":
                check_file(path)
            elif path.suffix == ".json":
                check_seal(read_json(path))
        except ValueError as error:
            yield Damage(path, f"{path}: {error}")
    yield from _damage_of_table(folder, ids)


def _damages_of_cell(folder: RunFolder, cell_id: str) -> Iterator[Damage]:
    path, model = folder.cell_path(cell_id), folder.model_path(cell_id)
    try:
        folder.read_cell(cell_id)
    except ValueError as error:
        yield Damage(path, str(error), cell_id)
        return
    if not model.is_file():
        yield Damage(path, f"{model}, the model of a finished cell, is missing", cell_id)
        return
    try:
        folder.read_model(cell_id)
        load_model(model)
    except ValueError as error:
        yield Damage(model, str(error), cell_id)


def _damage_of_table(folder: RunFolder, ids: list[str]) -> Iterator[Damage]:
    """The table, where it cannot be read or is not what the cells say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder.path / "cells.parquet"
    if not path.is_file():
        return
    try:
        found = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        yield Damage(path, f"{path} cannot be read: {error}")
        return
    try:
        expected = folder.table
    except ValueError:  # a damaged cell, which is named already
        return
    if str(found.to_pylist()) != str(expected.to_pylist()):
        yield Damage(path, f"{path} is not the table of the cells")


def repair(run: str | Path) -> Verified:
    """Set what :func:`verify` finds damaged aside, in the folder `damaged` of the run.

    The sweep's command, or :meth:`Sweep.run`, then makes it again. What was found before is returned.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`verify`: a damaged config.json is not repaired.
    """
    folder, found = RunFolder(run), verify(run)
    for damage in found.damages:
        cell = folder.cell_path(damage.cell) if damage.cell else None
        for path in dict.fromkeys(path for path in (damage.path, cell) if path is not None):
            if path.is_file():
                folder.set_aside(path, damage.reason)
    return found
