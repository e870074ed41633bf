"""Differences of binding free energy through the thermodynamic cycle, from any scorer of sequences."""

import math
from collections.abc import Callable, Sequence
from itertools import chain, combinations
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..._scope import own_scope
from ..._seeds import checked_seed, generator
from ..._settings import whole_number
from ...progress import Report
from .mutation import Mutant, mismatch, mutated
from .result import BindingScores
from .scorer import SequenceScorer
from .structure import BACKBONE, Structure

NOISE = 0.1
"""Standard deviation of the noise of the backbone, in Angstrom, as in StaB-ddG."""
DRAWS = 20
"""As in StaB-ddG."""


class System(NamedTuple):
    """The complex, or a partner alone."""

    structure: Structure
    places: Int[Tensor, " l"]
    """Positions of its residues in the complex."""


class Context(NamedTuple):
    """What the log probabilities of one draw depend on."""

    order: Int[Tensor, " L"]
    """Positions of the residues in the order in which they are drawn."""
    noise: Float[Tensor, "L 4 3"] | None
    """Of the backbone, in Angstrom."""

    def of(self, places: Int[Tensor, " l"]) -> "Context":
        """The same order and noise of some residues, numbered anew."""
        rank = torch.empty_like(self.order)
        rank[self.order] = torch.arange(len(self.order))
        return Context(rank[places].argsort(), None if self.noise is None else self.noise[places])


@final
class Cycle:
    r"""Mutants of a complex, scored by the thermodynamic cycle.

    A scorer gives log probabilities of sequences given a backbone. With the binding score of a sequence s,

    .. math:: c(s) = \log p(s \mid \text{complex}) - \sum_g \log p(s_g \mid \text{partner } g \text{ alone}),

    the difference of binding free energy of a mutant is

    .. math:: \Delta\Delta G = -b\,[c(\text{mutant}) - c(\text{wild type})],

    positive where the mutant binds more weakly. b is kT where the log probabilities are minus energies of a Boltzmann
    distribution, up to normalising constants, which cancel; :class:`BindingEnergy` fits it. Partners alone have the
    backbone that they have in the complex.

    A draw is an order of the residues, all orders being equally likely, and Gaussian noise of the backbone. By default
    the four terms have both in common: partners have the order and noise that their residues have in the complex. What
    the mutation does not affect then cancels in each draw, so that fewer draws are needed.

    Parameters
    ----------
    scorer
        Such as :class:`ProteinMPNN`.
    structure
        Of the complex; chains that belong to no partner are left out.
    mutants
        n mutants.
    partners
        Labels of the chains of each partner: ("ABC", "DE").
    noise
        Standard deviation of the noise of the backbone, in Angstrom.
    common
        False: the complex and each partner, of the wild type and of the mutants, have orders and noise of their own.
    seed
        Of the draws; draw k is a function of the seed and k.

    Raises
    ------
    ValueError
        For partners that share a chain or have one that is not there, mutants that do not fit the structure, and
        settings out of range; with the remedy.

    References
    ----------
    Jiao et al. (2024), arXiv 2410.09543 (BA-DDG: the cycle, and b as a learned scalar).

    Examples
    --------
    Two chains whose binding energies are known:

    >>> from spikevae.free_energy.mutations import PottsPair, parse_mutant
    >>> truth = PottsPair(seed=0)
    >>> mutants = [parse_mutant("AA1C"), parse_mutant("AA1C,AB3D")]
    >>> scores = Cycle(truth, truth.structure, mutants, ("A", "B")).run(2)
    >>> np.allclose(scores.binding, truth.binding_energies(mutants))
    True
    """

    def __init__(
        self,
        scorer: SequenceScorer,
        structure: Structure,
        mutants: Sequence[Mutant],
        partners: Sequence[str],
        *,
        noise: float = NOISE,
        common: bool = True,
        seed: int = 0,
    ):
        check_partners(partners, structure)
        if not (noise >= 0 and math.isfinite(noise)):
            raise ValueError(f"noise is {noise!r}; give a standard deviation in Angstrom, 0 or more")
        if not mutants:
            raise ValueError("there are no mutants; give one or more")
        self.scorer = scorer
        self.noise, self.common, self.seed = float(noise), bool(common), checked_seed(seed)
        complex_ = structure.select("".join(partners))
        self.mutants = list(mutants)
        check_mutants(complex_, self.mutants, partners)
        self.sequences: Int[Tensor, "m L"] = torch.cat([complex_.sequence[None], mutated(complex_, self.mutants)])
        """The wild type, then the mutants."""
        self.systems = [System(complex_, torch.arange(len(complex_)))]
        """The complex, then each partner."""
        self.systems += [System(complex_.select(group), complex_.where(group)) for group in partners]
        self.scores = BindingScores(self.mutants, np.empty((0, len(self.systems), len(self.sequences))))
        """Of the draws so far."""

    @own_scope()
    def run(
        self,
        draws: int = DRAWS,
        *,
        report: Report | None = None,
        on_draw: Callable[[BindingScores], None] | None = None,
    ) -> BindingScores:
        """Scores of all mutants; draws of an earlier run, also of one that Ctrl-C has stopped, are not made again.

        Parameters
        ----------
        draws
            How many.
        report
            Called with the progress.
        on_draw
            Called with the scores so far after each draw, as to keep them in a file.

        Raises
        ------
        ValueError
            Where the scorer gives log probabilities that are not finite or of another shape.
        """
        whole_number("draws", draws, 1)
        while len(self.scores.terms) < draws:
            done = len(self.scores.terms)
            drawn = self._draw(done, None if report is None else _within(report, done, draws))
            self.scores = BindingScores(self.mutants, np.concatenate([self.scores.terms, drawn[None]]))
            if on_draw is not None:
                on_draw(self.scores)
        return BindingScores(self.mutants, self.scores.terms[:draws])

    def _draw(self, k: int, tick: Callable[[float], None] | None) -> Float[np.ndarray, "systems m"]:
        """Log probabilities of all sequences, wild type first, in the complex and in each partner."""
        n_contexts = 1 if self.common else 2 * len(self.systems)
        found = np.empty((len(self.systems), len(self.sequences)))
        parts = [slice(None)] if self.common else [slice(1), slice(1, None)]
        for i, (structure, places) in enumerate(self.systems):
            own = self.sequences[:, places]
            for j, part in enumerate(parts):
                context = self.context(k * n_contexts + (0 if self.common else 2 * i + j)).of(places)
                distinct, where = torch.unique(own[part], dim=0, return_inverse=True)
                found[i, part] = scored(self.scorer, structure, distinct, context).sum(1).numpy()[where.numpy()]
                if tick is not None:
                    tick((i + (j + 1) / len(parts)) / len(self.systems))
        return found

    def context(self, index: int) -> Context:
        """Order of the residues of the complex, and noise of its backbone, of one draw."""
        shape = self.systems[0].structure.coordinates.shape
        noise = None
        if self.noise:
            noise = self.noise * torch.randn(shape, generator=generator(self.seed, "noise", index), dtype=torch.float64)
        return Context(torch.randperm(shape[0], generator=generator(self.seed, "order", index)), noise)


