"""`PoissonLogNormal` as an estimator: scikit-learn, recovery of parameters, inputs, files."""

import numpy as np
import pytest
from population_cases import drawn
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import spikevae as sv
from spikevae.population import PoissonLogNormal


class OfCounts(PoissonLogNormal):
    """For scikit-learn's checks: they give labels in the place of covariates, and counts to categorical input alone."""

    def fit(self, Y, y=None):
        return super().fit(Y)

    def fit_transform(self, Y, y=None):
        return self.fit(Y).latent_

    def transform(self, Y):
        return super().transform(Y)

    def score(self, Y, y=None):
        return super().score(Y)

    @property
    def predict(self):
        raise AttributeError("predict takes covariates, not counts")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        return tags


EXCLUDED = {
    "check_positive_only_tag_during_fit": "the message names the row and the column of the count instead",
}


@parametrize_with_checks(
    [OfCounts(n_starts=1), OfCounts("diagonal", n_starts=1), OfCounts(rank=1, n_starts=1)],
    expected_failed_checks=lambda estimator: EXCLUDED,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    return drawn(150, 4)


@pytest.fixture(scope="module")
def fitted(data):
    Y, X, offsets, _ = data
    return PoissonLogNormal().fit(Y, X, offsets)


def test_is_a_public_name(fitted):
    assert sv.PoissonLogNormal is PoissonLogNormal
    assert fitted.converged_ and not fitted.starts_disagree_ and fitted.gradient_norm_ < 0.1
    assert fitted.n_parameters_ == 4 * 2 + 10
    assert fitted.bic_ == pytest.approx(-2 * fitted.bound_ + 18 * np.log(150))
    assert fitted.aic_ == pytest.approx(-2 * fitted.bound_ + 36)
    entropy = 0.5 * np.log(2 * np.pi * np.e * fitted.latent_variance_).sum()
    assert fitted.icl_ == pytest.approx(fitted.bic_ + 2 * entropy)


@pytest.mark.parametrize("level", [3.0, -0.2, -2.2], ids=["few-zeros", "half-zeros", "90-percent-zeros"])
def test_recovers_parameters(level):
    """Errors over 1500 rows: below 0.12 in coefficients, and 0.35 in the largest entry of the covariance."""
    Y, X, offsets, truth = drawn(1500, 4, level=level, seed=5)
    model = PoissonLogNormal().fit(Y, X, offsets)
    assert model.converged_
    worse = 1.0 if level > -2 else 2.0
    assert np.abs(model.coef_ - truth["coef"]).max() < 0.12 * worse
    assert np.abs(model.covariance_ - truth["covariance"]).max() < 0.35 * worse
    np.testing.assert_allclose(model.predict(X, offsets).mean(0), Y.mean(0), rtol=0.1)
    drawn_again = model.sample(X=np.tile(X, (20, 1)), offsets=np.tile(offsets, (20, 1)), random_state=0)
    np.testing.assert_allclose(drawn_again.mean(0), Y.mean(0), rtol=0.1)
    np.testing.assert_allclose((drawn_again == 0).mean(0), (Y == 0).mean(0), atol=0.03)


def test_transform_of_the_rows_of_the_fit_is_latent(data, fitted):
    Y, X, offsets, _ = data
    np.testing.assert_allclose(fitted.transform(Y, X, offsets), fitted.latent_, atol=0.01)
    assert fitted.score(Y, X, offsets) == pytest.approx(fitted.bound_ / len(Y), abs=1e-4)
    other = clone(fitted).fit_transform(Y, X, offsets)
    np.testing.assert_array_equal(other, fitted.latent_)


def test_rows_do_not_depend_on_others(data, fitted):
    Y, X, offsets, _ = data
    alone = fitted.transform(Y[:1], X[:1], offsets[:1])
    np.testing.assert_allclose(alone, fitted.transform(Y, X, offsets)[:1], atol=0.01)


def test_bound_does_not_depend_on_the_scale_of_covariates_or_order_of_units(data):
    Y, X, offsets, _ = data
    X = np.column_stack([X, np.sin(np.arange(len(X)))])
    reference = PoissonLogNormal(tol=1e-8).fit(Y, X, offsets)
    scaled = PoissonLogNormal(tol=1e-8).fit(Y, X * [1e6, 1e-5] + [1e7, -3.0], offsets)
    assert scaled.bound_ == pytest.approx(reference.bound_, abs=1e-3)
    np.testing.assert_allclose(scaled.coef_ * [1e6, 1e-5], reference.coef_, atol=1e-3)
    turned = PoissonLogNormal(tol=1e-8).fit(Y[:, ::-1], X, offsets[:, ::-1])
    assert turned.bound_ == pytest.approx(reference.bound_, abs=1e-3)
    shifted = PoissonLogNormal(tol=1e-8).fit(Y, X, offsets + 2.0)  # an offset is a shift of the intercept
    assert shifted.bound_ == pytest.approx(reference.bound_, abs=1e-3)
    np.testing.assert_allclose(shifted.intercept_ + 2.0, reference.intercept_, atol=1e-3)


def test_mask_leaves_entries_out(data):
    """With a diagonal covariance, what is left out has no effect, whatever it holds."""
    Y, X, offsets, _ = data
    mask = np.ones(Y.shape, bool)
    mask[10:20, 1] = mask[0] = False
    holes = np.where(mask, Y, np.nan)
    model = PoissonLogNormal("diagonal", tol=1e-8).fit(holes, X, offsets, mask)
    rows = np.flatnonzero(mask[:, 1])
    alone = PoissonLogNormal("diagonal", tol=1e-8).fit(Y[rows][:, [1]], X[rows], offsets[rows][:, [1]])
    assert model.intercept_[1] == pytest.approx(alone.intercept_[0], abs=1e-3)
    assert model.covariance_[1, 1] == pytest.approx(alone.covariance_[0, 0], abs=1e-3)
    silent = np.where(mask, offsets, -np.inf)  # an exposure of zero is left out as well
    other = PoissonLogNormal("diagonal", tol=1e-8).fit(np.where(mask, Y, 0), X, silent)
    assert other.bound_ == pytest.approx(model.bound_, abs=1e-6)
    assert np.isfinite(PoissonLogNormal().fit(holes, X, offsets, mask).transform(holes, X, offsets, mask)).all()


@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical"])
def test_hard_inputs_converge(kind):
    """A unit and a row without events, more units than rows, large counts, groups in which a unit is silent."""
    rng = np.random.default_rng(0)
    Y = rng.poisson(np.exp(rng.normal(size=(12, 20)) + rng.normal(size=20)))
    Y[:, 3], Y[4], Y[:, 7] = 0, 0, Y[:, 7] * 1000
    Y[:6, 5] = 0
    X = (np.arange(12) < 6).astype(float)[:, None]
    model = PoissonLogNormal(kind).fit(Y, X)
    assert model.converged_ and np.isfinite(model.covariance_).all() and np.isfinite(model.coef_).all()
    assert model.predict(X)[:, 3].max() < 0.01
    np.linalg.cholesky(model.precision_)


def test_pipeline_and_grid_search(data):
    Y, X, _, _ = data
    pipe = make_pipeline(FunctionTransformer(lambda Y: Y[:, :3]), PoissonLogNormal()).fit(Y)
    assert pipe.transform(Y).shape == (len(Y), 3) and pipe[-1].get_feature_names_out().shape == (3,)
    search = GridSearchCV(PoissonLogNormal(), {"covariance": ["full", "spherical"]}, cv=3).fit(Y, X)
    assert search.best_params_["covariance"] == "full"


def test_not_converged_is_said(data):
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        model = PoissonLogNormal(max_iter=1).fit(data[0])
    assert not model.converged_


GOOD = np.arange(12).reshape(6, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"Y": -GOOD}, "row 0, column 1 is -1"),
        ({"Y": GOOD + 0.5}, "row 0, column 0 is 0.5"),
        ({"Y": np.where(GOOD == 5, np.nan, GOOD)}, "row 2, column 1 is NaN or infinity.*mask"),
        ({"Y": 0 * GOOD}, "nothing to fit"),
        ({"X": np.ones(6)}, "column '0' is constant"),
        ({"X": np.column_stack([np.arange(6), np.arange(6) * 2])}, "singular.*combination"),
        ({"X": np.arange(5)}, "X has 5 rows, but Y has 6"),
        ({"X": np.array(list("abcdef"))}, "column '0' holds.*formula"),
        ({"X": np.array([1, 2, np.nan, 3, 4, 5])}, "row 2, column '0' is nan"),
        ({"X": np.random.default_rng(0).normal(size=(6, 5))}, "6 rows .* too few for 6 coefficients"),
        ({"offsets": np.full((6, 2), np.inf)}, "offsets, row 0, column 0 is inf"),
        ({"offsets": np.full((6, 2), -np.inf)}, "offsets, row 0, column 1 is -inf"),
        ({"offsets": np.zeros((6, 3))}, "offsets have shape"),
        ({"offsets": ["a"] * 6}, "offsets cannot be read"),
        ({"mask": np.ones((6, 1), bool)}, "mask has shape"),
        ({"mask": GOOD}, "True and False"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        PoissonLogNormal().fit(**{"Y": GOOD} | arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"covariance": "round"}, {"zero_inflation": "some"}, {"n_starts": 0}, {"max_iter": 1.5}, {"tol": 0},
     {"random_state": -1}, {"rank": 0}, {"penalty": -1.0}, {"rank": 1, "penalty": 1.0},
     {"rank": 1, "covariance": "diagonal"}, {"zero_inflation_posterior": "joint"},
     {"rank": 1, "zero_inflation": "global", "zero_inflation_posterior": "conditional"}],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PoissonLogNormal(**settings).fit(GOOD)


