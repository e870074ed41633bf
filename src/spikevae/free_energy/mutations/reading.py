"""Structures from files of the Protein Data Bank."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ..._files import check_regular, user_path
from .structure import ALPHABET, BACKBONE, Structure, encode

KIND = "structure file"
MAX_BYTES = 2**28
"""Of a file after decompression; the largest entries of the Protein Data Bank in these formats have about as many."""
MAX_RESIDUES = 10_000
"""Of the chains that are read."""
REMEDY = "give a PDB or mmCIF file of a protein, plain or .gz"


def read_structure(path: str | Path, chains: Iterable[str] | None = None) -> Structure:
    """Read the backbone of a protein from PDB or mmCIF, plain or compressed by gzip; needs the extra `protein`.

    Of several models the first counts, of alternate locations the one with the largest occupancy. Modified residues
    count as the amino acid that they come from (MSE as M), others as X; nucleic acids, ligands and water are left out.

    Parameters
    ----------
    path
        The kind of file is recognised by its content.
    chains
        Labels of the chains to keep, as the authors of the file named them: "AB" or ["A", "B"]; None: all.

    Raises
    ------
    ImportError
        Without gemmi.
    FileNotFoundError, PermissionError
        Where there is no such file.
    ValueError
        For a file that is damaged, too large or of another kind, has no such chain, or no backbone; with its name.

    References
    ----------
    Wojdyr (2022), Journal of Open Source Software 7, 4200 (gemmi, which reads the file).

    Examples
    --------
    >>> import tempfile
    >>> atoms = [("N", 0.0, 1.5), ("CA", 0.0, 0.0), ("C", 1.5, 0.0), ("O", 2.1, 1.0)]
    >>> text = "".join(
    ...     f"ATOM  {i:5d} {name:^4s} MET A   7    {x:8.3f}{y:8.3f}   0.000  1.00  0.00           {name[0]}  \\n"
    ...     for i, (name, x, y) in enumerate(atoms)
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "one.pdb"
    ...     _ = path.write_text(text)
    ...     read_structure(path)
    Structure(1 residues; A: 1)
    """
    path = user_path(path)
    check_regular(path, KIND)
    model = _model(path)
    try:
        rows = list(_residues(model))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has names that are no text ({error.reason}): {REMEDY}") from None
    if not rows:
        raise ValueError(f"{path} has no amino acids: {REMEDY}")
    there = list(dict.fromkeys(chain for chain, *_ in rows))
    wanted = there if chains is None else list(chains)
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        have = ", ".join(name or "(without label)" for name in there)
        raise ValueError(f"{path} has no chain {', '.join(missing) or 'of no name'}; it has the chains {have}")
    rows = [row for row in rows if row[0] in wanted]
    if len(rows) > MAX_RESIDUES:
        raise ValueError(f"{path} has {len(rows)} residues, more than {MAX_RESIDUES}: name the chains that are needed")
    names, residues, letters, places = zip(*rows)
    coordinates = torch.tensor(places, dtype=torch.float64)
    coordinates = torch.where(coordinates.isfinite(), coordinates, torch.nan)
    try:
        structure = Structure(coordinates, encode(letters), names, residues)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name in structure.chain_names:
        if not structure.complete[structure.where([name])].any():
            raise ValueError(
                f"{path} has no residue of chain {name} with all of {', '.join(BACKBONE)}: give a file with the whole "
                "backbone"
            )
    return structure


def _model(path: Path) -> Any:
    """First model of a file, with what each residue is."""
    try:
        import gemmi
    except ImportError:
        raise ImportError("structures of proteins need gemmi: pip install 'spikevae[protein]'") from None
    data = _content(path)
    lines = (line.strip() for line in data[:65536].decode("latin-1").splitlines())
    is_cif = next((line for line in lines if line and not line.startswith("#")), "").lower().startswith("data_")
    try:
        if is_cif:
            found = gemmi.make_structure_from_block(gemmi.cif.read_string(data)[0])
            found.merge_chain_parts()
        else:
            _check_numbers(data)
            found = gemmi.read_pdb_string(data)
    except (RuntimeError, ValueError, IndexError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0].rstrip(': ')}): {REMEDY}") from None
    if not len(found) or not len(found[0]):
        raise ValueError(f"{path} has no atoms: {REMEDY}")
    found.setup_entities()
    return found


def _check_numbers(data: bytes) -> None:
    """Refuse coordinates that are no numbers, which the parser would read as 0."""
    for number, line in enumerate(data.splitlines(), 1):
        if line[:6].upper() in (b"ATOM  ", b"HETATM"):
            try:
                for start in (30, 38, 46):
                    float(line[start : start + 8].replace(b"_", b"?"))  # which Python would read as 1_000
            except ValueError:
                raise ValueError(f"line {number} has no three coordinates") from None


def _content(path: Path) -> bytes:
    """Bytes of a file, decompressed, up to the limit."""
    too_large = ValueError(
        f"{path} has over {MAX_BYTES >> 20} MiB: keep the chains that are needed in a file of their own"
    )
    if path.stat().st_size > MAX_BYTES:
        raise too_large
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}): download it again") from None
    if len(data) > MAX_BYTES:
        raise too_large
    return data


def _residues(structure: Any) -> Iterator[tuple[str, str, str, list[list[float]]]]:
    """(chain, number, letter, coordinates) of each amino acid of a polymer, in the order of the file."""
    from gemmi import EntityType, find_tabulated_residue

    for chain in structure[0]:
        # A mutated place in part of the molecules: two residues with one number, of which the more frequent counts.
        for number, group in groupby(chain, key=lambda residue: str(residue.seqid).strip()):
            members = [residue for residue in group if residue.entity_type == EntityType.Polymer]
            if not members:
                continue
            residue = max(members, key=_occupancy)
            atoms = _backbone(residue)
            known = find_tabulated_residue(residue.name)
            if not known.is_amino_acid() and not {"N", "CA", "C"} <= set(atoms):
                continue
            letter = known.one_letter_code.upper() if known.is_amino_acid() else "X"
            nan = [float("nan")] * 3
            yield chain.name, number, letter if letter in ALPHABET else "X", [atoms.get(name, nan) for name in BACKBONE]


def _occupancy(residue: Any) -> float:
    return max((atom.occ for atom in residue if atom.name == "CA"), default=0.0)


def _backbone(residue: Any) -> dict[str, list[float]]:
    """Places of the atoms of the backbone, at one alternate location: that with the largest occupancy."""
    weight: dict[str, float] = {}
    for atom in residue:
        if atom.name in BACKBONE and atom.has_altloc():
            weight[atom.altloc] = weight.get(atom.altloc, 0.0) + atom.occ
    chosen = max(weight, key=lambda name: weight[name], default=None)
    found: dict[str, list[float]] = {}
    for atom in residue:
        if atom.name in BACKBONE and (not atom.has_altloc() or atom.altloc == chosen):
            found.setdefault(atom.name, list(atom.pos.tolist()))
    return found
