"""`spikevae compare`: one dictionary, many inferences, at equal zeros or equal R2."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from spikevae.cli import DONE, USAGE, main
from spikevae.compare import RECODINGS, calibration, compare, points, read_models, sentences, table, write
from spikevae.compare.calibration import MIN_GAIN, _descend, counts_around
from spikevae.compare.points import EXTENSION_FACTOR, MATCH_TOLERANCE, crossing, intervals
from spikevae.compare.recodings import DEFAULT, OWN, SHARES, Effort, sparse_scan
from spikevae.config import FitConfig
from spikevae.data import load
from spikevae.estimators.sparse_coder import SparseCoder
from spikevae.estimators.spike_vae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.metrics import corner_distance
from spikevae.models import build_model
from spikevae.models.sparse.inference import INFERENCES, fista
from spikevae.models.sparse.model import SparseCoding

TRAIN = ["train", "--data", "bundled", "--patch", "8", "--n", "1500", "--set", "batch_size=100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models that `spikevae train`, a sweep and the estimators saved."""
    path = tmp_path_factory.mktemp("models")
    for name, extra in {
        "poisson": ["--n-latents", "48", "--beta", "0.3", "--steps", "200", "--set", "init='random'"],
        "gaussian": ["--latent", "gaussian", "--steps", "20", "--n-latents", "150"],
        "biased": ["--set", "decoder_bias=true", "--steps", "20", "--n-latents", "20"],
        "deep": ["--n-latents", "20", "--set", "decoder='mlp'", "--set", "hidden=[8]", "--steps", "4"],
    }.items():
        assert main([*TRAIN, *extra, "--out", str(path / f"{name}.spikevae")]) == DONE
    grid = path / "grid.toml"
    grid.write_text(
        "[data]\npatch = 8\nn = 400\n[fit]\nsteps = 10\nn_latents = 5\nbatch_size = 50\n[grid]\nbeta = [0.5, 2.0]\n"
    )
    assert main(["sweep", str(grid), "--out", str(path / "run"), "--no-report", "--jobs", "1"]) == DONE
    x = load("bundled", patch=8, n=1500).train
    SparseCoder(24, 0.5, steps=10, random_state=0).fit(x).save(path / "sparse.spikevae")
    logits = SpikeVAE(n_latents=4, steps=4, likelihood="bernoulli", random_state=0)
    logits.fit(np.clip(x, 0, 1)).save(path / "pixels.spikevae")
    return path


@pytest.fixture(scope="module")
def data():
    return load("bundled", patch=8, n=1500)


@pytest.fixture(scope="module")
def comparison(folder, data):
    effort = Effort(max_steps=2000)  # enough for hard thresholds at the lowest price
    models = read_models([folder / "poisson.spikevae"])
    return compare(models, data, inferences=DEFAULT, n_prices=4, n_stimuli=120, effort=effort, seed=3)


def test_every_inference_is_in_the_table():
    assert set(RECODINGS) == {OWN, *INFERENCES, "iterative"}
    assert len({r.colour for r in RECODINGS.values()}) == len({r.marker for r in RECODINGS.values()}) == len(RECODINGS)


def test_numbers_are_those_of_the_inference_itself(comparison, folder, data):
    """A point again from the saved weights, the formulas and the pure function."""
    point = comparison.of("poisson", "fista")[2]
    one = comparison.models[0]
    x = torch.from_numpy(data.test[np.linspace(0, len(data.test) - 1, 120).round().astype(int)])
    dictionary = one.model.dictionary
    atoms = dictionary / dictionary.norm(dim=1, keepdim=True)
    z = fista(x, atoms, point.price, tolerance=1e-3, max_steps=1000).codes
    y = z @ atoms
    r2 = 1 - float((x - y).square().sum() / (x - x.mean(1, keepdim=True)).square().sum())
    assert point.metrics.r2_pooled == pytest.approx(r2, abs=1e-5)
    zeros = float((z == 0).float().mean())
    assert point.metrics.fraction_zeros == pytest.approx(zeros, abs=1e-6)
    assert point.corner_distance == pytest.approx(math.hypot(1 - r2, 1 - zeros), abs=1e-5)
    assert point.corner_distance == corner_distance(point.metrics.r2_pooled, point.metrics.fraction_zeros)
    own = comparison.of("poisson", OWN)[0]
    alone = evaluate(one.model, x, seed=3).metrics
    assert own.metrics == alone and own.role == "own" and own.price is None
    assert own.metrics.spikes > 0 and math.isnan(point.metrics.spikes)


