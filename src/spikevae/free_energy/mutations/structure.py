"""Backbone and sequence of a protein or of a complex of proteins."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
"""One-letter codes of the amino acids, in the order that ProteinMPNN has; X is any other."""
BACKBONE = ("N", "CA", "C", "O")
"""Atoms of a residue, in the order of `Structure.coordinates`."""

NUMBER = re.compile("-?[0-9]{1,9}[A-Za-z]?")
"""A number of a residue, with its insertion code."""
INSERTIONS = string.ascii_letters


@dataclass(frozen=True, eq=False)
class Structure:
    """L residues of one or more chains, in the order of the file.

    Parameters
    ----------
    coordinates
        (L, 4, 3) places of the atoms N, CA, C and O, float64, in Angstrom; NaN where an atom is absent.
    sequence
        (L,) residues as positions of their letters in `ALPHABET`.
    chains
        L labels of chains.
    residues
        L numbers of residues with their insertion codes: "52", "52A". They are unique within a chain.

    Raises
    ------
    ValueError
        For shapes that disagree, residues outside the alphabet, and two residues of one chain and number.

    Examples
    --------
    >>> pair = Structure.of({"A": "MK", "B": "V"})
    >>> pair.index("B", "1"), pair.select("A").letters
    (2, 'MK')
    """

    coordinates: Float[Tensor, "L 4 3"]
    sequence: Int[Tensor, " L"]
    chains: tuple[str, ...]
    residues: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.chains)
        if not n:
            raise ValueError("a structure needs at least one residue")
        shapes = tuple(self.coordinates.shape), tuple(self.sequence.shape), (len(self.residues),)
        if shapes != ((n, 4, 3), (n,), (n,)):
            raise ValueError(
                f"a structure of {n} chain labels has coordinates {shapes[0]}, sequence {shapes[1]} and {shapes[2][0]} "
                f"residue numbers; give ({n}, 4, 3), ({n},) and {n}"
            )
        check_letters(self.sequence, "sequence")
        (chain, residue), times = Counter(zip(self.chains, self.residues)).most_common(1)[0]
        if times > 1:
            raise ValueError(
                f"chain {chain} has {times} residues {residue}: give each a number or insertion code of its own"
            )

        wrong = next((number for number in self.residues if not NUMBER.fullmatch(number)), None)
        if wrong is not None:
            raise ValueError(
                f"{wrong!r} is no number of a residue: give a whole number, perhaps with an insertion code (52A)"
            )

    @classmethod
    def of(cls, sequences: Mapping[str, str]) -> "Structure":
        """Chains without coordinates, numbered from 1: for scorers that read no backbone.

        Parameters
        ----------
        sequences
            For each chain label, its residues in one-letter codes.
        """
        places = [(chain, str(i + 1), letter) for chain, text in sequences.items() for i, letter in enumerate(text)]
        chains, residues, letters = zip(*places) if places else ((), (), ())
        return cls(torch.full((len(places), 4, 3), torch.nan, dtype=torch.float64), encode(letters), chains, residues)

    def __len__(self) -> int:
        return len(self.chains)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}: {self.chains.count(name)}" for name in self.chain_names)
        return f"Structure({len(self)} residues; {parts})"

    @property
    def chain_names(self) -> tuple[str, ...]:
        """Labels of the chains, each once."""
        return tuple(dict.fromkeys(self.chains))

    @property
    def letters(self) -> str:
        """The sequence in one-letter codes."""
        return "".join(ALPHABET[i] for i in self.sequence.tolist())

    @property
    def complete(self) -> Bool[Tensor, " L"]:
        """Whether a residue has all four atoms of the backbone."""
        return self.coordinates.isfinite().flatten(1).all(1)

    @property
    def along_chain(self) -> Int[Tensor, " L"]:
        """Places of the residues along their chains: consecutive, but for residues that the numbers say are absent.

        Examples
        --------
        >>> chain = Structure(torch.zeros(4, 4, 3).double(), encode("MKVL"), ("A",) * 4, ("8", "8A", "9", "12"))
        >>> chain.along_chain.tolist()
        [0, 1, 2, 5]
        """
        last: dict[str, tuple[int, int]] = {}
        places = []
        for chain, residue in zip(self.chains, self.residues):
            number = int(residue.rstrip(INSERTIONS))
            before, place = last.get(chain, (number - 1, -1))
            last[chain] = number, place + max(1, number - before)
            places.append(last[chain][1])
        return torch.tensor(places)

    def where(self, chains: Iterable[str]) -> Int[Tensor, " l"]:
        """Positions of the residues of some chains: `sequences[:, structure.where("AB")]` are the sequences of these.

        Raises
        ------
        ValueError
            For a chain that is not there, with those that are.
        """
        wanted = set(chains)
        missing = sorted(wanted - set(self.chains))
        if missing or not wanted:
            raise ValueError(
                f"no chain {', '.join(missing) or 'was named'}; the structure has {', '.join(self.chain_names)}"
            )
        return torch.tensor([i for i, name in enumerate(self.chains) if name in wanted])

    def select(self, chains: Iterable[str]) -> "Structure":
        """The structure of some chains alone, in the order that they have here; raises as :meth:`where`."""
        kept = self.where(chains)
        places = kept.tolist()
        return Structure(
            self.coordinates[kept],
            self.sequence[kept],
            tuple(self.chains[i] for i in places),
            tuple(self.residues[i] for i in places),
        )

    def index(self, chain: str, residue: str) -> int:
        """Position of a residue.

        Raises
        ------
        ValueError
            Where there is none, with the residues that the chain has.
        """
        within = self.where([chain]).tolist()
        for i in within:
            if self.residues[i] == str(residue):
                return int(i)
        first, last = self.residues[within[0]], self.residues[within[-1]]
        raise ValueError(f"chain {chain} has no residue {residue}: it has {len(within)}, from {first} to {last}")


def encode(letters: Iterable[str]) -> Int[Tensor, " L"]:
    """One-letter codes as positions in `ALPHABET`.

    Raises
    ------
    ValueError
        For a letter that is not one of them.

    Examples
    --------
    >>> encode("ACX").tolist()
    [0, 1, 20]
    """
    text = list(letters)
    wrong = sorted(set(text) - set(ALPHABET))
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no amino acid: give one-letter codes of {ALPHABET}")
    return torch.tensor([ALPHABET.index(letter) for letter in text], dtype=torch.int64)


def check_letters(sequences: Int[Tensor, "*n L"], name: str) -> None:
    """Refuse entries that are not positions in `ALPHABET`."""
    if sequences.is_floating_point() or sequences.dtype == torch.bool:
        raise ValueError(f"{name} has the type {sequences.dtype}; give whole numbers, positions in {ALPHABET}")
    if sequences.numel() and not (int(sequences.min()) >= 0 and int(sequences.max()) < len(ALPHABET)):
        raise ValueError(
            f"{name} has entries from {int(sequences.min())} to {int(sequences.max())}; give positions in {ALPHABET}, "
            "0 to 20"
        )
