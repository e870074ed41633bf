"""Calls that a recording of tensor operations keeps as one operation, whatever they do inside.

Recordings (`training/recorded.py`) are made with tensors that have a shape and no values, so they cannot follow a
function that looks at values, calls other libraries or has a generator's state. Such a function is written into the
recording itself, and called at every replay.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[Tensor, ...]]


def opaque(function: Function, argument: Tensor) -> tuple[Tensor, ...]:
    """`function(argument)`; while recording, its outputs have the shapes they have for an argument of zeros."""
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
        stand_ins = tuple(map(_like, outputs))

    def call_again(argument: Tensor) -> tuple[Tensor, ...]:
        return function(argument)

    tracer: Any = mode.tracer
    call = tracer.create_proxy("call_function", call_again, (tracer.unwrap_proxy(argument),), {})
    tracked: Any = track_tensor_tree(stand_ins, call, constant=None, tracer=tracer)
    return tracked


def _like(x: Tensor) -> Tensor:
    """A tensor of this layout."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
