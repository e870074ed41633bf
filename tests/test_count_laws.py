"""The law of a whole recording: summed evidence, mixtures, conditions, covariates, and the line that uses it."""

import json
import math

import numpy as np
import pytest
from scipy import optimize, special, stats

import spikevae
from spikevae.cli import main
from spikevae.count_fits import dispersion_given, fit_counts
from spikevae.count_fits.dispersion import dispersion_p
from spikevae.count_fits.evidence import choose_law, code_line
from spikevae.count_fits.laws import LAWS
from spikevae.count_fits.regression import design_matrix, fit_means
from spikevae.population import Recording, read_recording


def test_summed_evidence_decides_where_most_units_look_like_poisson():
    """60 Poisson units and 40 that are over-dispersed: Poisson is best for most and by far the worse law for all."""
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.poisson(3.0, (300, 60)), rng.negative_binomial(1, 0.25, (300, 40))], 1)
    found = fit_counts(z, ["poisson", "negative_binomial"])
    assert found.share()["poisson"] > 0.5
    assert found.choice.law == "negative_binomial" and found.choice.gaps["poisson"] > 4000
    assert found.choice.mixed and found.choice.shares["poisson"] == pytest.approx(0.6, abs=0.1)
    assert "mixed: poisson" in found.summary() and "Of single laws, negative_binomial" in found.summary()


@pytest.mark.parametrize(("law", "seed"), [(law, s) for law in ("poisson", "negative_binomial") for s in range(4)])
def test_recordings_of_one_law_are_not_mixed(law, seed):
    rng = np.random.default_rng(seed)
    m = rng.uniform(2, 8, 60)
    z = rng.poisson(m, (300, 60)) if law == "poisson" else rng.negative_binomial(1.5, 1.5 / (1.5 + m), (300, 60))
    choice = fit_counts(z, ["poisson", "negative_binomial"]).choice
    assert choice.law == law and not choice.mixed and choice.shares[law] > 0.9