def test_structures_need_units():
    with pytest.raises(ValueError, match="rank is 3, but there are 2 units"):
        PoissonLogNormal(rank=3).fit(GOOD)
    with pytest.raises(ValueError, match="there is one unit"):
        PoissonLogNormal(penalty=0.1).fit(GOOD[:, :1])


@pytest.mark.parametrize(
    "settings", [{}, {"covariance": "diagonal"}, {"rank": 1}, {"zero_inflation": "global"}], ids=str
)
def test_data_without_variance_converge(settings):
    """Counts of zero and one, equal counts, one unit, no intercept: variances are zero at their best."""
    Y = np.random.default_rng(0).poisson(1, (20, 4))
    for counts in (Y > 0, np.full((10, 2), 3), Y[:, :1], Y[:2]):
        model = PoissonLogNormal(**settings).fit(counts)
        assert model.converged_ and np.isfinite(model.transform(counts)).all()
    assert (PoissonLogNormal(fit_intercept=False, **settings).fit(Y).intercept_ == 0).all()


def test_new_rows_need_the_covariates_of_the_fit(data, fitted):
    Y, X, offsets, _ = data
    with pytest.raises(ValueError, match="X has 0 covariates, but the fit had 1: 0"):
        fitted.transform(Y, None, offsets)
    with pytest.raises(NotFittedError):
        PoissonLogNormal().predict(X)


