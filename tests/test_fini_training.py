"""Training with integer counts and finite-order exact gradients: `estimator = "fini"`."""

import numpy as np
import pytest
import torch
from helpers import SCORE, seeded
from training_cases import SHAPE, fit

from spikevae.config import FitConfig
from spikevae.distributions import LAWS
from spikevae.models.build import build_model
from spikevae.training import Stack, train

COUNTS = [name for name, law in LAWS.items() if law.is_count]


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("latent", ["poisson", "negative_binomial", "binomial"])
def test_mean_gradient_is_that_of_the_exact_objective(latent, degree):
    """Of every parameter of a linear model, over 4000 copies of one stimulus: within 4.5 standard errors."""
    config = fit(latent=latent, n_latents=3, estimator="fini", fini_degree=degree, init="random", start=0.5)
    model, n = build_model(config, SHAPE).double(), 4000
    x = torch.randn(1, 16, generator=seeded(), dtype=torch.float64)
    exact = model(x, 1.0, 0.0, exact=True).total
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    leaves = [model.get_parameter(name) for name in names]
    expected = torch.autograd.grad(exact, leaves, allow_unused=True)
    found = []
    for part in range(20):
        total = model(x.expand(n // 20, -1), 1.0, 0.0, exact=False, generator=seeded(part)).total
        found.append(torch.autograd.grad(total, leaves, allow_unused=True))
    for name, truth, column in zip(names, expected, zip(*found)):
        if truth is None:
            continue
        parts = torch.stack(column)
        error = parts.std(0) / 20**0.5 + 1e-9
        assert ((parts.mean(0) - truth).abs() / error).max() < SCORE * 1.6, name  # Student t with 19 degrees of freedom


MODELS = {
    "amortised": {},
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (6,)},
    "layers": {"upper": (4,), "latent": "poisson"},
    "iterative": {"inference": "iterative", "dynamics": "sampled", "inference_steps": 3},
    "iterative mlp": {"inference": "iterative", "decoder": "mlp", "hidden": (6,), "inference_steps": 3},
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_trains_on_integer_counts(kind, stimuli, monkeypatch):
    """In a stack of two; relaxed counts are never drawn, and the fit is the one alone."""
    configs = [fit(estimator="fini", steps=6, seed=seed, **MODELS[kind]) for seed in (0, 1)]
    assert configs[0].degree_of_counts == 2 and not configs[0].relaxes_counts

    def refuse(*_, **__):
        raise AssertionError("relaxed counts were drawn")

    for law in (LAWS["poisson"], LAWS["bernoulli"]):
        monkeypatch.setattr(law, "relaxed", refuse)
    x = stimuli.double()
    together, alone = Stack(configs, x, SHAPE, window=2), Stack(configs[1:], x, SHAPE, window=2)
    train(together)
    train(alone)
    ours, theirs = together.result(1), alone.result(0)
    assert np.isfinite(np.asarray(ours.history["objective"])).all()
    torch.testing.assert_close(ours.history["objective"], theirs.history["objective"], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("latent", COUNTS)
def test_every_count_distribution_trains(latent, stimuli):
    degree = LAWS[latent].fini_degree
    stack = Stack([fit(latent=latent, estimator="fini", fini_degree=degree, steps=4)], stimuli, SHAPE, window=2)
    train(stack)
    assert np.isfinite(np.asarray(stack.result(0).history["objective"])).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent": "gaussian", "prior": "fixed"}, "is for counts.*use estimator='auto'"),
        ({"latent": "bernoulli", "fini_degree": 3}, "use fini_degree=2"),
        ({"fini_degree": 5}, "2, 3 or 4"),
        ({"temperature": 0.1}, "temperature: .*estimator='fini' draws integer counts"),
        ({"indicator": "cubic"}, "indicator: .*use estimator='monte_carlo'"),
        ({"latent": "sparse"}, "estimator='fini'"),
        ({"inference": "iterative", "learning": "natural_gradient", "optimizer": "sgd"}, "exact objective"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        FitConfig.from_recipe("default", estimator="fini", **given)


def test_a_degree_without_effect_is_named():
    with pytest.warns(UserWarning, match="'fini_degree' changes nothing"):
        FitConfig.warn_unused([fit(fini_degree=3)], ["fini_degree"])
    recipe = FitConfig.from_recipe("paper", estimator="fini")  # its temperatures are the recipe's, not given
    assert "temperature" in recipe.idle and "fini_degree" not in recipe.idle