def test_shares_are_those_that_an_optimiser_finds():
    bic = np.random.default_rng(0).normal(0, 5, (30, 3))
    found = choose_law(("a", "b", "c"), bic)

    def minus(u):
        return -special.logsumexp(special.log_softmax(np.append(u, 0.0)) - bic / 2, axis=1).sum()

    theirs = optimize.minimize(minus, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(list(found.shares.values()), special.softmax(np.append(theirs.x, 0.0)), atol=1e-4)
    single = bic.sum(0).min()
    assert found.gain == pytest.approx(single - (2 * theirs.fun + 2 * math.log(30)), abs=1e-5)
    assert found.law == "abc"[int(bic.sum(0).argmin())] and found.gaps[found.law] == 0


@pytest.mark.parametrize("law", LAWS)
def test_the_line_runs(law):
    model = eval(code_line(law, 12), {"spikevae": spikevae})
    x = np.random.default_rng(0).normal(size=(64, 9)).astype("float32")
    assert model.set_params(steps=4, random_state=0).fit(x).sample_codes(x).shape == (64, 12)


def test_conditions_have_fits_of_their_own():
    """Poisson with a rate that depends on the stimulus looks over-dispersed where stimuli are pooled."""
    rng = np.random.default_rng(1)
    z = rng.poisson(np.array([1.0, 4.0, 12.0])[:, None, None] * np.geomspace(0.3, 3, 20), (3, 60, 20))
    pooled = fit_counts(z.reshape(180, 20), ["poisson", "negative_binomial"])
    assert pooled.choice.law == "negative_binomial" and all(row["dispersion"] == "over" for row in pooled.units)
    found = fit_counts(z, ["poisson", "negative_binomial"])
    assert found.choice.law == "poisson" and sum(row["dispersion"] != "neither" for row in found.units) <= 2
    single = [fit_counts(part, ["poisson", "negative_binomial"]) for part in z]
    for law in found.laws:
        own = sum(part.of(4, law)["bic"] for part in single)
        assert found.units[4]["bic"][law] == pytest.approx(own)
        assert found.of(4, law, 2)["parameters"] == single[2].of(4, law)["parameters"]
    with pytest.raises(KeyError, match="conditions 0, 1, 2"):
        found.of(4, "poisson", 7)
    same = fit_counts(z.reshape(180, 20), ["poisson"], conditions=np.repeat([0, 1, 2], 60))
    assert same.of(4, "poisson", 2) == {**found.of(4, "poisson", 2), "weight": 1.0}


def test_units_that_were_not_recorded_throughout():
    rng = np.random.default_rng(2)
    z = rng.poisson(3.0, (100, 3))
    mask = np.ones((100, 3), bool)
    mask[40:, 1] = False
    found = fit_counts(Recording(np.where(mask, z, 0), ("a", "b", "c"), mask=mask), ["poisson", "negative_binomial"])
    alone = fit_counts(z[:40, 1], ["poisson", "negative_binomial"])
    for key in ("mean", "variance", "p_value", "n_trials"):
        assert found.units[1][key] == alone.units[0][key]
    assert found.of("b", "negative_binomial")["bic"] == alone.of(0, "negative_binomial")["bic"]


def test_regression_has_the_maximum_that_scipy_finds():
    rng = np.random.default_rng(3)
    speed, lit = rng.normal(size=80), rng.integers(0, 2, 80).astype(str)
    log_length = rng.normal(0, 0.3, 80)
    z = rng.poisson(np.exp(log_length + 0.3 + 0.5 * speed + (lit == "1")))[:, None]
    x = design_matrix({"speed": speed, "lit": lit}, 80)
    plain = np.stack([np.ones(80), speed, lit == "1"], 1)

    def minus(b):
        return -stats.poisson(np.exp(log_length + plain @ b)).logpmf(z[:, 0]).sum()

    theirs = optimize.minimize(minus, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    mean, leverage = fit_means(z, x, log_length)
    np.testing.assert_allclose(mean[:, 0], np.exp(log_length + plain @ theirs.x), rtol=1e-4)
    root = np.sqrt(mean) * plain
    np.testing.assert_allclose(leverage[:, 0], np.diag(root @ np.linalg.solve(root.T @ root, root.T)), rtol=1e-6)


def test_without_covariates_the_test_given_them_is_the_exact_one():
    """p-values of 300 units at each rate, from two spikes in a thousand trials to a hundred per trial."""
    rng = np.random.default_rng(4)
    for rate in (0.02, 0.2, 1.0, 5.0, 30.0):
        z = rng.poisson(rate, (400, 300))
        _, p, _ = dispersion_given(z, design_matrix({}, 400), np.zeros(400))
        exact = dispersion_p(z)
        small = exact < 0.2
        np.testing.assert_allclose(p, exact, atol=0.04)
        np.testing.assert_allclose(p[small], exact[small], atol=0.02)


@pytest.mark.parametrize("rate", [0.3, 2.0, 20.0])
def test_dispersion_given_covariates_is_calibrated_and_has_power(rate):
    """Of 500 Poisson units 1.4 to 8.6 % have p < 5 % (3.7 standard errors); without covariates nearly all are over."""
    rng = np.random.default_rng(5)
    speed, side = rng.normal(size=300), rng.integers(0, 3, 300)
    log_length = np.log(rng.uniform(0.5, 2.0, 300))
    m = rate * np.exp(log_length + 0.6 * speed + 0.5 * (side == 1))[:, None]
    x = design_matrix({"speed": speed, "side": side.astype(str)}, 300)
    _, p, _ = dispersion_given(rng.poisson(m, (300, 500)), x, log_length)
    assert 0.014 < np.mean(p < 0.05) < 0.086
    over = rng.negative_binomial(2.0, 2.0 / (2.0 + m), (300, 500))
    _, p, sign = dispersion_given(over, x, log_length)
    assert np.mean((p < 0.05) & (sign > 0)) > (0.5 if rate < 1 else 0.99)
    slots = np.ceil(2 * m.max())  # binomial: under-dispersed
    index, p, sign = dispersion_given(rng.binomial(int(slots), m / slots, (300, 500)), x, log_length)
    if rate > 1:
        assert np.mean(sign < 0) > 0.9 and index.mean() < 300


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": np.ones(20)}, "'a' is constant"),
        ({"a": np.arange(20), "b": 2.0 * np.arange(20) + 1}, "'b' is constant, or a combination"),
        ({"a": np.arange(19)}, "'a' has shape"),
        ({"a": np.full(20, np.nan)}, "'a' is missing"),
        ({"a": np.arange(20).astype(str)}, "20 columns for 20 trials"),
    ],
)
def test_covariates_that_are_refused(columns, message):
    z = np.random.default_rng(0).poisson(2.0, (20, 2))
    with pytest.raises(ValueError, match=message):
        fit_counts(z, "poisson", covariates=columns)


