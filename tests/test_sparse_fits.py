"""Fits of sparse codes are fits like all others: trained, kept, read, swept."""

import hashlib
import json

import numpy as np
import pytest
import torch
from sparse_cases import sparse_stimuli

from spikevae.cli import main
from spikevae.config import FitConfig, SweepConfig
from spikevae.estimators.sparse_coder import SparseCoder
from spikevae.estimators.spike_vae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.models.files import save_model
from spikevae.sweep.edit import edited
from spikevae.training import Stack, train


@pytest.fixture(scope="module")
def X():
    return sparse_stimuli()[0]


def test_a_sparse_fit_is_trained_kept_and_read(X, tmp_path, capsys):
    """By gradient, in a stack, it comes to the objective of dictionary learning; its file is a sparse coder's."""
    config = FitConfig.from_recipe("default", latent="sparse", n_latents=6, beta=0.3, steps=400, batch_size=50)
    assert config.inference == "sparse_coding" and FitConfig.from_recipe(inference="sparse_coding").latent == "sparse"
    stack = Stack([config], torch.from_numpy(X), (X.shape[1],))
    train(stack)
    result = stack.result(0)
    model, extra = result.model, {"fit": config.model_dump(mode="json"), "history": result.history}
    save_model(model, tmp_path / "m.spikevae", extra)
    coder = SparseCoder.load(tmp_path / "m.spikevae")
    assert (coder.sparsity_price, coder.inference, coder.random_state) == (0.3, "lca-soft", 0)
    assert "kl" not in coder.history_ and len(coder.history_["penalty"]) == len(coder.history_["step"])
    np.testing.assert_allclose(np.linalg.norm(coder.components_, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(coder.components_, model.dictionary.detach().numpy())
    evaluation = evaluate(model, X, beta=0.3)
    assert evaluation.objective == pytest.approx(-coder.score(X))
    learnt = SparseCoder(6, 0.3, inference="lca-soft", steps=400, batch_size=50, random_state=0).fit(X)
    assert evaluation.objective < -learnt.score(X) + 0.02 * abs(learnt.score(X))
    assert main(["evaluate", str(tmp_path / "m.spikevae"), "--json"]) != 0  # it does not say what it was trained on
    assert "--data" in capsys.readouterr().err


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
    assert main(["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "Sparse code (b, algorithm fista)" in out and "Poisson (a)" in out
    assert "argmin" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent": "poisson", "inference": "sparse_coding"}, "belong together"),
        ({"latent": "sparse", "inference": "iterative"}, "belong together"),
        ({"algorithm": "fista"}, "algorithm needs"),
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
    stack = Stack([config], torch.from_numpy(X), (X.shape[1],))
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
    assert config.exact and config.optimizer == "adamax"
    sweep = edited(SweepConfig.preset("iterative"), recipe="paper")
    assert any(cell.latent == "sparse" for _, cell in sweep.cells())
    data = sweep.data  # a field that is newer than a run folder is no part of its cells' ids unless it is used
    sparse = FitConfig.from_recipe("default", latent="sparse", algorithm="fista")
    assert sparse.cell_id(data) != FitConfig.from_recipe("default", latent="sparse").cell_id(data)
    poisson = FitConfig.from_recipe("default")
    text = json.dumps(
        {"fit": poisson.model_dump(mode="json", exclude={"algorithm"}), "data": data.model_dump(mode="json")},
        sort_keys=True,
    )
    assert poisson.cell_id(data) == hashlib.sha256(text.encode()).hexdigest()[:12]
