"""Checkpoints of a stack: flat tensors in safetensors, nothing pickled, written atomically."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .._files import atomic_write, check_regular
from ..models.files import tensors_checksum
from .fits import FitStack

FORMAT = "spikevae checkpoint 1"


def _fingerprint(stack: FitStack) -> dict[str, Any]:
    return {
        "fits": [config.model_dump(mode="json") for config in stack.configs],
        "train": [stack.n_train, *stack.train.shape[1:]],
        "stimuli": stack.data_digest,
        "shape": [*stack.shape],
        "window": stack.window,
        "dtype": str(stack.train.dtype),
    }


def _belongs(stored: str, stack: FitStack) -> bool:
    """Whether the stored fits and data are those of this stack; earlier versions stored fewer entries."""
    found, expected = json.loads(stored), _fingerprint(stack)
    if not isinstance(found, dict) or not {"fits", "train"} <= set(found):
        return False
    return all(expected.get(name) == value for name, value in found.items())


def save(stack: FitStack, path: Path) -> None:
    """Write the state of a stack; after a crash or an OSError the file is either the old one or the new one."""
    state = stack.state()
    fits = json.dumps(_fingerprint(stack))
    metadata = {"format": FORMAT, "fits": fits, "checksum": tensors_checksum(state, fits)}
    with atomic_write(path) as scratch:
        save_file(state, scratch, metadata=metadata)


def load(stack: FitStack, path: Path) -> None:
    """Restore the state of a stack that :func:`save` wrote.

    Raises
    ------
    ValueError
        Where the file is damaged or belongs to other fits or data.
    """
    tensors, fits = _read(path)
    if not _belongs(fits, stack):
        raise ValueError(f"{path} belongs to other fits or other data; delete it to train from the start")
    try:
        stack.load_state(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it to train from the start") from None


def check_file(path: Path) -> None:
    """Check that a checkpoint is whole, whatever stack it belongs to.

    Raises
    ------
    ValueError
        Where it is damaged.
    """
    _read(path)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint, and what it says about the fits that it belongs to."""
    check_regular(path, "checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is not a {FORMAT!r} file; delete it to train from the start")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fits = metadata.get("fits", "")
        json.loads(fits)
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to train from the start") from None
    if metadata.get("checksum") not in (None, tensors_checksum(tensors, fits)):
        raise ValueError(f"{path} is damaged (its checksum does not match); delete it to train from the start")
    return tensors, fits
