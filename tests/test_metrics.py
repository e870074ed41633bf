"""Metrics against closed forms. Random checks state their standard error and allow four and a half of it."""

import math
from dataclasses import fields
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from spikevae import metrics as sm
from spikevae.evaluation import Metrics
from spikevae.metrics.dictionary import _jacobian, _residual
from spikevae.metrics.sparsity import sparseness_of_sums

CONTRACT = [
    "free_energy",
    "distortion",
    "kl",
    "mse",
    "mse_mean_code",
    "r2",
    "r2_pooled",
    "r2_mean_code",
    "r2_pooled_mean_code",
    "fraction_zeros",
    "lifetime_sparseness",
    "population_sparseness",
    "l0",
    "firing_rate",
    "prior_firing_rate",
    "prior_posterior_gap",
    "bits",
    "bits_per_spike",
    "spikes",
    "atp_low",
    "atp",
    "atp_high",
    "joules_low",
    "joules",
    "joules_high",
    "encoder_macs",
    "decoder_macs",
    "decoder_acs",
    "synops_events",
    "synops_nonzero",
    "hardware_joules",
    "active_units",
    "fano",
    "dead_units",
    "nan_count",
]


def rng(seed=0):
    return np.random.default_rng(seed)


def assert_mean(values, truth, most):
    """The mean of independent estimates is the truth, and the check is sharp: 4.5 SE are below `most`."""
    se = values.std(ddof=1) / math.sqrt(len(values))
    assert 4.5 * se < most, f"no power: SE {se}"
    assert abs(values.mean() - truth) < 4.5 * se


def test_fields_are_those_of_the_run_folder_and_explain_themselves():
    assert [f.name for f in fields(Metrics)] == CONTRACT
    for f in fields(Metrics):
        assert set(f.metadata) == {"unit", "direction", "source", "description"}
        assert f.metadata["direction"] in ("higher", "lower", "neither"), f.name
        assert all(isinstance(v, str) and v for v in f.metadata.values()), f.name
        if "joules" in f.name or "atp" in f.name:
            assert f.metadata["source"].startswith("modelled"), f.name


def test_descriptions_say_whose_spikes_they_count():
    said = {f.name: f.metadata["description"] for f in fields(Metrics)}
    assert "final code alone" in said["spikes"] and "final code alone" in said["joules"]
    assert "all steps" in said["hardware_joules"] and "real-valued" in said["spikes"]


def test_metrics_to_dict_and_table():
    m = Metrics.undefined(r2=0.25, nan_count=3.0)
    assert m.to_dict()["r2"] == 0.25 and m.to_dict()["kl"] is None and list(m.to_dict()) == CONTRACT
    text = m.describe()
    assert "0.25 ↑" in text and "undefined ↓ nats per stimulus" in text and len(text.splitlines()) == 35


def test_mse_is_a_sum_over_pixels():
    x = rng().normal(size=(7, 30))
    assert sm.mse(x, x + 0.5) == pytest.approx(30 * 0.25)
    assert sm.mse(torch.tensor(x), torch.tensor(x, requires_grad=True)) == 0


def test_r2_of_a_shrunken_stimulus():
    """y = mean + a (x - mean) leaves (1 - a)^2 of the variance; the pooled one weights that by contrast."""
    x = rng().normal(size=(2, 50)) * np.array([[1.0], [3.0]]) + 10
    shrink = np.array([[0.5], [0.9]])
    y = x.mean(1, keepdims=True) + shrink * (x - x.mean(1, keepdims=True))
    assert sm.r2(x, y) == pytest.approx(1 - (0.5**2 + 0.1**2) / 2)
    contrast = x.var(1)
    assert sm.r2_pooled(x, y) == pytest.approx(1 - (0.25 * contrast[0] + 0.01 * contrast[1]) / contrast.sum())
    assert sm.r2(x, x) == sm.r2_pooled(x, x) == 1
    assert sm.r2(x, np.repeat(x.mean(1, keepdims=True), 50, 1)) == pytest.approx(0)


def test_r2_without_contrast():
    x = np.array([[1.0, 1.0], [0.0, 2.0]])
    assert sm.r2(x, x * 0) == pytest.approx(1 - 4 / 2)  # the flat stimulus is left out
    assert math.isnan(sm.r2(x[:1], x[:1])) and math.isnan(sm.r2_pooled(x[:1], x[:1]))


