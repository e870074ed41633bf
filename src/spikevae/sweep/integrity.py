"""Checksums of the files of a run folder: a file with one changed bit is damage, never data."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._json import jsonable

CHECKSUM = "checksum"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file, with its checksum.

    Examples
    --------
    >>> check_seal(sealed({"beta": 0.5}))
    >>> check_seal(sealed({"beta": 0.5}) | {"beta": 0.25})
    Traceback (most recent call last):
        ...
    ValueError: its checksum does not match its content
    """
    values = jsonable(content)
    return {**values, CHECKSUM: _digest(values)}


def check_seal(content: Any) -> None:
    """Refuse content whose checksum does not match; content without one, of earlier versions, is taken.

    Raises
    ------
    ValueError
        Without the file's name.
    """
    if isinstance(content, dict) and CHECKSUM in content and content[CHECKSUM] != _digest(content):
        raise ValueError("its checksum does not match its content")


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values in one canonical form, without the checksum."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
