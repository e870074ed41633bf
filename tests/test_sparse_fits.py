"""Fits of sparse codes are fits like all others: trained, kept, read, swept."""

import hashlib
import json

import numpy as np
import pytest
import torch
from sparse_cases import D, K, sparse_stimuli

from spikevae.cli import main
from spikevae.config import FitConfig, SweepConfig
from spikevae.estimators.sparse_coder import SparseCoder
from spikevae.estimators.spike_vae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.models import SparseCodingConfig
from spikevae.models.files import save_model
from spikevae.sweep.edit import edited
from spikevae.training import DictionaryStack, build_stack, checkpoint, train
from spikevae.training.fits import DIVERGED


@pytest.fixture(scope="module")
def X():
    return sparse_stimuli()[0]


def test_every_door_leads_to_the_same_learner(X, tmp_path, capsys):
    """A fit in a stack, the estimator of all models and the sparse coder find the very same dictionary and file."""
    given = {"n_latents": 6, "steps": 40, "batch_size": 50, "tolerance": 1e-6}
    config = FitConfig.from_recipe("default", latent="sparse", beta=0.3, **given)
    assert config.inference == "sparse_coding" and FitConfig.from_recipe(inference="sparse_coding").latent == "sparse"
    stack = build_stack([config], torch.from_numpy(X), (D,))
    train(stack)
    result = stack.result(0)
    model, extra = result.model, {"fit": config.model_dump(mode="json"), "history": result.history}
    direct = SparseCoder(sparsity_price=0.3, random_state=0, **given).fit(X)
    np.testing.assert_array_equal(direct.components_, model.dictionary.detach())
    assert direct.history_ == result.history
    small = {"n_latents": 6, "steps": 40, "batch_size": 50, "random_state": 0}
    vae = SpikeVAE(latent="sparse", beta=0.3, options={"tolerance": 1e-6}, **small).fit(X)  # it works in float32
    single = SparseCoder(sparsity_price=0.3, random_state=0, **given).fit(X.astype("float32"))
    np.testing.assert_array_equal(vae.components_, single.components_)
    save_model(model, tmp_path / "m.spikevae", extra)
    coder = SparseCoder.load(tmp_path / "m.spikevae")
    assert (coder.sparsity_price, coder.inference, coder.random_state) == (0.3, "fista", 0)
    assert coder.history_ == direct.history_
    np.testing.assert_array_equal(coder.components_, direct.components_)
    assert evaluate(model, X, beta=0.3).objective == pytest.approx(-coder.score(X))
    assert main(["evaluate", str(tmp_path / "m.spikevae"), "--json"]) != 0  # it does not say what it was trained on
    assert "--data" in capsys.readouterr().err


def fits_of(prices=(0.1, 0.3), seeds=(0, 1), **options):
    options = {"n_latents": 6, "steps": 30, "batch_size": 100} | options
    return [SparseCodingConfig(beta=p, seed=s, **options) for p in prices for s in seeds]


def test_fits_of_a_stack_are_those_that_they_are_alone(X):
    x = torch.from_numpy(X)
    together = DictionaryStack(fits_of(), x, (D,))
    train(together)
    for index, config in enumerate(fits_of()):
        alone = DictionaryStack([config], x, (D,))
        train(alone)
        torch.testing.assert_close(together.rows[index], alone.rows[0], rtol=1e-12, atol=1e-12)
        for name, values in alone.result(0).history.items():
            assert together.result(index).history[name] == pytest.approx(values), name


def test_a_checkpoint_continues_to_the_same_dictionary(X, tmp_path):
    x = torch.from_numpy(X)
    whole = DictionaryStack(fits_of(decoder_bias=True), x, (D,))
    train(whole)
    stopped = DictionaryStack(fits_of(decoder_bias=True), x, (D,))
    train(stopped, until=13)
    checkpoint.save(stopped, tmp_path / "c")
    again = DictionaryStack(fits_of(decoder_bias=True), x, (D,))
    train(again, checkpoint_path=tmp_path / "c")
    assert torch.equal(again.rows, whole.rows) and again.result(1).history == whole.result(1).history
    with pytest.raises(ValueError, match="other fits"):
        checkpoint.load(DictionaryStack(fits_of(), x, (D,)), tmp_path / "c")


def test_a_fit_that_diverges_leaves_the_others_alone(X):
    x = torch.from_numpy(X)
    broken, whole = (DictionaryStack(fits_of(), x, (D,)) for _ in range(2))
    broken.rows[2] *= torch.nan
    train(broken)
    train(whole)
    assert [broken.result(i).status == DIVERGED for i in range(4)] == [False, False, True, False]
    assert broken.result(2).frozen_at == 0 and torch.equal(broken.rows[[0, 1, 3]], whole.rows[[0, 1, 3]])


