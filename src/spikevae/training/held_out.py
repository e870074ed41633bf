"""Stimuli held out of training: the parameters that a fit keeps are those with the lowest objective on them."""

import math
from collections.abc import Callable, Mapping
from itertools import chain

import torch
from torch import Tensor

from .._seeds import generator
from ..models._model import Model
from .rows import SAMPLE_BYTES, Rows

MAX_HELD_OUT = 5000
"""Stimuli that are held out, at most."""


def split(train: Tensor | Rows, fraction: float) -> tuple[Tensor | Rows, Tensor]:
    """Stimuli to train on, and those held out, (n, D): the same ones for every seed.

    Raises
    ------
    ValueError
        Where nothing is left to train on.

    Examples
    --------
    >>> rest, held_out = split(torch.arange(20.0).reshape(10, 2), 0.2)
    >>> len(rest), len(held_out)
    (8, 2)
    """
    n = len(train)
    most = min(MAX_HELD_OUT, max(1, SAMPLE_BYTES // (4 * train.shape[1])))
    n_held_out = min(math.ceil(fraction * n), most)
    if n_held_out >= n:
        raise ValueError(
            f"validation_fraction = {fraction:g} leaves none of {n} stimuli to train on: give more stimuli"
        )
    held_out, rest = _places(n, n_held_out)
    if isinstance(train, Rows):
        return train.only(rest), train.gather(held_out)
    return train[rest.to(train.device)], train[held_out.to(train.device)]


def rejoined(rest: Tensor, held_out: Tensor) -> Tensor:
    """The stimuli (n, D) that :func:`split` has split.

    Examples
    --------
    >>> x = torch.arange(20.0).reshape(10, 2)
    >>> torch.equal(rejoined(*split(x, 0.2)), x)
    True
    """
    n = len(rest) + len(held_out)
    whole = rest.new_empty(n, *rest.shape[1:])
    for places, part in zip(_places(n, len(held_out)), (held_out, rest)):
        whole[places.to(whole.device)] = part
    return whole


def _places(n: int, n_held_out: int) -> tuple[Tensor, Tensor]:
    """Increasing row numbers of the stimuli held out, and of the others."""
    order = torch.randperm(n, generator=generator(0, "held_out"))
    held_out, rest = order.split([n_held_out, n - n_held_out])
    return held_out.sort().values, rest.sort().values


class HeldOut:
    """The objective of held-out stimuli over the training of F fits, and the parameters of each where it was lowest.

    Parameters
    ----------
    x
        (n, D) held-out stimuli.
    tensors
        What is kept: parameters and buffers, each with a leading fit dimension.
    """

    def __init__(self, x: Tensor, tensors: Mapping[str, Tensor]) -> None:
        self.x = x
        self.kept = {name: value.detach().clone() for name, value in tensors.items()}
        n_fits = len(next(iter(self.kept.values())))
        self.best = torch.full((n_fits,), math.inf, dtype=torch.float64, device=x.device)
        self.windows: list[Tensor] = []

    def measure(self, objective: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        """(F,) means over all held-out stimuli of an objective of some of them, (m, D) to (F,)."""
        parts = [objective(part).double() * len(part) for part in self.x.split(batch_size)]
        return torch.stack(parts).sum(0) / len(self.x)

    def keep(self, objective: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of fits whose objective (F,) is lower than it was before; none where it is NaN."""
        better = objective < self.best
        self.best = torch.where(better, objective, self.best)
        for name, value in self.kept.items():
            value.copy_(torch.where(better.view(-1, *[1] * (value.dim() - 1)), tensors[name].detach(), value))

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the fits the tensors that were kept, where any were."""
        some = torch.isfinite(self.best)
        for name, value in tensors.items():
            kept = self.kept[name]
            value.copy_(torch.where(some.view(-1, *[1] * (kept.dim() - 1)), kept, value))

    @torch.no_grad()
    def fill(self, model: Model, index: int) -> None:
        """Copy what was kept of fit number `index`, if anything was, to a model on the CPU."""
        if not torch.isfinite(self.best[index]):
            return
        for name, value in chain(model.named_parameters(), model.named_buffers()):
            if name != "spike_price":
                value.copy_(self.kept[name][index])

    def state(self) -> dict[str, Tensor]:
        """Tensors that :meth:`load` takes back."""
        windows = torch.stack(self.windows) if self.windows else torch.zeros(0, len(self.best), dtype=torch.float64)
        kept = {f"held_out/kept/{name}": value for name, value in self.kept.items()}
        return {"held_out/windows": windows, "held_out/best": self.best, **kept}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to a :meth:`state`."""
        self.windows = list(tensors["held_out/windows"])
        self.best = tensors["held_out/best"].to(self.best).clone()
        for name, value in self.kept.items():
            value.copy_(tensors[f"held_out/kept/{name}"])
