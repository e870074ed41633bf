"""Elementwise functions that are sums over many nodes, without keeping the nodes."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._batching import BatchedFunction

NODES_HELD = 1 << 19
"""Values of the integrand or summand held at once: cells are taken in blocks of about this many, which bounds memory
and keeps them in a processor's cache (2 MiB in float32)."""


Function = Callable[..., tuple[Tensor, ...]]
Slopes = Callable[..., tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]]


class _Pointwise(BatchedFunction):
    """Values of `function`, whose nodes backward computes again; differentiable as often as `function` is."""

    @staticmethod
    def forward(function: Function, n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
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


class _Sloped(BatchedFunction):
    """Values and derivatives from one pass over the nodes; a second derivative is that of `function`."""

    @staticmethod
    def forward(function: Function, slopes: Slopes, n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
        cells = max(1, NODES_HELD // n_nodes)
        blocks = []
        for block in zip(*(v.reshape(-1).split(cells) for v in x)):
            values, jacobian = slopes(*block)
            blocks.append((*values, *(entry for row in jacobian for entry in row)))
        return tuple(torch.cat(column).view(x[0].shape) for column in zip(*blocks))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, x = inputs[0], inputs[3:]
        ctx.n_inputs, ctx.n_values = len(x), len(output) // (1 + len(x))
        derivatives = output[ctx.n_values :]
        ctx.mark_non_differentiable(*derivatives)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*x, *derivatives)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        n, (x, derivatives) = ctx.n_inputs, (ctx.saved_tensors[: ctx.n_inputs], ctx.saved_tensors[ctx.n_inputs :])
        given = [(place, grad) for place, grad in enumerate(grads[: ctx.n_values]) if grad is not None]
        if not given:
            return (None,) * (3 + n)
        if torch.is_grad_enabled():  # a second derivative is wanted
            value = ctx.function(*(v.reshape(-1) for v in x))
            chosen, flat = [value[place] for place, _ in given], [grad.reshape(-1) for _, grad in given]
            return None, None, None, *torch.autograd.grad(chosen, x, flat, create_graph=True, materialize_grads=True)
        totals: list[Tensor | None] = []
        for i in range(n):
            first, grad = given[0]
            total = grad * derivatives[first * n + i]
            for place, grad in given[1:]:
                total.addcmul_(grad, derivatives[place * n + i])
            totals.append(total)
        return None, None, None, *totals


def pointwise(
    function: Function, n_nodes: int, *x: Float[Tensor, "*#shape"], slopes: Slopes | None = None
) -> tuple[Float[Tensor, "*shape"], ...]:
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
    slopes
        Where all derivatives come out of the same nodes at little cost: takes what `function` takes and returns its
        values, and for each value its derivatives by each of the inputs.

    Examples
    --------
    >>> nodes = torch.arange(4.0)
    >>> (total,) = pointwise(lambda x: ((x[:, None] * nodes).sum(-1),), 4, torch.ones(2))
    >>> total
    tensor([6., 6.])
    """
    if slopes is None or not torch.is_grad_enabled():
        values: tuple[Tensor, ...] = _Pointwise.apply(function, n_nodes, *torch.broadcast_tensors(*x))
        return values
    found: tuple[Tensor, ...] = _Sloped.apply(function, slopes, n_nodes, *torch.broadcast_tensors(*x))
    return found[: len(found) // (1 + len(x))]
