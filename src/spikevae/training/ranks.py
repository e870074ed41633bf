"""Exchange between the processes of data-parallel training.

Numbers travel as tensors, all else as JSON. Every method is called by all processes, in the same order.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor


class RanksLost(RuntimeError):
    """Training cannot go on, because one of its processes has ended or is out of step."""


class Ranks:
    """The processes that train together; each has a number, its rank, and the first one runs the program.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    size
        Number of processes, 2 or more; a process group of `torch.distributed` joins them.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.failure: str | None = None
        """Why the processes are out of step; None while they are not."""
        self.stimuli: str | None = None
        """Checksum of the stimuli that the first process has sent last."""

    def rows(self, n: int) -> slice:
        """The rows of this process among the n rows of a batch; all processes have equally many."""
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Means over the processes of tensors of one type and device, by one exchange of all of them together."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._exchange(lambda group: group.all_reduce(flat))
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the processes."""
        total = tensor.clone()
        self._exchange(lambda group: group.all_reduce(total))
        return total

    def gather(self, part: Tensor) -> Tensor:
        """The rows of all processes, in their order, where each has equally many rows `part`."""
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        self._exchange(lambda group: group.all_gather(parts, part))
        return torch.cat(parts)

    def flag(self, value: bool) -> bool:
        """The truth value of the first process; what the others give is not used."""
        flag = torch.tensor([value], dtype=torch.uint8)
        self._broadcast(flag)
        return bool(flag)

    def send(self, message: Any) -> Any:
        """The message of the first process, JSON values; what the others give is not used."""
        content = json.dumps(message).encode()
        length = torch.tensor([len(content)])
        self._broadcast(length)
        text = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        text = text if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(text)
        return json.loads(text.numpy().tobytes())

    def send_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors of the first process, on the CPU; the others give None."""
        given = tensors or {}
        facts = {name: [*value.shape, str(value.dtype).removeprefix("torch.")] for name, value in given.items()}
        received = {}
        for name, (*shape, dtype) in self.send(facts).items():
            value = given[name].contiguous() if self.rank == 0 else torch.empty(shape, dtype=getattr(torch, dtype))
            if value.numel():
                self._broadcast(value)
            received[name] = value
        return received

    def _broadcast(self, tensor: Tensor) -> None:
        """Overwrite the tensor with that of the first process."""
        self._exchange(lambda group: group.broadcast(tensor, 0))

    def _exchange(self, call: Callable[[Any], object]) -> None:
        """Call a function of `torch.distributed`."""
        if self.failure is not None:
            raise RanksLost(
                f"the processes that train together are out of step: {self.failure}; start all of them again"
            )
        try:
            call(torch.distributed)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failure = f"another process has ended ({error})"
            raise RanksLost(
                f"process {self.rank} of {self.size} cannot go on: another one has ended, and its message says why. "
                "The same command continues from the last checkpoint"
            ) from error


_active: ContextVar[Ranks | None] = ContextVar("ranks", default=None)


def active_ranks() -> Ranks | None:
    """The processes that train together with this one; None where it trains alone."""
    return _active.get()


@contextmanager
def activated(ranks: Ranks) -> Iterator[None]:
    """Let training of this thread use these processes."""
    token = _active.set(ranks)
    try:
        yield
    finally:
        _active.reset(token)
