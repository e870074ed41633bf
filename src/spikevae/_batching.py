"""The batch dimension of `torch.func.vmap` in autograd functions with a hand-written derivative.

`torch.func.vmap` needs a rule for each such function. Those of this package work with any number of leading
dimensions, so all have the same rule: the batch dimension becomes the first of every tensor, and
the function is called once.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def batch_first(batch_size: int, in_dims: tuple[int | None, ...], inputs: tuple[Any, ...]) -> list[Any]:
    """Inputs with the batch dimension first; tensors without one are expanded, other arguments do not change.

    Parameters
    ----------
    batch_size
        Length of the batch dimension.
    in_dims
        For each input the index of its batch dimension, None if it has none.
    inputs
        Tensors, and other arguments.

    Examples
    --------
    >>> [tuple(x.shape) for x in batch_first(4, (1, None), (torch.zeros(3, 4), torch.zeros(3)))]
    [(4, 3), (4, 3)]
    """
    return [
        x if not isinstance(x, Tensor) else x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, in_dims)
    ]


def batched_like(x: Float[Tensor, "*#shape"], like: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """x broadcast with `like`; under `torch.func.vmap` with a batch dimension wherever `like` has one.

    Random draws need it: for a parameter without a batch dimension, one draw would be used for the whole batch.
    """
    return x + torch.zeros_like(like)


class BatchedFunction(torch.autograd.Function):
    """An autograd function whose `forward` and `backward` work with any number of leading dimensions; abstract.

    Its input tensors are of equal rank, or are indexed from the last dimension; its output tensors keep the
    leading dimensions.
    """

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """One call for the whole batch."""
        outputs = cls.apply(*batch_first(info.batch_size, in_dims, inputs))
        return outputs, (0,) * len(outputs) if isinstance(outputs, tuple) else 0
