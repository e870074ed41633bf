"""Sparse coding as a model and as an estimator."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import sparse_encode
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sparse_cases import D, K, model_of, sparse_stimuli

from spikevae import metrics as sm
from spikevae.estimators import SpikeVAE, load_model
from spikevae.estimators.sparse_coder import SparseCoder
from spikevae.evaluation.evaluate import Metrics, evaluate
from spikevae.evaluation.prices import PRICES
from spikevae.models import SparseCodingConfig
from spikevae.models.files import load_model as load_model_file
from spikevae.models.sparse.inference import INFERENCES, fista
from spikevae.models.sparse.model import SparseCoding
from spikevae.training import DictionaryStack

SIGNED = ("lca-soft", "lca-hard", "ista", "fista")


@parametrize_with_checks(
    [
        SparseCoder(n_latents=3, steps=6, batch_size=16, random_state=0),
        SparseCoder(n_latents=3, steps=6, batch_size=16, inference="lca-rectified", random_state=0),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def X():
    return sparse_stimuli()[0]


@pytest.fixture(scope="module")
def fitted(X):
    return SparseCoder(K, 0.1, steps=60, batch_size=100, tolerance=1e-8, max_steps=20_000, random_state=0).fit(X)


# The model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", INFERENCES)
def test_codes_do_not_depend_on_the_scale_of_atoms(X, inference):
    """The price is on a unit's contribution: the code's scale is the dictionary's, its decoding the same."""
    x = torch.from_numpy(X[:30])
    model = model_of(inference)
    scale = torch.linspace(0.2, 5.0, K, dtype=torch.float64)
    scaled = SparseCoding.around(
        model.dictionary.detach() * scale[:, None],
        None,
        (D,),
        algorithm=inference,
        beta=0.2,
        tolerance=1e-8,
        max_steps=100_000,
    )
    a, b = model.code(x), scaled.code(x)
    torch.testing.assert_close(b.code * scale, a.code, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(b.pixels, a.pixels, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(b.pixels, b.code @ scaled.dictionary)


def test_a_bias_is_subtracted_before_and_added_after(X):
    x, shift = torch.from_numpy(X[:30]), torch.linspace(-1, 1, D, dtype=torch.float64)
    model = model_of()
    moved = SparseCoding.around(model.dictionary.detach(), shift, (D,), beta=0.2, tolerance=1e-8, max_steps=100_000)
    a, b = model.code(x), moved.code(x + shift)
    torch.testing.assert_close(b.code, a.code, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(b.pixels, a.pixels + shift, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("inference", INFERENCES)
def test_evaluation_equals_the_pure_functions(X, inference):
    X, model = X[:150], model_of(inference, noise_variance=0.1, tolerance=1e-4, max_steps=3000)
    e = evaluate(model, X, batch_size=70)
    with torch.no_grad():
        coded = model.code(torch.from_numpy(X))
    z, y, m = coded.code, coded.pixels, e.metrics
    error = ((torch.from_numpy(X) - y) ** 2).sum(1)
    expected = {
        "distortion": (error.mean() / (2 * 0.1) + D / 2 * math.log(2 * 0.1)).item(),
        "mse": sm.mse(X, y),
        "mse_mean_code": sm.mse(X, y),
        "r2": sm.r2(X, y),
        "r2_pooled": sm.r2_pooled(X, y),
        "r2_pooled_mean_code": sm.r2_pooled(X, y),
        "fraction_zeros": sm.fraction_zeros(z),
        "l0": sm.l0(z),
        "dead_units": sm.dead_units(z),
        "synops_nonzero": D * sm.l0(z),
        "decoder_acs": 0.0,
        "decoder_macs": K * D,
        "lifetime_sparseness": sm.lifetime_sparseness(z).mean(),
        "population_sparseness": sm.population_sparseness(z).mean(),
        "nan_count": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(m, name), value, rtol=1e-6, atol=1e-9, err_msg=name)
    assert math.isnan(m.lifetime_sparseness) == (inference in SIGNED)
    size = coded.code.abs()  # unit-norm atoms
    cost = 0.5 * 0.2**2 * (size > 0) if inference == "lca-hard" else 0.2 * size
    assert e.objective == pytest.approx(m.distortion + cost.sum(1).mean().item() / 0.1)
    # What needs a posterior or a spike is undefined, and nothing else is.
    undefined = {f.name for f in fields(Metrics) if math.isnan(getattr(m, f.name))}
    posterior = {"free_energy", "kl", "bits", "active_units"}
    spikes = {"firing_rate", "prior_firing_rate", "prior_posterior_gap", "bits_per_spike", "spikes", "synops_events"}
    spikes |= {f"{unit}{level}" for unit in ("atp", "joules") for level in ("", "_low", "_high")} | {"fano"}
    signed = {"lifetime_sparseness", "population_sparseness"} if inference in SIGNED else set()
    assert undefined == posterior | spikes | signed
    # Operations are those of the steps that were taken.
    method = INFERENCES[inference].build(model.dictionary.detach(), 0.2)
    found = method.solve(torch.from_numpy(X), tolerance=1e-4, max_steps=3000)
    steps = found.steps.double().mean().item()
    assert m.encoder_macs == pytest.approx(K * D + steps * K * K, rel=0.01)
    assert m.hardware_joules == pytest.approx((m.encoder_macs + m.synops_nonzero) * PRICES.joules_per_mac.value)
    np.testing.assert_allclose(e.stimuli["events"].mean(), found.messages.double().mean() * K, rtol=0.02)
    assert e.stimuli["converged"].mean() > 0.9 and len(e.stimuli["residual"]) == len(X)
    assert e.code_histogram["zero"] == pytest.approx(m.fraction_zeros)


def test_a_code_that_is_not_found_is_said_to_be_so(X):
    e = evaluate(model_of("ista", beta=0.01, max_steps=3), X)
    assert e.stimuli["converged"].mean() < 0.05 and (e.stimuli["steps"] <= 3).all()
    model = model_of()
    with torch.no_grad():
        model.decoder.head.weight[:, 2] = math.inf
    assert evaluate(model, X).metrics.nan_count > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inference": "lasso"}, "lca-soft"),
        ({"n_latents": 8.5}, "whole number"),
        ({"sparsity_price": -1.0}, "sparsity_price"),
        ({"sparsity_price": math.nan}, "sparsity_price"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_bad_settings_are_refused_in_words(X, settings, message):
    with pytest.raises(ValueError, match=message):
        SparseCoder(**{"n_latents": 4, "steps": 2, **settings}).fit(X)


# Learning -------------------------------------------------------------------------------------------------


def test_learning_finds_the_dictionary_that_made_the_stimuli():
    X, atoms = sparse_stimuli(3000, 20, 30)
    m = SparseCoder(30, 0.3, steps=200, batch_size=100, tolerance=1e-2, random_state=0).fit(X)
    overlap = np.abs(m.components_ @ atoms.T)
    assert (overlap.max(0) > 0.95).mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(m.components_, axis=1), 1.0)
    objective = m.history_["objective"]
    assert objective[-1] < 0.8 * objective[0] and m.history_["step"][-1] == 200


def test_an_update_of_atoms_lowers_the_error_of_the_codes_seen(X):
    """Block-coordinate descent: with codes fixed, the squared error of the very batch falls; atoms keep norm one."""
    x = torch.from_numpy(X)
    config = SparseCodingConfig(n_latents=K, beta=0.2, tolerance=1e-6, batch_size=len(x), steps=2)
    stack = DictionaryStack([config], x, (D,))
    before = stack.rows[0].clone()
    z = fista(x, before, 0.2, tolerance=1e-6).codes
    stack.step()
    after = stack.rows[0]
    error = [float((x - z @ atoms).square().sum()) for atoms in (before, after)]
    assert error[1] < error[0]
    torch.testing.assert_close(after.norm(dim=1), torch.ones(K, dtype=torch.float64))
    # The last atom updated is the minimiser over the unit sphere, all others held fixed.
    k = int((z != 0).any(0).nonzero()[-1])
    rest = x - z @ after + z[:, k : k + 1] * after[k]
    best = z[:, k] @ rest
    torch.testing.assert_close(after[k], best / best.norm(), atol=1e-6, rtol=1e-6)


def test_unused_atoms_start_again():
    X = np.zeros((50, D))
    X[:, 0] = np.linspace(1, 2, 50)  # one atom explains everything
    X[0, 1] = 1e-3
    m = SparseCoder(6, 0.1, steps=10, batch_size=50, random_state=0).fit(X)
    assert np.isfinite(m.components_).all()
    np.testing.assert_allclose(np.linalg.norm(m.components_, axis=1), 1.0)
    assert SparseCoder(6, 0.1, steps=3, random_state=0).fit(np.zeros((9, 4))).components_.shape == (6, 4)


# The estimator --------------------------------------------------------------------------------------------


def test_outputs(fitted, X):
    codes = fitted.transform(X)
    assert codes.shape == (400, K) and fitted.components_.shape == (K, D)
    reference = sparse_encode(X, fitted.components_, algorithm="lasso_cd", alpha=0.1, max_iter=100_000)
    np.testing.assert_allclose(codes, reference, atol=1e-4)
    np.testing.assert_allclose(fitted.inverse_transform(codes), codes @ fitted.components_, atol=1e-12)
    assert fitted.get_feature_names_out()[0] == "sparsecoder0"
    by_hand = (0.5 * ((X - codes @ fitted.components_) ** 2).sum(1) + 0.1 * np.abs(codes).sum(1)).mean()
    assert fitted.score(X) == pytest.approx(-2 * by_hand)
    assert fitted.evaluate(X).fraction_zeros == (codes == 0).mean()
    with pytest.raises(ValueError, match=rf"expected \(n, {K}\)"):
        fitted.inverse_transform(np.zeros((2, 5)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_dictionary_and_files_keep_it(X, tmp_path, dtype):
    X = X.astype(dtype).reshape(-1, 3, 4)
    a, b = (SparseCoder(6, 0.2, steps=10, batch_size=50, random_state=3).fit(X) for _ in range(2))
    c = SparseCoder(6, 0.2, steps=10, batch_size=50, random_state=4).fit(X)
    np.testing.assert_array_equal(a.components_, b.components_)
    assert a.components_.dtype == dtype and a.shape_ == (1, 3, 4)
    assert not np.allclose(a.components_, c.components_)
    a.save(tmp_path / "m.spikevae")
    again = SparseCoder.load(tmp_path / "m.spikevae")
    np.testing.assert_array_equal(again.transform(X), a.transform(X))
    assert again.get_params() == a.get_params() and again.history_ == a.history_
    np.testing.assert_array_equal(clone(again).fit(X).components_, a.components_)


def test_files_say_what_they_hold(fitted, X, tmp_path):
    fitted.save(tmp_path / "sparse.spikevae")
    np.testing.assert_array_equal(load_model(tmp_path / "sparse.spikevae").transform(X[:9]), fitted.transform(X[:9]))
    model, _ = load_model_file(tmp_path / "sparse.spikevae")
    assert isinstance(model, SparseCoding)
    SpikeVAE(n_latents=3, steps=2).fit(X).save(tmp_path / "vae.spikevae")
    with pytest.raises(ValueError, match=r"vae\.spikevae.*load_model"):
        SparseCoder.load(tmp_path / "vae.spikevae")
    data = (tmp_path / "sparse.spikevae").read_bytes()
    (tmp_path / "other.spikevae").write_bytes(
        data.replace(b'\\"inference\\":\\"sparse_coding\\"', b'\\"inference\\":\\"sparse_codinh\\"')
    )
    with pytest.raises(ValueError, match=r"other\.spikevae.*sparse_codinh.*amortised"):
        SparseCoder.load(tmp_path / "other.spikevae")


def test_numbers_of_numpy_are_numbers(X, tmp_path):
    """What a search over np.arange and np.logspace hands over, also beyond the first epoch and in a file."""
    given = {"n_latents": np.int64(4), "sparsity_price": np.float32(0.25), "max_steps": np.int64(50)}
    coder = SparseCoder(**given, steps=np.int64(9), batch_size=np.int64(50), random_state=np.int64(7)).fit(X[:200])
    coder.save(tmp_path / "c")
    again = SparseCoder.load(tmp_path / "c")
    assert (again.n_latents, again.steps, again.random_state, again.seed_) == (4, 9, 7, 7)
    np.testing.assert_array_equal(again.transform(X), coder.transform(X))
    free = SparseCoder(4, steps=2).fit(X)
    free.save(tmp_path / "f")
    assert SparseCoder.load(tmp_path / "f").random_state == free.seed_


def test_pipeline_and_grid_search(X):
    model = SparseCoder(4, steps=5, random_state=0)
    assert make_pipeline(StandardScaler(), model).fit(X).transform(X).shape == (400, 4)
    search = GridSearchCV(model, {"sparsity_price": [0.1, 1.0]}, cv=2).fit(X)
    assert search.best_params_["sparsity_price"] == 0.1


def test_learning_leaves_the_global_generator_alone_and_reports(X, capsys):
    state = torch.get_rng_state()
    SparseCoder(4, steps=5, verbose=True).fit(X)
    assert torch.equal(torch.get_rng_state(), state)
    assert "SparseCoder fista" in capsys.readouterr().err
