"""Correctness on a GPU, and the sampler: stages of `gpu.py`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_rows import Setting, Table
from sampler import dense_counts
from scipy import stats

from spikevae.config import FitConfig
from spikevae.distributions import arrivals, relaxed_counts
from spikevae.training import Stack

ROOT = Path(__file__).parents[1]
RATES = (0.01, 0.1, 1.0, 5.0, 30.0, 1000.0, 1e5)
MOST_GAPS, MOST_BYTES = 300, 2e10
"""The dense construction is timed where so many gaps for each element take less memory than this."""
SCORE = 4.5
"""Standard scores below this pass: a correct sampler exceeds it once in 150,000 times."""
VARIANTS = {
    "exact": {},
    "sampled, arrivals": {"estimator": "monte_carlo", "temperature_anneal": 0.0},
    "sampled, Fini": {"estimator": "fini"},
    "bernoulli": {"latent": "bernoulli"},
    "gaussian": {"latent": "gaussian", "prior": "fixed"},
}


def correctness(setting: Setting, table: Table) -> None:
    """The CUDA tests, the sampler's moments and law, recorded and captured steps."""
    _moments(setting, table)
    _law(setting, table)
    for name in VARIANTS:
        _same_steps(setting, table, name)
    if not setting.dry:  # in a dry run the tests run anyway
        _tests(setting, table)


def _tests(setting: Setting, table: Table) -> None:
    # Other files import libraries that a bare machine lacks, such as hypothesis.
    files = [str(path) for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.cuda" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "Agg"}
    left = max(20.0, setting.deadline - time.monotonic())
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
        closing = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]
        table.say("`pytest -m cuda`: " + "; ".join([*lines[:8], closing]))
    except subprocess.TimeoutExpired:
        table.say(f"`pytest -m cuda` was not done after {left:.0f} s")


def _moments(setting: Setting, table: Table) -> None:
    """Means and variances of relaxed counts against those of Campbell's theorem, as standard scores."""
    n = 2_000 if setting.dry else 1_000_000
    for rate in RATES:
        log_rate = torch.full((n,), float(np.log(rate)), device=setting.device)
        noise = torch.Generator(setting.device).manual_seed(1)
        z = relaxed_counts(log_rate, temperature=0.3, indicator="cubic", generator=noise).double()
        start, _ = arrivals.window(0.3, arrivals.INDICATORS["cubic"])
        first, second, _ = arrivals.window_integrals(0.3, "cubic")
        mean, variance = rate * (start + first), rate * (start + second)
        scores = {
            "mean": float(z.mean() - mean) / (variance / n) ** 0.5,
            "variance": float(z.var() - variance) / _spread_of_variance(z, n),
        }
        worst = max(map(abs, scores.values()))
        kernel = "Triton" if setting.on_gpu and arrivals.has_kernel(log_rate) else "PyTorch"
        table.add(
            sampler=kernel, rate=rate, draws=n, score_of_mean=scores["mean"], score_of_variance=scores["variance"],
            passes=worst < SCORE or (setting.dry and "not judged") or False,
        )  # fmt: skip


def _spread_of_variance(z: torch.Tensor, n: int) -> float:
    """Standard error of the variance of a sample."""
    deviation = z - z.mean()
    second, fourth = float(deviation.square().mean()), float(deviation.pow(4).mean())
    return max((fourth - second * second) / n, 1e-300) ** 0.5


def _law(setting: Setting, table: Table) -> None:
    """Chi-square of binned draws on the device and on the CPU: one law."""
    n = 2_000 if setting.dry else 200_000
    for rate in (0.1, 1.0, 5.0, 30.0):
        drawn = []
        for seed, device in enumerate((setting.device, torch.device("cpu"))):
            noise = torch.Generator(device).manual_seed(seed)
            log_rate = torch.full((n,), float(np.log(rate)), device=device)
            drawn.append(relaxed_counts(log_rate, temperature=0.3, generator=noise).cpu().numpy())
        edges = np.unique(np.quantile(np.concatenate(drawn), np.linspace(0, 1, 21)))
        edges[-1] += 1.0
        counts = np.stack([np.histogram(z, edges)[0] for z in drawn])
        p = float(stats.chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue) if counts.shape[1] > 1 else 1.0
        table.add(chi_square_against_the_CPU_at_rate=rate, draws=n, bins=counts.shape[1], p=p, passes=p > 1e-4)


