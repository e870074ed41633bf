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
from .cycle import Context, Cycle, System, scored


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
        context = cycle.context(k)
        for number, system in enumerate(cycle.systems):
            noise = context.of(system.places).noise  # one for all orders, so that a scorer may keep what depends on it
            for done, (places, members) in enumerate(groups.items()):
                order = _last(context, places).of(system.places).order
                values = _substituted(cycle, system, places, members, Context(order, noise))
                found[k, members] += values if number else -values
                if report is not None:
                    share = (number + (done + 1) / len(groups)) / len(cycle.systems)
                    report(k + share, draws, f"frozen context, draw {k + 1} of {draws}")
    return found


def _last(context: Context, places: Iterable[int]) -> Context:
    """The order with some residues last, in the order that they have among each other."""
    late = torch.isin(context.order, torch.tensor(list(places)))
    return Context(torch.cat([context.order[~late], context.order[late]]), None)


def _substituted(
    cycle: Cycle, system: System, places: tuple[int, ...], members: list[int], context: Context
) -> Float[np.ndarray, " members"]:
    """Log odds of the mutated residues of each mutant against the wild type, each in the wild type, summed."""
    total = np.zeros(len(members))
    within = {int(place): i for i, place in enumerate(system.places)}
    inside = [place for place in places if place in within]
    if not inside:
        return total
    sequences, index = _single_substitutions(cycle, inside, members)
    values = scored(cycle.scorer, system.structure, sequences[:, system.places], context)
    for row, member in enumerate(members):
        for place in inside:
            letter = int(cycle.sequences[1 + member, place])
            total[row] += float(values[index[place, letter], within[place]] - values[0, within[place]])
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
