"""Modules as functions of stacked parameters: copies with weights of their own, run as one program."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from .._seeds import generator

Tensors = dict[str, Tensor]


def build_module(module: Any, seed: int, index: int) -> nn.Module:
    """A module with fresh initial weights, in evaluation mode.

    Parameters
    ----------
    module
        A module, which is copied and whose parts draw their weights anew, or a function that builds one.
    seed, index
        Of the initial weights; PyTorch's own random state is as before.

    Raises
    ------
    TypeError, ValueError
        For anything else, and modules that cannot be drawn anew or stacked.
    """
    if not callable(module) or isinstance(module, type):
        raise TypeError(f"module is {module!r:.80}; give a torch.nn.Module, or a function that builds one")
    with torch.random.fork_rng(devices=[]):  # the weights of PyTorch's own layers come from its global state alone
        drawn = torch.randint(2**62, (), generator=generator(seed, "weights", index))
        torch.default_generator.manual_seed(int(drawn))
        built = _redrawn(module) if isinstance(module, nn.Module) else module()
    if not isinstance(built, nn.Module):
        raise TypeError(f"module gave {type(built).__name__}; it must build a torch.nn.Module")
    for name, part in built.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats:
            raise ValueError(
                f"module has running statistics in {name or type(part).__name__!r}, which members cannot share: use "
                "LayerNorm or GroupNorm"
            )
    if not any(p.requires_grad for p in built.parameters()):
        raise ValueError("module has no parameter to fit: give one with parameters that require gradients")
    return built.eval()


def _redrawn(module: nn.Module) -> nn.Module:
    """A copy whose parts have reset their parameters."""
    copied = copy.deepcopy(module)
    for name, part in copied.named_modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
        elif any(p is not None for p in part._parameters.values()):
            raise ValueError(
                f"module: {name or type(part).__name__!r} has parameters but no reset_parameters to draw them anew; "
                "give a function that builds the module instead, as module=lambda: Network(...)"
            )
    return copied


def free_and_fixed(module: nn.Module) -> tuple[Tensors, Tensors]:
    """Parameters to fit, and all else that a module's output depends on, by name."""
    named = dict(module.named_parameters())
    free = {name: p.detach() for name, p in named.items() if p.requires_grad}
    fixed = {name: p.detach() for name, p in named.items() if not p.requires_grad}
    return free, fixed | dict(module.named_buffers())


def stacked(parts: list[Tensors]) -> Tensors:
    """Tensors of equal names and shapes, the new dimension first.

    Raises
    ------
    ValueError
        Where a function built modules of different shapes.
    """
    shapes = [{name: value.shape for name, value in part.items()} for part in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("module builds members of different shapes: each call must give the same architecture")
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def outputs(template: nn.Module, tensors: Tensors, x: Tensor) -> Tensor:
    """(K, B, ...) outputs for the same inputs (B, ...), for stacked tensors; differentiable.

    Raises
    ------
    ValueError
        Where the module cannot be run like this, or does not give a row of output for each row of input.
    """
    try:
        found: Any = vmap(lambda p: functional_call(template, p, (x,)))(tensors)
    except (RuntimeError, TypeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"module cannot be run for X of shape {tuple(x.shape)} over stacked parameters: {first}"
        ) from error
    if not isinstance(found, Tensor) or found.shape[1:2] != x.shape[:1]:
        what = tuple(found.shape[1:]) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"module gave {what} for X of shape {tuple(x.shape)}; it must give a row for each row of X")
    return found
