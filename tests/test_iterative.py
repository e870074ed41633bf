"""Iterative inference: flows by autograd, integrators by exact solutions, the guard by property, the model."""

import gc
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import draw, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.data.sequences import grating, static
from spikevae.distributions import Poisson
from spikevae.estimators.spike_vae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.evaluation.inference_energy import inference_energy
from spikevae.metrics.reconstruction import r2_pooled
from spikevae.models import IterativeConfig, IterativeVAE, build_model, load_model, save_model
from spikevae.models.iterative.descent import Costs, Rule, free_energy, guard, slopes, stride
from spikevae.models.iterative.drive import LinearDrive, NetworkDrive
from spikevae.models.iterative.flows import FLOWS, get_flow, relative_gain
from spikevae.networks import build_decoder
from spikevae.objectives import expected_squared_error, gaussian_distortion
from spikevae.training import Stack, train

LAWS = list(FLOWS)
B, D, K = 4, 5, 7


def advance(rule, params, reference, look, width, costs, size, *, sampled):
    """One step of the flow."""
    return stride(rule, params, slopes(rule, params, reference, look, width, costs, sampled=sampled), costs.beta, size)


def guarded(rule, params, reference, drive, look, costs, size, energy):
    """What the guard makes of the flow of expected dynamics."""
    along = slopes(rule, params, reference, look, drive.width, costs, sampled=False)
    return guard(rule, params, reference, drive, look, along, costs, size, energy)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def setting(latent, seed=0, spread=0.5, beta=0.7, price=0.2, reused=True):
    """Flow, parameters, reference, drive, costs and dictionary of one random problem."""
    flow = get_flow(latent)
    n = len(flow.law.prior_params)
    params = tuple(spread * draw(B, K, seed=10 * seed + i) for i in range(n))
    reference = tuple(spread * draw(1, K, seed=10 * seed + 4 + i) for i in range(n))
    dictionary, x = draw(K, D, seed=10 * seed + 8), draw(B, D, seed=10 * seed + 9)
    drive = LinearDrive.of(x, dictionary, number(-0.3), reused=reused)
    costs = Costs(number(beta), number(price) if flow.law.has_rate else None)
    return flow, params, reference, drive, costs, x, dictionary


def plain_free_energy(flow, params, reference, costs, x, dictionary):
    """Of `objectives` and `kl_divergence`, written out."""
    law = flow.posterior(params)
    error = expected_squared_error(x, law.mean @ dictionary, law.variance, dictionary)
    total = gaussian_distortion(error, D, -0.3)
    total = total + costs.beta * kl_divergence(law, flow.posterior(reference)).sum(-1)
    return total if costs.price is None else total + costs.price * law.mean.sum(-1)


