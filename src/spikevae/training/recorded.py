"""A function of tensors, recorded once and run again as the plain list of operations it came to.

Modules, autograd and `torch.func.vmap` decide anew at every call what is to be computed; for small models the deciding
takes longer than the computing. A recording keeps the operations of one call, those of its backward pass among them,
and runs them on other tensors of the same shapes: the same numbers to the bit, without the deciding.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

AFTER, WORTH = 20, 300
"""Calls before one is recorded, and how many must be left: a recording takes the time that a hundred replays save."""


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
        Calls to expect.

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
            self.is_recorded = _identical(result, self._operations(*arguments))
            self._operations = self._operations if self.is_recorded else None
        elif self._n_calls == AFTER and self.n_calls - AFTER >= WORTH:
            with suppress(Exception):  # were the function wrong by itself, the call above would have failed
                self._operations = make_fx(
                    lambda *tensors: self.function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True
                )(*arguments)
        return result


def _identical(first: Any, second: Any) -> bool:
    """Whether two results are the same in structure and in every bit, save for which NaN is which."""
    ours, theirs = tree_leaves(first), tree_leaves(second)
    return len(ours) == len(theirs) and all(
        a is b if a is None or b is None else a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
        for a, b in zip(ours, theirs)
    )
