"""Formulas, data frames and AnnData for Poisson log-normal models; choice of rank and penalty."""

from types import SimpleNamespace

import numpy as np
import pytest
from population_cases import drawn
from scipy.sparse import csr_matrix

from spikevae.population import PoissonLogNormal, select
from spikevae.population._formula import Terms, covariates_of, right_side

pandas = pytest.importorskip("pandas")
pytest.importorskip("formulaic")


@pytest.fixture(scope="module")
def tables():
    Y, X, offsets, _ = drawn(90, 3)
    counts = pandas.DataFrame(Y, columns=["a", "b", "c"])
    site = np.array(["low", "mid", "top"])[np.arange(90) % 3]
    return counts, pandas.DataFrame({"site": site, "depth": np.exp(X[:, 0]), "odd name": X[:, 0]}), offsets


def test_a_formula_is_its_dummy_variables(tables):
    counts, X, offsets = tables
    model = PoissonLogNormal(formula="1 + site + log(depth)").fit(counts, X, offsets)
    by_hand = np.column_stack([X.site == "mid", X.site == "top", np.log(X.depth)]).astype(float)
    other = PoissonLogNormal().fit(counts, by_hand, offsets)
    assert model.bound_ == pytest.approx(other.bound_, abs=1e-6)
    assert model.covariate_names_ == ["site[T.mid]", "site[T.top]", "log(depth)"]
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_allclose(model.predict(X[:4]), other.predict(by_hand[:4]), rtol=1e-6)
    alone = PoissonLogNormal(formula="0 + site + log(depth)").fit(counts, X, offsets)  # the same span
    assert alone.bound_ == pytest.approx(model.bound_, abs=1e-3)
    assert alone.n_parameters_ == model.n_parameters_ and (alone.intercept_ == 0).all()


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("1", []),
        ("counts ~ site", ["site[T.mid]", "site[T.top]"]),
        ("depth * site", ["depth", "site[T.mid]", "site[T.top]", "depth:site[T.mid]", "depth:site[T.top]"]),
        ("`odd name` - 1", ["odd name"]),
        ("C(site)", ["site[T.mid]", "site[T.top]"]),
    ],
)
def test_columns_of_new_rows_are_those_of_the_fit(tables, formula, names):
    found, given, terms = covariates_of(formula, tables[1], 90)
    assert sorted(given) == sorted(names) and terms.intercept == ("- 1" not in formula)
    again, same, _ = covariates_of(formula, tables[1][:2], 2, Terms.of_facts(terms.facts()))
    assert same == given
    np.testing.assert_array_equal(again, found[:2])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("1 + sight", "no column 'sight' in X, which has site, depth, odd name"),
        ("1 +* site", "cannot be read"),
        ("np.log(depth)", "function 'np.log' is not known; known: C, log"),
        ("open(depth)", "'open' is not known"),
        ("depth.__class__", "may hold names"),
        ("{depth}", "may hold names"),
        ("depth[0]", "may hold names"),
        ("", "may hold names"),
        (3, "give text"),
        ("1 + " + "+".join(["depth"] * 999), "give text"),
    ],
)
def test_bad_formulas_are_one_line(tables, formula, message):
    with pytest.raises(ValueError, match=message) as error:
        PoissonLogNormal(formula=formula).fit(*tables[:2])
    assert "\n" not in str(error.value)


def test_bad_tables_are_one_line(tables):
    counts, X, offsets = tables
    model = PoissonLogNormal("diagonal", formula="site + depth").fit(counts, X, offsets)
    cases = {
        "holds 'sea', and the fit had low, mid, top": X.assign(site="sea"),
        "row 0, column 'depth' is missing": X.assign(depth=np.nan),
        "no column 'site'": X[["depth"]],
        "needs X with named columns": X.depth.to_numpy()[:, None],
        "X has 5 rows, but Y has 90": X[:5],
    }
    for message, table in cases.items():
        with pytest.raises(ValueError, match=message):
            model.transform(counts, table, offsets)
    negative = counts.copy()
    negative.iloc[2, 1] = -4
    with pytest.raises(ValueError, match="row 2, column 'b' is -4"):
        PoissonLogNormal().fit(negative)
    with pytest.raises(ValueError, match=r"column 'site' holds 'low'.*formula='1 \+ site'"):
        PoissonLogNormal().fit(counts, X)
    with pytest.raises(ValueError, match="twice' is a combination of 'depth'"):
        PoissonLogNormal().fit(counts, pandas.DataFrame({"depth": X.depth, "twice": 2 * X.depth + 1}))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(counts.rename(columns={"a": "z"}), X, offsets)


def test_annotated_data(tables):
    counts, X, offsets = tables
    names = pandas.Index(["a", "b", "c"])
    data = SimpleNamespace(X=csr_matrix(counts.to_numpy()), obs=X, var=pandas.DataFrame(index=names), var_names=names)
    model = PoissonLogNormal(formula="site").fit(data, offsets=offsets)
    other = PoissonLogNormal(formula="site").fit(counts, X, offsets)
    assert model.bound_ == other.bound_ and list(model.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(model.transform(data, offsets=offsets), other.transform(counts, X, offsets))


def test_files_hold_the_formula(tmp_path, tables):
    counts, X, offsets = tables
    model = PoissonLogNormal("diagonal", formula="site + log(depth)").fit(counts, X, offsets)
    model.save(tmp_path / "m")
    again = PoissonLogNormal.load(tmp_path / "m")
    assert again.covariate_names_ == model.covariate_names_ and list(again.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(again.predict(X[2:3]), model.predict(X)[2:3])
    assert again.bic_ == model.bic_


def test_formulas_of_files_are_not_evaluated_as_code():
    for text in ("__import__('os')", "eval(x)", "(lambda: 0)()", "x if x else y", "`x`(1)", "x.y(1)"):
        with pytest.raises(ValueError):
            covariates_of(right_side(text), {"x": [1.0, 2.0], "y": [1.0, 2.0]}, 2)


def test_rank_and_penalty_are_selected():
    rng = np.random.default_rng(0)
    z = 1 + rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6))
    Y = rng.poisson(np.exp(z))
    found = select(PoissonLogNormal(n_starts=1), Y, ranks=[1, 2, 3])
    assert found.best.rank == 2 and [row["rank"] for row in found.table()] == [1, 2, 3]
    chain = np.eye(5) * 1.5 + np.diag([-0.6] * 4, 1) + np.diag([-0.6] * 4, -1)
    Y = rng.poisson(np.exp(2 + rng.multivariate_normal(np.zeros(5), np.linalg.inv(chain), 400)))
    path = select(PoissonLogNormal(n_starts=1), Y, criterion="ebic")
    rows = path.table()
    assert len(rows) == 8 and rows[0]["edges"] <= 1 and rows[-1]["edges"] >= 4
    assert path.best.penalty == min(rows, key=lambda row: row["ebic"])["penalty"]
    assert rows[3]["ebic"] == pytest.approx(rows[3]["bic"] + 2 * rows[3]["edges"] * np.log(5))
    with pytest.raises(ValueError, match="criterion"):
        select(PoissonLogNormal(), Y, ranks=[1], criterion="best")
    with pytest.raises(ValueError, match="one of them"):
        select(PoissonLogNormal(), Y, ranks=[1], penalties=[1.0])
