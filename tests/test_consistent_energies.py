"""Energies that are consistent in time: residuals of exact mixtures, networks against autograd, fits against truth."""

import math
import signal
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

import spikevae.diffusion._energy_training as training
from spikevae.diffusion import (
    MIXTURE,
    EnergyDiffusion,
    VariancePreserving,
    reverse_diffusion,
    strong_residual,
    weak_residual,
    weak_square,
)
from spikevae.diffusion._energy_network import EnergyNetwork
from spikevae.samplers import Interrupted

PROCESS = VariancePreserving()


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=noise(seed))


def times(n: int, seed: int = 0) -> Tensor:
    return 1e-3 + 0.99 * torch.rand(n, dtype=torch.float64, generator=noise(seed))


class Mixture:
    """Gaussians of unequal weight and width, whose density under the process is known at all times."""

    def __init__(self, dimension: int, seed: int = 0) -> None:
        self.weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
        self.means = 2 * draw(3, dimension, seed=seed)
        self.variances = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        a, d = torch.exp(-0.05 * t - 4.975 * t**2)[:, None], x.shape[1]
        variance = a**2 * self.variances + 1 - a**2
        squares = (x[:, None] - a[..., None] * self.means).square().sum(-1)
        normals = -0.5 * squares / variance - 0.5 * d * torch.log(2 * torch.pi * variance)
        return torch.logsumexp(self.weights.log() + normals, 1)


