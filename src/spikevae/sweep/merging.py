"""Join run folders of shards of one sweep into one."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._files import atomic_write, user_path, write_bytes
from .._json import json_text
from .file_checks import differences
from .integrity import sealed
from .plan import cells_of
from .store import RunFolder

MEASURED = ("seconds", "made_with", "checksum", "model_checksum")
"""Entries of a cell that may differ between machines."""


def merge(out: str | Path, shards: Sequence[str | Path]) -> RunFolder:
    """Join run folders of one sweep into a folder, which then holds the whole sweep.

    Cells that are in none of them are missing; the sweep's command with `out` trains them.

    Parameters
    ----------
    out
        A new folder, or one that holds the same sweep.
    shards
        Run folders that were made with `shard=`, or without.

    Raises
    ------
    FileNotFoundError, ValueError
        Where a folder is no run, holds another sweep or other stimuli than the first, or has a cell whose numbers
        differ from those of the same cell in another one; nothing is written then.
    """
    if not shards:
        raise ValueError("no shards were named; give their run folders")
    folders, target = [RunFolder(user_path(shard)) for shard in shards], RunFolder(out)
    sweep = folders[0].sweep()
    given = sweep.model_dump(mode="json")
    for folder in folders[1:]:
        lines = differences(given, folder.sweep().model_dump(mode="json"))
        if lines:
            text = "\n".join(lines)
            raise ValueError(f"{folder.path} holds another sweep than {folders[0].path}; differences:\n{text}")
    digests = {folder.digest: folder.path for folder in folders if folder.digest is not None}
    if len(digests) > 1:
        raise ValueError(f"{', '.join(map(str, digests.values()))} were trained on different stimuli")
    target.check(sweep)
    sources = _sources([*folders, target] if target.config_path.exists() else folders)
    target.begin(sweep)
    for cell_id, folder in sources.items():
        if folder is not target:
            _copy(folder, target, cell_id)
    for name in ("examples.npy", "data.json"):
        source = next((folder.path / name for folder in folders if (folder.path / name).is_file()), None)
        if source is not None and not (target.path / name).is_file():
            write_bytes(target.path / name, source.read_bytes())
    missing = [cell.id for cell in cells_of(sweep) if not target.is_done(cell)]
    if len(missing) < len(cells_of(sweep)):
        target.write_table()
    target.log("merge", shards=[str(folder.path) for folder in folders], missing=len(missing))
    return target


def _sources(folders: Sequence[RunFolder]) -> dict[str, RunFolder]:
    """For each finished cell a folder that has it, after a check that all that have it agree."""
    sources: dict[str, RunFolder] = {}
    kept: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for cell in folder.read_cells():
            numbers = {name: value for name, value in cell.items() if name not in MEASURED}
            first = sources.setdefault(cell["id"], folder)
            lines = differences(kept.setdefault(cell["id"], numbers), numbers)
            if lines:
                raise ValueError(
                    f"cell {cell['id']} differs between {first.path} and {folder.path}, for example{lines[0]}; "
                    "remove the file of the one that is wrong, or merge one of the folders alone"
                )
            folder.read_model(cell["id"])  # refuses a damaged one
    return sources


def _copy(source: RunFolder, target: RunFolder, cell_id: str) -> None:
    model = source.model_path(cell_id)
    if model.is_file():
        with atomic_write(target.model_path(cell_id)) as scratch:
            shutil.copyfile(model, scratch)
    write_bytes(target.cell_path(cell_id), json_text(sealed(source.read_cell(cell_id))).encode())