def test_a_bias_is_learnt_as_the_mean_that_the_codes_leave(X):
    """Stimuli far from zero: with a bias the objective is that of centred stimuli; the last update is the mean."""
    shifted = torch.from_numpy(X + np.linspace(2, 4, D))
    scores = {}
    for bias in (False, True):
        options = {"decoder_bias": bias, "batch_size": len(X), "n_latents": K}
        stack = DictionaryStack(fits_of((0.3,), (0,), **options), shifted, (D,))
        train(stack)
        scores[bias] = evaluate(stack.result(0).model, shifted, beta=0.3).objective
    centred = DictionaryStack(fits_of((0.3,), (0,), batch_size=len(X), n_latents=K), torch.from_numpy(X), (D,))
    train(centred)
    best = evaluate(centred.result(0).model, torch.from_numpy(X), beta=0.3).objective
    assert scores[False] > 1.5 * best and scores[True] < 1.1 * best
    rows, second, cross = stack.rows[0], stack.second[0], stack.cross[0]
    torch.testing.assert_close(rows[K], (cross[K] - second[K, :K] @ rows[:K]) / second[K, K])


@pytest.mark.slow
def test_sparse_fits_on_the_command_line(tmp_path, capsys):
    """Trained, evaluated and swept beside a law, whose label does not take the sparse codes' settings."""
    model = tmp_path / "s.spikevae"
    given = ["--patch", "6", "--n", "600", "--n-latents", "8", "--steps", "20"]
    assert main(["train", *given, "--set", 'latent="sparse"', "--out", str(model)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["metrics"]["fraction_zeros"] < 1 and found["metrics"]["kl"] is None
    block = 'fit = { latent = "%s", steps = 20 }\n[blocks.grid]\nn_latents = [4]\nbeta = [0.5, 1.0]\nseed = [0, 1]\n'
    text = '[data]\npatch = 6\nn = 600\nn_test = 50\n[[blocks]]\nlabel = "a"\n' + block % "poisson"
    text += '[[blocks]]\nlabel = "b"\n' + (block % "sparse") + 'algorithm = ["lca-soft", "fista"]\n'
    (tmp_path / "s.toml").write_text(text)
    assert main(["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "run"), "--jobs", "1"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">Sparse code (algorithm fista)<" in page and ">Poisson (a)<" in page
    assert "argmin" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent": "poisson", "inference": "sparse_coding"}, "belong together"),
        ({"latent": "sparse", "inference": "iterative"}, "belong together"),
        ({"algorithm": "ista"}, "algorithm needs"),
        ({"latent": "sparse", "decoder": "mlp"}, "linear decoder"),
        ({"latent": "sparse", "noise_variance": "learned"}, "noise_variance"),
        ({"latent": "sparse", "spike_price": 1.0}, "firing rate"),
        ({"latent": "sparse", "upper": (3,)}, "belong together"),
        ({"latent": "sparse", "start": -2.0}, "start"),
        ({"latent": "sparce"}, "did you mean 'sparse'"),
    ],
)
def test_settings_of_sparse_fits_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        FitConfig.from_recipe("default", **given)


def test_the_estimator_of_all_models_fits_sparse_codes(X):
    model = SpikeVAE(latent="sparse", n_latents=5, beta=0.3, steps=4, random_state=0).fit(X)
    assert not hasattr(model, "prior_rates_") and model.components_.shape == (5, X.shape[1])
    evaluation = evaluate(model.model_, torch.from_numpy(X), beta=0.3)
    assert model.score(X) == pytest.approx(-evaluation.objective)


def test_a_fit_with_a_bias_survives_as_a_coder(X, tmp_path):
    config = FitConfig.from_recipe(
        "default", latent="sparse", n_latents=5, decoder_bias=True, noise_variance=0.1, steps=4
    )
    stack = build_stack([config], torch.from_numpy(X), (X.shape[1],))
    train(stack)
    extra = {"fit": config.model_dump(mode="json")}
    save_model(stack.result(0).model, tmp_path / "a.spikevae", extra)
    coder = SparseCoder.load(tmp_path / "a.spikevae")
    coder.save(tmp_path / "b.spikevae")
    again = SparseCoder.load(tmp_path / "b.spikevae")
    np.testing.assert_array_equal(again.transform(X), coder.transform(X))
    np.testing.assert_array_equal(
        again.inverse_transform(again.transform(X)), coder.inverse_transform(coder.transform(X))
    )
    assert again.score(X) == coder.score(X)


def test_sparse_fits_of_the_published_recipe_and_old_run_folders():
    config = FitConfig.from_recipe("paper", latent="sparse", epochs=2)
    assert config.exact and config.trainer == "dictionary"
    sweep = edited(SweepConfig.preset("iterative"), recipe="paper")
    assert any(cell.latent == "sparse" for _, cell in sweep.cells())
    data = sweep.data  # a field that is newer than a run folder is no part of its cells' ids unless it is used
    sparse = FitConfig.from_recipe("default", latent="sparse", algorithm="ista")
    assert sparse.cell_id(data) != FitConfig.from_recipe("default", latent="sparse").cell_id(data)
    poisson = FitConfig.from_recipe("default")
    text = json.dumps(
        {"fit": poisson.model_dump(mode="json", exclude={"algorithm"}), "data": data.model_dump(mode="json")},
        sort_keys=True,
    )
    assert poisson.cell_id(data) == hashlib.sha256(text.encode()).hexdigest()[:12]
