"""Learning by natural gradient: directions against autograd over the Fisher information, flows against their ODE."""

import math

import numpy as np
import pytest
import torch
from helpers import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.evaluation.evaluate import evaluate
from spikevae.models import build_model
from spikevae.models.iterative.flows import FLOWS, get_flow
from spikevae.models.iterative.natural import (
    approach,
    decoder_after_flow,
    moments_of,
    residual_variance,
    second_moment,
    zero_with_gradient,
)
from spikevae.objectives import expected_squared_error, gaussian_distortion
from spikevae.training import Stack, train

B, D, K = 30, 5, 4
SHAPE = (1, 4, 4)


def problem(latent, seed=0):
    """Stimuli, posteriors, prior, dictionary, bias and log noise variance."""
    flow = get_flow(latent)
    n = len(flow.law.prior_params)
    law = flow.posterior(tuple(draw(B, K, seed=seed + i) for i in range(n)))
    prior = flow.posterior(tuple(0.5 * draw(K, seed=seed + 4 + i) for i in range(n)))
    return draw(B, D, seed=seed + 8), law, prior, draw(K, D, seed=seed + 9), draw(D, seed=seed + 10), torch.tensor(-0.4)


def distortion(x, law, dictionary, bias, log_variance):
    error = expected_squared_error(x, law.mean @ dictionary + bias, law.variance, dictionary)
    return gaussian_distortion(error, D, log_variance).mean()


