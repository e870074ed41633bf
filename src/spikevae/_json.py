"""JSON files: written whole, read with a bound on their size, and values made JSON-serialisable."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._files import written_whole

MAX_JSON_BYTES = 64 << 20


REMEDY = "delete it and give the sweep's command again: it is made again"


def jsonable(value: Any) -> Any:
    """Numbers, arrays and mappings as JSON values; what is not finite becomes null."""
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


def write_json(path: Path, value: Any) -> None:
    """Write a file that is either the old one or the whole new one, whatever happens."""
    text = json.dumps(jsonable(value), allow_nan=False)
    with written_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """Read a JSON file that may have been written by others; errors end with `remedy`."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; {remedy}")
    with open(path, "rb") as handle:
        content = handle.read(MAX_JSON_BYTES + 1)  # its size as stated may be that of a link's target
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES} bytes; {remedy}")
    try:
        return json.loads(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from None
