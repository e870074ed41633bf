"""Decoding from spikes in time: Bayes' rule, exact decision times, and the sequential test of two rates."""

import json
import math

import numpy as np
import pytest
from helpers import SCORE
from scipy import stats
from training_cases import fit

import spikevae as sv
from spikevae.cli import main
from spikevae.data import PatchSet
from spikevae.decoding import SpikeDecoder, respond, spike_train, study, two_rates
from spikevae.decoding.responses import first_crossing
from spikevae.models.build import build_model
from spikevae.models.files import save_model

RATES = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.7], [0.6, 0.9, 2.5], [2.0, 2.0, 0.1]])
CLASSES = np.array(["a", "b", "a", "c"])
PRIOR = np.array([0.1, 0.3, 0.2, 0.4])


def by_bayes(counts, time):
    """(3,) posterior of the classes from SciPy's Poisson probabilities."""
    joint = PRIOR * stats.poisson(RATES * time).pmf(counts).prod(1)
    total = np.array([joint[name == CLASSES].sum() for name in ("a", "b", "c")])
    return total / total.sum()


def test_posterior_is_that_of_bayes_rule():
    decoder = SpikeDecoder(RATES, PRIOR, CLASSES)
    assert decoder.labels.tolist() == ["a", "b", "c"]
    for counts, time in (([0, 0, 0], 0.4), ([3, 1, 2], 1.3), ([0, 7, 1], 2.0)):
        np.testing.assert_allclose(decoder.posterior(counts, time), by_bayes(counts, time), rtol=1e-10)
    units, times = spike_train(RATES[1], 3.0, seed=2)
    path = decoder.follow(units, times)
    counts = np.zeros((len(units) + 1, 3))
    counts[np.arange(1, len(units) + 1), units] = 1
    moments = np.concatenate([[0.0], times])
    expected = [by_bayes(n, t) if t else np.array([0.3, 0.3, 0.4]) for n, t in zip(counts.cumsum(0), moments)]
    np.testing.assert_allclose(path, expected, rtol=1e-9)


def test_spike_trains_are_poisson_processes():
    units, times = spike_train([2.0, 0.0, 8.0], 1000.0, seed=1)
    counts = np.bincount(units, minlength=3)
    assert counts[1] == 0 and (abs(counts - [2000, 0, 8000]) < SCORE * np.sqrt([2000, 1, 8000])).all()
    assert stats.kstest(np.diff(times), stats.expon(scale=0.1).cdf).pvalue > 1e-4


@pytest.mark.parametrize(("low", "high", "threshold"), [(1.0, 2.0, 0.95), (0.5, 4.0, 0.8), (3.0, 4.5, 0.9)])
def test_two_rates_are_told_apart_as_exactly_known(low, high, threshold):
    """Choices, mean times and overshoots of 12,000 trials of either rate, and of one between: within 4.5 errors."""
    n, decoder, bound = 12_000, SpikeDecoder([[low], [high]]), math.log(threshold / (1 - threshold))
    for seed, rate in enumerate((low, high, 0.5 * (low + high))):
        exact = two_rates(low, high, rate=rate, threshold=threshold)
        found = respond(decoder, np.full((n, 1), rate), threshold=threshold, deadline=1e4, seed=seed)
        assert found.decided.all()
        chooses_high = found.choice == 1
        error = math.sqrt(exact.chooses_high * (1 - exact.chooses_high) / n)
        assert abs(chooses_high.mean() - exact.chooses_high) < SCORE * error
        assert abs(found.time.mean() - exact.mean_time) < SCORE * found.time.std() / math.sqrt(n)
        odds = np.log(found.posterior / (1 - found.posterior))
        np.testing.assert_allclose(odds[~chooses_high], bound, rtol=1e-7)  # reached between spikes
        beyond = odds[chooses_high] - bound
        assert beyond.min() >= 0 and beyond.max() <= math.log(high / low)
        assert abs(beyond.mean() - exact.mean_overshoot) < SCORE * beyond.std() / math.sqrt(len(beyond))
        assert found.time.std() / math.sqrt(n) < 0.02 * exact.mean_time  # so that the test means something


@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_exact_probabilities_keep_the_likelihood_ratio(prior):
    """Where `low` is chosen the likelihood ratio is known: a relation between two rates that each series has alone."""
    low, high, threshold = 1.0, 1.7, 0.97
    of_low, of_high = (two_rates(low, high, rate=rate, threshold=threshold, prior_high=prior) for rate in (low, high))
    ratio = math.log(threshold / (1 - threshold)) + math.log(prior / (1 - prior))
    np.testing.assert_allclose((1 - of_high.chooses_high) / (1 - of_low.chooses_high), math.exp(-ratio), rtol=1e-9)