@pytest.mark.parametrize("latent", FLOWS)
def test_decoder_flow_starts_along_the_natural_gradient(latent):
    """Autograd of the exact free energy times v M^-1, M the Fisher metric E_prior[z z^T] with the bias as a unit."""
    x, law, prior, dictionary, bias, log_variance = problem(latent)
    weights = torch.cat([dictionary, bias[None]]).requires_grad_()
    energy = distortion(x, law, weights[:K], weights[K], log_variance)
    (gradient,) = torch.autograd.grad(energy, weights)
    samples = torch.cat(
        [prior.sample((400_000,), generator=torch.Generator().manual_seed(1)), torch.ones(400_000, 1)], 1
    )
    metric = second_moment(prior.mean[None], prior.variance[None], bias=True)
    torch.testing.assert_close(metric, samples.mT.double() @ samples.double() / len(samples), rtol=0.05, atol=0.02)
    wanted = -math.exp(-0.4) * torch.linalg.solve(metric, gradient)
    time = 1e-6
    found = moments_of(x, law, bias=True)
    ours = (decoder_after_flow(weights.detach(), found, metric, time) - weights.detach()) / time
    torch.testing.assert_close(ours, wanted, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("time", [0.1, 1.0, 5.0])
def test_decoder_flow_is_the_matrix_exponential(time):
    x, law, prior, dictionary, *_ = problem("bernoulli")
    found = moments_of(x, law, bias=False)
    metric = second_moment(prior.mean[None], prior.variance[None], bias=False)
    best = torch.linalg.solve(found.second, found.cross)
    decay = expm(-time * np.linalg.solve(metric.numpy(), found.second.numpy()))
    wanted = best + torch.from_numpy(decay) @ (dictionary - best)
    torch.testing.assert_close(decoder_after_flow(dictionary, found, metric, time), wanted, rtol=1e-8, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    latent=st.sampled_from(list(FLOWS)), seed=st.integers(0, 10**6), time=st.floats(1e-3, 20), share=st.floats(0.01, 1)
)
def test_learning_never_raises_the_free_energy_of_its_posteriors(latent, seed, time, share):
    """Any part of the way along any flow: the distortion is quadratic in the weights, convex in prior and noise."""
    x, law, prior, dictionary, bias, log_variance = problem(latent, seed)
    weights = torch.cat([dictionary, bias[None]])
    found = moments_of(x, law, bias=True)
    metric = second_moment(prior.mean[None], prior.variance[None], bias=True)
    end = torch.lerp(weights, decoder_after_flow(weights, found, metric, time), share)
    before = distortion(x, law, dictionary, bias, log_variance)
    assert distortion(x, law, end[:K], end[K], log_variance) <= before + 1e-9 * before.abs()

    variance = approach(log_variance.exp().double(), residual_variance(weights, found), time)
    assert distortion(x, law, dictionary, bias, variance.log()) <= before + 1e-9 * before.abs()

    moments = approach(prior.moments(), law.moments().mean(-2), time)
    moved = type(law).from_prior(type(law).prior_from_moments(moments))
    costs = [kl_divergence(law, p).sum(-1).mean() for p in (prior, moved)]
    assert costs[1] <= costs[0] + 1e-9 * costs[0].abs()


def test_residual_variance_is_the_mean_expected_squared_error():
    x, law, _, dictionary, bias, _ = problem("poisson")
    wanted = expected_squared_error(x, law.mean @ dictionary + bias, law.variance, dictionary).mean() / D
    found = moments_of(x, law, bias=True)
    torch.testing.assert_close(residual_variance(torch.cat([dictionary, bias[None]]), found), wanted)


@pytest.mark.parametrize("latent", FLOWS)
def test_prior_and_noise_relax_along_their_natural_gradients(latent):
    """Of the noise: Fisher D / (2 v^2). Of the prior: the law's, in its own parameters."""
    x, law, prior, dictionary, bias, log_variance = problem(latent)
    time, v = 1e-6, log_variance.exp().double().requires_grad_()
    (slope,) = torch.autograd.grad(distortion(x, law, dictionary, bias, v.log()), v)
    found = moments_of(x, law, bias=True)
    moved = approach(v.detach(), residual_variance(torch.cat([dictionary, bias[None]]), found), time)
    torch.testing.assert_close((moved - v.detach()) / time, -slope * 2 * v.detach() ** 2 / D, rtol=1e-4, atol=1e-6)

    flow = get_flow(latent)
    params = tuple(p.detach().clone().requires_grad_() for p in flow.params(prior))
    slopes = torch.autograd.grad(kl_divergence(law, flow.posterior(params)).sum(-1).mean(), params)
    ends = type(law).prior_from_moments(approach(prior.moments(), law.moments().mean(-2), time))
    for name, p, s, fisher in zip(type(law).prior_params, params, slopes, flow.fisher(params)):
        moved = (ends[name] - p.detach()) / time
        torch.testing.assert_close(moved, (-s / fisher).detach(), rtol=1e-4, atol=1e-6)


def test_zero_with_gradient_is_zero_and_has_the_gradient():
    value, end = draw(3).requires_grad_(), draw(3, seed=1)
    zero = zero_with_gradient(value, end)
    zero.backward()
    assert zero.item() == 0
    torch.testing.assert_close(value.grad, value.detach() - end)


@pytest.fixture(scope="module")
def stimuli():
    causes = torch.poisson(torch.full((200, 6), 0.5), generator=torch.Generator().manual_seed(0))
    return (causes @ draw(6, 16).float() + 0.1 * draw(200, 16, seed=1).float()).float()


def fit(**given):
    natural = {"learning": "natural_gradient", "optimizer": "sgd", "learning_rate": 0.2, "warmup": 0.0, "cycles": 1}
    return FitConfig.from_recipe(
        "default", inference="iterative", n_latents=6, batch_size=100, **{"steps": 40, **natural, **given}
    )


@pytest.mark.slow
@pytest.mark.parametrize(("latent", "prior"), [*((name, "learned") for name in FLOWS), ("poisson", "closed_form")])
def test_natural_learning_lowers_the_free_energy(stimuli, latent, prior):
    """Stacked, each fit as alone, and no gradient passes through a step of inference."""
    short = {"inference_steps": 8, "evaluation_steps": 20}
    configs = [
        fit(
            latent=latent, prior=prior, decoder_bias=True, noise_variance="learned", seed=s, beta=b, start=-1.0, **short
        )
        for s, b in ((0, 1.0), (1, 2.0))
    ]
    stack = Stack(configs, stimuli.double(), SHAPE)
    first = build_model(configs[0], SHAPE)
    train(stack)
    alone = Stack([configs[1]], stimuli.double(), SHAPE)
    train(alone)
    for name, value in alone.result(0).model.state_dict().items():
        torch.testing.assert_close(stack.result(1).model.state_dict()[name], value, rtol=1e-5, atol=1e-7, msg=name)
    before, after = (evaluate(m.float(), stimuli).metrics.free_energy for m in (first, stack.result(0).model))
    assert after < before - 0.3 * abs(before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "adam"}, "does not go with optimizer='adam'"),
        ({"learning": "backpropagation"}, "'sgd' needs natural gradients"),
        ({"decoder": "mlp"}, "needs decoder='linear'"),
        ({"estimator": "monte_carlo"}, "exact objective"),
        ({"inference": "amortised", "learning": "backpropagation"}, "optimizer='sgd' needs inference='iterative'"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    values = {"inference": "iterative", "learning": "natural_gradient", "optimizer": "sgd", **given}
    with pytest.raises(ValueError, match=message):
        FitConfig.from_recipe("default", **values)


def test_a_step_of_learning_goes_to_the_flows_ends():
    """At learning rate one decoder, bias, noise and prior land where their flows are after unit time."""
    config = FitConfig.from_recipe(
        "default", inference="iterative", n_latents=K, learning="natural_gradient", optimizer="sgd",
        decoder_bias=True, noise_variance="learned", prior="learned", inference_steps=3, steps=2, start=-0.5,
    )  # fmt: skip
    model = build_model(config, SHAPE).double()
    x = 0.7 * draw(B, 16, seed=3)
    with torch.no_grad():
        model.decoder.head.bias.copy_(0.1 * draw(16, seed=4))
    model(x, 1.0, 0.0, exact=True).total.backward()
    law, prior = model.law_of(model.infer(x, 3)), model.prior()
    m, v, n = law.mean.detach(), law.variance.detach(), len(x)
    z = torch.cat([m, torch.ones(n, 1)], 1)  # the bias as a unit that always is one
    spread = torch.diag(torch.cat([v.mean(0), torch.zeros(1)]))
    second, cross = z.mT @ z / n + spread, z.mT @ x / n
    p = torch.cat([prior.mean.detach(), torch.ones(1)])
    metric = torch.outer(p, p) + torch.diag(torch.cat([prior.variance.detach(), torch.zeros(1)]))
    head = model.decoder.head
    weights = torch.cat([head.weight.detach().mT, head.bias.detach()[None]])
    best = torch.linalg.solve(second, cross)
    end = best + torch.from_numpy(expm(-np.linalg.solve(metric.numpy(), second.numpy()))) @ (weights - best)
    torch.testing.assert_close((head.weight - head.weight.grad).detach().mT, end[:K], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((head.bias - head.bias.grad).detach(), end[K], rtol=1e-6, atol=1e-8)
    weights = torch.cat([head.weight.detach().mT, head.bias.detach()[None]])
    found = ((x - z @ weights).square().sum(1).mean() + (v.mean(0) * weights[:K].square().sum(1)).sum()) / 16
    old = model.log_noise_variance.detach().exp()
    target = (1 - math.exp(-1)) * found + math.exp(-1) * old
    torch.testing.assert_close((model.log_noise_variance - model.log_noise_variance.grad).detach(), target.log())
    rate = (1 - math.exp(-1)) * m.mean(0) + math.exp(-1) * prior.mean.detach()
    torch.testing.assert_close((model.prior_log_rate - model.prior_log_rate.grad).detach(), rate.log())
