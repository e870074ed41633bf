"""Model files: weights and configuration in one safetensors file, nothing pickled."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._files import check_regular, written_whole
from .._records import unknown_key_message
from ._model import LatentModel
from .amortised import AmortisedVAE
from .coded import Coder
from .hierarchical import HierarchicalVAE
from .iterative.model import IterativeVAE
from .sparse.model import SparseCoding

MODELS: dict[str, Callable[..., LatentModel | SparseCoding]] = {
    **{model.inference: model for model in (AmortisedVAE, IterativeVAE, HierarchicalVAE)},
    "sparse_coding": SparseCoding,
}
"""Every class of models by its word in configurations and files; a file without one holds an amortised model."""
FORMAT = "spikevae model 1"
MAX_WEIGHTS = 1 << 28  # of one layer: a gigabyte in float32
MAX_LAYERS = 16
HUGE, TINY = 1e30, 1e-30  # float32 has both, and their reciprocals
RANGES = {
    **dict.fromkeys(("clamp", "noise_variance", "init_scale", "step_size", "tolerance"), (TINY, HUGE)),
    **dict.fromkeys(("start_spread", "free_bits", "beta", "spike_price", "beta_inner", "sparsity_price"), (0, HUGE)),
    "start": (-100, 100),
    "max_steps": (1, 1_000_000),
}
"""Least and greatest value of the numbers that a model file gives; elsewhere any finite one."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


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

    Raises
    ------
    OSError
        With the file's name, where it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "inference": next(word for word, kind in MODELS.items() if kind is type(model)),
        "shape": json.dumps(model.shape),
        "given": json.dumps(given),
        "extra": json.dumps(extra or {}),
    }
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    with written_whole(Path(path)) as scratch:
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
            given, extra = json.loads(metadata["given"]), json.loads(metadata["extra"])
            if not isinstance(given, dict) or not isinstance(extra, dict):
                raise ValueError("its configuration is not a table")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            word = metadata.get("inference", AmortisedVAE.inference)
            model = _unfilled_model(word, json.loads(metadata["shape"]), given, found)
            # Copies: what is read lies in the mapped file, at any address.
            tensors = {name: file.get_tensor(name).clone() for name in found}
        model.to(next(iter(tensors.values())).dtype).load_state_dict(tensors, assign=True)
    except DAMAGE as error:
        raise ValueError(f"{path} is not a readable model file: {str(error) or type(error).__name__}") from None
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


def _unfilled_model(word: str, shape: Any, given: dict[str, Any], found: Found) -> LatentModel | SparseCoding:
    """The model that a file describes, once its description and its tensors are known to agree."""
    if word not in MODELS:
        raise ValueError(f"its inference is {word!r}; this version knows {', '.join(MODELS)}")
    given = _checked(MODELS[word], {"shape": shape, **given})
    shape = given.pop("shape")
    check_sizes(shape, given)
    layers = (*given.get("upper", ()), *(_used_hidden(given) or ()))
    if given["n_latents"] + sum(layers) > sum(math.prod(size) for size, _ in found.values()):
        raise ValueError(f"sizes out of range: more units, {given['n_latents']} and {layers}, than values in the file")
    with Unfilled():
        model = MODELS[word](shape, generator=torch.Generator(), **given)
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


def _checked(model: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a model as JSON gives them, of the types that its constructor names and within `RANGES`."""
    hints = get_type_hints(model.__init__)
    checked = {}
    for name, value in given.items():
        if name not in hints or name in ("generator", "return"):
            raise ValueError(unknown_key_message(name, hints.keys() - {"shape", "generator", "return"}))
        if isinstance(value, list):
            if len(value) > MAX_LAYERS:
                raise ValueError(f"{name} has {len(value)} entries; at most {MAX_LAYERS}")
            value = tuple(value)
        elif hints[name] is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            checked[name] = TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"{name} is {value!r:.80}: {error.errors()[0]['msg']}") from None
        if isinstance(value, int | float):
            low, high = RANGES.get(name, (-HUGE, HUGE))
            if not low <= value <= high:
                raise ValueError(f"{name} is {value!r:.80}, out of range: {low:g} to {high:g}")
    return checked


def _used_hidden(given: dict[str, Any]) -> tuple[int, ...] | None:
    linear = {given.get(name, "linear") for name in ("encoder", "decoder")} == {"linear"}
    return None if linear else given.get("hidden")


def check_sizes(shape: tuple[int, ...], given: dict[str, Any]) -> None:
    """Refuse sizes that no honest model has before anything of that size is made; arguments as of `save_model`."""
    widths = [math.prod(shape), int(given["n_latents"]), *(given.get("hidden") or ()), *given.get("upper", ())]
    two_largest = sorted(widths)[-2:]
    if min(shape, default=0) < 1 or min(widths) < 1 or math.prod(two_largest) > MAX_WEIGHTS:
        raise ValueError(f"sizes out of range: shape {shape}, n_latents {given['n_latents']}, {given.get('hidden')}")
