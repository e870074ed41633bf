"""The fits of a path: their prices, their steps and the order in which they start from each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models._model import Model
from ..models.codes import get_code
from ..models.config import ModelConfig
from ..training import Stack

FIRST_PRICE, LAST_PRICE = 0.01, 3.0
"""Smallest and largest positive spike price, as multiples of beta."""
FITS_FOR_PRICES = 3.0
"""Training time of all fits with a price by default, in single fits."""

Progress = Callable[[float, float, str], None]


def why_not(config: ModelConfig) -> str | None:
    """Why a configuration has no frontier, and what to drop; None where it has one."""
    if not get_code(config.latent).has_rate:
        return f"a frontier needs a latent with a firing rate, which {config.latent!r} lacks"
    if config.spike_price > 0 or config.has_budget:
        return "a frontier sets the spike price: drop spike_price, spike_budget and energy_budget"
    if config.beta <= 0:
        return "a frontier needs beta above zero, of which its prices are multiples"
    return None


def check(configs: Sequence[ModelConfig], n_prices: int) -> None:
    """Refuse configurations that have no frontier.

    Raises
    ------
    ValueError
        With what to drop.
    """
    if not configs:
        raise ValueError("a frontier needs at least one beta")
    if n_prices < 3:
        raise ValueError(f"n_prices is {n_prices}; a path has at least 3 prices")
    for config in configs:
        if (reason := why_not(config)) is not None:
            raise ValueError(reason)
    if len({c.beta for c in configs}) < len(configs):
        raise ValueError("a frontier needs each beta once")


def price_at(index: int, n_prices: int) -> float:
    """Spike price number `index` of a path, as a multiple of beta.

    Examples
    --------
    >>> [round(price_at(i, 4), 3) for i in range(4)]
    [0.0, 0.01, 0.173, 3.0]
    """
    if index == 0:
        return 0.0
    share = (index - 1) / max(1, n_prices - 2)
    return FIRST_PRICE * (LAST_PRICE / FIRST_PRICE) ** share


def label_of(config: ModelConfig) -> str:
    """Distribution and inference, for titles."""
    label = get_code(config.latent).label
    return label if config.inference == "amortised" else f"{label}, {config.inference}"


@dataclass(frozen=True)
class Path:
    """The stacks of a path."""

    configs: Sequence[ModelConfig]
    train: Tensor
    shape: tuple[int, ...]
    n_prices: int
    device: torch.device | str
    fits: float = FITS_FOR_PRICES
    """Training time of all fits with a price, in single fits."""
    given: Sequence[Model] | None = None
    """The fits without a price, where they are trained already."""

    @property
    def first_steps(self) -> int:
        """Steps of the fit without a price."""
        return self.configs[0].n_steps(len(self.train))

    @property
    def steps_per_price(self) -> int:
        """Steps of every other fit, which starts from the one before."""
        return max(1, min(self.first_steps, int(self.fits * self.first_steps / (self.n_prices - 1))))

    def stack(self, index: int) -> Stack:
        """Fits at price number `index`, before their first step."""
        fits = [self._at_price(config, index) if index else config for config in self.configs]
        if index == 0 and self.given is not None:  # weights follow
            fits = [config.model_copy(update={"init": "random"}) for config in fits]
        stack = Stack(fits, self.train, self.shape, device=self.device)
        if index == 0 and self.given is not None:
            stack.start_from(self.given)
        return stack

    def _at_price(self, config: ModelConfig, index: int) -> ModelConfig:
        price = config.beta * price_at(index, self.n_prices)
        update = {"spike_price": price, "steps": self.steps_per_price, "epochs": None, "cycles": 1, "init": "random"}
        return config.model_copy(update=update)

    def report(self, index: int, stack: Stack, progress: Progress | None) -> Callable[[int], None] | None:
        """Function for the training loop that reports the progress of the whole path."""
        if progress is None:
            return None
        first = 0 if self.given is not None else self.first_steps
        before = first + (index - 1) * self.steps_per_price if index else 0
        total = first + (self.n_prices - 1) * self.steps_per_price
        return lambda _: progress(before + stack.step_number, total, f"price {index + 1} of {self.n_prices}")
