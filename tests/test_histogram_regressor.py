"""Regression by histograms: targets and predictions against SciPy and closed forms, conventions, forces, bad input."""

import math
import signal

import numpy as np
import pytest
import torch
from helpers import T, draw, seeded
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm, spearmanr
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import spikevae as sv
from spikevae.estimators import HistogramRegressor
from spikevae.estimators._histogram import MARGIN, chosen_bins, entropy_of, quantiles_of, smoothed

LOSSES = ("histogram", "squared", "gaussian")


@pytest.mark.parametrize("z", [0.0, 0.2, 3.5, 4.1, 9.99, 10.0])
@pytest.mark.parametrize("sigma", [0.1, 0.75, 3.0])
def test_targets_are_the_masses_of_a_truncated_gaussian(z: float, sigma: float) -> None:
    ends = norm.cdf(np.arange(11), z, sigma)
    expected = np.diff(ends) / (ends[-1] - ends[0])
    np.testing.assert_allclose(smoothed(T([z]), 10, sigma)[0], expected, atol=1e-12)


def test_gradient_of_the_cross_entropy_is_softmax_minus_target() -> None:
    fit = HistogramRegressor(n_bins=10, smoothing=0.75)
    out, z = draw(6, 10).requires_grad_(), 10 * torch.rand(6, dtype=torch.float64, generator=seeded())
    (found,) = torch.autograd.grad(fit._loss(out, z), out)
    torch.testing.assert_close(6 * found, out.softmax(1) - smoothed(z, 10, 0.75), rtol=0, atol=1e-14)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.75, 2.0])
def test_bias_of_the_mean_is_that_of_rounding_and_truncation(sigma: float) -> None:
    """Rounding y + sigma Z to centres adds at most the sum of its Fourier terms; cutting off, phi(a) / (1 - Q(a))."""
    n_bins, margin = 40, MARGIN * sigma
    z = torch.linspace(margin, n_bins - margin, 1001, dtype=torch.float64)
    bias = smoothed(z, n_bins, sigma) @ (torch.arange(n_bins, dtype=torch.float64) + 0.5) - z
    rounding = sum(math.exp(-2 * (math.pi * sigma * k) ** 2) / k for k in range(1, 5)) / math.pi
    truncation = sigma * norm.pdf(MARGIN) / norm.cdf(MARGIN)
    # What is cut off is at most half a bin from its centre; hence the second term of the truncation.
    bound = rounding + truncation + norm.sf(MARGIN)
    assert bias.abs().max() < bound
    assert bias[200:800].abs().max() > 0.9 * rounding or rounding < 1e-9  # no looser than it has to be
    if sigma == 0.75:
        assert bound < 2e-4


def test_bias_at_the_end_of_the_support_is_that_of_half_a_gaussian() -> None:
    found = smoothed(T([0.0]), 4000, 100.0) @ (torch.arange(4000, dtype=torch.float64) + 0.5)
    assert found.item() == pytest.approx(100 * math.sqrt(2 / math.pi), rel=1e-4)


def test_bins_from_the_data() -> None:
    y = np.array([-2.0, 1.0, 5.0])
    bins = chosen_bins(y, 128, 0.75, None)
    assert bins.width == pytest.approx(7 / (128 - 2 * MARGIN * 0.75)) and bins.smoothing == pytest.approx(
        0.75 * bins.width
    )
    assert -2 - bins.edges[0] == pytest.approx(MARGIN * bins.smoothing) == pytest.approx(bins.edges[-1] - 5)
    given = chosen_bins(y, 10, 0.5, (-5, 5))
    np.testing.assert_allclose(given.edges, np.arange(-5, 6))
    assert given.smoothing == 0.5


