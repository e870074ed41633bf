"""The stack equals its fits alone, holds each fit apart from the others, and follows the published schedules."""

import math

import pytest
import torch
from training_cases import SHAPE, SPARSE, VARIANTS, fit

from spikevae._seeds import PURPOSES, derived_seed
from spikevae.config import FitConfig
from spikevae.distributions import LAWS
from spikevae.evaluation.evaluate import evaluate
from spikevae.models import build_model, load_model, save_model
from spikevae.training import Stack, train
from spikevae.training import schedules as s
from spikevae.training.build import STACKS
from spikevae.training.fits import DIVERGED, SETTLED, stack_key


@pytest.mark.parametrize("variant", [*VARIANTS.values(), *SPARSE.values()], ids=[*VARIANTS, *SPARSE])
def test_each_fit_of_a_stack_is_the_fit_alone(stimuli, variant):
    """In float64, where rounding is 1e-16 per step, 20 steps leave 1e-9 of relative difference."""
    configs = [
        fit(**{"steps": 20, **variant}, beta=b, seed=i, **({} if variant.get("latent") == "sparse" else {"start": c}))
        for i, (b, c) in enumerate([(0.1, -2.0), (1.0, 0.5), (4.0, 0.5)])
    ]
    kind = STACKS[configs[0].trainer]
    together = kind(configs, stimuli.double(), SHAPE, window=5)
    train(together)
    for index in (0, 2):
        alone = kind([configs[index]], stimuli.double(), SHAPE, window=5)
        train(alone)
        ours, theirs = together.result(index), alone.result(0)
        torch.testing.assert_close(ours.history["objective"], theirs.history["objective"], rtol=1e-9, atol=1e-9)
        for name, value in theirs.model.state_dict().items():
            torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("latent", LAWS)
def test_a_fit_of_every_law_is_kept_and_measured(stimuli, latent, tmp_path):
    config = fit(latent=latent, steps=200)
    stack = Stack([config], stimuli, SHAPE)
    train(stack)
    result = stack.result(0)
    assert result.history["objective"][-1] < 0.9 * result.history["objective"][0]
    save_model(result.model, tmp_path / "fit.spikevae")
    model, _ = load_model(tmp_path / "fit.spikevae")
    for name, value in result.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    metrics = evaluate(model, stimuli, seed=0).metrics
    assert metrics.r2_pooled > 0.2
    counts = LAWS[latent].is_count
    assert not counts or (metrics.spikes > 0 and metrics.joules > 0)
    assert math.isfinite(metrics.bits_per_spike) or not counts


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["poisson exact", "poisson sampled", "poisson learned prior"])
def test_training_lowers_the_objective(stimuli, variant):
    stack = Stack([fit(**VARIANTS[variant], steps=300, init="random")], stimuli, SHAPE)
    train(stack)
    history = stack.result(0).history["objective"]
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize("given", [{"beta": 0.0}, {"beta": 1e-8}, {"init": "random", "start": 5.0}], ids=str)
def test_log_rates_far_above_the_clamp_do_not_stop_a_fit(stimuli, given):
    stack = Stack([fit(steps=100, **given)], 20 * stimuli, SHAPE)
    train(stack)
    assert stack.result(0).status != DIVERGED


def test_a_fit_that_diverges_leaves_the_others_alone(stimuli):
    """beta = 1e30 times a KL overflows float32 within a few steps; its neighbours must not notice."""
    configs = [fit(seed=0), fit(seed=1, beta=3e38), fit(seed=2)]
    stack = Stack(configs, stimuli, SHAPE, window=5)
    train(stack)
    bad = stack.result(1)
    assert bad.status == DIVERGED and bad.frozen_at is not None
    assert all(torch.isfinite(value).all() for value in bad.model.state_dict().values())
    for index in (0, 2):
        alone = Stack([configs[index]], stimuli, SHAPE, window=5)
        train(alone)
        ours, theirs = stack.result(index).history["objective"], alone.result(0).history["objective"]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_settled_fit_stops_and_stays(stimuli):
    configs = [fit(patience=2, stop_tolerance=0.5, steps=400, seed=i) for i in range(2)]
    stack = Stack(configs, stimuli, SHAPE, window=10)
    train(stack)
    results = [stack.result(i) for i in range(2)]
    assert all(r.status == SETTLED and 10 < r.frozen_at < 400 for r in results)
    assert stack.step_number == max(r.frozen_at for r in results)