def write_session(folder):
    """Three units, named; 120 trials of half a second; the second fires with the speed, the third is silent."""
    rng = np.random.default_rng(6)
    start = np.arange(120) * 1.0
    speed = rng.normal(size=120)
    lines = ["unit,time"]
    for unit, m in (("left", np.full(120, 3.0)), ("right", 3 * np.exp(0.8 * speed))):
        for begin, n in zip(start, rng.poisson(m)):
            lines += [f"{unit},{begin + t:.6f}" for t in rng.uniform(0, 0.5, n)]
    lines.append("quiet,1000")  # after the last trial
    (folder / "spikes.csv").write_text("\n".join(lines) + "\n")
    trials = [f"{b},{b + 0.5},{s}" for b, s in zip(start, speed)]
    (folder / "trials.csv").write_text("start,stop,speed\n" + "\n".join(trials) + "\n")


def test_the_command_line_reads_spike_times_and_covariates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_session(tmp_path)
    call = ["fit-counts", "spikes.csv", "--trials", "trials.csv", "--law", "poisson", "--law", "negative_binomial"]
    assert main([*call, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recording"].endswith("1 spike outside all rows, 1 silent unit: quiet")
    assert [(row["name"], row["dispersion"]) for row in facts["units"]] == [
        ("left", "neither"),
        ("quiet", "neither"),
        ("right", "over"),
    ]
    assert main([*call, "--covariate", "speed", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["dispersion"] for row in facts["units"]] == ["neither"] * 3 and facts["covariates"] == ["speed"]
    eval(facts["code"], {"spikevae": spikevae})
    assert main([*call, "--bin-width", "0.25"]) == 0
    said = capsys.readouterr().out
    assert "240 rows, 3 units, 0.25 s per row" in said and "spikevae.SpikeVAE(latent=" in said
    assert main([*call, "--covariate", "sped"]) == 2
    assert "spikes.csv: no covariate 'sped' is known (the recording has speed)" in " ".join(
        capsys.readouterr().err.split()
    )
    assert "left" in (tmp_path / "counts" / "fits.csv").read_text()


def test_unequal_durations_are_warned_of():
    found = read_recording({"a": [0.5, 1.5, 1.6]}, trials=[[0, 1], [1, 3]])
    with pytest.warns(UserWarning, match="unequal durations.*give a bin_width"):
        fit_counts(found, "poisson")


def test_conditions_of_one_trial_are_left_out_with_a_warning():
    z = np.random.default_rng(0).poisson(3.0, (21, 2))
    with pytest.warns(UserWarning, match="1 of 3 conditions have one trial"):
        found = fit_counts(z, "poisson", conditions=[0] * 10 + [1] * 10 + [2])
    assert {row["condition"] for row in found.fits} == {0, 1}
