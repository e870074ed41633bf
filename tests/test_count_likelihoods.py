"""Counts as data: SciPy's log probabilities, fits of every model, the evidence by a sum over codes, what is refused."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

import spikevae as sv
from spikevae.models.pixels import mean_pixels, pixel_distortion

D = 8


def counts(n=600, dispersion=None, seed=0):
    """(n, D) counts whose log means are those of two sources; negative binomial with a dispersion."""
    rng = np.random.default_rng(seed)
    log_mean = 0.5 + 0.9 * rng.normal(size=(n, 2)) @ rng.normal(size=(2, D))
    mean = np.exp(np.clip(log_mean, -4, 4))
    if dispersion is not None:
        mean *= rng.gamma(dispersion, 1 / dispersion, size=mean.shape)
    return rng.poisson(mean).astype(np.float32)


def fitted(X, likelihood, **given):
    given = {"n_latents": 6, "steps": 80, "batch_size": 60, "random_state": 0, "learning_rate": 0.02, **given}
    return sv.SpikeVAE(likelihood=likelihood, **given).fit(X)


def silent_distortion(X):
    """Nats per row of independent Poisson counts with the means of the columns."""
    return -stats.poisson(X.mean(0)).logpmf(X).sum(1).mean()


@pytest.mark.parametrize("log_r", [-2.0, 0.7, 12.0])
def test_distortions_are_minus_the_log_probabilities_of_scipy(log_r):
    """Complete, with log x!; in float64 to rounding, in float32 to 1e-4 nats."""
    x = np.array([[0, 1, 2, 7, 40, 3000.0]])
    output = np.array([[-3, 0.2, 2.5, 1.0, 3.0, 8.0]])
    mean, r = np.exp(output), np.exp(log_r)
    wanted = {
        "poisson": -stats.poisson(mean).logpmf(x).sum(),
        "negative_binomial": -stats.nbinom(r, r / (r + mean)).logpmf(x).sum(),
    }
    for likelihood, value in wanted.items():
        for dtype, rel in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            given = torch.tensor(x, dtype=dtype), torch.tensor(output, dtype=dtype), torch.full((6,), log_r).to(dtype)
            assert float(pixel_distortion(likelihood, *given)) == pytest.approx(value, rel=rel)
        assert np.allclose(mean_pixels(likelihood, torch.tensor(output)), mean)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"encoder": "mlp", "decoder": "mlp", "options": {"hidden": (16,)}},
        {"latent": "gaussian"},
        {"latent": "negative_binomial"},
        {"options": {"inference": "hierarchical", "upper": (2,)}, "prior": "learned"},
        {"options": {"n_importance": 4}},
    ],
    ids=["linear", "mlp", "gaussian", "negative binomial", "hierarchical", "importance"],
)
def test_every_model_codes_counts_and_is_saved(model, tmp_path):
    X = counts()
    m = fitted(X, "poisson", **model)
    metrics = m.evaluate(X)
    assert np.isfinite(metrics.free_energy) and metrics.distortion < silent_distortion(X)
    assert (m.inverse_transform(m.transform(X)) > 0).all()
    m.save(tmp_path / "m.spikevae")
    assert sv.load_model(tmp_path / "m.spikevae").score(X) == m.score(X)


def test_dispersed_counts_have_the_smaller_free_energy_as_negative_binomial():
    X = counts(dispersion=0.7)
    poisson, other = (fitted(X, likelihood) for likelihood in ("poisson", "negative_binomial"))
    assert other.score(X) > poisson.score(X) + 1
    assert other.model_.log_dispersion.shape == (D,)
    assert "log_dispersion" not in dict(poisson.model_.named_parameters())


def test_the_evidence_is_that_of_a_sum_over_codes():
    """One unit: log of the sum over z of p(z) times SciPy's probabilities of the counts."""
    X = counts(40)
    m = fitted(X, "poisson", n_latents=1)
    z = np.arange(60)
    means = m.inverse_transform(z[:, None].astype(np.float32)).astype(np.float64)
    log_p = stats.poisson(float(m.prior_rates_[0])).logpmf(z) + stats.poisson(means).logpmf(X[:, None]).sum(-1)
    wanted = logsumexp(log_p, axis=1).mean()
    found = m.log_evidence(X, samples=3000)
    assert found.log_evidence == pytest.approx(wanted, abs=max(0.05, 5 * found.standard_error))
    assert m.score(X) < wanted


def test_decoders_start_at_the_mean_counts():
    X = counts()
    X[:, 3] = 0
    m = fitted(X, "poisson", steps=2, learning_rate=1e-9)
    bias = m.model_.decoder.head.bias.detach().numpy()
    assert np.allclose(np.delete(np.exp(bias), 3), np.delete(X.mean(0), 3), atol=0.01)
    assert np.exp(bias[3]) < 0.01
    assert m.config_.decoder_bias and not sv.SpikeVAE(steps=2, n_latents=3).fit(X).config_.decoder_bias


@pytest.mark.filterwarnings("ignore:X has root mean square")
def test_what_is_no_count_is_refused():
    X = counts(50)
    m = fitted(X, "poisson", steps=4)
    for value, text in ((-1, "-1 in column 2"), (0.5, "0.5 in column 2"), (1e8, "1e.08 in column 2")):
        bad = X.copy()
        bad[7, 2] = value
        for call in (m.fit, m.partial_fit, m.evaluate):
            with pytest.raises(ValueError, match=f"needs counts, whole numbers from 0 to 16,777,216; X has {text}"):
                call(bad)
    with pytest.raises(ValueError, match="Gaussian pixels"):
        fitted(X, "poisson", latent="sparse", steps=4)
    with pytest.raises(ValueError, match="needs an encoder"):
        fitted(X, "poisson", options={"inference": "iterative"}, prior="learned")
    with pytest.raises(ValueError, match="estimator='exact' needs"):
        fitted(X, "poisson", options={"estimator": "exact"})
