"""A function of tensors, traced once into a graph of tensor operations that is then replayed.

Modules, autograd and `torch.func.vmap` repeat their Python code and dispatch at every call; for small models this takes
longer than the tensor operations. A traced graph holds the operations of one call and of its backward pass, and is
replayed on other tensors of the same shapes: the same numbers to the bit, without that overhead.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

CALLS_BEFORE_TRACE, MIN_CALLS_LEFT = 20, 500
"""Number of the call that is traced, and how many must be left: tracing costs what hundreds of replays save."""

TRACE_LOCK = threading.Lock()
"""While it traces, torch changes how modules are called in the whole process."""


class Recorded:
    """`function`, traced at its call number `CALLS_BEFORE_TRACE` and replayed from then on if that gives equal numbers.

    Tensors have no values while `function` is traced. A function that needs values (a branch, a loop until convergence)
    cannot be traced: it is always called as it is. So is a function whose first replay, on the tensors of the next
    call, differs from its own result in any bit: it depends on something that is not among its arguments.

    Parameters
    ----------
    function
        Takes and returns tensors in lists, tuples and dictionaries. It may differentiate inside; its results carry no
        gradient. Shapes, types and devices are the same at every call.
    n_calls
        Expected number of calls; may be changed later.

    Examples
    --------
    >>> import torch
    >>> square = Recorded(lambda x: x * x, 1000)
    >>> all(bool(square(torch.tensor(3.0)) == 9) for _ in range(CALLS_BEFORE_TRACE + 2)), square.is_recorded
    (True, True)
    """

    def __init__(self, function: Callable[..., Any], n_calls: int) -> None:
        self.function, self.n_calls = function, n_calls
        self.is_recorded = False
        """Whether calls replay the traced graph."""
        self._graph: Callable[..., Any] | None = None
        self._n_calls = 0

    def __call__(self, *arguments: Any) -> Any:
        if self.is_recorded:
            assert self._graph is not None
            return self._graph(*arguments)
        result = self.function(*arguments)
        self._n_calls += 1
        if self._graph is not None:
            self.is_recorded = self._replay_equals(arguments, result)
            self._graph = self._graph if self.is_recorded else None
        elif self._n_calls == CALLS_BEFORE_TRACE and self.n_calls - CALLS_BEFORE_TRACE >= MIN_CALLS_LEFT:
            with suppress(Exception):  # it cannot be traced; its own errors are raised by the call above
                self._graph = self._trace(arguments)
        return result

    def _trace(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        with TRACE_LOCK:
            traced = make_fx(
                lambda *tensors: self.function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True
            )(*arguments)
        for node in traced.graph.nodes:
            if node.target is torch.ops.aten.detach.default:  # gradients are already part of the graph
                node.replace_all_uses_with(node.args[0])
                traced.graph.erase_node(node)
        traced.recompile()
        return traced

    def _replay_equals(self, arguments: tuple[Any, ...], result: Any) -> bool:
        """Whether a replay gives this result."""
        assert self._graph is not None
        with suppress(Exception):
            expected, replayed = tree_leaves(result), tree_leaves(self._graph(*arguments))
            return len(expected) == len(replayed) and all(map(_identical, expected, replayed))
        return False


def _identical(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors are the same in layout and in every number."""
    if a is None or b is None:
        return a is b
    alike = (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
    return alike and bool(((a == b) | (a.isnan() & b.isnan())).all())
