"""Dictionaries learned with and without counts, each used by sparse and by iterative Poisson inference.

Three dictionaries (of an amortised and of an iterative Poisson model, beta 1, and of sparse coding with codes of zero
or more) are coded by sparse inference (LCA, rectified) and by iterative Poisson inference over a range of
weights (sparsity weight, or beta), on held-out stimuli. R2 is interpolated where codes have a given fraction of zeros.
Of a dictionary, only the directions of its atoms are used: the size of a spike and the prior are fitted to training
stimuli, for each beta again, as `spikevae compare` does for sparse coders. The table also has the free energy of the
Poisson models with their own sizes and priors.

    python benchmarks/exchange.py folder:PHOTOGRAPHS
"""

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inferences import BATCH, N_LATENTS, N_TEST, N_TRAIN, PATCH, SEEDS, STEP_BY_STEP
from spread import interval, shown

from spikevae.compare import compare
from spikevae.compare.points import MAX_TRAINING, Comparison
from spikevae.compare.reading import Trained
from spikevae.compare.recodings import RECODINGS, Effort
from spikevae.config import FitConfig
from spikevae.data import PatchSet, load
from spikevae.estimators.sparse_coder import SparseCoder
from spikevae.evaluation.evaluate import evaluate
from spikevae.evaluation.metrics import Metrics
from spikevae.models.sparse.model import SparseCoding
from spikevae.training import Stack, train

SPARSE, COUNTS = "lca-rectified", "iterative"
POISSON: dict[str, dict[str, Any]] = {"amortised Poisson": {}, "iterative Poisson": STEP_BY_STEP}
DICTIONARIES = (*POISSON, "sparse coding")
SPARSITY_WEIGHT, BETA, ZEROS = 0.5, 1.0, 0.7
"""Sparsity weight of the sparse dictionary, beta of the Poisson models, fraction of zeros in the table."""
N_WEIGHTS = 10


def learned(data: PatchSet, seeds: int) -> list[Trained]:
    """A model for each dictionary and seed."""
    x, models = torch.from_numpy(data.train), []
    for name, options in POISSON.items():
        given = {"n_latents": N_LATENTS, "batch_size": BATCH, "beta": BETA, **options}
        configs = [FitConfig.from_recipe("default", **given, seed=seed) for seed in range(seeds)]
        stack = Stack(configs, x, (x.shape[1],))
        train(stack)
        models += [
            Trained(f"{name} {seed}", name, Path(name), stack.result(seed).model.requires_grad_(False), seed, {})
            for seed in range(seeds)
        ]
    for seed in range(seeds):
        coder = SparseCoder(
            N_LATENTS, SPARSITY_WEIGHT, inference=SPARSE, steps=200, batch_size=BATCH, random_state=seed
        ).fit(x)
        models.append(Trained(f"{DICTIONARIES[-1]} {seed}", DICTIONARIES[-1], Path("coder"), coder.model_, seed, {}))
    return models


def at_zeros(comparison: Comparison, inference: str, number: str) -> float:
    """A number where codes have `ZEROS` zeros, interpolated between neighbouring weights; nan outside the scan."""
    points = comparison.of(comparison.models[0].name, inference)
    line = sorted((p.metrics.fraction_zeros, getattr(p.metrics, number)) for p in points)
    return float(np.interp(ZEROS, *np.array(line).T, left=np.nan, right=np.nan))


def rows_of(data: PatchSet, seeds: int) -> list[dict[str, Any]]:
    """One row per dictionary and seed."""
    models, rows = learned(data, seeds), []
    x, some = (torch.from_numpy(part[:size]) for part, size in ((data.test, N_TEST), (data.train, MAX_TRAINING)))

    def counted(model: Any, seed: int) -> Metrics:
        return evaluate(RECODINGS[COUNTS].build(model, BETA, Effort(), some), x, seed=seed).metrics

    for one in models:
        print(one.name, file=sys.stderr, flush=True)
        bare = SparseCoding.around(one.model.dictionary, None, one.model.shape, algorithm=SPARSE, beta=SPARSITY_WEIGHT)
        found = compare(
            [replace(one, model=bare)],
            data,
            inferences=(SPARSE, COUNTS),
            n_prices=N_WEIGHTS,
            n_stimuli=N_TEST,
            seed=one.seed,
        )
        own = counted(one.model, one.seed).free_energy if one.label in POISSON else math.nan
        fitted = counted(bare, one.seed)
        rows.append(
            {
                "dictionary": one.label,
                "seed": one.seed,
                "sparse": at_zeros(found, SPARSE, "r2_pooled"),
                "counts": at_zeros(found, COUNTS, "r2_pooled"),
                "counts_mean": at_zeros(found, COUNTS, "r2_pooled_mean_code"),
                "own": own,
                "fitted": fitted.free_energy,
                "spikes": fitted.spikes,
            }
        )
    return rows


COLUMNS: dict[str, tuple[str, int]] = {
    f"R² at {ZEROS:.0%} zeros: {RECODINGS[SPARSE].label}": ("sparse", 3),
    "iterative, mean counts": ("counts_mean", 3),
    "sampled counts": ("counts", 3),
    f"free energy at β = {BETA:g}, own sizes and prior": ("own", 1),
    "fitted ones": ("fitted", 1),
    "spikes": ("spikes", 0),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row per dictionary, means and 95 % intervals over seeds."""
    lines = ["| dictionary of | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name in DICTIONARIES:
        own = [row for row in rows if row["dictionary"] == name]
        entries = [shown(interval([row[key] for row in own]), digits) for key, digits in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=["bundled"], help="bundled, folder:PATH, mnist:PATH, ...")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"dictionaries of each kind, 2 or more; {SEEDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows there")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error(f"--seeds {chosen.seeds}: intervals need two seeds or more")
    found, began = {}, time.perf_counter()
    for source in chosen.sources:
        cut = {} if source.startswith("mnist") else {"patch": PATCH, "n": N_TRAIN, "n_test": N_TEST}
        found[source] = rows_of(load(source, **cut), chosen.seeds)
        print(f"{source.partition(':')[0]}\n\n{table(found[source])}\n", flush=True)
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - began:.0f} s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
