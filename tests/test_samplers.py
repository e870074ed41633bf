"""Samplers of any log density: closed forms of the energy, updates against loops, laws that particles follow."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from helpers import SCORE, draw, seeded
from torch import Tensor

from spikevae.samplers import MIED, SVGD, Gaussian, Kernel, Langevin, Laplace, Riesz, energy_distance, wasserstein
from spikevae.samplers.kernels import pair_distances
from spikevae.samplers.mied import InteractionEnergy
from spikevae.samplers.svgd import stein_direction

KERNELS = {"riesz": Riesz(2.3, 1e-3), "gaussian": Gaussian(0.3, 2), "laplace": Laplace(0.7, 2)}


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def bumpy(x: Tensor) -> Tensor:
    """A log density without symmetry."""
    return -0.5 * x.square().sum(-1) + torch.sin(2 * x[:, 0] + x[:, 1])


# The energy


def energy_of_normals(variance: float, epsilon: float) -> float:
    """The energy of N(0, variance) for a standard normal target, by quadrature of our own pairs on a grid."""
    x = torch.linspace(-9, 9, 1201, dtype=torch.float64) * math.sqrt(variance)
    spacing = float(x[1] - x[0])
    log_p = normal(x[:, None]) - 0.5 * math.log(2 * math.pi)
    pairs = InteractionEnergy(Gaussian(epsilon, 1), 0.5, 1).pairs(x[:, None], log_p)
    pairs.diagonal().copy_(-0.5 * math.log(2 * math.pi * epsilon) - log_p)  # distance 0, as in the integral
    log_weight = torch.as_tensor(scipy.stats.norm(0, math.sqrt(variance)).logpdf(x.numpy())) + math.log(spacing)
    return float(torch.logsumexp((pairs + log_weight[:, None] + log_weight[None]).flatten(), 0).exp())


@pytest.mark.parametrize(("variance", "epsilon"), [(1.0, 0.1), (0.5, 0.3), (1.5, 0.05), (0.8, 1.0)])
def test_the_energy_of_a_gaussian_has_its_closed_form(variance: float, epsilon: float) -> None:
    expected = 2 / math.sqrt((2 - variance) * (4 * variance + epsilon * (2 - variance)))
    assert energy_of_normals(variance, epsilon) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.1, 0.8])
def test_the_gaussian_mollifier_shrinks_the_variance_by_its_closed_form(epsilon: float) -> None:
    best = scipy.optimize.minimize_scalar(lambda v: energy_of_normals(v, epsilon), bounds=(0.3, 1.6), method="bounded")
    assert best.x == pytest.approx((4 - 2 * epsilon) / (4 - epsilon), rel=1e-4)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_a_constant_of_the_log_density_shifts_the_log_energy(name: str, alpha: float) -> None:
    x, energy = draw(12, 2), InteractionEnergy(KERNELS[name], alpha, 2)
    log_p, score, c = bumpy(x), draw(12, 2, seed=1), 2.7
    assert float(energy(x, log_p + c) - energy(x, log_p)) == pytest.approx(-2 * alpha * c, rel=1e-12)
    torch.testing.assert_close(energy.gradient(x, log_p + c, score), energy.gradient(x, log_p, score))


@pytest.mark.parametrize("name", KERNELS)
def test_the_energy_equals_a_loop_over_pairs(name: str) -> None:
    x, kernel = draw(9, 2), KERNELS[name]
    log_p = bumpy(x)

    def phi(squared: float) -> float:
        return {
            "riesz": lambda: (squared + 1e-3) ** -1.15,
            "gaussian": lambda: math.exp(-squared / 0.6) / (2 * math.pi * 0.3),
            "laplace": lambda: math.exp(-math.sqrt(squared + 1e-10) / 0.7) / (2 * math.pi * 0.49),
        }[name]()

    total = 0.0
    for i in range(9):
        for j in range(9):
            squared = float(((x[i] - x[j]) ** 2).sum())
            if i == j:
                nearest = min(float(((x[i] - x[k]) ** 2).sum()) for k in range(9) if k != i)
                squared = nearest / (1.3 * 2) ** (2 / 2)
            total += phi(squared) * math.exp(-0.5 * float(log_p[i] + log_p[j]))
    assert float(InteractionEnergy(kernel, 0.5, 2)(x, log_p)) == pytest.approx(math.log(total / 81), rel=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_the_diagonal_is_a_share_of_the_nearest_distance(dimension: int) -> None:
    x = draw(7, 3)
    squared, nearest, _ = pair_distances(x, dimension)
    for i in range(7):
        others = [(float((x[i] - x[j]).square().sum()), j) for j in range(7) if j != i]
        assert float(squared[i, i]) == pytest.approx(min(others)[0] / (1.3 * dimension) ** (2 / dimension))
        assert int(nearest[i]) == min(others)[1]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_the_gradient_equals_finite_differences(name: str, fixed: bool) -> None:
    x, energy = draw(8, 2), InteractionEnergy(KERNELS[name], 0.7, 2, fixed)
    at = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(bumpy(at).sum(), at)
    found, own = energy.gradient(x, bumpy(x), score), pair_distances(x, 2).squared.diagonal()

    def value(points: Tensor) -> float:
        if not fixed:
            return float(energy(points, bumpy(points)))
        squared = pair_distances(points, 2).squared
        squared.diagonal().copy_(own)
        log_p = 0.7 * bumpy(points)
        return float(torch.logsumexp((energy.kernel.log(squared).value - log_p[None] - log_p[:, None]).flatten(), 0))

    h = 1e-5
    for i, k in np.ndindex(8, 2):
        step = torch.zeros_like(x)
        step[i, k] = h
        slope = (value(x + step) - value(x - step)) / (2 * h)
        assert float(found[i, k]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
@pytest.mark.parametrize("build", [Gaussian, Laplace])
def test_kernels_have_integral_one(build: type[Gaussian] | type[Laplace], dimension: int) -> None:
    kernel = build(0.4, dimension)
    sphere = 2 * math.pi ** (dimension / 2) / scipy.special.gamma(dimension / 2)

    def shell(r: float) -> float:
        value = kernel.log(torch.tensor([[r * r]], dtype=torch.float64)).value
        return float(value.exp()) * sphere * r ** (dimension - 1)

    assert scipy.integrate.quad(shell, 0, 20, points=[0.4])[0] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_slopes_of_kernels_are_derivatives(kernel: Kernel) -> None:
    squared = torch.tensor([[0.01, 0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    value, slope = kernel.log(squared)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), squared)[0], slope)


# Where particles go


def test_mied_finds_a_correlated_gaussian() -> None:
    """Moments within 15 %; the published gradient of the diagonal misses the variance by 15 to 20 %."""
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
    precision, mean = covariance.inverse(), torch.tensor([1.0, -0.5])

    def density(x: Tensor) -> Tensor:
        return -0.5 * ((x - mean) @ precision * (x - mean)).sum(-1)

    points = MIED(density, learning_rate=0.03).sample(100, 400, dimension=2)
    fixed = MIED(density, learning_rate=0.03, fixed_diagonal=True).sample(100, 400, dimension=2)
    np.testing.assert_allclose(points.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.15)
    assert np.cov(fixed.T).trace() < 0.92 * np.cov(points.T).trace()


def test_mied_places_points_better_than_chance() -> None:
    """Energy distance to the target, against that of exact samples of the same number: the least of 20 sets."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2000, 2))
    points = MIED(normal, learning_rate=0.03).sample(60, 300, dimension=2)
    assert energy_distance(points, truth) < min(energy_distance(rng.normal(size=(60, 2)), truth) for _ in range(20))


