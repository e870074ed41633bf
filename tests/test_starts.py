"""The limit of small signals: its value, its code, and where a fit starts."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.distributions import Poisson
from spikevae.models import amortised, build_model
from spikevae.training import Stack, starts, train
from spikevae.training.decoder import solve_decoder, solve_decoder_of_codes
from spikevae.training.starts import Spectrum, limit_encoder, linear_limit, start_at_linear_limit

D = 12
VALUES = torch.linspace(6.0, 0.2, D, dtype=torch.float64)


def gaussian_stimuli(n=6000, seed=0):
    """Normal stimuli whose second moment has the eigenvalues VALUES, to rounding."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    x = x @ torch.linalg.cholesky(torch.linalg.inv(x.mT @ x / n))
    axes = torch.linalg.qr(torch.randn(D, D, generator=g, dtype=torch.float64)).Q
    return x * VALUES.sqrt() @ axes.mT


def limit_model(x, log_rate, *, beta=1.0, n_latents=16, lowest=None, price=0.0, clamp=None):
    """A model that starts at the limit, and its log firing rate."""
    config = FitConfig.from_recipe("default", n_latents=n_latents, beta=beta, clamp=clamp)
    model = build_model(config, (D,)).double()
    generator = torch.Generator().manual_seed(1)
    lowest = log_rate if lowest is None else lowest
    options = {"beta": beta, "spike_price": price, "lowest": lowest, "generator": generator}
    return model, start_at_linear_limit(model, Spectrum.of(x), x, **options)


def objective(model, x, beta=1.0):
    with torch.no_grad():
        return float(model(x, beta, 0.0, exact=True).total)


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("noise_variance", [0.5, 2.0])
def test_the_limit_is_the_minimum_over_gain_and_dictionary(beta, noise_variance):
    """A numerical search over (w, phi) of every direction, at ((1 - w phi)^2 e + phi^2) / 2v + beta w^2 e / 2."""

    def cost(code, e):
        w, phi = code
        return ((1 - w * phi) ** 2 * e + phi**2) / (2 * noise_variance) + beta * w**2 * e / 2

    least = []
    for e in VALUES.tolist():
        starts = [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)]
        least.append(min(scipy.optimize.minimize(cost, s, (e,), tol=1e-12).fun for s in starts))
    for k in (3, D):
        wanted = sum(least[:k]) + VALUES[k:].sum() / (2 * noise_variance)
        assert float(linear_limit(VALUES, beta, k, noise_variance)) == pytest.approx(float(wanted), rel=1e-6)


def test_poisson_models_tend_to_the_limit_as_rates_grow():
    """Without pairs the remainder falls as one over the rate: by e^2 over two log units, within a quarter."""
    x = gaussian_stimuli(2000)  # all of them set the decoder
    limit = float(linear_limit(VALUES, 1.0, 13))
    found = (objective(limit_model(x, r, n_latents=D + 1)[0], x) / limit - 1 for r in (3.0, 5.0, 7.0, 10.0))
    near, middle, far, end = found
    assert abs(end) < 1e-3 and 0.01 < near < 0.02
    assert (middle - end) / (far - end) == pytest.approx(math.e**2, rel=0.25)
    assert (near - end) / (middle - end) == pytest.approx(math.e**2, rel=0.25)


def test_opponent_pairs_are_near_the_limit_at_low_rates():
    """The remainder of pairs has no even powers of the signal: it is a tenth of that of single units."""
    x = gaussian_stimuli(2000)
    limit = float(linear_limit(VALUES, 1.0, D + 1))
    single, pairs = (objective(limit_model(x, 3.0, n_latents=k)[0], x) / limit - 1 for k in (D + 1, 2 * D))
    assert pairs < 0.1 * single


def test_the_limit_does_not_know_the_firing_rate():
    """Seven times the spikes, the same free energy to 0.2 %: exact, and from Poisson counts drawn by numpy."""
    x = gaussian_stimuli()
    found = []
    for log_rate in (5.0, 7.0):
        model, _ = limit_model(x, log_rate)
        with torch.no_grad():
            q = model.posterior(x)
            kl = kl_divergence(q, model.prior()).sum(1).mean()
            counts = np.random.default_rng(0).poisson(q.mean.numpy())
            error = ((x.numpy() - counts @ model.dictionary.numpy()) ** 2).sum(1).mean()
        exact = objective(model, x)
        assert float(kl) + error == pytest.approx(exact, rel=0.01)
        found.append((exact, float(q.mean.sum(1).mean())))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-3)
    assert found[1][1] > 7 * found[0][1]


