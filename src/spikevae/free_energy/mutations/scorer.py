"""What the difference of binding free energy needs of a scorer of sequences."""

from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from .structure import Structure


class SequenceScorer(Protocol):
    """Autoregressive probabilities of sequences given the backbone of a structure.

    Examples
    --------
    A scorer to which all residues are equally likely:

    >>> import torch
    >>> from spikevae.free_energy.mutations import Structure
    >>> class Uniform:
    ...     def log_probabilities(self, structure, sequences, *, order, noise=None):
    ...         return torch.full(sequences.shape, 1 / 20).log()
    >>> peptide = Structure.of({"A": "MKV"})
    >>> scores = Uniform().log_probabilities(peptide, peptide.sequence[None], order=torch.arange(3))
    >>> scores.sum().isclose(-3 * torch.tensor(20.0).log())
    tensor(True)
    """

    def log_probabilities(
        self,
        structure: Structure,
        sequences: Int[Tensor, "n L"],
        *,
        order: Int[Tensor, " L"],
        noise: Float[Tensor, "L 4 3"] | None = None,
    ) -> Float[Tensor, "n L"]:
        """Log probability of each residue, in nats.

        Parameters
        ----------
        structure
            Backbone of L residues.
        sequences
            n sequences, as positions of their letters in `ALPHABET`.
        order
            Positions of the residues in the order in which they are drawn: the probability of a residue is conditional
            on the structure and on the residues before it in this order, so that the sum over residues is the log
            probability of the sequence.
        noise
            Added to the coordinates of the backbone, in Angstrom; None: nothing.
        """
        ...
