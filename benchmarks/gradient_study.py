"""Bias, noise and cost of gradient estimators through counts, and training with them.

Gradients with respect to the log-rates of a distortion |x - decoder(z)|^2, with a linear decoder (exact gradient in
closed form) and with a two-layer one (exact by enumeration over two units). Weights scale with the rate, so that the
decoded signal and its noise are of order one. Then the same small autoencoder, trained with each estimator on
photographs.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn

from spikevae.data import load
from spikevae.distributions import INDICATORS, Poisson, RelaxedPoisson
from spikevae.gradients import Exact, GradientEstimator, estimators
from spikevae.progress import Report

RATES, TEMPERATURES = (0.01, 0.1, 1.0, 10.0, 100.0), (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
MIDDLE_RATE, MIDDLE_TEMPERATURE = 1.0, 0.1
N_ESTIMATES, AT_ONCE, SECONDS_SHOWN = 40_000, 4000, 1000
UNITS, PIXELS = {"linear": 8, "two-layer": 2}, 16
TRAINED_AT = (0.1, 1.0)
SEEDS, STEPS, BATCH, WIDTH, PATCH = (0, 1, 2), 1000, 128, 32, 8
LEARNING_RATE, START, HIDDEN, N_CODES = 3e-3, 0.0, 64, 16


class LinearDistortion:
    """|x - z W|^2, with its expectation over Poisson codes."""

    def __init__(self, weight: Tensor, x: Tensor) -> None:
        self.weight, self.x = weight, x

    def __call__(self, z: Tensor) -> Tensor:
        return (self.x - z @ self.weight).square().sum(-1)

    def expected(self, log_rate: Tensor) -> Tensor:
        """Squared error of the mean, and each unit's variance times its squared weights."""
        rate = log_rate.exp()
        return self(rate) + rate @ self.weight.square().sum(-1)


class TwoLayerDistortion:
    """|x - tanh(z W + b) V|^2."""

    def __init__(self, first: nn.Module | Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor):
        self.first, self.second, self.x = first, second, x

    def __call__(self, z: Tensor) -> Tensor:
        return (self.x - self.second(torch.tanh(self.first(z)))).square().sum(-1)


def problem(decoder: str, rate: float, seed: int) -> tuple[Any, Tensor]:
    """A distortion and log-rates (K,) around `rate`, in float64."""
    noise = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    n_units = UNITS[decoder]
    log_rate = math.log(rate) + 0.3 * noise(n_units)
    weight = noise(n_units, PIXELS) / (math.sqrt(n_units) * max(rate, math.sqrt(rate)))
    if decoder == "linear":
        return LinearDistortion(weight, noise(PIXELS)), log_rate
    shift, second = 0.3 * noise(PIXELS), noise(PIXELS, PIXELS) / math.sqrt(PIXELS)
    return TwoLayerDistortion(lambda z: z @ weight + shift, lambda h: h @ second, noise(PIXELS)), log_rate


@dataclass(frozen=True)
class Quality:
    """How good estimates of one gradient are; lengths are relative to that of the exact gradient."""

    bias: float
    """Distance of the mean estimate from the exact gradient, minus the part due to sampling noise."""
    bias_error: float
    """Standard error of the bias."""
    noise: float
    """Square root of the summed variances of an estimate."""
    cosine: float
    """Mean cosine between an estimate and the exact gradient."""
    seconds: float
    """Processor time of a thousand estimates."""
    evaluations: int
    """Evaluations of the decoder per estimate."""


def quality(estimator: GradientEstimator, f: Any, log_rate: Tensor, n: int, seed: int) -> Quality:
    """Quality of an estimator, from `n` estimates."""
    exact = Exact().gradient(f, log_rate, 1, generator=torch.Generator())[0]
    generator = torch.Generator().manual_seed(seed)
    estimator.gradient(f, log_rate, 10, generator=generator)
    began = time.process_time()
    parts = [min(AT_ONCE, n - done) for done in range(0, n, AT_ONCE)]
    found = torch.cat([estimator.gradient(f, log_rate, part, generator=generator) for part in parts])
    seconds = (time.process_time() - began) * SECONDS_SHOWN / n
    length = float(exact.norm())
    variance = float(found.var(0).sum())
    distance = float((found.mean(0) - exact).square().sum())
    tiny = torch.finfo(found.dtype).tiny
    ways = found / found.abs().amax(-1, keepdim=True).clamp_min(tiny)  # squares of small estimates would underflow
    return Quality(
        bias=math.sqrt(max(distance - variance / n, 0.0)) / length,
        bias_error=math.sqrt(variance / n) / length,
        noise=math.sqrt(variance) / length,
        cosine=float(((ways @ exact) / (ways.norm(dim=-1).clamp_min(tiny) * length)).mean()),
        seconds=seconds,
        evaluations=estimator.evaluations(len(log_rate)),
    )


def grid_rows(n: int, seed: int, report: Report) -> list[dict[str, Any]]:
    """A row for each decoder, rate, temperature and estimator; estimators without a temperature once per rate."""
    cases = list(product(UNITS, RATES, TEMPERATURES))
    rows = []
    for i, (decoder, rate, temperature) in enumerate(cases):
        report(i, 2 * len(cases), f"{decoder} decoder, rate {rate:g}, temperature {temperature:g}")
        f, log_rate = problem(decoder, rate, seed)
        for name, estimator in estimators(temperature).items():
            if not hasattr(estimator, "temperature") and temperature != MIDDLE_TEMPERATURE:
                continue
            facts = {"decoder": decoder, "rate": rate, "temperature": temperature, "estimator": name}
            rows.append(facts | vars(quality(estimator, f, log_rate, n, seed + 1)))
    return rows


