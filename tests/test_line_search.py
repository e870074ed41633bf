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
from spikevae.models.iterative.descent import Costs, Rule, free_energy, guard, slopes
from spikevae.models.iterative.drive import LinearDrive
from spikevae.models.iterative.flows import get_flow


def guarded(rule, params, reference, drive, look, costs, size, energy):
    """What the guard makes of the flow of expected dynamics."""
    along = slopes(rule, params, reference, look, drive.width, costs, sampled=False)
    return guard(rule, params, reference, drive, look, along, costs, size, energy)


# The guard ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
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
def test_guarded_steps_never_raise_the_free_energy(
    latent, integrator, seed, log_scale, log_contrast, log_noise, beta, price, size
):
    """Random dictionaries, stimuli, noise, costs and step sizes, up to ones where every unguarded step explodes."""
    flow = get_flow(latent)
    x = math.exp(log_contrast) * draw(B, D, seed=seed)
    drive = LinearDrive.of(x, math.exp(log_scale) * draw(K, D, seed=seed + 1), number(log_noise), reused=True)
    reference = tuple(draw(1, K, seed=seed + 2 + i) for i in range(len(flow.law.prior_params)))
    params = tuple(r.expand(B, K) for r in reference)
    costs, rule = Costs(number(beta), number(price) if flow.law.has_rate else None), Rule(flow, integrator, 5.0)
    params = flow.bounded(params, 5.0)
    look, known, first = drive.look(flow.posterior(params).mean), None, None
    for _ in range(8):
        before = free_energy(flow, flow.posterior(params), params, reference, drive, look, costs)
        known = guarded(rule, params, reference, drive, look, costs, number(size), known and known.energy)
        params = advance(rule, params, reference, look, drive.width, costs, known.size, sampled=False)
        look = drive.look(flow.posterior(params).mean)
        after = free_energy(flow, flow.posterior(params), params, reference, drive, look, costs)
        slack = 1e-14 * (before.abs() + drive.at_silence.abs() + 1)
        assert (after <= before + slack).all()
        torch.testing.assert_close(known.push, look.push)
        torch.testing.assert_close(known.energy, after, rtol=1e-9, atol=1e-9)
        first = before if first is None else first
    assert (after <= first).all()


def test_unguarded_steps_can_raise_it():
    flow, params, reference, drive, costs, *_ = setting("poisson")
    look = drive.look(flow.posterior(params).mean)
    before = free_energy(flow, flow.posterior(params), params, reference, drive, look, costs)
    moved = advance(Rule(flow, "euler", 5.0), params, reference, look, drive.width, costs, number(10.0), sampled=False)
    after = free_energy(
        flow, flow.posterior(moved), moved, reference, drive, drive.look(flow.posterior(moved).mean), costs
    )
    assert (after > before).any()


def test_guard_leaves_good_steps_alone_and_searches_lanes_apart():
    flow, params, reference, drive, costs, *_ = setting("poisson")
    look, rule = drive.look(flow.posterior(params).mean), Rule(flow, "euler", 5.0)
    small, large = (
        guarded(rule, params, reference, drive, look, costs, number(size), None).size for size in (1e-3, 10.0)
    )
    assert (small == 1e-3).all() and (large < 10.0).any()
    lanes = torch.func.vmap(lambda size: guarded(rule, params, reference, drive, look, costs, size, None).size)(
        number([1e-3, 10.0])
    )
    assert torch.equal(lanes[0], small) and torch.equal(lanes[1], large)


# What the parts are put together from ----------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"start": 2.0, "clamp": 0.5}, {"start": 4.5, "start_spread": 3.0, "beta": 8.0}])
def test_a_prior_beyond_the_clamp_does_not_break_the_guard(given):
    """Inference starts at the prior's nearest state within bounds, and descends from there."""
    config = fit(**{"n_latents": 8, "init_scale": 1e-3, "step_size": 10.0, **given})
    model = build_model(config, SHAPE).double()
    x = draw(6, 16)
    drive, prior = model._drive(x, reused=True), model._start()
    costs = model._costs(model.beta, model.spike_price)

    def energy(state):
        law = model.law_of(state)
        return free_energy(model.flow, law, state.params, prior, drive, drive.look(law.mean), costs).detach()

    energies = [energy(s) for s in (model.init_state(6), *model.trajectory(x, 10))]
    for before, after in pairwise(energies):
        assert (after <= before + 1e-12 * before.abs()).all()


@pytest.mark.parametrize("latent", ["poisson", "gaussian"])
def test_the_guard_finds_very_short_steps(latent):
    """Pixels of almost no noise: only steps a billion times shorter than asked for descend."""
    model = build_model(
        fit(latent=latent, n_latents=64, init_scale=0.3, step_size=1.0, noise_variance=1e-6), (64,)
    ).double()
    x = draw(16, 64)
    start, end = model.init_state(16), model.infer(x, 5)
    errors = [(x - model.decode(model.codes(s))).square().sum(1) for s in (start, end)]
    assert (errors[1] < errors[0]).all()
