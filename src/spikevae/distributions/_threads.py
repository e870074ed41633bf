"""Compiled functions on several threads of a CPU, as many as PyTorch uses.

The threads stay: starting one takes as long as a hundred thousand elements.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")


@cache
def _helpers(n: int) -> ThreadPoolExecutor:
    """n threads beside the calling one."""
    return ThreadPoolExecutor(n, thread_name_prefix="spikevae")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not survive a fork


def in_shares(function: Callable[[int, int], Result], n_parts: int) -> list[Result]:
    """Results of `function(first, last)` for consecutive ranges of the parts, one range per thread, in order.

    `function` holds Python's lock as little as it can; it must not call `in_shares` itself.

    Examples
    --------
    >>> sum(in_shares(lambda first, last: sum(range(first, last)), 10))
    45
    """
    most = torch.get_num_threads()
    n_threads = max(1, min(most, n_parts))
    ends = [n_parts * i // n_threads for i in range(n_threads + 1)]
    if n_threads == 1:
        return [function(*ends)]
    helpers = _helpers(most - 1)  # the same for any number of parts, so that few threads stay
    others = [helpers.submit(function, *share) for share in pairwise(ends[1:])]
    own = function(*ends[:2])
    return [own, *(other.result() for other in others)]