def test_inferences_are_compared_at_equal_zeros(comparison):
    own = comparison.of("poisson", OWN)[0]
    for name in DEFAULT[1:]:
        line = comparison.of("poisson", name)
        compared = [p for p in line if p.role != "scan"]
        assert len(compared) == 1 and len(line) == 5
        assert abs(compared[0].metrics.fraction_zeros - own.metrics.fraction_zeros) <= MATCH_TOLERANCE
        assert compared[0].role == "matched" and compared[0].milliseconds > 0
        zeros = [p.metrics.fraction_zeros for p in line]
        assert zeros == sorted(zeros) and zeros[-1] - zeros[0] > 0.3
        r2 = [p.metrics.r2_pooled for p in line]
        assert name == "lca-hard" or r2 == sorted(r2, reverse=True)
        assert all(p.facts["converged"] > 0.5 and p.facts["steps"] > 0 for p in line)
        assert all(p.metrics.encoder_macs > p.facts["events"] > 0 for p in line)
    soft, fast = (next(p for p in comparison.of("poisson", n) if p.role == "matched") for n in ("lca-soft", "fista"))
    assert soft.metrics.r2_pooled == pytest.approx(fast.metrics.r2_pooled, abs=0.01)  # one problem, one optimum
    assert fast.facts["steps"] < soft.facts["steps"]
    # The dictionary allows more than the encoder makes of it: the published observation, on a small fit.
    assert fast.metrics.r2_pooled > own.metrics.r2_pooled_mean_code > own.metrics.r2_pooled


def test_matching_r2(folder, data):
    result = compare(
        read_models([folder / "poisson.spikevae"]),
        data,
        inferences=[OWN, "lca-rectified", "nonnegative"],
        match="r2",
        n_prices=4,
        n_stimuli=150,
    )
    own = result.of("poisson", OWN)[0].metrics
    for name in ("lca-rectified", "nonnegative"):
        (point,) = (p for p in result.of("poisson", name) if p.role != "scan")
        assert point.role == "matched" and abs(point.metrics.r2_pooled - own.r2_pooled) <= MATCH_TOLERANCE
        assert point.metrics.fraction_zeros > own.fraction_zeros
        assert 0 < point.metrics.lifetime_sparseness < 1


def test_what_cannot_be_matched_is_said(folder, data):
    """A signed Gaussian code has no zeros; no sparse code of more units than pixels has as few."""
    models = read_models([folder / "gaussian.spikevae", folder / "biased.spikevae", folder / "sparse.spikevae"])
    result = compare(models, data, inferences=[OWN, "fista"], n_prices=2, n_stimuli=60)
    (near,) = (p for p in result.of("gaussian", "fista") if p.role != "scan")
    assert near.role == "nearest" and "FISTA ~" in table(result)
    lowest = min(p.price for p in result.of("gaussian", "fista") if p.role == "scan")
    assert near.price == pytest.approx(lowest / EXTENSION_FACTOR**2)
    # A sparse coder's own inference and price are a point like any other.
    own = result.of("sparse", OWN)[0]
    (again,) = (p for p in result.of("sparse", "fista") if p.role != "scan")
    assert again.role == "matched" and abs(again.metrics.r2_pooled - own.metrics.r2_pooled) < 0.02
    assert "sparse (fista)" in result.models[2].label


def test_scan_covers_dense_to_silent(folder, data):
    (one,) = read_models([folder / "poisson.spikevae"])
    x = torch.from_numpy(data.test[:300])
    scan = sparse_scan(one.model, x, 6)
    assert len(scan.prices) == 6 and scan.prices[-1] / scan.prices[0] == pytest.approx(SHARES[1] / SHARES[0])
    silent = RECODINGS["fista"].build(one.model, scan.silent, Effort(), x)
    assert evaluate(silent, x).metrics.fraction_zeros == 1.0
    half = RECODINGS["fista"].build(one.model, scan.prices[-1] / SHARES[1], Effort(), x)
    nothing = (half.code(x).code == 0).all(1).float().mean()
    assert nothing == pytest.approx(0.5, abs=0.01)


