"""The scorer with ProteinMPNN's network: against a plain form of its equations, and against what must not matter."""

import itertools
import os
import pickle
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import draw, seeded
from protein_cases import pdb_text, random_weights, two_helices

from spikevae.free_energy.mutations import ProteinMPNN, SequenceScorer, Structure, read_structure
from spikevae.free_energy.mutations import _mpnn_decoder as decoder_module
from spikevae.free_energy.mutations import _mpnn_weights as weights_module

STRUCTURE = two_helices()
LENGTH = len(STRUCTURE)
ORDER = torch.randperm(LENGTH, generator=seeded(3))
WEIGHTS = random_weights()
SCORER = ProteinMPNN(WEIGHTS, neighbours=48)
EXACT = SCORER.double()
PLAIN_WEIGHTS = {name: value.double() for name, value in WEIGHTS.items()}


def sequences(count, seed=1, length=LENGTH):
    return torch.randint(0, 21, (count, length), generator=seeded(seed))


def mutants(count, seed=2):
    """The sequence of the structure, and mutants of it with one to three changes."""
    found = STRUCTURE.sequence.repeat(count, 1)
    for row in range(1, count):
        places = torch.randperm(LENGTH, generator=seeded(seed + row))[: 1 + row % 3]
        found[row, places] = (found[row, places] + 1 + row % 19) % 20
    return found


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def updated(w, name, h, messages):
    h = norm(w, f"{name}.norm1", h + messages / 30)
    return norm(w, f"{name}.norm2", h + linear(w, f"{name}.dense.W_out", F.gelu(linear(w, f"{name}.dense.W_in", h))))


def message(w, names, x):
    a, b, c = names
    return linear(w, c, F.gelu(linear(w, b, F.gelu(linear(w, a, x)))))


@lru_cache
def plain_backbone(structure, neighbours=48):
    """Neighbours, residues and pairs after the encoder, pair by pair, in float64."""
    w = PLAIN_WEIGHTS
    n, there = len(structure), structure.complete.tolist()
    x = structure.coordinates.nan_to_num(0.0)
    atoms = {"N": x[:, 0], "CA": x[:, 1], "C": x[:, 2], "O": x[:, 3]}
    b, c = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1]
    atoms["CB"] = -0.58273431 * torch.linalg.cross(b, c) + 0.56802827 * b - 0.54067466 * c + x[:, 1]
    pairs = (
        "CA-CA N-N C-C O-O CB-CB CA-N CA-C CA-O CA-CB N-C N-O N-CB CB-C CB-O O-C "
        "N-CA C-CA O-CA CB-CA C-N O-N CB-N C-CB O-CB C-O"
    )
    numbers, near, edges = structure.along_chain.tolist(), [], []
    for i in range(n):
        away = [float((x[i, 1] - x[j, 1]).norm()) if there[j] else 1e9 + j for j in range(n)]
        near.append(sorted(range(n), key=away.__getitem__)[:neighbours])
        for j in near[i]:
            place = torch.zeros(66).double()
            same = structure.chains[i] == structure.chains[j]
            place[min(max(numbers[i] - numbers[j] + 32, 0), 64) if same else 65] = 1
            distances = torch.stack(
                [
                    ((atoms[p][i] - atoms[q][j]).square().sum() + 1e-6).sqrt()
                    for p, q in (t.split("-") for t in pairs.split())
                ]
            )
            bells = torch.exp(
                -(((distances[:, None] - torch.linspace(2, 22, 16, dtype=torch.float64)) / 1.25) ** 2)
            ).flatten()
            edges.append(torch.cat([linear(w, "features.embeddings.linear", place), bells]))
    near = torch.tensor(near)
    e = torch.stack(edges).view(n, near.shape[1], -1)
    e = linear(w, "W_e", norm(w, "features.norm_edges", linear(w, "features.edge_embedding", e)))
    mask = structure.complete[:, None].double()
    heard = (mask * mask[near, 0])[..., None]
    h = torch.zeros(n, 128).double()
    both = lambda h, e: torch.cat([h[:, None].expand(-1, near.shape[1], -1), e, h[near]], -1)
    for layer in (f"encoder_layers.{i}" for i in range(3)):
        sent = message(w, [f"{layer}.W{i}" for i in (1, 2, 3)], both(h, e)) * heard
        h = updated(w, layer, h, sent.sum(1)) * mask
        e = norm(w, f"{layer}.norm3", e + message(w, [f"{layer}.W{i}" for i in (11, 12, 13)], both(h, e)))
    return near, h, e


