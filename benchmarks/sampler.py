"""Relaxed Poisson counts with their gradient: the arrivals sampler against the published dense construction.

Both run in one process in alternation on the same log-rates, forward and backward; times are medians. Log-rates are
Normal(-3, 1), or those of held-out photographs under a trained model (default recipe, beta 1), where a few units have
counts of up to a hundred. Peak memory is what a call adds to the resident memory of a process that does nothing else.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from machine import enough
from memory import LEAN_ENVIRONMENT, added_mib, can_measure
from torch import Tensor

import spikevae as sv
from spikevae.distributions import relaxed_counts

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dense_reference import dense_counts  # the published construction, as the tests use it

SAMPLERS: dict[str, Callable[..., Tensor]] = {"arrivals": relaxed_counts, "dense": dense_counts}
WIDTHS, BATCHES, TEMPERATURES, INDICATORS = (128, 512, 2048), (250, 1000), (1.0, 0.05), ("sigmoid", "cubic")
TRAINED = (128, 512)
REPEATS = 5


class Case(NamedTuple):
    n_latents: int
    batch: int
    temperature: float
    indicator: str
    rates: str = "normal"


@lru_cache
def trained(n_latents: int) -> Tensor:
    """Log-rates of held-out patches under a model that was trained for 300 steps."""
    data = sv.data.load("bundled", patch=16, n=4000, seed=0)
    model = sv.SpikeVAE(n_latents=n_latents, steps=300, random_state=0).fit(data.train)
    return torch.from_numpy(model.transform(data.test)).float().log()


def log_rates(case: Case) -> Tensor:
    """(batch, K) log-rates of a sparse code."""
    if case.rates == "trained":
        return trained(case.n_latents)[: case.batch].clone().requires_grad_()
    noise = torch.randn(case.batch, case.n_latents, generator=torch.Generator().manual_seed(0))
    return (noise - 3).requires_grad_()


def draw(sampler: str, case: Case, log_rate: Tensor, generator: torch.Generator) -> None:
    """One sample of every code entry and its gradient."""
    log_rate.grad = None
    options = {"temperature": case.temperature, "indicator": case.indicator, "generator": generator}
    SAMPLERS[sampler](log_rate, **options).sum().backward()


def milliseconds(case: Case, repeats: int) -> dict[str, float]:
    """Median time of a draw, samplers in alternation; the first round is not counted."""
    log_rate, generator = log_rates(case), torch.Generator().manual_seed(1)
    times: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    start = time.perf_counter()
    for done in range(repeats + 1):
        if enough(start, done - 1):
            break
        for name, taken in times.items():
            began = time.perf_counter()
            draw(name, case, log_rate, generator)
            taken.append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def peak_here(sampler: str, case: Case) -> float:
    """MiB that a draw adds at its peak to this process."""
    log_rate, generator = log_rates(case), torch.Generator().manual_seed(1)

    def call() -> None:
        draw(sampler, case, log_rate, generator)
        log_rate.grad = None

    return added_mib(call)


def peaks(cases: list[Case]) -> dict[str, list[float | None]]:
    """Peak memory of each case, measured in a child process that returns freed memory to the system at once."""
    if not can_measure():
        return {name: [None] * len(cases) for name in SAMPLERS}
    command = [sys.executable, __file__, json.dumps(cases)]
    done = subprocess.run(command, env=LEAN_ENVIRONMENT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(
    widths: tuple[int, ...] = WIDTHS,
    batches: tuple[int, ...] = BATCHES,
    repeats: int = REPEATS,
    trained_widths: tuple[int, ...] = TRAINED,
) -> tuple[list[dict[str, float | int | str | None]], str]:
    """Rows and a table of all cases."""
    cases = [Case(*values) for values in product(widths, batches, TEMPERATURES, INDICATORS)]
    cases += [Case(k, 250, 0.05, indicator, "trained") for k in trained_widths for indicator in INDICATORS]
    memory = peaks(cases)
    rows: list[dict[str, float | int | str | None]] = []
    lines = [
        "relaxed Poisson counts, forward and backward: milliseconds, peak MiB",
        f"{'K':>5}{'batch':>7} {'rates':<9}{'tau':>5} {'indicator':<10}{'arrivals':>10}{'dense':>10}{'ratio':>8}"
        f"{'arrivals':>11}{'dense':>9}{'ratio':>8}",
    ]
    for i, case in enumerate(cases):
        taken = milliseconds(case, repeats)
        mine, theirs = memory["arrivals"][i], memory["dense"][i]
        more = None if mine is None or theirs is None else theirs / max(mine, 1.0)
        rows.append(
            case._asdict()
            | {f"{name}_ms": value for name, value in taken.items()}
            | {"speedup": taken["dense"] / taken["arrivals"]}
            | {"arrivals_mib": mine, "dense_mib": theirs}
        )
        shown = "".join(
            f"{'-' if v is None else format(v, '.1f'):>{w}}" for v, w in ((mine, 11), (theirs, 9), (more, 8))
        )
        lines.append(
            f"{case.n_latents:>5}{case.batch:>7} {case.rates:<9}{case.temperature:>5} {case.indicator:<10}"
            f"{taken['arrivals']:>10.2f}{taken['dense']:>10.2f}{taken['dense'] / taken['arrivals']:>8.1f}{shown}"
        )
    return rows, "\n".join(lines)


if __name__ == "__main__":  # the child process of `peaks`
    asked = [Case(*values) for values in json.loads(sys.argv[1])]
    print(json.dumps({name: [peak_here(name, case) for case in asked] for name in SAMPLERS}))
