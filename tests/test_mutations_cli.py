"""`spikevae mutations`: its table, how it goes on after Ctrl-C, and errors in one line."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mutation_cases import PAIR, OneWay, write_table

from spikevae._json import MAX_JSON_BYTES
from spikevae.cli import DONE, INTERRUPTED, USAGE, main
from spikevae.free_energy.mutations import (
    BindingScores,
    Cycle,
    Measured,
    ProteinMPNN,
    parse_mutants,
    read_structure,
)
from spikevae.free_energy.mutations import protein_mpnn as mpnn
from spikevae.free_energy.mutations.output import Predicted, load_draws, save_draws

pytest.importorskip("gemmi")
THREE = dict(zip("ACDEFGHIK", ("ALA", "CYS", "ASP", "GLU", "PHE", "GLY", "HIS", "ILE", "LYS")))
MUTANTS = ("CA2W", "CA2W,KB4G", "HB2A")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A structure of nine residues and a file of random weights, in the present folder."""
    monkeypatch.chdir(tmp_path)
    lines, serial = [], 0
    rng = np.random.default_rng(0)
    for i, (letter, chain, number) in enumerate(zip(PAIR.letters, PAIR.chains, PAIR.residues)):
        at = np.array([3.8 * int(number), 6.0 * (chain == "B"), 0.5 * (i % 2)])
        for name, shift in (("N", (-1.2, 0.8, 0)), ("CA", (0, 0, 0)), ("C", (1.2, 0.8, 0)), ("O", (1.2, 2.0, 0))):
            serial += 1
            x, y, z = at + np.array(shift) + 0.1 * rng.normal(size=3)
            lines.append(
                f"ATOM  {serial:5d} {name:^4s} {THREE[letter]} {chain}{int(number):4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                f"  1.00  0.00           {name[0]}  "
            )
    Path("1abc.pdb").write_text("\n".join(lines) + "\nEND\n")
    draw = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in mpnn._Network().state_dict().items()}
    weights = {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    torch.save({"model_state_dict": weights, "num_edges": 8, "noise_level": 0.2}, "weights.pt")


def arguments(*further: str) -> list[str]:
    return ["mutations", "1abc.pdb", "--partners", "A", "B", "--weights", "weights.pt", "--device", "cpu", *further]


def table() -> list[dict[str, str]]:
    with open("mutations.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_scores_of_the_cycle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--mutations", *MUTANTS, "--draws", "3", "--seed", "4")) == DONE
    out, err = capsys.readouterr()
    cycle = Cycle(
        ProteinMPNN.load("weights.pt"), read_structure("1abc.pdb"), parse_mutants(MUTANTS), ("A", "B"), seed=4
    )
    scores = cycle.run(3)
    rows = table()
    assert [row["mutant"] for row in rows] == list(MUTANTS)
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores.binding, atol=1e-9)
    np.testing.assert_allclose([float(row["standard_error"]) for row in rows], scores.standard_errors, atol=1e-9)
    np.testing.assert_allclose([float(row["log_odds"]) for row in rows], scores.log_odds, atol=1e-9)
    assert all(any(line.startswith(f"{name} ") for line in out.splitlines()) for name in MUTANTS)
    assert f"{scores.binding[0]:.3f} {scores.standard_errors[0]:>7.3f}" in out and "In mutations.csv" in out
    assert "mutations: " in err  # progress