def plain(structure, sequence, order):
    """(L, 21) log probabilities."""
    w, mask = PLAIN_WEIGHTS, structure.complete[:, None].double()
    near, h, e = plain_backbone(structure)
    rank = {int(place): k for k, place in enumerate(order)}
    earlier = torch.tensor([[[rank[int(j)] < rank[i]] for j in near[i]] for i in range(len(structure))])
    encoded, letters = h, w["W_s.weight"][sequence][near]
    for layer in (f"decoder_layers.{i}" for i in range(3)):
        known = torch.where(
            earlier, torch.cat([e, letters, h[near]], -1), torch.cat([e, 0 * letters, encoded[near]], -1)
        )
        own = h[:, None].expand(-1, near.shape[1], -1)
        sent = message(w, [f"{layer}.W{i}" for i in (1, 2, 3)], torch.cat([own, known], -1))
        h = updated(w, layer, h, sent.sum(1)) * mask
    return linear(w, "W_out", h).log_softmax(-1)


def test_equals_the_plain_form() -> None:
    scorer: SequenceScorer = EXACT
    several = torch.cat([mutants(5), sequences(2)])
    found = scorer.log_probabilities(STRUCTURE, several, order=ORDER)
    for row, sequence in zip(found, several):
        expected = plain(STRUCTURE, sequence, ORDER).gather(1, sequence[:, None])[:, 0] * STRUCTURE.complete
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-10)
    assert found[:, STRUCTURE.complete].std(1).min() > 0.1  # the weights matter


def test_all_letters_at_some_positions() -> None:
    positions = ORDER[-3:]
    found = EXACT.conditional(STRUCTURE, STRUCTURE.sequence, positions, order=ORDER)
    expected = plain(STRUCTURE, STRUCTURE.sequence, ORDER)[positions]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    every = STRUCTURE.sequence.repeat(21, 1)
    every[:, ORDER[-1]] = torch.arange(21)
    scores = EXACT.log_probabilities(STRUCTURE, every, order=ORDER)[:, ORDER[-1]]
    torch.testing.assert_close(scores, found[-1], rtol=0, atol=1e-10)


def test_probabilities_of_all_sequences_sum_to_one() -> None:
    kept = [5, 40]
    small = Structure(STRUCTURE.coordinates[kept], STRUCTURE.sequence[kept], ("A", "B"), ("1", "1"))
    every = torch.tensor(list(itertools.product(range(21), repeat=2)))
    for order in ([0, 1], [1, 0]):
        log_p = EXACT.log_probabilities(small, every, order=torch.tensor(order)).sum(1)
        assert abs(float(log_p.logsumexp(0))) < 1e-10
        assert log_p.std() > 0.1


def test_only_later_residues_depend_on_a_residue() -> None:
    before = EXACT.log_probabilities(STRUCTURE, STRUCTURE.sequence[None], order=ORDER)[0]
    for k in (0, 20, 60):
        other = STRUCTURE.sequence.clone()
        other[ORDER[k]] = (other[ORDER[k]] + 1) % 20
        after = EXACT.log_probabilities(STRUCTURE, other[None], order=ORDER)[0]
        assert torch.equal(before[ORDER[:k]], after[ORDER[:k]])
        assert not torch.equal(before[ORDER[k + 1 :]], after[ORDER[k + 1 :]])


@pytest.mark.parametrize("noise", [None, 0.3 * draw(LENGTH, 4, 3)], ids=["file", "noise"])
def test_rotation_translation_and_names_of_chains_do_not_matter(noise) -> None:
    turn = torch.linalg.qr(draw(3, 3, seed=5)).Q
    turn = turn * torch.linalg.det(turn)  # no mirror image
    names = tuple({"A": "long", "B": "0"}[name] for name in STRUCTURE.chains)
    moved = Structure(STRUCTURE.coordinates @ turn + 50.0, STRUCTURE.sequence, names, STRUCTURE.residues)
    expected = EXACT.log_probabilities(STRUCTURE, mutants(2), order=ORDER, noise=noise)
    found = EXACT.log_probabilities(moved, mutants(2), order=ORDER, noise=noise if noise is None else noise @ turn)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    mirrored = Structure(-STRUCTURE.coordinates, STRUCTURE.sequence, names, STRUCTURE.residues)
    assert (EXACT.log_probabilities(mirrored, mutants(2), order=ORDER) - expected).abs().max() > 1e-3


