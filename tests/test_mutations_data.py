"""Notation of mutations, tables of affinities, contact energies, and what is fitted to them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mutation_cases import PAIR, write_table
from scipy.constants import N_A, calorie, k
from sklearn.base import clone
from sklearn.linear_model import Ridge

from spikevae.free_energy.mutations import (
    ALPHABET,
    BindingEnergy,
    Structure,
    contact_energies,
    leave_positions_out,
    parse_mutant,
    parse_mutants,
    read_mutants,
    read_skempi,
    read_structure,
)
from spikevae.free_energy.mutations.contacts import beta_carbons, interface
from spikevae.free_energy.mutations.mutation import mutated
from spikevae.free_energy.mutations.skempi import is_skempi

KCAL = k * N_A / calorie / 1000
"""Gas constant, kcal / (mol K)."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("DD26A", "DD26A"), (" EA58A , DD26A", "EA58A,DD26A"), ("RH100aW", "RH100AW"), ("KA-1R", "KA-1R")],
)
def test_mutations_are_read_and_written(text: str, shown: str) -> None:
    assert str(parse_mutant(text)) == shown
    assert parse_mutants([text, shown]) == [parse_mutant(text)]


def test_residues_are_in_the_order_of_their_numbers() -> None:
    assert str(parse_mutant("DA100W,DA26A,DA100AW")) == "DA26A,DA100W,DA100AW"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("26A", "'26A' is no mutation: write wild type, chain, residue number and mutant, as DD26A"),
        ("", "'' is no mutation"),
        ("DD26A;EA58A", "is no mutation"),
        ("BD26A", "'BD26A' is no mutation"),
        ("DD26X", "'DD26X' is no mutation"),
        ("DD26D", "DD26D replaces D by itself"),
        ("DD26A,DD26W", "replaces one residue twice"),
    ],
)
def test_other_notations_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mutant(text)


def test_sequences_of_mutants_differ_where_they_say() -> None:
    found = mutated(PAIR, [parse_mutant("CA2W,KB4G"), parse_mutant("GB1A")])
    letters = ["".join(ALPHABET[i] for i in row) for row in found.tolist()]
    assert letters == ["AWDEFGHIG", "ACDEFAHIK"] and PAIR.letters == "ACDEFGHIK"


def test_lists_of_mutants_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# two mutants\nCA2W\n\nCA2W,KB4G  # a double one\nCA2W\n")
    assert list(map(str, read_mutants(path))) == ["CA2W", "CA2W,KB4G"]
    path.write_text("CA2W\nno\n")
    with pytest.raises(ValueError, match=r"list.txt: 'no' is no mutation"):
        read_mutants(path)
    path.write_text("# none\n")
    with pytest.raises(ValueError, match=r"list.txt has no mutants"):
        read_mutants(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"list.txt is no text"):
        read_mutants(path)


def test_affinities_become_differences_of_binding_free_energy(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "skempi.csv",
        "CA2W;CA2W;2E-6;2E-6;1E-6;1E-6;298",
        "CA2W;CA2W;4E-6;4E-6;1E-6;1E-6;310(assumed)",
        "GB1A,CA2W;GB1A,CA2W;1E-8;1E-8;1E-6;1E-6;",
        "GB1A;GB1A;n.b;;1E-6;1E-6;298",
        "GB1A;GB1A;>1E-4;1E-4;1E-6;1E-6;298",
        "GB1A;GB1A;1E-4;1E-4;<1E-6;1E-6;298",
    )
    found = read_skempi(table, PAIR, "1abc")
    assert list(map(str, found.mutants)) == ["CA2W", "CA2W,GB1A"] and found.partners == ("A", "B")
    expected = [KCAL * (298 * math.log(2) + 310 * math.log(4)) / 2, -KCAL * 298 * math.log(100)]
    np.testing.assert_allclose(found.ddg, expected, rtol=1e-12)  # positive: binds more weakly
    assert found.measurements.tolist() == [2, 1] and sorted(found.dropped.values()) == [1, 2]
    assert "2 mutants, 3 measurements; 1 row dropped: no affinity" in found.describe()


def test_the_numbering_that_fits_the_structure_is_taken(tmp_path: Path) -> None:
    table = write_table(tmp_path / "skempi.csv", "CA102W;CA2W;2E-6;2E-6;1E-6;1E-6;298")
    assert str(read_skempi(table, PAIR, "1ABC").mutants[0]) == "CA2W"
    far = Structure(PAIR.coordinates, PAIR.sequence, PAIR.chains, tuple(f"10{n}" for n in PAIR.residues))
    assert str(read_skempi(table, far, "1ABC").mutants[0]) == "CA102W"


