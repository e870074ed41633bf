"""Resume files of a stack: flat tensors in safetensors, nothing pickled, written atomically."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .stack import Stack

FORMAT = "spikevae checkpoint 1"


def _fingerprint(stack: Stack) -> str:
    return json.dumps(
        {
            "fits": [config.model_dump(mode="json") for config in stack.configs],
            "train": [*stack.train.shape],
            "stimuli": stack.data_digest,
            "dtype": str(stack.train.dtype),
        },
        sort_keys=True,
    )


def save(stack: Stack, path: Path) -> None:
    """Write the state of a stack; a crash leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(stack.state(), scratch, metadata={"format": FORMAT, "fits": _fingerprint(stack)})
    with open(scratch, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(scratch, path)


def load(stack: Stack, path: Path) -> None:
    """Put a stack back to where :func:`save` found it.

    Raises
    ------
    ValueError
        Where the file is damaged or belongs to other fits or data.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is not a {FORMAT!r} file; delete it to train from the start")
            if metadata.get("fits") != _fingerprint(stack):
                raise ValueError(f"{path} belongs to other fits or other data; delete it to train from the start")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to train from the start") from None
    try:
        stack.load_state(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it to train from the start") from None
