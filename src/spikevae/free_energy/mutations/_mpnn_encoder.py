"""Encoder: what a message-passing network knows of a backbone before it reads any sequence."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ._mpnn_geometry import ALONG, CA, CENTRES, PAIRS, ROWS, along_chain, chunks, edge_inputs, nearest, with_beta
from ._mpnn_layers import WIDTH, EncoderLayer, Layer, Linear, at, hidden, part
from .structure import Structure

FOR_PLACES = 16
"""Entries of the embedding of differences of places."""


class Encoded(NamedTuple):
    """A backbone after the encoder."""

    neighbours: Int[Tensor, "L K"]
    complete: Bool[Tensor, " L"]
    """Residues with all atoms of the backbone; others send nothing and have no probabilities."""
    nodes: Float[Tensor, "L 128"]
    pairs: list[Float[Tensor, "L K 128"]]
    """For each layer of the decoder, the share of W1 of the pairs, with its offset."""


class Places(nn.Module):
    """Embedding of differences of places along a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(ALONG, FOR_PLACES)


class Features(nn.Module):
    """Embedding of pairs of residues from their distances and places."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Places()
        self.edge_embedding = Linear(FOR_PLACES + CENTRES * len(PAIRS), WIDTH, bias=False)
        self.norm_edges = nn.LayerNorm(WIDTH)

    def forward(
        self, atoms: Float[Tensor, "L 5 3"], places: Tensor, chains: Tensor, neighbours: Tensor
    ) -> Float[Tensor, "L K 128"]:
        found = []
        dtype = self.edge_embedding.weight.dtype
        for rows in chunks(len(atoms), ROWS):
            of_places = self.embeddings.linear(along_chain(places, chains, neighbours[rows], rows).to(dtype))
            of_atoms = edge_inputs(atoms, neighbours[rows], rows, dtype)
            found.append(self.norm_edges(self.edge_embedding(torch.cat([of_places, of_atoms], -1))))
        return torch.cat(found)


def encode_pairs(
    structure: Structure,
    noise: Float[Tensor, "L 4 3"] | None,
    features: Features,
    embed: Linear,
    neighbours: int,
) -> tuple[Int[Tensor, "L K"], Bool[Tensor, " L"], Float[Tensor, "L K 128"]]:
    """Neighbours, residues with a backbone, and pairs before the first layer; distances are found in float64."""
    device = embed.weight.device
    complete = structure.complete.to(device)
    backbone = structure.coordinates.to(device, torch.float64)
    if noise is not None:
        backbone = backbone + noise.to(backbone)
    atoms = with_beta(backbone.where(complete[:, None, None], 0.0))
    near = nearest(atoms[:, CA], complete, neighbours)
    numbers = {name: i for i, name in enumerate(structure.chain_names)}
    chains = torch.tensor([numbers[name] for name in structure.chains], device=device)
    return near, complete, embed(features(atoms, structure.along_chain.to(device), chains, near))


def encode(
    pairs: Float[Tensor, "L K 128"],
    neighbours: Int[Tensor, "L K"],
    complete: Bool[Tensor, " L"],
    layers: Sequence[EncoderLayer],
) -> tuple[Float[Tensor, "L 128"], Float[Tensor, "L K 128"]]:
    """Residues and pairs after the layers; `pairs` is overwritten."""
    nodes = pairs.new_zeros(len(pairs), WIDTH)
    heard = (complete[:, None] & complete[neighbours])[..., None].to(pairs.dtype)
    for layer in layers:
        own, theirs = layer.part(0, nodes) + layer.W1.bias, layer.part(2, nodes)
        summed = []
        for rows in chunks(len(pairs), ROWS):
            first = layer.part(1, pairs[rows]) + at(theirs, neighbours[rows]) + own[rows, None]
            summed.append((hidden(first, layer.W2) * heard[rows]).sum(1))
        nodes = layer.update(nodes, torch.cat(summed), heard.sum(1)) * complete[:, None]
        own, theirs = part(layer.W11, 0, nodes) + layer.W11.bias, part(layer.W11, 2, nodes)
        for rows in chunks(len(pairs), ROWS):
            first = part(layer.W11, 1, pairs[rows]) + at(theirs, neighbours[rows]) + own[rows, None]
            pairs[rows] = layer.norm3(pairs[rows] + layer.W13(hidden(first, layer.W12)))
    return nodes, pairs


def for_decoder(pairs: Float[Tensor, "L K 128"], layers: Sequence[Layer]) -> list[Float[Tensor, "L K 128"]]:
    """The share of the pairs in the first values of each layer of the decoder."""
    return [layer.part(1, pairs) + cast(Tensor, layer.W1.bias) for layer in layers]
