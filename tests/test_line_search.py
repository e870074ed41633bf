"""The backtracking line search of iterative inference, by property."""

import math
from itertools import pairwise

import pytest
import torch
from helpers import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from iterative_cases import LAWS, SHAPE, B, D, K, advance, fit, number, setting

from spikevae.models import build_model
from spikevae.models.iterative.descent import Costs, UpdateRule, descent_direction, free_energy, line_search
from spikevae.models.iterative.drive import LinearLikelihood
from spikevae.models.iterative.flows import get_flow

EPS = torch.finfo(torch.float64).eps


def searched(rule, params, reference, likelihood, point, costs, size, energy):
    """The line search along the flow of expected dynamics."""
    direction = descent_direction(rule, params, reference, point, likelihood.self_inhibition, costs, sampled=False)
    return line_search(rule, params, reference, likelihood, point, direction, costs, size, energy)


def sum_of_magnitudes(flow, params, reference, likelihood, costs):
    """(B,) sum of the magnitudes of all terms of the free energy."""
    law = flow.posterior(params)
    mean = law.mean.abs()
    inner = likelihood.feedforward.abs() + 0.5 * mean @ likelihood.lateral.abs()
    distortion = (
        likelihood.distortion_at_zero.abs() + (mean * inner).sum(-1) + law.variance @ likelihood.self_inhibition
    )
    if flow.is_natural:
        partitions = flow.log_partition(law) + flow.log_partition(flow.posterior(reference))
        kl = mean * (params[0] - reference[0]).abs() + partitions
    else:
        log_ratio = (params[1] - reference[1]).abs()
        kl = log_ratio + 0.5 + 0.5 * (torch.exp(2 * log_ratio) + ((params[0] - reference[0]) / reference[1].exp()) ** 2)
    price = 0.0 if costs.spike_price is None else costs.spike_price
    return distortion + costs.beta * kl.sum(-1) + price * mean.sum(-1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    latent=st.sampled_from(LAWS),
    integrator=st.sampled_from(["euler", "exponential"]),
    seed=st.integers(0, 10**6),
    log_scale=st.floats(-2, 2),
    log_contrast=st.floats(-2, 3),
    log_noise=st.floats(-5, 2),
    beta=st.sampled_from([0.0, 0.01, 0.5, 1.0, 8.0, 100.0]),
    price=st.sampled_from([0.0, 0.5]),
    size=st.sampled_from([0.05, 1.0, 10.0, 1000.0]),
)
def test_steps_with_line_search_never_raise_the_free_energy(
    latent, integrator, seed, log_scale, log_contrast, log_noise, beta, price, size
):
    """Random dictionaries, stimuli, noise, costs and step sizes, up to sizes where every full step diverges.

    The search allows a rise of 8 eps (|F| + |D(0)|), at most 16 eps M with M the sum of the magnitudes of all terms of
    F; and a computed F, an inner product over K units of sums over K units, is wrong by up to (2 K + 4) eps M, of which
    there are four: before and after the step, in the search and here.
    """
    flow = get_flow(latent)
    x = math.exp(log_contrast) * draw(B, D, seed=seed)
    likelihood = LinearLikelihood.of(x, math.exp(log_scale) * draw(K, D, seed=seed + 1), number(log_noise), reused=True)
    reference = tuple(draw(1, K, seed=seed + 2 + i) for i in range(len(flow.law.prior_params)))
    params = tuple(r.expand(B, K) for r in reference)
    costs, rule = Costs(number(beta), number(price) if flow.law.has_rate else None), UpdateRule(flow, integrator, 5.0)
    params = flow.bounded(params, 5.0)
    point, known, first, allowed = likelihood.at(flow.posterior(params).mean), None, None, 0.0
    for _ in range(8):
        before = free_energy(flow, flow.posterior(params), params, reference, likelihood, point, costs)
        magnitude = sum_of_magnitudes(flow, params, reference, likelihood, costs)
        known = searched(rule, params, reference, likelihood, point, costs, number(size), known and known.energy)
        params = advance(rule, params, reference, point, likelihood.self_inhibition, costs, known.size, sampled=False)
        point = likelihood.at(flow.posterior(params).mean)
        after = free_energy(flow, flow.posterior(params), params, reference, likelihood, point, costs)
        magnitudes = torch.maximum(magnitude, sum_of_magnitudes(flow, params, reference, likelihood, costs))
        slack = (16 + 4 * (2 * K + 4)) * EPS * magnitudes
        assert (after <= before + slack).all()
        torch.testing.assert_close(known.drive, point.drive)
        torch.testing.assert_close(known.energy, after, rtol=1e-9, atol=1e-9)
        first, allowed = before if first is None else first, allowed + slack
    assert (after <= first + allowed).all()


def test_full_steps_can_raise_it():
    flow, params, reference, likelihood, costs, *_ = setting("poisson")
    point = likelihood.at(flow.posterior(params).mean)
    before = free_energy(flow, flow.posterior(params), params, reference, likelihood, point, costs)
    rule, inhibition = UpdateRule(flow, "euler", 5.0), likelihood.self_inhibition
    moved = advance(rule, params, reference, point, inhibition, costs, number(10.0), sampled=False)
    after = free_energy(
        flow, flow.posterior(moved), moved, reference, likelihood, likelihood.at(flow.posterior(moved).mean), costs
    )
    assert (after > before).any()


def test_line_search_keeps_steps_that_descend_and_is_separate_for_each_entry_of_a_batch():
    flow, params, reference, likelihood, costs, *_ = setting("poisson")
    point, rule = likelihood.at(flow.posterior(params).mean), UpdateRule(flow, "euler", 5.0)
    small, large = (
        searched(rule, params, reference, likelihood, point, costs, number(size), None).size for size in (1e-3, 10.0)
    )
    assert (small == 1e-3).all() and (large < 10.0).any()
    sizes = torch.func.vmap(lambda size: searched(rule, params, reference, likelihood, point, costs, size, None).size)(
        number([1e-3, 10.0])
    )
    assert torch.equal(sizes[0], small) and torch.equal(sizes[1], large)


# The model's line search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"start": 2.0, "clamp": 0.5}, {"start": 4.5, "start_spread": 3.0, "beta": 8.0}])
def test_line_search_works_with_a_prior_beyond_the_clamp(given):
    """Inference starts at the state within bounds that is nearest to the prior, and descends from there."""
    config = fit(**{"n_latents": 8, "init_scale": 1e-3, "step_size": 10.0, **given})
    model = build_model(config, SHAPE).double()
    x = draw(6, 16)
    likelihood, prior = model._likelihood_of(x, reused=True), model._prior_params()
    costs = model._costs(model.beta, model.spike_price)

    def energy(state):
        law = model.law_of(state)
        return free_energy(model.flow, law, state.params, prior, likelihood, likelihood.at(law.mean), costs).detach()

    energies = [energy(s) for s in (model.init_state(6), *model.trajectory(x, 10))]
    for before, after in pairwise(energies):
        assert (after <= before + 1e-12 * before.abs()).all()


@pytest.mark.parametrize("latent", ["poisson", "gaussian"])
def test_line_search_finds_very_short_steps(latent):
    """Pixels of almost no noise: only steps a billion times shorter than the step size descend."""
    model = build_model(
        fit(latent=latent, n_latents=64, init_scale=0.3, step_size=1.0, noise_variance=1e-6), (64,)
    ).double()
    x = draw(16, 64)
    start, end = model.init_state(16), model.infer(x, 5)
    errors = [(x - model.decode(model.codes(s))).square().sum(1) for s in (start, end)]
    assert (errors[1] < errors[0]).all()