def test_ctrl_c_keeps_draws_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments("--mutations", *MUTANTS, "--draws", "4")
    whole = Cycle(ProteinMPNN.load("weights.pt"), read_structure("1abc.pdb"), parse_mutants(MUTANTS), ("A", "B")).run(4)
    scored, calls = ProteinMPNN.log_probabilities, 0

    def counted(*given: object, stop: int = 0, **settings: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return scored(*given, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(ProteinMPNN, "log_probabilities", lambda *a, **k: counted(*a, stop=8, **k))
        assert main(command) == INTERRUPTED
    assert "2 of 4 draws are in mutations.draws.json" in capsys.readouterr().err and not Path("mutations.csv").exists()
    calls = 0
    monkeypatch.setattr(ProteinMPNN, "log_probabilities", counted)
    assert main([*command, "--json"]) == DONE
    assert calls == 6  # two draws of a complex and two partners
    facts = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose([row["score"] for row in facts["mutants"]], whole.binding, atol=1e-9)
    assert main(arguments("--mutations", *MUTANTS, "--draws", "2")) == DONE
    assert calls == 6  # what is there is enough
    np.testing.assert_allclose(float(table()[0]["score"]), whole.draws[:2, 0].mean(), atol=1e-9)
    assert main(arguments("--mutations", *MUTANTS, "--seed", "1")) == USAGE
    assert "mutations.draws.json has draws of other settings (seed)" in capsys.readouterr().err
    Path("mutations.draws.json").write_text('{"settings": 3}')
    assert main(command) == USAGE
    assert "holds no draws of mutants; delete it, or give another --out" in capsys.readouterr().err


def test_draws_of_anything_else_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = arguments("--mutations", *MUTANTS, "--draws", "1")
    assert main(command) == DONE
    pdb, weights = Path("1abc.pdb").read_text(), torch.load("weights.pt", weights_only=True)
    line = pdb.splitlines()[5]
    Path("moved.pdb").write_text(pdb.replace(line, f"{line[:30]}{float(line[30:38]) + 0.001:8.3f}{line[38:]}"))
    weights["model_state_dict"]["W_out.bias"][0] += 0.001
    torch.save(weights, "other.pt")
    swap = {"1abc.pdb": "moved.pdb", "weights.pt": "other.pt", "B": "A", "A": "B", "HB2A": "HB2C"}
    cases = {"structure": ("1abc.pdb",), "weights": ("weights.pt",), "partners": ("A", "B"), "mutants": ("HB2A",)}
    for name, words in cases.items():
        assert main([swap[word] if word in words else word for word in command]) == USAGE
        assert f"mutations.draws.json has draws of other settings ({name})" in capsys.readouterr().err
    for name, value in (("noise", "0.2"), ("seed", "3")):
        assert main([*command, f"--{name}", value]) == USAGE
        assert f"mutations.draws.json has draws of other settings ({name})" in capsys.readouterr().err
    assert main([*command, "--json"]) == DONE


def test_measured_values_stand_beside_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{name};{name};{n}E-6;{n}E-6;1E-6;1E-6;298" for n, name in enumerate((*MUTANTS, "GB1Y"), 2)]
    write_table(Path("skempi.csv"), *rows, "GB1A;GB1A;n.b;;1E-6;1E-6;298")
    command = ["mutations", "1abc.pdb", "--mutations", "skempi.csv", "--weights", "weights.pt", "--device", "cpu"]
    assert main([*command, "--draws", "2", "--json"]) == DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["dropped"] and -1 <= facts["spearman"] <= 1
    found = table()
    assert math.isclose(float(found[0]["measured"]), 0.4105, abs_tol=1e-3)  # RT log 2
    x, y = (np.array([float(row[name]) for row in found]) for name in ("score", "measured"))
    others = [2, 3]  # those that share no residue with CA2W
    expected = x[0] * (x[others] @ y[others]) / (x[others] @ x[others])
    assert math.isclose(float(found[0]["predicted"]), expected, rel_tol=1e-9)
    assert main([*command, "--draws", "2"]) == DONE
    out = capsys.readouterr().out
    assert "rank correlation with the measured" in out and "4 mutants, 4 measurements; 1 row dropped" in out
    assert main([*command, "--complex", "2xyz"]) == USAGE
    assert "skempi.csv has no rows of 2xyz" in capsys.readouterr().err


def test_ctrl_c_in_the_first_draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*given: object, **settings: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProteinMPNN, "log_probabilities", stop)
    assert main(arguments("--mutations", *MUTANTS)) == INTERRUPTED
    assert "no draw was finished" in capsys.readouterr().err and not Path("mutations.draws.json").exists()


def test_chains_of_no_partner_are_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as one of which the file has alpha carbons alone."""
    content = Path("1abc.pdb").read_text().removesuffix("END\n")
    Path("1abc.pdb").write_text(
        f"{content}ATOM    999  CA  GLY C   1      50.000  50.000  50.000  1.00  0.00           C\n"
    )
    assert main(arguments("--mutations", "CA2W", "--draws", "1", "--json")) == DONE
    assert len(json.loads(capsys.readouterr().out)["mutants"]) == 1
    command = ["mutations", "1abc.pdb", "--mutations", "CA2W", "--weights", "weights.pt", "--partners", "A", "C"]
    assert main(command) == USAGE
    assert "has no residue of chain C with all of N, CA, C, O" in capsys.readouterr().err


def test_many_draws_are_read_again() -> None:
    """More than other JSON files may have."""
    cycle = Cycle(OneWay(), PAIR, parse_mutants(MUTANTS) * 200, ("A", "B"))
    terms = np.random.default_rng(0).normal(size=(500, 3, 601))
    save_draws(Path("many.json"), {}, BindingScores(cycle.mutants, terms))
    assert Path("many.json").stat().st_size > MAX_JSON_BYTES
    found = load_draws(Path("many.json"), {}, cycle)
    assert found is not None and np.array_equal(found.terms, terms)


def test_scores_that_are_all_zero_have_no_scalar() -> None:
    mutants = parse_mutants(MUTANTS)
    measured = Measured(mutants, np.array([1.0, 2.0, 3.0]), np.ones(3, dtype=int), ("A", "B"), {})
    found = Predicted(BindingScores(mutants, np.zeros((2, 3, 4))), measured)
    assert math.isnan(found.scalar) and math.isnan(found.spearman) and np.isnan(found.predicted).all()


def test_probabilities_do_not_depend_on_the_modes_of_pytorch() -> None:
    network, structure = ProteinMPNN.load("weights.pt"), read_structure("1abc.pdb")
    order = torch.arange(len(structure))
    expected = network.log_probabilities(structure, structure.sequence[None], order=order)
    with torch.inference_mode(), torch.autocast("cpu"):
        inside = ProteinMPNN.load("weights.pt"), read_structure("1abc.pdb")
        for one, given in (inside, (network, structure), (inside[0], structure)):
            found = one.log_probabilities(given, given.sequence[None], order=order)
            assert torch.equal(found, expected)
    assert torch.equal(inside[0].log_probabilities(inside[1], structure.sequence[None], order=order), expected)


def test_mutants_are_read_from_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.txt").write_text("\n".join(MUTANTS))
    assert main(arguments("--mutations", "list.txt", "--draws", "1", "--json")) == DONE
    facts = json.loads(capsys.readouterr().out)
    assert [row["mutant"] for row in facts["mutants"]] == list(MUTANTS)
    assert facts["mutants"][0]["standard_error"] is None  # one draw


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--mutations", "DA2W"], "DA2W: residue 2 of chain A is C in the structure, not D"),
        (["--mutations", "CC2W"], "CC2W: chain C is in no partner (A, B)"),
        (["--mutations"], "--mutations names none"),
        (["--mutations", ",".join(f"CA{i}W" for i in range(2, 90))], "CA3W: residue 3 of chain A is D"),
        (
            ["--mutations", "CA2W", "--partners", "A,B"],
            "--partners takes the chains of each partner with a space between",
        ),
        (["--mutations", "CA2W", "--partners", "AA", "B"], "partner AA has a chain twice"),
        (["--mutations", "CA2W", "--partners", "A", "X"], "1abc.pdb has no chain X; it has the chains A, B"),
        (["--mutations", "none.csv"], "--mutations: 'none.csv' is no mutation"),
        (["--mutations", "CA2W", "--weights", "none.pt"], "no file of weights at none.pt"),
        (["--mutations", "CA2W", "--noise", "-1"], "noise is -1.0"),
        (["--mutations", "CA2W", "--draws", "0"], "draws is 0"),
        (["--mutations", "CA2W", "--partners", "AB"], "give the chains of two or more"),
    ],
)
def test_bad_input_is_named_in_one_line(further: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["mutations", "1abc.pdb", *further]
    given += [] if "--partners" in further else ["--partners", "A", "B"]
    given += [] if "--weights" in further else ["--weights", "weights.pt"]
    assert main(given) == USAGE
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1


def test_partners_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutations", "1abc.pdb", "--mutations", "CA2W", "--weights", "weights.pt"]) == USAGE
    assert "--partners is missing: give the chains of each partner" in capsys.readouterr().err


def test_the_encoding_of_the_latest_backbone_is_kept_until_it_changes() -> None:
    network, structure = ProteinMPNN.load("weights.pt"), read_structure("1abc.pdb")
    noise = 0.1 * torch.randn(structure.coordinates.shape, generator=torch.Generator().manual_seed(1)).double()
    first = network.encode(structure, noise)
    assert network.encode(structure, noise) is first
    assert network.encode(structure, noise.clone()) is not first
    first = network.encode(structure, noise)
    noise += 0.1 * torch.arange(noise.numel()).view(noise.shape)
    assert not torch.equal(network.encode(structure, noise).nodes, first.nodes)
    assert not torch.equal(network.encode(structure).nodes, network.encode(structure, noise).nodes)
