"""SpikeVAE as scikit-learn knows estimators."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from spikevae.estimators import SpikeVAE, load_model


@pytest.mark.filterwarnings("ignore:the stimuli have root mean square")  # its stimuli are around 100
@parametrize_with_checks([SpikeVAE(n_latents=3, steps=6, batch_size=16, random_state=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return (rng.poisson(0.5, (200, 5)) @ rng.normal(size=(5, 16)) + 0.1 * rng.normal(size=(200, 16))).astype("float32")


@pytest.fixture(scope="module")
def fitted(X):
    return SpikeVAE(n_latents=6, steps=300, batch_size=50, random_state=0).fit(X)


def test_outputs(fitted, X):
    codes = fitted.sample_codes(X)
    assert codes.dtype == np.int64 and codes.shape == (200, 6) and codes.min() >= 0
    assert (fitted.transform(X) > 0).all()
    assert fitted.components_.shape == (6, 16) and fitted.prior_rates_.shape == (6,)
    np.testing.assert_allclose(fitted.inverse_transform(codes), codes @ fitted.components_, rtol=1e-4, atol=1e-5)
    assert fitted.get_feature_names_out()[0] == "spikevae0"


def test_codes_have_the_transformed_firing_rates(fitted, X):
    """Mean over 400 draws of 1,200 Poisson counts; each z-score within 5, their mean square near 1."""
    rates = fitted.transform(X).astype(float)
    draws = np.mean([fitted.sample_codes(X, random_state=i) for i in range(400)], axis=0)
    z = (draws - rates)[rates > 0.05] / np.sqrt(rates[rates > 0.05] / 400)
    assert np.abs(z).max() < 6 and np.mean(z**2) == pytest.approx(1, abs=0.2)


def test_score_is_minus_the_free_energy_by_hand(fitted, X):
    """Float64 and from the formulas alone: sum of squares + variance term + Poisson divergence."""
    rates = fitted.transform(X).astype(float)
    phi, prior = fitted.components_.astype(float), fitted.prior_rates_.astype(float)
    distortion = ((X - rates @ phi) ** 2).sum(1) + rates @ (phi**2).sum(1)
    kl = (prior - rates + rates * np.log(rates / prior)).sum(1)
    assert fitted.score(X) == pytest.approx(-(distortion + kl).mean(), rel=1e-4)


@pytest.mark.parametrize("kind", ["float64", "torch", "list", "images", "channels"])
def test_accepts_what_users_have(X, kind):
    given = {
        "float64": X.astype("float64"),
        "torch": torch.from_numpy(X),
        "list": X.tolist(),
        "images": X.reshape(-1, 4, 4),
        "channels": X.reshape(-1, 1, 4, 4),
    }[kind]
    model = SpikeVAE(n_latents=4, steps=20, random_state=0)
    reference = SpikeVAE(n_latents=4, steps=20, random_state=0).fit(X).transform(X)
    np.testing.assert_allclose(model.fit(given).transform(given), reference, rtol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda X: np.where(np.arange(16) == 3, np.nan, X), "NaN"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: X[:, 0], "2D array|1D array"),
        (lambda X: X.astype("complex64"), "[Cc]omplex"),
    ],
)
def test_bad_input_is_refused_in_words(X, bad, message):
    with pytest.raises(ValueError, match=message):
        SpikeVAE(n_latents=4, steps=2).fit(bad(X))


def test_wrong_width_is_refused(fitted, X):
    with pytest.raises(ValueError, match=r"16 features|15 features"):
        fitted.transform(X[:, :15])
    with pytest.raises(ValueError, match=r"expected \(n, 6\)"):
        fitted.inverse_transform(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": "poison"}, "poisson"),
        ({"beta": -1}, "beta"),
        ({"n_latents": 0}, "n_latents"),
        ({"recipe": "papers"}, "paper"),
        ({"options": {"optimiser": "adam"}}, "optimizer"),
        ({"options": {"beta": 2}}, "parameter of its own"),
        ({"prior": "closed_form", "options": {"encoder_bias": False}}, "raises the firing"),
        ({"latent": "gaussian", "spike_price": 1.0, "prior": "fixed"}, "codes have none"),
        ({"steps": 3}, "even number.*take 4, or cycles=1"),
        (
            {"latent": "negative_binomial", "options": {"indicator": "gumbel", "estimator": "monte_carlo"}},
            "fewer than the counts of 'negative_binomial'",
        ),
        ({"likelihood": "bernoulli"}, r"pixels in \[0, 1\]"),
        ({"device": "cuda:x"}, "device"),
    ],
)
def test_bad_settings_are_refused_in_words(X, params, message):
    with pytest.raises(ValueError, match=message):
        SpikeVAE(**{"steps": 2, **params}).fit(X)


def test_divergence_is_an_error(X):
    with (
        pytest.warns(UserWarning, match="root mean square"),
        pytest.raises(ValueError, match=r"diverged at step .* learning_rate"),
    ):
        SpikeVAE(n_latents=4, steps=20, beta=1e30, random_state=0).fit(X * 1e19)


@pytest.mark.parametrize(
    "options", [{"indicator": "sigmoid"}, {"hidden": (8,)}, {"inference": "iterative", "encoder_bias": False}]
)
def test_options_that_change_nothing_are_warned_of(X, options):
    with pytest.warns(UserWarning, match=rf"'{list(options)[-1]}' changes nothing"):
        SpikeVAE(n_latents=4, steps=2, random_state=0, options=options).fit(X)


def test_what_the_recipe_says_itself_is_no_option(X):
    """Warnings are errors here."""
    options = {"indicator": "sigmoid", "estimator": "auto", "batch_size": 50}
    SpikeVAE(
        n_latents=4, steps=2, recipe="paper", random_state=0, batch_size=options.pop("batch_size"), options=options
    ).fit(X)


@pytest.mark.parametrize(("scale", "what"), [(100.0, "huge"), (0.01, "little of them")])
def test_stimuli_of_an_odd_scale_are_warned_of(X, scale, what):
    with pytest.warns(UserWarning, match=rf"times the standard deviation of the pixel noise.*{what}"):
        SpikeVAE(n_latents=4, steps=2, random_state=0).fit(scale * X)
    SpikeVAE(n_latents=4, steps=2, random_state=0, noise_variance=0.5 * scale**2).fit(scale * X)  # warnings are errors


def test_a_second_fit_leaves_nothing_of_the_first(X):
    model = SpikeVAE(n_latents=4, steps=2, random_state=0).fit(X)
    assert hasattr(model, "components_") and hasattr(model, "prior_rates_")
    model.set_params(latent="gaussian", decoder="mlp").fit(X)
    assert not hasattr(model, "components_") and not hasattr(model, "prior_rates_")


@pytest.mark.parametrize("options", [{}, {"upper": (3,)}, {"inference": "iterative"}])
def test_codes_do_not_depend_on_the_order_of_stimuli(X, options):
    model = SpikeVAE(n_latents=4, steps=20, random_state=0, options=options or None).fit(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(model.transform(X)[order], model.transform(X[order]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.transform(X[:3]), model.transform(X)[:3], rtol=1e-4, atol=1e-5)
    assert hasattr(model, "prior_rates_") == ("upper" not in options)


@pytest.mark.parametrize("options", [{}, {"upper": (3,)}, {"inference": "iterative"}])
def test_what_evaluate_counts_can_be_counted_again(X, options):
    model = SpikeVAE(n_latents=4, steps=20, random_state=0, options=options or None).fit(X)
    X = np.tile(X, (6, 1))  # more than one batch
    numbers, codes = model.evaluate(X, random_state=5), model.sample_codes(X, random_state=5)
    assert numbers.fraction_zeros == pytest.approx((codes == 0).mean(), rel=1e-6)
    assert numbers.mse == pytest.approx(((X - model.inverse_transform(codes)) ** 2).sum(1).mean(), rel=1e-4)


def test_codes_are_taken_from_torch_and_from_read_only_memory(fitted, X):
    codes = fitted.transform(X)
    pixels = fitted.inverse_transform(codes)
    codes.flags.writeable = False
    np.testing.assert_array_equal(fitted.inverse_transform(codes), pixels)
    np.testing.assert_array_equal(fitted.inverse_transform(torch.tensor(codes, requires_grad=True)), pixels)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_are_none_are_refused(X, seed):
    with pytest.raises(ValueError, match="random_state"):
        SpikeVAE(n_latents=4, steps=2, random_state=seed).fit(X)


def test_numbers_beyond_float32_are_refused(X):
    with pytest.raises(ValueError, match="beyond the range of float32"):
        SpikeVAE(n_latents=4, steps=2).fit(X.astype("float64") * 1e39)


def test_random_states_are_those_of_scikit_learn(fitted, X):
    one, two = (fitted.sample_codes(X, random_state=np.random.RandomState(0)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (fitted.sample_codes(X, random_state=None) != fitted.sample_codes(X, random_state=None)).any()
    assert fitted.evaluate(X, random_state=np.random.RandomState(0)) == fitted.evaluate(
        X, random_state=np.random.RandomState(0)
    )


def test_clone_pipeline_grid_search(X):
    model = SpikeVAE(n_latents=4, steps=20, random_state=0, options={"grad_clip": 5.0})
    assert clone(model).get_params() == model.get_params()
    pipe = make_pipeline(StandardScaler(), model).fit(X)
    assert pipe.transform(X).shape == (200, 4)
    search = GridSearchCV(model, {"beta": [0.5, 2.0]}, cv=2).fit(X)
    assert search.best_params_["beta"] in (0.5, 2.0)


def test_same_seed_same_model(X):
    a, b = (SpikeVAE(n_latents=4, steps=20, random_state=3).fit(X).components_ for _ in range(2))
    c = SpikeVAE(n_latents=4, steps=20, random_state=4).fit(X).components_
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


@pytest.mark.parametrize("latent", ["poisson", "gaussian", "rectified_gaussian"])
@pytest.mark.parametrize("networks", ["linear", "mlp", "conv"])
def test_save_and_load(X, tmp_path, latent, networks):
    options = {} if networks == "linear" else {"hidden": (4, 8)}
    model = SpikeVAE(latent, 4, encoder=networks, decoder=networks, steps=4, random_state=0, options=options or None)
    model.fit(X)
    model.save(tmp_path / "m.spikevae")
    again = load_model(tmp_path / "m.spikevae")
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.evaluate(X).to_dict() == model.evaluate(X).to_dict()
    refit = clone(again).fit(X)
    np.testing.assert_array_equal(refit.transform(X), model.transform(X))


def test_files_of_others_are_refused_with_their_name(fitted, tmp_path):
    path = tmp_path / "m.spikevae"
    with pytest.raises(FileNotFoundError, match=r"m\.spikevae"):
        load_model(path)
    path.write_bytes(b"\x80\x04not a model")
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(path)
    fitted.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(path)
    path.write_bytes(data.replace(b'\\"n_latents\\":6', b'\\"n_latents\\":7'))
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(path)
    size = int.from_bytes(data[:8], "little")
    assert b'"shape":"[16]"' in data
    swollen = data[8:].replace(b'"shape":"[16]"', b'"shape":"[99999999999]"')
    path.write_bytes((size + 9).to_bytes(8, "little") + swollen)
    with pytest.raises(ValueError, match=r"m\.spikevae.*out of range"):
        load_model(path)


def test_paper_recipe_fits(X):
    model = SpikeVAE(n_latents=4, recipe="paper", steps=30, random_state=0).fit(X)
    assert model.config_.indicator == "sigmoid" and model.config_.optimizer == "adamax"
    assert not model.config_.encoder_bias and np.isfinite(model.score(X))


def test_progress_on_request(X, capsys):
    SpikeVAE(n_latents=4, steps=20, verbose=True).fit(X)
    assert "SpikeVAE poisson" in capsys.readouterr().err
    SpikeVAE(n_latents=4, steps=20).fit(X)
    assert capsys.readouterr().err == ""
