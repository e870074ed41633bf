"""Models in a loop of the user's own: ``model(x)`` without further arguments, gradients, PyTorch's optimisers."""

import numpy as np
import pytest
import torch
from helpers import seeded

import spikevae as sv
from spikevae.models import build_model

X = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 8)).astype("float32"))
ITERATIVE = {"inference": "iterative", "inference_steps": 2, "evaluation_steps": 2}
KINDS = {
    "linear": {},
    "learned prior": {"prior": "learned"},
    "networks": {"encoder": "mlp", "decoder": "mlp", "options": {"hidden": (6,)}},
    "Gaussian": {"latent": "gaussian", "decoder": "mlp", "options": {"hidden": (6,)}},
    "relaxed": {"options": {"estimator": "monte_carlo", "temperature": 0.3}},
    "budget": {"spike_budget": 0.2},
    "importance-weighted": {"options": {"n_importance": 3}},
    "robust": {"options": {"objective": "pac_m", "n_samples": 3}},
    "iterative": {"options": ITERATIVE},
    "spikes": {"options": {**ITERATIVE, "dynamics": "sampled"}},
    "natural": {"options": {**ITERATIVE, "learning": "natural_gradient", "optimizer": "sgd"}},
    "layers": {"options": {"upper": (3,)}},
    "sparse": {"latent": "sparse", "beta": 0.1},
}


@pytest.fixture(params=KINDS)
def fitted(request):
    """After a few steps, so that a budget is not met yet."""
    if request.param == "budget":
        with pytest.warns(UserWarning, match="Budget"):
            return sv.SpikeVAE(n_latents=4, random_state=0, steps=4, **KINDS[request.param]).fit(X)
    return sv.SpikeVAE(n_latents=4, random_state=0, **{"steps": 4, "beta": 0.5, **KINDS[request.param]}).fit(X)


def test_a_model_trains_in_a_loop_of_ones_own(fitted):
    model = fitted.model_
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    totals = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(25):
            parts = model(X)
            optimizer.zero_grad()
            parts.total.backward()
            optimizer.step()
            totals.append(parts.total.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert np.mean(totals[-5:]) < np.mean(totals[:5])
    assert np.isfinite(fitted.score(X))


def test_what_is_not_given_is_that_of_the_configuration(fitted):
    model, config = fitted.model_, fitted.config_
    if config.latent == "sparse":
        assert torch.equal(model(X).total, model(X, config.beta).total)
        return
    given = {"exact": config.exact, "temperature": config.temperature, "indicator": config.indicator}
    explicit = model(X, config.beta, model.price_of_spikes, **given, generator=seeded(1))
    found = model(X, generator=seeded(1))
    assert torch.equal(found.total, explicit.total)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.testing.assert_close(model(X).total, found.total)


def test_a_loaded_model_has_gradients_too(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    model = sv.load_model(tmp_path / "m").model_
    total = model(X, **({} if fitted.config_.latent == "sparse" else {"generator": seeded(0)})).total
    total.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("x", [X[:, :5], X[0], X.view(50, 1, 2, 4)])
@pytest.mark.parametrize("latent", ["poisson", "sparse"])
def test_stimuli_of_another_shape_are_refused(latent, x):
    model = build_model(sv.FitConfig(n_latents=3, latent=latent), (8,))
    with pytest.raises(ValueError, match=r"x has shape \(.*\); this model takes stimuli \(B, 8\): images as x.flatten"):
        model(x)


@pytest.mark.parametrize("algorithm", ["fista", "lca-hard", "nonnegative"])
def test_the_objective_of_sparse_codes_is_that_of_the_evaluation_and_has_its_gradient(algorithm):
    """Its gradient by finite differences of the minimum over codes, which are found to a small tolerance."""
    options = {"algorithm": algorithm, "tolerance": 1e-9, "max_steps": 20_000}
    config = sv.FitConfig(latent="sparse", n_latents=3, beta=0.3, **options)
    model, x = build_model(config, (4,)).double(), torch.randn(6, 4, generator=seeded(0), dtype=torch.float64)
    parts, evaluated = model(x), model.code(x)
    torch.testing.assert_close(parts.total, (evaluated.distortion + evaluated.penalty).mean())
    torch.testing.assert_close(parts.code, evaluated.code)
    weight = model.decoder.head.weight
    (gradient,) = torch.autograd.grad(parts.total, weight)
    for place in ((0, 0), (3, 2)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                values.append(model(x).total.item())
                weight[place] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient[place]), rel=1e-4, abs=1e-6)