def test_an_exponent_sets_the_power_of_the_density() -> None:
    """Particles follow p^(2 alpha d / s), of variance s / (2 alpha d): 1, and 2 at twice the usual s, less at 40."""
    usual = MIED(normal, alpha=1.0).sample(40, 600, dimension=1)
    other = MIED(normal, alpha=1.0, exponent=4.0).sample(40, 600, dimension=1)
    assert usual.var() == pytest.approx(1, rel=0.1)
    assert 1.5 < other.var() < 2


def test_svgd_equals_a_double_loop() -> None:
    x, score = draw(7, 3), draw(7, 3, seed=1)
    distances = sorted(float((x[i] - x[j]).square().sum()) for i in range(7) for j in range(i))
    h = distances[10] / math.log(8)  # the middle one of 21 pairs
    expected = torch.zeros_like(x)
    for i in range(7):
        for j in range(7):
            k = torch.exp(-(x[j] - x[i]).square().sum() / h)
            expected[i] += (k * score[j] - 2 / h * (x[j] - x[i]) * k) / 7
    torch.testing.assert_close(stein_direction(x, score), expected)


def test_svgd_finds_a_gaussian() -> None:
    points = SVGD(normal, learning_rate=0.03).sample(100, 400, dimension=2)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(points.var(0), 1, atol=0.15)


