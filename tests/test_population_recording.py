"""Correlations of counts from a fitted model, figures, and `spikevae population` from file to file."""

import json

import numpy as np
import pytest

from spikevae.cli import main
from spikevae.population import PoissonLogNormal, correlations, participation_ratio
from spikevae.population.correlation import clustered_order, count_covariance
from spikevae.population.figures import components, figure, strongest

COVARIANCE = np.array([[0.5, 0.3, 0.0], [0.3, 0.4, -0.2], [0.0, -0.2, 0.6]])


def gauss_hermite(mean, covariance, of, n=40):
    """Expectation of a function of two Gaussian variables."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    root = np.linalg.cholesky(covariance)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), -1) @ root.T + mean
    return float((np.outer(w, w) / (2 * np.pi) * of(grid[..., 0], grid[..., 1])).sum())


def test_covariances_of_counts_are_those_of_quadrature():
    """Of two units in two rows, with inflated zeros: E Cov given the rates and the presence, and the variance."""
    means, present = np.array([[0.4, 1.0], [1.2, -0.5]]), np.array([[0.7, 0.9], [0.6, 1.0]])
    covariance = COVARIANCE[:2, :2]
    expected = np.zeros((2, 2))
    for m, a in zip(means, present):
        first = [gauss_hermite(m, covariance, lambda z, w, j=j, a=a: a[j] * np.exp((z, w)[j])) for j in range(2)]
        for j in range(2):
            for k in range(2):
                if j == k:  # E Y^2 = a (E rate + E rate^2)
                    both = gauss_hermite(m, covariance, lambda z, w, j=j: np.exp((z, w)[j]) + np.exp(2 * (z, w)[j]))
                    expected[j, k] += (a[j] * both - first[j] ** 2) / 2
                else:
                    both = gauss_hermite(m, covariance, lambda z, w: np.exp(z + w))
                    expected[j, k] += (a[j] * a[k] * both - first[j] * first[k]) / 2
    rates = np.exp(means + np.diagonal(covariance) / 2)
    np.testing.assert_allclose(count_covariance(rates, covariance, present), expected, rtol=1e-8)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 1))
    z = 1.5 + x @ [[0.6, -0.6, 0.0]] + rng.multivariate_normal(np.zeros(3), COVARIANCE, size=500)
    y = rng.poisson(np.exp(z))
    return PoissonLogNormal(n_starts=1).fit(y, x), y, x


def test_correlations_are_those_of_counts_that_the_model_draws(fitted):
    """400,000 draws: the correlation of two counts has a standard error under 0.01, heavy tails included."""
    model, _, x = fitted
    found = correlations(model, x)
    rows = np.repeat(x, 800, axis=0)
    drawn = model.sample(X=rows, random_state=0)
    residual = drawn - model.predict(rows)
    np.testing.assert_allclose(found.noise, np.corrcoef(residual.T), atol=0.04)
    np.testing.assert_allclose(found.signal, np.corrcoef(model.predict(x).T), atol=1e-9)
    deviation = np.sqrt(np.diagonal(model.covariance_))
    np.testing.assert_allclose(found.log_rate, model.covariance_ / np.outer(deviation, deviation))
    assert found.signal[0, 1] < -0.5 and abs(found.noise[0, 1]) < abs(found.log_rate[0, 1])
    assert found.signal_dimensionality == pytest.approx(1.0)


def test_partial_correlations_are_those_of_residuals(fitted):
    """Of units 0 and 1 given unit 2: correlation of what regression on it leaves."""
    model, _, x = fitted
    s = model.covariance_
    left = s[:2, :2] - np.outer(s[:2, 2], s[2, :2]) / s[2, 2]
    assert correlations(model, x).partial[0, 1] == pytest.approx(left[0, 1] / np.sqrt(left[0, 0] * left[1, 1]))


def test_participation_ratio_counts_directions():
    values = np.array([4.0, 2.0, 1.0, 0.0])
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    assert participation_ratio(turned @ np.diag(values) @ turned.T) == pytest.approx(49 / 21)
    assert participation_ratio(np.diag([1.0, 1.0, 0.0])) == 2.0


def test_clusters_are_neighbours_and_components_are_principal():
    group = np.array([0, 1, 0, 1, 0, 1])
    order = clustered_order(np.where(group[:, None] == group, 0.8, 0.0))
    assert sorted(np.abs(np.diff(group[order])).tolist()) == [0, 0, 0, 0, 1]
    latent = np.random.default_rng(0).normal(size=(50, 4)) * [3, 1, 1, 0.1]
    scores, shares = components(latent)
    values = np.linalg.eigvalsh(np.cov(latent.T, bias=True))[::-1]
    np.testing.assert_allclose(scores.var(0), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())
    assert components(latent[:, :1])[0][:, 1].tolist() == [0.0] * 50
    edges, n = strongest(np.array([[1, 0.5, 0], [0.5, 1, -0.7], [0, -0.7, 1]]))
    assert n == 2 and edges[-1] == (1, 2, -0.7)


def test_figures_of_few_and_many_units(fitted, tmp_path):
    model, _, x = fitted
    found = correlations(model, x)
    names = ("a$b", "a name that is far too long", "c")
    for colour in (None, x[:, 0], np.where(x[:, 0] > 0, "on", "off"), np.arange(500).astype(str)):
        figure(found, names, model.latent_, tmp_path / "f.png", colour=colour, colour_name="x")
        assert (tmp_path / "f.png").stat().st_size > 10_000


def write_tables(folder):
    rng = np.random.default_rng(1)
    site = np.repeat(["a", "b", "c"], 30)
    depth = rng.uniform(0.5, 2.0, 90)
    z = np.log(depth)[:, None] + 1.0 + (site == "b")[:, None] + rng.multivariate_normal(np.zeros(3), COVARIANCE, 90)
    y = rng.poisson(np.exp(z)) * (rng.random((90, 3)) > 0.3)
    lines = [",".join(map(str, row)) for row in y]
    (folder / "counts.csv").write_text("oak,ash,elm\n" + "\n".join(lines) + "\n")
    (folder / "meta.csv").write_text("site,one\n" + "\n".join(f"{s},1" for s in site) + "\n")
    (folder / "depth.csv").write_text("depth\n" + "\n".join(map(str, depth)) + "\n")
    return y, depth


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    y, depth = write_tables(tmp_path)
    call = ["population", "counts.csv", "--covariates", "meta.csv", "--formula", "1 + site", "--exposures", "depth.csv"]
    assert main([*call, "--zero-inflation", "global", "--out", "fit"]) == 0
    said = capsys.readouterr().out
    assert (
        "90 rows, 3 units" in said and "2 covariates" in said and "inflated zeros" in said and "dimensionality" in said
    )
    numbers = json.loads((tmp_path / "fit" / "fit.json").read_text())
    model = PoissonLogNormal.load(tmp_path / "fit" / "model.safetensors")
    assert numbers["bound"] == pytest.approx(model.bound_) and list(model.feature_names_in_) == ["oak", "ash", "elm"]
    same = PoissonLogNormal(zero_inflation="global", formula="1 + site", random_state=0)
    same.fit(y, {"site": np.repeat(["a", "b", "c"], 30)}, np.log(depth))
    assert same.bound_ == pytest.approx(numbers["bound"], abs=0.01)
    assert (tmp_path / "fit" / "noise_correlations.csv").read_text().splitlines()[0] == "unit,oak,ash,elm"
    assert (tmp_path / "fit" / "units.csv").read_text().splitlines()[1].startswith("oak,")
    assert len((tmp_path / "fit" / "latent.csv").read_text().splitlines()) == 91
    assert main([*call, "--rank", "1", "--json", "--out", "low"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["rank"] == 1


def test_command_line_reads_spikes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    lines = [f"{u},{t:.6f}" for u, n in (("left", 900), ("right", 500)) for t in rng.uniform(0, 100, n)]
    (tmp_path / "spikes.csv").write_text("unit,time\n" + "\n".join(lines) + "\nquiet,500\n")
    trials = [f"{s},{s + 0.5 + (s % 2) / 4},{'AB'[s % 3 > 0]}" for s in range(100)]
    (tmp_path / "trials.csv").write_text("start,stop,condition\n" + "\n".join(trials) + "\n")
    call = ["population", "spikes.csv", "--trials", "trials.csv", "--formula", "1 + condition"]
    assert main(call) == 2
    assert "1 of 3 units have no count above zero (quiet): leave them out (--leave-out-silent)" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "population").exists()
    assert main([*call, "--leave-out-silent", "--covariance", "diagonal", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["units"] == 2 and facts["covariates"] == ["condition[T.B]"]
    rows = (tmp_path / "population" / "units.csv").read_text().splitlines()
    rate = float(rows[1].split(",")[3])  # log of spikes per second, as durations are the exposures
    assert rate == pytest.approx(np.log(9.0), abs=0.25)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            ("counts.csv", "oak,ash,elm\n1,-2,3\n2,2,2\n"),
            [],
            "counts.csv: the count -2 of unit ash in row 1 is negative",
        ),
        (("counts.csv", "oak,ash,elm\n1,2,3\n2,.5,2\n"), [], "the count 0.5 of unit ash in row 2 is not whole"),
        (("counts.csv", "oak,ash,elm\n1,2,3\nnan,2,2\n"), [], "the count nan of unit oak in row 2 is missing"),
        (("meta.csv", "site\na\nb\n"), [], "meta.csv: column 'site' has shape (2,), and the recording has 90 trials"),
        (None, ["--formula", "1 + sight"], "meta.csv: formula '1 + sight': there is no column 'sight'"),
        (None, ["--formula", "1 + site + one"], "meta.csv: X, column 'one' is constant"),
        (None, ["--exposures", "meta.csv"], "meta.csv: there is no column for unit 'oak'"),
        (None, ["--offsets", "large.csv"], "large.csv: offsets are logarithms, and 5000 is none"),
        (None, ["--exposures", "zero.csv"], "zero.csv: row 90, column 'depth' is 0: exposures are above zero"),
        (None, ["--colour", "shade"], "no column 'shade' colours rows (columns: site, one)"),
        (None, ["--rank", "0"], "counts.csv: rank is 0"),
        (None, ["--bin-width", "0.1"], "counts.csv holds counts, which have no times"),
    ],
)
def test_errors_name_file_column_and_remedy(tmp_path, monkeypatch, capsys, change, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    (tmp_path / "large.csv").write_text("depth\n" + "5000\n" * 90)
    (tmp_path / "zero.csv").write_text("depth\n" + "1\n" * 89 + "0\n")
    if change:
        (tmp_path / change[0]).write_text(change[1])
    formula = [] if "--formula" in arguments else ["--formula", "1 + site"]
    assert main(["population", "counts.csv", "--covariates", "meta.csv", *formula, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split()) and "Traceback" not in captured.err
    assert captured.out == "" and not (tmp_path / "population").exists()


def test_an_interrupted_fit_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikevae.population.study.correlations", stop)
    assert main(["population", "counts.csv"]) == 130
    assert not (tmp_path / "population").exists()
