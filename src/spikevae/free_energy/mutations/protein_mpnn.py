"""A scorer of sequences with the weights of ProteinMPNN."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..._scope import own_scope
from ._mpnn_decoder import Decoder, log_probabilities
from ._mpnn_encoder import Encoded, Features, encode, encode_pairs, for_decoder
from ._mpnn_layers import WIDTH, EncoderLayer, Layer, Linear
from ._mpnn_weights import read_weights
from .structure import ALPHABET, Structure, check_letters

LAYERS = 3
"""Of the encoder, and of the decoder."""


class _Letters(nn.Module):
    """Embedding of letters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(ALPHABET), WIDTH))


class _Network(nn.Module):
    """Parameters, named as in the published files."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.W_e, self.W_s = Linear(WIDTH, WIDTH), _Letters()
        self.encoder_layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.decoder_layers = nn.ModuleList(Layer(4) for _ in range(LAYERS))
        self.W_out = Linear(WIDTH, len(ALPHABET))


class ProteinMPNN:
    r"""Probabilities of sequences given a backbone, by the network of ProteinMPNN with its published weights.

    Each residue exchanges messages with its nearest residues (48 of them). The encoder reads distances between atoms
    and places along chains; the decoder gives each residue a distribution over `ALPHABET` from the backbone and the
    letters of residues earlier in an order,

    .. math:: \log p(s \mid x, \pi) = \sum_k \log p(s_{\pi_k} \mid x, s_{\pi_1}, \ldots, s_{\pi_{k-1}}).

    Of many sequences only residues whose probability can differ from that of a common reference are computed. Residues
    without a whole backbone have log probability 0.

    Parameters
    ----------
    weights
        By name, as in the published files; :meth:`load` reads them.
    neighbours
        Number of neighbours of a residue, itself among them.
    noise_level
        Standard deviation of the noise that was added to coordinates in training, in Angstrom.

    References
    ----------
    Dauparas et al. (2022), Science 378, 49; weights: https://github.com/dauparas/ProteinMPNN.

    Examples
    --------
    ``ProteinMPNN.load("v_48_020.pt")`` has the published weights. Here all are zero, which makes all letters equally
    likely:

    >>> zeros = {name: torch.zeros(shape) for name, shape in ProteinMPNN.weight_shapes().items()}
    >>> scorer = ProteinMPNN(zeros, neighbours=48)
    >>> letters, chains, numbers = torch.tensor([0, 1, 2]), ("A", "A", "B"), ("1", "2", "1")
    >>> structure = Structure(torch.eye(3).repeat(4, 1)[:12].view(3, 4, 3).double(), letters, chains, numbers)
    >>> scorer.log_probabilities(structure, structure.sequence[None], order=torch.tensor([2, 0, 1])).exp() * 21
    tensor([[1.0000, 1.0000, 1.0000]])
    """

    def __init__(self, weights: Mapping[str, Tensor], neighbours: int, noise_level: float = 0.0) -> None:
        self.network = _Network().to(next(iter(weights.values())))
        self.network.load_state_dict(dict(weights))
        self.network.requires_grad_(False)
        self.neighbours, self.noise_level = neighbours, noise_level
        self._latest: tuple[Structure, Tensor | None, tuple[int, ...] | None, Encoded] | None = None

    @classmethod
    def load(cls, path: str | Path) -> "ProteinMPNN":
        """Read a published file of weights (vanilla or soluble: v_48_002.pt, _010, _020, _030).

        Raises
        ------
        FileNotFoundError, PermissionError
            Where there is no such file.
        ValueError
            For a file that is damaged, too large or of another kind; nothing that it contains is run.
        """
        return cls(*read_weights(path, cls.weight_shapes()))

    @staticmethod
    def weight_shapes() -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights."""
        return {name: tuple(value.shape) for name, value in _Network().state_dict().items()}

    def double(self) -> "ProteinMPNN":
        """The same scorer in float64."""
        return self.to(torch.float64)

    def to(self, *args: torch.dtype | torch.device | str) -> "ProteinMPNN":
        """The same scorer with another type of numbers, or on another device."""
        state = {name: value.to(*args) for name, value in self.network.state_dict().items()}
        return ProteinMPNN(state, self.neighbours, self.noise_level)

    @own_scope()
    @torch.no_grad()
    def encode(self, structure: Structure, noise: Tensor | None = None) -> Encoded:
        """The backbone after the encoder.

        The latest is kept: calls with the same structure and the same tensor of noise, in several orders, encode once.
        """
        given = (structure.coordinates,) if noise is None else (structure.coordinates, noise)
        counted = not any(tensor.is_inference() for tensor in given)
        version = tuple(tensor._version for tensor in given) if counted else None  # changes in place count
        latest = self._latest
        if counted and latest is not None and latest[0] is structure and latest[1] is noise and latest[2] == version:
            return latest[3]
        network = self.network
        if noise is not None and noise.shape != structure.coordinates.shape:
            raise ValueError(f"noise has the shape {tuple(noise.shape)}; give {tuple(structure.coordinates.shape)}")
        near, complete, pairs = encode_pairs(structure, noise, network.features, network.W_e, self.neighbours)
        nodes, pairs = encode(pairs, near, complete, cast(list[EncoderLayer], list(network.encoder_layers)))
        encoded = Encoded(near, complete, nodes, for_decoder(pairs, self._layers))
        self._latest = (structure, noise, version, encoded)
        return encoded

    @own_scope()
    @torch.no_grad()
    def log_probabilities(
        self,
        structure: Structure,
        sequences: Tensor,
        *,
        order: Tensor,
        noise: Tensor | None = None,
    ) -> Float[Tensor, "n L"]:
        """Log probability of each residue, in nats; see :class:`SequenceScorer`.

        Raises
        ------
        ValueError
            For shapes that disagree with the structure, letters outside the alphabet, an order that lacks a residue.
        """
        if sequences.ndim != 2 or sequences.shape[1] != len(structure):
            raise ValueError(f"sequences has the shape {tuple(sequences.shape)}; give (n, {len(structure)})")
        check_letters(sequences, "sequences")
        decoder = self._decoder(self.encode(structure, noise), order)
        return log_probabilities(decoder, self.network.W_out, sequences.to(decoder.letters.device))

    @own_scope()
    @torch.no_grad()
    def conditional(
        self,
        structure: Structure,
        sequence: Tensor,
        positions: Int[Tensor, " p"],
        *,
        order: Tensor,
        noise: Tensor | None = None,
    ) -> Float[Tensor, "p 21"]:
        """Log probabilities of all letters at some positions, given the residues of `sequence` earlier in the order.

        One pass gives every single mutant of the last position of the order.

        Raises
        ------
        ValueError
            As :meth:`log_probabilities`.
        """
        if sequence.shape != (len(structure),):
            raise ValueError(f"sequence has the shape {tuple(sequence.shape)}; give ({len(structure)},)")
        check_letters(sequence, "sequence")
        decoder = self._decoder(self.encode(structure, noise), order)
        last = decoder.trace(sequence.to(decoder.letters.device)).states[-1]
        return self.network.W_out(last[positions]).log_softmax(-1)

    @property
    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.network.decoder_layers))

    def _decoder(self, encoded: Encoded, order: Tensor) -> Decoder:
        length = len(encoded.nodes)
        if order.shape != (length,) or not torch.equal(order.sort().values.cpu(), torch.arange(length)):
            raise ValueError(f"order must have each of the {length} positions once: torch.randperm({length}) has")
        rank = order.argsort().to(encoded.nodes.device)
        earlier = rank[encoded.neighbours] < rank[:, None]
        return Decoder(self._layers, self.network.W_s.weight, encoded, earlier)
