"""Energies of the contacts between the partners of a complex, from a published contact potential."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ..._settings import positive
from .cycle import check_partners
from .mutation import Mutant, mutated
from .structure import ALPHABET, Structure

POTENTIAL = "KESO980101"
"""Of the database AAindex3: quasichemical energy of transfer from water, from interfaces of protein complexes."""
CONTACT = 8.0
"""Angstrom between side chains (virtual beta carbons) that are in contact."""


def contact_energies(
    structure: Structure,
    mutants: Sequence[Mutant],
    partners: Sequence[str],
    *,
    potential: str | NDArray[Any] = POTENTIAL,
    distance: float = CONTACT,
) -> Float[np.ndarray, " n"]:
    r"""Energies of contacts between partners, of mutants minus that of the wild type.

    .. math:: E(s) = \sum_{(i, j) \text{ in contact}} e(s_i, s_j)

    over pairs of residues of different partners. Partners alone have none of these contacts, so that the difference is
    one of binding energies: positive for weaker binding. Residues are in contact, in wild type and mutants alike, where
    their beta carbons are near; these are placed from the backbone, so that glycine has one too. Needs the extra
    `protein` for the published potentials.

    Parameters
    ----------
    structure
        Of the complex.
    mutants
        n mutants.
    partners
        Labels of the chains of each partner, as ("ABC", "DE").
    potential
        Name of a contact potential of AAindex3, as "MIYS960101" or "KESO980101"; or (20, 20) energies e of the amino
        acids in the order of `ALPHABET`.
    distance
        Largest distance of a contact, in Angstrom.

    Returns
    -------
    energies
        (n,) in the unit of the potential; of the two named, RT.

    Raises
    ------
    ImportError
        Without the package aaindex.
    ValueError
        For an unknown potential, partners or mutants that do not fit the structure.

    References
    ----------
    Keskin, Bahar, Badretdinov, Ptitsyn and Jernigan (1998), Protein Science 7, 2578 (KESO980101); Miyazawa and Jernigan
    (1996), Journal of Molecular Biology 256, 623 (MIYS960101); Kawashima et al. (2008), Nucleic Acids Research 36, D202
    (AAindex3); Dauparas et al. (2022), Science 378, 49 (place of the beta carbon).

    Examples
    --------
    A residue across each of two chains, 5 Angstrom apart, and opposite charges that attract each other:

    >>> from spikevae.free_energy.mutations import parse_mutant
    >>> backbone = torch.tensor([[-0.5, 1.4, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [2.1, 1.0, 0.0]]).double()
    >>> other = backbone + torch.tensor([0.0, 0.0, 5.0])
    >>> pair = Structure(torch.stack([backbone, other]), torch.tensor([8, 2]), ("A", "B"), ("1", "1"))
    >>> charges = np.zeros((20, 20))
    >>> charges[8, 2] = charges[2, 8] = -1.0
    >>> contact_energies(pair, [parse_mutant("KA1A")], ("A", "B"), potential=charges).tolist()
    [1.0]
    """
    check_partners(partners, structure)
    positive("distance", distance)
    table = torch.zeros(len(ALPHABET), len(ALPHABET), dtype=torch.float64)  # no energy of unknown residues
    table[:20, :20] = torch.from_numpy(_energies(potential))
    sequences = torch.cat([structure.sequence[None], mutated(structure, mutants)])
    pairs = interface(structure, partners, distance)
    energies = table[sequences[:, pairs[:, 0]], sequences[:, pairs[:, 1]]].sum(1)
    return (energies[1:] - energies[0]).numpy()


def interface(structure: Structure, partners: Sequence[str], distance: float = CONTACT) -> Int[Tensor, "pairs 2"]:
    """Pairs of positions of residues of different partners that are in contact, each pair once."""
    group = torch.tensor([next((g for g, names in enumerate(partners) if c in names), -1) for c in structure.chains])
    place = beta_carbons(structure.coordinates)
    near = torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist") <= distance  # false for absent atoms
    apart = (group[:, None] != group) & (group[:, None] >= 0) & (group >= 0)
    return (near & apart).triu(1).nonzero()


def beta_carbons(coordinates: Float[Tensor, "L 4 3"]) -> Float[Tensor, "L 3"]:
    """Where the beta carbon of each residue is, in Angstrom, from N, CA and C in ideal geometry."""
    n, ca, c = coordinates[:, 0], coordinates[:, 1], coordinates[:, 2]
    b, d = ca - n, c - ca
    return ca - 0.58273431 * torch.linalg.cross(b, d) + 0.56802827 * b - 0.54067466 * d


def _energies(potential: str | NDArray[Any]) -> Float[np.ndarray, "20 20"]:
    if not isinstance(potential, str):
        given = np.asarray(potential, dtype=np.float64)
        if given.shape != (20, 20) or not np.isfinite(given).all() or not np.array_equal(given, given.T):
            raise ValueError(f"the contact potential has shape {given.shape}; give (20, 20) finite, symmetric energies")
        return given
    try:
        from aaindex import aaindex3
    except ImportError:
        raise ImportError("published contact potentials need aaindex: pip install 'spikevae[protein]'") from None
    if potential not in aaindex3.record_codes():
        raise ValueError(f"AAindex3 has no contact potential {potential!r}; give one as MIYS960101 or KESO980101")
    table = aaindex3[potential]["matrix"]
    found = np.array([[table[a][b] for b in ALPHABET[:20]] for a in ALPHABET[:20]], dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"the contact potential {potential} lacks energies of some amino acids; take another")
    return found
