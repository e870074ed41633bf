"""Iterative inference: the model, its gradients, its objective, its settings."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import draw, seeded
from iterative_cases import LAWS, SHAPE, advance, fit
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.distributions import Poisson
from spikevae.estimators.spike_vae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.models import build_model, load_model, save_model
from spikevae.objectives import expected_squared_error
from spikevae.training import Stack, train

VARIANTS = {
    "expected": {},
    "euler without line search": {"integrator": "euler", "guard": False},
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


def pixels(mixtures, config):
    return torch.sigmoid(mixtures) if config.likelihood == "bernoulli" else mixtures


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_each_fit_of_a_stack_is_the_fit_alone(mixtures, variant):
    configs = [fit(**variant, beta=b, seed=i) for i, b in enumerate((0.1, 1.0, 4.0))]
    x = pixels(mixtures, configs[0]).double()
    together = Stack(configs, x, SHAPE, window=5)
    train(together)
    for index in (0, 2):
        alone = Stack([configs[index]], x, SHAPE, window=5)
        train(alone)
        ours, theirs = together.result(index), alone.result(0)
        torch.testing.assert_close(ours.history["objective"], theirs.history["objective"], rtol=1e-7, atol=1e-7)
        assert float(ours.model.beta) == pytest.approx(configs[index].beta)
        for name, value in theirs.model.state_dict().items():
            torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_learns_and_files_keep_the_model(mixtures, variant, tmp_path):
    config = fit(**variant)
    x = pixels(mixtures, config)
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


def test_sampled_dynamics_emit_whole_spikes_and_need_a_generator(mixtures):
    model = build_model(fit(dynamics="sampled"), SHAPE)
    state = model.infer(mixtures, 3, generator=seeded())
    assert torch.equal(state.emitted, state.emitted.round()) and state.emitted.max() > 0
    with pytest.raises(ValueError, match="pass generator="):
        model.posterior(mixtures)


def test_longer_inference_lowers_the_free_energy(mixtures):
    model = build_model(fit(init_scale=0.5), SHAPE).requires_grad_(False)
    energies = []
    for steps in (1, 2, 4, 8, 16, 64):
        q = model.law_of(model.infer(mixtures, steps))
        energies.append(
            float((model.expected_distortion(mixtures, q) + kl_divergence(q, model.prior()).sum(-1)).mean())
        )
    assert all(b < a for a, b in pairwise(energies))
    assert energies[-2] - energies[-1] < 0.1 * (energies[0] - energies[-1])


def test_forward_is_the_mean_free_energy_of_the_steps(mixtures):
    config = fit(beta=0.5)
    model = build_model(config, SHAPE).double()
    x, beta, price = mixtures.double(), 0.5, 0.3
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
def test_gradients_through_the_steps_by_finite_differences(mixtures, latent):
    model = build_model(fit(latent=latent, prior="learned", guard=False, noise_variance="learned"), SHAPE).double()
    x = mixtures[:5].double()
    names = [name for name, _ in model.named_parameters()]

    def total(*values):
        return torch.func.functional_call(model, dict(zip(names, values)), (x, 0.7, 0.0), {"exact": True}).total

    assert torch.autograd.gradcheck(total, tuple(p.detach().requires_grad_() for p in model.parameters()), atol=1e-6)


def test_gradients_do_not_pass_through_the_line_search(mixtures):
    """Where no step is shortened, training with and without line search agree in value and gradient."""
    values = []
    for guard in (True, False):
        model = build_model(fit(guard=guard, step_size=0.01), SHAPE).double()
        total = model(mixtures.double(), 1.0, 0.0, exact=True).total
        values.append((total, *torch.autograd.grad(total, list(model.parameters()))))
    torch.testing.assert_close(*values)


def test_truncation_cuts_the_gradient_and_not_the_value(mixtures):
    results = []
    for steps in (None, 4, 1):
        model = build_model(fit(backprop_steps=steps, prior="fixed"), SHAPE).double()
        total = model(mixtures.double(), 1.0, 0.0, exact=True).total
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


def test_iterative_inference_beats_an_encoder_on_the_same_free_energy(mixtures):
    """Same budget, data and costs: a linear encoder leaves a gap that inference closes."""
    results = {}
    for inference in ("amortised", "iterative"):
        given = {"inference": inference, "steps": 100, "n_latents": 8, "batch_size": 50, "learning_rate": 0.03}
        if inference == "iterative":
            given["inference_steps"] = 5
        stack = Stack([FitConfig.from_recipe("default", **given)], mixtures, SHAPE)
        train(stack)
        results[inference] = evaluate(stack.result(0).model, mixtures).metrics.free_energy
    assert results["iterative"] < 0.95 * results["amortised"]


def test_estimator_takes_iterative_inference(mixtures):
    x = mixtures.numpy()
    model = SpikeVAE(n_latents=6, steps=20, random_state=0, options={"inference": "iterative", "dynamics": "sampled"})
    model.fit(x)
    np.testing.assert_array_equal(model.transform(x), model.transform(x))
    assert model.sample_codes(x).dtype == np.int64 and np.isfinite(model.score(x))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inference": "amortised", "guard": False}, "guard need inference='iterative'"),
        ({"dynamics": "expected", "decoder": "mlp"}, "needs decoder='linear'"),
        ({"self_inhibition": "exact", "decoder": "mlp"}, "use 'learned'"),
        ({"self_inhibition": "learned"}, "needs dynamics='sampled'"),
        ({"self_inhibition": "none", "latent": "gaussian", "dynamics": "sampled"}, "latent of counts"),
        ({"kl_form": "published", "latent": "gaussian"}, "Poisson distribution only"),
        ({"backprop_steps": 2, "loss_steps": "last"}, "before the cut no gradient"),
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


def test_published_reference_measures_each_step_from_the_one_before(mixtures):
    """KL of training with reference="previous": the mean over steps of that from posterior to posterior."""
    model = build_model(fit(reference="previous", step_size=0.3), SHAPE).double()
    x = mixtures[:5].double()
    parts = model(x, 1.0, 0.0, exact=True)
    states = [model.init_state(5), *model.trajectory(x, 4)]
    laws = [model.law_of(state) for state in states]
    expected = torch.stack([kl_divergence(q, p).sum(-1).mean() for p, q in pairwise(laws)]).mean()
    torch.testing.assert_close(parts.kl, expected)


def test_sampled_dynamics_with_the_exact_objective_hold_the_mean_against_the_pixels(mixtures):
    model = build_model(fit(dynamics="sampled", inference_steps=1), SHAPE).double()
    x = mixtures[:50].double()
    parts = model(x, 1.0, 0.0, exact=True, generator=seeded(1))
    generator = seeded(1)

    def drawn_of(law):
        return law.sample(generator=generator)

    law = model.law_of(model.init_state(50))  # of the step, all that is random is the state that it ends in
    drawn = drawn_of(law)
    point = model._likelihood_of(x, reused=True).at(drawn)
    likelihood = model._likelihood_of(x, reused=True)
    costs = model._costs(1.0, 0.0)
    end = advance(
        model.rule,
        model.flow.params(law),
        model._prior_params(),
        point,
        likelihood.self_inhibition,
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
    """16 pixels, 6 units, 8 steps: the drive once, K^2 per step; twice the decoder per step where it is not linear."""
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
