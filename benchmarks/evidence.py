"""How far the bound is below the evidence, and what importance-weighted training gains. About ten minutes of one core.

    python benchmarks/evidence.py --data folder:PHOTOGRAPHS --digits mnist:FOLDER --out evidence

For a default linear Poisson fit of photographs and a small Poisson model of binarised digits with a two-layer decoder,
64 units each: the gap of the bound to estimates of log p(x) by importance sampling with 1 to 5,000 samples and by
annealed importance sampling. For the same models trained by importance-weighted bounds of eight samples, with each
estimator of the gradient: free energy, evidence and spikes. And the standard deviation, bias and direction of these
gradients for single stimuli, compared with the mean of many unbiased ones. Writes `evidence.json` and tables in
Markdown.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.distributions import Poisson
from spikevae.evaluation import evaluate, log_evidence
from spikevae.importance import importance_weighted
from spikevae.training import Stack
from spikevae.training import train as train_stack

N_STIMULI = 50
SAMPLED, ANNEALED = (1, 10, 100, 1000, 5000), ((10, 10), (10, 30), (10, 100))
"""Samples of importance sampling; chains and annealing steps."""
PROBLEMS: dict[str, dict[str, Any]] = {
    "photographs, linear": {"n_latents": 64},
    "digits, MLP": {
        "n_latents": 64,
        "encoder": "mlp",
        "decoder": "mlp",
        "hidden": (128,),
        "likelihood": "bernoulli",
        "start": -1.0,
        "steps": 1000,
        "batch_size": 100,
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "free energy": {},
    "8 samples, score function": {"n_importance": 8, "estimator": "score_function"},
    "8 samples, Fini": {"n_importance": 8, "estimator": "fini"},
}
TRAINED_BY = (10, 30)
"""Chains and annealing steps by which trained models are compared."""
SMALL = {  # units, pixels, scale of the dictionary, prior rate
    "3 units, 1 spike each": (3, 4, 1.0, 1.0),
    "64 units, 0.3 spikes each": (64, 64, 0.3, 0.3),
}


def fit(train: Tensor, shape: tuple[int, ...], **options: Any) -> tuple[Any, float]:
    """A trained model, and CPU seconds."""
    began = time.process_time()
    stack = Stack([FitConfig.from_recipe("default", **options)], train, shape)
    train_stack(stack)
    return stack.result(0).model, time.process_time() - began


def gaps(model: Any, test: Tensor) -> list[dict[str, Any]]:
    """One row for each estimate of the evidence."""
    rows = []
    for samples, steps in (*((k, 0) for k in SAMPLED), *ANNEALED):
        began = time.process_time()
        found = log_evidence(model, test, samples=samples, annealing_steps=steps)
        rows.append({**found.to_dict(), "cpu_seconds": time.process_time() - began})
    return rows


def trained(train: Tensor, test: Tensor, shape: tuple[int, ...], options: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each way to train."""
    rows = []
    chains, steps = TRAINED_BY
    for name, way in WAYS.items():
        model, seconds = fit(train, shape, **options, **way)
        result = evaluate(model, test)
        found = log_evidence(model, test, samples=chains, annealing_steps=steps)
        rows.append(
            {
                "way": name,
                "free_energy": result.metrics.free_energy,
                "evidence": found.log_evidence,
                "error": found.standard_error,
                "spikes": result.metrics.spikes,
                "cpu_seconds": seconds,
            }
        )
        print(rows[-1], flush=True)
    return rows