def test_the_lowest_rate_at_which_the_limit_nearly_holds():
    x = gaussian_stimuli()
    rates = [limit_model(x, None, beta=beta, lowest=-5.0)[1] for beta in (0.1, 1.0, 6.0)]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[2] + 1
    assert limit_model(x, None, beta=6.0, lowest=2.0)[1] == 2.0


def test_the_chosen_rate_costs_little():
    """At most 0.6 % of the objective times the squared units per coded direction, 4 % of it, and 15 % of the gain.

    The gain is what the code gains over silence; a grid of rates is the judge.
    """
    x = gaussian_stimuli(4000)  # all of them set the decoder, and judge it
    for beta in (0.5, 2.0, 8.0):
        share = min(0.04, 0.006 * (16 / int((beta / 2 < VALUES).sum())) ** 2)
        model, rate = limit_model(x, None, beta=beta, lowest=-5.0)
        least = min(objective(limit_model(x, r, beta=beta)[0], x, beta) for r in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0))
        silent = float(VALUES.sum())
        excess = objective(model, x, beta) - least
        assert excess < 1.13 * min(share * least, 0.15 * (silent - least))
        cheaper, _ = limit_model(x, rate - 0.5, beta=beta)
        assert objective(cheaper, x, beta) - least > 0.87 * min(share * least, 0.15 * (silent - least))


def test_a_spike_price_lowers_the_chosen_rate():
    x = gaussian_stimuli()
    free, priced = (limit_model(x, None, lowest=-5.0, price=price)[1] for price in (0.0, 0.5))
    assert priced < free - 1


def test_spread_over_more_units_than_directions_changes_nothing():
    x = gaussian_stimuli()
    spectrum = Spectrum.of(x)
    codes = [limit_encoder(spectrum, 1.0, k, x, torch.Generator().manual_seed(2)) for k in (D + 1, 18, 24, 25, 41)]
    for code in codes[1:]:
        torch.testing.assert_close(codes[0].mT @ codes[0], code.mT @ code, rtol=1e-5, atol=1e-6)
    assert torch.linalg.matrix_rank(limit_encoder(spectrum, 5.0, 40, x, torch.Generator().manual_seed(2))) == int(
        (VALUES > 2.5).sum()
    )


def test_spectrum_of_huge_and_tiny_stimuli():
    x = gaussian_stimuli().float()
    for scale in (1e18, 1e-18):
        torch.testing.assert_close(Spectrum.of(x * scale).values / scale**2, VALUES, rtol=1e-4, atol=1e-6)


