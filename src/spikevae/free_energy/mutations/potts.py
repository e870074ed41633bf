"""Two Potts chains, small enough to enumerate: a complex whose binding energies are known exactly."""

from collections.abc import Sequence
from itertools import product
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..._seeds import generator
from ..._settings import positive, whole_number
from .mutation import Mutant, mutated
from .structure import ALPHABET, Structure

MAX_SEQUENCES = 100_000


@final
class PottsPair:
    r"""A scorer of the sequences of two chains A and B with interactions of all pairs of residues.

    .. math:: p(s \mid \text{complex}) \propto \exp\Big(\sum_i h_i(s_i) + \sum_{i<j} J_{ij}(s_i, s_j)\Big),

    and a chain alone has the terms of its own residues only. In kT, the binding energy of a mutant minus that of the
    wild type is minus the difference of the terms of pairs across the two chains. Conditional probabilities are exact,
    in any order of the residues, by enumeration of all sequences.

    Parameters
    ----------
    sites
        Residues of each chain.
    states
        Residues are the first letters of `ALPHABET`, as many as this.
    interface
        Standard deviation of J between the chains; that of h, and of J within a chain, is 1.
    seed
        Of h and J, which are Gaussian.

    Raises
    ------
    ValueError
        For settings out of range, or more than 100,000 sequences.

    Examples
    --------
    >>> from itertools import permutations
    >>> pair = PottsPair(seed=1)
    >>> whole = {
    ...     round(float(pair.log_probabilities(pair.structure, pair.structure.sequence[None], order=order).sum()), 9)
    ...     for order in map(torch.tensor, permutations(range(6)))
    ... }
    >>> len(whole)  # the same log probability in each of 720 orders
    1
    """

    def __init__(self, sites: tuple[int, int] = (3, 3), states: int = 3, *, interface: float = 0.5, seed: int = 0):
        for n in sites:
            whole_number("sites", n, 1)
        whole_number("states", states, 2)
        positive("interface", interface)
        length = sum(sites)
        if states > 20 or states**length > MAX_SEQUENCES:
            raise ValueError(
                f"{length} sites of {states} states have {states}**{length} sequences; take at most {MAX_SEQUENCES}"
            )
        self.structure = Structure.of({"A": "A" * sites[0], "B": "A" * sites[1]})
        """Of the complex; the wild type has the first letter everywhere."""
        self.states = states
        noise = generator(seed, "weights")
        self.fields = torch.randn(length, states, generator=noise, dtype=torch.float64)
        couplings = torch.randn(length, length, states, states, generator=noise, dtype=torch.float64)
        scale = torch.ones(length, length, dtype=torch.float64).triu(1)
        scale[: sites[0], sites[0] :] = interface
        self.couplings = couplings * scale[:, :, None, None]
        """(L, L, states, states), zero unless the first residue comes before the second."""

    def weights(self, places: Int[Tensor, " l"], sequences: Int[Tensor, "n l"]) -> Float[Tensor, " n"]:
        """Logarithms of probabilities up to a constant, of the residues at these positions of the complex."""
        fields = self.fields[places, sequences].sum(-1)
        pairs = self.couplings[places[:, None], places, sequences[:, :, None], sequences[:, None]]
        return fields + pairs.sum((-1, -2))

    def log_probabilities(
        self,
        structure: Structure,
        sequences: Int[Tensor, "n l"],
        *,
        order: Int[Tensor, " l"],
        noise: Float[Tensor, "l 4 3"] | None = None,
    ) -> Float[Tensor, "n l"]:
        """Exact log probability of each residue given those before it in the order; the noise has no effect."""
        places = torch.tensor([self.structure.index(*key) for key in zip(structure.chains, structure.residues)])
        if int(sequences.max()) >= self.states:
            raise ValueError(f"the chains have residues {ALPHABET[: self.states]} only; leave out other mutants")
        every = torch.tensor(list(product(range(self.states), repeat=len(places))))
        logits = self.weights(places, every)
        agrees = torch.ones(len(sequences), len(every), dtype=torch.bool)
        before = logits.logsumexp(0).expand(len(sequences))
        found = torch.empty(sequences.shape, dtype=torch.float64)
        for place in order.tolist():
            agrees &= sequences[:, place, None] == every[:, place]
            now = torch.where(agrees, logits, -torch.inf).logsumexp(1)
            found[:, place] = now - before
            before = now
        return found

    def binding_energies(self, mutants: Sequence[Mutant]) -> Float[np.ndarray, " n"]:
        """True differences of binding energy in kT, of each mutant minus that of the wild type."""
        first, second = self.structure.where("A"), self.structure.where("B")
        across = self.couplings[first][:, second]
        sequences = torch.cat([self.structure.sequence[None], mutated(self.structure, mutants)])
        one, other = sequences[:, first], sequences[:, second]
        rows, columns = torch.arange(len(first))[:, None], torch.arange(len(second))
        energies = -across[rows, columns, one[:, :, None], other[:, None]].sum((-1, -2))
        return (energies[1:] - energies[0]).numpy()
