"""The objective "pac_m": values and gradients against closed forms, enumeration, quadrature; training with it."""

import math

import numpy as np
import pytest
import torch
from helpers import T, draw, seeded
from law_cases import parameters_of
from scipy import stats
from sweep_cases import DATA
from test_importance import DICTIONARY, LAWS_OF_PAIRS, check, codes, distortion
from training_cases import SHAPE, fit

import spikevae as sv
from spikevae.config import FitConfig
from spikevae.distributions import LAWS, Bernoulli, Gaussian, Poisson
from spikevae.models.build import build_model
from spikevae.robust import batch_reference, log_t, multi_sample, referenced_log_t
from spikevae.sweep import RunFolder, Sweep
from spikevae.training import Stack, train

MU, V, S2 = 0.4, 0.8, 0.5
"""Mean and variance of the posterior of one Gaussian code, and the variance of the pixel."""


def referenced(density, reference, t):
    """-r - log_t(p / r) by its definition, with weight 1 above the reference; NumPy."""
    ratio = np.minimum(density / reference, 1)
    log_ratio = (ratio ** (1 - t) - 1) / (1 - t) if t < 1 else np.log(ratio)
    return -np.log(np.maximum(density, reference)) - log_ratio


def pixel(y):
    """Minus the log-density of pixels y (B,) given Gaussian codes (m, B, 1)."""
    return lambda code: 0.5 * math.log(2 * math.pi * S2) + (y - code[..., 0]).square() / (2 * S2)


def gaussian(n):
    return Gaussian(torch.full((n, 1), MU).double(), torch.full((n, 1), 0.5 * math.log(V)).double())


@pytest.mark.parametrize("t", [0.0, 0.5, 0.9, 1 - 1e-9, 1.0])
def test_log_t_is_its_definition_and_finite(t):
    log_x = torch.linspace(-3, 3, 13).double()
    expected = log_x if t > 0.999 else (log_x.exp() ** (1 - t) - 1) / (1 - t)
    torch.testing.assert_close(log_t(log_x, t), expected, rtol=1e-8, atol=1e-8)
    if t < 0.99:
        assert abs(float(log_t(T(-1e4), t)) + 1 / (1 - t)) < 1e-9


@pytest.mark.parametrize("y", [-1.0, 0.3, 4.0])
def test_one_gaussian_sample_has_the_expected_distortion(y):
    found = multi_sample(pixel(T(y)), gaussian(40_000), samples=1, generator=seeded())
    check(found.value, T(0.5 * math.log(2 * math.pi * S2) + ((y - MU) ** 2 + V) / (2 * S2)))


@pytest.mark.parametrize("t", [1.0, 0.9, 0.3])
def test_many_gaussian_samples_have_the_density_of_the_mixture(t):
    """-log_t of N(y; mu, v + s2), against SciPy, for five pixels of which the third most probable is the reference."""
    y = T([-1.5, 0.0, 0.4, 2.5, 3.5])
    density = stats.norm(MU, math.sqrt(V + S2)).pdf(y.numpy())
    found = multi_sample(pixel(y), gaussian(5), samples=400_000, robustness=t, generator=seeded())
    np.testing.assert_allclose(found.value, referenced(density, np.median(density), t), atol=0.02)
    np.testing.assert_allclose(found.weight, np.minimum(density / np.median(density), 1) ** (1 - t), atol=0.02)


