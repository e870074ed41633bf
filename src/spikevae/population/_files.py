"""Files of fitted models: arrays and settings in one safetensors file, nothing pickled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .._files import atomic_write, check_regular, user_path
from ..models.files import sort_header, tensors_checksum

FORMAT = "spikevae population 1"
DIMENSIONS = {
    "intercept": ("p",),
    "coef": ("p", "d"),
    "covariance": ("p", "p"),
    "precision": ("p", "p"),
    "loadings": ("p", "q"),
    "inflation_intercept": ("k",),
    "inflation_coef": ("p", "d"),
    "latent": ("n", "l"),
    "latent_variance": ("n", "l"),
    "inflated": ("n", "p"),
    "bounds": ("n",),
}
"""Dimensions of each array; a diagonal covariance and its precision have one."""
REQUIRED = ("intercept", "coef", "covariance", "precision", "latent", "latent_variance", "bounds")


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write arrays and JSON-serialisable facts.

    Raises
    ------
    OSError
        Where the file cannot be written; with its name.
    """
    tensors = {name: torch.from_numpy(np.array(value, dtype=np.float64, order="C")) for name, value in arrays.items()}
    metadata = {"format": FORMAT, "facts": json.dumps(facts)}
    metadata["checksum"] = tensors_checksum(tensors, metadata["facts"])
    with atomic_write(user_path(path)) as scratch:
        save_file(tensors, scratch, metadata=metadata)
        sort_header(scratch)


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a file that :func:`write_arrays` wrote; no more memory is taken than the file is long.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        Where it is missing, damaged, of another format, or its arrays do not fit together; with its name.
    """
    path = user_path(path)
    check_regular(path, "model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"not a {FORMAT!r} file (found {metadata.get('format')!r})")
            facts = json.loads(metadata["facts"])
            names = sorted(file.keys())
            unknown = [name for name in names if name not in DIMENSIONS]
            missing = [name for name in REQUIRED if name not in names]
            if unknown or missing or not isinstance(facts, dict):
                raise ValueError(f"its content is not that of a fit: unknown {unknown}, missing {missing}")
            tensors = {name: file.get_tensor(name).clone() for name in names}
            if tensors_checksum(tensors, metadata["facts"]) != metadata.get("checksum"):
                raise ValueError("it is damaged: its checksum does not match its content")
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable model file: {str(error) or type(error).__name__}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    arrays = {name: value.numpy() for name, value in tensors.items()}
    _check(arrays, path)
    return arrays, facts


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    sizes: dict[str, int] = {}
    for name, value in arrays.items():
        dimensions = DIMENSIONS[name]
        if name in ("covariance", "precision") and value.ndim == 1:
            dimensions = ("p",)
        if value.dtype != np.float64 or not np.isfinite(value).all():
            raise ValueError(f"{path}: {name} should hold finite numbers in float64")
        expected = tuple(sizes.setdefault(d, n) for d, n in zip(dimensions, value.shape))
        if len(dimensions) != value.ndim or expected != value.shape:
            raise ValueError(f"{path}: {name} has shape {value.shape}, which does not match the other arrays")
    latent = sizes["q"] if "loadings" in arrays else sizes["p"]
    if sizes["l"] != latent or sizes.get("k", 1) not in (1, sizes["p"]):
        raise ValueError(f"{path}: latent or inflation_intercept does not match the other arrays")