def test_order_of_the_residues_in_the_file_does_not_matter() -> None:
    kept = torch.cat([torch.arange(40, LENGTH), torch.arange(40)])
    turned = Structure(
        STRUCTURE.coordinates[kept],
        STRUCTURE.sequence[kept],
        tuple(STRUCTURE.chains[i] for i in kept),
        tuple(STRUCTURE.residues[i] for i in kept),
    )
    expected = EXACT.log_probabilities(STRUCTURE, mutants(3), order=ORDER)
    found = EXACT.log_probabilities(turned, mutants(3)[:, kept], order=kept.argsort()[ORDER])
    torch.testing.assert_close(found, expected[:, kept], rtol=0, atol=1e-10)


def test_noise_is_added_to_the_coordinates() -> None:
    noise = 0.1 * draw(LENGTH, 4, 3)
    places = STRUCTURE.coordinates + noise
    moved = Structure(places, STRUCTURE.sequence, STRUCTURE.chains, STRUCTURE.residues)
    with_noise = EXACT.log_probabilities(STRUCTURE, mutants(2), order=ORDER, noise=noise)
    assert torch.equal(with_noise, EXACT.log_probabilities(moved, mutants(2), order=ORDER))
    assert (with_noise - EXACT.log_probabilities(STRUCTURE, mutants(2), order=ORDER)).abs().max() > 1e-3


@pytest.mark.parametrize("at_once", [1, 3 * LENGTH, 2**17])
def test_many_sequences_equal_single_ones(monkeypatch, at_once) -> None:
    monkeypatch.setattr(decoder_module, "RESIDUES_AT_ONCE", at_once)
    several = torch.cat([mutants(6), sequences(3)])
    found = SCORER.log_probabilities(STRUCTURE, several, order=ORDER)
    alone = torch.cat([SCORER.log_probabilities(STRUCTURE, row[None], order=ORDER) for row in several])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    exact = EXACT.log_probabilities(STRUCTURE, several, order=ORDER)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


def test_the_backbone_is_encoded_once_for_all_sequences(monkeypatch) -> None:
    calls = []
    encode = ProteinMPNN.encode
    monkeypatch.setattr(ProteinMPNN, "encode", lambda *given: calls.append(1) or encode(*given))
    SCORER.log_probabilities(STRUCTURE, mutants(9), order=ORDER)
    assert len(calls) == 1


def test_a_residue_without_backbone_has_no_probability_and_no_say() -> None:
    scores = EXACT.log_probabilities(STRUCTURE, mutants(3), order=ORDER)
    assert not STRUCTURE.complete[2] and scores[:, 2].tolist() == [0, 0, 0]
    assert (scores[:, STRUCTURE.complete] < 0).all()
    other = mutants(3)
    other[:, 2] = 20
    assert torch.equal(EXACT.log_probabilities(STRUCTURE, other, order=ORDER), scores)
    nothing = Structure.of({"A": "MKV"})
    assert not EXACT.log_probabilities(nothing, nothing.sequence[None], order=torch.arange(3)).any()


def test_random_state_and_gradients_are_left_alone() -> None:
    before = torch.get_rng_state()
    scorer = ProteinMPNN(WEIGHTS, neighbours=48)
    assert not scorer.log_probabilities(STRUCTURE, mutants(2), order=ORDER).requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(value.requires_grad for value in scorer.network.parameters())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"sequences has the shape \(2, 3\); give \(n, 70\)"):
        SCORER.log_probabilities(STRUCTURE, sequences(2, length=3), order=ORDER)
    with pytest.raises(ValueError, match="entries from 0 to 21"):
        SCORER.log_probabilities(STRUCTURE, 21 * torch.eye(LENGTH).long(), order=ORDER)
    for order in (ORDER[:-1], torch.zeros(LENGTH).long()):
        with pytest.raises(ValueError, match="each of the 70 positions once"):
            SCORER.log_probabilities(STRUCTURE, mutants(1), order=order)
    with pytest.raises(ValueError, match=r"noise has the shape \(3, 4, 3\); give \(70, 4, 3\)"):
        SCORER.log_probabilities(STRUCTURE, mutants(1), order=ORDER, noise=torch.zeros(3, 4, 3))


def saved(path, weights=None, **changes):
    content = {"num_edges": 48, "noise_level": 0.2, "model_state_dict": WEIGHTS if weights is None else weights}
    torch.save(content | changes, path)
    return path


