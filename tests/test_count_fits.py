"""Laws fitted to spike counts: SciPy's likelihoods and optimisers, coverage of intervals, limits."""

import json
import math
import time

import numpy as np
import pytest
from scipy import optimize, special, stats

import spikevae
from spikevae.cli import main
from spikevae.count_fits import fit_counts, newton, read_counts
from spikevae.count_fits.goodness import pearson_p
from spikevae.count_fits.laws import LAWS
from spikevae.count_fits.output import text as table_of

N = 400


@pytest.fixture(scope="module")
def mixed():
    """100 units each of negative binomial (m = 3, r = 2), Poisson (3) and binomial (6 of .5); one that is silent."""
    rng = np.random.default_rng(3)
    return np.concatenate(
        [
            rng.negative_binomial(2, 0.4, (N, 100)),
            rng.poisson(3.0, (N, 100)),
            rng.binomial(6, 0.5, (N, 100)),
            np.zeros((N, 1), dtype=int),
        ],
        1,
    )


@pytest.fixture(scope="module")
def found(mixed):
    return fit_counts(mixed)


def column(found, units, law, name, kind="parameters"):
    return np.array([found.of(u, law)[kind][name] for u in units])


@pytest.mark.parametrize(
    ("units", "law", "name", "truth"),
    [
        (range(100), "negative_binomial", "mean", 3.0),
        (range(100), "negative_binomial", "r", 2.0),
        (range(100, 200), "poisson", "mean", 3.0),
        (range(100, 200), "conway_maxwell_poisson", "shape", 1.0),
        (range(200, 300), "binomial", "mean", 3.0),
    ],
)
def test_intervals_cover_the_truth(found, units, law, name, truth):
    """Of 100 intervals of 1.96 standard errors 86 to 100 cover (p < 1e-4 of fewer); errors off by 1.5 would fail."""
    value, error = column(found, units, law, name), column(found, units, law, name, "standard_errors")
    z = (value - truth) / error
    assert np.mean(np.abs(z) < 1.96) >= 0.86
    assert 0.75 < np.std(z) < 1.35


def test_zero_inflated_intervals_cover_the_truth():
    rng = np.random.default_rng(5)
    z = rng.poisson(4.0, (N, 100)) * (rng.random((N, 100)) > 0.3)
    found = fit_counts(z, ["zero_inflated_poisson"])
    for name, truth in (("rate_on", 4.0), ("off", 0.3), ("mean", 2.8)):
        score = (column(found, range(100), "zero_inflated_poisson", name) - truth) / column(
            found, range(100), "zero_inflated_poisson", name, "standard_errors"
        )
        assert np.mean(np.abs(score) < 1.96) >= 0.86 and 0.75 < np.std(score) < 1.35