@pytest.mark.parametrize("t", [1.0, 0.6])
def test_the_gradient_of_gaussian_codes_by_quadrature(t):
    """Two samples: mean value and its gradient by mean and log scale, at the reference of the batch."""
    n, y = 40_000, 3.0
    wide = {
        k: v.clone().requires_grad_() for k, v in {"loc": gaussian(n).loc, "log_scale": gaussian(n).log_scale}.items()
    }
    found = multi_sample(pixel(T(y)), Gaussian(**wide), samples=2, robustness=t, generator=seeded())
    with torch.no_grad():  # the same samples again
        z = gaussian(n).relaxed(temperature=1.0, indicator="cubic").rsample((2,), generator=seeded())
        reference = batch_reference(torch.logsumexp(-pixel(T(y))(z), 0) - math.log(2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    nodes, weights = T(nodes), T(weights / math.sqrt(2 * math.pi))
    leaves = [T(MU).requires_grad_(), T(0.5 * math.log(V)).requires_grad_()]
    log_p = -pixel(T(y))((leaves[0] + leaves[1].exp() * nodes)[:, None])
    pairs = torch.logaddexp(log_p[:, None], log_p[None]) - math.log(2)
    exact = -(weights[:, None] * weights * referenced_log_t(pairs, reference, t)).sum()
    check(found.value.detach(), exact.detach())
    expected = torch.autograd.grad(exact, leaves)
    for truth, estimate in zip(expected, torch.autograd.grad(found.value.sum(), list(wide.values()))):
        check(estimate, truth)


def pairs_of(q, z):
    """Probabilities and log mean likelihoods of all pairs of codes."""
    log_q, log_p = q.log_prob(z).sum(-1), -distortion(z)
    return (log_q[:, None] + log_q[None]).exp(), torch.logaddexp(log_p[:, None], log_p[None]) - math.log(2)


@pytest.mark.parametrize("t", [1.0, 0.5])
@pytest.mark.parametrize("name", LAWS_OF_PAIRS)
def test_the_score_function_is_unbiased(name, t):
    """Against enumeration of all pairs, at the median of their distribution, which is that of a large batch."""
    law, n = LAWS[name], 40_000
    base = {k: v - (1.0 if k == "log_rate" else 0.0) for k, v in parameters_of(law, 2, seed=1).items()}
    leaves = {k: v.clone().requires_grad_() for k, v in base.items()}
    chance, log_mean = pairs_of(law.from_prior(leaves), codes(LAWS_OF_PAIRS[name]))
    order = log_mean.detach().flatten().argsort()
    below = chance.detach().flatten()[order].cumsum(0)
    reference = log_mean.detach().flatten()[order][int((below < 0.5).sum())]
    exact = -(chance * referenced_log_t(log_mean, reference, t)).sum()
    expected = torch.autograd.grad(exact, list(leaves.values()))
    wide = {k: v.expand(n, 2).clone().requires_grad_() for k, v in base.items()}
    found = multi_sample(distortion, law.from_prior(wide), samples=2, robustness=t, generator=seeded())
    check(found.value.detach(), exact.detach())
    for truth, estimate in zip(expected, torch.autograd.grad(found.value.sum(), list(wide.values()))):
        check(estimate, truth)


@pytest.mark.parametrize("estimator", ["fini", "pathwise"])
def test_one_sample_of_counts_has_the_gradient_of_the_expected_distortion(estimator):
    """By log firing rates, in closed form; of relaxed counts to their bias."""
    rate = draw(2, seed=3) * 0.3
    leaf = rate.clone().requires_grad_()
    q = Poisson(leaf, validate_args=False)
    exact = distortion(q.mean) + q.variance @ DICTIONARY.square().sum(-1)
    (expected,) = torch.autograd.grad(exact, leaf)
    wide = rate.expand(40_000, 2).clone().requires_grad_()
    found = multi_sample(
        distortion, Poisson(wide, validate_args=False), samples=1, estimator=estimator, generator=seeded()
    )
    (gradient,) = torch.autograd.grad(found.value.sum(), wide)
    if estimator == "fini":
        check(gradient, expected)
    else:
        torch.testing.assert_close(gradient.mean(0), expected, rtol=0.1, atol=0.02)


def test_the_distortion_falls_with_the_number_of_samples():
    """To minus the logarithm of the mean likelihood under q, by enumeration."""
    q, z = Poisson(draw(2, seed=2).expand(4000, 2) * 0.3), codes(30)
    one = Poisson(draw(2, seed=2) * 0.3)
    limit = -torch.logsumexp(one.log_prob(z).sum(-1) - distortion(z), 0)
    values = [float(multi_sample(distortion, q, samples=m, generator=seeded()).value.mean()) for m in (1, 2, 8, 300)]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] - float(limit) < 0.05 * (values[0] - float(limit))


def test_only_beta_of_m_bounds_the_evidence():
    """Two Bernoulli units at the best q of two samples, by enumeration: m KL gives a bound, one KL does not."""
    prior, z = Bernoulli(torch.full((2,), -0.5).double()), codes(2)
    evidence = float(torch.logsumexp(prior.log_prob(z).sum(-1) - distortion(z), 0))
    for beta, bounds in ((2.0, True), (1.0, False)):
        logit = torch.zeros(2).double().requires_grad_()
        optimiser = torch.optim.LBFGS([logit], max_iter=200, line_search_fn="strong_wolfe")

        def loss(logit=logit, beta=beta):
            q = Bernoulli(logit, validate_args=False)
            chance, log_mean = pairs_of(q, z)
            return beta * torch.distributions.kl_divergence(q, prior).sum() - (chance * log_mean).sum()

        def closure(logit=logit, optimiser=optimiser, loss=loss):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            return value

        optimiser.step(closure)
        assert (float(loss().detach()) > -evidence) == bounds


@pytest.mark.parametrize("t", [0.99, 0.5])
def test_the_influence_of_outliers_is_bounded(t):
    """The derivative by the distortion of one stimulus, times that distortion, tends to 0; at t = 1 it grows."""
    for loss, largest in ((2e2 / (1 - t), 0.1), (1e4 / (1 - t), 0.0)):
        losses = torch.cat([torch.linspace(90, 110, 9).double(), T([loss])]).requires_grad_()
        for robustness in (t, 1.0):
            value = -referenced_log_t(-losses, batch_reference(-losses), robustness)
            (gradient,) = torch.autograd.grad(value.sum(), losses)
            assert (gradient <= 1).all() and (gradient[losses <= 98].detach() == 1).all()
            assert float(gradient[-1] * loss) <= largest if robustness < 1 else gradient[-1] == 1


@pytest.mark.parametrize("estimator", ["score_function", "fini", "pathwise"])
def test_the_cost_of_a_code_is_inside_the_logarithm(estimator):
    """At t = 1 it is added to the distortion; below, costs and distortions have one weight, by any estimator."""
    q, cost = Poisson(draw(30, 2, seed=2)), (30 * draw(30, seed=5).abs()).requires_grad_()
    plain, priced, robust = (
        multi_sample(distortion, q, samples=3, robustness=t, cost=c, estimator=estimator, generator=seeded())
        for t, c in ((1.0, 0.0), (1.0, cost), (0.7, cost))
    )
    torch.testing.assert_close(priced.value, plain.value + cost)
    assert (plain.weight == 1).all()
    bound = -priced.value.detach()
    reference = bound.sort().values[14]
    torch.testing.assert_close(robust.weight, torch.exp(0.3 * (bound - reference)).clamp_max(1))
    torch.testing.assert_close(robust.value.detach(), -referenced_log_t(bound, reference, 0.7))
    torch.testing.assert_close(torch.autograd.grad(robust.value.sum(), cost)[0], robust.weight)


def test_a_reference_of_each_stimulus_would_leave_outliers_their_influence():
    """What the module says of a model without a code: its density of an outlier is as small as ours."""
    losses = T([1.0, 1.2, 1.4, 900.0])
    null_model = losses + 0.5
    assert float(torch.exp(0.5 * (null_model - losses))[-1]) > 1
    assert (
        float(
            multi_sample(
                lambda code: losses.expand(1, 4), gaussian(4), samples=1, robustness=0.5, generator=seeded()
            ).weight[-1]
        )
        < 1e-100
    )


def test_units_of_pixels_change_no_gradient():
    """Pixels in another unit add the logarithm of its size, once per pixel, to all distortions."""
    losses = (draw(40) * 5 + 100).requires_grad_()
    values = [-referenced_log_t(-x, batch_reference(-x), 0.8) for x in (losses, losses + 64 * math.log(255))]
    torch.testing.assert_close(values[1] - values[0], torch.full_like(losses, 64 * math.log(255)))
    both = [torch.autograd.grad(value.sum(), losses)[0] for value in values]
    torch.testing.assert_close(both[0], both[1])


def test_an_outlier_moves_no_parameter():
    """The gradient of an encoder, a decoder and a prior by a stimulus a thousand times as large as the others."""
    x = draw(51, 16, dtype=torch.float32)
    x[0] *= 1000
    for t, bounds in ((0.9, True), (1.0, False)):
        found = []
        for stimuli in (x, x[1:]):
            config = fit(objective="pac_m", n_samples=2, robustness=t, estimator="fini", prior="learned")
            model = build_model(config, SHAPE)
            for name, parameter in model.named_parameters():
                if name == "encoder.head.weight":
                    parameter.data.zero_()  # else rates of the outlier are beyond all bounds
            total = model(stimuli, 1.0, 0.0, exact=False, generator=seeded()).total * len(stimuli)
            found.append(torch.autograd.grad(total, list(model.parameters())))
        norms = [max(float(g.abs().max()) for g in gradients) for gradients in found]
        assert (norms[0] < 10 * norms[1]) == bounds


SAME = {
    "exact": {},
    "fini": {"estimator": "fini"},
    "relaxed": {"estimator": "monte_carlo"},
    "gaussian": {"latent": "gaussian", "estimator": "monte_carlo"},
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (6,)},
}


