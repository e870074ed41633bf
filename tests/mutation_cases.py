"""Scorers, structures and tables for tests of mutants."""

from pathlib import Path

import torch
from torch import Tensor

from spikevae.free_energy.mutations import Structure, parse_mutant

PAIR = Structure.of({"A": "ACDEF", "B": "GHIK"})
MUTANTS = [parse_mutant(text) for text in ("AA1C", "DA3W", "HB2Y", "AA1C,KB4R")]
COLUMNS = (
    "#Pdb;Mutation(s)_PDB;Mutation(s)_cleaned;Affinity_mut (M);Affinity_mut_parsed;Affinity_wt (M);Affinity_wt_parsed;"
    "Temperature"
)


class OneWay:
    """Depends on the order and on the noise, as networks do: no joint distribution has these conditionals."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        length = len(PAIR)
        self.fields = torch.randn(length, 21, generator=draw, dtype=torch.float64)
        self.couplings = torch.randn(length, length, 21, 21, generator=draw, dtype=torch.float64)

    def log_probabilities(
        self, structure: Structure, sequences: Tensor, *, order: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        places = torch.tensor([PAIR.index(*key) for key in zip(structure.chains, structure.residues)])
        logits = self.fields[places].expand(len(sequences), -1, -1).clone()
        if noise is not None:
            logits[..., 0] += noise.sum((1, 2))
            logits[..., 1] -= noise.sum((1, 2))
        seen: list[int] = []
        for place in order.tolist():
            for other in seen:
                logits[:, place] += self.couplings[places[place], places[other]][:, sequences[:, other]].T
            seen.append(place)
        return logits.log_softmax(-1).gather(2, sequences[..., None])[..., 0]


def write_table(path: Path, *rows: str) -> Path:
    """A table of SKEMPI; rows as "mutation in the numbering of the Protein Data Bank;cleaned;mutant;parsed;wild
    type;parsed;Kelvin"."""
    path.write_text("\n".join([COLUMNS, *(f"1ABC_A_B;{row}" for row in rows)]) + "\n")
    return path
