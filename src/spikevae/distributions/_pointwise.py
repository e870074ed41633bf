"""Elementwise functions that are sums over many nodes, without keeping the nodes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NODES_HELD = 1 << 21
"""Values of the integrand or summand held at once: cells are taken in blocks of about this many, which bounds memory
and stays within a processor's cache."""


class _Pointwise(torch.autograd.Function):
    """Values of `function`, whose nodes backward computes again; differentiable as often as `function` is."""

    @staticmethod
    def forward(function: Callable[..., tuple[Tensor, ...]], n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
        cells = max(1, NODES_HELD // n_nodes)
        blocks = [function(*block) for block in zip(*(v.reshape(-1).split(cells) for v in x))]
        return tuple(torch.cat(column).view(x[0].shape) for column in zip(*blocks))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.n_nodes = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            value, flat = ctx.function(*(v.reshape(-1) for v in x)), [g.reshape(-1) for g in grads]
            return None, None, *torch.autograd.grad(value, x, flat, create_graph=True)
        cells = max(1, NODES_HELD // ctx.n_nodes)
        blocks = []
        for block in zip(*(v.reshape(-1).split(cells) for v in (*x, *grads))):
            with torch.enable_grad():
                inputs = [v.detach().requires_grad_() for v in block[: len(x)]]
                value = ctx.function(*inputs)
            blocks.append(torch.autograd.grad(value, inputs, block[len(x) :]))
        return None, None, *(torch.cat(column).view(x[0].shape) for column in zip(*blocks))

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        function: Callable[..., tuple[Tensor, ...]],
        n_nodes: int,
        *x: Tensor,
    ) -> Any:
        lanes = [v.expand(info.batch_size, *v.shape) if d is None else v.movedim(d, 0) for v, d in zip(x, in_dims[2:])]
        values = _Pointwise.apply(function, n_nodes, *lanes)
        return values, (0,) * len(values)


def pointwise(function: Callable[..., tuple[Tensor, ...]], n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
    """Apply an elementwise function that needs `n_nodes` numbers a cell, some cells at a time.

    Parameters
    ----------
    function
        Takes tensors of one shape, flat, and returns a tuple of tensors of that shape, made with differentiable
        operations that do not mix cells.
    n_nodes
        Length of the extra axis that it makes.
    x
        Tensors that broadcast together; works in the lanes of `torch.func.vmap`.

    Examples
    --------
    >>> nodes = torch.arange(4.0)
    >>> (total,) = pointwise(lambda x: ((x[:, None] * nodes).sum(-1),), 4, torch.ones(2))
    >>> total
    tensor([6., 6.])
    """
    values: tuple[Tensor, ...] = _Pointwise.apply(function, n_nodes, *torch.broadcast_tensors(*x))
    return values
