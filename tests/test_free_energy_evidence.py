"""The evidence of models with real-valued codes: a linear Gaussian model, for which log p(x) is known."""

import importlib.util
import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import SCORE, draw, seeded

from spikevae.evaluation.evidence import log_evidence
from spikevae.free_energy import evidence
from spikevae.models import AmortisedConfig, AmortisedVAE


@pytest.fixture(scope="module")
def model() -> AmortisedVAE:
    """Three units, five pixels, untrained: its posterior is not the true one."""
    config = AmortisedConfig(latent="gaussian", n_latents=3, init_scale=0.25)
    return AmortisedVAE((5,), config, seeded())


def exact(model: AmortisedVAE, x: torch.Tensor) -> np.ndarray:
    """log p(x), without the constant that the distortion drops."""
    dictionary = model.dictionary.detach().double().numpy()
    prior, variance = model.prior(), float(model.log_noise_variance.exp())
    covariance = dictionary.T * prior.variance.detach().double().numpy() @ dictionary + variance * np.eye(5)
    mean = model.decode(prior.mean[None])[0].detach().double().numpy()
    return scipy.stats.multivariate_normal(mean, covariance).logpdf(x.numpy()) + 2.5 * math.log(math.pi)


X = 0.3 * draw(2, 5, seed=4, dtype=torch.float32)


@pytest.mark.parametrize("method", ["zwanzig", "bar", "lfep", "lbar"])
def test_the_evidence_of_a_linear_gaussian_model_is_that_of_its_covariance(method: str, model: AmortisedVAE) -> None:
    options = {}
    if method in ("lfep", "lbar"):
        if importlib.util.find_spec("zuko") is None:
            pytest.skip("no zuko")
        options = {"steps": 80, "learning_rate": 0.02, "layers": 2, "hidden": 16}
    found = evidence(model, X, method=method, samples=1000, chain_steps=200, **options)
    truth = exact(model, X)
    for one, log_p in zip(found, truth):
        assert abs(one.estimate + log_p) < SCORE * one.standard_error < 1
        assert one.upper > -log_p
        assert one.flags == () and (one.lower == -math.inf or one.lower < -log_p)
    if method in ("lfep", "lbar"):
        plain = evidence(model, X, method={"lfep": "zwanzig", "lbar": "bar"}[method], samples=1000, chain_steps=200)
        assert all(a.overlap > b.overlap + 0.05 and a.upper < b.upper for a, b in zip(found, plain))


def test_zwanzig_is_importance_sampling(model: AmortisedVAE) -> None:
    found = log_evidence(model, X, samples=20_000)
    ours = evidence(model, X, samples=20_000)
    for i, one in enumerate(ours):
        error = math.hypot(one.standard_error, found.stimuli["standard_error"][i])
        assert abs(one.estimate + found.stimuli["log_evidence"][i]) < SCORE * error
        assert one.overlap > 0.01 and found.stimuli["effective_samples"][i] > 200


def test_codes_that_are_functions_of_a_gaussian_are_taken() -> None:
    """A rectified code: states are densities of the variable behind it."""
    config = AmortisedConfig(latent="rectified_gaussian", n_latents=2)
    model = AmortisedVAE((4,), config, seeded())
    x = torch.ones(1, 4)
    (found,) = evidence(model, x, samples=4000)
    other = log_evidence(model, x, samples=4000)
    assert abs(found.estimate + other.log_evidence) < SCORE * math.hypot(found.standard_error, other.standard_error)


def test_wrong_calls_are_named(model: AmortisedVAE) -> None:
    counts = AmortisedVAE((5,), AmortisedConfig(latent="poisson", n_latents=3), seeded())
    for message, call in {
        "Poisson codes in 1 layer": lambda: evidence(counts, X),
        "method is 'mbar'": lambda: evidence(model, X, method="mbar"),
        "steps are options of learned maps": lambda: evidence(model, X, steps=3),
        "samples is 1": lambda: evidence(model, X, samples=1),
        r"expected \(m, 5\)": lambda: evidence(model, X[:, :4]),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
