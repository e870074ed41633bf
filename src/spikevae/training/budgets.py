"""Budgets of spikes or joules: the spike price at which a fit keeps to its budget, found while it trains.

A fit with a budget minimises its objective subject to ``expected spikes per stimulus <= budget``. The Lagrange
multiplier of the constraint is a spike price; at the optimum it is the shadow price: the nats of the objective that one
more spike per stimulus would save. It is found by dual ascent: after each step the price rises where the batch had more
spikes than the budget, and falls, to zero if need be, where it had fewer.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from ..evaluation.prices import joules_per_spike
from ..models._model import Model
from ..models.config import ModelConfig

PRICE_SCALE = 0.02
"""Spike price, as a multiple of beta, up to which the price moves by amounts and above which it moves by factors."""
MIN_BETA = 0.05
"""Smallest beta from which this scale is taken."""
INTEGRAL_GAIN, PROPORTIONAL_GAIN = 0.05, 10.0
"""Change of the price, on that scale, per unit of log(spikes / budget): at each step to stay, and for the moment."""
MAX_ERROR = 1.0
"""Largest log(spikes / budget), in size, that the integral part takes: larger ones would overshoot."""
AVERAGED_STEPS = 10
"""Steps over which the spikes of batches are averaged."""
APPROACH = 0.3
"""Share of training over which the target falls from the spikes of the first batch to the budget."""
MAX_SCALED_PRICE = 16.0
"""Largest price on that scale: 1.8e5 times beta."""
TOLERANCE = 0.02
"""Relative difference from the budget within which it counts as met."""
N_COUNTED = 5000
"""Training stimuli on which a finished fit's spikes are counted."""


def spikes_allowed(config: ModelConfig) -> float:
    """Budget in expected spikes per stimulus, all units together; infinite without a budget."""
    if config.energy_budget is not None:
        return config.energy_budget / joules_per_spike(config.energy_level)
    if config.spike_budget is None:
        return math.inf
    return config.spike_budget * (config.n_units if config.budget_per == "unit" else 1)


