"""Structures of proteins, from files and built by hand."""

import gzip
import sys

import pytest
import torch
from protein_cases import pdb_text, two_helices

from spikevae.free_energy.mutations import Structure, read_structure
from spikevae.free_energy.mutations import reading as reading_module

STRUCTURE = two_helices(12, 6)


def atom(name, x, residue="ALA", number=1, chain="A", alternate=" ", occupancy=1.0, kind="ATOM", code=" "):
    return (
        f"{kind:<6s}    1  {name:<3s}{alternate}{residue} {chain}{number:4d}{code}   {x:8.3f}   0.000   0.000"
        f"{occupancy:6.2f}  0.00           {name[0]}  \n"
    )


def residue(start=0.0, **settings):
    return "".join(atom(name, start + i, **settings) for i, name in enumerate(("N", "CA", "C", "O")))


def same(a, b):
    return (
        torch.equal(a.coordinates.nan_to_num(-99), b.coordinates.nan_to_num(-99))
        and torch.equal(a.sequence, b.sequence)
        and (a.chains, a.residues) == (b.chains, b.residues)
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["pdb", "cif"])
def test_files_give_the_structure(tmp_path, kind, packed) -> None:
    import gemmi

    text = pdb_text(STRUCTURE)
    if kind == "cif":
        parsed = gemmi.read_pdb_string(text)
        parsed.setup_entities()
        text = parsed.make_mmcif_document().as_string()
    path = tmp_path / "anything"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert same(read_structure(path), STRUCTURE)
    assert same(read_structure(str(path), "B"), STRUCTURE.select("B"))
    assert same(read_structure(path, ["B", "A"]), STRUCTURE)  # in the order of the file


def test_what_is_kept_of_a_file(tmp_path) -> None:
    text = (
        "MODEL        1\n"
        + residue(number=-1)
        + residue(10.0, residue="MSE", kind="HETATM", number=1)
        + residue(20.0, residue="SEP", kind="HETATM", number=1, code="A")
        + residue(30.0, number=2, alternate="A", occupancy=0.4)
        + residue(40.0, number=2, alternate="B", occupancy=0.6)
        + residue(50.0, residue="TRP", number=3, alternate="A", occupancy=0.3)
        + residue(60.0, residue="VAL", number=3, alternate="B", occupancy=0.7)
        + residue(70.0, residue="UNK", number=4)
        + atom("CA", 80.0, number=5)
        + "TER\n"
        + residue(90.0, residue="GLY", kind="HETATM", number=300)  # a free amino acid
        + atom("O", 95.0, residue="HOH", kind="HETATM", number=301)
        + "ENDMDL\nMODEL        2\n"
        + residue(500.0, chain="Z")
        + "ENDMDL\nEND\n"
    )
    (tmp_path / "a.pdb").write_text(text)
    found = read_structure(tmp_path / "a.pdb")
    assert found.letters == "AMSAVXA" and set(found.chains) == {"A"}
    assert found.residues == ("-1", "1", "1A", "2", "3", "4", "5")
    assert found.coordinates[:, 1, 0].tolist() == [1.0, 11.0, 21.0, 41.0, 61.0, 71.0, 80.0]
    assert found.complete.tolist() == [True] * 6 + [False] and bool(found.coordinates[6, 0].isnan().all())
    assert found.along_chain.tolist() == [0, 2, 3, 4, 5, 6, 7]


