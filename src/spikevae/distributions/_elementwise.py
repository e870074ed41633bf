"""Elementwise functions that are sums over many nodes, without keeping the nodes in memory."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._batching import BatchedFunction

MAX_NODES_IN_MEMORY = 1 << 19
"""Most values of the integrand or summand in memory at once: elements are processed in blocks with about so many nodes,
which fit into a processor's cache (2 MiB in float32)."""


Function = Callable[..., tuple[Tensor, ...]]
Derivatives = Callable[..., tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]]


class _Elementwise(BatchedFunction):
    """Values of `function`; backward computes the nodes again. Differentiable as often as `function` is."""

    @staticmethod
    def forward(function: Function, n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
        n_elements = max(1, MAX_NODES_IN_MEMORY // n_nodes)
        blocks = [function(*block) for block in zip(*(v.reshape(-1).split(n_elements) for v in x))]
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
        n_elements = max(1, MAX_NODES_IN_MEMORY // ctx.n_nodes)
        blocks = []
        for block in zip(*(v.reshape(-1).split(n_elements) for v in (*x, *grads))):
            with torch.enable_grad():
                inputs = [v.detach().requires_grad_() for v in block[: len(x)]]
                value = ctx.function(*inputs)
            blocks.append(torch.autograd.grad(value, inputs, block[len(x) :]))
        return None, None, *(torch.cat(column).view(x[0].shape) for column in zip(*blocks))


class _ElementwiseWithDerivatives(BatchedFunction):
    """Values and derivatives from one pass over the nodes; second derivatives are those of `function`."""

    @staticmethod
    def forward(function: Function, derivatives: Derivatives, n_nodes: int, *x: Tensor) -> tuple[Tensor, ...]:
        n_elements = max(1, MAX_NODES_IN_MEMORY // n_nodes)
        blocks = []
        for block in zip(*(v.reshape(-1).split(n_elements) for v in x)):
            values, jacobian = derivatives(*block)
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


def elementwise(
    function: Function, n_nodes: int, *x: Float[Tensor, "*#shape"], derivatives: Derivatives | None = None
) -> tuple[Float[Tensor, "*shape"], ...]:
    """Apply an elementwise function that needs `n_nodes` numbers per element, to a block of elements at a time.

    Parameters
    ----------
    function
        Takes flat tensors of one shape and returns a tuple of tensors of that shape, made with differentiable
        operations that do not mix elements.
    n_nodes
        Length of the extra dimension that `function` uses.
    x
        Tensors that broadcast together; also inside `torch.func.vmap`.
    derivatives
        Given where all derivatives follow from the same nodes at little cost: takes what `function` takes and returns
        its values, and for each value its derivatives by each of the inputs.

    Examples
    --------
    >>> nodes = torch.arange(4.0)
    >>> (total,) = elementwise(lambda x: ((x[:, None] * nodes).sum(-1),), 4, torch.ones(2))
    >>> total
    tensor([6., 6.])
    """
    x = torch.broadcast_tensors(*x)
    differentiable = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()  # both can hold
    if derivatives is None or not differentiable:
        values: tuple[Tensor, ...] = _Elementwise.apply(function, n_nodes, *x)
        return values
    found: tuple[Tensor, ...] = _ElementwiseWithDerivatives.apply(function, derivatives, n_nodes, *x)
    return found[: len(found) // (1 + len(x))]
