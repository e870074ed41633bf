"""Decoder: log probabilities of residues given the backbone and the residues earlier in an order.

Layer l gives residue i

    h_i^(l+1) = update(h_i^(l), sum over neighbours j of g(W2 g(A h_i^(l) + pairs_ij + m_j))),
    m_j = B s_j + C h_j^(l) for j earlier than i in the order, and C e_j for the others (e: after the encoder, s: the
    embedding of the residue).

So a changed residue changes h of those later residues that have it among their neighbours, in the next layer of those
that have one of these, and no others. Of many sequences one, the reference, is computed whole, and of each other what
differs from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._mpnn_encoder import Encoded
from ._mpnn_geometry import chunks
from ._mpnn_layers import Layer, Linear, at, hidden

OWN, TOKEN, OTHER = 0, 2, 3
"""Inputs of the first layer of a message: of residue i, of the letter and of the state of residue j; 1 is the pair."""
ROWS = 512
"""Residues whose messages are computed at once."""
RESIDUES_AT_ONCE = 2**17
"""Of all sequences together."""


class Trace(NamedTuple):
    """The reference sequence in all layers."""

    states: list[Float[Tensor, "L 128"]]
    """h before each layer, and after the last."""
    tables: list[Float[Tensor, "{2*L} 128"]]
    """For each layer m_j of residues that are earlier, then of residues that are not."""


class Decoder(NamedTuple):
    """Layers of the decoder with the embedding of letters, for one backbone and one order."""

    layers: Sequence[Layer]
    letters: Float[Tensor, "21 128"]
    encoded: Encoded
    earlier: Bool[Tensor, "L K"]
    """Whether the neighbour of a residue comes before it in the order."""

    def trace(self, sequence: Int[Tensor, " L"]) -> Trace:
        """All states of one sequence."""
        neighbours, complete, nodes, _ = self.encoded
        rows = complete.nonzero()[:, 0]
        source = neighbours.where(self.earlier, neighbours + len(nodes))
        states, tables = [nodes], []
        for number, layer in enumerate(self.layers):
            sent = layer.part(TOKEN, self.letters)[sequence] + layer.part(OTHER, states[-1])
            tables.append(torch.cat([sent, layer.part(OTHER, nodes)]))
            after = torch.zeros_like(nodes)
            after[rows] = self._updated(number, states[-1][rows], rows, source[rows], tables[-1])
            states.append(after)
        return Trace(states, tables)

    def changed(
        self, trace: Trace, reference: Int[Tensor, " L"], sequences: Int[Tensor, "n L"]
    ) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 128"]]:
        """Positions in (n, L) where the last states differ from those of the reference, and the states there."""
        n, length = sequences.shape
        other_letter = sequences != reference
        flat = sequences.flatten()
        places = torch.zeros(0, dtype=torch.int64, device=flat.device)
        states = trace.states[0].new_zeros(0, trace.states[0].shape[1])
        slot = torch.full((n * length,), -1, dtype=torch.int64, device=flat.device)  # of a changed state
        for number, layer in enumerate(self.layers):
            sends = other_letter | (slot >= 0).view(n, length)
            senders = sends.flatten().nonzero()[:, 0]
            before = self._states(trace.states[number], slot, states, senders, length)
            sent = layer.part(TOKEN, self.letters)[flat[senders]] + layer.part(OTHER, before)
            table = torch.cat([trace.tables[number], sent])
            entry = torch.arange(length, device=flat.device).repeat(n)
            entry[senders] = 2 * length + torch.arange(len(senders), device=flat.device)
            # A residue that sends something else does so in all later layers: what has changed is found again.
            places = (self._hears(sends) & self.encoded.complete).flatten().nonzero()[:, 0]
            own = self._states(trace.states[number], slot, states, places, length)
            states = self._updated(number, own, places % length, self._sources(places, entry, length), table)
            slot[places] = torch.arange(len(places), device=flat.device)
        return places, states

    def _hears(self, sends: Bool[Tensor, "n L"]) -> Bool[Tensor, "n L"]:
        """Residues with an earlier neighbour among those that send something else than in the reference."""
        found = torch.zeros_like(sends)
        for k in range(self.earlier.shape[1]):
            found |= sends[:, self.encoded.neighbours[:, k]] & self.earlier[:, k]
        return found

    def _sources(self, places: Int[Tensor, " m"], entry: Int[Tensor, " nL"], length: int) -> Int[Tensor, "m K"]:
        """Rows of the table with the messages of the neighbours of some residues."""
        rows = places % length
        neighbours, earlier = self.encoded.neighbours[rows], self.earlier[rows]
        return entry[(places - rows)[:, None] + neighbours].where(earlier, neighbours + length)

    @staticmethod
    def _states(
        reference: Float[Tensor, "L 128"],
        slot: Int[Tensor, " nL"],
        changed: Float[Tensor, "c 128"],
        places: Int[Tensor, " m"],
        length: int,
    ) -> Float[Tensor, "m 128"]:
        """States of some residues: those that were changed, or the reference's."""
        found = reference[places % length]
        index = slot[places]
        found[index >= 0] = changed[index[index >= 0]]
        return found

    def _updated(
        self,
        number: int,
        own: Float[Tensor, "m 128"],
        rows: Int[Tensor, " m"],
        source: Int[Tensor, "m K"],
        table: Float[Tensor, "t 128"],
    ) -> Float[Tensor, "m 128"]:
        """States of some residues after a layer."""
        layer, pairs = self.layers[number], self.encoded.pairs[number]
        found = torch.empty_like(own)
        for some in chunks(len(own), ROWS):
            first = pairs[rows[some]]
            first += at(table, source[some])
            first += layer.part(OWN, own[some])[:, None]
            found[some] = layer.update(own[some], hidden(first, layer.W2).sum(1), source.shape[1])
        return found


def log_probabilities(decoder: Decoder, last: Linear, sequences: Int[Tensor, "n L"]) -> Float[Tensor, "n L"]:
    """Log probability of each residue; 0 for residues without backbone."""
    n, length = sequences.shape
    reference = sequences.mode(0).values
    trace = decoder.trace(reference)
    of_reference = last(trace.states[-1]).log_softmax(-1)  # (L, 21)
    found = of_reference.gather(1, sequences.T).T.contiguous()
    for some in chunks(n, max(1, RESIDUES_AT_ONCE // length)):
        places, states = decoder.changed(trace, reference, sequences[some])
        letters = sequences[some].flatten()[places]
        values = last(states).log_softmax(-1).gather(1, letters[:, None])[:, 0]
        found[some] = found[some].flatten().index_copy(0, places, values).view(-1, length)
    return found * decoder.encoded.complete
