"""Model files: weights and configuration in one safetensors file, nothing pickled."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ._model import LatentModel
from .amortised import AmortisedVAE
from .coded import Coder
from .hierarchical import HierarchicalVAE
from .iterative import IterativeVAE
from .sparse_model import SparseCoding

MODELS: dict[str, Callable[..., LatentModel | SparseCoding]] = {
    **{model.inference: model for model in (AmortisedVAE, IterativeVAE, HierarchicalVAE)},
    "sparse_coding": SparseCoding,
}
"""Every class of models by its word in configurations and files; a file without one holds an amortised model."""
FORMAT = "spikevae model 1"
MAX_WEIGHTS = 1 << 28  # of one layer: a gigabyte in float32


def save_model(
    model: LatentModel | Coder, path: str | Path, given: dict[str, Any], extra: dict[str, Any] | None = None
) -> None:
    """Write a model.

    Parameters
    ----------
    given
        The keyword arguments that the model was built with, save `generator`.
    extra
        JSON-serialisable facts to keep beside it (the whole fit configuration, say).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    metadata = {
        "format": FORMAT,
        "inference": next(word for word, kind in MODELS.items() if kind is type(model)),
        "shape": json.dumps(model.shape),
        "given": json.dumps(given),
        "extra": json.dumps(extra or {}),
    }
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(tensors, scratch, metadata=metadata)
    os.replace(scratch, path)


def load_model(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Read a model, of one of the classes of `MODELS`, and what was kept beside it.

    Raises
    ------
    FileNotFoundError, ValueError
        With the file's name: missing, damaged, of another format, or with tensors that do not fit its configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is not a {FORMAT!r} file (found {metadata.get('format')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape = tuple(int(n) for n in json.loads(metadata["shape"]))
        given, extra = json.loads(metadata["given"]), json.loads(metadata["extra"])
        if not isinstance(given, dict) or not isinstance(extra, dict):
            raise ValueError("its configuration is not a table")
        _check_sizes(shape, given)
        inference = metadata.get("inference", AmortisedVAE.inference)
        if inference not in MODELS:
            raise ValueError(f"its inference is {inference!r}; this version knows {', '.join(MODELS)}")
        model = MODELS[inference](shape, generator=torch.Generator(), **given)
        model.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable model file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval().requires_grad_(False), extra


def _check_sizes(shape: tuple[int, ...], given: dict[str, Any]) -> None:
    """Refuse sizes that no honest file has before anything of that size is made."""
    widths = [math.prod(shape), int(given["n_latents"]), *(given.get("hidden") or ()), *given.get("upper", ())]
    two_largest = sorted(widths)[-2:]
    if min(shape, default=0) < 1 or min(widths) < 1 or math.prod(two_largest) > MAX_WEIGHTS:
        raise ValueError(f"sizes out of range: shape {shape}, n_latents {given['n_latents']}, {given.get('hidden')}")