POISSON = [(0.01, 0.9900, 0.9901), (0.1, 0.9048, 0.9091), (1.0, 0.3679, 0.5), (2.0, 0.1353, 0.3333)]


@pytest.mark.parametrize(("rate", "zeros", "lifetime"), POISSON)
def test_iid_poisson_code(rate, zeros, lifetime):
    z = rng(int(rate * 100)).poisson(rate, size=(20_000, 40))
    assert_mean((z == 0).mean(0), math.exp(-rate), 3e-3)
    assert sm.fraction_zeros(z) == pytest.approx((z == 0).mean()) == pytest.approx(zeros, abs=3e-3)
    assert sm.l0(z) == pytest.approx(40 * (z != 0).mean())
    assert_mean(sm.lifetime_sparseness(z), 1 / (1 + rate), 3e-3)
    assert 1 / (1 + rate) == pytest.approx(lifetime, abs=5e-5)
    assert_mean(sm.fano_factor(z), 1.0, 8e-3)


def test_collapsed_rectified_gaussian_code():
    z = np.maximum(rng(1).normal(size=(20_000, 40)), 0)
    assert_mean((z == 0).mean(0), 0.5, 3e-3)
    assert_mean(z.mean(0), 0.39894, 4e-3)
    assert_mean(sm.lifetime_sparseness(z), 0.68169, 3e-3)


def test_sparseness_by_hand():
    one_hot, constant, silent = np.eye(5)[:, :1], np.full((5, 1), 3.0), np.zeros((5, 1))
    z = np.hstack([one_hot, constant, silent, [[1], [2], [0], [0], [0]]])
    by_hand = (1 - 9 / (5 * 5)) / (1 - 1 / 5)
    np.testing.assert_allclose(sm.lifetime_sparseness(z), [1, 0, 1, by_hand], atol=1e-15)
    np.testing.assert_allclose(sm.lifetime_sparseness(1e-9 * z), sm.lifetime_sparseness(z), atol=1e-12)
    np.testing.assert_array_equal(sm.population_sparseness(z), sm.lifetime_sparseness(z.T))
    assert np.isnan(sm.lifetime_sparseness(rng().normal(size=(9, 3)))).all()  # signed: an artefact
    assert np.isnan(sm.lifetime_sparseness([[1.0, 2.0]])).all()  # a single stimulus
    assert np.isnan(sparseness_of_sums(np.ones(2), np.ones(2), 1)).all()


def test_fano_of_modulated_and_regular_codes():
    """Rates of two values: 1 + Var(rate) / E[rate]. Binomial counts: 1 - p."""
    generator = rng(2)
    rate = generator.choice([1.0, 5.0], size=(20_000, 30))
    assert_mean(sm.fano_factor(generator.poisson(rate)), 1 + 4 / 3, 0.02)
    assert_mean(sm.fano_factor(generator.binomial(6, 0.3, size=rate.shape)), 0.7, 8e-3)
    few = np.array([[1.0], [4.0], [2.0]])
    assert sm.fano_factor(few)[0] == pytest.approx(few.var(ddof=1) / few.mean())
    assert np.isnan(sm.fano_factor([[0, 1], [0, 1]])[0]) and sm.fano_factor([[0, 1], [0, 1]])[1] == 0
    for values in (generator.normal(size=(9, 3)), generator.random((9, 3))):  # signed, real-valued: no counts
        assert np.isnan(sm.fano_factor(values)).all()


def test_skaggs_information():
    rates = np.zeros((8, 3))
    rates[3, 0], rates[:, 1], rates[:4, 2] = 2.0, 5.0, 1.0
    np.testing.assert_allclose(sm.skaggs_information(rates), [3, 0, 1])  # one of 8, untuned, half of them
    assert np.isnan(sm.skaggs_information(np.zeros((4, 1)))).all()
    with pytest.raises(ValueError, match="negative"):
        sm.skaggs_information([[-1.0]])