ROW = "CA2W;CA2W;2E-6;2E-6;1E-6;1E-6;298"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ROW.replace("CA2W", "DA2W"),
            r"in both numberings of the table; of the first, DA2W: residue 2 of chain A is C",
        ),
        (ROW.replace("CA2W", "C2W"), r"skempi.csv: 'C2W' is no mutation"),
        ("CA2W;CA2W;2E-6;many;1E-6;1E-6;298", r"'many' in column 'Affinity_mut_parsed' is no positive number"),
        ("CA2W;CA2W;-1;-1;1E-6;1E-6;298", r"'-1' in column 'Affinity_mut_parsed' is no positive number"),
        (ROW.replace("298", "warm"), r"'warm' in column 'Temperature' is no positive number"),
        ("CA2W;CA2W;n.b;;1E-6;1E-6;298", r"has no affinity of a mutant of 1ABC: 1 row dropped: no affinity"),
    ],
)
def test_bad_rows_are_named(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_skempi(write_table(tmp_path / "skempi.csv", row), PAIR, "1ABC")


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_tables_that_a_spreadsheet_has_saved_are_recognised(start: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "skempi.csv", ROW)
    quoted = (";".join(f'"{field}"' for field in line.split(";")) for line in table.read_text().splitlines())
    plain = read_skempi(table, PAIR, "1ABC")
    table.write_bytes((start + "\r\n".join(quoted)).encode())
    assert is_skempi(table) and read_skempi(table, PAIR, "1ABC").ddg == plain.ddg
    table.write_text("CA2W # of #Pdb;\n")
    assert not is_skempi(table)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "skempi.csv", ROW)
    with pytest.raises(ValueError, match=r"has no rows of 2XYZ: name one of its structures, as 1AO7"):
        read_skempi(table, PAIR, "2XYZ")
    table.write_text("mutant,ddg\n")
    with pytest.raises(ValueError, match=r"has no column '#Pdb': give skempi_v2.csv"):
        read_skempi(table, PAIR, "1ABC")
    table.write_bytes(b"#Pdb;\xff\n")
    with pytest.raises(ValueError, match=r"is no table separated by semicolons"):
        read_skempi(table, PAIR, "1ABC")


def test_the_rows_of_1ao7_fit_its_structure(shared_data: Path) -> None:
    pytest.importorskip("gemmi")
    structure = read_structure(shared_data / "skempi" / "1AO7.pdb.gz")
    found = read_skempi(shared_data / "skempi" / "skempi_v2_1AO7.csv", structure, "1AO7")
    assert found.partners == ("ABC", "DE") and len(found.mutants) == 142
    assert int(found.measurements.sum()) == 200 and sum(found.dropped.values()) == 12
    at = [str(mutant) for mutant in found.mutants].index("DD26A")
    assert math.isclose(found.ddg[at], KCAL * 298 * math.log(1.9e-5 / 3.64e-6), rel_tol=1e-12)  # one row