def test_file_round_trip(tmp_path, data, fitted):
    Y, X, offsets, _ = data
    fitted.save(tmp_path / "m")
    again = PoissonLogNormal.load(tmp_path / "m")
    assert again.get_params() == fitted.get_params()
    for name in ("bound_", "bic_", "icl_", "n_iter_", "converged_", "starts_disagree_", "gradient_norm_"):
        assert getattr(again, name) == getattr(fitted, name)
    np.testing.assert_array_equal(again.transform(Y, X, offsets), fitted.transform(Y, X, offsets))
    np.testing.assert_array_equal(again.sample(X=X, random_state=3), fitted.sample(X=X, random_state=3))
    again.save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()


def test_damaged_files_are_named(tmp_path, fitted):
    path = tmp_path / "m"
    with pytest.raises(FileNotFoundError, match="m"):
        PoissonLogNormal.load(path)
    fitted.save(path)
    content = path.read_bytes()
    for damaged in (content[:100], content[:-8], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\x80\x04N."):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=str(path)):
            PoissonLogNormal.load(path)
    path.write_bytes(content)
    save_file(load_file(path), path, metadata={"format": "spikevae population 1", "facts": "{}"})
    with pytest.raises(ValueError, match="checksum"):
        PoissonLogNormal.load(path)