def test_crossing():
    assert crossing({1.0: 0.0, 100.0: 1.0}, 0.5) == pytest.approx(10.0)
    assert crossing({1.0: 0.9, 100.0: 0.1}, 0.5) == pytest.approx(10.0)
    assert crossing({1.0: 0.2, 2.0: 0.4}, 0.1) is None
    assert crossing({1.0: 0.2, 2.0: 0.2}, 0.2) is None
    assert 1.0 < crossing({1.0: 0.2, 2.0: 0.4}, 0.2) < 1.1  # a neighbour is not tried again


def test_intervals_cover_the_truth_and_respect_images():
    """Coverage of 95 % intervals over 200 sets: within 4 binomial errors; wide where images differ."""

    class Some:
        def __init__(self, residual, contrast, nonzero):
            self.stimuli = {"residual": residual, "contrast": contrast, "nonzero": nonzero}

    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        contrast = rng.gamma(4.0, 1.0, 150)
        nonzero = rng.binomial(10, 0.3, 150).astype(float)
        evaluation = Some(0.3 * contrast * rng.gamma(4.0, 0.25, 150), contrast, nonzero)
        found = intervals(evaluation, np.arange(150), 10, trial)
        hits += found["r2_pooled"][0] <= 0.7 <= found["r2_pooled"][1]
    assert abs(hits / 200 - 0.94) < 4 * math.sqrt(0.95 * 0.05 / 200)
    image = np.repeat(np.arange(15), 10)
    contrast = np.ones(150)
    residual = np.repeat(rng.uniform(0.1, 0.9, 15), 10)
    alike = Some(residual, contrast, np.full(150, 3.0))
    by_image, one_by_one = (intervals(alike, g, 10, 0)["r2_pooled"] for g in (image, np.arange(150)))
    assert np.ptp(by_image) > 2 * np.ptp(one_by_one)
    assert intervals(alike, image, 10, 0)["fraction_zeros"] == (0.7, 0.7)


def test_iterative_inference_keeps_the_generative_half(folder, data, monkeypatch):
    """Spikes again: another posterior of the same law, prior and dictionary. It beats the encoder at its objective."""
    monkeypatch.setattr(points, "MATCH_TRIALS", 1)
    models = read_models([folder / "poisson.spikevae"])
    result = compare(models, data, inferences=[OWN, "iterative"], n_prices=2, n_stimuli=60)
    own, line = result.of("poisson", OWN)[0], result.of("poisson", "iterative")
    assert all(p.metrics.spikes > 0 and p.metrics.joules > 0 for p in line)
    assert line[0].metrics.kl > line[-1].metrics.kl and line[0].metrics.mse_mean_code < line[-1].metrics.mse_mean_code
    x = torch.from_numpy(data.test[:60])
    again = RECODINGS["iterative"].build(models[0].model, 0.3, Effort(), x)
    assert torch.equal(again.dictionary, models[0].model.dictionary)
    assert torch.equal(again.prior().mean, models[0].model.prior().mean)
    objective = [evaluate(m, x, beta=0.3).objective for m in (again, models[0].model)]
    assert objective[0] < objective[1] and own.metrics.encoder_macs < line[0].metrics.encoder_macs


