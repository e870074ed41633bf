"""What a linear read-out learns: predictions against fits of simulated codes, closed forms and limits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

import spikevae as sv
from spikevae.evaluation.prices import joules_per_spike
from spikevae.metrics import (
    LearningCurve,
    ReadoutSpectrum,
    generalisation_error,
    power_law_exponents,
    random_feature_curve,
    readout_curve,
    readout_spectrum,
    stimuli_needed,
)

UNITS = 100
EIGENVALUES = np.arange(1.0, UNITS + 1) ** -1.2
SLOPES = np.random.default_rng(7).normal(size=UNITS)
NOISE = 0.25
SPECTRUM = ReadoutSpectrum(EIGENVALUES, SLOPES**2 * EIGENVALUES, NOISE)
MEAN = 3.0
"""Of every unit: a read-out has to learn an intercept."""


def draw_codes(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = MEAN + rng.normal(size=(n, UNITS)) * np.sqrt(EIGENVALUES)
    return x, x @ SLOPES + np.sqrt(NOISE) * rng.normal(size=n)


def ridge_fit(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float, float]:
    """Weights, intercept and training error of ridge regression, from its normal equations."""
    centred, mean = x - x.mean(0), y.mean()
    v = np.linalg.solve(centred.T @ centred / len(x) + ridge * np.eye(x.shape[1]), centred.T @ (y - mean) / len(x))
    return v, float(mean - x.mean(0) @ v), float(np.mean((y - mean - centred @ v) ** 2))


def exact_error(v: np.ndarray, intercept: float) -> float:
    """Error on new stimuli of weights on the units, without sampling: a quadratic form."""
    wrong = v - SLOPES
    return float(wrong**2 @ EIGENVALUES + (intercept + MEAN * wrong.sum()) ** 2 + NOISE)


def close(found: list[float], predicted: float, share: float) -> bool:
    """Within four standard errors and the share that corrections of one over units and stimuli are worth."""
    return abs(np.mean(found) - predicted) < 4 * np.std(found) / np.sqrt(len(found)) + share * predicted


@pytest.mark.parametrize("n", [20, 50, 150, 400])
@pytest.mark.parametrize("ridge", [1e-3, 0.05])
def test_the_predicted_learning_curve_is_that_of_fits(n: int, ridge: float) -> None:
    """A factor of 2 in any part, or n for n - 1 at n = 20 (5 %), would be seen; the bound is 2 %."""
    rng = np.random.default_rng(n)
    fits = [ridge_fit(*draw_codes(n, rng), ridge) for _ in range(150)]
    curve = readout_curve(SPECTRUM, [n], ridge=ridge)
    assert isinstance(curve, LearningCurve)
    assert close([exact_error(v, c) for v, c, _ in fits], curve.error[0], 0.02)
    # With more units than stimuli and a small ridge the training error is a small difference of large numbers.
    assert close([training for *_, training in fits], curve.training_error[0], 0.2 if n < UNITS else 0.02)


def test_least_squares_has_its_closed_form() -> None:
    """Gaussian codes, no ridge: σ² (1 + 1/n) (1 + K / (n - K - 2)), exact at any size (Breiman & Freedman)."""
    n = 4001
    exact = NOISE * (1 + 1 / n) * (1 + UNITS / (n - UNITS - 2))
    assert readout_curve(SPECTRUM, [n], ridge=0.0).error[0] == pytest.approx(exact, rel=1e-4)


def test_without_ridge_the_error_is_infinite_where_stimuli_are_as_many_as_units() -> None:
    below, above = readout_curve(SPECTRUM, [60, 140], ridge=0.0).error
    peak = readout_curve(SPECTRUM, [UNITS, UNITS + 1, UNITS + 2], ridge=0.0).error
    assert max(peak) > 10 * max(below, above)


def test_the_best_ridge_is_no_worse_than_any_other() -> None:
    sizes = [10, 100, 1000]
    best = readout_curve(SPECTRUM, sizes)
    for ridge in np.geomspace(1e-6, 10, 15):
        assert (best.error <= readout_curve(SPECTRUM, sizes, ridge=ridge).error * (1 + 1e-6)).all()
    assert (np.diff(best.error) < 0).all() and best.error[0] < SPECTRUM.variance * (1 + 1 / 10) * (1 + 1e-9)


@pytest.mark.parametrize("n", [40, 90, 150, 400])
def test_random_features_learn_as_predicted(n: int) -> None:
    features, ridge, rng = 50, 1e-3, np.random.default_rng(n)
    errors, trainings = [], []
    for _ in range(120):
        mixed = rng.normal(size=(UNITS, features)) / np.sqrt(UNITS)
        x, y = draw_codes(n, rng)
        v, intercept, training = ridge_fit(x @ mixed, y, ridge)
        errors.append(exact_error(mixed @ v, intercept))
        trainings.append(training)
    curve = random_feature_curve(SPECTRUM, [n], features, ridge=ridge)
    assert close(errors, curve.error[0], 0.03)
    assert close(trainings, curve.training_error[0], 0.2 if n < features else 0.03)


def test_many_random_features_are_the_units_themselves() -> None:
    """F Fᵀ is then N / K times the identity, which divides the ridge."""
    many = 10**7
    mixed = random_feature_curve(SPECTRUM, [30, 300], many, ridge=0.01 * many / UNITS)
    units = readout_curve(SPECTRUM, [30, 300], ridge=0.01)
    np.testing.assert_allclose(mixed.error, units.error, rtol=1e-4)
    np.testing.assert_allclose(mixed.training_error, units.training_error, rtol=1e-4)


def test_the_spectrum_of_a_sample_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    found = [readout_spectrum(*draw_codes(400, rng)) for _ in range(60)]
    assert close([one.noise for one in found], NOISE, 0.0)
    assert close([one.power.sum() for one in found], SPECTRUM.power.sum(), 0.0)
    assert close([one.eigenvalues.sum() for one in found], EIGENVALUES.sum(), 0.0)


def test_axes_without_variance_are_left_out_and_targets_add_up() -> None:
    x, y = draw_codes(500, np.random.default_rng(0))
    wide = np.column_stack([x, x[:, 0], np.ones(500)])
    first, both = readout_spectrum(x, y), readout_spectrum(wide, np.column_stack([y, 2 * y]))
    assert len(both.eigenvalues) == UNITS
    assert both.noise == pytest.approx(5 * first.noise) and both.power.sum() == pytest.approx(5 * first.power.sum())


@pytest.mark.parametrize("correlated", [0.0, 0.7, 0.9])
def test_the_error_is_estimated_from_training_stimuli_alone(correlated: float) -> None:
    """Of frames that are correlated, plain cross-validation says less than half of the error."""
    n, ridge, rng = 120, 0.05, np.random.default_rng(1)
    rows = correlated ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    mix = np.linalg.cholesky(rows)
    errors, plain, corrected = [], [], []
    for _ in range(200):
        x = MEAN + mix @ (rng.normal(size=(n, UNITS)) * np.sqrt(EIGENVALUES))
        y = x @ SLOPES + np.sqrt(NOISE) * (mix @ rng.normal(size=n))
        v, intercept, training = ridge_fit(x, y, ridge)
        errors.append(exact_error(v, intercept))
        plain.append(generalisation_error(x, y, ridge=ridge)[0])
        estimate, found = generalisation_error(x, y, ridge=ridge, correlation=rows)
        corrected.append(estimate)
        assert found == pytest.approx(training)
    standard_error = np.hypot(np.std(errors), np.std(corrected)) / np.sqrt(200)
    assert abs(np.mean(corrected) - np.mean(errors)) < 4 * standard_error + 0.02 * np.mean(errors)
    if correlated == 0:
        np.testing.assert_allclose(plain, corrected, rtol=1e-3)
    else:
        assert np.mean(plain) < 0.75 * np.mean(errors)


def test_exponents_of_power_laws_and_of_their_learning_curve() -> None:
    k = np.arange(1.0, 100_001.0)
    spectrum = ReadoutSpectrum(k**-1.5, k**-2.2, noise=0.0)
    alpha, source, slope = power_law_exponents(spectrum)
    assert (alpha, source, slope) == pytest.approx((1.5, 0.4, 1.2))
    sizes = np.array([100, 400])
    error = readout_curve(spectrum, sizes, ridge=0.0).error / (1 + 1 / sizes)
    assert -np.log(error[1] / error[0]) / np.log(4) == pytest.approx(slope, abs=0.05)


def test_stimuli_needed_is_the_first_number_that_suffices() -> None:
    found = stimuli_needed(SPECTRUM, share=0.8)
    aim = SPECTRUM.variance - 0.8 * (SPECTRUM.variance - NOISE)
    before, at = readout_curve(SPECTRUM, [found - 1, found]).error
    assert at <= aim < before
    assert stimuli_needed(SPECTRUM, share=0.8, most=10) is None
    assert stimuli_needed(ReadoutSpectrum(np.ones(3), np.zeros(3), 1.0)) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: readout_spectrum(x[:50], y[:50]), "50 stimuli for .* units that vary; give more stimuli"),
        (lambda x, y: readout_spectrum(np.ones((9, 2)), y[:9]), "codes are the same for all stimuli"),
        (lambda x, y: readout_spectrum(x, y[:-1]), "codes have 200 rows and targets 199"),
        (lambda x, y: readout_curve(SPECTRUM, [2]), "three or more each"),
        (lambda x, y: readout_curve(SPECTRUM, [9], ridge=-1.0), "ridge=-1 must be zero or above"),
        (lambda x, y: random_feature_curve(SPECTRUM, [9], 0, ridge=1.0), "n_features=0 must be 1 or more"),
        (lambda x, y: stimuli_needed(SPECTRUM, share=1.0), "share=1 must lie between 0 and 1"),
        (lambda x, y: generalisation_error(x, y, ridge=0.0), "ridge=0 must be above zero"),
        (lambda x, y: generalisation_error(x, y, ridge=1.0, correlation=np.eye(3)), r"symmetric \(200, 200\) matrix"),
        (lambda x, y: ReadoutSpectrum(np.array([1.0, 0.0]), np.ones(2), 0.0), "above zero; leave out axes"),
        (lambda x, y: power_law_exponents(SPECTRUM, axes=(5, 3)), r"axes=\(5, 3\) must lie between 1 and the 100"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    x, y = draw_codes(200, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        call(x, y)


def test_read_outs_of_the_codes_of_a_model(digits) -> None:
    """The stimuli that are needed and their joules, against a fit of that many codes."""
    x, labels = digits
    model = sv.SpikeVAE(n_latents=12, steps=100, random_state=0).fit(x)
    found = model.readout(x, labels)
    codes = np.asarray(model.sample_codes(x), dtype=float)
    spikes = codes.sum(1).mean()
    assert found.joules == pytest.approx(found.stimuli * spikes * joules_per_spike(), rel=0.05)
    y = (labels[:, None] == np.unique(labels)).astype(float)
    rng, errors = np.random.default_rng(0), []
    for _ in range(30):
        chosen = rng.permutation(len(x))
        train, test = chosen[:100], chosen[100:]
        v, centre = Ridge(100 * best_ridge(codes, y)), y[test] - y[test].mean(0)
        errors.append(((y[test] - v.fit(codes[train], y[train]).predict(codes[test])) ** 2).sum() / (centre**2).sum())
    assert abs(1 - np.mean(errors) - found.r2[100]) < 0.04
    assert found.r2[100] < found.r2[1000] < found.r2[10_000] < found.r2_limit < 1
    stimuli = model.readout(x)
    assert stimuli.target == "stimuli" and stimuli.r2_limit > 0 and "read-out of the stimuli" in stimuli.describe()
    gaussian = sv.SpikeVAE(latent="gaussian", n_latents=12, steps=20, random_state=0).fit(x)
    assert gaussian.readout(x, labels).joules is None


def best_ridge(codes: np.ndarray, y: np.ndarray) -> float:
    return float(readout_curve(readout_spectrum(codes, y), [100]).ridge[0])


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 8 x 8 digits of scikit-learn, standardised."""
    x, labels = load_digits(return_X_y=True)
    return ((x - x.mean()) / x.std()).astype("float32"), labels


def test_labels_that_do_not_fit_are_named(digits) -> None:
    x, labels = digits
    model = sv.SpikeVAE(n_latents=3, steps=2, random_state=0).fit(x)
    with pytest.raises(ValueError, match=r"labels have shape \(5,\) for 1797 stimuli"):
        model.readout(x, labels[:5])
    with pytest.raises(ValueError, match="all labels are 0; a read-out needs two classes"):
        model.readout(x, np.zeros(len(x), dtype=int))
    with pytest.raises(ValueError, match=r"3 stimuli for .* units that vary; give more stimuli than units"):
        model.readout(x[:3], labels[:3])
