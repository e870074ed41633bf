"""Model files: weights and configuration in one safetensors file, nothing pickled."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._files import atomic_write, check_regular, user_path
from .._records import validation_message
from ._model import Model
from .build import MODELS
from .config import ModelConfig
from .own import OWN, ROLES, Given, OwnNetwork, described, makers

FORMAT = "spikevae model 1"
CHECKED = ("shape", "config", "extra", "modules")
"""Metadata that the checksum covers beside the tensors; `modules` only where the model has some of the user's own."""
MAX_LAYER_WEIGHTS = 1 << 28
"""Largest number of weights of one layer: a gigabyte in float32."""
MAX_ENTRIES = 16
"""Largest length of a list in the configuration of a model file."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def save_model(model: Model, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a model and its configuration; equal models and facts give equal files, byte by byte.

    Parameters
    ----------
    extra
        Further facts for the file, JSON-serialisable (for example the training data).

    Raises
    ------
    OSError
        If the file cannot be written; the message has its name.
    ValueError
        If the `config` of a module of the user's own is not JSON.
    """
    metadata = {
        "format": FORMAT,
        "shape": json.dumps(model.shape),
        "config": model.config.model_dump_json(),
        "extra": json.dumps(extra or {}),
    }
    networks = {role: getattr(model, role, None) for role in ROLES}
    own = {role: described(role, network) for role, network in networks.items() if isinstance(network, OwnNetwork)}
    if own:
        metadata["modules"] = json.dumps(own)
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    metadata["checksum"] = tensors_checksum(tensors, *checked_texts(metadata))
    with atomic_write(user_path(path)) as scratch:
        save_file(tensors, scratch, metadata=metadata)
        sort_header(scratch)


def checked_texts(metadata: Mapping[str, str]) -> list[str]:
    """The metadata that the checksum covers."""
    return [metadata[name] for name in CHECKED if name in metadata or name != "modules"]


def sort_header(path: Path) -> None:
    """Sort the header of a safetensors file by key: the library writes its entries in an order that changes."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # as the library pads it: the format allows spaces at the end
            file.seek(8)
            file.write(text.ljust(size))


def tensors_checksum(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """SHA-256 of the names, types, shapes and values of tensors on the CPU, and of texts that belong to them."""
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def stored_checksum(path: Path) -> str | None:
    """The checksum that a model file states, unchecked; None in files of earlier versions, and where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("checksum")
    except (SafetensorError, OSError):
        return None


