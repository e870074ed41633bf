"""`evaluate` against closed forms of models whose code is known, and against the pure functions."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from spikevae import metrics as sm
from spikevae.evaluation.evaluate import Metrics, evaluate
from spikevae.evaluation.prices import PRICES
from spikevae.models import AmortisedConfig
from spikevae.models.amortised import AmortisedVAE

D, K, M = 12, 6, 40_000
OF_A_FIRING_RATE = [
    "lifetime_sparseness",
    "population_sparseness",
    "firing_rate",
    "prior_firing_rate",
    "prior_posterior_gap",
    "bits_per_spike",
    "spikes",
    "atp_low",
    "atp",
    "atp_high",
    "joules_low",
    "joules",
    "joules_high",
    "synops_events",
    "fano",
]


def model_of(latent, *, seed=0, silent_encoder=False, n_latents=K, shape=(D,), **settings):
    start = {"start": settings.pop("start", 0.5)}  # also beyond the range of configurations
    config = AmortisedConfig(latent=latent, n_latents=n_latents, **{"clamp": None, **settings}).model_copy(update=start)
    model = AmortisedVAE(shape, config, torch.Generator().manual_seed(seed))
    if silent_encoder:
        with torch.no_grad():
            model.encoder.head.weight.zero_()
    return model


def stimuli(m=300, d=D, seed=1):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [0.1, 1.0, 2.0])
def test_poisson_code_that_ignores_the_stimulus(rate):
    """Posterior = prior: every number has a closed form. SE from K * M independent counts, 4.5 of them."""
    model = model_of("poisson", silent_encoder=True, start=math.log(rate), prior="learned")
    e = evaluate(model, stimuli(M))
    m, n = e.metrics, K * M
    assert m.kl == pytest.approx(0, abs=1e-6) and m.active_units == 0 and m.dead_units == 0
    assert m.firing_rate == pytest.approx(rate, rel=1e-6) == pytest.approx(m.prior_firing_rate, rel=1e-6)
    assert m.spikes == pytest.approx(K * rate, rel=1e-6)
    assert m.prior_posterior_gap == pytest.approx(0, abs=1e-6)
    p = math.exp(-rate)
    assert abs(m.fraction_zeros - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    assert m.l0 == pytest.approx(K * (1 - m.fraction_zeros))
    # Var(sample variance / mean) = (2 + 1/rate) / n for Poisson counts
    se_fano = math.sqrt((2 + 1 / rate) / n)
    assert abs(m.fano - 1) < 4.5 * se_fano
    # lifetime = 1 - 1 / (1 + fano / mean): its error follows from those of fano and of the mean
    slope = 1 / (1 + rate) ** 2
    se = slope * math.hypot(rate * se_fano, math.sqrt(rate / n))
    assert abs(m.lifetime_sparseness - 1 / (1 + rate)) < 4.5 * se < 0.02
    assert abs(m.synops_events / D - K * rate) < 4.5 * math.sqrt(K * rate / M)
    assert abs(m.decoder_acs / D - K * rate * p) < 4.5 * math.sqrt(K * rate * p / M)


def test_collapsed_rectified_gaussian():
    """ReLU(N(0, 1)): zeros .5, mean .39894, lifetime sparseness .68169, whatever beta is."""
    model = model_of("rectified_gaussian", silent_encoder=True, prior="fixed")
    with torch.no_grad():
        model.encoder.head.bias.zero_()
    e = evaluate(model, stimuli(M), beta=8.0)
    m = e.metrics
    assert abs(m.fraction_zeros - 0.5) < 4.5 * 0.5 / math.sqrt(K * M)
    assert m.firing_rate == pytest.approx(0.39894, abs=1e-5) == pytest.approx(m.prior_firing_rate, abs=1e-5)
    assert m.lifetime_sparseness == pytest.approx(0.68169, abs=4e-3)
    assert m.kl == pytest.approx(0, abs=1e-6) and e.objective == pytest.approx(m.distortion, abs=1e-4)
    assert m.decoder_acs == 0 and math.isnan(m.synops_events)
    assert m.hardware_joules == pytest.approx((m.encoder_macs + m.synops_nonzero) * 4.6e-12)


@pytest.mark.parametrize("latent", ["poisson", "rectified_gaussian", "gaussian"])
def test_equals_the_pure_functions_on_the_same_codes(latent):
    model, x = model_of(latent, seed=3, init_scale=0.3), stimuli()
    e = evaluate(model, x, seed=7, batch_size=1000, beta=0.3, spike_price=0.2)
    with torch.no_grad():
        q, prior = model.posterior(x), model.prior()
        z = q.sample(generator=torch.Generator().manual_seed(7))
        y, y_mean, kl = model.decode(z), model.decode(q.mean), kl_divergence(q, prior).mean(0)
        distortion = model.expected_distortion(x, q).mean().item()
    expected = {
        "mse": sm.mse(x, y),
        "mse_mean_code": sm.mse(x, y_mean),
        "r2": sm.r2(x, y),
        "r2_pooled": sm.r2_pooled(x, y),
        "r2_mean_code": sm.r2(x, y_mean),
        "r2_pooled_mean_code": sm.r2_pooled(x, y_mean),
        "fraction_zeros": sm.fraction_zeros(z),
        "l0": sm.l0(z),
        "lifetime_sparseness": sm.lifetime_sparseness(z).mean(),
        "population_sparseness": sm.population_sparseness(z).mean(),
        "fano": sm.fano_factor(z).mean(),
        "active_units": sm.active_units(kl),
        "dead_units": sm.dead_units(z),
        "kl": kl.sum().item(),
        "bits": sm.bits(kl.sum().item()),
        "distortion": distortion,
        "free_energy": distortion + kl.sum().item(),
        "synops_nonzero": D * sm.l0(z),
        "nan_count": 0,
    }
    has_rate = latent != "gaussian"
    if has_rate:
        rate = q.mean.mean(0)
        expected |= {
            "firing_rate": rate.mean().item(),
            "spikes": rate.sum().item(),
            "prior_firing_rate": prior.mean.mean().item(),
            "prior_posterior_gap": sm.prior_posterior_gap(prior.mean, rate),
            "bits_per_spike": sm.bits_per_spike(kl.sum().item(), rate.sum().item()),
        }
        np.testing.assert_allclose(e.units["firing_rate"], rate, rtol=1e-5)
        np.testing.assert_allclose(e.units["prior_firing_rate"], prior.mean.detach(), rtol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(e.metrics, name), value, rtol=2e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(e.units["kl"], kl, rtol=1e-5)
    price = 0.2 * e.metrics.spikes if has_rate else 0.0
    assert e.objective == pytest.approx(e.metrics.distortion + 0.3 * e.metrics.kl + price)


def test_a_signed_code_has_no_rate():
    e = evaluate(model_of("gaussian"), stimuli(), spike_price=1.0)
    undefined = [f.name for f in fields(Metrics) if math.isnan(getattr(e.metrics, f.name))]
    assert sorted(undefined) == sorted(OF_A_FIRING_RATE)
    assert math.isfinite(e.objective) and e.metrics.fraction_zeros == 0
    assert all(math.isnan(v) for v in e.units["firing_rate"]) and len(e.units["firing_rate"]) == K


def test_energy_of_a_poisson_code():
    e = evaluate(model_of("poisson"), stimuli())
    m = e.metrics
    for atp, joules, price in (
        (m.atp_low, m.joules_low, PRICES.low),
        (m.atp, m.joules, PRICES.central),
        (m.atp_high, m.joules_high, PRICES.high),
    ):
        assert atp == pytest.approx(m.spikes * price.atp_per_spike.value)
        assert joules == pytest.approx(atp * price.joules_per_atp.value)
    assert m.encoder_macs == m.decoder_macs == D * K
    assert m.hardware_joules == pytest.approx(D * K * 4.6e-12 + m.synops_events * 0.9e-12)
    assert m.decoder_acs < m.synops_nonzero < m.synops_events


def test_later_layers_of_a_decoder_are_dense():
    model = model_of("poisson", decoder="mlp", hidden=(5,))
    m = evaluate(model, stimuli()).metrics
    assert m.decoder_macs == K * 5 + 5 * D
    assert m.hardware_joules == pytest.approx((m.encoder_macs + 5 * D) * 4.6e-12 + m.synops_events * 0.9e-12)
    # No closed form: the distortion is that of the sampled codes, at noise variance 1/2 their squared error.
    assert m.distortion == pytest.approx(m.mse, rel=1e-6)


def test_exact_distortion_is_the_mean_of_sampled_ones():
    """At noise variance one half distortion = E[mse]; 64 seeds of 100 stimuli, 4.5 standard errors."""
    model, x = model_of("poisson", init_scale=0.3), stimuli(100)
    runs = [evaluate(model, x, seed=s).metrics for s in range(64)]
    sampled = np.array([m.mse for m in runs])
    se = sampled.std(ddof=1) / 8
    assert len({m.distortion for m in runs}) == 1
    assert abs(sampled.mean() - runs[0].distortion) < 4.5 * se < 0.05 * runs[0].distortion


def test_bernoulli_pixels():
    model = model_of("poisson", likelihood="bernoulli")
    x = (stimuli() > 0).float()
    m = evaluate(model, x, batch_size=1000).metrics
    with torch.no_grad():
        z = model.posterior(x).sample(generator=torch.Generator().manual_seed(0))
        p = model.decode(z).double()
    by_hand = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean().item()
    assert m.distortion == pytest.approx(by_hand, rel=1e-5)
    assert m.mse == pytest.approx(sm.mse(x, p), rel=1e-5)


def test_batches_seeds_and_the_global_generator():
    model, x = model_of("poisson"), stimuli(257)
    state = torch.get_rng_state()
    whole, again, parts = (evaluate(model, x, batch_size=b) for b in (1000, 1000, 50))
    assert torch.equal(torch.get_rng_state(), state)
    assert whole.metrics == again.metrics
    for name in ("free_energy", "distortion", "kl", "firing_rate", "r2_mean_code", "bits"):
        assert getattr(parts.metrics, name) == pytest.approx(getattr(whole.metrics, name), rel=1e-5)
    assert sum(parts.code_histogram["mass"]) == pytest.approx(1 - parts.metrics.fraction_zeros)
    other = evaluate(model, x, seed=1).metrics
    assert other.mse != whole.metrics.mse and other.kl == whole.metrics.kl
    assert all(p.grad is None for p in model.parameters())


def test_numpy_and_other_dtypes():
    model, x = model_of("poisson"), stimuli()
    frozen = x.double().numpy().copy()
    frozen.flags.writeable = False
    assert evaluate(model, frozen).metrics == evaluate(model, x).metrics


@pytest.mark.parametrize("latent", ["poisson", "rectified_gaussian", "gaussian"])
def test_code_histogram(latent):
    model, x = model_of(latent, start=1.0), stimuli(3000)
    e = evaluate(model, x, batch_size=10_000)
    h = e.code_histogram
    edges, mass = np.array(h["edges"]), np.array(h["mass"])
    assert len(edges) == len(mass) + 1 <= 65 and (np.diff(edges) > 0).all()
    assert h["zero"] == pytest.approx(e.metrics.fraction_zeros, abs=1e-12)
    assert h["zero"] + mass.sum() == pytest.approx(1)
    with torch.no_grad():
        z = model.posterior(x).sample(generator=torch.Generator().manual_seed(0)).numpy()
    inner = np.histogram(z[z != 0], edges)[0] / z.size  # end bins also hold what lies beyond
    np.testing.assert_allclose(mass[1:-1], inner[1:-1], atol=2e-5)
    if latent == "poisson":
        assert edges[0] == 0.5 and mass[1] == pytest.approx((z == 2).mean())


def test_high_rates_keep_their_variance():
    """At e^13 spikes float32 sums of squares would lose the variance; Fano 1 within 4.5 * sqrt(2 / (K m))."""
    model = model_of("poisson", silent_encoder=True, start=13.0)
    m = evaluate(model, stimuli(5000)).metrics
    assert abs(m.fano - 1) < 4.5 * math.sqrt(2 / (K * 5000))
    assert m.lifetime_sparseness == pytest.approx(1 / (1 + math.exp(13.0)), rel=0.1)


def test_silent_code():
    model = model_of("poisson", silent_encoder=True, start=-40.0)
    e = evaluate(model, stimuli())
    m = e.metrics
    assert m.fraction_zeros == m.lifetime_sparseness == m.population_sparseness == 1
    assert m.dead_units == K and m.l0 == m.synops_events == 0 and math.isnan(m.fano)
    assert e.code_histogram == {"edges": [0.5, 1.5], "mass": [0.0], "zero": 1.0}


def test_a_broken_model_gives_no_numbers():
    model = model_of("poisson")
    with torch.no_grad():
        model.encoder.head.bias[2] = math.nan
    e = evaluate(model, stimuli(10))
    assert e.metrics.nan_count == 20  # rate and kl of one unit for ten stimuli
    known = {f.name for f in fields(Metrics) if not math.isnan(getattr(e.metrics, f.name))}
    assert known == {"nan_count", "encoder_macs", "decoder_macs"}
    assert math.isnan(e.objective) and len(e.units["kl"]) == K
    model = model_of("poisson")
    with torch.no_grad():
        model.decoder.head.weight[3, :] = math.inf
    assert evaluate(model, stimuli(10)).metrics.nan_count > 0


def test_one_stimulus_and_one_unit():
    m = evaluate(model_of("poisson", n_latents=1), stimuli(1)).metrics
    assert math.isfinite(m.free_energy)
    assert math.isnan(m.lifetime_sparseness) and math.isnan(m.population_sparseness) and math.isnan(m.fano)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, D + 1), rf"\(3, {D + 1}\).*\(m, {D}\)"),
        (torch.zeros(D), rf"\({D},\)"),
        (torch.zeros(0, D), "one or more"),
        (torch.full((2, D), math.nan), "NaN"),
    ],
)
def test_bad_stimuli_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model_of("poisson"), x)
