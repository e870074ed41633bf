"""Scores of mutants of Potts chains whose binding energies are known."""

from typing import Any

import numpy as np
import torch
from mutations_tables import signed
from scipy.stats import spearmanr
from torch import Tensor

from spikevae.free_energy.mutations import ALPHABET, Cycle, PottsPair, Structure, frozen_context, parse_mutant

SITES, STATES = 3, 3
SCORES = {
    "cycle": "cycle",
    "log odds": "log odds alone",
    "pseudo": "cycle of pseudo-likelihoods",
    "frozen": "cycle, frozen context",
}


def pseudo_likelihood(pair: PottsPair, structure: Structure, sequences: Tensor) -> Tensor:
    """Sum of log probabilities of each residue given all others."""
    total = torch.zeros(len(sequences), dtype=torch.float64)
    every = torch.arange(len(structure))
    for place in range(len(structure)):
        order = torch.cat([every[every != place], every[place, None]])
        total += pair.log_probabilities(structure, sequences, order=order)[:, place]
    return total


def compared(pairs: int) -> dict[str, list[float]]:
    """True differences in kT, and scores in nats, of one mutant with a mutation in each chain, for each pair."""
    found: dict[str, list[float]] = {name: [] for name in ("truth", *SCORES)}
    for seed in range(pairs):
        rng, pair = np.random.default_rng(seed), PottsPair((SITES, SITES), STATES, seed=seed)
        parts = [f"A{chain}{rng.integers(SITES) + 1}{ALPHABET[rng.integers(1, STATES)]}" for chain in ("A", "B")]
        mutants = [parse_mutant(",".join(parts))]
        cycle = Cycle(pair, pair.structure, mutants, ("A", "B"), seed=seed)
        scores = cycle.run(1)
        terms = [pseudo_likelihood(pair, own, cycle.sequences[:, places]) for own, places in cycle.systems]
        binding = terms[0] - sum(terms[1:])
        found["truth"].append(float(pair.binding_energies(mutants)[0]))
        found["cycle"].append(float(scores.binding[0]))
        found["log odds"].append(float(scores.log_odds[0]))
        found["pseudo"].append(float(binding[0] - binding[1]))
        found["frozen"].append(float(frozen_context(cycle)[0, 0]))
    return found


def potts_table(found: dict[str, Any]) -> str:
    """Markdown."""
    truth = np.array(found["potts"]["truth"])
    lines = ["| score | rank correlation | slope | largest error, kT |", "|---|--:|--:|--:|"]
    for name, words in SCORES.items():
        score = np.array(found["potts"][name])
        slope, error = np.polyfit(truth, score, 1)[0], np.abs(score - truth).max()
        shown = f"{error:.0e}" if error < 1e-6 else f"{error:.2f}"
        lines.append(f"| {words} | {signed(spearmanr(score, truth).statistic)} | {slope:.2f} | {shown} |")
    return "\n".join(lines)
