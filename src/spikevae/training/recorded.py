"""A function of tensors, recorded once and run again as the plain list of operations it came to.

Modules, autograd and `torch.func.vmap` decide anew at every call what is to be computed; for small models the deciding
takes longer than the computing. A recording keeps the operations of one call, those of its backward pass among them,
and runs them on other tensors of the same shapes: the same numbers to the bit, without the deciding.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

AFTER, WORTH = 20, 500
"""Calls before one is recorded, and how many must be left: a recording takes the time of a few hundred savings."""

ONE_AT_A_TIME = threading.Lock()
"""While it records, torch changes how modules are called in the whole process."""


class Recorded:
    """`function`, run as a recording from its call number `AFTER` on wherever that gives the same numbers.

    Recording is done with tensors that have no values. A function that asks for one (a branch, a loop until
    convergence) cannot be recorded and is called as it is, for ever. So is one whose first replay, on the tensors of
    the next call, differs from its own result in any bit: it depends on something that is not among its arguments.

    Parameters
    ----------
    function
        Of tensors in lists, tuples and dictionaries, to the same. It may differentiate inside; what it returns carries
        no gradient. Shapes, types and devices are the same at every call.
    n_calls
        Calls to expect; may be set anew.

    Examples
    --------
    >>> import torch
    >>> square = Recorded(lambda x: x * x, 1000)
    >>> all(bool(square(torch.tensor(3.0)) == 9) for _ in range(AFTER + 2)), square.is_recorded
    (True, True)
    """

    def __init__(self, function: Callable[..., Any], n_calls: int) -> None:
        self.function, self.n_calls = function, n_calls
        self.is_recorded = False
        """Whether calls run the recording."""
        self._operations: Callable[..., Any] | None = None
        self._n_calls = 0

    def __call__(self, *arguments: Any) -> Any:
        if self.is_recorded:
            assert self._operations is not None
            return self._operations(*arguments)
        result = self.function(*arguments)
        self._n_calls += 1
        if self._operations is not None:
            self.is_recorded = self._replays(arguments, result)
            self._operations = self._operations if self.is_recorded else None
        elif self._n_calls == AFTER and self.n_calls - AFTER >= WORTH:
            with suppress(Exception):  # were the function wrong by itself, the call above would have failed
                self._operations = self._record(arguments)
        return result

    def _record(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        with ONE_AT_A_TIME:
            recording = make_fx(
                lambda *tensors: self.function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True
            )(*arguments)
        for node in recording.graph.nodes:
            if node.target is torch.ops.aten.detach.default:  # nothing is differentiated any more
                node.replace_all_uses_with(node.args[0])
                recording.graph.erase_node(node)
        recording.recompile()
        return recording

    def _replays(self, arguments: tuple[Any, ...], result: Any) -> bool:
        """Whether the recording gives this result."""
        assert self._operations is not None
        with suppress(Exception):
            ours, theirs = tree_leaves(result), tree_leaves(self._operations(*arguments))
            return len(ours) == len(theirs) and all(map(_identical, ours, theirs))
        return False


def _identical(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors are the same in layout and in every number."""
    if a is None or b is None:
        return a is b
    alike = (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
    return alike and bool(((a == b) | (a.isnan() & b.isnan())).all())
