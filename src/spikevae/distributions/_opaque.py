"""Calls that a traced graph keeps as one operation, whatever they do inside.

Graphs (`training/recorded.py`) are traced with tensors that have a shape and no values, so tracing cannot follow a
function that reads values, calls other libraries or changes a generator's state. Such a function becomes one operation
of the graph, and is called at every replay.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[Tensor, ...]]


def opaque(function: Function, argument: Tensor) -> tuple[Tensor, ...]:
    """`function(argument)`; while tracing, its outputs have the shapes that they have for an argument of zeros."""
    if type(argument) is Tensor:
        return function(argument)
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, track_tensor_tree

    mode = get_proxy_mode()
    if mode is None:
        return function(argument)
    with disable_proxy_modes_tracing():
        with unset_fake_temporarily():
            outputs = function(_like(argument).zero_())
        placeholders = tuple(map(_like, outputs))

    def call_again(argument: Tensor) -> tuple[Tensor, ...]:
        return function(argument)

    tracer: Any = mode.tracer
    call = tracer.create_proxy("call_function", call_again, (tracer.unwrap_proxy(argument),), {})
    tracked: Any = track_tensor_tree(placeholders, call, constant=None, tracer=tracer)
    return tracked


def _like(x: Tensor) -> Tensor:
    """An uninitialised tensor of the same shape, strides, type and device."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
