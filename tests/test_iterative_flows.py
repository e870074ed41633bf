"""Flows by automatic differentiation, drives against each other, integrators by exact solutions."""

import math

import numpy as np
import pytest
import torch
from helpers import draw, seeded
from iterative_cases import LAWS, B, D, K, advance, number, plain_free_energy, setting
from scipy import integrate
from torch.distributions import kl_divergence

from spikevae.models import IterativeConfig, IterativeVAE
from spikevae.models.iterative.descent import Costs, UpdateRule, free_energy
from spikevae.models.iterative.drive import LinearLikelihood, NetworkLikelihood
from spikevae.models.iterative.flows import get_flow, relative_gain
from spikevae.networks import build_decoder

# Flows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reused", [True, False])
@pytest.mark.parametrize("latent", LAWS)
def test_free_energy_is_that_of_the_objective(latent, reused):
    flow, params, reference, likelihood, costs, x, dictionary = setting(latent, reused=reused)
    ours = free_energy(
        flow, flow.posterior(params), params, reference, likelihood, likelihood.at(flow.posterior(params).mean), costs
    )
    torch.testing.assert_close(
        ours, plain_free_energy(flow, params, reference, costs, x, dictionary), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("latent", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_drift_is_minus_gradient_over_fisher(latent, seed):
    """Autograd of the exact free energy, divided by the Fisher information; an Euler step gives the direction."""
    flow, params, reference, likelihood, costs, x, dictionary = setting(latent, seed)
    leaves = tuple(p.clone().requires_grad_() for p in params)
    gradient = torch.autograd.grad(plain_free_energy(flow, leaves, reference, costs, x, dictionary).sum(), leaves)
    point = likelihood.at(flow.posterior(params).mean)
    rule, size = UpdateRule(flow, "euler", None), number(1e-3)
    moved = advance(rule, params, reference, point, likelihood.self_inhibition, costs, size, sampled=False)
    for after, before, slope, fisher in zip(moved, params, gradient, flow.fisher(params)):
        torch.testing.assert_close((after - before) / size, -slope / fisher, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("latent", LAWS)
def test_fisher_is_the_curvature_of_the_divergence(latent):
    """For the rectified Gaussian, of the Gaussian before the rectifier, whose divergence is the model's."""
    flow, params, *_ = setting(latent)
    point = tuple(p[0] for p in params)

    def divergence(*moved):
        return kl_divergence(flow.posterior(moved), flow.posterior(point)).sum()

    hessian = torch.autograd.functional.hessian(divergence, point)
    for i, fisher in enumerate(flow.fisher(point)):
        torch.testing.assert_close(torch.diagonal(hessian[i][i]), fisher, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("latent", LAWS)
def test_sampled_drift_is_unbiased(latent):
    """Mean over 100,000 codes, 4.5 standard errors; without self-inhibition or the noise's term it is off by more."""
    n = 100_000
    flow, params, _, likelihood, *_ = setting(latent)
    one = tuple(p[:1] for p in params)
    likelihood = likelihood.select(torch.tensor([0]))
    expected = flow.drift(one, likelihood.at(flow.posterior(one).mean).drive, likelihood.self_inhibition)
    many = tuple(p.expand(n, K) for p in one)
    codes = flow.posterior(many).sample(generator=seeded(1))
    drifts = flow.sampled_drift(many, likelihood.at(codes).drive, likelihood.self_inhibition, codes)
    for ours, wanted in zip(drifts, expected):
        ours = ours.expand(n, K)
        error = ours.std(0) / math.sqrt(n)
        assert ((ours.mean(0) - wanted[0]).abs() <= 4.5 * error + 1e-12).all()
        assert likelihood.self_inhibition.min() > 20 * error.max() or not flow.is_natural


def test_poisson_flow_of_the_paper():
    """Drive minus inhibition minus self-inhibition minus leak, by hand for one unit and one pixel."""
    flow, u, phi, x, v, beta, u0 = get_flow("poisson"), 0.4, 1.5, 2.0, 0.8, 0.6, -1.0
    likelihood = LinearLikelihood.of(number([[x]]), number([[phi]]), number(math.log(v)), reused=True)
    point = likelihood.at(number([[math.exp(u)]]))
    costs = Costs(number(beta), number(0.0))
    rule = UpdateRule(flow, "euler", None)
    params, reference, inhibition = (number([[u]]),), (number([[u0]]),), likelihood.self_inhibition
    moved = advance(rule, params, reference, point, inhibition, costs, number(1.0), sampled=False)
    wanted = u + phi * x / v - phi**2 * math.exp(u) / v - 0.5 * phi**2 / v - beta * (u - u0)
    assert moved[0].item() == pytest.approx(wanted, rel=1e-12)


def test_unknown_flow_names_those_there_are():
    with pytest.raises(ValueError, match=r"latent='laplace'.*poisson, gaussian.*inference='amortised'"):
        get_flow("laplace")


# Drives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_network_drive_is_minus_the_gradient_of_the_distortion(kind, likelihood):
    decoder = build_decoder(kind, 6, (1, 4, 4), bias=True, hidden=(4, 8), generator=seeded()).double()
    x = torch.sigmoid(draw(3, 16))
    likelihood = NetworkLikelihood(x, decoder, likelihood, number(-0.3))
    code = draw(3, 6, seed=1).requires_grad_()
    point = likelihood.at(code)
    (gradient,) = torch.autograd.grad(likelihood.distortion(point).sum(), code)
    torch.testing.assert_close(point.drive, -gradient, rtol=1e-10, atol=1e-12)


def test_the_three_linear_drives_agree():
    """Lateral weights, decoding and back, and automatic differentiation; distortion included."""
    x, dictionary, code, log_variance = draw(3, 6), draw(4, 6, seed=1), draw(3, 4, seed=2), number(0.4)
    lateral, factored = (LinearLikelihood.of(x, dictionary, log_variance, reused=r) for r in (True, False))
    network = NetworkLikelihood(x, lambda z: z @ dictionary, "gaussian", log_variance)
    assert lateral.lateral is not None and factored.lateral is None
    assert LinearLikelihood.of(x, draw(13, 6), log_variance, reused=True).lateral is None  # K > 2 D
    points = [likelihood.at(code) for likelihood in (lateral, factored, network)]
    for likelihood, point in zip((lateral, factored), points):
        torch.testing.assert_close(point.drive, points[2].drive)
        torch.testing.assert_close(likelihood.distortion(point), network.distortion(points[2]))


def test_a_known_drive_has_the_gradient_of_the_drive():
    def drive(x, dictionary, code, known):
        likelihood = LinearLikelihood.of(x, dictionary, number(0.4), reused=True)
        point = likelihood.at_with_drive(code, likelihood.at(code).drive.detach()) if known else likelihood.at(code)
        return point.drive

    given = draw(3, 6), draw(4, 6, seed=1), draw(3, 4, seed=2)
    cotangent = draw(3, 4, seed=3)
    gradients = []
    for known in (True, False):
        leaves = [g.clone().requires_grad_() for g in given]
        gradients.append(torch.autograd.grad((drive(*leaves, known) * cotangent).sum(), leaves))
    torch.testing.assert_close(*gradients)
    stack_of_two = [g.expand(2, *g.shape).clone().requires_grad_() for g in given]
    stacked = torch.func.vmap(lambda *g: drive(*g, True))(*stack_of_two)
    (first, *_) = torch.autograd.grad((stacked * cotangent).sum(), stack_of_two)
    torch.testing.assert_close(first[1], gradients[1][0])


# Integrators ----------------------------------------------------------------------------------------------


def test_relative_gain_to_rounding_with_its_slope():
    x = np.concatenate([[0.0], np.logspace(-12, 3, 200)])
    exact = np.where(x < 1e-4, 1 - x / 2 + x**2 / 6 - x**3 / 24, -np.expm1(-x) / np.where(x > 0, x, 1))
    np.testing.assert_allclose(relative_gain(torch.tensor(x)), exact, rtol=2e-13)
    points = torch.tensor([1e-6, 1e-3, 0.3, 2.0, 40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relative_gain, points)


@pytest.mark.parametrize("latent", ["poisson", "bernoulli"])
def test_exponential_step_is_the_exact_flow_of_leak_and_constant_drift(latent):
    """Without drive (Phi = 0) but with a spike price: u' = -price - beta (u - u0), for any step size."""
    flow, beta, price, u, u0, size = get_flow(latent), 0.7, 0.3, 1.0, -2.0, 3.0
    likelihood = LinearLikelihood.of(draw(1, D), torch.zeros(K, D, dtype=torch.float64), number(0.0), reused=True)
    params, reference = (torch.full((1, K), u).double(),), (torch.full((1, K), u0).double(),)
    costs = Costs(number(beta), number(price))
    rule = UpdateRule(flow, "exponential", None)
    point = likelihood.at(flow.posterior(params).mean)
    moved = advance(rule, params, reference, point, likelihood.self_inhibition, costs, number(size), sampled=False)
    rest = u0 - price / beta
    torch.testing.assert_close(moved[0], torch.full((1, K), rest + (u - rest) * math.exp(-beta * size)).double())


@pytest.mark.parametrize("integrator", ["euler", "exponential"])
@pytest.mark.parametrize("latent", LAWS)
def test_integrators_are_of_first_order(latent, integrator):
    """Error at time 0.4 against SciPy's solution; its slope over the step size is 1 in log-log."""
    flow, params, reference, likelihood, costs, *_ = setting(latent, seed=1, spread=0.3)
    n = len(params)
    rule, end = UpdateRule(flow, integrator, None), 0.4

    def flow_at(values):
        point = likelihood.at(flow.posterior(values).mean)
        drive = point.drive if costs.spike_price is None else point.drive - costs.spike_price
        drift = flow.drift(values, drive, likelihood.self_inhibition)
        return tuple(d + costs.beta * k for d, k in zip(drift, flow.leak(values, reference)[0]))

    def right(_, flat):
        values = tuple(torch.from_numpy(flat).reshape(n, B, K))
        return torch.stack(flow_at(values)).flatten().numpy()

    solved = integrate.solve_ivp(right, (0, end), torch.stack(params).flatten().numpy(), rtol=1e-9, atol=1e-11)
    errors = []
    counts = np.array([100, 200, 400])
    for count in counts:
        values, size = params, number(end / count)
        for _ in range(count):
            point = likelihood.at(flow.posterior(values).mean)
            values = advance(rule, values, reference, point, likelihood.self_inhibition, costs, size, sampled=False)
        errors.append(np.abs(torch.stack(values).flatten().numpy() - solved.y[:, -1]).max())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_gaussian_inference_finds_the_exact_mean_field_posterior():
    """Linear Gaussian model: the mean solves (Phi Phi^T / v + I) mu = Phi x / v, precisions are 1 + ||phi||^2 / v."""
    model = IterativeVAE(
        (D,),
        IterativeConfig(latent="gaussian", n_latents=K, init_scale=0.4, prior="fixed", start=0.5, clamp=None),
        seeded(),
    ).double()
    x = draw(6, D)
    q = model.law_of(model.infer(x, 400))
    phi, v = model.dictionary.detach(), 0.5
    mean = torch.linalg.solve(phi @ phi.T / v + torch.eye(K).double(), (phi @ x.T) / v).T
    torch.testing.assert_close(q.mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(1 / q.variance, (1 + phi.square().sum(-1) / v).expand(6, K), rtol=1e-6, atol=0)
