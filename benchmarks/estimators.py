"""Training with each estimator of gradients through counts: held-out free energy at equal steps and at equal time.

A linear Poisson model on the bundled photographs, where the exact gradient is known, and MLP models on digits with
Bernoulli (binarised) and Gaussian pixels. All start from the same weights, train with the same constant learning rate
and differ in the estimator alone. The free energy of held-out stimuli is that of integer counts. "Equal time" compares
all at the processor time that the fastest estimator took for all its steps, by linear interpolation. With `--cosine`
the learning rate falls to nearly zero, so that ends of fits compare without the noise of the last steps; equal time
is then not compared. The table also has the difference of each estimator from Fini of degree 2, paired by seed, and the
published one (He and Wu 2026; photographs: van Hateren, 512 units; digits: all of MNIST).

    python benchmarks/estimators.py --digits mnist:FOLDER --out FOLDER

The same command with the same `--out` continues a run that was stopped.
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
REFERENCE = "Fini 2"
PUBLISHED: dict[tuple[str, str], float] = {  # free energy minus that of Fini 2, nats per stimulus
    ("photographs, linear", "exact"): -0.03,
    ("photographs, linear", "cubic, 0.05"): 0.09,
    ("digits, Bernoulli", "Fini 3"): -0.28,
    ("digits, Bernoulli", "cubic, 0.5"): 1.18,
    ("digits, Gaussian", "Fini 3"): -1.01,
    ("digits, Gaussian", "cubic, 0.5"): -1.19,
}
LAST_RATE = 1e-5
"""Learning rate at the end of the cosine."""
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


def curves(problem: str, estimator: str, data: Any, seeds: int, steps: int, *, cosine: bool) -> dict[str, Any]:
    """Processor seconds and free energies (checks, seeds) after each part of the training."""
    x, held_out, shape = data
    given = {**SHARED, **PROBLEMS[problem], **ESTIMATORS[estimator], "steps": steps}
    given["learning_rate_end"] = LAST_RATE if cosine else given["learning_rate"]
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


def minus_reference(values: list[float], reference: list[float] | None) -> str:
    """Mean and half of the 95 % interval of the differences of seeds; a dash without other values to compare with."""
    if reference is None or values == reference:
        return "–"
    return shown(interval([a - b for a, b in zip(values, reference, strict=True)]), 2)


def table(rows: list[dict[str, Any]], steps: int, *, cosine: bool) -> str:
    """Markdown: means and half of the 95 % intervals over seeds."""
    lines = [
        f"| problem | estimator | free energy after {steps} steps | minus {REFERENCE}, paired (published) "
        f"| in equal time | minus {REFERENCE}, paired | processor ms per step |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        mine = [row for row in rows if row["problem"] == problem]
        fastest = min((row["seconds"][-1] for row in mine if row["estimator"] != "exact"), default=0.0)
        base = next((row for row in mine if row["estimator"] == REFERENCE), None)
        for row in sorted(mine, key=lambda row: np.mean(row["free_energy"][-1])):
            theirs = PUBLISHED.get((problem, row["estimator"]))
            entries = [shown(interval(row["free_energy"][-1]), 2)]
            entries.append(minus_reference(row["free_energy"][-1], base["free_energy"][-1] if base else None))
            entries[-1] += f" ({theirs:+.2f})".replace("-", "−") if theirs is not None else ""
            timed = at_time(row, fastest)
            entries += [shown(interval(timed), 2), minus_reference(timed, at_time(base, fastest) if base else None)]
            if cosine:
                entries[2:] = ["–", "–"]
            each = 1e3 * row["seconds"][-1] / steps / row["n"]
            lines.append(f"| {problem} | {row['estimator']} | {' | '.join(entries)} | {each:.2f} |")
    return "\n".join(lines)


def earlier(folder: Path | None, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a stopped run in a folder; none where it holds none of these seeds, steps and schedule."""
    path = folder / "estimators.json" if folder is not None else None
    if path is None or not path.exists():
        return []
    return [row for row in json.loads(path.read_text()) if all(row.get(key) == value for key, value in facts.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", metavar="mnist:PATH", help="without it, photographs only")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    parser.add_argument("--seeds", type=int, default=5, help="fits of each kind, 3 or more")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--cosine", action="store_true", help="a falling learning rate, for converged fits")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write estimators.json and estimators.md there")
    chosen = parser.parse_args()
    if chosen.seeds < 3:
        parser.error(f"--seeds {chosen.seeds}: intervals need three seeds or more")
    facts = {"n": chosen.seeds, "steps": chosen.steps, "cosine": chosen.cosine}
    rows = earlier(chosen.out, facts)
    done = {(row["problem"], row["estimator"]) for row in rows}
    for problem in chosen.problems:
        if problem.startswith("digits") and chosen.digits is None:
            continue
        data = stimuli(problem, chosen.digits)
        for estimator in chosen.estimators:
            if (problem, estimator) in done or (estimator == "exact" and not problem.startswith("photographs")):
                continue
            row = curves(problem, estimator, data, chosen.seeds, chosen.steps, cosine=chosen.cosine) | facts
            rows.append(row)
            end, seconds = np.mean(row["free_energy"][-1]), row["seconds"][-1]
            print(f"{problem}, {estimator}: {end:.3f}, {seconds:.1f} s", flush=True)
            if chosen.out is not None:
                chosen.out.mkdir(parents=True, exist_ok=True)
                (chosen.out / "estimators.json").write_text(json.dumps(rows) + "\n")
    text = table(rows, chosen.steps, cosine=chosen.cosine)
    print(text)
    if chosen.out is not None:
        (chosen.out / "estimators.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