def test_files_of_weights(tmp_path) -> None:
    scorer = ProteinMPNN.load(saved(tmp_path / "v.pt", num_edges=20))
    assert (scorer.neighbours, scorer.noise_level) == (20, 0.2)
    expected = ProteinMPNN(WEIGHTS, 20).log_probabilities(STRUCTURE, mutants(2), order=ORDER)
    assert torch.equal(scorer.log_probabilities(STRUCTURE, mutants(2), order=ORDER), expected)
    assert (expected - SCORER.log_probabilities(STRUCTURE, mutants(2), order=ORDER)).abs().max() > 1e-3


class Code:
    def __reduce__(self):
        return (os.makedirs, ("made-by-a-file-of-weights",))


BAD_CONTENT = {
    "shape": ({**WEIGHTS, "W_out.bias": torch.zeros(20)}, {}, r"W_out.bias is \(20,\), and the network needs \(21,\)"),
    "no tensor": ({**WEIGHTS, "W_out.bias": [0.0] * 21}, {}, "W_out.bias is list"),
    "nan": ({**WEIGHTS, "W_out.bias": torch.full((21,), torch.nan)}, {}, "no finite numbers"),
    "integers": ({**WEIGHTS, "W_out.bias": torch.zeros(21).long()}, {}, "no finite numbers"),
    "missing": ({name: WEIGHTS[name] for name in list(WEIGHTS)[1:]}, {}, r"lacks 'features.* \(1 names differ\)"),
    "added": ({**WEIGHTS, "more": torch.zeros(2)}, {}, "has an unknown 'more'"),
    "alpha carbons": ({**WEIGHTS, "W_v.weight": torch.zeros(2)}, {}, "alpha carbons alone"),
    "no weights": ([1, 2], {}, "has no 'model_state_dict'"),
    "neighbours": (WEIGHTS, {"num_edges": 10**9}, "number of neighbours 1000000000"),
    "noise": (WEIGHTS, {"noise_level": "much"}, "noise level 'much'"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_files_with_other_weights_are_refused(tmp_path, name) -> None:
    weights, changes, message = BAD_CONTENT[name]
    path = saved(tmp_path / "bad.pt", weights, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        ProteinMPNN.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def damaged(kind, path):
    whole = saved(path).read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "code":
        torch.save({"model_state_dict": Code()}, path)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Code()))
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(weights_module.MAX_BYTES + 1))
    elif kind == "large":
        with open(path, "wb") as file:
            file.truncate(weights_module.MAX_BYTES + 1)


@pytest.mark.parametrize("kind", ["truncated", "code", "bare pickle", "text", "empty", "bomb", "large"])
def test_damaged_files_of_weights_are_refused(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    damaged(kind, path)
    with pytest.raises(ValueError, match=r"give a file of ProteinMPNN's vanilla or soluble weights") as caught:
        ProteinMPNN.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "made-by-a-file-of-weights").exists()
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        ProteinMPNN.load(tmp_path / "none.pt")


@pytest.fixture(scope="module")
def published_weights() -> Path:
    """The vanilla weights v_48_020.pt, named by SPIKEVAE_TEST_WEIGHTS or beside the data of tests; skips without."""
    data = os.environ.get("SPIKEVAE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
    path = Path(os.environ.get("SPIKEVAE_TEST_WEIGHTS", Path(data) / "proteinmpnn" / "v_48_020.pt"))
    if not path.is_file():
        pytest.skip(f"no weights at {path}; `make test-weights` downloads them, SPIKEVAE_TEST_WEIGHTS names a file")
    return path


def test_published_weights_give_what_the_published_program_gives(published_weights, tmp_path) -> None:
    """Recorded from it in float64, by benchmarks/free_energy/protein_mpnn_published.py."""
    (tmp_path / "helices.pdb").write_text(pdb_text(STRUCTURE))
    structure = read_structure(tmp_path / "helices.pdb")
    scorer = ProteinMPNN.load(published_weights)
    order = torch.arange(LENGTH) * 9 % LENGTH
    found = scorer.double().log_probabilities(structure, structure.sequence[None], order=order)[0]
    assert float(found.sum()) == pytest.approx(-246.83167620637914, abs=1e-9)
    assert found[:4].tolist() == pytest.approx([-1.63358429, -3.95007384, 0, -5.02689745], abs=1e-8)
    single = scorer.log_probabilities(structure, structure.sequence[None], order=order)[0]
    assert float((single - found).abs().max()) < 1e-4
    assert (scorer.neighbours, scorer.noise_level) == (48, 0.2)