def test_likelihoods_and_maxima_are_those_of_scipy(mixed, found):
    z = mixed[:, 0]
    row = found.of(0, "negative_binomial")

    def minus(u):
        m, r = np.exp(u)
        return -stats.nbinom(r, r / (r + m)).logpmf(z).sum()

    theirs = optimize.minimize(minus, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert row["log_likelihood"] == pytest.approx(-theirs.fun, abs=1e-6)
    np.testing.assert_allclose([row["parameters"]["mean"], row["parameters"]["r"]], np.exp(theirs.x), rtol=1e-4)
    assert row["aic"] == pytest.approx(4 + 2 * theirs.fun, abs=1e-5)
    assert row["bic"] == pytest.approx(2 * math.log(N) + 2 * theirs.fun, abs=1e-5)

    poisson = found.of(100, "poisson")
    assert poisson["parameters"]["mean"] == pytest.approx(mixed[:, 100].mean())
    assert poisson["log_likelihood"] == pytest.approx(stats.poisson(mixed[:, 100].mean()).logpmf(mixed[:, 100]).sum())
    assert poisson["standard_errors"]["mean"] == pytest.approx(math.sqrt(mixed[:, 100].mean() / N))

    binomial = found.of(200, "binomial")
    z = mixed[:, 200]
    profile = {n: stats.binom(n, z.mean() / n).logpmf(z).sum() for n in range(int(z.max()), 200)}
    assert binomial["parameters"]["n"] == max(profile, key=profile.get)
    assert binomial["log_likelihood"] == pytest.approx(max(profile.values()))


@pytest.mark.parametrize(
    ("slots", "p", "n"),
    [(1, 0.22, 247), (1, 0.01, 400), (2, 0.2, 300), (3, 0.1, 300), (20, 0.05, 500), (300, 0.2, 200)],
)
def test_binomial_is_the_best_of_all_numbers_of_slots(slots, p, n):
    """Against a scan to 3000; a unit of ones and zeros is Bernoulli, one that is not under-dispersed Poisson."""
    z = np.random.default_rng(1).binomial(slots, p, (n, 30))
    found, tried = fit_counts(z, ["poisson", "binomial"]), np.arange(1, 3000)
    inside = 0
    for u, own in enumerate(z.T):
        if not own.any():
            continue
        row, m = found.of(u, "binomial"), own.mean()
        scan = [float(k) for k in tried[tried >= own.max()]]
        likelihood = sum(
            count * stats.binom.logpmf(v, scan, m / np.array(scan)) for v, count in enumerate(np.bincount(own)) if count
        )
        assert row["at_limit"] == (own.var() >= m), u
        if row["at_limit"]:
            assert (
                row["log_likelihood"] == found.of(u, "poisson")["log_likelihood"] and likelihood[-1] == likelihood.max()
            )
            continue
        inside += 1
        assert row["log_likelihood"] >= likelihood.max() - 1e-7
        if row["parameters"]["n"] <= 1000:
            assert row["parameters"]["n"] == scan[int(np.argmax(likelihood))]
    assert inside >= 12


def test_binomial_errors(found):
    """The mean's is that of the fitted variance; given n that of p would cover a quarter of the time: there is none."""
    row = found.of(200, "binomial")
    m, n = row["mean"], row["parameters"]["n"]
    assert row["standard_errors"]["mean"] == pytest.approx(math.sqrt(m * (1 - m / n) / N))
    assert math.isnan(row["standard_errors"]["p"]) and math.isnan(row["standard_errors"]["n"])


def hessian(f, u, step=1e-4):
    """Second derivatives of `f` at `u` by central differences of fourth order in each direction."""
    u, axes = np.asarray(u, dtype=float), np.eye(len(u))
    weights = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    h = step * np.abs(u)

    def slope(at, i):
        return sum(w * f(at + k * h[i] * axes[i]) for k, w in weights.items()) / h[i]

    return np.array(
        [
            [sum(w * slope(u + k * h[j] * axes[j], i) for k, w in weights.items()) / h[j] for j in range(2)]
            for i in (0, 1)
        ]
    )


def zero_inflated(z):
    def log_likelihood(u):
        rate, off = u
        return np.log(off * (z == 0) + (1 - off) * stats.poisson(rate).pmf(z)).sum()

    return log_likelihood


def conway_maxwell(z):
    def log_likelihood(u):
        rate, shape = u
        every = shape * stats.poisson(rate).logpmf(np.arange(150))
        return (shape * stats.poisson(rate).logpmf(z)).sum() - len(z) * special.logsumexp(every)

    return log_likelihood


@pytest.mark.parametrize(
    ("law", "of", "names", "truth"),
    [
        ("zero_inflated_poisson", zero_inflated, ("rate_on", "off"), 0.3),
        ("conway_maxwell_poisson", conway_maxwell, ("rate", "shape"), 0.25),
    ],
)
def test_standard_errors_are_of_the_whole_information(law, of, names, truth):
    """The two parameters' errors are bound to each other: neglecting that shrinks them by more than a tenth here."""
    rng = np.random.default_rng(8)
    z = rng.poisson(1.5, N) * (rng.random(N) > truth)
    row = fit_counts(z, [law]).of(0, law)
    u = [row["parameters"][name] for name in names]
    information = -hessian(of(z), u)
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    assert (errors > 1.1 / np.sqrt(np.diag(information))).all()
    np.testing.assert_allclose([row["standard_errors"][name] for name in names], errors, rtol=1e-3)


@pytest.mark.parametrize(("unit", "law"), [(0, "negative_binomial"), (100, "poisson"), (200, "binomial")])
def test_fit_is_tested_with_one_degree_less_for_each_parameter(mixed, found, unit, law):
    row = found.of(unit, law)
    m, theirs = (
        row["parameters"],
        {"poisson": stats.poisson, "binomial": stats.binom, "negative_binomial": stats.nbinom},
    )
    given = {"poisson": lambda: (m["mean"],), "binomial": lambda: (m["n"], m["p"])}.get(
        law, lambda: (m["r"], m["r"] / (m["r"] + m["mean"]))
    )()
    bins, o, e, left = [], 0, 0.0, float(N)
    for count in range(200):
        o, e = o + int((mixed[:, unit] == count).sum()), e + N * theirs[law](*given).pmf(count)
        if e >= 5:
            bins.append((o, e))
            left, o, e = left - e, 0, 0.0
    bins[-1] = (bins[-1][0] + o, bins[-1][1] + left)
    chi2 = sum((o - e) ** 2 / e for o, e in bins)
    parameters = 1 if law == "poisson" else 2
    assert row["fit_p_value"] == pytest.approx(stats.chi2.sf(chi2, len(bins) - 1 - parameters), rel=1e-6)


def test_an_atom_of_silence_far_from_all_else_is_expected_where_it_is():
    """Zeros 12 standard deviations below the rest: without their place in the lowest bin the true law is rejected."""
    rng = np.random.default_rng(6)
    z = rng.poisson(1000.0, 5000) * (rng.random(5000) > 0.003)
    row = fit_counts(z, ["zero_inflated_poisson"]).of(0, "zero_inflated_poisson")
    assert row["parameters"]["off"] == pytest.approx(0.003, abs=0.0025) and row["fit_p_value"] > 1e-3


def test_the_test_of_fit_looks_at_few_counts():
    asked = []

    def pmf(counts):
        asked.append(len(counts))
        return stats.poisson(3.0).pmf(counts)

    values = np.array([0.0, 1, 2, 3, 4, 5, 1_000_000])
    pearson_p(np.array([5.0, 15, 22, 22, 17, 10, 1]), values, pmf, 3.0, 3.0, 1)
    assert max(asked) < 30
    assert math.isnan(pearson_p(np.array([5.0, 5.0]), np.array([0.0, 1.0]), pmf, math.nan, math.nan, 1))


def test_one_enormous_count_is_no_trouble():
    """It changes no other unit's test of fit."""
    z = np.random.default_rng(0).poisson(3.0, (100, 3))
    alone = fit_counts(z[:, 1:], ["poisson", "negative_binomial"])
    z[0, 0] = 1_000_000
    found = fit_counts(z, ["poisson", "negative_binomial"])
    for unit in (0, 1):
        for law in found.laws:
            assert found.of(unit + 1, law)["fit_p_value"] == pytest.approx(alone.of(unit, law)["fit_p_value"], rel=1e-6)
    assert found.of(0, "poisson")["fit_p_value"] < 1e-6 and found.units[0]["dispersion"] == "over"


def test_each_law_is_chosen_for_its_counts(found):
    """At 400 trials BIC takes the law that made the counts for seven in ten units; its rival is Conway-Maxwell's."""
    for start, law in ((0, "negative_binomial"), (100, "poisson"), (200, "binomial")):
        chosen = [found.units[u]["best_bic"] for u in range(start, start + 100)]
        assert chosen.count(law) >= 70, law
    assert sum(found.share().values()) == pytest.approx(1.0)
    assert all(sum(r["weight"] for r in found.fits if r["unit"] == u) == pytest.approx(1) for u in (0, 150, 250))
    assert "latent = " in found.summary() and "1 silent" in found.summary()


def test_limits_are_said(found):
    """Under-dispersed counts: the negative binomial is Poisson, without an error of r; and so for the binomial."""
    row = found.of(200, "negative_binomial")
    assert row["at_limit"] and row["parameters"]["r"] == math.inf and math.isnan(row["standard_errors"]["r"])
    assert row["log_likelihood"] == found.of(200, "poisson")["log_likelihood"]
    assert found.of(0, "binomial")["at_limit"]
    assert found.of(200, "zero_inflated_poisson")["parameters"]["off"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "z",
    [np.full((20, 1), 4), np.array([[0], [1]]), np.array([[0], [0], [9]]), np.array([[1000], [1010], [990], [1005]])],
    ids=["constant", "two trials", "one burst", "large"],
)
def test_odd_units_give_finite_numbers(z, monkeypatch):
    monkeypatch.setattr(newton, "MAX_ITERATIONS", 20)
    found = fit_counts(z)
    assert all(math.isfinite(row["log_likelihood"]) and math.isfinite(row["bic"]) for row in found.fits)


def test_nothing_fires():
    found = fit_counts(np.zeros((5, 2), dtype=int))
    assert found.fits == [] and "None of 2 units fires" in found.summary()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.array([[1.5], [2.0]]), "whole numbers.*1.5"),
        (np.array([[-1], [2]]), "found -1"),
        (np.array([[np.nan], [2.0]]), "NaN"),
        (np.zeros((1, 3)), "two trials"),
        (np.array([["a"], ["b"]]), "type"),
        (np.array([[2_000_000], [1]]), "1,000,000"),
    ],
)
def test_bad_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        fit_counts(counts)


