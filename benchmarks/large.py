"""Large fits: CPU seconds until training starts, seconds of steps, memory; and what the start of large fits loses.

    python benchmarks/large.py fits 768:3072:20000      # pixels : units : stimuli, any number of them
    python benchmarks/large.py starts 256:512 256:1024  # pixels : units

`fits` trains two steps of the default recipe on normal stimuli and prints a Markdown row for each size. `starts`
compares the log firing rate at which linear Poisson fits start, found with all units and with a share of them, and the
objective there, on photographs; each row takes about a minute.
"""

import argparse
import resource
import time
from unittest import mock

import numpy as np
import torch

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.models import build_model
from spikevae.training import build_stack, starts


def stimuli(n_pixels: int, n: int, seed: int = 0) -> torch.Tensor:
    """(n, D) normal stimuli whose standard deviations fall from 2 to 0.3."""
    noise = np.random.default_rng(seed).standard_normal((n, n_pixels), dtype=np.float32)
    return torch.from_numpy(noise * np.linspace(2, 0.3, n_pixels, dtype=np.float32))


def fit(size: str, steps: int = 2) -> dict[str, float]:
    """Seconds and memory of a fit of `size`, "pixels:units:stimuli"."""
    n_pixels, n_latents, n = map(int, size.split(":"))
    x = stimuli(n_pixels, n)
    config = FitConfig.from_recipe("default", n_latents=n_latents, steps=steps)
    began, wall = time.process_time(), time.perf_counter()
    stack = build_stack([config], x, (n_pixels,))
    start, wall_start = time.process_time() - began, time.perf_counter() - wall
    times = []
    for _ in range(steps):
        began = time.process_time()
        stack.step()
        times.append(time.process_time() - began)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"start": start, "wall": wall_start, "step": times[-1], "memory": gigabytes}


def start(size: str, beta: float, limits: dict[str, float]) -> dict[str, float]:
    """Log firing rate, objective on held-out photographs and CPU seconds of a start with these limits."""
    n_pixels, n_latents = map(int, size.split(":"))
    data = sv.data.load("bundled", patch=int(n_pixels**0.5), n=12_000, seed=0)
    x, held_out = torch.from_numpy(data.train), torch.from_numpy(data.test[:2000])
    config = FitConfig.from_recipe("default", n_latents=n_latents, beta=beta)
    model = build_model(config, (n_pixels,))
    began = time.process_time()
    with mock.patch.multiple(starts, **limits), torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        options = {"beta": beta, "spike_price": 0.0, "lowest": config.start, "generator": noise}
        rate = starts.start_at_linear_limit(model, starts.Spectrum.of(x), x, **options)
        seconds = time.process_time() - began
        objective = float(model(held_out, beta, 0.0, exact=True).total)
    return {"rate": rate, "objective": objective, "seconds": seconds}


def print_fits(sizes: list[str]) -> None:
    """A Markdown table; run a size alone for the memory that it takes."""
    print("| D | K | stimuli | start, CPU s | start, s | step, CPU s | peak memory, GB |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in sizes:
        found = fit(size)
        numbers = f"{found['start']:.1f} | {found['wall']:.1f} | {found['step']:.2f} | {found['memory']:.1f}"
        print(f"| {size.replace(':', ' | ')} | {numbers} |", flush=True)


def print_starts(sizes: list[str], betas: list[float], units: list[int]) -> None:
    """A Markdown table; the limit of the number of units is that of the library, or others that are given."""
    print("| D | K | beta | units compared | log firing rate | objective, nats | CPU s |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in sizes:
        for beta in betas:
            for limit in (None, *units):
                changed = {"MAX_OPERATIONS": 1e18} if limit is None else {"MAX_OPERATIONS": 0, "THINNED_UNITS": limit}
                found = start(size, beta, changed)
                numbers = f"{found['rate']:.3f} | {found['objective']:.3f} | {found['seconds']:.1f}"
                print(f"| {size.replace(':', ' | ')} | {beta:g} | {limit or 'all'} | {numbers} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fits", "starts"))
    parser.add_argument("sizes", nargs="+")
    parser.add_argument("--beta", type=float, nargs="+", default=[1.0])
    parser.add_argument("--units", type=int, nargs="+", default=[starts.THINNED_UNITS])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.what == "fits":
        print_fits(given.sizes)
    else:
        print_starts(given.sizes, given.beta, given.units)