def test_gradient_clip_bounds_the_norm_a_fit_at_a_time(stimuli):
    """With Adam the first step does not depend on the clip, so compare the second moments: g is scaled to the clip."""
    free = Stack([fit(warmup=0.0), fit(warmup=0.0, seed=1)], stimuli, SHAPE)
    clipped = Stack([fit(warmup=0.0, grad_clip=1.0), fit(warmup=0.0, grad_clip=1.0, seed=1)], stimuli, SHAPE)
    free.step()
    clipped.step()

    def norms(stack):
        squares = [state["exp_avg_sq"].flatten(1).sum(1) for state in stack.optimizer.state.values()]
        return (torch.stack(squares).sum(0) / (1 - 0.999)).sqrt()

    assert (norms(free) > 2).all()
    torch.testing.assert_close(norms(clipped), torch.ones(2), rtol=1e-3, atol=0)


def test_closed_form_prior_is_the_mean_posterior_firing_rate(stimuli):
    stack = Stack([fit(steps=600)], stimuli, SHAPE)
    train(stack)
    model = stack.result(0).model
    with torch.inference_mode():
        mean = model.posterior(stimuli).mean.mean(0)
    torch.testing.assert_close(model.prior().mean, mean, rtol=0.05, atol=1e-3)


def test_schedules_follow_the_published_ones():
    """arXiv 2602.13421 (logs): warm-up 5 of 3000 epochs, cosine to 1e-5, beta and temperature linear over a half."""
    paper = FitConfig.from_recipe("paper", latent="poisson", beta=2.0)
    n = 3000
    lr = lambda t: s.learning_rate(t, n, peak=0.005, end=1e-5, warmup=paper.warmup, cycles=1)
    assert lr(0) == pytest.approx(0.001) and lr(4) == pytest.approx(0.005) and lr(5) == pytest.approx(0.005)
    assert lr(5 + 2995 // 2) == pytest.approx(1e-5 + (0.005 - 1e-5) / 2, rel=1e-2)
    assert lr(n - 1) == pytest.approx(1e-5, rel=1e-2)
    assert s.linear_ramp(0, n, 0.5, 1.0, 0.05) == 1.0
    assert s.linear_ramp(750, n, 0.5, 1.0, 0.05) == pytest.approx(0.525)
    assert s.linear_ramp(1500, n, 0.5, 1.0, 0.05) == 0.05
    assert s.linear_ramp(3, n, 0.0, 0.0, 1.0) == 1.0


def test_fond_recipe_is_the_published_configuration():
    """arXiv 2410.19315 (configuration of whitened photographs); Gaussians have no learned self-inhibition."""
    fond = FitConfig.from_recipe("fond", beta=24.0)
    published = {
        "inference_steps": 16, "dynamics": "sampled", "reference": "previous", "integrator": "euler", "step_size": 1.0,
        "learn_step_size": True, "self_inhibition": "learned", "noise_variance": "learned", "prior": "learned",
        "init_scale": 1e-4, "optimizer": "adamax", "learning_rate": 0.005, "batch_size": 200, "epochs": 300,
        "warmup": 0.005, "grad_clip": 300.0, "beta_anneal": 0.1, "temperature_start": 1.0, "temperature": 0.01,
        "temperature_anneal": 0.5, "inner_steps": 1, "kl_form": "correct",
    }  # fmt: skip
    assert {name: getattr(fond, name) for name in published} == published
    for latent in ("gaussian", "rectified_gaussian", "bernoulli"):
        assert FitConfig.from_recipe("fond", latent=latent).inference == "iterative"


def test_two_cycles_repeat_the_learning_rate():
    one = [s.learning_rate(t, 100, peak=1, end=0, warmup=0.1, cycles=1) for t in range(100)]
    two = [s.learning_rate(t, 200, peak=1, end=0, warmup=0.1, cycles=2) for t in range(200)]
    assert two == one + one


def test_derived_seeds_differ():
    seeds = {derived_seed(a, p, i) for a in range(20) for p in PURPOSES for i in range(50)}
    assert len(seeds) == 20 * len(PURPOSES) * 50
    assert max(seeds) < 2**63


def test_global_random_state_is_untouched(stimuli):
    before = torch.get_rng_state()
    stack = Stack([fit(estimator="monte_carlo", steps=4)], stimuli, SHAPE)
    train(stack)
    assert torch.equal(before, torch.get_rng_state())


def test_stack_key_separates_shapes_and_joins_betas():
    assert stack_key(fit(beta=1.0, seed=0, start=-5.0)) == stack_key(fit(beta=4.0, seed=3, start=0.5))
    assert stack_key(fit()) != stack_key(fit(n_latents=9))
    with pytest.raises(ValueError, match="may differ only in"):
        Stack([fit(), fit(n_latents=9)], torch.zeros(10, 16), SHAPE)
    with pytest.raises(ValueError, match="empty"):
        Stack([fit()], torch.zeros(0, 16), SHAPE)


def test_exact_and_sampled_objectives_agree(stimuli):
    """2,000 relaxed samples per stimulus at temperature .02 (cubic: exact mean, variance .5 % low) and the closed form.

    The standard error of the mean distortion is a few tenths of a per cent; a lost factor would show at once.
    """
    for latent in ("poisson", "gaussian", "rectified_gaussian"):
        config = fit(latent=latent, prior="learned", start=0.0)
        model = build_model(config, SHAPE)
        x = stimuli[:50]
        exact = model(x, 1.0, 0.0, exact=True).distortion.item()
        g = torch.Generator().manual_seed(1)
        many = x.repeat(50, 1)
        draws = [model(many, 1.0, 0.0, exact=False, temperature=0.02, generator=g).distortion for _ in range(40)]
        draws = torch.stack(draws).detach()
        error = float(draws.std() / math.sqrt(len(draws)))
        assert abs(float(draws.mean()) - exact) < 4 * error + 0.006 * exact, latent


def test_spike_price_is_paid_a_spike(stimuli):
    model = build_model(fit(start=0.5), SHAPE)
    with torch.no_grad():
        free, paid = (model(stimuli, 1.0, price, exact=True) for price in (0.0, 0.3))
    assert float(paid.total - free.total) == pytest.approx(0.3 * float(free.spikes), rel=1e-5)
    with torch.no_grad():
        assert float(free.spikes) == pytest.approx(float(model.posterior(stimuli).mean.sum(1).mean()), rel=1e-5)


def test_noise_variance_scales_the_distortion(stimuli):
    """-log N(x; y, v) with constants dropped so that v = 1/2 is the squared error."""
    x = stimuli[:20]
    half, wide = (build_model(fit(noise_variance=v), SHAPE) for v in (0.5, 2.0))
    a, b = (m(x, 1.0, 0.0, exact=True).distortion.item() for m in (half, wide))
    assert b == pytest.approx(a / 4 + 8 * math.log(4.0), rel=1e-5)


def test_learned_noise_variance_finds_the_error(stimuli):
    """At the optimum of SSE/(2v) + D/2 log 2v the variance is the mean squared error a pixel."""
    stack = Stack(
        [fit(noise_variance="learned", steps=800, n_latents=2, latent="gaussian", learning_rate=0.02)],
        stimuli,
        SHAPE,
    )
    train(stack)
    model = stack.result(0).model
    with torch.inference_mode():
        q = model.posterior(stimuli)
        wanted = model.expected_distortion(stimuli, q)
        v = model.log_noise_variance.exp()
        error = (wanted.mean() - 8 * torch.log(2 * v)) * 2 * v / 16
    assert float(v) == pytest.approx(float(error), rel=0.1)


def test_bernoulli_pixels_are_a_cross_entropy():
    import scipy.stats

    g = torch.Generator().manual_seed(0)
    model = build_model(fit(likelihood="bernoulli", decoder_bias=True), SHAPE)
    x = (torch.rand(5, 16, generator=g) > 0.5).float()
    code = torch.rand(5, 8, generator=g)
    with torch.inference_mode():
        p = model.decode(code).double().numpy()
        ours = model.distortion(x, code).numpy()
    assert ours == pytest.approx(-scipy.stats.bernoulli(p).logpmf(x.numpy()).sum(1), rel=1e-5)


def test_an_mlp_poisson_fit_does_not_fall_silent():
    """Images of a few strokes: over 10 nats for three seeds; 0.5 to 1.7 from a decoder's head at full gain."""
    g = torch.Generator().manual_seed(0)
    strokes = (torch.rand(10, 400, generator=g) < 0.15).float()
    x = (torch.rand(1000, 10, generator=g) < 0.2).float() @ strokes
    config = fit(encoder="mlp", decoder="mlp", hidden=(64,), n_latents=10, steps=400, batch_size=100)
    stack = Stack([config], x.clamp(0, 1), (400,))
    train(stack)
    assert stack.result(0).history["kl"][-1] > 5.0
