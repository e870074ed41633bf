"""Files of published weights, read without running anything that they contain."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._files import check_regular, user_path

KIND = "file of weights"
MAX_BYTES = 2**26
"""Ten times as many as the published files have."""
MAX_NEIGHBOURS = 512
REMEDY = "give a file of ProteinMPNN's vanilla or soluble weights, such as v_48_020.pt"


def read_weights(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], int, float]:
    """Weights by name, the number of neighbours, and the standard deviation of the noise in training, in Angstrom.

    Raises
    ------
    FileNotFoundError, PermissionError
        Where there is no such file.
    ValueError
        For a file that is damaged, too large or of another kind, with its name.
    """
    path = user_path(path)
    check_regular(path, KIND)
    content = _unpickled(path)
    weights = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"{path} has no 'model_state_dict': {REMEDY}")
    if "W_v.weight" in weights:
        raise ValueError(f"{path} has weights of the model of alpha carbons alone: {REMEDY}")
    names = [name for name in shapes if name not in weights] + [name for name in weights if name not in shapes]
    if names:
        what = "lacks" if names[0] in shapes else "has an unknown"
        raise ValueError(f"{path} {what} {str(names[0])[:80]!r} ({len(names)} names differ): {REMEDY}")
    for name, shape in shapes.items():
        value = weights[name]
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if given != shape:
            raise ValueError(f"{path}: {name} is {given}, and the network needs {shape}: {REMEDY}")
        if not value.is_floating_point() or value.layout != torch.strided or not value.isfinite().all():
            raise ValueError(f"{path}: {name} has entries that are no finite numbers: download the file again")
    neighbours, noise = content.get("num_edges"), content.get("noise_level", 0.0)
    if not isinstance(neighbours, int) or not 1 <= neighbours <= MAX_NEIGHBOURS:
        raise ValueError(f"{path} has the number of neighbours {neighbours!r} ('num_edges'): {REMEDY}")
    if not isinstance(noise, float | int) or not 0 <= noise < 10:
        raise ValueError(f"{path} has the noise level {noise!r}: {REMEDY}")
    return {name: weights[name].float() for name in shapes}, neighbours, float(noise)


def _unpickled(path: Path) -> Any:
    """Content of a file that PyTorch wrote: numbers, names and tensors only."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has over {MAX_BYTES >> 20} MiB, no {KIND}: {REMEDY}")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(f"{path} unpacks to over {MAX_BYTES >> 20} MiB, no {KIND}: {REMEDY}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        reason = _first_line(error)
    except Exception as error:  # PyTorch raises whatever the damage leads to
        reason = _first_line(error)
    raise ValueError(f"{path} cannot be read as weights ({reason}): {REMEDY}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:100].rstrip(".: ")
