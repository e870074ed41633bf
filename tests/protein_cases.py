"""Proteins and weights that several tests use."""

import math

import torch
from helpers import seeded
from torch import Tensor

from spikevae.free_energy.mutations import ALPHABET, ProteinMPNN, Structure

NAMES = "ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYRUNK"
THREE = {letter: NAMES[3 * i : 3 * i + 3] for i, letter in enumerate(ALPHABET)}
CYLINDER = {"N": (1.55, -28.0, -0.9), "CA": (2.29, 0.0, 0.0), "C": (1.66, 26.0, 1.1), "O": (2.0, 22.0, 2.3)}
"""Radius, angle and height of the atoms of an alpha helix, in Angstrom and degrees."""


def helix(length: int, x: float) -> Tensor:
    """(L, 4, 3) backbone of an alpha helix along z that starts at (x, 0, 0), to three digits."""
    places = []
    for i in range(length):
        for radius, angle, height in CYLINDER.values():
            turn = math.radians(100 * i + angle)
            places.append([x + radius * math.cos(turn), radius * math.sin(turn), 1.5 * i + height])
    return torch.tensor(places, dtype=torch.float64).view(length, 4, 3).mul(1000).round().div(1000)


def two_helices(first: int = 40, second: int = 30) -> Structure:
    """Chains A and B side by side, of letters in turn; A lacks residues 11 to 13, and the oxygen of its third."""
    n = first + second
    coordinates = torch.cat([helix(first, 0.0), helix(second, 9.0)])
    coordinates[2, 3] = torch.nan
    numbers = [str(i + 1 if i < 10 else i + 4) for i in range(first)] + [str(i + 1) for i in range(second)]
    return Structure(coordinates, torch.arange(n) * 7 % 20, ("A",) * first + ("B",) * second, tuple(numbers))


def pdb_text(structure: Structure) -> str:
    """The structure in the format of the Protein Data Bank."""
    lines = []
    for i, (chain, number) in enumerate(zip(structure.chains, structure.residues)):
        name, code = THREE[structure.letters[i]], number if number[-1].isalpha() else number + " "
        for atom, place in zip(("N", "CA", "C", "O"), structure.coordinates[i].tolist()):
            if not math.isnan(place[0]):
                x, y, z = (f"{value:8.3f}" for value in place)
                head = f"ATOM  {len(lines) + 1:5d}  {atom:<3s} {name} {chain}{code:>5s}"
                lines.append(f"{head}   {x}{y}{z}  1.00  0.00           {atom[0]}")
        if i + 1 == len(structure) or structure.chains[i + 1] != chain:
            lines.append("TER")
    return "\n".join([*lines, "END", ""])


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Weights under which every part of the network matters."""
    generator = seeded(seed)
    return {
        name: torch.randn(shape, generator=generator) * (2 / max(shape[-1], 8)) ** 0.5
        + ("norm" in name and len(shape) == 1)
        for name, shape in ProteinMPNN.weight_shapes().items()
    }
