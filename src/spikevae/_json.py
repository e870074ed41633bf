"""JSON files: atomic writes, reads of bounded size, and values made JSON-serialisable."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._files import write_bytes

MAX_JSON_BYTES = 16 << 20
REMEDY = "delete it and give the sweep's command again: it is made again"


def jsonable(value: Any) -> Any:
    """Numbers, arrays and mappings as JSON values; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [jsonable(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def json_text(value: Any) -> str:
    """A value as JSON text in one line; numbers that are not finite are null."""
    return json.dumps(jsonable(value), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: after a crash it is either the old file or the whole new one."""
    write_bytes(path, json_text(value).encode())


def read_json(path: Path, remedy: str = REMEDY, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file that other programs may have changed; error messages end with `remedy`."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file; {remedy}")
    with open(path, "rb") as handle:
        content = handle.read(max_bytes + 1)  # never more, whatever size the file system states
    if len(content) > max_bytes:
        raise ValueError(f"{path} has more than {max_bytes} bytes; {remedy}")
    try:
        return json.loads(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from None