@pytest.mark.parametrize("adjust", [False, True])
def test_langevin_has_its_moments(adjust: bool) -> None:
    """4,000 chains see a variance that is 10 % off at 4.5 standard deviations; unadjusted: 1 / (1 - h/2) = 1.25."""
    n, h = 4000, 0.4
    points = Langevin(normal, step_size=h, adjust=adjust).sample(n, 80, dimension=1, seed=1)
    variance = 1.0 if adjust else 1 / (1 - h / 2)
    assert abs(points.mean()) < SCORE * math.sqrt(variance / n)
    assert abs(points.var() / variance - 1) < SCORE * math.sqrt(2 / n)


def test_adjusted_chains_follow_a_density_with_two_modes_and_an_edge() -> None:
    """Kolmogorov-Smirnov test of 2,000 chains; the density is zero below -1."""

    def density(x: Tensor) -> Tensor:
        log_p = torch.logaddexp(normal(x / 0.7), normal((x - 2) / 0.5) - 0.5)
        return torch.where(x[:, 0] > -1, log_p, -torch.inf)

    points = Langevin(density, step_size=0.5).sample(2000, 300, start=torch.rand(2000, 1, generator=seeded()))
    grid = np.linspace(-1, 6, 20001)
    mass = np.exp(density(torch.from_numpy(grid)[:, None]).numpy())
    cumulative = np.cumsum(mass) / mass.sum()
    assert scipy.stats.kstest(points[:, 0].numpy(), lambda x: np.interp(x, grid, cumulative)).pvalue > 1e-3


# Distances


def test_wasserstein_equals_a_linear_program_for_unequal_sizes() -> None:
    x, y = draw(4, 2).numpy(), draw(6, 2, seed=1).numpy()
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    rows = np.kron(np.eye(4), np.ones(6)), np.kron(np.ones(4), np.eye(6))
    plan = scipy.optimize.linprog(cost.ravel(), A_eq=np.vstack(rows), b_eq=np.r_[np.full(4, 1 / 4), np.full(6, 1 / 6)])
    assert wasserstein(x, y) == pytest.approx(math.sqrt(plan.fun), rel=1e-9)


def test_energy_distance_equals_that_of_scipy_in_one_dimension() -> None:
    x, y = draw(30, 1).numpy(), 0.5 + draw(41, 1, seed=1).numpy()
    assert energy_distance(x, y) == pytest.approx(scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-9)


@pytest.mark.parametrize("distance", [energy_distance, wasserstein])
def test_distances_refuse_what_they_cannot_compare(distance) -> None:
    with pytest.raises(ValueError, match=r"\(3,\); give points"):
        distance(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="points of one dimension"):
        distance(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="y has 1 entries that are not finite"):
        distance(np.zeros((2, 1)), np.array([[0.0], [np.nan]]))


def test_wasserstein_refuses_sizes_that_take_too_much_memory() -> None:
    with pytest.raises(ValueError, match="least common multiple is 999000"):
        wasserstein(np.zeros((999, 1)), np.zeros((1000, 1)))