def test_coding_rate_is_firing_rate_times_skaggs_information():
    """With prior = mean posterior rate: mean KL (nats) = rate * ln 2 * Skaggs (bits per spike)."""
    rates = np.exp(rng(3).normal(size=(500, 4)))
    prior = rates.mean(0)
    kl = (prior - rates + rates * np.log(rates / prior)).mean(0)
    np.testing.assert_allclose(kl, prior * math.log(2) * sm.skaggs_information(rates))
    total = sm.bits_per_spike(kl.sum(), prior.sum())
    assert total == pytest.approx((prior * sm.skaggs_information(rates)).sum() / prior.sum())


def test_bits_units_and_gap():
    assert sm.bits(math.log(2)) == pytest.approx(1)
    assert math.isnan(sm.bits_per_spike(1.0, 0.0))
    assert sm.active_units(torch.tensor([0.02, 0.005, 0.3])) == 2
    assert sm.active_units([0.02, 0.005, 0.3], threshold=0.1) == 1
    assert sm.dead_units([[0, 1, 0], [0, 0, 2]]) == 1
    assert sm.prior_posterior_gap([3.0, 0.5], [2.0, 1.0]) == pytest.approx(1.5 / 3)
    assert math.isnan(sm.prior_posterior_gap([1.0], [0.0]))
    with pytest.raises(ValueError, match="one rate per unit"):
        sm.prior_posterior_gap([1.0], [1.0, 2.0])


def test_inputs_are_checked():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        sm.fraction_zeros(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="must be equal"):
        sm.mse(np.zeros((2, 3)), np.zeros((2, 4)))


def clusters(n, n_classes, n_features, spread, seed):
    generator = rng(seed)
    labels = np.arange(n) % n_classes
    return 10 * np.eye(n_classes, n_features)[labels] + spread * generator.normal(size=(n, n_features)), labels


def test_knn():
    x, labels = clusters(600, 10, 10, 1.0, 0)
    y, labels_y = clusters(400, 10, 10, 1.0, 1)
    score = lambda **k: sm.knn_accuracy(x, labels, y, labels_y, **{"n_labels": (200,), "rng": rng()} | k)
    assert score() == {200: 1.0} == score(rng=rng(5))
    noise = rng(9).normal(size=(600, 10))
    chance = sm.knn_accuracy(noise, labels, noise[:400], rng(1).permutation(labels_y), n_labels=(600,), rng=rng())
    assert abs(chance[600] - 0.1) < 4.5 * math.sqrt(0.09 / 400)
    # The votes of all are the majority class, whoever is nearest.
    assert score(n_labels=(5,), k=5)[5] <= 0.2
    with pytest.raises(ValueError, match="600 training rows"):
        score(n_labels=(200, 5000))
    with pytest.raises(ValueError, match="k=5"):
        score(n_labels=(3,))
    with pytest.raises(ValueError, match="one label per row"):
        sm.knn_accuracy(x, labels[:5], y, labels_y, rng=rng())


def test_shattering_is_the_mean_over_all_dichotomies():
    """Four classes on a line: C(4, 2) = 6 dichotomies, each fitted here, mirror images too."""
    from sklearn.linear_model import LogisticRegression

    labels = np.arange(400) % 4
    x = labels[:, None] + 0.1 * rng().normal(size=(400, 1))
    standard = (x - x.mean(0)) / x.std(0)
    scores = []
    for half in combinations(range(4), 2):
        target = np.isin(labels, half)
        scores.append(LogisticRegression(max_iter=1000).fit(standard, target).score(standard, target))
    assert sm.shattering_dimensionality(x, labels, x, labels) == pytest.approx(np.mean(scores))
    # {0,1}|{2,3} is linear; {0,3} and {0,2} are not.
    assert 0.6 < np.mean(scores) < 0.9


def test_shattering_of_ten_classes_and_of_noise():
    x, labels = clusters(300, 10, 10, 0.5, 0)
    assert sm.shattering_dimensionality(x, labels, x, labels) == 1.0
    noise = rng(1).normal(size=(600, 3))
    labels = np.arange(600) % 4
    # 3 splits of 300 test stimuli: SE below sqrt(.25 / 300)
    assert abs(sm.shattering_dimensionality(noise[:300], labels[:300], noise[300:], labels[300:]) - 0.5) < 0.13
    with pytest.raises(ValueError, match="even number of classes"):
        sm.shattering_dimensionality(noise, np.arange(600) % 3, noise, np.arange(600) % 3)