def test_mean_times_tend_to_those_of_wald():
    """As the overshoot becomes small against the threshold, from above; and are 15 % longer where it is not."""
    ratios = []
    for high in (8.0, 2.0, 1.15):
        exact = two_rates(1.0, high, rate=high, threshold=0.99)
        ratios.append(exact.mean_time / exact.wald_time)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1.15 and 1 < ratios[-1] < 1.02


def test_evidence_is_worth_what_it_says():
    """Of spikes from the decoder's own classes, the mean probability at the decision is the share that is right."""
    decoder, rng, n = SpikeDecoder(RATES, PRIOR, CLASSES), np.random.default_rng(0), 6000
    template = rng.choice(4, n, p=PRIOR)
    found = respond(decoder, RATES[template], threshold=0.85, deadline=3.0, seed=1)
    right = decoder.labels[found.choice] == CLASSES[template]
    assert 0.5 < found.decided.mean() < 0.99  # some trials end at the deadline
    for which in (found.decided, ~found.decided):
        gap = right[which] - found.posterior[which]
        assert abs(gap.mean()) < SCORE * gap.std() / math.sqrt(which.sum())
    assert (found.posterior[found.decided] >= 0.85 - 1e-9).all() and (found.posterior[~found.decided] < 0.85).all()
    assert (found.time[~found.decided] == 3.0).all()


def test_crossings_between_spikes_are_the_first_ones():
    """Against a fine grid: 400 random posteriors of six templates in three classes."""
    rng = np.random.default_rng(3)
    evidence, loss, starts = rng.normal(0, 1.5, (400, 6)), rng.gamma(2.0, 2.0, 6), np.array([0, 2, 3])
    grid = np.linspace(0, 0.6, 6001)
    value = evidence[:, None] - grid[:, None] * loss
    classes = np.logaddexp.reduceat(value, starts, -1)
    top = np.exp(classes.max(-1) - np.logaddexp.reduce(classes, -1))
    usable = top[:, 0] < 0.8
    found = first_crossing(evidence[usable], loss, starts, 0.8, np.full(usable.sum(), 0.6))
    reached = top[usable] >= 0.8
    first = np.where(reached.any(1), grid[reached.argmax(1)], np.inf)
    crossed = np.isfinite(first)
    assert 30 < crossed.sum() < usable.sum() and (np.isfinite(found) == crossed).all()
    assert (abs(found[crossed] - first[crossed]) < 1.1e-4).all()


def test_a_class_that_has_the_threshold_for_a_while_is_chosen():
    """It passes the first class, until the third one, which fires least, passes it."""
    evidence, loss = np.array([[3.0, 2.0, -6.0]]), np.array([20.0, 10.0, 1.0])
    moments = np.linspace(0, 3, 30_001)
    value = evidence - moments[:, None] * loss
    share = np.exp(value - np.logaddexp.reduce(value, 1)[:, None])
    assert share[0].max() < 0.8 and share[-1, 2] > 0.8 and (share[:, 1] > 0.8).any() and share[15_000, 1] < 0.8
    found = first_crossing(evidence, loss, np.array([0, 1, 2]), 0.8, np.array([3.0]))
    assert abs(found[0] - moments[(share[:, 1] >= 0.8).argmax()]) < 1.1e-4


def test_silence_decides_for_the_class_that_fires_least():
    decoder = SpikeDecoder([[5.0], [1.0]])
    found = respond(decoder, np.zeros((2, 1)), threshold=0.9)
    np.testing.assert_allclose(found.time, math.log(9) / 4, rtol=1e-9)
    assert (found.choice == 1).all() and (found.spikes == 0).all()
    nothing = respond(SpikeDecoder([[2.0, 1.0], [1.0, 2.0]]), np.zeros((1, 2)), threshold=0.9, deadline=7.0)
    assert not nothing.decided.any() and nothing.time.tolist() == [7.0]  # equal totals: silence says nothing
    sure = respond(SpikeDecoder([[1.0], [2.0]], prior=[0.95, 0.05]), np.ones((1, 1)), threshold=0.9)
    assert sure.time.tolist() == [0.0] and sure.decided.all()


