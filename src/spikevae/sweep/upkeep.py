"""Upkeep of a run folder: damage is set aside, what killed runs left is removed."""

import shutil
from collections.abc import Sequence
from contextlib import suppress

from .._files import SCRATCH
from .file_checks import FOLDERS
from .plan import Cell
from .store import RunFolder


def set_damage_aside(folder: RunFolder, cells: Sequence[Cell]) -> set[str]:
    """Set damaged files of these cells and of the record of the data aside.

    Returns the digests of the stimuli on which the cells that are left were trained, as far as they say it.
    """
    for path in sorted((folder.path / "frontiers").glob("*.json")):
        try:
            folder.read_frontier(path)
        except ValueError as error:
            folder.set_aside(path, str(error))
    digests = set()
    for name in ("data.json", "examples.npy"):
        try:
            folder.read_data_record()
        except ValueError as error:
            if str(error).startswith(str(folder.path / name)):
                folder.set_aside(folder.path / name, str(error))
    for cell in cells:
        if not folder.is_done(cell):
            continue
        try:
            found = folder.read_cell(cell.id)
        except ValueError as error:
            folder.set_aside(folder.cell_path(cell.id), str(error))
            continue
        made = found.get("made_with")
        if isinstance(made, dict) and isinstance(made.get("data"), str):
            digests.add(made["data"])
    return digests


def remove_leftovers(folder: RunFolder, cells: Sequence[Cell]) -> None:
    """Remove what a run that was killed left: scratch files, and checkpoints of stacks whose cells are done.

    Only while no other process works in the folder.
    """
    for part in (folder.path, *(folder.path / name for name in FOLDERS)):
        for path in part.glob(f"*{SCRATCH}"):
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):
                    path.unlink()
    if not all(folder.is_done(cell) for cell in cells):
        return
    for path in (folder.path / "checkpoints").glob("*"):
        if not path.is_dir():
            with suppress(OSError):
                path.unlink()
        elif folder.frontier_path(path.name).is_file():  # else its path goes on from there
            shutil.rmtree(path, ignore_errors=True)
