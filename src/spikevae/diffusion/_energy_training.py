"""Training of energy networks, each in its range of time: denoising score matching and Fokker-Planck residual."""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .._seeds import generator
from ._energy_network import EnergyNetwork
from ._energy_settings import Plan
from .fokker_planck import PERTURBATION, residual, weak_residuals
from .process import SMALLEST_TIME, VariancePreserving

WINDOWS = 40
"""Entries of the history, at most."""
AVERAGING = 0.999
"""Decay per step of the running mean of the weights, which is the fit; lower in the first steps."""
LARGEST_GRADIENT = 1e3
"""Norm that gradients are scaled down to."""

Report = Callable[[float, float, str], None]


def turns(n_networks: int, n_steps: int) -> Iterator[int]:
    """Which network each step trains: the last, of the smallest noise, has two thirds of the steps of a mixture."""
    last = n_networks - 1
    cycle = [*range(last), *[last] * max(2 * last, 1)]
    for step in range(n_steps):
        yield cycle[step % len(cycle)]


def drawn_times(n: int, low: float, high: float, midpoint: float, noise: torch.Generator) -> Float[Tensor, " n"]:
    """Times of a range, half of them below the midpoint, which is a share of the range; uniform on both sides."""
    u = torch.rand(n, generator=noise, device=noise.device)
    warped = torch.where(u < 0.5, 2 * midpoint * u, midpoint + (2 * u - 1) * (1 - midpoint))
    return (low + (high - low) * warped).clamp_min(SMALLEST_TIME)


def losses(
    network: EnergyNetwork,
    data: Float[Tensor, "n D"],
    t: Float[Tensor, " n"],
    form: str | None,
    noise: torch.Generator,
    process: VariancePreserving,
) -> tuple[Tensor, Tensor]:
    """Denoising loss and mean squared residual over D², both ()."""
    eps = torch.randn(data.shape, dtype=data.dtype, device=data.device, generator=noise)
    deviation = process.variance(t).sqrt()[:, None]
    x = process.mean_coefficient(t)[:, None] * data + deviation * eps
    squared = x.new_zeros(())
    if form == "strong":
        found = network.derivatives(x, t)
        score = found.score
        squared = residual(x, score, found.divergence, found.time, process.beta(t)).square().mean()
    else:
        score, _ = network.gradients(x, t)
        if form == "weak":
            moves = [PERTURBATION * torch.randn(x.shape, device=x.device, generator=noise) for _ in range(2)]
            first, second = weak_residuals(network.gradients, x, t, moves, PERTURBATION, process)
            squared = (first * second).mean()
    return (eps + deviation * score).square().mean(), squared / x.shape[1] ** 2


class Training:
    """Networks in training; their running means are the fit."""

    def __init__(
        self,
        networks: list[EnergyNetwork],
        data: Float[Tensor, "n D"],
        plan: Plan,
        process: VariancePreserving,
        seed: int,
    ) -> None:
        self.networks, self.data, self.plan, self.process = networks, data, plan, process
        self.averages = [copy.deepcopy(network).requires_grad_(False) for network in networks]
        self.noise = generator(seed, "noise", device=data.device)
        self.order = generator(seed, "order")
        self.done = 0
        self.history: dict[str, list[float]] = {"step": [], "score_matching": []}
        if plan.strength:
            self.history["residual"] = []

    def run(self, report: Report) -> None:
        """Train until the last step; on Ctrl-C, what is done stays."""
        plan = self.plan
        free = [p for network in self.networks for p in network.parameters()]
        adam = torch.optim.Adam(free, lr=plan.learning_rate, betas=(0.9, 0.99), fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, plan.n_steps)
        counts, values, window = [0] * len(self.networks), [], math.ceil(plan.n_steps / WINDOWS)
        for turn in turns(len(self.networks), plan.n_steps):
            adam.zero_grad()
            values.append(self._step(turn))
            adam.step()
            schedule.step()
            counts[turn] += 1
            self._average(turn, counts[turn])
            self.done += 1
            if len(values) == window or self.done == plan.n_steps:
                self._record(values)
                values.clear()
            report(self.done, plan.n_steps, f"denoising loss {self.latest:.4g}")

    def _step(self, turn: int) -> tuple[float, float]:
        """Gradients of one batch; its denoising loss and squared residual."""
        plan, network = self.plan, self.networks[turn]
        rows = torch.randint(len(self.data), (plan.batch_size,), generator=self.order).to(self.data.device)
        t = drawn_times(plan.batch_size, network.low, network.high, plan.midpoint, self.noise)
        form = plan.form if plan.strength and turn == len(self.networks) - 1 else None
        matching, squared = losses(network, self.data[rows], t, form, self.noise, self.process)
        value = matching + plan.strength * squared if form else matching
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        self.latest = matching.item()
        if not math.isfinite(norm.item() + value.item()):
            raise ValueError(
                f"the objective is {value.item():g} after {self.done} steps: scale X to about unit variance, or lower "
                f"learning_rate ({plan.learning_rate:g}) or strength ({plan.strength:g})"
            )
        return self.latest, squared.item() if form else math.nan

    @torch.no_grad()
    def _average(self, turn: int, count: int) -> None:
        decay = min(AVERAGING, count / (count + 10))
        for mean, new in zip(self.averages[turn].parameters(), self.networks[turn].parameters()):
            mean.lerp_(new, 1 - decay)

    def _record(self, values: list[tuple[float, float]]) -> None:
        self.history["step"].append(float(self.done))
        self.history["score_matching"].append(sum(value for value, _ in values) / len(values))
        if self.plan.strength:
            squares = [square for _, square in values if not math.isnan(square)]
            self.history["residual"].append(sum(squares) / len(squares) if squares else math.nan)
