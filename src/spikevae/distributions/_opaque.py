"""Calls that a traced graph keeps as one operation, whatever they do inside.

Graphs (`training/recorded.py`) are traced with tensors that have a shape and no values, so tracing cannot follow a
function that reads values, calls other libraries or changes a generator's state. Such a function becomes one operation
of the graph, and is called at every replay.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, track_tensor_tree

Function = Callable[..., tuple[Tensor, ...]]


def opaque(function: Function, *arguments: Tensor) -> tuple[Tensor, ...]:
    """`function(*arguments)`; while tracing, its outputs have the shapes that they have for arguments of zeros."""
    mode = get_proxy_mode()
    fake = next((argument.fake_mode for argument in arguments if isinstance(argument, FakeTensor)), None)
    if mode is None and fake is None:
        return function(*arguments)
    with disable_proxy_modes_tracing():
        if fake is None:
            placeholders = function(*arguments)
        else:
            with unset_fake_temporarily():
                outputs = function(*(_like(argument).zero_() for argument in arguments))
            with fake:
                placeholders = tuple(map(_like, outputs))
    if mode is None:
        return placeholders

    def call_again(*arguments: Tensor) -> tuple[Tensor, ...]:
        return function(*arguments)

    tracer: Any = mode.tracer
    call = tracer.create_proxy("call_function", call_again, tuple(map(tracer.unwrap_proxy, arguments)), {})
    tracked: Any = track_tensor_tree(placeholders, call, constant=None, tracer=tracer)
    return tracked


def _like(x: Tensor) -> Tensor:
    """An uninitialised tensor of the same shape, strides, type and device."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