def test_a_fit_that_is_not_there_is_named(found):
    with pytest.raises(KeyError, match=r"no fit of unit 0 by 'gaussian'"):
        found.of(0, "gaussian")


def test_one_law_needs_no_list():
    assert fit_counts([1, 2, 0, 1], "poisson").laws == ("poisson",)


def test_time_grows_no_faster_than_the_number_of_units():
    """Twenty times the units may take forty times as long; once it was four hundred."""
    z = np.random.default_rng(0).poisson(1.0, (4, 20_000)) + 1
    seconds = []
    for n in (1000, 20_000):
        began = time.process_time()
        assert len(fit_counts(z[:, :n], "poisson").fits) == n
        seconds.append(time.process_time() - began)
    assert seconds[1] < 40 * seconds[0] + 0.5


def test_laws_given_twice_are_fitted_once():
    z = np.random.default_rng(0).poisson(2.0, (50, 3))
    once, twice = fit_counts(z), fit_counts(z, [*LAWS, *LAWS])
    assert once.laws == twice.laws and repr(once.fits) == repr(twice.fits) and repr(once.units) == repr(twice.units)


def test_the_bound_of_a_shape_is_not_the_poisson_limit():
    """Counts all but without variance: the Conway-Maxwell-Poisson law stops at shape 4, far from Poisson."""
    z = np.repeat([9, 10, 11], [10, 180, 10])
    found = fit_counts(z)
    row = found.of(0, "conway_maxwell_poisson")
    assert row["at_limit"] and row["parameters"]["shape"] == pytest.approx(4.0, rel=0.05) and row["fano"] < 0.3
    assert row["log_likelihood"] > found.of(0, "poisson")["log_likelihood"] + 10
    line = next(line for line in table_of(found).splitlines() if line.startswith("Conway"))
    assert line.endswith(" 1*")


