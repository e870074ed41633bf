"""The shortcut of BA-DDG: each mutated residue is scored in the sequence of the wild type."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..._scope import own_scope
from ..._settings import whole_number
from ...progress import Report
from .cycle import Context, Cycle, scored


@own_scope()
def frozen_context(cycle: Cycle, draws: int = 1, *, report: Report | None = None) -> Float[np.ndarray, "draws n"]:
    r"""Binding scores of mutants with the context frozen at the wild type, in nats: positive for weaker binding.

    In each draw, the mutated residues of a mutant come last in the order, and each is scored with all residues before
    it, the other mutated ones too, as in the wild type. For one mutation this is exact if the scorer gives a sequence
    the same probability in all orders, since the residues before the mutated one have the same probability in mutant
    and wild type. For more, part of what the mutations do to each other is lost.

    Parameters
    ----------
    cycle
        Scorer, complex, mutants, and the settings of the draws.
    draws
        How many.
    report
        Called with the progress.

    References
    ----------
    Jiao et al. (2024), arXiv 2410.09543, and the program made public with it.

    Examples
    --------
    >>> from spikevae.free_energy.mutations import PottsPair, parse_mutant
    >>> truth = PottsPair(seed=0)
    >>> mutants = [parse_mutant("AA1C"), parse_mutant("AA1C,AB3D")]
    >>> found = frozen_context(Cycle(truth, truth.structure, mutants, ("A", "B")))
    >>> np.isclose(found[0], truth.binding_energies(mutants)).tolist()
    [True, False]
    """
    whole_number("draws", draws, 1)
    wild_type = cycle.sequences[0]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, sequence in enumerate(cycle.sequences[1:]):
        groups[tuple((sequence != wild_type).nonzero()[:, 0].tolist())].append(i)
    found = np.zeros((draws, len(cycle.mutants)))
    for k in range(draws):
        for done, (places, members) in enumerate(groups.items()):
            found[k, members] = -_shortcut(cycle, places, members, _last(cycle.context(k), places))
            if report is not None:
                report(k + (done + 1) / len(groups), draws, f"frozen context, draw {k + 1} of {draws}")
    return found


def _last(context: Context, places: Iterable[int]) -> Context:
    """The same context with some residues last, in the order that they have among each other."""
    late = torch.isin(context.order, torch.tensor(list(places)))
    return Context(torch.cat([context.order[~late], context.order[late]]), context.noise)


def _shortcut(
    cycle: Cycle, places: tuple[int, ...], members: list[int], context: Context
) -> Float[np.ndarray, " members"]:
    """Binding scores of the mutants of one set of residues, minus that of the wild type."""
    total = np.zeros(len(members))
    for sign, system in zip((1, *[-1] * (len(cycle.systems) - 1)), cycle.systems):
        inside = [i for i in places if bool((system.places == i).any())]
        if not inside:
            continue
        own = {i: int((system.places == i).nonzero()[0]) for i in inside}
        one_by_one, index = _single_substitutions(cycle, inside, members)
        values = scored(cycle.scorer, system.structure, one_by_one[:, system.places], context.of(system.places))
        for row, member in enumerate(members):
            for i in inside:
                letter = int(cycle.sequences[1 + member, i])
                total[row] += sign * float(values[index[i, letter], own[i]] - values[0, own[i]])
    return total


def _single_substitutions(
    cycle: Cycle, places: list[int], members: list[int]
) -> tuple[Int[Tensor, "s L"], dict[tuple[int, int], int]]:
    """The wild type and all of its single substitutions that the mutants have, and the row of each."""
    needed = dict.fromkeys((i, int(cycle.sequences[1 + member, i])) for i in places for member in members)
    sequences = cycle.sequences[0].repeat(1 + len(needed), 1)
    for row, (i, letter) in enumerate(needed):
        sequences[1 + row, i] = letter
    return sequences, {key: 1 + row for row, key in enumerate(needed)}
