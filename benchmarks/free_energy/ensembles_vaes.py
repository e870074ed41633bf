"""Ensembles of Poisson VAEs on photographs: bounds of their mixture, and how far their dictionaries differ."""

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae.ensembles import evidence_bounds, train_vaes

UNITS, MEMBERS, PATCH, STIMULI = 16, 4, 8, 8000
OBJECTIVES = ("average", "pac2_tight", "repulsion", "pac_m")


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of the atoms of two dictionaries (K, D), matched one to one so that it is largest."""
    a, b = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True) for atoms in (a, b))
    cosines = a @ b.T
    return float(cosines[linear_sum_assignment(-cosines)].mean())


def vaes(seed: int, steps: int) -> list[dict[str, Any]]:
    """Every objective from the same random weights."""
    patches, rows = sv.data.load("bundled", patch=PATCH, n=STIMULI, seed=seed), []
    estimator = sv.SpikeVAE(n_latents=UNITS, steps=steps, random_state=100 * seed, options={"init": "random"})
    for objective in OBJECTIVES:
        members = train_vaes(estimator, patches.train, MEMBERS, objective=objective)
        bounds = evidence_bounds(members, patches.test)
        pairs = combinations([member.components_ for member in members], 2)
        own = -bounds.members.mean(1)
        rows.append(
            {
                "objective": objective,
                "seed": seed,
                "free_energy": float(own.mean()),
                "best": float(own.min()),
                "with_repulsion": float(-bounds.repulsion.mean()),
                "mixture": float(-bounds.mixture.mean()),
                "similarity": float(np.mean([similarity(*pair) for pair in pairs])),
                "spikes": float(np.mean([member.transform(patches.test).sum(1).mean() for member in members])),
            }
        )
    return rows


def vaes_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| objective | free energy, mean of members | best member | with repulsion | mixture | similarity "
        "| spikes per stimulus |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    columns = (
        *(("free_energy", 2), ("best", 2), ("with_repulsion", 2)),
        *(("mixture", 2), ("similarity", 3), ("spikes", 1)),
    )
    plain = {row["seed"]: row for row in rows if row["objective"] == "average"}
    for objective in OBJECTIVES:
        mine = [row for row in rows if row["objective"] == objective]
        cells = " | ".join(shown(interval([row[name] for row in mine]), digits) for name, digits in columns)
        lines.append(f"| {objective} | {cells} |")
    for objective in OBJECTIVES[1:]:
        mine = [row for row in rows if row["objective"] == objective]
        cells = " | ".join(
            shown(interval([row[name] - plain[row["seed"]][name] for row in mine]), digits) for name, digits in columns
        )
        lines.append(f"| {objective} minus average | {cells} |")
    return "\n".join(lines)
