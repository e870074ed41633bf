"""Mutations in the notation of SKEMPI: `DD26A` is aspartate 26 of chain D replaced by alanine."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from ..._files import check_regular, user_path
from .structure import ALPHABET, Structure, encode

AMINO_ACIDS = ALPHABET.rstrip("X")
NOTATION = re.compile(rf"([{AMINO_ACIDS}])([A-Za-z0-9])(-?[0-9]{{1,9}}[A-Za-z]?)([{AMINO_ACIDS}])")
MAX_BYTES = 2**24
REMEDY = (
    "write wild type, chain, residue number and mutant, as DD26A; several substitutions of one mutant with commas, as "
    "DD26A,EA58A"
)


class Mutation(NamedTuple):
    """One residue replaced by another."""

    wild_type: str
    """One-letter code of the residue in the structure."""
    chain: str
    """Label of its chain."""
    residue: str
    """Its number, with the insertion code."""
    mutant: str
    """One-letter code of the residue that takes its place."""

    def __str__(self) -> str:
        return "".join(self)


class Mutant(tuple[Mutation, ...]):
    """One or more mutations at once, by chain and residue: the same whatever the order in which they were written.

    Examples
    --------
    >>> double = parse_mutant("EA58A, DD26A")
    >>> str(double), double[0].residue
    ('EA58A,DD26A', '58')
    >>> double == parse_mutant("DD26A,EA58A")
    True
    """

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @property
    def positions(self) -> frozenset[tuple[str, str]]:
        """Chain and residue of each mutation."""
        return frozenset((one.chain, one.residue) for one in self)


def parse_mutant(text: str) -> Mutant:
    """Read the mutations of one mutant.

    Parameters
    ----------
    text
        As in SKEMPI: wild type, chain, residue number with insertion code, mutant; separated by commas. Insertion codes
        are read in upper case.

    Raises
    ------
    ValueError
        For another notation, a substitution by the same residue, and two of one residue; with the remedy.

    References
    ----------
    Jankauskaite et al. (2019), Bioinformatics 35, 462 (SKEMPI 2).

    Examples
    --------
    >>> parse_mutant("RH100aA")[0]
    Mutation(wild_type='R', chain='H', residue='100A', mutant='A')
    """
    found = []
    for part in text.split(","):
        match = NOTATION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r:.60} is no mutation: {REMEDY}")
        wild_type, chain, residue, mutant = match.groups()
        if wild_type == mutant:
            raise ValueError(f"{part.strip()} replaces {wild_type} by itself: leave it out")
        found.append(Mutation(wild_type, chain, residue.upper(), mutant))
    found.sort(key=_place)
    mutant_ = Mutant(found)
    if len(mutant_.positions) < len(mutant_):
        raise ValueError(f"{mutant_} replaces one residue twice: write one substitution per residue")
    return mutant_


def _place(one: Mutation) -> tuple[str, int, str]:
    number = one.residue.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return one.chain, int(number), one.residue


def parse_mutants(texts: Iterable[str]) -> list[Mutant]:
    """Read many mutants, each once, in the order of their first mention; raises as :func:`parse_mutant`."""
    return list(dict.fromkeys(parse_mutant(text) for text in texts))


def read_mutants(path: str | Path) -> list[Mutant]:
    """Read a text file with one mutant in each line; what follows a # is left out.

    Raises
    ------
    FileNotFoundError, PermissionError
        Where there is no such file.
    ValueError
        For a line that is no mutant, and a file without any; with its name.
    """
    path = user_path(path)
    check_regular(path, "list of mutants")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has over {MAX_BYTES >> 20} MiB: give a text file with one mutant in each line")
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text: give a file with one mutant in each line, as DD26A,EA58A") from None
    try:
        found = parse_mutants(line for line in lines if line)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not found:
        raise ValueError(f"{path} has no mutants: give one in each line, as DD26A,EA58A")
    return found


def mismatch(structure: Structure, mutant: Mutant) -> str | None:
    """What in a mutant does not fit a structure, with the remedy; None if all of it fits."""
    for one in mutant:
        if one.chain not in structure.chains:
            have = ", ".join(structure.chain_names)
            return f"{one}: no chain {one.chain}; the structure has {have}: name one of these, or leave the mutant out"
        try:
            there = ALPHABET[int(structure.sequence[structure.index(one.chain, one.residue)])]
        except ValueError as error:
            return f"{one}: {error}; number residues as the file of the structure does"
        if there != one.wild_type:
            return (
                f"{one}: residue {one.residue} of chain {one.chain} is {there} in the structure, not {one.wild_type}; "
                "number residues as the file of the structure does"
            )
    return None


def mutated(structure: Structure, mutants: Sequence[Mutant]) -> Int[Tensor, "n L"]:
    """Sequences of mutants of a structure.

    Raises
    ------
    ValueError
        Where a chain or residue is not there, or is not the wild type that the mutant names; with the remedy.

    Examples
    --------
    >>> pair = Structure.of({"A": "MK", "B": "V"})
    >>> mutated(pair, [parse_mutant("KA2G"), parse_mutant("VB1I,MA1L")]).tolist()
    [[10, 5, 17], [9, 8, 7]]
    """
    sequences = structure.sequence.repeat(len(mutants), 1)
    for row, mutant in zip(sequences, mutants):
        wrong = mismatch(structure, mutant)
        if wrong:
            raise ValueError(wrong)
        places = [structure.index(one.chain, one.residue) for one in mutant]
        row[places] = encode("".join(one.mutant for one in mutant))
    return sequences
