"""Checks of the JSON files of a run folder, which other programs may have changed."""

import os
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .._files import SCRATCH
from .._records import validation_message
from ..config import FitConfig
from .integrity import check_seal

FORMAT = "spikevae run 1"
CELL_REMEDY = "delete it and give the sweep's command again: the cell is trained again"
CONFIG_REMEDY = "put back a copy of it, or run the sweep into another folder"
NUMBER = int | float | None
CELL_TYPES: dict[str, Any] = {
    "id": str, "block": str, "config": dict, "metrics": dict, "objective": NUMBER, "fit_objective": NUMBER,
    "fit_objective_half": NUMBER, "diverged": bool, "steps_done": int,
}  # fmt: skip
REQUIRED_OPTIONS = ("latent", "n_latents", "beta", "seed", "start")
OPTIONAL_TABLES = ("units", "code_histogram", "history", "budget", "readout", "made_with")
BUDGET_TYPES = {"spikes_allowed": NUMBER, "shadow_price": NUMBER, "shadow_price_per_joule": NUMBER, "met": bool}
FOLDERS = ("cells", "models", "frontiers", "checkpoints", "figures", "locks", "damaged")
"""Folders of a run folder."""
ID_LENGTH = 12
"""Hexadecimal digits of the id of a cell, with which the names of its files and of its stack begin."""
MAX_INTEGER = 2**53
"""Largest integer that every JSON reader represents exactly."""


def check_config(config: Any, path: Path) -> None:
    """Refuse a config.json of another format, or one that lacks what a run folder needs.

    Raises
    ------
    ValueError
        With the file's name and the remedy.
    """
    try:
        _check_types(config, {"format": str, "sweep": dict, "cells": list})
        _check_types(config["sweep"], {"data": dict})
        ids = [entry.get("id") for entry in config["cells"] if isinstance(entry, dict)]
        check_seal(config)
        if config["format"] != FORMAT or len(ids) != len(config["cells"]) or len(set(map(str, ids))) != len(ids):
            raise ValueError("its format or its list of cells is wrong")
        if not all(isinstance(name, str) and re.fullmatch(f"[0-9a-f]{{{ID_LENGTH}}}", name) for name in ids):
            raise ValueError("the id of a cell is not twelve hexadecimal digits")
        shard = config.get("shard", [1, 1])
        if not isinstance(shard, list) or len(shard) != 2 or not all(isinstance(n, int) for n in shard):
            raise ValueError(f"its shard is {reprlib.repr(shard)}")
    except ValueError as error:
        raise ValueError(f"{path} is not a {FORMAT!r} file: {error}; {CONFIG_REMEDY}") from None


def check_cell(cell: Any, cell_id: str, path: Path) -> None:
    """Refuse a cell file that lacks what the table and every figure need, or holds it in another type.

    Raises
    ------
    ValueError
        With the file's name and the remedy.
    """
    try:
        _check_types(cell, CELL_TYPES)
        if cell["id"] != cell_id:
            raise ValueError(f"its id is {cell['id']!r}")
        given = cell["config"]
        # pydantic reads "1" as a number, but the table does not: compare with the types after validation
        full = FitConfig.model_validate(given).model_dump(mode="json")
        types: dict[type, Any] = {str: str, bool: bool, int: NUMBER, float: NUMBER}
        _check_types(given, {name: types.get(type(full[name]), object) for name in (*REQUIRED_OPTIONS, *given)})
        _check_types(cell, {name: dict for name in OPTIONAL_TABLES if cell.get(name) is not None})
        if cell.get("budget") is not None:
            _check_types(cell["budget"], BUDGET_TYPES)
        _check_types(cell, {name: NUMBER for name in ("seconds",) if name in cell})
        _check_types(cell["metrics"], dict.fromkeys(cell["metrics"], NUMBER))
    except ValidationError as error:
        raise ValueError(f"{validation_message(error, str(path))}; {CELL_REMEDY}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a valid cell file: {error}; {CELL_REMEDY}") from None


def _check_types(given: Any, types: Mapping[str, Any]) -> None:
    """Refuse what is no table, or lacks one of these entries or has it in another type."""
    if not isinstance(given, dict):
        raise ValueError(f"it holds a {type(given).__name__} where a table is expected")
    for name, kind in types.items():
        if name not in given:
            raise ValueError(f"{name!r} is missing")
        value = given[name]
        in_range = not isinstance(value, int) or abs(value) <= MAX_INTEGER
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or not in_range:
            raise ValueError(f"{name!r} is {reprlib.repr(value)}, of another type or size than it should be")


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, one line per difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(k for k in new if k not in old)]:
            lines += differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return lines
    lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    if lists and any(isinstance(value, dict) for value in old):
        return [line for i, (a, b) in enumerate(zip(old, new)) for line in differences(a, b, f"{where}[{i}]")]
    return [] if old == new else [f"  {where}: {old!r} -> {new!r}"]


def check_links(run: Path) -> None:
    """Refuse symbolic links in a run folder to places outside it, since writing would follow them.

    Raises
    ------
    ValueError
        With the name of the link.
    """
    home = run.resolve()
    for folder in (run, *(run / name for name in FOLDERS)):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            links = [Path(entry.path) for entry in entries if entry.is_symlink()]
        for link in links:
            if not link.resolve().is_relative_to(home):
                raise ValueError(
                    f"{link} is a link to {link.resolve()}, outside the run folder, where nothing is written; "
                    "replace it by what it points to"
                )


def is_left_over(path: Path, ids: Collection[str]) -> bool:
    """Whether a run of the cells `ids` may have left this in a folder without config.json.

    It may have been stopped before it wrote that file, or the folder may have been removed while it was at work.
    """
    if path.name in ("cells", "models", "checkpoints") and path.is_dir():
        return all(entry.suffix == SCRATCH or entry.name[:ID_LENGTH] in ids for entry in path.iterdir())
    return path.suffix == SCRATCH or path.name in ("locks", "log.jsonl")