def _same_steps(setting: Setting, table: Table, name: str) -> None:
    """Largest relative difference of parameters after 40 recorded or captured steps and as many plain ones."""
    n_steps, pixels = (6, 16) if setting.dry else (40, 64)
    x = torch.randn(600, pixels, generator=torch.Generator().manual_seed(0))
    settings = {"n_latents": 8 if setting.dry else 64, "batch_size": 100, "steps": 1000}
    configs = [FitConfig.from_recipe("default", **{**settings, **VARIANTS[name]}, seed=seed) for seed in range(2)]
    found = {}
    for kind in ("plain", "recorded", "captured"):
        stack = stack_of(configs, x, setting, kind)
        for _ in range(n_steps + 60 * (not setting.dry)):  # the decoder's moments are averaged over 50 steps
            stack.step()
        found[kind] = stack
    plain = found["plain"].params
    row = {}
    for kind in ("recorded", "captured"):
        difference = max(float((found[kind].params[k] - p).abs().max() / p.abs().max()) for k, p in plain.items())
        row[f"{kind}_differs_by"] = difference
    capture = found["captured"].capture
    how = "yes" if capture is not None and capture.is_captured else getattr(capture, "reason", None) or "no GPU"
    table.add(objective=name, captured=how, **row, passes=max(row.values()) < 1e-2)


def stack_of(configs: list[FitConfig], x: torch.Tensor, setting: Setting, kind: str) -> Stack:
    """A stack whose steps are "plain", "recorded" or "captured" as soon as they can be."""
    stack = Stack(configs, x, (x.shape[1],), device=setting.device, window=10_000)
    if kind != "captured":
        stack.capture = None
    if kind == "plain":
        stack._gradients.n_calls = stack._optimal_prior.n_calls = 0
    return stack


def copy_bandwidth(setting: Setting) -> float:
    """Bytes per second of a copy within the device's memory, read and written bytes together."""
    x = torch.zeros(1 << (16 if setting.dry else 28), device=setting.device)
    y = torch.empty_like(x)
    return 8 * x.numel() / setting.seconds(lambda: y.copy_(x))


def sampler(setting: Setting, table: Table) -> None:
    """Time of the sampler against a copy of the bytes that it must move, and against the dense construction."""
    bandwidth = copy_bandwidth(setting)
    table.say(f"Copy within the card's memory: {bandwidth / 1e9:.0f} GB/s, read and written.")
    sizes = ((100, 8),) if setting.dry else ((1000, 128), (1000, 512), (1000, 4096), (8000, 4096))
    for batch, k in sizes:
        for temperature, indicator in ((0.05, "cubic"), (1.0, "sigmoid")):
            setting.check_time(f"{batch} x {k}")
            noise = torch.randn(batch, k, generator=torch.Generator().manual_seed(0)).to(setting.device)
            log_rate = (noise - 3).requires_grad_()
            options = {"temperature": temperature, "indicator": indicator}
            own = setting.seconds(partial(_draw, relaxed_counts, log_rate, options))
            dense: float | None = None
            if log_rate.numel() * 4 * MOST_GAPS < MOST_BYTES:
                dense = setting.seconds(partial(_draw, dense_counts, log_rate, options), repeats=2)
            moved = 24 * log_rate.numel()  # forward: log-rate, count, slope; backward: gradient, slope, result
            table.add(
                batch=batch, K=k, temperature=temperature, indicator=indicator, ms=1e3 * own,
                GB_per_s=moved / own / 1e9, times_the_copy=own / (moved / bandwidth),
                published_ms="does not fit" if dense is None else 1e3 * dense,
                published_over_ours="-" if dense is None else dense / own,
            )  # fmt: skip


def _draw(draws: Callable[..., torch.Tensor], log_rate: torch.Tensor, options: dict[str, Any]) -> None:
    log_rate.grad = None
    z = draws(log_rate, **options, generator=torch.Generator(log_rate.device).manual_seed(0))
    z.backward(torch.ones_like(z))
