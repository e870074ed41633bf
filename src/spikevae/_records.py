"""Frozen configurations, and the messages of their errors."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class FrozenConfig(BaseModel):
    """A pydantic model that cannot change after validation and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key_message(str(key), cls.model_fields))
        return given


def to_builtins(given: Any) -> Any:
    """The same value in built-in types: NumPy numbers and arrays become numbers and lists.

    Examples
    --------
    >>> import numpy as np
    >>> to_builtins({"beta": np.float64(0.5), "n_latents": np.arange(2)})
    {'beta': 0.5, 'n_latents': [0, 1]}
    """
    if isinstance(given, Mapping):
        return {key: to_builtins(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [to_builtins(value) for value in given]
    return given.tolist() if hasattr(given, "tolist") else given


def unknown_key_message(key: str, known: Mapping[str, Any] | set[str] | list[str]) -> str:
    """Message that names the unknown key and the nearest known one."""
    near = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown key {key!r}.{hint} Known keys: {', '.join(sorted(known))}."


def validation_message(error: ValidationError, where: str) -> str:
    """One line per problem, without pydantic's addresses and type names."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if isinstance(problem.get("input"), Mapping) else f" (given: {problem.get('input')!r})"
        lines.append(f"{where}: {name + ': ' if name else ''}{message}{given}")
    return "\n".join(lines)