def noise(
    units: int, pixels: int, scale: float, rate: float, *, draws: int = 60_000, long: int = 10
) -> list[dict[str, Any]]:
    """Gradients by the log firing rates of one stimulus whose posterior is the best of the free energy."""
    g = torch.Generator().manual_seed(0)
    dictionary = scale * torch.randn(units, pixels, generator=g)
    prior = Poisson(torch.full((units,), math.log(rate)))
    x = prior.sample(generator=g) @ dictionary + math.sqrt(0.5) * torch.randn(pixels, generator=g)
    best, copies = _best_posterior(x, dictionary, prior), max(2, draws // units)
    rows = []
    for m in (2, 8, 64):
        found = {name: _gradients(x, dictionary, prior, best, m, name, copies) for name in ("score_function", "fini")}
        many = [_gradients(x, dictionary, prior, best, m, "score_function", copies, seed=i + 1) for i in range(long)]
        truth = torch.cat([*many, found["score_function"]]).mean(0)
        for name, value in found.items():
            mean = value.mean(0)
            rows.append(
                {
                    "m": m,
                    "estimator": name,
                    "deviation": float(value.var(0).sum().sqrt() / truth.norm()),
                    "bias": float((mean - truth).norm() / truth.norm()),
                    "resolution": float((value.var(0).sum() / copies).sqrt() / truth.norm()),
                    "cosine": float(torch.cosine_similarity(mean, truth, dim=0)),
                }
            )
    return rows


def _best_posterior(x: Tensor, dictionary: Tensor, prior: Any) -> Tensor:
    """Log firing rates of the least free energy, by Adam."""
    log_rate = prior.log_rate.clone().requires_grad_()
    optimiser = torch.optim.Adam([log_rate], lr=0.05)
    for _ in range(500):
        q = Poisson(log_rate, validate_args=False)
        error = (x - q.rate @ dictionary).square().sum() + q.rate @ dictionary.square().sum(-1)
        loss = error + torch.distributions.kl_divergence(q, prior).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return log_rate.detach()


def _gradients(
    x: Tensor, dictionary: Tensor, prior: Any, best: Tensor, m: int, name: Any, copies: int, seed: int = 0
) -> Tensor:
    """(copies, K) estimates of the gradient of minus the bound by log firing rates."""
    log_rate = best.expand(copies, -1).clone().requires_grad_()
    found = importance_weighted(
        lambda code: (x - code @ dictionary).square().sum(-1),
        Poisson(log_rate, validate_args=False),
        prior,
        samples=m,
        estimator=name,
        generator=torch.Generator().manual_seed(seed),
    )
    (gradient,) = torch.autograd.grad(found.value.sum(), log_rate)
    return gradient


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    lines = ["| problem | estimate | log p(x) | gap | estimated bias | effective samples | CPU s |", "|---" * 7 + "|"]
    for name, rows in results["gaps"].items():
        for row in rows:
            how = f"importance, k = {row['samples']:,}"
            if row["annealing_steps"]:
                how = f"annealed, k = {row['samples']}, {row['annealing_steps']} steps"
            error = f" ± {row['standard_error']:.2f}" if row["samples"] > 1 else ""
            lines.append(
                f"| {name} | {how} | {row['log_evidence']:.2f}{error} | {row['gap']:.2f} | {row['bias']:.2f} | "
                f"{row['effective_samples']:.1f} | {row['cpu_seconds']:.0f} |"
            )
    head = "| problem | trained by | free energy | −log p(x), annealed | gap | spikes per stimulus | CPU s |"
    lines += ["", head, "|---" * 7 + "|"]
    for name, rows in results["trained"].items():
        for row in rows:
            lines.append(
                f"| {name} | {row['way']} | {row['free_energy']:.2f} | {-row['evidence']:.2f} ± {row['error']:.2f} | "
                f"{row['free_energy'] + row['evidence']:.2f} | {row['spikes']:.1f} | {row['cpu_seconds']:.0f} |"
            )
    head = "| gradient of | m | estimator | standard deviation | bias | cosine of the mean |"
    lines += ["", head, "|---" * 6 + "|"]
    for name, rows in results["noise"].items():
        for row in rows:
            bias = f"{row['bias']:.2f}" if row["bias"] > 3 * row["resolution"] else f"below {3 * row['resolution']:.2g}"
            lines.append(
                f"| {name} | {row['m']} | {row['estimator'].replace('_', ' ')} | {row['deviation']:.3g} | {bias} | "
                f"{row['cosine']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", help="photographs")
    parser.add_argument("--digits", help="digits; without them only photographs are used")
    parser.add_argument("--out", type=Path, default=Path("evidence"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = {"photographs, linear": sv.data.load(arguments.data, patch=16, n=20_000, seed=0)}
    if arguments.digits:
        sources["digits, MLP"] = sv.data.load(arguments.digits, seed=0)
    results: dict[str, Any] = {"noise": {name: noise(*sizes) for name, sizes in SMALL.items()}}
    results |= {"gaps": {}, "trained": {}}
    for name, data in sources.items():
        train, test = torch.from_numpy(data.train), torch.from_numpy(data.test[:N_STIMULI])
        if PROBLEMS[name].get("likelihood") == "bernoulli":
            train, test = ((part > 0.5).float() for part in (train, test))
        model, _ = fit(train, data.shape, **PROBLEMS[name])
        results["gaps"][name] = gaps(model, test)
        print(markdown(results), flush=True)
        results["trained"][name] = trained(train, test, data.shape, PROBLEMS[name])
        arguments.out.with_suffix(".json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    main()