class Budgets:
    """Spike prices of the fits of a stack, updated after each step; fits without a budget keep theirs.

    Parameters
    ----------
    configs
        One per fit.
    like
        A tensor of the dtype and device of the prices.
    """

    NAMES = ("prices", "integral", "spikes", "first")

    def __init__(self, configs: Sequence[ModelConfig], like: Tensor) -> None:
        self.allowed = torch.tensor([spikes_allowed(c) for c in configs], dtype=torch.float64, device=like.device)
        self.limited = self.allowed.isfinite()
        self.any = any(c.has_budget for c in configs)
        beta = torch.tensor([c.beta for c in configs], dtype=torch.float64, device=like.device)
        self.scale = PRICE_SCALE * beta.clamp_min(MIN_BETA)
        self.prices = torch.tensor([c.spike_price for c in configs], dtype=like.dtype, device=like.device)
        """(F,) spike prices, nats per spike."""
        self.integral = torch.zeros_like(self.scale)
        """(F,) value of log(1 + price / scale) at which spikes and target are equal, as found so far."""
        self.spikes, self.first = torch.zeros_like(self.scale), torch.zeros_like(self.scale)
        """(F,) running mean of the spikes, and spikes of the first batch."""

    def update(self, spikes: Tensor, running: Tensor, *, step: int, n_steps: int, speed: float) -> None:
        """Update the prices of running fits after a step.

        Parameters
        ----------
        spikes
            (F,) expected spikes per stimulus of the batch.
        running
            (F,) fits that take part.
        step, n_steps
            Steps before this one, and of the whole training.
        speed
            Learning rate of this step as a share of its peak.
        """
        spikes = spikes.double().clamp_min(1e-30)
        if step == 0:
            self.first = self.spikes = spikes
        self.spikes = torch.where(running, torch.lerp(self.spikes, spikes, 1 / AVERAGED_STEPS), self.spikes)
        approached = min(1.0, step / (APPROACH * n_steps))
        target = torch.where(
            self.first > self.allowed, self.first ** (1 - approached) * self.allowed**approached, self.allowed
        )
        error = (self.spikes / target).log()
        moves = self.limited & running
        change = INTEGRAL_GAIN * math.sqrt(speed) * error.clamp(-MAX_ERROR, MAX_ERROR)
        self.integral = torch.where(moves, (self.integral + change).clamp(0.0, MAX_SCALED_PRICE), self.integral)
        scaled = (self.integral + PROPORTIONAL_GAIN * error).clamp(0.0, MAX_SCALED_PRICE)
        self.prices = torch.where(moves, (self.scale * scaled.expm1()).to(self.prices.dtype), self.prices)

    def found(self) -> Tensor:
        """(F,) spike prices without the part that follows the spikes of the last steps: multipliers of the budgets."""
        return torch.where(self.limited, (self.scale * self.integral.expm1()).to(self.prices.dtype), self.prices)

    def state(self) -> dict[str, Tensor]:
        """Tensors that :meth:`load` takes back."""
        return {f"budget/{name}": getattr(self, name) for name in self.NAMES}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a :meth:`state`."""
        for name in self.NAMES:
            own = getattr(self, name)
            setattr(self, name, tensors[f"budget/{name}"].to(own).clone())


@dataclass(frozen=True)
class BudgetReport:
    """How a trained fit stands to its budget."""

    spikes_allowed: float
    """Budget, spikes per stimulus over all units."""
    spikes_used: float
    """Expected spikes per stimulus, on training stimuli."""
    shadow_price: float
    """Nats of the objective that one more spike per stimulus would save; zero where the budget does not bind."""
    shadow_price_per_joule: float
    """The same per joule, at the level of the budget's energy cost."""
    binds: bool
    """Whether the fit would use more spikes without the budget."""
    met: bool
    """Whether the spikes are within 2 % of a budget that binds, or below one that does not."""

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Any, name: str) -> Self:
        """From :meth:`to_dict`; `name` is the file for the message of a ValueError where it is something else."""
        types = {f.name: bool if f.type in ("bool", bool) else (int, float) for f in fields(cls)}
        if not isinstance(table, dict) or set(table) != set(types):
            raise ValueError(f"{name}: its budget is {table!r:.80}; it should be a table of {', '.join(types)}")
        wrong = [key for key, kind in types.items() if not isinstance(table[key], kind)]
        if wrong:
            raise ValueError(f"{name}: {wrong[0]} of its budget is {table[wrong[0]]!r:.80}; train the model again")
        return cls(**table)

    def describe(self) -> str:
        """One sentence.

        Examples
        --------
        >>> print(BudgetReport(10.0, 10.1, 0.2, 3e9, True, True).describe())
        Budget: 10.1 of 10 spikes per stimulus; shadow price 0.2 nats per spike, 3e+09 nats per joule.
        """
        used = f"Budget: {self.spikes_used:.4g} of {self.spikes_allowed:.4g} spikes per stimulus"
        if not self.binds:
            return f"{used}; it does not bind: the shadow price is 0."
        price = f"shadow price {self.shadow_price:.3g} nats per spike, {self.shadow_price_per_joule:.3g} nats per joule"
        return f"{used}; {price}." if self.met else f"{used}, not met within 2 %: train longer; {price}."


@torch.no_grad()
def budget_report(model: Model, stimuli: Tensor, *, generator: torch.Generator) -> BudgetReport | None:
    """How a trained model stands to the budget of its configuration; None without one.

    Parameters
    ----------
    stimuli
        (n, D) training stimuli; at most 5,000 of them are coded.
    generator
        For inference that draws, on the model's device.
    """
    config = model.config
    if not config.has_budget:
        return None
    chosen = torch.linspace(0, len(stimuli) - 1, min(N_COUNTED, len(stimuli))).round().long()
    weight = next(model.parameters())
    used = float(model.mean_code(stimuli[chosen].to(weight), generator=generator).double().sum(-1).mean())
    allowed, price = spikes_allowed(config), model.price_of_spikes
    binds = price > 0
    gap = used / allowed - 1
    met = abs(gap) <= TOLERANCE if binds else gap <= TOLERANCE
    return BudgetReport(allowed, used, price, price / joules_per_spike(config.energy_level), binds, met)
