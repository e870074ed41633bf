"""Model files: weights and configuration in one safetensors file, nothing pickled."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._files import atomic_write, check_regular
from .._records import validation_message
from ._model import Model
from .build import MODELS
from .config import ModelConfig

FORMAT = "spikevae model 1"
MAX_WEIGHTS = 1 << 28  # of one layer: a gigabyte in float32
MAX_LAYERS = 16
HUGE, TINY = 1e30, 1e-30  # float32 has both, and their reciprocals
RANGES = {
    **dict.fromkeys(("clamp", "noise_variance", "init_scale", "step_size", "tolerance"), (TINY, HUGE)),
    **dict.fromkeys(("start_spread", "free_bits", "beta", "spike_price", "beta_inner"), (0, HUGE)),
}
"""Least and greatest value of numbers of a model file, where float32 bounds them and their configuration does not."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def save_model(model: Model, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a model and its configuration.

    Parameters
    ----------
    extra
        JSON-serialisable facts to keep beside it (what it was trained on, say).

    Raises
    ------
    OSError
        With the file's name, where it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "shape": json.dumps(model.shape),
        "config": model.config.model_dump_json(),
        "extra": json.dumps(extra or {}),
    }
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    with atomic_write(Path(path)) as scratch:
        save_file(tensors, scratch, metadata=metadata)


def load_model(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Read a model, of one of the classes of `MODELS`, and what was kept beside it.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        With the file's name: missing, unreadable, damaged, of another format, or with tensors that do not fit its
        configuration.
    """
    path = Path(path)
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
            model = _unfilled_model(json.loads(metadata["shape"]), metadata["config"], found)
            # Copies: what is read lies in the mapped file, at any address.
            tensors = {name: file.get_tensor(name).clone() for name in found}
        model.to(next(iter(tensors.values())).dtype).load_state_dict(tensors, assign=True)
    except DAMAGE as error:
        raise ValueError(f"{path} is not a readable model file: {str(error) or type(error).__name__}") from None
    except ValidationError as error:
        raise ValueError(validation_message(error, str(path))) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval().requires_grad_(False), extra


DAMAGE = (
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
"""What reading and building can end in where a file was made to."""


class Unfilled(TorchFunctionMode):
    """While it is entered, weights of layers are built without values and memory, on the device meta.

    They are where `torch.nn.utils.skip_init` has them first. Functions that fill weights are passed over, as on that
    device each would cost the import of a compiler.
    """

    passed_over = frozenset({torch.empty_like, Tensor.normal_, Tensor.__itruediv__, torch.linalg.vector_norm})

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in self.passed_over and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


Found = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of each tensor of a file."""


def _unfilled_model(shape: Any, config_text: str, found: Found) -> Model:
    """The model that a file describes, once its description and its tensors are known to agree."""
    shape = TypeAdapter(tuple[int, ...]).validate_json(json.dumps(shape), strict=True)
    config = _checked_config(config_text)
    check_sizes(shape, config)
    if config.n_units + sum(config.widths) > sum(math.prod(size) for size, _ in found.values()):
        raise ValueError(
            f"sizes out of range: more units, {config.n_units} and {config.widths}, than values in the file"
        )
    with Unfilled():
        model = MODELS[config.inference](shape, config, torch.Generator())
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted({*wanted, *found}):
        here = found[name][0] if name in found else "nothing"
        there = wanted.get(name, "nothing")
        if here != there:
            raise ValueError(f"its tensors do not fit its configuration: {name} should be {there}, found {here}")
    dtypes = {dtype for _, dtype in found.values()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise ValueError(f"its tensors should be of one floating-point type, found {', '.join(sorted(dtypes))}")
    return model


def _checked_config(text: str) -> ModelConfig:
    """The configuration that a file holds, of the types that its class names and within `RANGES`."""
    given = json.loads(text)
    word = given.get("inference") if isinstance(given, dict) else None
    if not isinstance(word, str) or word not in MODELS:
        raise ValueError(f"its inference is {word!r:.80}; this version has {', '.join(MODELS)}")
    for name, value in given.items():
        if isinstance(value, list):
            if len(value) > MAX_LAYERS:
                raise ValueError(f"{name} has {len(value)} entries; at most {MAX_LAYERS}")
            given[name] = tuple(value)
    config: ModelConfig = MODELS[word].config_class.model_validate(given, strict=True)
    for name, (low, high) in RANGES.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and not low <= value <= high:
            raise ValueError(f"{name} is {value!r:.80}, out of range: {low:g} to {high:g}")
    return config


def check_sizes(shape: tuple[int, ...], config: ModelConfig) -> None:
    """Refuse sizes that no model that was trained has, before anything of that size is made."""
    widths = [math.prod(shape), *config.layer_sizes, *config.widths]
    two_largest = sorted(widths)[-2:]
    if min(shape, default=0) < 1 or min(widths) < 1 or math.prod(two_largest) > MAX_WEIGHTS:
        raise ValueError(
            f"sizes out of range: shape {shape}, n_latents {config.n_latents}, hidden {config.widths or None}"
        )
