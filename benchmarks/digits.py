"""How useful are codes of digits for classification, by law? k-nearest neighbours from few labels, and shattering.

Models with linear or MLP encoder and decoder are trained on digits without labels, all with one recipe and budget.
Features are mean codes and, for counts, also their square roots, whose noise is about the same at every rate. The table
also has the published values (Vafaii, Galor & Yates 2024, arXiv 2405.14473; convolutions, all of MNIST).

    python benchmarks/digits.py --digits mnist:FOLDER --json FILE
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
from spikevae.metrics.probes import knn_accuracy, shattering_dimensionality
from spikevae.training import Stack, train

ROWS: dict[str, dict[str, Any]] = {
    "Poisson": {"latent": "poisson"},
    "negative binomial": {"latent": "negative_binomial"},
    "categorical": {"latent": "categorical"},
    "Gaussian": {"latent": "gaussian"},
    "Poisson, 10 units above": {"latent": "poisson", "upper": (10,)},
}
PUBLISHED: dict[tuple[str, int], tuple[float, float, float]] = {  # 200 labels, 1000 labels, shattering
    ("Poisson", 10): (0.815, 0.919, 0.797),
    ("Poisson", 50): (0.825, 0.927, 0.935),
    ("categorical", 10): (0.705, 0.800, 0.795),
    ("categorical", 50): (0.770, 0.880, 0.899),
    ("Gaussian", 10): (0.673, 0.813, 0.758),
    ("Gaussian", 50): (0.604, 0.746, 0.743),
}
SHARED = {"beta": 1.0, "batch_size": 200}
NETWORKS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (256,), "start": -1.0},
}
SIZES, N_LABELS, N_PROBED, DRAWS = (10, 50), (200, 1000), 4000, 5
"""Latent units; labels; training digits of the logistic probes; draws of the labelled digits."""


def probed(model: Any, digits: Any, seed: int) -> dict[str, float]:
    """Accuracies from the mean codes of one model, and its metrics."""
    with torch.inference_mode():
        codes, unseen = (
            model.posterior(torch.from_numpy(part)).mean.double().numpy() for part in (digits.train, digits.test)
        )
    labels, unseen_labels = digits.train_labels, digits.test_labels
    near = {"knn": neighbours(codes, labels, unseen, unseen_labels, seed)}
    if model.law.is_count:
        near["root"] = neighbours(np.sqrt(codes), labels, np.sqrt(unseen), unseen_labels, seed)
    metrics = evaluate(model, digits.test, seed=seed).metrics
    return {
        **{f"{kind}_{n}": value for kind, found in near.items() for n, value in found.items()},
        "shattering": shattering_dimensionality(codes[:N_PROBED], labels[:N_PROBED], unseen, unseen_labels),
        "r2": metrics.r2_pooled_mean_code,
        "kl": metrics.kl,
        "zeros": metrics.fraction_zeros,
        "spikes": metrics.spikes,
    }


def neighbours(codes: Any, labels: Any, unseen: Any, unseen_labels: Any, seed: int) -> dict[int, float]:
    """Accuracy of k nearest neighbours by the number of labels, mean over draws of the labelled digits."""
    draws = [
        knn_accuracy(codes, labels, unseen, unseen_labels, n_labels=N_LABELS, rng=np.random.default_rng([seed, draw]))
        for draw in range(DRAWS)
    ]
    return {n: float(np.mean([draw[n] for draw in draws])) for n in N_LABELS}


def pixels(digits: Any, seed: int) -> dict[str, float]:
    """The same accuracies from pixels."""
    found = neighbours(digits.train, digits.train_labels, digits.test, digits.test_labels, seed)
    return {f"knn_{n}": value for n, value in found.items()}


def run(source: str, networks: str, seeds: int, steps: int) -> list[dict[str, Any]]:
    """One row for each law and size."""
    digits = load(source)
    x = torch.from_numpy(digits.train)
    rows = []
    for size in SIZES:
        for name, options in ROWS.items():
            given = {**SHARED, **NETWORKS[networks], **options, "n_latents": size, "steps": steps}
            configs = [FitConfig.from_recipe("default", **given, seed=seed) for seed in range(seeds)]
            began = time.perf_counter()
            stack = Stack(configs, x, (1, 28, 28))
            train(stack)
            models = [stack.result(index).model.requires_grad_(False) for index in range(seeds)]
            found = [probed(model, digits, seed) for seed, model in enumerate(models)]
            row = {"law": name, "n_latents": size, "seconds": time.perf_counter() - began}
            rows.append(row | {key: interval([one[key] for one in found]) for key in found[0]})
            print(f"{name}, K = {size}: {row['seconds']:.0f} s", flush=True)
    baseline = [pixels(digits, seed) for seed in range(seeds)]
    rows.append(
        {"law": "pixels", "n_latents": 784} | {key: interval([one[key] for one in baseline]) for key in baseline[0]}
    )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| law | K | kNN, 200 labels (published) | 1000 (published) | of √means, 200 | 1000 | shattering (published) "
        "| R² | nats | zeros |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = PUBLISHED.get((row["law"], row["n_latents"]))
        near_200, near_1000, shattering = (
            shown(row.get(key)) + (f" ({theirs[i]:.3f})" if theirs else "")
            for i, key in enumerate(("knn_200", "knn_1000", "shattering"))
        )
        entries = [near_200, near_1000, shown(row.get("root_200")), shown(row.get("root_1000")), shattering]
        entries += [shown(row.get("r2")), shown(row.get("kl"), 1), shown(row.get("zeros"))]
        lines.append(f"| {row['law']} | {row['n_latents']} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", metavar="mnist:PATH", required=True)
    parser.add_argument("--networks", choices=list(NETWORKS), default="linear", help="encoder and decoder; linear")
    parser.add_argument("--seeds", type=int, default=4, help="fits of each law, 3 or more")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    chosen = parser.parse_args()
    if chosen.seeds < 3:
        parser.error(f"--seeds {chosen.seeds}: intervals need three seeds or more")
    rows = run(chosen.digits, chosen.networks, chosen.seeds, chosen.steps)
    print(f"\nMeans and 95 % intervals over {chosen.seeds} seeds.\n\n{table(rows)}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