def gabors(n, seed):
    generator = rng(seed)
    truth = {
        "orientation": generator.uniform(0, np.pi, n),
        "frequency": generator.uniform(0.1, 0.3, n),
        "sigma_along": generator.uniform(1.5, 3, n),
        "sigma_across": generator.uniform(1.5, 3, n),
        "row": generator.uniform(5, 10, n),
        "column": generator.uniform(5, 10, n),
        "phase": generator.uniform(-3, 3, n),
    }
    r, c = np.mgrid[:16, :16]
    elements = []
    for i in range(n):
        t = {k: v[i] for k, v in truth.items()}
        y, x = r - t["row"], c - t["column"]
        u = np.cos(t["orientation"]) * x + np.sin(t["orientation"]) * y
        v = np.cos(t["orientation"]) * y - np.sin(t["orientation"]) * x
        window = np.exp(-(u**2) / (2 * t["sigma_along"] ** 2) - v**2 / (2 * t["sigma_across"] ** 2))
        elements.append((window * np.cos(2 * np.pi * t["frequency"] * u + t["phase"])).ravel())
    return np.array(elements), truth


def test_gabor_fits_recover_gabors():
    elements, truth = gabors(40, 0)
    fits = sm.fit_gabors(elements * -7.0, (1, 16, 16))  # a sign is half a turn of phase
    assert fits.r2.min() > 1 - 1e-9
    for name in ("orientation", "frequency", "sigma_along", "sigma_across", "row", "column"):
        np.testing.assert_allclose(getattr(fits, name), truth[name], atol=1e-5, err_msg=name)
    turn = np.angle(np.exp(1j * (fits.phase - truth["phase"] - np.pi)))
    np.testing.assert_allclose(turn, 0, atol=1e-5)


def test_gabor_bandwidth_is_read_off_the_spectrum():
    """Half-amplitude points of the Fourier transform of one element, found on a fine grid."""
    n, f, sigma = 4096, 0.15, 3.0
    x = np.arange(16) - 7.5
    profile = np.exp(-(x**2) / (2 * sigma**2)) * np.cos(2 * np.pi * f * x)
    element = np.exp(-(x[:, None] ** 2) / 18) * profile
    fit = sm.fit_gabors(element.reshape(1, -1), (16, 16))
    wide = np.arange(-200, 200)
    carrier = np.exp(-(wide**2) / (2 * sigma**2)) * np.exp(2j * np.pi * f * wide)
    spectrum, k = np.abs(np.fft.fft(carrier, n)), np.fft.fftfreq(n)
    above = k[(spectrum > spectrum.max() / 2)]
    assert fit.bandwidth[0] == pytest.approx(math.log2(above.max() / above.min()), abs=0.02)


def test_gabor_fits_tell_gabors_from_noise_and_survive_anything():
    elements, _ = gabors(4, 1)
    noise = rng(2).normal(size=(4, 256))
    assert sm.fit_gabors(elements + 0.05 * noise, (16, 16)).r2.min() > 0.8
    assert sm.fit_gabors(noise, (16, 16)).r2.max() < 0.3
    odd = np.array([np.zeros(256), np.eye(256)[0], np.ones(256), np.arange(256) * 1e20, np.eye(256)[77] * 1e-20])
    fits = sm.fit_gabors(odd, (16, 16))
    assert np.isnan(fits.r2[0]) and (fits.r2[1:] > 0.5).all()
    sm.fit_gabors(rng(3).normal(size=(50, 30)) ** 3, (5, 6))  # heavy tails drive widths to their bounds


def test_gabor_derivatives():
    r, c = np.mgrid[:9, :11].astype(float)
    image, p = rng().normal(size=(9, 11)), np.array([4.0, 5.0, 0.6, 1.1, 0.1, -0.15, 0.3, -0.2])
    numeric = approx_fprime(p, lambda q: _residual(q, image, r, c), 1e-7)
    np.testing.assert_allclose(_jacobian(p, image, r, c), numeric, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"), [((3, 4, 4), "3 channels"), ((4, 5), "16 pixels"), ((16,), r"give \(H, W\)")]
)
def test_gabor_shape_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        sm.fit_gabors(np.ones((2, 16)), shape)
    with pytest.raises(ValueError, match="Gabor parameters"):
        sm.fit_gabors(np.ones((2, 4)), (2, 2))