# Flows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reused", [True, False])
@pytest.mark.parametrize("latent", LAWS)
def test_free_energy_is_that_of_the_objective(latent, reused):
    flow, params, reference, drive, costs, x, dictionary = setting(latent, reused=reused)
    ours = free_energy(
        flow, flow.posterior(params), params, reference, drive, drive.look(flow.posterior(params).mean), costs
    )
    torch.testing.assert_close(
        ours, plain_free_energy(flow, params, reference, costs, x, dictionary), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("latent", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_drift_is_minus_gradient_over_fisher(latent, seed):
    """Autograd of the exact free energy, divided by the Fisher information; a step of Euler shows the slopes."""
    flow, params, reference, drive, costs, x, dictionary = setting(latent, seed)
    leaves = tuple(p.clone().requires_grad_() for p in params)
    gradient = torch.autograd.grad(plain_free_energy(flow, leaves, reference, costs, x, dictionary).sum(), leaves)
    look = drive.look(flow.posterior(params).mean)
    rule, size = Rule(flow, "euler", None), number(1e-3)
    moved = advance(rule, params, reference, look, drive.width, costs, size, sampled=False)
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
    flow, params, _, drive, *_ = setting(latent)
    one = tuple(p[:1] for p in params)
    drive = drive.rows(torch.tensor([0]))
    expected = flow.drift(one, drive.look(flow.posterior(one).mean).push, drive.width)
    many = tuple(p.expand(n, K) for p in one)
    codes = flow.posterior(many).sample(generator=seeded(1))
    drifts = flow.sampled_drift(many, drive.look(codes).push, drive.width, codes)
    for ours, wanted in zip(drifts, expected):
        ours = ours.expand(n, K)
        error = ours.std(0) / math.sqrt(n)
        assert ((ours.mean(0) - wanted[0]).abs() <= 4.5 * error + 1e-12).all()
        assert drive.width.min() > 20 * error.max() or not flow.is_natural


def test_poisson_flow_of_the_paper():
    """Drive minus inhibition minus self-inhibition minus leak, by hand for one unit and one pixel."""
    flow, u, phi, x, v, beta, u0 = get_flow("poisson"), 0.4, 1.5, 2.0, 0.8, 0.6, -1.0
    drive = LinearDrive.of(number([[x]]), number([[phi]]), number(math.log(v)), reused=True)
    look = drive.look(number([[math.exp(u)]]))
    costs = Costs(number(beta), number(0.0))
    rule = Rule(flow, "euler", None)
    moved = advance(rule, (number([[u]]),), (number([[u0]]),), look, drive.width, costs, number(1.0), sampled=False)
    wanted = u + phi * x / v - phi**2 * math.exp(u) / v - 0.5 * phi**2 / v - beta * (u - u0)
    assert moved[0].item() == pytest.approx(wanted, rel=1e-12)


def test_unknown_flow_names_those_there_are():
    with pytest.raises(ValueError, match=r"latent='laplace'.*poisson, gaussian.*inference='amortised'"):
        get_flow("laplace")


# Drives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "mlp", "conv"])
@pytest.mark.parametrize("log_variance", [-0.3, None])
def test_network_push_is_minus_the_gradient_of_the_distortion(kind, log_variance):
    decoder = build_decoder(kind, 6, (1, 4, 4), bias=True, hidden=(4, 8), generator=seeded()).double()
    x = torch.sigmoid(draw(3, 16))
    drive = NetworkDrive(x, decoder, None if log_variance is None else number(log_variance))
    code = draw(3, 6, seed=1).requires_grad_()
    look = drive.look(code)
    (gradient,) = torch.autograd.grad(drive.distortion(look).sum(), code)
    torch.testing.assert_close(look.push, -gradient, rtol=1e-10, atol=1e-12)


def test_the_three_linear_drives_agree():
    """Lateral weights, decoding and back, and automatic differentiation; distortion included."""
    x, dictionary, code, log_variance = draw(3, 6), draw(4, 6, seed=1), draw(3, 4, seed=2), number(0.4)
    lateral, factored = (LinearDrive.of(x, dictionary, log_variance, reused=r) for r in (True, False))
    network = NetworkDrive(x, lambda z: z @ dictionary, log_variance)
    assert lateral.lateral is not None and factored.lateral is None
    assert LinearDrive.of(x, draw(13, 6), log_variance, reused=True).lateral is None  # K > 2 D
    looks = [drive.look(code) for drive in (lateral, factored, network)]
    for drive, look in zip((lateral, factored), looks):
        torch.testing.assert_close(look.push, looks[2].push)
        torch.testing.assert_close(drive.distortion(look), network.distortion(looks[2]))


def test_a_known_push_has_the_gradient_of_the_push():
    def push(x, dictionary, code, known):
        drive = LinearDrive.of(x, dictionary, number(0.4), reused=True)
        look = drive.look_known(code, drive.look(code).push.detach()) if known else drive.look(code)
        return look.push

    given = draw(3, 6), draw(4, 6, seed=1), draw(3, 4, seed=2)
    cotangent = draw(3, 4, seed=3)
    gradients = []
    for known in (True, False):
        leaves = [g.clone().requires_grad_() for g in given]
        gradients.append(torch.autograd.grad((push(*leaves, known) * cotangent).sum(), leaves))
    torch.testing.assert_close(*gradients)
    lanes = [g.expand(2, *g.shape).clone().requires_grad_() for g in given]
    stacked = torch.func.vmap(lambda *g: push(*g, True))(*lanes)
    (first, *_) = torch.autograd.grad((stacked * cotangent).sum(), lanes)
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
    """No pixels see the code (Phi = 0) but a price pushes: u' = -price - beta (u - u0), for any step size."""
    flow, beta, price, u, u0, size = get_flow(latent), 0.7, 0.3, 1.0, -2.0, 3.0
    drive = LinearDrive.of(draw(1, D), torch.zeros(K, D, dtype=torch.float64), number(0.0), reused=True)
    params, reference = (torch.full((1, K), u).double(),), (torch.full((1, K), u0).double(),)
    costs = Costs(number(beta), number(price))
    rule = Rule(flow, "exponential", None)
    look = drive.look(flow.posterior(params).mean)
    moved = advance(rule, params, reference, look, drive.width, costs, number(size), sampled=False)
    rest = u0 - price / beta
    torch.testing.assert_close(moved[0], torch.full((1, K), rest + (u - rest) * math.exp(-beta * size)).double())


@pytest.mark.parametrize("integrator", ["euler", "exponential"])
@pytest.mark.parametrize("latent", LAWS)
def test_integrators_are_of_first_order(latent, integrator):
    """Error at time 0.4 against SciPy's solution; its slope over the step size is 1 in log-log."""
    flow, params, reference, drive, costs, *_ = setting(latent, seed=1, spread=0.3)
    n = len(params)
    rule, end = Rule(flow, integrator, None), 0.4

    def slopes(values):
        look = drive.look(flow.posterior(values).mean)
        drift = flow.drift(values, look.push if costs.price is None else look.push - costs.price, drive.width)
        return tuple(d + costs.beta * k for d, k in zip(drift, flow.leak(values, reference)[0]))

    def right(_, flat):
        values = tuple(torch.from_numpy(flat).reshape(n, B, K))
        return torch.stack(slopes(values)).flatten().numpy()

    solved = integrate.solve_ivp(right, (0, end), torch.stack(params).flatten().numpy(), rtol=1e-9, atol=1e-11)
    errors = []
    counts = np.array([100, 200, 400])
    for count in counts:
        values, size = params, number(end / count)
        for _ in range(count):
            look = drive.look(flow.posterior(values).mean)
            values = advance(rule, values, reference, look, drive.width, costs, size, sampled=False)
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


# The model ------------------------------------------------------------------------------------------------

SHAPE = (1, 4, 4)
VARIANTS = {
    "expected": {},
    "euler unguarded": {"integrator": "euler", "guard": False},
    "sampled": {"dynamics": "sampled"},
    "sampled, learned bias": {"dynamics": "sampled", "self_inhibition": "learned"},
    "published": {"dynamics": "sampled", "reference": "previous", "self_inhibition": "learned", "kl_form": "published"},
    "inner steps": {"inner_steps": 2, "reference": "previous"},
    "truncated": {"backprop_steps": 2},
    "monte carlo": {"estimator": "monte_carlo"},
    "bernoulli": {"latent": "bernoulli", "start": -2.0},
    "gaussian": {"latent": "gaussian", "prior": "fixed"},
    "rectified": {"latent": "rectified_gaussian", "prior": "learned"},
    "last step": {"loss_steps": "last", "noise_variance": "learned", "decoder_bias": True},
    "mlp": {"decoder": "mlp", "hidden": (6,), "start": -2.0},
    "conv": {"decoder": "conv", "hidden": (2, 4), "start": -2.0, "steps": 4},
    "bernoulli pixels": {"likelihood": "bernoulli", "start": -2.0},
}


def fit(**given):
    defaults = {"inference": "iterative", "n_latents": 6, "steps": 10, "batch_size": 20, "inference_steps": 4}
    return FitConfig.from_recipe("default", **{**defaults, "evaluation_steps": 8, **given})


@pytest.fixture(scope="module")
def stimuli():
    causes = torch.poisson(torch.full((100, 6), 0.5), generator=seeded())
    return causes @ draw(6, 16, dtype=torch.float32) + 0.1 * draw(100, 16, seed=1, dtype=torch.float32)


def pixels(stimuli, config):
    return torch.sigmoid(stimuli) if config.likelihood == "bernoulli" else stimuli


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_each_fit_of_a_stack_is_the_fit_alone(stimuli, variant):
    configs = [fit(**variant, beta=b, seed=i) for i, b in enumerate((0.1, 1.0, 4.0))]
    x = pixels(stimuli, configs[0]).double()
    together = Stack(configs, x, SHAPE, window=5)
    train(together)
    for index, config in enumerate(configs):
        alone = Stack([config], x, SHAPE, window=5)
        train(alone)
        ours, theirs = together.result(index), alone.result(0)
        torch.testing.assert_close(ours.history["objective"], theirs.history["objective"], rtol=1e-7, atol=1e-7)
        assert float(ours.model.beta) == pytest.approx(config.beta)
        for name, value in theirs.model.state_dict().items():
            torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_learns_and_files_keep_the_model(stimuli, variant, tmp_path):
    config = fit(**variant)
    x = pixels(stimuli, config)
    model = build_model(config, SHAPE)
    model(x, 1.0, 0.1 if model.law.has_rate else 0.0, exact=config.exact, generator=seeded()).total.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name
    save_model(model, tmp_path / "m.safetensors")
    again, _ = load_model(tmp_path / "m.safetensors")
    one, two = (m.posterior(x, generator=seeded(3)) for m in (model, again))
    assert torch.equal(one.mean, two.mean)
    first, second = (evaluate(model, x, seed=5).metrics for _ in range(2))
    assert str(first) == str(second) and first.nan_count == 0  # NaN, what a law has not, is not equal to itself


def test_steps_of_a_stream_are_those_of_a_look(stimuli):
    for options in ({}, {"dynamics": "sampled"}, {"reference": "previous", "inner_steps": 2}):
        model = build_model(fit(**options), SHAPE).double().requires_grad_(False)
        x, generator = stimuli[:7].double(), seeded(2)
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
    """All stimuli together, one by one, and in two parts; of still frames it is the loop over one look's steps."""
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


def test_a_stream_holds_as_much_after_a_thousand_frames_as_after_ten():
    model = build_model(fit(), SHAPE)
    frames = grating(SHAPE, 1010, orientation=0.3, spatial_frequency=0.2)
    held, stream = [], model.stream(frames)
    for count, state in enumerate(stream, 1):
        if count in (10, 1010):
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


def test_sampled_dynamics_emit_whole_spikes_and_need_a_generator(stimuli):
    model = build_model(fit(dynamics="sampled"), SHAPE)
    state = model.infer(stimuli, 3, generator=seeded())
    assert torch.equal(state.emitted, state.emitted.round()) and state.emitted.max() > 0
    with pytest.raises(ValueError, match="pass generator="):
        model.posterior(stimuli)


def test_longer_inference_lowers_the_free_energy(stimuli):
    model = build_model(fit(init_scale=0.5), SHAPE).requires_grad_(False)
    energies = []
    for steps in (1, 2, 4, 8, 16, 64):
        q = model.law_of(model.infer(stimuli, steps))
        energies.append(float((model.expected_distortion(stimuli, q) + kl_divergence(q, model.prior()).sum(-1)).mean()))
    assert all(b < a for a, b in pairwise(energies))
    assert energies[-2] - energies[-1] < 0.1 * (energies[0] - energies[-1])


def test_forward_is_the_mean_free_energy_of_the_steps(stimuli):
    config = fit(beta=0.5)
    model = build_model(config, SHAPE).double()
    x, beta, price = stimuli.double(), 0.5, 0.3
    model.spike_price.fill_(price)
    with torch.no_grad():
        ours = model(x, beta, price, exact=True)
        totals = []
        for steps in range(1, 5):
            q = model.law_of(model.infer(x, steps))
            cost = beta * kl_divergence(q, model.prior()).sum(-1) + price * q.mean.sum(-1)
            totals.append((model.expected_distortion(x, q) + cost).mean())
        assert ours.total.item() == pytest.approx(torch.stack(totals).mean().item(), rel=1e-9)
        model.loss_steps = "last"
        assert model(x, beta, price, exact=True).total.item() == pytest.approx(totals[-1].item(), rel=1e-9)


@pytest.mark.parametrize("latent", LAWS)
def test_gradients_through_the_steps_by_finite_differences(stimuli, latent):
    model = build_model(fit(latent=latent, prior="learned", guard=False, noise_variance="learned"), SHAPE).double()
    x = stimuli[:5].double()
    names = [name for name, _ in model.named_parameters()]

    def total(*values):
        return torch.func.functional_call(model, dict(zip(names, values)), (x, 0.7, 0.0), {"exact": True}).total

    assert torch.autograd.gradcheck(total, tuple(p.detach().requires_grad_() for p in model.parameters()), atol=1e-6)


def test_the_guard_is_a_constant_to_the_gradient(stimuli):
    """Where no step is halved, guarded and unguarded training agree in value and gradient."""
    values = []
    for guarded in (True, False):
        model = build_model(fit(guard=guarded, step_size=0.01), SHAPE).double()
        total = model(stimuli.double(), 1.0, 0.0, exact=True).total
        values.append((total, *torch.autograd.grad(total, list(model.parameters()))))
    torch.testing.assert_close(*values)


def test_truncation_cuts_the_gradient_and_not_the_value(stimuli):
    results = []
    for steps in (None, 4, 1):
        model = build_model(fit(backprop_steps=steps, prior="fixed"), SHAPE).double()
        total = model(stimuli.double(), 1.0, 0.0, exact=True).total
        results.append((total.item(), torch.autograd.grad(total, model.log_step_size)[0].item()))
    assert results[0] == pytest.approx(results[1])
    assert results[2][0] == pytest.approx(results[0][0]) and abs(results[2][1] - results[0][1]) > 1e-3 * abs(
        results[0][1]
    )


def test_published_form_of_the_divergence():
    """Rate 0.7, residual 0.9: 0.5278 nats; the published code's prefactor makes it 1.2982."""
    q, prior = Poisson(torch.tensor([math.log(0.7) + 0.9])), Poisson(torch.tensor([math.log(0.7)]))
    correct = kl_divergence(q, prior).item()
    published = correct * math.exp(0.9)
    assert correct == pytest.approx(0.527828, abs=1e-6) and published == pytest.approx(1.2982, abs=1e-4)
    one = {"n_latents": 1, "inference_steps": 1, "prior": "learned"}
    x, kls = draw(3, 16, dtype=torch.float32), []
    for form in ("correct", "published"):
        model = build_model(fit(**one, kl_form=form), SHAPE)
        kls.append(model(x, 1.0, 0.0, exact=True).kl.item())
        q, prior = model.law_of(model.infer(x, 1)), model.prior()
    ratio = (q.rate / prior.rate)[:, 0]
    divergence = kl_divergence(q, prior)[:, 0]
    assert kls[0] == pytest.approx(divergence.mean().item(), rel=1e-4)
    assert kls[1] == pytest.approx((ratio * divergence).mean().item(), rel=1e-4)


def test_iterative_inference_beats_an_encoder_on_the_same_free_energy(stimuli):
    """Same budget, data and costs: a linear encoder leaves a gap that inference closes."""
    results = {}
    for inference in ("amortised", "iterative"):
        given = {"inference": inference, "steps": 100, "n_latents": 8, "batch_size": 50, "learning_rate": 0.03}
        if inference == "iterative":
            given["inference_steps"] = 5
        stack = Stack([FitConfig.from_recipe("default", **given)], stimuli, SHAPE)
        train(stack)
        results[inference] = evaluate(stack.result(0).model, stimuli).metrics.free_energy
    assert results["iterative"] < 0.95 * results["amortised"]


def test_estimator_takes_iterative_inference(stimuli):
    x = stimuli.numpy()
    model = SpikeVAE(n_latents=6, steps=20, random_state=0, options={"inference": "iterative", "dynamics": "sampled"})
    model.fit(x)
    np.testing.assert_array_equal(model.transform(x), model.transform(x))
    assert model.sample_codes(x).dtype == np.int64 and np.isfinite(model.score(x))


def test_energy_of_inference_is_what_the_states_say(stimuli):
    """Spikes, operations and R2 of each step, recomputed from the states one by one."""
    model = build_model(
        fit(dynamics="sampled", init_scale=0.8, inner_steps=2, start=-4.0, step_size=0.02), SHAPE
    ).requires_grad_(False)
    energy = inference_energy(model, stimuli, steps=10, seed=3)
    states = list(model.trajectory(stimuli, 10, generator=seeded(3)))
    assert len(states) == 20 == len(energy.r2)
    spikes = [float(s.emitted.sum(1).mean()) for s in states]
    np.testing.assert_allclose(energy.spikes, spikes, rtol=1e-6)
    np.testing.assert_allclose(energy.operations, np.array(spikes) * 6, rtol=1e-6)  # K synapses a spike
    np.testing.assert_allclose(energy.macs, [16 * 6] + [0] * 19)  # the stimulus comes in once
    np.testing.assert_allclose(energy.joules, 4.6e-12 * energy.macs + 0.9e-12 * energy.operations)
    np.testing.assert_allclose(
        energy.r2, [r2_pooled(stimuli, model.decode(model.codes(s))) for s in states], rtol=1e-5, atol=1e-6
    )
    kls = [float(kl_divergence(model.law_of(s), model.prior()).sum(1).mean()) for s in states]
    np.testing.assert_allclose(energy.kl, kls, rtol=1e-5)
    n = int(energy.steps_to_share)
    assert energy.r2[-1] > 0 and n == next(i for i, r2 in enumerate(energy.r2, 1) if r2 >= 0.95 * energy.r2[-1]) > 1
    assert energy.spikes_to_share == pytest.approx(sum(spikes[:n]))
    assert energy.operations_to_share == pytest.approx(6 * sum(spikes[:n]), rel=1e-6)
    assert energy.joules_to_share == pytest.approx(energy.joules[:n].sum())


def test_energy_of_graded_inference(stimuli):
    """Expected dynamics send K graded values a step; a Gaussian code has no spikes; a network works each step."""
    linear, signed, network = (
        inference_energy(build_model(fit(**options), SHAPE), stimuli, steps=3, seed=0, batch_size=30)
        for options in ({}, {"latent": "gaussian", "prior": "fixed"}, {"decoder": "mlp", "hidden": (5,), "start": -2.0})
    )
    assert (linear.operations == 6 * 6).all() and (linear.spikes > 0).all()
    assert np.isnan(signed.spikes).all() and np.isnan(signed.spikes_to_share)
    assert (network.macs == 2 * (6 * 5 + 5 * 16) - 6 * 5).all()
    assert (network.operations < 6 * 5 * 10).all()
    with pytest.raises(ValueError, match="expected \\(m, 16\\)"):
        inference_energy(build_model(fit(), SHAPE), stimuli[:, :3])
    with pytest.raises(ValueError, match="steps=0"):
        inference_energy(build_model(fit(), SHAPE), stimuli, steps=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inference": "amortised", "guard": False}, "guard need inference='iterative'"),
        ({"dynamics": "expected", "decoder": "mlp"}, "needs decoder='linear'"),
        ({"self_inhibition": "exact", "decoder": "mlp"}, "use 'learned'"),
        ({"self_inhibition": "learned"}, "needs dynamics='sampled'"),
        ({"self_inhibition": "none", "latent": "gaussian", "dynamics": "sampled"}, "latent of counts"),
        ({"kl_form": "published", "latent": "gaussian"}, "Poisson divergence"),
        ({"backprop_steps": 2, "loss_steps": "last"}, "cuts off steps"),
        ({"inference": "iterativ"}, "Did you mean 'iterative'"),
        ({"inference_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        fit(**given)


def test_files_that_ask_for_endless_inference_are_refused(tmp_path):
    config = fit()
    path = tmp_path / "m.safetensors"
    model = build_model(config, SHAPE)
    model.config = config.model_copy(update={"evaluation_steps": 10**12})
    save_model(model, path)
    with pytest.raises(ValueError, match="evaluation_steps"):
        load_model(path)


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


def test_the_leak_is_of_the_inner_beta():
    """One Euler step from a state off the reference moves by the leak at `beta_inner`, whatever beta is."""
    common = {"integrator": "euler", "guard": False, "step_size": 1e-3, "beta": 5.0}
    x = draw(3, 16)
    moved = {}
    for inner in (None, 0.5):
        model = build_model(fit(**common, beta_inner=inner), SHAPE).double()
        state = model.init_state(3)._replace(params=(model.init_state(3).params[0] + 1.0,))
        moved[inner] = model.infer_step(state, x).params[0]
    torch.testing.assert_close(moved[0.5] - moved[None], torch.full((3, 6), 1e-3 * 4.5, dtype=torch.float64))


def test_published_reference_measures_each_step_from_the_one_before(stimuli):
    """KL of training with reference="previous": the mean over steps of that from posterior to posterior."""
    model = build_model(fit(reference="previous", step_size=0.3), SHAPE).double()
    x = stimuli[:5].double()
    parts = model(x, 1.0, 0.0, exact=True)
    states = [model.init_state(5), *model.trajectory(x, 4)]
    laws = [model.law_of(state) for state in states]
    expected = torch.stack([kl_divergence(q, p).sum(-1).mean() for p, q in pairwise(laws)]).mean()
    torch.testing.assert_close(parts.kl, expected)


def test_sampled_dynamics_with_the_exact_objective_hold_the_mean_against_the_pixels(stimuli):
    model = build_model(fit(dynamics="sampled", inference_steps=1), SHAPE).double()
    x = stimuli[:50].double()
    parts = model(x, 1.0, 0.0, exact=True, generator=seeded(1))
    generator = seeded(1)

    def drawn_of(law):
        return law.relaxed(temperature=0.05, indicator="cubic").rsample(generator=generator)

    law = model.law_of(model.init_state(50))  # of the step, all that is random is the state that it ends in
    drawn = drawn_of(law)
    look = model._drive(x, reused=True).look(drawn)
    drive = model._drive(x, reused=True)
    costs = model._costs(1.0, 0.0)
    end = advance(
        model.rule,
        model.flow.params(law),
        model._start(),
        look,
        drive.width,
        costs,
        model.log_step_size.exp(),
        sampled=True,
    )
    q = model.flow.posterior(end)
    error = expected_squared_error(x, model.decode(q.mean), q.variance, model.dictionary)
    torch.testing.assert_close(parts.distortion, error.mean())
    monte_carlo = model(x, 1.0, 0.0, exact=False, generator=seeded(1))
    error = (x - drawn_of(q) @ model.dictionary).square().sum(1)
    torch.testing.assert_close(monte_carlo.distortion, error.mean())


def test_learned_self_inhibition_inhibits_and_spikes_have_their_price():
    x = draw(4, 16)
    steps = {}
    for name, options in {
        "plain": {"self_inhibition": "none"},
        "inhibited": {"self_inhibition": "learned"},
        "priced": {"self_inhibition": "none", "spike_price": 0.7},
    }.items():
        config = fit(dynamics="sampled", integrator="euler", step_size=0.01, **options)
        model = build_model(config, SHAPE).double()
        steps[name] = model.infer_step(model.init_state(4), x, generator=seeded(3)).params[0]
    inhibition = 0.01 * math.exp(-3.0)
    torch.testing.assert_close(steps["plain"] - steps["inhibited"], torch.full((4, 6), inhibition, dtype=torch.float64))
    torch.testing.assert_close(steps["plain"] - steps["priced"], torch.full((4, 6), 0.007, dtype=torch.float64))


def test_dense_arithmetic_of_inference():
    """16 pixels, 6 units, 8 steps: the drive once, K^2 a step; twice the decoder a step where it is not linear."""
    assert build_model(fit(), SHAPE).inference_macs() == 16 * 6 + 8 * 36
    assert build_model(fit(n_latents=40), SHAPE).inference_macs() == 16 * 40 + 8 * 40 * 32
    network = build_model(fit(decoder="mlp", hidden=(5,), inner_steps=2), SHAPE)
    assert network.inference_macs() == 2 * 16 * (6 * 5 + 5 * 16)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"integrator": "rk4"}, "integrator: Input should be 'euler' or 'exponential'"),
        ({"reference": "prio"}, "reference"),
        ({"step_size": -1.0}, "step_size"),
        ({"backprop_steps": 0}, "backprop_steps"),
        ({"dynamics": "expected", "decoder": "mlp"}, "needs decoder='linear'"),
    ],
)
def test_configurations_refuse_values_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        fit(**given)


def test_streams_and_accounts_refuse_what_is_not_finite(stimuli):
    model = build_model(fit(), SHAPE)
    frames = [stimuli[:2], torch.full((2, 16), math.nan)]
    stream = model.stream(frames)
    assert next(stream).params[0].isfinite().all()
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        next(stream)
    with pytest.raises(ValueError, match="NaN"):
        inference_energy(model, frames[1])
    with pytest.raises(TypeError, match="step by step"):
        inference_energy(build_model(FitConfig.from_recipe("default", n_latents=4), SHAPE), stimuli)
    with pytest.raises(ValueError, match="steps=-3"):
        model.infer(stimuli, -3)
    with pytest.raises(ValueError, match="take fewer steps"):
        fit(inference_steps=10_000, inner_steps=1000)
