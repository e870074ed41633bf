"""Inference on streams of frames, and the energy of its steps."""

import gc
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from iterative_cases import SHAPE, fit
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.data.sequences import grating, static
from spikevae.evaluation.inference_energy import inference_energy
from spikevae.metrics.reconstruction import r2_pooled
from spikevae.models import build_model
from spikevae.training import Stack, train


def test_steps_of_a_stream_are_those_of_inference(mixtures):
    for options in ({}, {"dynamics": "sampled"}, {"reference": "previous", "inner_steps": 2}):
        model = build_model(fit(**options), SHAPE).double().requires_grad_(False)
        x, generator = mixtures[:7].double(), seeded(2)
        state = model.init_state(7)
        for _ in range(5):
            state = model.infer_step(state, x, generator=generator)
        whole = model.infer(x, 5, generator=seeded(2))
        torch.testing.assert_close(state.params, whole.params, rtol=1e-9, atol=1e-9)
        assert model.codes(state).shape == state.emitted.shape == (7, 6)
        torch.testing.assert_close(model.codes(whole), model.law_of(whole).mean)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reference": "previous", "inner_steps": 3},
        {"latent": "gaussian", "prior": "fixed"},
        {"latent": "bernoulli"},
    ],
    ids=str,
)
def test_a_stream_is_the_loop_over_its_frames(options):
    """Stimuli together, one by one, and in two parts; of equal frames it is the loop over the steps of inference."""
    model = build_model(fit(init_scale=0.5, **options), SHAPE).double()
    waves = {"orientation": torch.arange(5.0), "spatial_frequency": 0.2, "temporal_frequency": 0.05}
    frames = [frame.double() for frame in grating(SHAPE, 9, **waves)]
    states = list(model.stream(frames))
    assert len(states) == 9 and not any(p.requires_grad for state in states for p in state.params)
    for i in range(5):
        (*_, alone) = model.stream(frame[i : i + 1] for frame in frames)
        torch.testing.assert_close(alone.params, tuple(p[i : i + 1] for p in states[-1].params), rtol=1e-9, atol=1e-9)
    (*_, later) = model.stream(frames[4:], states[3])
    torch.testing.assert_close(later.params, states[-1].params, rtol=0, atol=0)
    (*_, still) = model.stream(frame.double() for frame in static(frames[0], 7))
    torch.testing.assert_close(still.params, model.infer(frames[0].float().double(), 7).params, rtol=1e-6, atol=1e-6)


def test_a_stream_holds_as_much_after_two_hundred_frames_as_after_ten():
    model = build_model(fit(), SHAPE)
    frames = grating(SHAPE, 200, orientation=0.3, spatial_frequency=0.2)
    held, stream = [], model.stream(frames)
    for count, state in enumerate(stream, 1):
        if count in (10, 200):
            gc.collect()
            held.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
            size = sum(t.untyped_storage().nbytes() for t in (*state.params, state.emitted))
            assert size == 2 * 4 * 6  # potentials and emitted code of six units in float32
    assert held[0] == held[1]


def test_beliefs_that_are_carried_track_a_drifting_stimulus():
    """One step a frame: a belief that starts anew at each frame is further from it than one that is carried."""
    waves = {"orientation": torch.linspace(0, 3, 16), "spatial_frequency": 0.15}
    phases = 2 * math.pi * torch.rand(40, 16, generator=seeded())
    x = torch.cat([next(grating((8, 8), 1, phase=phase, **waves)) for phase in phases])
    config = fit(n_latents=24, steps=150, batch_size=80, learning_rate=0.03, beta=0.1, learn_step_size=False)
    stack = Stack([config], x, (1, 8, 8))
    train(stack)
    model = stack.result(0).model
    frames = list(grating((8, 8), 40, temporal_frequency=1 / 40, **waves))
    carried = [model.codes(state) for state in model.stream(frames)]
    anew = [model.codes(next(model.stream([frame]))) for frame in frames]
    r2 = [
        np.mean([r2_pooled(frame, model.decode(code)) for frame, code in list(zip(frames, codes))[10:]])
        for codes in (carried, anew)
    ]
    assert r2[0] > 0.6 and r2[0] > r2[1] + 0.1, r2