@pytest.mark.parametrize("kind", SAME)
def test_one_sample_at_robustness_one_is_the_free_energy_to_the_bit(kind, stimuli):
    states = []
    for objective in ("free_energy", "pac_m"):
        stack = Stack([fit(objective=objective, n_samples=1, robustness=1.0, steps=6, **SAME[kind])], stimuli, SHAPE)
        train(stack)
        states.append(stack.state())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("kind", ["fini", "relaxed", "gaussian"])
def test_the_general_form_at_one_sample_is_the_monte_carlo_objective(kind, stimuli):
    """The same draws, values and gradients as of the free energy, up to the order of sums."""
    found = []
    for name in ("free_energy", "pac_m"):
        model = build_model(fit(objective=name, decoder="mlp", hidden=(6,), **SAME[kind]), SHAPE)
        model.multi_sample = name == "pac_m"
        parts = model(stimuli, 1.0, 0.0, exact=False, generator=seeded())
        parts.total.backward()
        found.append([parts.total.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


FITS = {
    **{name: {"latent": name} for name in LAWS},
    "fini": {"estimator": "fini"},
    "relaxed": {"estimator": "monte_carlo"},
    "one sample": {"n_samples": 1},
    "robustness one": {"robustness": 1.0},
    "mlp, binary pixels": {"decoder": "mlp", "hidden": (6,), "likelihood": "bernoulli"},
    "conv": {"encoder": "conv", "decoder": "conv", "hidden": (4,)},
    "learned prior and noise": {"prior": "learned", "noise_variance": "learned"},
    "budget": {"spike_budget": 0.2, "beta_anneal": 0.5},
}


@pytest.mark.parametrize("kind", FITS)
def test_fits_train_in_stacks_as_alone(kind, stimuli):
    given = {"objective": "pac_m", "n_samples": 3, "robustness": 0.8, "steps": 6} | FITS[kind]
    configs = [fit(seed=seed, beta=beta, **given) for seed, beta in ((0, 2.0), (1, 0.5))]
    x = (stimuli > 0).double() if "binary" in kind else stimuli.double()
    together, alone = Stack(configs, x, SHAPE, window=2), Stack(configs[1:], x, SHAPE, window=2)
    train(together)
    train(alone)
    ours, theirs = together.result(1).history, alone.result(0).history
    assert np.isfinite(np.asarray(ours["objective"])).all()
    for column in ours:
        torch.testing.assert_close(ours[column], theirs[column], rtol=1e-7, atol=1e-7)
    single = np.asarray(ours["distortion"]) + 0.5 * np.asarray(ours["kl"])
    if kind not in ("budget", "one sample", "robustness one"):
        assert (np.asarray(ours["objective"]) < single).all()


def test_a_robust_fit_ignores_outliers(stimuli):
    """A tenth of the stimuli have pixels of ten standard deviations: the free energy of the others is lower."""
    x = stimuli.clone()
    x[::10] = 10 * x.std() * torch.randn(30, 16, generator=seeded())
    clean = stimuli[torch.arange(300) % 10 != 0].numpy()
    found = {}
    for t in (1.0, 0.9):
        model = sv.SpikeVAE(
            n_latents=8, steps=150, random_state=0, options={"objective": "pac_m", "robustness": t, "estimator": "fini"}
        ).fit(x.numpy())
        found[t] = model.evaluate(clean).free_energy
    assert found[0.9] < found[1.0] - 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "pac"}, "objective"),
        ({"objective": "pac_m", "n_samples": 0}, "n_samples"),
        ({"objective": "pac_m", "n_samples": 100_000}, "n_samples"),
        ({"objective": "pac_m", "robustness": 0}, "robustness"),
        ({"objective": "pac_m", "robustness": 1.5}, "robustness"),
        ({"objective": "pac_m", "robustness": math.nan}, "robustness"),
        ({"robustness": 0.9}, "robustness=0.9 is of objective='pac_m', given objective='free_energy'"),
        ({"n_samples": 4}, "n_samples=4 is of objective='pac_m'"),
        ({"objective": "pac_m", "n_samples": 4, "n_importance": 2}, "two objectives: drop one"),
        ({"objective": "pac_m", "robustness": 0.9, "estimator": "exact"}, "use estimator='auto'"),
        ({"objective": "pac_m", "robustness": 0.9, "estimator": "score_function"}, "n_samples of 2 or more"),
        ({"objective": "pac_m", "n_samples": 4, "estimator": "score_function", "latent": "gaussian"}, "real-valued"),
        ({"objective": "pac_m", "inference": "iterative"}, "objective needs inference='amortised'"),
        ({"objective": "pac_m", "n_samples": 2, "upper": [3]}, "objective, n_samples need inference='amortised'"),
        ({"objective": "pac_m", "latent": "sparse"}, "objective needs inference='amortised'"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        FitConfig.from_recipe("default", **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robustness": 0.0}, "robustness is 0.0: t is above 0"),
        ({"samples": 0}, "samples is 0; give 1 or more"),
        ({"samples": 1, "estimator": "score_function"}, "give 2 or more"),
        ({"estimator": "fini", "q": gaussian(3)}, "use 'pathwise'"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        multi_sample(distortion, **{"q": Poisson(torch.zeros(3, 2)), "samples": 4, "generator": seeded()} | options)


def test_memory_cost_and_coupling_follow_the_samples():
    from spikevae.training.checks import stack_bytes

    one, many = (fit(objective="pac_m", n_samples=n) for n in (1, 50))
    assert stack_bytes(many, SHAPE, 1) > 20 * stack_bytes(one, SHAPE, 1)
    assert many.passes == 50 * one.passes
    assert many.coupling is None and "median" in str(fit(objective="pac_m", robustness=0.9).coupling)


def test_a_sweep_tells_robustness_apart_and_keeps_the_column_of_values(tmp_path):
    """Fits that differ in robustness are no restarts of each other; the column "objective" holds numbers."""
    grid = {"robustness": [1.0, 0.9], "start": [-1.0, 0.5]}
    given = {"objective": "pac_m", "n_samples": 2, "steps": 4, "n_latents": 2, "init": "random"}
    table = RunFolder(Sweep.from_grid(grid, fit=given, data=DATA).run(tmp_path / "run", n_jobs=1).path).table
    assert sorted(table["robustness"].to_pylist()) == [0.9, 0.9, 1.0, 1.0]
    assert sum(table["best_of_group"].to_pylist()) == 2
    assert all(isinstance(value, float) for value in table["objective"].to_pylist())