def test_quantiles_of_known_distributions() -> None:
    edges = np.linspace(-6, 6, 2001)
    p = np.diff(norm.cdf(edges, [[0.0], [1.0]], [[1.0], [0.5]]), axis=1)
    levels = np.array([0.01, 0.05, 0.5, 0.9, 0.999])
    expected = norm.ppf(levels, [[0.0], [1.0]], [[1.0], [0.5]])
    np.testing.assert_allclose(quantiles_of(p, edges, levels), expected, atol=1e-4)
    rng = np.random.default_rng(0)
    p, edges = rng.dirichlet(np.full(5, 0.5), 4), np.array([0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    for row, found in zip(p, quantiles_of(p, edges, levels)):
        cdf = np.concatenate([[0], row.cumsum()])
        expected = [brentq(lambda t, cdf=cdf, v=v: np.interp(t, edges, cdf) - v, 0, 10) for v in levels]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with_gap = quantiles_of(np.array([[0.5, 0.0, 0.5]]), np.arange(4.0), np.array([0.25, 0.75, 1 - 1e-12]))
    np.testing.assert_allclose(with_gap, [[0.5, 2.5, 3.0]], atol=1e-9)


def test_entropy_of_a_smoothed_target_is_that_of_its_gaussian() -> None:
    """Of a Gaussian in bins much narrower than it: 1/2 log(2 pi e s^2), s in the unit of y."""
    w, sigma = 0.01, 40.0
    p = smoothed(T([500.3]), 1000, sigma).numpy()
    assert entropy_of(p, w)[0] == pytest.approx(0.5 * math.log(2 * math.pi * math.e * (sigma * w) ** 2), abs=1e-4)
    density = lambda t: 0.0 if t == 0 else -t * math.log(t)
    expected = quad(lambda t: density([0.4, 1.2, 0.4][int(t / 0.5)]), 0, 1.4999, points=[0.5, 1.0])[0]
    assert entropy_of(np.array([[0.2, 0.6, 0.2]]), 0.5)[0] == pytest.approx(expected, abs=1e-3)
    assert entropy_of(np.array([[0.0, 1.0]]), 1.0)[0] == 0


def noisy(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and targets with noise of standard deviation 0.1 where x < 0 and 0.6 elsewhere."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 1))
    return x, 20 + 3 * x[:, 0] + np.where(x[:, 0] > 0, 0.6, 0.1) * rng.normal(size=n)


@pytest.mark.parametrize("loss", LOSSES)
def test_fits_of_noise_that_depends_on_x(loss: str) -> None:
    x, y = noisy()
    settings = {"n_bins": 128, "hidden": (32,), "learning_rate": 0.02, "n_steps": 300, "random_state": 0}
    fit = HistogramRegressor(loss, **settings).fit(x, y)
    fresh, target = noisy(seed=1)
    mean, entropy = fit.predict(fresh), fit.predict_entropy(fresh)
    assert abs(mean - 20 - 3 * fresh[:, 0]).mean() < 0.15
    low, middle, high = fit.predict_quantiles(fresh, [0.1, 0.5, 0.9]).T
    assert abs(middle - mean).mean() < 0.1
    edges, p = fit.predict_distribution(fresh)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    if loss == "squared":
        error = math.sqrt(((fit.predict(x) - y) ** 2).mean())
        np.testing.assert_allclose(high - low, 2 * norm.ppf(0.9) * error, rtol=1e-6)
        assert np.ptp(entropy) == 0
        return
    wide, narrow = fresh[:, 0] > 0.2, fresh[:, 0] < -0.2
    np.testing.assert_allclose((p @ (edges[:-1] + edges[1:]) / 2)[narrow], mean[narrow], atol=0.05)
    assert spearmanr(entropy[wide | narrow], wide[wide | narrow]).statistic > 0.7
    sides = {"gaussian": ((wide, 0.6), (narrow, 0.1)), "histogram": ((wide, 0.6),)}[loss]
    for side, scale in sides:  # histograms of narrow noise are still too wide after so few steps
        covered = np.mean((low < target)[side] & (target < high)[side])
        assert abs(covered - 0.8) < 0.13  # five standard errors of 240 targets
        assert abs(entropy[side].mean() - norm(scale=scale).entropy()) < 0.3


def test_objectives_of_gaussians_and_squares_by_scipy() -> None:
    out, z = draw(7, 2), draw(7, seed=1)
    scale = np.log1p(np.exp(out[:, 1].numpy())) + 1e-3
    expected = -norm.logpdf(z.numpy(), out[:, 0].numpy(), scale).mean()
    assert HistogramRegressor("gaussian")._loss(out, z).item() == pytest.approx(expected, rel=1e-10)
    squared = HistogramRegressor("squared")._loss(out[:, :1], z).item()
    assert squared == pytest.approx(((out[:, 0] - z) ** 2).mean().item(), rel=1e-10)


def test_units_do_not_matter() -> None:
    """Joules of spikes are around 1e-9: predictions scale with y, entropies by the logarithm of the unit."""
    x, y = noisy(100)
    for loss in LOSSES:
        a = HistogramRegressor(loss, n_steps=20, random_state=0).fit(x, y)
        b = clone(a).fit(x, 1e-9 * y)
        np.testing.assert_allclose(1e9 * b.predict(x), a.predict(x), rtol=1e-3)
        np.testing.assert_allclose(b.predict_entropy(x), a.predict_entropy(x) - 9 * math.log(10), atol=1e-2)
        np.testing.assert_allclose(1e9 * b.predict_gradient(x), a.predict_gradient(x), rtol=0.02, atol=1e-2)


class Distance(nn.Module):
    """Radial functions of the distance of two atoms, from their six coordinates."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r = (x[:, 3:] - x[:, :3]).norm(dim=1, keepdim=True)
        centres = torch.linspace(0.8, 2.6, 16, dtype=x.dtype)
        return torch.exp(-((r - centres) ** 2) / 0.06)


def morse(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (1 - e^{-2 (r - 1.2)})^2 and force -dE/dr."""
    e = np.exp(-2 * (r - 1.2))
    return (1 - e) ** 2, -4 * (1 - e) * e


def lennard_jones(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy 4 (r^-12 - r^-6) and force."""
    return 4 * (r**-12 - r**-6), 4 * (12 * r**-13 - 6 * r**-7)


@pytest.mark.parametrize(
    ("loss", "potential", "low"), [*((loss, morse, 1.0) for loss in LOSSES), ("histogram", lennard_jones, 1.05)]
)
def test_forces_by_differentiation(loss: str, potential, low: float) -> None:
    rng = np.random.default_rng(0)
    r = rng.uniform(low, 2.4, 300)
    direction = rng.normal(size=(300, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    first = rng.normal(size=(300, 3))
    X = np.hstack([first, first + r[:, None] * direction])
    energy, force = potential(r)
    settings = {"module": Distance(), "n_bins": 64, "learning_rate": 0.1, "n_steps": 400, "random_state": 0}
    fit = HistogramRegressor(loss, **settings).fit(X, energy)
    assert abs(fit.predict(X) - energy).mean() < 0.05 * np.ptp(energy)
    found = -fit.predict_gradient(X)
    np.testing.assert_allclose(found[:, :3], -found[:, 3:], atol=1e-4)  # no net force
    inside = (r > low + 0.1) & (r < 2.3)
    along = (found[:, 3:] * direction).sum(1)
    assert np.corrcoef(along[inside], force[inside])[0, 1] > 0.9
    assert abs(along - force)[inside].mean() < 0.35 * abs(force[inside]).mean()


def test_gradient_is_that_of_the_prediction() -> None:
    x, y = noisy(80)
    X = np.hstack([x, x**2])
    for loss in LOSSES:
        fit = HistogramRegressor(loss, hidden=(16,), n_steps=50, random_state=0).fit(X, y)
        step = np.array([[1e-2, 0.0]])
        difference = (fit.predict(X + step) - fit.predict(X - step)) / 2e-2
        np.testing.assert_allclose(fit.predict_gradient(X)[:, 0], difference, rtol=0.02, atol=0.02)


@parametrize_with_checks([HistogramRegressor(n_bins=16, hidden=(8,), n_steps=60, learning_rate=0.05, random_state=0)])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_pipelines_and_searches() -> None:
    x, y = noisy(90)
    assert sv.HistogramRegressor is HistogramRegressor
    pipeline = make_pipeline(StandardScaler(), HistogramRegressor(hidden=(8,), n_steps=60, learning_rate=0.03))
    grid = {"histogramregressor__n_bins": [16, 32], "histogramregressor__loss": ["histogram", "squared"]}
    search = GridSearchCV(pipeline.set_params(histogramregressor__random_state=0), grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.5


def test_results_depend_on_the_seed_alone() -> None:
    x, y = noisy(80)
    settings = {"hidden": (8,), "n_steps": 10, "batch_size": 16}
    a, b, c = (HistogramRegressor(**settings, random_state=seed).fit(x, y).predict(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    module = nn.Sequential(nn.Linear(1, 4), nn.Tanh()).double()
    before = module[0].weight.detach().clone()
    fit = HistogramRegressor(module=module, n_steps=10, random_state=0).fit(x, y)
    assert torch.equal(before, module[0].weight) and fit.predict_gradient(x).shape == (80, 1)


def test_an_interrupted_fit_can_be_used() -> None:
    x, y = noisy(80)

    class Stops(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Stops.calls += 1
            if Stops.calls == 6:
                signal.raise_signal(signal.SIGINT)
            return x

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit = HistogramRegressor(module=Stops(), n_steps=50, random_state=0)
        with pytest.raises(KeyboardInterrupt, match="stopped after 4 of 50 steps; the fit so far is kept"):
            fit.fit(x, y)
    finally:
        signal.signal(signal.SIGINT, before)
    assert fit.predict(x).shape == (80,)


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = noisy(40)
    HistogramRegressor(hidden=(4,), n_steps=3, random_state=0, verbose=True).fit(x, y)
    assert "HistogramRegressor" in capsys.readouterr().err


NAN = np.where(np.arange(40) == 3, np.nan, 1.0 * np.arange(40))


@pytest.mark.parametrize(
    ("settings", "y", "message"),
    [
        ({"n_bins": 1}, None, "n_bins is 1; give a whole number, 2 or more"),
        ({"n_bins": 4}, None, "n_bins is 4, too few to smooth over 0.75 bins: give 7 or more, or a support"),
        ({"support": (0, 10)}, None, r"y has 29 of 40 values outside the support \(0, 10\), the first of them 11"),
        ({"support": (3, 1)}, None, r"support is \(3, 1\); give two finite numbers, the lower first"),
        ({"support": 5}, None, r"support is 5; give \(low, high\), in the unit of y"),
        ({"smoothing": 0}, None, "smoothing is 0; give a positive number"),
        ({"loss": "hinge"}, None, "loss is 'hinge'; give one of histogram, squared, gaussian"),
        ({"hidden": 8}, None, r"hidden is 8; give the widths of one or more layers, as \(64, 64\)"),
        ({"hidden": (0,)}, None, "hidden is 0; give a whole number, 1 or more"),
        ({"learning_rate": math.inf}, None, "learning_rate is inf; give a finite number"),
        ({}, NAN, "y has NaN or infinity in 1 of 40 rows, the first of them row 3: leave these rows out"),
        ({}, np.ones(40), "y is 1 in every row: give targets that differ"),
        ({}, np.ones((40, 2)), r"y has shape \(40, 2\); give \(n,\), one number for each row of X"),
        ({}, np.ones(39), "X has 40 rows, but y has 39: give one y for each row of X"),
        ({}, ["a"] * 40, "y cannot be read as numbers: could not convert"),
        ({"module": nn.Linear(3, 2)}, None, r"module cannot be run for X of shape \(n, 1\)"),
        ({"module": nn.Flatten(0)}, None, r"module gave \(2,\) for X of shape \(2, 1\); it must give \(n, H\)"),
        ({"learning_rate": 1e30, "n_steps": 20}, None, "the objective is (nan|inf) after .* steps: scale X"),
    ],
)
def test_bad_input(settings: dict, y, message: str) -> None:
    x = np.linspace(0, 1, 40)[:, None]
    with pytest.raises(ValueError, match=message) as caught:
        HistogramRegressor(**{"n_steps": 2, "random_state": 0, **settings}).fit(x, np.arange(40.0) if y is None else y)
    assert len(str(caught.value).splitlines()) == 1


def test_bad_input_to_predictions() -> None:
    x, y = noisy(40)
    fit = HistogramRegressor(hidden=(4,), n_steps=2, random_state=0).fit(x, y)
    with pytest.raises(ValueError, match=r"quantiles are \[0, 0.5\]; give levels between 0 and 1"):
        fit.predict_quantiles(x, [0, 0.5])
    with pytest.raises(ValueError, match="X has NaN or infinity in 1 of 2 rows, the first of them row 1"):
        fit.predict([[0.0], [np.nan]])
    before = fit.predict(x)
    with pytest.raises(ValueError, match="y has NaN"):
        fit.fit(x, np.full(40, np.nan))
    np.testing.assert_array_equal(fit.predict(x), before)
    with pytest.raises(TypeError, match=r"module is str; give a torch.nn.Module, or None for an MLP"):
        fit.set_params(module="mlp").fit(x, y)