def scored(
    scorer: SequenceScorer, structure: Structure, sequences: Int[Tensor, "n l"], context: Context
) -> Float[Tensor, "n l"]:
    """Log probabilities of the residues of sequences, float64.

    Raises
    ------
    ValueError
        Where they are not finite or have another shape.
    """
    found = scorer.log_probabilities(structure, sequences, order=context.order, noise=context.noise).double().cpu()
    if found.shape != sequences.shape:
        raise ValueError(
            f"the scorer gives {tuple(found.shape)} log probabilities for {tuple(sequences.shape)} residues; it must "
            "give one for each"
        )
    if not found.isfinite().all():
        place = int((~found.isfinite()).any(0).nonzero()[0])
        raise ValueError(
            f"the scorer gives log probability {float(found[:, place].min())} to residue {structure.residues[place]} "
            f"of chain {structure.chains[place]}: leave out mutants that it holds impossible, and residues that it "
            "cannot score"
        )
    return found


def check_partners(partners: Sequence[str], structure: Structure | None = None) -> None:
    """Refuse what is not two or more disjoint groups of chains, and chains that a structure, where given, lacks."""
    if isinstance(partners, str) or len(partners) < 2 or not all(partners):
        raise ValueError(f"partners are {partners!r}; give the chains of two or more, as ('ABC', 'DE')")
    for group in partners:
        if len(set(group)) < len(group):
            raise ValueError(f"partner {group} has a chain twice: each letter is the label of one chain")
    for one, other in combinations(partners, 2):
        both = sorted(set(one) & set(other))
        if both:
            raise ValueError(f"chain {both[0]} is in partner {one} and in partner {other}: leave it in one")
    if structure is not None:
        structure.where("".join(partners))


def check_mutants(structure: Structure, mutants: Sequence[Mutant], partners: Sequence[str]) -> None:
    """Refuse mutants whose chain is in no partner, or whose residue has no backbone where other residues have one."""
    there, complete = set(structure.chains), structure.complete
    lacks_some = bool(complete.any()) and not complete.all()
    for one in dict.fromkeys(chain.from_iterable(mutants)):
        if one.chain not in there:
            groups = ", ".join(partners)
            raise ValueError(f"{one}: chain {one.chain} is in no partner ({groups}): add it, or leave the mutant out")
        known = mismatch(structure, Mutant([one])) is None  # else `mutated` refuses it
        if lacks_some and known and not complete[structure.index(one.chain, one.residue)]:
            raise ValueError(
                f"{one}: residue {one.residue} of chain {one.chain} lacks some of the atoms {', '.join(BACKBONE)}, "
                "without which its mutants cannot be scored: leave the mutant out"
            )


def _within(report: Report, done: int, draws: int) -> Callable[[float], None]:
    return lambda share: report(done + share, draws, f"draw {done + 1} of {draws}")