def test_counts_for_the_dictionary_of_a_sparse_coder(folder, data, monkeypatch):
    """Spikes of atoms that were learned without any: each has a partner of the other sign, and none turns."""
    monkeypatch.setattr(points, "MATCH_TRIALS", 0)
    monkeypatch.setattr(points, "MAX_TRAINING", 150)
    monkeypatch.setattr(calibration, "MAX_ROUNDS", 20)
    models = read_models([folder / "sparse.spikevae"])
    result = compare(models, data, inferences=[OWN, "iterative"], match="r2", n_prices=2, n_stimuli=60)
    line = result.of("sparse", "iterative")
    assert all(p.metrics.spikes > 0 and p.metrics.joules > 0 and p.metrics.kl > 0 for p in line)
    assert line[0].metrics.r2_pooled > line[-1].metrics.r2_pooled + 0.2
    x = torch.from_numpy(data.train[:150])
    counting = RECODINGS["iterative"].build(models[0].model, 0.5, Effort(), x)
    atoms, sizes = models[0].model.dictionary, counting.dictionary.norm(dim=1)
    assert counting.n_latents == 48 and float(sizes.min()) >= 0 and len(set(sizes.tolist())) > 24
    torch.testing.assert_close(counting.dictionary, torch.cat([atoms, -atoms]) * sizes[:, None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "n_units"),
    [
        ({"latent": "laplace"}, 24),  # signed, and without a flow
        ({"latent": "negative_binomial"}, 12),
        ({"inference": "hierarchical", "upper": (5,)}, 12),
    ],
)
def test_counts_where_the_law_does_not_iterate(data, settings, n_units):
    model = build_model(FitConfig.from_recipe("default", n_latents=12, **settings), (64,)).eval().requires_grad_(False)
    x = torch.from_numpy(data.train[:200])
    counting = RECODINGS["iterative"].build(model, 0.5, Effort(max_steps=20), x)
    assert counting.law.name == "poisson" and counting.n_latents == n_units
    atoms = model.dictionary / model.dictionary.norm(dim=1, keepdim=True)
    sizes = counting.dictionary[:12].norm(dim=1, keepdim=True)
    torch.testing.assert_close(counting.dictionary[:12], atoms * sizes, atol=1e-5, rtol=1e-4)
    assert evaluate(counting, x[:50]).metrics.spikes > 0


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["nonnegative", "lca-soft"])
def test_calibrated_counts_are_near_the_best(data, inference, monkeypatch):
    """No other size of a spike and no other prior has a lower free energy by more than what ended calibration."""
    x = torch.from_numpy(data.train[:150]).double()
    coder = SparseCoding.around(x[:16] / 2, 0.1 * x[16], (64,), algorithm=inference, beta=0.5)
    model = counts_around(coder, x, beta=0.5, evaluation_steps=100)
    assert model.n_latents == {"nonnegative": 16, "lca-soft": 32}[inference]
    assert torch.equal(model.decoder.head.bias, 0.1 * x[16])
    best = evaluate(model, x, beta=0.5).objective
    energy = {}
    sizes, prior = model.decoder.head.weight, model.prior_log_rate
    for factor, parts in {0.5: [sizes], 0.8: [sizes, prior], 1.25: [sizes, prior], 2.0: [sizes]}.items():
        for part in parts:
            kept = part.clone()
            if part is prior:
                part += math.log(factor)
            else:
                part *= factor
            energy[factor, part.dim()] = evaluate(model, x, beta=0.5).objective
            part.copy_(kept)
    assert min(energy.values()) > best * (1 - 2 * MIN_GAIN)
    assert energy[0.5, 2] > 1.02 * best and energy[2.0, 2] > 1.02 * best
    turned = SparseCoding.around(torch.flip(coder.dictionary, (0,)), None, (64,), algorithm=inference)
    monkeypatch.setattr(calibration, "MAX_ROUNDS", 1)
    assert counts_around(turned, x[:20], beta=0.5, evaluation_steps=1).decoder.head.bias is None


def test_sizes_descend_to_those_of_nonnegative_least_squares():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 8)), rng.normal(size=40)
    second, drive = torch.from_numpy(a.T @ a), torch.from_numpy(a.T @ b)
    size = torch.ones(8, dtype=torch.float64)
    for _ in range(200):
        size = _descend(size, second, drive)
    expected, _ = nnls(a, b)
    assert (expected == 0).any()
    np.testing.assert_allclose(size.numpy(), expected, atol=1e-8)


def test_where_the_gap_lies(folder, data):
    """Against a sparse coder: the share that inference makes up, worked out from the points."""
    models = read_models([folder / "poisson.spikevae", folder / "sparse.spikevae"])
    result = compare(models, data, inferences=[OWN, "fista"], n_prices=6, n_stimuli=120)
    (sentence,) = sentences(result)
    own = result.of("poisson", OWN)[0].metrics
    other = next(p for p in result.of("poisson", "fista") if p.role == "matched").metrics
    line = sorted((p.metrics.fraction_zeros, p.metrics.r2_pooled) for p in result.of("sparse", "fista"))
    best = np.interp(own.fraction_zeros, *zip(*line))
    share = (other.r2_pooled - own.r2_pooled) / (best - own.r2_pooled)
    assert f"{share:.0%} of the difference" in sentence and f"{own.r2_pooled:.3f} as trained" in sentence
    assert sentence in table(result)
    alone = compare(models[:1], data, inferences=[OWN, "fista"], n_prices=2, n_stimuli=40)
    assert sentences(alone) == []