def load_model(path: str | Path, modules: Mapping[str, Given] | None = None) -> tuple[Any, dict[str, Any]]:
    """Read a model, of one of the classes of `MODELS`, and its further facts.

    Parameters
    ----------
    modules
        The user's own networks, by "encoder" and "decoder", where the model has some: an instance, of which the model
        has a copy with the weights of the file; or the class or function that the fit had. A class with `from_config`
        is given the `config` that its module had; it must be able to build on PyTorch's device meta, where tensors have
        no memory, so that no more is allocated than the file has weights for. No file makes this package import code.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        If the file is missing, unreadable, damaged, of another format, or has tensors that do not match its
        configuration; the message has its name.
    """
    path = user_path(path)
    check_regular(path, "model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"not a {FORMAT!r} file (found {metadata.get('format')!r})")
            extra = json.loads(metadata["extra"])
            if not isinstance(extra, dict):
                raise ValueError("its extra facts are not a table")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            own = json.loads(metadata.get("modules", "{}"))
            model = _unfilled_model(json.loads(metadata["shape"]), metadata["config"], found, own, modules or {})
            # Copies, because what is read is in the mapped file and may not be aligned.
            tensors = {name: file.get_tensor(name).clone() for name in found}
            checksum = tensors_checksum(tensors, *checked_texts(metadata))
            if metadata.get("checksum") not in (None, checksum):
                raise ValueError("it is damaged: its checksum does not match its content")
        _check_finite(tensors)
        model.to(next(iter(tensors.values())).dtype).load_state_dict(tensors, assign=True)
    except ERRORS_OF_DAMAGED_FILES as error:
        raise ValueError(f"{path} is not a readable model file: {str(error) or type(error).__name__}") from None
    except ValidationError as error:
        raise ValueError(validation_message(error, str(path))) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval().requires_grad_(False), extra


ERRORS_OF_DAMAGED_FILES = (
    SafetensorError,
    json.JSONDecodeError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    StopIteration,
    ArithmeticError,
    MemoryError,
)
"""Errors that reading a file and building its model raise if the file is damaged or malicious."""


class Unfilled(TorchFunctionMode):
    """Within this context, weights of layers are built without values and memory, on the device meta.

    `torch.nn.utils.skip_init` builds them there first. Functions that initialise weights are skipped, because on that
    device each of them would import a compiler.
    """

    skipped = frozenset({torch.empty_like, Tensor.normal_, Tensor.__itruediv__, torch.linalg.vector_norm})

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in self.skipped and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Refuse numbers that no training leaves behind: codes would be NaN."""
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} has values that are not finite; train the model again")


Found = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of each tensor of a file."""


def _unfilled_model(
    shape: Any, config_text: str, found: Found, own: dict[str, Any], modules: Mapping[str, Given]
) -> Model:
    """The model of a file without values, after a check that its configuration and its tensors match."""
    shape = TypeAdapter(tuple[int, ...]).validate_json(json.dumps(shape), strict=True)
    config = _checked_config(config_text)
    check_sizes(shape, config)
    if config.n_units + sum(config.widths) > sum(math.prod(size) for size, _ in found.values()):
        raise ValueError(
            f"sizes out of range: more units, {config.n_units} and {config.widths}, than values in the file"
        )
    roles = {role for role in ROLES if getattr(config, role, None) == OWN}
    if not isinstance(own, dict) or set(own) != roles:
        raise ValueError(f"it describes modules for {sorted(own)!r:.80}, its configuration has {sorted(roles)}")
    with Unfilled():
        unfilled = makers(own, modules, on_meta=True)
        model = MODELS[config.inference](shape, config, torch.Generator(), **({"modules": unfilled} if own else {}))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted({*expected, *found}):
        found_shape = found[name][0] if name in found else "nothing"
        expected_shape = expected.get(name, "nothing")
        if found_shape != expected_shape:
            raise ValueError(
                f"its tensors do not match its configuration: {name} should be {expected_shape}, found {found_shape}"
            )
    dtypes = {dtype for _, dtype in found.values()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise ValueError(f"its tensors should be of one floating-point type, found {', '.join(sorted(dtypes))}")
    if own:  # of these sizes: with values, for what is not in the file
        with Unfilled():
            filled = makers(own, modules, on_meta=False)
            model = MODELS[config.inference](shape, config, torch.Generator(), modules=filled)
    return model


def _checked_config(text: str) -> ModelConfig:
    """The configuration of a file, after a check of its types and bounds."""
    given = json.loads(text)
    inference = given.get("inference") if isinstance(given, dict) else None
    if not isinstance(inference, str) or inference not in MODELS:
        raise ValueError(f"its inference is {inference!r:.80}; this version has {', '.join(MODELS)}")
    for name, value in given.items():
        if isinstance(value, list):
            if len(value) > MAX_ENTRIES:
                raise ValueError(f"{name} has {len(value)} entries; at most {MAX_ENTRIES}")
            given[name] = tuple(value)
    config: ModelConfig = MODELS[inference].config_class.model_validate(given, strict=True)
    return config


def check_sizes(shape: tuple[int, ...], config: ModelConfig) -> None:
    """Check sizes before any tensor of that size is allocated; `ValueError` if no trained model has them."""
    widths = [math.prod(shape), *config.layer_sizes, *config.widths]
    two_largest = sorted(widths)[-2:]
    if min(shape, default=0) < 1 or min(widths) < 1 or math.prod(two_largest) > MAX_LAYER_WEIGHTS:
        raise ValueError(
            f"sizes out of range: shape {shape}, n_latents {config.n_latents}, hidden {config.widths or None}"
        )