WATER = atom("O", 0.0, residue="HOH", kind="HETATM")
BAD_FILES = {
    "text": (b"hello\n" * 9, "has no atoms: give a PDB or mmCIF file"),
    "empty": (b"", "has no atoms"),
    "noise": (bytes(range(256)) * 40, "no atoms|cannot be read"),
    "short": (b"ATOM      1  N   GLY A   1      85.564\n", r"cannot be read \(.*\): give a PDB or mmCIF"),
    "no number": (
        residue().replace("   1.000", "    oops").encode(),
        r"cannot be read \(line 2 has no three coordinates\)",
    ),
    "water": (WATER.encode(), "has no amino acids"),
    "alpha carbons": (atom("CA", 0.0).encode() + atom("CA", 3.8, number=2).encode(), "with all of N, CA, C, O"),
    "half a cif": (b"data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1\n", "cannot be read"),
    "no cif of atoms": (b"data_x\n_cell.length_a 1\n", "has no atoms"),
    "names": (residue().replace("ALA A", "ALA \xff").encode("latin-1"), "has names that are no text"),
    "twice": ((residue() + residue(9.0, number=2) + residue(20.0, residue="GLY")).encode(), "chain A has 2 residues 1"),
    "cut": (gzip.compress(residue().encode())[:-12], "cannot be decompressed"),
    "underscore": (
        residue().replace("ATOM", "atom").replace("   0.000", "   0_000", 1).encode(),
        "has no three coordinates",
    ),
    "no gzip": (b"\x1f\x8b" + b"x" * 50, "cannot be decompressed"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_with_the_remedy(tmp_path, name) -> None:
    content, message = BAD_FILES[name]
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_structure(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_chains_that_are_not_there(tmp_path) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(pdb_text(STRUCTURE))
    with pytest.raises(ValueError, match=r"has no chain C, H; it has the chains A, B$"):
        read_structure(path, "ACH")
    with pytest.raises(ValueError, match="it has the chains A, B"):
        read_structure(path, "")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{line[:21]} {line[22:]}" if line[21:22] == "A" else line for line in lines))
    with pytest.raises(ValueError, match=r"has no chain A; it has the chains \(without label\), B$"):
        read_structure(path, "A")
    with pytest.raises(FileNotFoundError, match="no structure file at"):
        read_structure(tmp_path / "none.pdb")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_structure(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_large_files_are_refused_before_they_are_parsed(tmp_path, monkeypatch, packed) -> None:
    text = pdb_text(STRUCTURE).encode()
    (tmp_path / "a.pdb").write_bytes(gzip.compress(text) if packed else text)
    monkeypatch.setattr(reading_module, "MAX_BYTES", len(text) - 1)
    with pytest.raises(ValueError, match=r"a\.pdb has over \d+ MiB: keep the chains"):
        read_structure(tmp_path / "a.pdb")
    monkeypatch.setattr(reading_module, "MAX_BYTES", len(text))
    monkeypatch.setattr(reading_module, "MAX_RESIDUES", 17)
    with pytest.raises(ValueError, match="has 18 residues, more than 17: name the chains"):
        read_structure(tmp_path / "a.pdb")
    assert len(read_structure(tmp_path / "a.pdb", "A")) == 12


def test_without_gemmi_the_extra_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.pdb").write_text(pdb_text(STRUCTURE))
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(ImportError, match=r"pip install 'spikevae\[protein\]'"):
        read_structure(tmp_path / "a.pdb")


def test_chains_and_residues_of_a_structure() -> None:
    part = STRUCTURE.select("B")
    assert len(part) == 6 and part.residues == tuple("123456") and part.chain_names == ("B",)
    assert torch.equal(part.coordinates, STRUCTURE.coordinates[12:])
    assert STRUCTURE.where("B").tolist() == list(range(12, 18))
    assert STRUCTURE.index("B", "3") == 14 and STRUCTURE.index("A", "14") == 10
    assert STRUCTURE.along_chain.tolist() == [*range(10), 13, 14, *range(6)]
    assert repr(STRUCTURE) == "Structure(18 residues; A: 12, B: 6)"
    with pytest.raises(ValueError, match=r"chain A has no residue 12: it has 12, from 1 to 15$"):
        STRUCTURE.index("A", "12")
    for call in (lambda: STRUCTURE.index("C", "1"), lambda: STRUCTURE.select(["C"])):
        with pytest.raises(ValueError, match="no chain C; the structure has A, B"):
            call()


def test_bad_structures() -> None:
    places, letters = torch.zeros(2, 4, 3).double(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="at least one residue"):
        Structure(places[:0], letters[:0], (), ())
    with pytest.raises(ValueError, match="chain A has 2 residues 1: give each"):
        Structure(places, letters, ("A", "A"), ("1", "1"))
    with pytest.raises(ValueError, match="'x' is no number of a residue"):
        Structure(places, letters, ("A", "A"), ("1", "x"))
    with pytest.raises(ValueError, match="entries from 0 to 21; give positions"):
        Structure(places, torch.tensor([0, 21]), ("A", "A"), ("1", "2"))
    with pytest.raises(ValueError, match="'b' is no amino acid"):
        Structure.of({"A": "MbK"})


def test_every_measured_mutation_of_1ao7_has_its_wild_type(shared_data) -> None:
    structure = read_structure(shared_data / "skempi" / "1AO7.pdb.gz")
    assert {name: structure.chains.count(name) for name in structure.chain_names} == {
        "A": 274,
        "B": 100,
        "C": 9,
        "D": 115,
        "E": 209,
    }
    assert structure.select("C").letters == "LLFGYPVYV" and bool(structure.complete.all())
    rows = (shared_data / "skempi" / "skempi_v2_1AO7.csv").read_text().splitlines()[1:]
    mutations = {part for row in rows for part in row.split(";")[2].split(",")}
    assert len(mutations) == 97
    for text in mutations:
        assert structure.letters[structure.index(text[1], text[2:-1])] == text[0], text