def test_table_and_files(comparison, tmp_path):
    text = table(comparison)
    own = comparison.of("poisson", OWN)[0]
    assert "poisson K=48 beta=0.3 seed=0" in text and f"{own.metrics.r2_pooled:.3f}" in text
    assert all(RECODINGS[name].label in text for name in DEFAULT)
    assert max(map(len, text.splitlines())) < 240
    paths = write(comparison, tmp_path / "out")
    content = json.loads(paths["json"].read_text())
    assert len(content["points"]) == len(comparison.points) and content["match"] == "zeros"
    assert content["points"][0]["metrics"]["spikes"] == pytest.approx(own.metrics.spikes)
    assert content["points"][1]["metrics"]["spikes"] is None
    assert paths["png"].read_bytes().startswith(b"\x89PNG") and "Fraction of zeros" in paths["svg"].read_text()
    first = paths["svg"].read_bytes()
    assert write(comparison, tmp_path / "out")["svg"].read_bytes() == first


def test_models_by_path_and_by_id(folder):
    run = folder / "run"
    everything = read_models([run])
    assert len(everything) == 2 and {one.settings["beta"] for one in everything} == {0.5, 2.0}
    (one,) = read_models([run / everything[0].name])
    assert one.path == everything[0].path
    assert len(read_models([run, one.path])) == 2  # once each
    copy = folder / "other" / f"{one.name}.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(one.path.read_bytes())
    assert [both.name for both in read_models([one.path, copy])] == [str(one.path), str(copy)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["deep.spikevae"], "deep.*'mlp' is not linear.*decoder"),
        (["pixels.spikevae"], "bernoulli.*sigmoid"),
        (["grid.toml"], "grid.toml"),
        (["run/0123456789ab"], "0123456789ab"),
    ],
)
def test_models_that_cannot_be_compared(folder, names, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_models([folder / name for name in names])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inferences": ["lasso"]}, "'lasso'.*lca-soft"),
        ({"match": "l0"}, "zeros, r2"),
        ({"n_prices": 1}, "two or more"),
    ],
)
def test_bad_requests_are_refused_in_words(folder, data, change, message):
    with pytest.raises(ValueError, match=message):
        compare(read_models([folder / "poisson.spikevae"]), data, **({"inferences": [OWN]} | change))


def test_stimuli_of_another_size_are_refused(folder):
    with pytest.raises(ValueError, match=r"64 pixels.*100"):
        compare(read_models([folder / "poisson.spikevae"]), load("bundled", patch=10, n=300), inferences=[OWN])


def test_command_line(folder, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    arguments = ["compare", str(folder / "poisson.spikevae"), "--stimuli", "60", "--prices", "3"]
    arguments += ["--inference", "own", "--inference", "ista", "--tolerance", "0.01"]
    assert main([*arguments, "--out", "c", "--json"]) == DONE
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert [p["inference"] for p in facts["points"]] == ["own", "ista"]
    assert "compare: 100%" in captured.err
    assert {p.name for p in Path("c").iterdir()} == {f"comparison.{e}" for e in ("json", "txt", "png", "svg")}
    assert main([*arguments, "--match", "r2"]) == DONE
    assert "ISTA" in capsys.readouterr().out and Path("comparison/comparison.png").is_file()
    for wrong, message in {
        "nothing.spikevae": "nothing.spikevae",
        str(folder / "deep.spikevae"): "not linear",
        f"{folder / 'poisson.spikevae'} --inference lassso": "'lassso'",
        f"{folder / 'sparse.spikevae'}": "--data",
    }.items():
        assert main(["compare", *wrong.split()]) == USAGE
        assert message in " ".join(capsys.readouterr().err.split())