def alanines(*places: tuple[float, float, float]) -> Structure:
    """Residues of chains A, B, ... whose beta carbons are at these places."""
    backbone = torch.tensor([[-0.5, 1.4, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [2.1, 1.0, 0.0]]).double()
    shift = torch.tensor(places).double() - beta_carbons(backbone[None])
    names = tuple("ABCDEFGH"[: len(places)])
    return Structure(
        backbone + shift[:, None], torch.zeros(len(places), dtype=torch.int64), names, ("1",) * len(places)
    )


def test_contacts_are_near_pairs_of_different_partners() -> None:
    structure = alanines((0, 0, 0), (7.9, 0, 0), (0, 8.1, 0), (0, 0, 5.0))
    assert interface(structure, ("A", "BCD")).tolist() == [[0, 1], [0, 3]]
    assert interface(structure, ("AD", "B")).tolist() == [[0, 1]]  # D is 9.3 from B, C of no partner
    assert interface(structure, ("A", "BCD"), 8.2).tolist() == [[0, 1], [0, 2], [0, 3]]


def test_the_beta_carbon_is_where_alanines_have_it(shared_data: Path) -> None:
    gemmi = pytest.importorskip("gemmi")
    path = shared_data / "skempi" / "1AO7.pdb.gz"
    structure = read_structure(path)
    placed = beta_carbons(structure.coordinates)
    errors = [
        np.linalg.norm(placed[structure.index(chain.name, str(residue.seqid))].numpy() - atom.pos.tolist())
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
        for atom in residue
        if atom.name == "CB" and residue.name == "ALA"
    ]
    assert len(errors) > 30 and np.median(errors) < 0.1


def test_contact_energies_are_differences_of_sums_over_contacts() -> None:
    structure = alanines((0, 0, 0), (5.0, 0, 0), (0, 5.0, 0))
    table = np.random.default_rng(0).normal(size=(20, 20))
    table += table.T
    mutants = [parse_mutant(text) for text in ("AA1K", "AB1D", "AA1K,AB1D")]
    found = contact_energies(structure, mutants, ("A", "BC"), potential=table)
    a, d, k_ = (ALPHABET.index(x) for x in "ADK")
    wild = 2 * table[a, a]
    expected = [2 * table[k_, a] - wild, table[a, d] + table[a, a] - wild, table[k_, d] + table[k_, a] - wild]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_published_potentials_are_those_of_aaindex() -> None:
    pytest.importorskip("aaindex")
    structure = alanines((0, 0, 0), (5.0, 0, 0))
    leucines = [parse_mutant("AA1L,AB1L")]
    found = contact_energies(structure, leucines, ("A", "B"), potential="MIYS960101")
    np.testing.assert_allclose(found, [-7.37 + 2.72])  # table 3 of Miyazawa and Jernigan (1996), in RT
    assert contact_energies(structure, leucines, ("A", "B"))[0] < 0  # two leucines attract each other across interfaces
    with pytest.raises(ValueError, match="AAindex3 has no contact potential 'KESO'"):
        contact_energies(structure, leucines, ("A", "B"), potential="KESO")
    with pytest.raises(ValueError, match=r"has shape \(2, 2\); give \(20, 20\)"):
        contact_energies(structure, leucines, ("A", "B"), potential=np.zeros((2, 2)))


def test_the_scalar_is_least_squares_through_the_origin() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 1, size=(30, 1)), rng.normal(1, 1, 30)
    fit = BindingEnergy().fit(x, y)
    assert math.isclose(fit.scalar_, float(x[:, 0] @ y / (x[:, 0] @ x[:, 0])), rel_tol=1e-12) and not len(fit.scales_)
    assert BindingEnergy(penalty=100).fit(x, y).scalar_ == fit.scalar_  # only contact energies are penalised


def test_scales_of_contact_energies_are_those_of_ridge_regression() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3)) * [1.0, 10.0, 0.1]
    y = x @ [0.5, 0.1, 2.0] + rng.normal(size=40)
    free = BindingEnergy(penalty=0).fit(x, y)
    np.testing.assert_allclose([free.scalar_, *free.scales_], np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-9)
    # The same minimum, from rows that measure each scaled column as zero.
    rows = np.diag(np.sqrt(5.0 * (x**2).mean(0)))[1:]
    expected = Ridge(alpha=1e-12, fit_intercept=False).fit(np.vstack([x, rows]), np.r_[y, 0.0, 0.0]).coef_
    fit = BindingEnergy(penalty=5.0).fit(x, y)
    np.testing.assert_allclose([fit.scalar_, *fit.scales_], expected, rtol=1e-6)
    np.testing.assert_allclose(clone(fit).fit(x, y).predict(x[:4]), x[:4] @ expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "penalty", "message"),
    [
        ([[1.0, 0.0], [2.0, 0.0]], 1.0, "column 1 of X is zero everywhere"),
        ([[1.0, math.nan], [2.0, 0.0]], 1.0, "NaN"),
        ([[1.0, 1.0], [2.0, 0.0]], -1, "penalty is -1; give a finite number"),
        ([[1.0, 1.0], [2.0, 0.0]], math.inf, "penalty is inf; give a finite number"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: list[list[float]], penalty: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BindingEnergy(penalty=penalty).fit(x, [1.0, 2.0])


def test_no_split_trains_on_a_residue_that_it_tests() -> None:
    texts = ("CA2W", "CA2Y", "CA2W,GB1A", "GB1A", "KB4A", "DA3A,KB4A", "CA2Y,GB1L")
    mutants = parse_mutants(texts)
    splits = leave_positions_out(mutants)
    for train, test in splits:
        held_out = set().union(*(mutants[i].positions for i in test))
        assert not any(mutants[i].positions & held_out for i in train)
        assert all(i in train for i, one in enumerate(mutants) if not one.positions & held_out)
    assert sorted(np.concatenate([test for _, test in splits]).tolist()) == list(range(len(texts)))
    with pytest.raises(ValueError, match="nothing is left to train on"):
        leave_positions_out(mutants[:3])