def test_unknown_law():
    with pytest.raises(ValueError, match="choose from"):
        spikevae.fit_counts(np.ones((3, 1), dtype=int), ["gaussian"])


@pytest.mark.filterwarnings("default")
def test_command_line(tmp_path, capsys, mixed):
    source, out = tmp_path / "c.npz", tmp_path / "out"
    np.savez(source, counts=mixed[:, ::20], other=np.zeros(3))
    assert main(["fit-counts", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "latent = " in said.out and "shape 1/4 or 4" in said.out
    assert "'counts' is read, 'other' not" in said.err.replace("\n", " ")
    assert (out / "fits.png").stat().st_size > 10_000
    lines = (out / "fits.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 15 and lines[0].startswith("unit,name,law,n_trials,log_likelihood")
    assert json.loads((out / "fits.json").read_text())["n_trials"] == N
    assert main(["fit-counts", str(source), "--out", str(out), "--law", "poisson", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["laws"] == ["poisson"]


@pytest.mark.slow
def test_nested_fits_are_never_below_poisson_and_zero_inflated_ones_are_maxima():
    """Zero-inflated counts, far from where fits start: every law that contains Poisson does at least as well."""
    rng = np.random.default_rng(5)
    on = rng.uniform(0.05, 0.9, 24)
    z = rng.poisson(rng.uniform(0.5, 6, 24), (400, 24)) * (rng.uniform(size=(400, 24)) < on)
    z[:, 0] = np.repeat(np.arange(7), [308, 22, 25, 21, 17, 4, 3])
    found = fit_counts(z)

    def zero_inflated(v, counts):
        rate, off = np.exp(v[0]), 1 / (1 + np.exp(-v[1]))
        zero = np.log(off + (1 - off) * np.exp(-rate))
        return -np.where(counts == 0, zero, np.log1p(-off) + stats.poisson.logpmf(counts, rate)).sum()

    for unit in range(z.shape[1]):
        poisson = found.of(unit, "poisson")["log_likelihood"]
        for law in ("negative_binomial", "zero_inflated_poisson", "conway_maxwell_poisson"):
            assert found.of(unit, law)["log_likelihood"] >= poisson - 1e-3, (unit, law)
        starts = [(a, b) for a in (-1.0, 1.0, 2.0) for b in (-2.0, 0.0, 2.0)]
        best = min(optimize.minimize(zero_inflated, v, (z[:, unit],), method="Nelder-Mead").fun for v in starts)
        assert found.of(unit, "zero_inflated_poisson")["log_likelihood"] >= -best - 1e-3, unit


@pytest.mark.parametrize(
    "text, rows",
    [("\ufeff5,2\n3,4\n", [[5, 2], [3, 4]]), ("\ufeffa,b\n3,4\n1,1\n", [[3, 4], [1, 1]]), ("3,4\n", [[3, 4]])],
)
def test_no_trial_of_a_table_is_lost(tmp_path, text, rows):
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    assert read_counts(tmp_path / "c.csv").tolist() == rows
