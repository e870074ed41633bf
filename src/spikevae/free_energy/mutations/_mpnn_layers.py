"""Layers of messages between neighbouring residues.

A message of residue j to i is W3 g(W2 g(W1 [...])), g the Gaussian error linear unit, where the input of W1 is what is
known of i, of the pair and of j. W1 is linear: its columns for i and for j are applied once per residue, not once per
pair. The messages of i are summed before W3, which is linear too. Attributes are named as in the published weights.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTH = 128
SCALE = 30
"""Sums of messages are divided by it."""


class Linear(nn.Linear):
    """A linear layer that waits for its weights: drawing some would change PyTorch's random state."""

    def reset_parameters(self) -> None:
        pass


class FeedForward(nn.Module):
    """Two layers on each residue alone."""

    def __init__(self) -> None:
        super().__init__()
        self.W_in, self.W_out = Linear(WIDTH, 4 * WIDTH), Linear(4 * WIDTH, WIDTH)

    def forward(self, nodes: Float[Tensor, "*n 128"]) -> Float[Tensor, "*n 128"]:
        return self.W_out(F.gelu(self.W_in(nodes)))


class Layer(nn.Module):
    """One update of residues by the messages of their neighbours.

    Parameters
    ----------
    parts
        Vectors of `WIDTH` entries that W1 reads: of i, of the pair, then of j.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.W1, self.W2, self.W3 = Linear(parts * WIDTH, WIDTH), Linear(WIDTH, WIDTH), Linear(WIDTH, WIDTH)
        self.norm1, self.norm2, self.dense = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), FeedForward()

    def part(self, index: int, values: Float[Tensor, "*n 128"]) -> Float[Tensor, "*n 128"]:
        """The share of W1 of one of its inputs, without the offset."""
        return part(self.W1, index, values)

    def update(
        self, nodes: Float[Tensor, "m 128"], summed: Float[Tensor, "m 128"], count: Float[Tensor, "*m 1"] | int
    ) -> Float[Tensor, "m 128"]:
        """Residues after messages whose sum before W3 is `summed`, of `count` neighbours."""
        received = F.linear(summed, self.W3.weight) + count * self.W3.bias
        nodes = self.norm1(nodes + received / SCALE)
        return self.norm2(nodes + self.dense(nodes))


class EncoderLayer(Layer):
    """A layer that updates the pairs as well."""

    def __init__(self) -> None:
        super().__init__(3)
        self.W11, self.W12, self.W13 = Linear(3 * WIDTH, WIDTH), Linear(WIDTH, WIDTH), Linear(WIDTH, WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)


def part(linear: Linear, index: int, values: Float[Tensor, "*n 128"]) -> Float[Tensor, "*n 128"]:
    """Share of a linear layer of one of its inputs of `WIDTH` entries, without the offset."""
    return F.linear(values, linear.weight[:, index * WIDTH : (index + 1) * WIDTH])


def hidden(first: Float[Tensor, "m K 128"], second: Linear) -> Float[Tensor, "m K 128"]:
    """The messages before their last layer, from the values of the first."""
    return F.gelu(second(F.gelu(first)))


def at(table: Float[Tensor, "t 128"], index: Tensor) -> Tensor:
    """Rows of a table, for an index of any shape."""
    return torch.index_select(table, 0, index.flatten()).unflatten(0, index.shape)