def test_energy_of_inference_is_what_the_states_say(mixtures):
    """Spikes, operations and R2 of each step, recomputed from the states one by one."""
    model = build_model(
        fit(dynamics="sampled", init_scale=0.8, inner_steps=2, start=-4.0, step_size=0.02), SHAPE
    ).requires_grad_(False)
    energy = inference_energy(model, mixtures, steps=10, seed=3)
    states = list(model.trajectory(mixtures, 10, generator=seeded(3)))
    assert len(states) == 20 == len(energy.r2)
    spikes = [float(s.emitted.sum(1).mean()) for s in states]
    np.testing.assert_allclose(energy.spikes, spikes, rtol=1e-6)
    np.testing.assert_allclose(energy.operations, np.array(spikes) * 6, rtol=1e-6)  # K synapses a spike
    np.testing.assert_allclose(energy.macs, [16 * 6] + [0] * 19)  # the stimulus comes in once
    np.testing.assert_allclose(energy.joules, 4.6e-12 * energy.macs + 0.9e-12 * energy.operations)
    np.testing.assert_allclose(
        energy.r2, [r2_pooled(mixtures, model.decode(model.codes(s))) for s in states], rtol=1e-5, atol=1e-6
    )
    kls = [float(kl_divergence(model.law_of(s), model.prior()).sum(1).mean()) for s in states]
    np.testing.assert_allclose(energy.kl, kls, rtol=1e-5)
    n = int(energy.steps_to_share)
    assert energy.r2[-1] > 0 and n == next(i for i, r2 in enumerate(energy.r2, 1) if r2 >= 0.95 * energy.r2[-1]) > 1
    assert energy.spikes_to_share == pytest.approx(sum(spikes[:n]))
    assert energy.operations_to_share == pytest.approx(6 * sum(spikes[:n]), rel=1e-6)
    assert energy.joules_to_share == pytest.approx(energy.joules[:n].sum())


def test_energy_of_graded_inference(mixtures):
    """Expected dynamics send K graded values a step; a Gaussian code has no spikes; a network works each step."""
    linear, signed, network = (
        inference_energy(build_model(fit(**options), SHAPE), mixtures, steps=3, seed=0, batch_size=30)
        for options in ({}, {"latent": "gaussian", "prior": "fixed"}, {"decoder": "mlp", "hidden": (5,), "start": -2.0})
    )
    assert (linear.operations == 6 * 6).all() and (linear.spikes > 0).all()
    assert np.isnan(signed.spikes).all() and np.isnan(signed.spikes_to_share)
    assert (network.macs == 2 * (6 * 5 + 5 * 16) - 6 * 5).all()
    assert (network.operations < 6 * 5 * 10).all()
    with pytest.raises(ValueError, match="expected \\(m, 16\\)"):
        inference_energy(build_model(fit(), SHAPE), mixtures[:, :3])
    with pytest.raises(ValueError, match="steps=0"):
        inference_energy(build_model(fit(), SHAPE), mixtures, steps=0)


def test_streams_and_accounts_refuse_what_is_not_finite(mixtures):
    model = build_model(fit(), SHAPE)
    frames = [mixtures[:2], torch.full((2, 16), math.nan)]
    stream = model.stream(frames)
    assert next(stream).params[0].isfinite().all()
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        next(stream)
    with pytest.raises(ValueError, match="NaN"):
        inference_energy(model, frames[1])
    with pytest.raises(TypeError, match="no iterative inference"):
        inference_energy(build_model(FitConfig.from_recipe("default", n_latents=4), SHAPE), mixtures)
    with pytest.raises(ValueError, match="steps=-3"):
        model.infer(mixtures, -3)
    with pytest.raises(ValueError, match="take fewer steps"):
        fit(inference_steps=10_000, inner_steps=1000)