def test_the_solved_decoder_is_the_minimum_of_the_exact_distortion():
    """At it the gradient of SSE + sum of variances times ||phi||^2 vanishes; a lost variance term would show."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(200, D, generator=g, dtype=torch.float64)
    rates = torch.randn(200, 7, generator=g, dtype=torch.float64).exp()
    variance = rates.mean(0)
    second = rates.mT @ rates / 200 + torch.diag(variance)
    phi = solve_decoder(second, rates.mT @ x / 200).requires_grad_()
    cost = ((x - rates @ phi) ** 2).sum(1).mean() + variance @ phi.square().sum(1)
    (gradient,) = torch.autograd.grad(cost, phi)
    assert gradient.abs().max() < 1e-5
    assert (2 * variance[:, None] * phi).abs().max() > 1e-2


def test_the_solved_decoder_survives_silent_units_and_bad_moments():
    second = torch.diag(torch.tensor([1.0, 1e-25, 0.0]))
    solved = solve_decoder(second, torch.tensor([[2.0], [1e-25], [0.0]]))
    assert torch.isfinite(solved).all() and solved[0, 0] == pytest.approx(2.0, rel=1e-5)
    both = solve_decoder(torch.stack([second, second * math.nan]), torch.ones(2, 3, 1))
    assert not torch.isfinite(both[1]).any()


def test_signal_gain_moves_the_mean_by_one_standard_deviation():
    for log_rate in (-3.0, 0.0, 2.0):
        gain = Poisson.signal_gain(log_rate)
        small = 1e-6
        near = Poisson(torch.tensor([log_rate, log_rate + small * gain], dtype=torch.float64))
        moved = (near.mean[1] - near.mean[0]) / near.variance[0].sqrt()
        assert float(moved) == pytest.approx(small, rel=1e-5)
        near = Poisson(torch.tensor([log_rate, log_rate + 1e-3 * gain], dtype=torch.float64))
        assert float(kl_divergence(Poisson(near.log_rate[1]), Poisson(near.log_rate[0]))) == pytest.approx(
            0.5e-6, rel=0.01
        )


def test_training_from_the_limit_ends_below_it():
    """The start is near the optimum of a linear code; training bends it and must not end above where it began."""
    x = gaussian_stimuli().float()
    config = FitConfig.from_recipe("default", n_latents=24, steps=200)
    stack = Stack([config], x, (D,))
    began = objective(stack.result(0).model, x)
    train(stack)
    assert objective(stack.result(0).model, x) < began
    assert began < 1.1 * float(linear_limit(VALUES, 1.0, 24))


@pytest.mark.parametrize("beta", [0.0, 1e-30, 1e-6])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_start_does_not_saturate_as_beta_goes_to_zero(beta, scale):
    x = scale * gaussian_stimuli(3000)
    stack = Stack([FitConfig.from_recipe(n_latents=16, beta=beta)], x, (D,))
    model = stack.result(0).model
    with torch.no_grad():
        distortion = float(model(x, beta, 0.0, exact=True).distortion)
        high = float((model.posterior(x).log_rate > 4.5).double().mean())  # the clamp is at 5
    at_small_beta, _ = limit_model(x, -5.0, beta=1e-4 * scale**2, clamp=5.0)
    with torch.no_grad():
        assert distortion < 1.1 * float(at_small_beta(x, 0.0, 0.0, exact=True).distortion)
    assert high < 0.25


@pytest.mark.parametrize("n_latents", [40, 70])
def test_large_fits_start_near_where_a_comparison_with_all_units_does(monkeypatch, n_latents):
    """One of two units and directions in place of all: firing rates within 30 %, objectives within 1 %."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7000, 32, generator=g) * torch.linspace(2.5, 0.4, 32)
    config = FitConfig.from_recipe("default", n_latents=n_latents)
    found, phases = [], []
    for limit in (starts.MAX_OPERATIONS, 0):
        monkeypatch.setattr(starts, "MAX_OPERATIONS", limit)
        monkeypatch.setattr(starts, "THINNED_UNITS", n_latents // 2)
        model, noise = build_model(config, (32,)), torch.Generator().manual_seed(0)
        rate = start_at_linear_limit(
            model, Spectrum.of(x), x, beta=1.0, spike_price=0.0, lowest=-5.0, generator=noise, on_phase=phases.append
        )
        found.append((rate, objective(model, x)))
    assert phases[0] == f"directions of {n_latents} units" and "one of 2 units" in phases[1]
    assert found[1] != found[0]
    assert found[1][0] == pytest.approx(found[0][0], abs=0.3)
    assert found[1][1] == pytest.approx(found[0][1], rel=0.01)


def test_the_decoder_from_few_codes_is_that_of_their_moments():
    g = torch.Generator().manual_seed(0)
    mean, x = torch.rand(30, 50, generator=g).double(), torch.randn(30, 4, generator=g).double()
    variance = torch.rand(50, generator=g).double()
    variance[3], mean[:, 3] = 0.0, 0.0  # a unit that never fires
    wanted = solve_decoder(mean.mT @ mean / 30 + torch.diag(variance), mean.mT @ x / 30)
    assert torch.allclose(solve_decoder_of_codes(mean, variance, x), wanted, rtol=1e-8, atol=1e-12)


def test_fits_of_very_many_units_follow_the_gradient_of_their_decoder(monkeypatch):
    """Their decoder starts at the solution, found from the codes of few stimuli."""
    monkeypatch.setattr(amortised, "MAX_SOLVED_UNITS", 8)
    x = gaussian_stimuli(400).float()
    config = FitConfig.from_recipe("default", n_latents=16, steps=2)
    assert not config.solves_decoder
    assert config.model_copy(update={"decoder_update": "least_squares"}).solves_decoder
    large = Stack([config], x, (D,)).params["decoder.head.weight"]
    monkeypatch.setattr("spikevae.training.decoder.MAX_SOLVED_UNITS", 8)
    assert torch.allclose(Stack([config], x, (D,)).params["decoder.head.weight"], large, atol=1e-4)