def test_templates_are_clusters_of_a_class():
    rng = np.random.default_rng(0)
    means = np.array([[9.0, 0.2], [0.2, 9.0], [5.0, 5.0]])
    labels = np.repeat([0, 0, 1], 200)
    codes = rng.poisson(np.repeat(means, 200, 0))
    decoder = SpikeDecoder.from_codes(codes, labels, templates=2, pseudo=0.1)
    assert decoder.classes.tolist() == [0, 0, 1, 1]
    pair = decoder.rates[:2][np.argsort(decoder.rates[:2, 1])]
    np.testing.assert_allclose(pair, means[:2], atol=0.8)
    one = SpikeDecoder.from_codes(codes, labels, pseudo=0.1)
    np.testing.assert_allclose(one.rates[1], codes[400:].mean(0), rtol=0.01)
    np.testing.assert_allclose(one.prior, [2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpikeDecoder([[1.0, 0.0], [1.0, 1.0]]), "from_codes"),
        (lambda: SpikeDecoder([[1.0]]), "two or more rows"),
        (lambda: SpikeDecoder([[1.0], [2.0]], prior=[0.9, 0.3]), "sum 1"),
        (lambda: SpikeDecoder([[1.0], [2.0]], classes=[3, 3]), "two or more"),
        (lambda: SpikeDecoder([[1.0], [2.0]]).follow([0], [-1.0]), "sort the spikes"),
        (lambda: SpikeDecoder([[1.0], [2.0]]).follow([1], [1.0]), "from 0 to 0"),
        (lambda: SpikeDecoder.from_codes([[1.0], [-2.0]], [0, 1]), "zero or more"),
        (lambda: SpikeDecoder.from_codes([[1.0], [2.0]], [0]), "expected"),
        (lambda: respond(SpikeDecoder([[1.0], [2.0]]), [[1.0]], threshold=0.5), "above 0.5"),
        (lambda: respond(SpikeDecoder([[1.0], [2.0]]), [[1.0]], deadline=math.inf), "finite time"),
        (lambda: respond(SpikeDecoder([[1.0], [2.0]]), [[1.0, 2.0]]), "as the decoder's"),
        (lambda: two_rates(2.0, 1.0, rate=1.0), "0 < low < high"),
        (lambda: two_rates(1.0, 1.0001, rate=1.0), "simulate with respond"),
        (lambda: two_rates(1.0, 2.0, rate=1.0, threshold=0.9, prior_high=0.95), "not beyond it"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def digits():
    """Scikit-learn's 8 x 8 digits with labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = (found.data / 4 - 1.2).astype("float32")
    return x, found.target


def labelled(train, test, train_labels, test_labels):
    groups = np.arange(len(train)), np.arange(len(test))
    shape = (train.shape[1],)
    return PatchSet(train, test, shape, *groups, "stimuli", train_labels=train_labels, test_labels=test_labels)


def test_study_of_a_model_and_its_figure(digits, tmp_path):
    x, y = digits
    estimator = sv.SpikeVAE(n_latents=24, steps=100, random_state=0).fit(x[:900])
    data = labelled(x[:900], x[1200:], y[:900], y[1200:])
    found = study(estimator.model_, data, thresholds=(0.9, 0.6), trials=200, templates=2)
    rows = found.rows()
    assert [row["threshold"] for row in rows] == [0.6, 0.9]
    assert rows[1]["right"] > max(0.6, rows[0]["right"]) and rows[1]["median_time"] > rows[0]["median_time"]
    assert found.draw(tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert len(found.describe().splitlines()) == 3


@pytest.mark.parametrize(
    ("latent", "labels", "options", "message"),
    [
        ("gaussian", True, {}, "decode a model of counts"),
        ("poisson", False, {}, "has no labels"),
        ("poisson", True, {"thresholds": (0.4,)}, "above 0.5"),
    ],
)
def test_what_cannot_be_decoded_is_refused(latent, labels, options, message):
    model = build_model(fit(latent=latent, prior="fixed"), (4,))
    x, y = np.zeros((6, 4), "float32"), np.arange(6) % 2 if labels else None
    with pytest.raises(ValueError, match=message):
        study(model, labelled(x, x, y, y), **options)


def test_command_line(digits, tmp_path, capsys):
    x, y = digits
    np.savez(tmp_path / "digits.npz", train=x[:200], test=x[200:260], train_labels=y[:200], test_labels=y[200:260])
    save_model(build_model(fit(n_latents=8, start=1.0), (64,)), tmp_path / "m.spikevae")
    command = ["decode", str(tmp_path / "m.spikevae"), "--data", f"array:{tmp_path / 'digits.npz'}", "--deadline", "2"]
    assert main([*command, "--threshold", "0.7", "--out", str(tmp_path / "out"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trials"] == 60 and [row["threshold"] for row in facts["thresholds"]] == [0.7]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"decoding.json", "decoding.png", "decoding.svg"}
    assert main([*command, "--threshold", "0.3", "--out", str(tmp_path / "out")]) == 2
    assert "above 0.5" in capsys.readouterr().err
