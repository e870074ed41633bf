"""Training with each estimator of gradients through counts: held-out free energy at equal steps and at equal time.

A linear Poisson model on the bundled photographs, where the exact gradient is known, and MLP models on digits with
Bernoulli (binarised) and Gaussian pixels. All start from the same weights, train with the same constant learning rate
and differ in the estimator alone. The free energy of held-out stimuli is that of integer counts. "Equal time" compares
all at the processor time that the fastest estimator took for all its steps, by linear interpolation.

    python benchmarks/estimators.py --digits mnist:FOLDER --out FOLDER
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spread import interval, shown

from spikevae.config import FitConfig
from spikevae.data import load
from spikevae.evaluation.evaluate import evaluate
from spikevae.training import Stack, train

RELAXED = {"estimator": "monte_carlo", "temperature_anneal": 0.0}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "exact": {"estimator": "exact", "decoder_update": "gradient"},
    "Fini 2": {"estimator": "fini"},
    "Fini 3": {"estimator": "fini", "fini_degree": 3},
    "cubic, 0.05": {**RELAXED, "temperature": 0.05},
    "cubic, 0.2": {**RELAXED, "temperature": 0.2},
    "cubic, 0.5": {**RELAXED, "temperature": 0.5},
    "sigmoid, 0.05": {**RELAXED, "temperature": 0.05, "indicator": "sigmoid"},
}
MLP = {"encoder": "mlp", "decoder": "mlp", "hidden": (128,), "n_latents": 64, "start": -1.0}
PROBLEMS: dict[str, dict[str, Any]] = {
    "photographs, linear": {"n_latents": 64, "init": "random", "start": -1.0, "learning_rate": 5e-3},
    "digits, Bernoulli": {**MLP, "likelihood": "bernoulli", "learning_rate": 2e-3},
    "digits, Gaussian": {**MLP, "noise_variance": 0.1, "learning_rate": 2e-3},
}
SHARED = {"batch_size": 100, "prior": "learned", "cycles": 1, "grad_clip": None}
PATCH, N_HELD_OUT, CHECKS = 8, 1000, 5


def stimuli(problem: str, digits: str | None) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Training and held-out stimuli, and their shape."""
    if problem.startswith("photographs"):
        found = load("bundled", patch=PATCH, n=20_000, seed=0)
        return torch.from_numpy(found.train), torch.from_numpy(found.test)[:N_HELD_OUT], (PATCH**2,)
    assert digits is not None
    found = load(digits)
    parts = [torch.from_numpy(x) for x in (found.train, found.test[:N_HELD_OUT])]
    if "Bernoulli" in problem:
        parts = [(x > 0.5).to(x.dtype) for x in parts]
    return parts[0], parts[1], (1, 28, 28)


def curves(problem: str, estimator: str, data: Any, seeds: int, steps: int) -> dict[str, Any]:
    """Processor seconds and free energies (checks, seeds) after each part of the training."""
    x, held_out, shape = data
    given = {**SHARED, **PROBLEMS[problem], **ESTIMATORS[estimator], "steps": steps}
    given["learning_rate_end"] = given["learning_rate"]
    stack = Stack([FitConfig.from_recipe("default", **given, seed=seed) for seed in range(seeds)], x, shape)
    seconds, found = [0.0], []
    for check in range(CHECKS):
        began = time.process_time()
        train(stack, until=steps * (check + 1) // CHECKS)
        seconds.append(seconds[-1] + time.process_time() - began)
        models = [stack.result(index).model for index in range(seeds)]
        found.append([evaluate(model, held_out, seed=1).metrics.free_energy for model in models])
    return {"problem": problem, "estimator": estimator, "seconds": seconds[1:], "free_energy": found}


def at_time(row: dict[str, Any], seconds: float) -> list[float]:
    """Free energy of each seed at a time, between two checks by interpolation."""
    return [float(np.interp(seconds, row["seconds"], column)) for column in np.array(row["free_energy"]).T]


def table(rows: list[dict[str, Any]], steps: int) -> str:
    """Markdown: mean and half of the 95 % interval over seeds."""
    lines = [
        f"| problem | estimator | free energy after {steps} steps | in equal time | processor ms per step |",
        "|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        mine = [row for row in rows if row["problem"] == problem]
        sampled = [row for row in mine if row["estimator"] != "exact"]
        fastest = min((row["seconds"][-1] for row in sampled), default=0.0)
        for row in sorted(mine, key=lambda row: np.mean(row["free_energy"][-1])):
            ends = [shown(interval(values), 2) for values in (row["free_energy"][-1], at_time(row, fastest))]
            each = 1e3 * row["seconds"][-1] / steps / row["n"]
            lines.append(f"| {problem} | {row['estimator']} | {' | '.join(ends)} | {each:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", metavar="mnist:PATH", help="without it, photographs only")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    parser.add_argument("--seeds", type=int, default=5, help="fits of each kind, 3 or more")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write estimators.json and estimators.md there")
    chosen = parser.parse_args()
    if chosen.seeds < 3:
        parser.error(f"--seeds {chosen.seeds}: intervals need three seeds or more")
    rows = []
    for problem in chosen.problems:
        if problem.startswith("digits") and chosen.digits is None:
            continue
        data = stimuli(problem, chosen.digits)
        for estimator in chosen.estimators:
            if estimator == "exact" and not problem.startswith("photographs"):
                continue
            row = curves(problem, estimator, data, chosen.seeds, chosen.steps) | {"n": chosen.seeds}
            rows.append(row)
            end, seconds = np.mean(row["free_energy"][-1]), row["seconds"][-1]
            print(f"{problem}, {estimator}: {end:.3f}, {seconds:.1f} s", flush=True)
            if chosen.out is not None:
                chosen.out.mkdir(parents=True, exist_ok=True)
                (chosen.out / "estimators.json").write_text(json.dumps(rows) + "\n")
    text = table(rows, chosen.steps)
    print(text)
    if chosen.out is not None:
        (chosen.out / "estimators.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