class Small(nn.Module):
    """Linear encoder with bias to log-rates, learned prior, linear or two-layer decoder."""

    def __init__(self, n_pixels: int, decoder: str, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        noise = partial(torch.randn, generator=generator)
        self.encoder = nn.Parameter(0.05 * noise(n_pixels, WIDTH))
        self.bias = nn.Parameter(torch.full((WIDTH,), START))
        self.prior = nn.Parameter(torch.full((WIDTH,), START))
        self.linear = decoder == "linear"
        widths = (WIDTH, n_pixels) if self.linear else (WIDTH, HIDDEN, n_pixels)
        self.weights = nn.ParameterList([noise(a, b) / math.sqrt(a) for a, b in pairwise(widths)])

    def distortion(self, x: Tensor) -> Any:
        """|x - decoder(z)|^2 as a function of codes."""
        if self.linear:
            return LinearDistortion(self.weights[0], x)
        return TwoLayerDistortion(lambda z: z @ self.weights[0], lambda h: h @ self.weights[1], x)

    def parts(self, x: Tensor, estimator: GradientEstimator, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Distortion and divergence from the prior of each stimulus."""
        log_rate = (x @ self.encoder + self.bias).clamp_max(5.0)
        kl = torch.distributions.kl_divergence(Poisson(log_rate), Poisson(self.prior.expand_as(log_rate)))
        return estimator(self.distortion(x), log_rate, generator=generator), kl.sum(-1)


class Sampled(GradientEstimator):
    """Values at integer counts, without a gradient: for evaluation."""

    def __call__(self, f: Any, log_rate: Tensor, *, generator: torch.Generator) -> Tensor:
        """Mean values of N_CODES draws."""
        rate = log_rate.exp().expand(N_CODES, *log_rate.shape)
        values: Tensor = f(torch.poisson(rate, generator=generator)).mean(0)
        return values


def trained_free_energy(
    decoder: str, estimator: GradientEstimator, train: Tensor, test: Tensor, steps: int, seed: int
) -> float:
    """Held-out free energy (nats per stimulus, integer counts) of the small autoencoder after training."""
    model = Small(train.shape[1], decoder, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = train[torch.randint(len(train), (BATCH,), generator=generator)]
        distortion, kl = model.parts(x, estimator, generator)
        optimizer.zero_grad()
        (distortion + kl).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        judge = Exact() if decoder == "linear" else Sampled()
        distortion, kl = model.parts(test, judge, torch.Generator().manual_seed(seed))
        return float((distortion + kl).mean())


def mean_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student t interval over seeds."""
    mean = float(np.mean(values))
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def training_rows(steps: int, seeds: tuple[int, ...], report: Report) -> list[dict[str, Any]]:
    """A row for each decoder and estimator: held-out free energy of each seed, mean and interval."""
    data = load("bundled", patch=PATCH, n=8000, n_test=2000, seed=0)
    train, test = torch.from_numpy(data.train), torch.from_numpy(data.test)
    chosen: dict[tuple[str, float | None], GradientEstimator] = {}
    for temperature in TRAINED_AT:
        for name, estimator in estimators(temperature).items():
            chosen[name, temperature if hasattr(estimator, "temperature") else None] = estimator
    cells: list[tuple[str, tuple[str, float | None], GradientEstimator]] = [
        (decoder, key, estimator) for decoder in UNITS for key, estimator in chosen.items()
    ]
    cells.insert(0, ("linear", ("exact", None), Exact()))
    rows = []
    for i, (decoder, (name, at), estimator) in enumerate(cells):
        report(len(cells) + i, 2 * len(cells), f"training, {decoder} decoder, {name}")
        found = [trained_free_energy(decoder, estimator, train, test, steps, seed) for seed in seeds]
        mean, low, high = mean_interval(found)
        facts = {"decoder": decoder, "estimator": name, "temperature": at}
        rows.append(facts | {"free_energies": found, "mean": mean, "low": low, "high": high})
    return rows


def moment_rows() -> list[dict[str, Any]]:
    """Mean and variance of a relaxed count per unit rate, in closed form, for each indicator and temperature."""
    one = torch.zeros(1, dtype=torch.float64)
    return [
        {"indicator": name, "temperature": t, "mean": float(law.mean), "variance": float(law.variance)}
        for name, t in product(INDICATORS, TEMPERATURES)
        for law in [RelaxedPoisson(one, t, name)]
    ]


def study(
    *,
    n_estimates: int = N_ESTIMATES,
    steps: int = STEPS,
    seeds: tuple[int, ...] = SEEDS,
    seed: int = 0,
    report: Report = lambda done, total, text: None,
) -> dict[str, list[dict[str, Any]]]:
    """All rows: `moments`, `estimates`, `training`."""
    return {
        "moments": moment_rows(),
        "estimates": grid_rows(n_estimates, seed, report),
        "training": training_rows(steps, seeds, report),
    }
