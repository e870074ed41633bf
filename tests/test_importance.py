"""Importance-weighted bounds: values and gradients against enumeration and quadrature, and training with them."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers import SCORE, draw, seeded
from law_cases import parameters_of
from training_cases import SHAPE, fit

from spikevae.config import FitConfig
from spikevae.distributions import LAWS, Bernoulli, Gaussian, Poisson, RectifiedGaussian
from spikevae.importance import importance_weighted, leave_one_out_factor
from spikevae.models.build import build_model
from spikevae.training import Stack, train

DICTIONARY = 0.6 * draw(2, 3, seed=4)
STIMULUS = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)


def distortion(code):
    """(...) squared error of a linear decoder of two units."""
    return (STIMULUS - code @ DICTIONARY).square().sum(-1)


def codes(top):
    """All codes (n, 2) of two units with counts below `top`."""
    return torch.tensor(list(itertools.product(range(top), repeat=2)), dtype=torch.float64)


def pairs_bound(q, prior, z, beta):
    """Minus the bound of two samples, by enumeration of all pairs of codes."""
    log_q = q.log_prob(z).sum(-1)
    log_w = -distortion(z) / beta - (log_q - prior.log_prob(z).sum(-1))
    both = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
    return -beta * ((log_q[:, None] + log_q[None]).exp() * both).sum()


LAWS_OF_PAIRS = {"bernoulli": 2, "binomial": 9, "poisson": 22, "negative_binomial": 40, "zero_inflated_poisson": 25}


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("name", LAWS_OF_PAIRS)
def test_score_function_is_unbiased(name, beta):
    """Of values and gradients by the parameters of posterior and prior, over 40,000 copies: within 4.5 errors."""
    law, n = LAWS[name], 40_000
    base = {k: v - (1.0 if k == "log_rate" else 0.0) for k, v in parameters_of(law, 2, seed=1).items()}
    prior_values = {k: (v - 0.3).requires_grad_() for k, v in base.items()}
    q_values = {k: v.clone().requires_grad_() for k, v in base.items()}
    leaves = [*q_values.values(), *prior_values.values()]
    prior = law.from_prior(prior_values)
    exact = pairs_bound(law.from_prior(q_values), prior, codes(LAWS_OF_PAIRS[name]), beta)
    expected = torch.autograd.grad(exact, leaves, allow_unused=True)
    wide = {k: v.detach().expand(n, 2).clone().requires_grad_() for k, v in q_values.items()}
    wide_prior = {k: v.detach().expand(n, 2).clone().requires_grad_() for k, v in prior_values.items()}
    found = importance_weighted(
        distortion,
        law.from_prior(wide),
        law.from_prior(wide_prior),
        samples=2,
        beta=beta,
        estimator="score_function",
        generator=seeded(),
    )
    check(found.value.detach(), exact.detach())
    gradients = torch.autograd.grad(found.value.sum(), [*wide.values(), *wide_prior.values()], allow_unused=True)
    for truth, estimate in zip(expected, gradients):
        check(estimate, truth)


def check(estimates, truth):
    """The mean of estimates (n, ...) is the truth within 4.5 standard errors, which are small against it."""
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - truth).abs() < SCORE * error + 1e-9).all()
    assert (error < 0.12 * truth.abs().max() + 1e-3).all()


def test_doubly_reparametrised_gradient_is_unbiased():
    """Two Gaussian samples of one unit: the gradient of the bound by quadrature over both."""
    n = 40_000
    values = {"loc": torch.tensor([0.4]).double(), "log_scale": torch.tensor([-0.3]).double()}
    prior = Gaussian(torch.zeros(1).double(), torch.zeros(1).double())
    loss = lambda z: (1.2 - z.square()).square().sum(-1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / math.sqrt(2 * math.pi))
    leaves = {k: v.clone().requires_grad_() for k, v in values.items()}
    q = Gaussian(**leaves)
    z = q.loc + q.scale * nodes[:, None]
    log_w = -loss(z) - q.log_ratio(prior, z).sum(-1)
    exact = -(weights[:, None] * weights * (torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2))).sum()
    expected = torch.autograd.grad(exact, list(leaves.values()))
    wide = {k: v.expand(n, 1).clone().requires_grad_() for k, v in values.items()}
    found = importance_weighted(loss, Gaussian(**wide), prior, samples=2, generator=seeded())
    check(found.value.detach(), exact.detach())
    for truth, estimate in zip(expected, torch.autograd.grad(found.value.sum(), list(wide.values()))):
        check(estimate, truth)


@pytest.mark.parametrize("law", [Gaussian, RectifiedGaussian])
def test_one_real_valued_sample_gives_the_free_energy(law):
    """Also of rectified codes, whose weights are those of the Gaussian before the rectifier."""
    n = 40_000
    wide = {k: v.expand(n, 2) for k, v in parameters_of(law, 2).items()}
    prior = law.from_prior(parameters_of(law, 2, seed=3))
    found = importance_weighted(distortion, law.from_prior(wide), prior, samples=1, generator=seeded())
    one = law.from_prior({k: v[0] for k, v in wide.items()})
    error = distortion(one.mean) + one.variance @ DICTIONARY.square().sum(-1)
    check(found.value, error + torch.distributions.kl_divergence(one, prior).sum())


def test_the_bound_rises_to_the_evidence():
    prior, q = Poisson(torch.zeros(2).double()), Poisson(draw(2, seed=2).expand(4000, 2) * 0.3)
    z = codes(30)
    evidence = -torch.logsumexp(prior.log_prob(z).sum(-1) - distortion(z), 0)
    values = [
        float(importance_weighted(distortion, q, prior, samples=m, generator=seeded()).value.mean())
        for m in (2, 8, 32, 300)
    ]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] - float(evidence) < 0.1 * (values[0] - float(evidence))


@pytest.mark.parametrize("samples", [4, 64])
def test_signal_over_noise_of_the_score_does_not_vanish(samples):
    """Of the mean gradient by log firing rates over its standard deviation; without a baseline it falls as 1 / m."""
    q_rate = torch.full((20_000, 2), -0.2).double().requires_grad_()
    prior = Poisson(torch.zeros(2).double())
    found = importance_weighted(
        distortion, Poisson(q_rate), prior, samples=samples, estimator="score_function", generator=seeded()
    )
    (gradient,) = torch.autograd.grad(found.value.sum(), q_rate)
    assert float(gradient.mean(0).norm() / gradient.var(0).sum().sqrt()) > 0.3


def test_factor_of_the_leave_one_out_baseline():
    log_v = torch.log_softmax(draw(5, 7), 0)
    v = log_v.exp()
    torch.testing.assert_close(leave_one_out_factor(log_v), -torch.log(1 - v) - v)
    one = torch.log_softmax(torch.tensor([0.0, -800.0, -801.0]).double(), 0)  # 1 - v is 0 in floating point
    assert abs(float(leave_one_out_factor(one)[0]) - (800 - math.log1p(math.exp(-1)) - 1)) < 1e-9
    equal = torch.full((4, 1), -math.log(4)).double()  # with ties, only one sample is the largest
    torch.testing.assert_close(leave_one_out_factor(equal), -torch.log(1 - equal.exp()) - equal.exp())


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.closed_form_prior])
def test_statistics_have_the_moments_as_means(name):
    law = LAWS[name]
    q = law.from_prior({k: v - 0.5 for k, v in parameters_of(law, 3).items()})
    value = q.underlying().sample((60_000,), generator=seeded())
    statistics = q.statistics(value)
    for mean, spread, truth in zip(statistics.mean(1), statistics.std(1), q.moments()):
        assert ((mean - truth).abs() < SCORE * spread / math.sqrt(60_000)).all()


@pytest.mark.parametrize("name", LAWS)
def test_log_ratio_is_the_difference_of_log_probabilities(name):
    law = LAWS[name]
    q, p = (law.from_prior(parameters_of(law, 3, seed=seed)) for seed in (0, 1))
    z = q.sample((50,), generator=seeded())
    torch.testing.assert_close(q.log_ratio(p, z), q.log_prob(z) - p.log_prob(z), rtol=1e-9, atol=1e-9)


FITS = {
    **{name: {"latent": name} for name in LAWS},
    "fini": {"estimator": "fini"},
    "mlp, binary pixels": {"decoder": "mlp", "hidden": (6,), "likelihood": "bernoulli"},
    "conv": {"encoder": "conv", "decoder": "conv", "hidden": (4,)},
    "learned prior and noise": {"prior": "learned", "noise_variance": "learned"},
    "budget": {"spike_budget": 0.2, "beta_anneal": 0.5},
}


@pytest.mark.parametrize("kind", FITS)
def test_fits_train_in_stacks_as_alone(kind, stimuli):
    configs = [fit(n_importance=3, steps=6, seed=seed, beta=beta, **FITS[kind]) for seed, beta in ((0, 2.0), (1, 0.5))]
    x = (stimuli > 0).double() if "binary" in kind else stimuli.double()
    together, alone = Stack(configs, x, SHAPE, window=2), Stack(configs[1:], x, SHAPE, window=2)
    train(together)
    train(alone)
    ours, theirs = together.result(1).history, alone.result(0).history
    assert np.isfinite(np.asarray(ours["objective"])).all()
    torch.testing.assert_close(ours["objective"], theirs["objective"], rtol=1e-7, atol=1e-7)
    single = np.asarray(ours["distortion"]) + 0.5 * np.asarray(ours["kl"])
    if kind != "budget":
        assert (np.asarray(ours["objective"]) < single).all()


def test_many_samples_lead_to_better_evidence_than_one(stimuli):
    """Bernoulli codes of 4 units, exact log p(x) by enumeration: higher than after training by the free energy."""
    found = {}
    for n in (1, 20):
        config = fit(
            latent="bernoulli", n_latents=4, steps=240, n_importance=n, decoder_update="gradient", learning_rate=0.03
        )
        stack = Stack([config], stimuli, SHAPE)
        train(stack)
        model = stack.result(0).model
        z = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))
        with torch.no_grad():
            log_p = model.prior().log_prob(z).sum(-1)
            joint = log_p - torch.stack([model.distortion(stimuli, row.expand(300, 4)) for row in z], -1)
        found[n] = float(torch.logsumexp(joint, -1).mean())
    assert found[20] > found[1] + 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_importance": 0}, "n_importance"),
        ({"n_importance": 4, "beta": 0}, "beta > 0"),
        ({"n_importance": 4, "estimator": "exact"}, "use estimator='auto'"),
        ({"n_importance": 4, "estimator": "monte_carlo"}, "score_function"),
        ({"n_importance": 4, "estimator": "fini", "latent": "negative_binomial"}, "use estimator='score_function'"),
        ({"n_importance": 4, "estimator": "score_function", "latent": "gaussian"}, "real-valued"),
        ({"estimator": "score_function"}, "n_importance of 2 or more"),
        ({"n_importance": 4, "inference": "iterative"}, "n_importance needs inference='amortised'"),
        ({"n_importance": 4, "upper": [3]}, "n_importance needs inference='amortised'"),
        ({"n_importance": 4, "latent": "sparse"}, "n_importance needs inference='amortised'"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        FitConfig.from_recipe("default", **given)


@pytest.mark.parametrize(
    ("law", "options", "message"),
    [
        (Bernoulli, {"estimator": "pathwise"}, "no pathwise gradient: use estimator='score_function'"),
        (Gaussian, {"estimator": "fini"}, "use 'pathwise'"),
        (Bernoulli, {"samples": 1}, "give 2 or more"),
    ],
)
def test_estimators_that_a_law_lacks(law, options, message):
    q = law.from_prior(parameters_of(law, 2))
    call = partial(importance_weighted, distortion, q, q, generator=seeded())
    with pytest.raises(ValueError, match=message):
        call(**{"samples": 4, **options})


def test_memory_and_cost_count_the_samples():
    from spikevae.training.checks import stack_bytes

    one, many = (fit(n_importance=n) for n in (1, 50))
    assert stack_bytes(many, SHAPE, 1) > 20 * stack_bytes(one, SHAPE, 1)
    assert many.passes == 50 * one.passes


def test_the_exact_free_energy_remains_available(stimuli):
    model = build_model(fit(n_importance=5), SHAPE)
    assert torch.isfinite(model(stimuli, 1.0, 0.0, exact=True).total)