def wrong(x: Tensor, t: Tensor) -> Tensor:
    """No density of the process: its residual varies with state and time."""
    return torch.sin(x + t[:, None]).sum(-1) - 0.1 * (1 + t) * x.square().sum(-1)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_residual_of_a_mixture_is_zero(dimension: int) -> None:
    x, t = 2 * draw(200, dimension), times(200)
    mixture = Mixture(dimension)
    assert strong_residual(mixture, x, t).abs().max() < 1e-8
    other = strong_residual(mixture, x, t, VariancePreserving(0.1, 19.0))
    assert other.abs().max() > 0.1  # the density belongs to one process


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_function_of_time_changes_the_residual_by_minus_its_derivative(dimension: int) -> None:
    x, t = 2 * draw(50, dimension), times(50)
    mixture = Mixture(dimension)
    shifted = strong_residual(lambda x, t: mixture(x, t) + 2 * torch.sin(3 * t), x, t)
    torch.testing.assert_close(shifted, -6 * torch.cos(3 * t), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_published_constants_differ_by_the_divergence_of_the_drift(dimension: int) -> None:
    """The published program has 1 in place of D in its weak form, and no constant in its exact form."""
    x, t = draw(20, dimension), times(20)
    half = 0.5 * (0.1 + 19.9 * t)

    functional = torch.autograd.functional

    def published(constant: float) -> Tensor:
        found = []
        for row in range(20):
            at, time = x[row : row + 1], t[row : row + 1]
            s = functional.jacobian(partial(wrong, t=time), at).flatten()
            curvature = functional.hessian(lambda x, time=time: wrong(x, time).sum(), at).reshape(dimension, dimension)
            slope = functional.jacobian(partial(wrong, at), time).squeeze()
            found.append(half[row] * (curvature.trace() + s @ s + x[row] @ s + constant) - slope)
        return torch.stack(found)

    ours = strong_residual(wrong, x, t)
    torch.testing.assert_close(ours - published(1), half * (dimension - 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours - published(0), half * dimension, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("scale", [0.01, 0.4])
def test_the_weak_residual_is_that_of_the_perturbed_state_on_average(dimension: int, scale: float) -> None:
    """By Gauss-Hermite quadrature over the perturbation, also where it is wide."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    v = scale * torch.tensor(np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij"), -1).reshape(-1, dimension))
    w = torch.tensor(np.prod(np.meshgrid(*[weights] * dimension, indexing="ij"), axis=0).ravel())
    w, x, t = w / w.sum(), draw(1, dimension).expand(len(v), -1), times(1).expand(len(v))
    weak = w @ weak_residual(wrong, x, t, v, scale)
    strong = w @ strong_residual(wrong, x + v, t)
    torch.testing.assert_close(weak, strong, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dimension", [1, 4])
def test_products_of_independent_perturbations_are_unbiased_for_the_square(dimension: int) -> None:
    n = 40_000
    x, t = draw(1, dimension).expand(n, -1), torch.full((n,), 0.3, dtype=torch.float64)
    found = weak_square(wrong, x, t, noise(), 1e-3)
    exact = strong_residual(wrong, x[:1], t[:1]).square()
    error = found.std() / math.sqrt(n)
    assert abs(found.mean() - exact) < 4 * error + 1e-4 * exact
    once = weak_residual(wrong, x, t, 1e-3 * draw(n, dimension), 1e-3)
    assert dimension == 1 or once.square().mean() - exact > 20 * error  # the square of one estimate is too large


def test_weak_residuals_of_a_mixture_are_zero_on_average() -> None:
    x, t = 2 * draw(20_000, 3), times(20_000)
    found = weak_square(Mixture(3), x, t, noise())
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(found))


def test_functions_of_other_shapes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"log_density gave \(4, 2\) for states \(4, 2\); it must give a tensor \(4,\)"
    ):
        strong_residual(lambda x, t: x, draw(4, 2), times(4))
    constant = strong_residual(lambda x, t: t.detach(), draw(4, 2), times(4))
    torch.testing.assert_close(constant, 0.1 + 19.9 * times(4))  # score 0: g²/2 D is left


def test_the_process_by_quadrature() -> None:
    for t in (1e-5, 0.03, 0.5, 1.0):
        log_mean = -0.5 * quad(lambda s: 0.1 + 19.9 * s, 0, t)[0]
        at = torch.tensor(t, dtype=torch.float64)
        assert PROCESS.beta(at).item() == pytest.approx(0.1 + 19.9 * t)
        assert PROCESS.mean_coefficient(at).item() == pytest.approx(math.exp(log_mean), rel=1e-12)
        assert PROCESS.variance(at).item() == pytest.approx(-math.expm1(2 * log_mean), rel=1e-12)
    with pytest.raises(ValueError, match="beta_end is 0; give a positive number"):
        VariancePreserving(0.1, 0)


def test_reverse_diffusion_gives_the_mixture() -> None:
    mixture, n = Mixture(2), 4000
    steps = torch.linspace(1, 1e-3, 201, dtype=torch.float64).square()

    def score(x: Tensor, t: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(mixture(x, t).sum(), x)[0]

    found = reverse_diffusion(score, draw(n, 2), steps, noise(1))
    mean = mixture.weights @ mixture.means
    spread = mixture.weights @ (mixture.variances[:, None] + (mixture.means - mean).square())
    assert ((found.mean(0) - mean).abs() < 4 * (spread / n).sqrt()).all()
    torch.testing.assert_close(found.var(0), spread, rtol=0.12, atol=0)  # five standard errors and the steps
    at, end, point = torch.tensor(0.2).double(), torch.tensor(0.1).double(), torch.tensor([[3.0]]).double()

    def of_a_point(x: Tensor, t: Tensor) -> Tensor:
        return (PROCESS.mean_coefficient(t)[:, None] * point - x) / PROCESS.variance(t)[:, None]

    few = reverse_diffusion(of_a_point, draw(20_000, 1), torch.tensor([1.0, 0.2, 0.1]).double(), noise(2))
    ratio = PROCESS.variance(end) / PROCESS.variance(at) * PROCESS.mean_coefficient(at) / PROCESS.mean_coefficient(end)
    torch.testing.assert_close(few.std(), ratio * PROCESS.variance(at).sqrt(), rtol=0.03, atol=0)  # exact in each step
    assert abs(few.mean() - 3 * PROCESS.mean_coefficient(end)) < 0.01
    with pytest.raises(ValueError, match="times do not fall"):
        reverse_diffusion(score, draw(4, 2), steps.flip(0), noise())
    with pytest.raises(ValueError, match="4 of 4 samples are not finite: give more steps"):
        reverse_diffusion(lambda x, t: x / 0, draw(4, 2), steps, noise())


@pytest.mark.parametrize("dimension", [1, 3])
@pytest.mark.parametrize("hidden", [(7,), (8, 5), (6, 7, 5)])
def test_derivatives_of_networks_by_autograd(dimension: int, hidden: tuple[int, ...]) -> None:
    network = EnergyNetwork(dimension, hidden, (0.6, 0.1), noise()).double()
    with torch.no_grad():
        for bias in network.biases:
            bias.normal_(generator=noise(1))
    x, t = draw(9, dimension).requires_grad_(), (0.1 + 0.5 * times(9)).requires_grad_()
    score, slope = torch.autograd.grad(network(x, t).sum(), (x, t), create_graph=True)
    traces = [torch.autograd.grad(score[:, d].sum(), x, retain_graph=True)[0][:, d] for d in range(dimension)]
    found = network.derivatives(x, t)
    torch.testing.assert_close(found.score, score)
    torch.testing.assert_close(found.time, slope)
    torch.testing.assert_close(found.divergence, sum(traces))
    for mine, other in zip(network.gradients(x, t), (score, slope)):
        torch.testing.assert_close(mine, other)


def test_both_forms_are_one_objective() -> None:
    """The residual over D, squared; on average, the weak loss and its gradient are those of the strong form."""
    network = EnergyNetwork(2, (12, 12), (1.0, 0.0), noise()).double()
    data, t = draw(1, 2).expand(4000, -1), torch.full((4000,), 0.2, dtype=torch.float64)
    strong, weak = (training.losses(network, data, t, form, noise(3), PROCESS) for form in ("strong", "weak"))
    plain = training.losses(network, data, t, None, noise(3), PROCESS)
    torch.testing.assert_close(strong[0], plain[0])
    torch.testing.assert_close(weak[0], plain[0])
    assert plain[1] == 0
    eps = torch.randn(data.shape, dtype=data.dtype, generator=noise(3))
    a, v = PROCESS.mean_coefficient(t)[:, None], PROCESS.variance(t)[:, None]
    exact = strong_residual(network, a * data + v.sqrt() * eps, t).square().mean() / 2**2
    torch.testing.assert_close(strong[1], exact)
    assert weak[1].item() == pytest.approx(strong[1].item(), rel=0.1)
    first, second = (torch.autograd.grad(value[1], list(network.weights)) for value in (strong, weak))
    a, b = (torch.cat([part.flatten() for part in parts]) for parts in (first, second))
    assert torch.cosine_similarity(a, b, dim=0) > 0.98


def test_half_of_the_times_lie_below_the_midpoint() -> None:
    t = training.drawn_times(20_000, 0.1, 0.6, 0.2, noise())
    assert t.min() >= 0.1 and t.max() <= 0.6
    assert abs((t < 0.2).float().mean() - 0.5) < 0.015
    assert abs((t < 0.15).float().mean() - 0.25) < 0.015
    assert training.drawn_times(1000, 0.0, 1e-6, 0.5, noise()).min() >= 1e-5
    assert list(training.turns(3, 8)) == [0, 1, 2, 2, 2, 2, 0, 1] and list(training.turns(1, 2)) == [0, 0]


MEAN, COVARIANCE = np.array([3.0, -1.0]), np.array([[1.0, 0.5], [0.5, 0.8]])


@pytest.mark.parametrize("standardise", [True, False])
def test_the_score_of_a_gaussian(standardise: bool) -> None:
    X = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, size=4000)
    fit = EnergyDiffusion(hidden=(32, 32), standardise=standardise, n_steps=1000, random_state=0).fit(X)
    x = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE, size=200)
    scale = np.diag(fit.scale_)
    np.testing.assert_allclose(fit.scale_, X.std(0) if standardise else 1)
    for t in (0.05, 0.2, 0.5):
        a = math.exp(-0.05 * t - 4.975 * t**2)
        spread = a**2 * COVARIANCE + (1 - a**2) * scale @ scale
        centre = fit.mean_ + a * (MEAN - fit.mean_)
        exact = -(x - centre) @ np.linalg.inv(spread)
        found = fit.score_field(x, t)
        assert np.square(found - exact).mean() < 0.02 * np.square(exact).mean()
        difference = fit.log_density(x, t) - multivariate_normal(centre, spread).logpdf(x)
        assert difference.std() < 0.15
    assert np.square(fit.residual(x, 0.2)).mean() < 0.6  # without D in the objective, 16


@pytest.fixture(scope="module")
def two_modes() -> tuple[np.ndarray, EnergyDiffusion, EnergyDiffusion]:
    """Data of 1/4 N(-2, 0.5²) + 3/4 N(2, 0.5²), the plain model and the regularised one."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random(4000) < 0.25, -2.0, 2.0)[:, None] + 0.5 * rng.normal(size=(4000, 1))
    model = EnergyDiffusion(hidden=(32, 32), standardise=False, n_steps=2000, random_state=0)
    return X, clone(model).set_params(strength=0).fit(X), model.set_params(strength=5e-3).fit(X)


def test_samples_and_simulations_have_the_moments_of_the_data(two_modes) -> None:
    _, _, fit = two_modes
    for points in (fit.sample(3000, random_state=0), fit.simulate(3000, 150, random_state=0)):
        assert points.shape == (3000, 1) and points.dtype == np.float64
        right = points[:, 0] > 0
        assert abs(right.mean() - 0.75) < 0.05  # six standard errors, with room for the fit
        assert abs(points[right].mean() - 2) < 0.1 and abs(points[~right].mean() + 2) < 0.15
        assert abs(points[right].std() - 0.5) < 0.08


def test_regularised_energies_have_small_residuals_and_the_weights_of_modes(two_modes) -> None:
    X, plain, fit = two_modes
    rng = np.random.default_rng(2)
    t = rng.uniform(0.001, 0.99, size=1000)
    a = np.exp(-0.05 * t - 4.975 * t**2)[:, None]
    x = a * X[:1000] + np.sqrt(1 - a**2) * rng.normal(size=(1000, 1))
    squares = [np.square(model.residual(x, t)).mean() for model in (plain, fit)]
    assert squares[1] < 0.1 * squares[0]
    grid = np.linspace(-5, 5, 1001)
    density = np.exp(fit.log_density(grid[:, None]))
    density /= density.sum()
    exact = 0.25 * norm.pdf(grid, -2, 0.5) + 0.75 * norm.pdf(grid, 2, 0.5)
    assert abs(density[grid > 0].sum() - 0.75) < 0.05
    assert abs(density - exact / exact.sum()).sum() < 0.12
    assert "residual" in fit.history_ and "residual" not in plain.history_
    assert fit.history_["residual"][-1] < fit.history_["residual"][0]


def test_density_score_and_residual_are_of_one_function() -> None:
    X = np.random.default_rng(0).normal(size=(300, 2)) * [3.0, 0.2] + 1
    fit = EnergyDiffusion("weak", hidden=(16,), ranges=MIXTURE, n_steps=30, random_state=0).fit(X)
    t = np.linspace(0.02, 0.97, 300)
    for d, step in enumerate(1e-4 * np.diag([3.0, 0.2])):
        slope = (fit.log_density(X + step, t) - fit.log_density(X - step, t)) / (2 * step[d])
        np.testing.assert_allclose(fit.score_field(X, t)[:, d], slope, rtol=1e-4, atol=1e-5)
    rows = [3, 200]
    np.testing.assert_allclose(fit.log_density(X[rows], t[rows]), fit.log_density(X, t)[rows], rtol=1e-12)
    states = torch.tensor((X - X.mean(0)) / X.std(0))
    for network, limits in zip(fit._networks, MIXTURE):
        inside = (t > limits[1]) & (t <= limits[0])
        exact = strong_residual(network, states[inside], torch.tensor(t[inside]))
        np.testing.assert_allclose(fit.residual(X, t)[inside], exact.detach(), rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(fit.log_density(X), fit.log_density(X, 1e-5))
    assert np.isfinite(fit.log_density(X, 0)).all() and np.isfinite(fit.log_density(X, 1)).all()
    assert fit.sample(5, n_steps=10, random_state=0).shape == (5, 2)


def test_units_do_not_matter() -> None:
    X = np.random.default_rng(0).normal(size=(200, 2))
    model = EnergyDiffusion(hidden=(8,), n_steps=20, random_state=0)
    a, b = clone(model).fit(X), clone(model).fit(1000 * X + 5)
    np.testing.assert_allclose(a.log_density(X, 0.3), b.log_density(1000 * X + 5, 0.3), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(a.score_field(X), 1000 * b.score_field(1000 * X + 5), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(1000 * a.sample(9, random_state=1) + 5, b.sample(9, random_state=1), rtol=1e-2, atol=5)


def test_results_depend_on_the_seed_alone() -> None:
    X = np.random.default_rng(0).normal(size=(50, 1))
    model = EnergyDiffusion("weak", hidden=(8,), n_steps=10)
    a, b, c = (clone(model).set_params(random_state=seed).fit(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.log_density(X), b.log_density(X))
    assert not np.array_equal(a.log_density(X), c.log_density(X))
    np.testing.assert_array_equal(a.simulate(4, 5, random_state=3), b.simulate(4, 5, random_state=3))
    assert not np.array_equal(a.sample(4, random_state=3), a.sample(4, random_state=4))


@parametrize_with_checks([EnergyDiffusion(hidden=(8,), n_steps=5, random_state=0)])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_an_interrupted_fit_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(50, 1))
    step, calls = training.Training._step, []

    def stops(self, turn: int):
        calls.append(turn)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return step(self, turn)

    monkeypatch.setattr(training.Training, "_step", stops)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit = EnergyDiffusion(hidden=(8,), ranges=MIXTURE, n_steps=50, random_state=0)
        with pytest.raises(KeyboardInterrupt, match="stopped after 6 of 50 steps; the fit so far is kept"):
            fit.fit(X)
    finally:
        signal.signal(signal.SIGINT, before)
    assert fit.log_density(X).shape == (50,) and fit.sample(3, n_steps=5).shape == (3, 1)


def test_an_earlier_fit_stays_where_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(50, 1))
    fit = EnergyDiffusion(hidden=(8,), n_steps=5, random_state=0).fit(X)
    before = fit.log_density(X)

    def stops(self, turn: int):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "_step", stops)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit.set_params(random_state=1).fit(X)
    assert not str(caught.value)
    np.testing.assert_array_equal(fit.log_density(X), before)


def test_many_samples_go_through_the_network_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(50, 2))
    fit = EnergyDiffusion(hidden=(8,), ranges=MIXTURE, n_steps=5, random_state=0).fit(X)
    sizes, before = [], EnergyNetwork.gradients
    monkeypatch.setattr(EnergyNetwork, "gradients", lambda self, x, t: sizes.append(len(x)) or before(self, x, t))
    assert fit.sample(10_000, n_steps=3, random_state=0).shape == (10_000, 2)
    assert max(sizes) <= 4096 and sum(sizes) == 3 * 10_000


def test_an_interrupted_simulation_keeps_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    X = 100 + np.random.default_rng(0).normal(size=(50, 1))
    fit = EnergyDiffusion(hidden=(8,), n_steps=5, random_state=0).fit(X)

    def stops(self, *args, **kwargs):
        raise Interrupted(torch.zeros(4, 1), 2, 9)

    monkeypatch.setattr("spikevae.samplers.langevin.Langevin.sample", stops)
    with pytest.raises(Interrupted, match="stopped after 2 of 9 steps") as caught:
        fit.simulate(4, 9, random_state=0)
    np.testing.assert_allclose(caught.value.particles, X.mean())


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(0).normal(size=(50, 1))
    fit = EnergyDiffusion(hidden=(4,), n_steps=3, random_state=0, verbose=True).fit(X)
    fit.simulate(3, 4, random_state=0, verbose=True)
    shown = capsys.readouterr().err
    assert "EnergyDiffusion" in shown and "Langevin" in shown


GAPS = r"ranges are .*; give pairs that cover 1 to 0 without gaps, as \(\(1, 0.6\), \(0.6, 0.1\), \(0.1, 0\)\)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "mild"}, "form is 'mild'; give one of strong, weak, or strength=0 for neither"),
        ({"strength": -1e-4}, "strength is -0.0001; give a number, 0 or more"),
        ({"strength": math.nan}, "strength is nan; give a number, 0 or more"),
        ({"ranges": ((1.0, 0.6), (0.5, 0.0))}, GAPS),
        ({"ranges": ((1.0, 0.1),)}, GAPS),
        ({"ranges": ((0.0, 1.0),)}, GAPS),
        ({"ranges": ()}, GAPS),
        ({"ranges": 1}, GAPS),
        ({"midpoint": 1.0}, "midpoint is 1.0; give a share of each range between 0 and 1"),
        ({"hidden": ()}, r"hidden is \(\); give the widths of one or more layers"),
        ({"n_steps": 0}, "n_steps is 0; give a whole number, 1 or more"),
        ({"learning_rate": 0}, "learning_rate is 0; give a positive number"),
        ({"learning_rate": 1e9, "n_steps": 30}, r"the objective is (nan|inf|[\d.e+]+) after .* steps: scale X"),
        ({"random_state": -1}, "random_state is -1; give 0 to"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(ValueError, match=message) as caught:
        EnergyDiffusion(**{"n_steps": 2, "hidden": (8,), "random_state": 0, **settings}).fit(X)
    assert len(str(caught.value).splitlines()) == 1


def test_bad_input() -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    fit = EnergyDiffusion(n_steps=2, hidden=(8,), random_state=0).fit(X)
    before = fit.log_density(X)
    with pytest.raises(ValueError, match="X has NaN or infinity in 1 of 40 rows, the first of them row 3"):
        fit.fit(np.where(np.arange(80).reshape(40, 2) == 6, np.nan, X))
    with pytest.raises(ValueError, match="X has 1 sample: give two rows or more"):
        fit.fit(X[:1])
    np.testing.assert_array_equal(fit.log_density(X), before)
    with pytest.raises(ValueError, match=r"t is 1.5; give times from 0 \(data\) to 1 \(noise\)"):
        fit.log_density(X, 1.5)
    with pytest.raises(ValueError, match=r"t is \[0.1, 0.2\]; give a time from 0 to 1, or one for each of the 40 rows"):
        fit.score_field(X, [0.1, 0.2])
    with pytest.raises(ValueError, match="n is 1; give a whole number, 2 or more"):
        fit.simulate(1)
    with pytest.raises(ValueError, match="step_size is 'a'; give a positive number"):
        fit.simulate(4, step_size="a")
    for bad in (np.c_[X, np.full(40, 0.1)], np.c_[X, np.zeros(40)]):  # constant: no density
        with pytest.raises(ValueError, match="X has 1 constant column, the first of them column 2: leave them out"):
            fit.fit(bad)
    with pytest.raises(ValueError, match=r"column 0 of X has numbers of up to .*, whose squares are no numbers: give"):
        fit.fit(1e200 * X)
    with pytest.raises(ValueError, match="n is 0; give a whole number, 1 or more"):
        fit.sample(0)
    with pytest.raises(ValueError, match=r"start has shape \(3, 2\); give \(4, d\), one point per particle"):
        fit.simulate(4, start=X[:3])


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_densities_that_are_no_numbers_are_refused(value: float) -> None:
    x, t = draw(5, 2), times(5)
    bad = lambda x, t: torch.where(x[:, 0] > x[3, 0] - 1e-9, -x.square().sum(-1), value)
    wrong = int((x[:, 0] < x[3, 0]).sum())
    assert wrong
    message = f"log_density is not finite for {wrong} of 5 states, the first of them row . at time "
    for act in (strong_residual, partial(weak_residual, perturbation=torch.zeros_like(x))):
        with pytest.raises(ValueError, match=message if act is strong_residual else "log_density is not finite for"):
            act(bad, x, t)


@pytest.mark.parametrize("rate", [0, -1.0, math.nan, math.inf, "a"])
def test_rates_that_are_not_positive_are_refused(rate) -> None:
    with pytest.raises(ValueError, match=r"beta_end is .*; give a (positive|finite) number"):
        VariancePreserving(beta_end=rate)
