"""One whole training step: ours against the published one and against its matrix products alone.

Linear encoder and decoder, 256 pixels, log-rates near Normal(-3, 1). Ours by Monte Carlo (the same objective as the
published step, Adam), and in closed form with the decoder solved. All run in one process in alternation; times are
medians. The factor x of a step is its time over that of its own products; those of a solved decoder include codes with
codes, K^2 per stimulus. Peak memory is what a step adds to a process that does nothing else. The temperature changes
the time of our sampler alone (the published construction draws the same gaps at every temperature), so all rows have
the same times of the other steps. Temperature 0 stands for integer counts with finite-order exact gradients (Fini).
The second table is for one thread, as each worker of a sweep has, without the published step.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import enough, step_of_a_long_fit
from memory import LEAN_ENVIRONMENT, added_mib, can_measure
from published import PublishedStep

from spikevae.config import FitConfig
from spikevae.training import Stack

PIXELS, LOG_RATE, SCALE = 256, -3.0, 1 / 16
WIDTHS, BATCHES, TEMPERATURES = (128, 512, 2048), (250, 1000), (1.0, 0.05, 0.0)
REPEATS = 5
SAMPLED = {f"sampled {temperature:g}": temperature for temperature in TEMPERATURES}
OURS_HEADER = f"{'K':>5}{'batch':>7}{'tau':>6}{'products':>10}{'GFLOP/s':>9}{'exact':>8}{'x':>5}{'sampled':>9}{'x':>5}"
VARIANTS = ("products", "solved products", "exact", *SAMPLED, "published")


class Case(NamedTuple):
    n_latents: int
    batch: int


def stimuli(batch: int) -> torch.Tensor:
    """(4 batches, D) standard normal."""
    return torch.randn(4 * batch, PIXELS, generator=torch.Generator().manual_seed(0))


def products(case: Case, solved: bool) -> Callable[[], Any]:
    """The products of a linear step: encoder, decoder, gradients of code, dictionary (or its moment) and encoder.

    A solved decoder also needs the product of codes with codes.
    """
    x, code = torch.randn(case.batch, PIXELS), torch.randn(case.batch, case.n_latents)
    encoder, dictionary = torch.randn(PIXELS, case.n_latents), torch.randn(case.n_latents, PIXELS)

    def run() -> None:
        x @ encoder, code @ dictionary, x @ dictionary.mT, code.mT @ x, x.mT @ code
        if solved:
            code.mT @ code

    return run


def stepper(variant: str, case: Case) -> Callable[[], Any]:
    """A function that does one step."""
    if variant in ("products", "solved products"):
        return products(case, solved=variant != "products")
    x = stimuli(case.batch)
    if variant == "published":
        options = {"beta": 1.0, "temperature": TEMPERATURES[0], "log_rate": LOG_RATE, "scale": SCALE}
        model, batch = PublishedStep(PIXELS, case.n_latents, **options), x[: case.batch]
        return lambda: model(batch)
    settings: dict[str, Any] = {"n_latents": case.n_latents, "batch_size": case.batch, "steps": 1_000_000}
    settings |= {"init": "random", "start": LOG_RATE, "init_scale": SCALE}
    if variant in SAMPLED:
        settings |= {"prior": "learned", "learning_rate": 1e-5}
        if SAMPLED[variant] > 0:
            settings |= {"estimator": "monte_carlo", "temperature_anneal": 0.0}
            settings |= {"temperature": SAMPLED[variant], "indicator": "sigmoid"}
        else:
            settings |= {"estimator": "fini"}
    return step_of_a_long_fit(Stack([FitConfig.from_recipe("default", **settings)], x, (PIXELS,)))


def milliseconds(case: Case, repeats: int, variants: tuple[str, ...] = VARIANTS) -> dict[str, float]:
    """Median time of a step of each variant, in alternation; the first round is not counted."""
    steppers = {variant: stepper(variant, case) for variant in variants}
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    start = time.perf_counter()
    for done in range(repeats + 1):
        if enough(start, done - 1):
            break
        for variant, step in steppers.items():
            count = 1 if variant == "published" else 4
            began = time.perf_counter()
            for _ in range(count):
                step()
            times[variant].append(1e3 * (time.perf_counter() - began) / count)
    return {variant: statistics.median(taken[1:]) for variant, taken in times.items()}


def peaks(cases: list[Case]) -> list[dict[str, float]] | None:
    """MiB that a step adds at its peak, measured in a child process; None where the system does not report it."""
    if not can_measure():
        return None
    command = [sys.executable, __file__, json.dumps(cases)]
    done = subprocess.run(command, env=LEAN_ENVIRONMENT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def peaks_here(case: Case) -> dict[str, float]:
    """The same in this process."""
    return {variant: added_mib(stepper(variant, case)) for variant in VARIANTS if "products" not in variant}


def _columns(sampled: str) -> dict[str, str]:
    """The variants whose memory a row shows."""
    return {"exact": "exact", "monte_carlo": sampled, "published": "published"}


def compare(
    widths: tuple[int, ...] = WIDTHS, batches: tuple[int, ...] = BATCHES, repeats: int = REPEATS
) -> tuple[list[dict[str, Any]], str]:
    """Rows and tables of all cases."""
    cases = [Case(*values) for values in product(widths, batches)]
    memory = peaks(cases)
    rows: list[dict[str, Any]] = []
    n_threads = torch.get_num_threads()
    lines = [
        f"a training step, {n_threads} threads: milliseconds; factor over the products; peak MiB",
        f"{OURS_HEADER}{'published':>11}{'over sampled':>14}{'MiB exact':>11}{'sampled':>9}{'published':>11}",
    ]
    for i, case in enumerate(cases):
        print(f"step: {case}", file=sys.stderr, flush=True)
        ms = milliseconds(case, repeats)
        used = memory[i] if memory else {}
        for name in SAMPLED:
            row, line = ours(case, ms, name, n_threads)
            row |= {"published_ms": ms["published"], "speedup": ms["published"] / ms[name]}
            row |= {f"{key}_mib": used.get(of) for key, of in _columns(name).items()}
            rows.append(row)
            shown = "".join(
                f"{format(used[of], '.0f') if of in used else '-':>{width}}"
                for of, width in zip(_columns(name).values(), (11, 9, 11))
            )
            lines.append(f"{line}{ms['published']:>11.0f}{ms['published'] / ms[name]:>14.1f}{shown}")
    if n_threads > 1:
        lines += ["", "the same on 1 thread", OURS_HEADER]
        try:
            torch.set_num_threads(1)
            for case in cases:
                print(f"step: {case}, 1 thread", file=sys.stderr, flush=True)
                ms = milliseconds(case, repeats, VARIANTS[:-1])
                for name in SAMPLED:
                    row, line = ours(case, ms, name, 1)
                    rows.append(row)
                    lines.append(line)
        finally:
            torch.set_num_threads(n_threads)
    return rows, "\n".join(lines)


def ours(case: Case, ms: dict[str, float], name: str, n_threads: int) -> tuple[dict[str, Any], str]:
    """The row, and the line of a table, of one kind of sampled step."""
    bare, solved = ms["products"], ms["solved products"]
    row = case._asdict() | {"threads": n_threads, "temperature": SAMPLED[name], "products_ms": bare}
    row |= {"solved_products_ms": solved, "exact_ms": ms["exact"], "monte_carlo_ms": ms[name]}
    row |= {"over_products": ms[name] / bare, "exact_over_products": ms["exact"] / solved}
    rate = 5 * 2 * case.batch * PIXELS * case.n_latents / bare / 1e6
    line = (
        f"{case.n_latents:>5}{case.batch:>7}{SAMPLED[name]:>6}{bare:>10.2f}{rate:>9.0f}"
        f"{ms['exact']:>8.1f}{ms['exact'] / solved:>5.1f}{ms[name]:>9.1f}{ms[name] / bare:>5.1f}"
    )
    return row, line


if __name__ == "__main__":  # the child process of `peaks`
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps([peaks_here(Case(*values)) for values in json.loads(sys.argv[1])]))
