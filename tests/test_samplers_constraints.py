"""Constraints of samplers: projections against a solver, maps against their definitions, particles that stay inside."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from helpers import draw, seeded
from torch import Tensor

from spikevae.samplers import (
    MIED,
    SVGD,
    Box,
    Constraint,
    Langevin,
    Region,
    Simplex,
    energy_distance,
    project_onto_half_spaces,
)


def flat(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


def heart(x: Tensor) -> Tensor:
    return (x.square().sum(-1) - 1) ** 3 - x[:, 0] ** 2 * x[:, 1] ** 3


def sides(x: Tensor) -> Tensor:
    """The square as four inequalities."""
    return torch.cat([-1 - x, x - 1], -1)


# Projections


@pytest.mark.parametrize(("k", "equalities"), [(1, 0), (3, 0), (5, 0), (3, 1), (2, 2)])
def test_projections_equal_those_of_a_solver(k: int, equalities: int) -> None:
    n, d = 6, 4
    v, rows = 2 * draw(n, d), draw(n, k, d, seed=1)
    inside = 0.3 * draw(n, d, seed=2)  # so that the constraints can be met together
    bounds = torch.einsum("nkd,nd->nk", rows, inside)
    bounds[:, : k - equalities] += torch.rand(n, k - equalities, generator=seeded(3), dtype=torch.float64)
    found = project_onto_half_spaces(v, rows, bounds, equalities)
    active = 0
    for i in range(n):
        a, b, start = rows[i].numpy(), bounds[i].numpy(), v[i].numpy()
        m = k - equalities
        conditions = [{"type": "ineq", "fun": lambda w, a=a[:m], b=b[:m]: b - a @ w}] if m else []
        if equalities:
            conditions.append({"type": "eq", "fun": lambda w, a=a[m:], b=b[m:]: a @ w - b})
        best = scipy.optimize.minimize(
            lambda w, start=start: ((w - start) ** 2).sum(),
            inside[i].numpy(),
            constraints=conditions,
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 500},
        )
        assert best.success
        np.testing.assert_allclose(found[i].numpy(), best.x, atol=1e-4)
        active += int((np.abs(start - best.x) > 1e-3).any())
    assert active >= 3


def test_a_row_of_zeros_restricts_nothing() -> None:
    v = draw(3, 2)
    torch.testing.assert_close(
        project_onto_half_spaces(v, torch.zeros(3, 1, 2).double(), -torch.ones(3, 1).double()), v
    )


# Maps


@pytest.mark.parametrize("name", ["tanh", "entropic", "log_barrier"])
def test_maps_of_boxes_are_those_of_their_definitions(name: str) -> None:
    z = 3 * draw(20, 1)
    expected = {
        "tanh": z.tanh(),
        "entropic": 1 - 2 / (z.exp() + 1),
        "log_barrier": ((1 + z**2).sqrt() - 1) / z,
    }[name]
    box = Box([1.0], [5.0], map=name)
    torch.testing.assert_close(box.points(z), 3 + 2 * expected)
    torch.testing.assert_close(box.coordinates(box.points(z)), z)


CONSTRAINTS = {
    **{name: (Box([-1, 0, 2], [1, 5, 2.5], map=name), 3) for name in ("tanh", "entropic", "log_barrier")},
    "simplex": (Simplex(), 4),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_volumes_are_determinants(name: str) -> None:
    constraint, d = CONSTRAINTS[name]
    z = 2 * draw(5, 3)
    for one, found in zip(z, constraint.log_volume(z)):
        jacobian = torch.func.jacrev(lambda at: constraint.points(at[None])[0])(one)[:3]  # all but the last number
        assert float(found) == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet), rel=1e-9)
    x = constraint.points(z)
    assert x.shape == (5, d) and not constraint.outside(x).any()
    torch.testing.assert_close(constraint.coordinates(x), z)


# Particles stay inside

SETS: dict[str, tuple[Constraint, int]] = {
    "box": (Box(-1, 1), 2),
    "box by a log barrier": (Box([-1, -1], [1, 1], map="log_barrier"), 2),
    "box of four inequalities": (Region(sides), 2),
    "heart": (Region(heart), 2),
    "simplex": (Simplex(), 3),
    "waves": (Region(lambda x: torch.cos(3 * math.pi * x).sum(-1) ** 2 - 0.3), 2),
}


@pytest.mark.parametrize("sampler", [MIED, SVGD, Langevin])
@pytest.mark.parametrize("name", SETS)
def test_particles_stay_inside(name: str, sampler) -> None:
    constraint, d = SETS[name]
    points = sampler(flat, constraint=constraint).sample(40, 80, dimension=d)
    assert not constraint.outside(torch.from_numpy(points)).any()
    assert points.std(0).min() > 0.1  # and do not stand still
    if name == "simplex":
        np.testing.assert_allclose(points.sum(1), 1, atol=1e-5)


def test_particles_inside_never_leave_whatever_the_step() -> None:
    region, x = Region(sides), 1.9 * torch.rand(200, 2, generator=seeded(), dtype=torch.float64) - 0.95
    for seed in range(20):
        x = x + region.limited(x, 3 * draw(200, 2, seed=seed))
        assert (sides(x) <= 0).all()
    assert float(x.abs().max()) > 0.9  # and come near the walls


def test_particles_outside_are_pulled_in() -> None:
    start = 3 + draw(30, 2).float().abs()
    points = MIED(flat, constraint=Region(heart)).sample(30, 60, start=start.numpy())
    assert (heart(torch.from_numpy(points)) <= 0).all()


def test_particles_that_cannot_come_in_are_named() -> None:
    never = Region(lambda x: 1 + x.square().sum(-1))
    with pytest.warns(RuntimeWarning, match="5 of 5 particles are outside the constraint"):
        MIED(flat, constraint=never).sample(5, 3, dimension=2)


def test_an_equality_keeps_particles_on_a_circle_evenly() -> None:
    circle = Region(equality=lambda x: x.square().sum(-1) - 1)
    points = MIED(flat, constraint=circle, learning_rate=0.02).sample(30, 300, dimension=2)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3)
    gaps = np.diff(np.sort(np.arctan2(points[:, 1], points[:, 0])))
    assert gaps.min() > 0.5 * 2 * math.pi / 30 and gaps.max() < 2 * 2 * math.pi / 30


def test_an_equality_and_an_inequality_together() -> None:
    arc = Region(inequality=lambda x: -x[:, 1], equality=lambda x: x.square().sum(-1) - 1)
    points = MIED(flat, constraint=arc, learning_rate=0.02).sample(20, 100, dimension=2, start=None)
    assert (points[:, 1] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", ["tanh", "entropic", "log_barrier"])
def test_chains_in_a_box_follow_the_density(name: str) -> None:
    """A truncated exponential by a Kolmogorov-Smirnov test: without the volume of the map it fails by far."""
    chains = Langevin(lambda x: -2 * x.sum(-1), constraint=Box(0, 1, map=name), step_size=0.5)
    points = chains.sample(2000, 200, dimension=1, seed=1)
    assert scipy.stats.kstest(points[:, 0], scipy.stats.truncexpon(b=2, scale=0.5).cdf).pvalue > 1e-3


def test_chains_on_a_simplex_follow_a_dirichlet() -> None:
    """The first number has a beta distribution; a density by other coordinates would have other exponents."""
    exponents = torch.tensor([2.0, 3.0, 1.5])
    chains = Langevin(lambda x: ((exponents - 1) * x.log()).sum(-1), constraint=Simplex(), step_size=0.5)
    points = chains.sample(2000, 200, dimension=3, seed=1)
    assert scipy.stats.kstest(points[:, 0], scipy.stats.beta(2.0, 4.5).cdf).pvalue > 1e-3


def test_chains_in_a_heart_are_uniform() -> None:
    points = Langevin(flat, constraint=Region(heart), step_size=0.2).sample(500, 150, dimension=2)
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1.5, 1.5, size=(8000, 2))
    inside = drawn[heart(torch.from_numpy(drawn)).numpy() <= 0]
    usual = [energy_distance(inside[i * 500 : (i + 1) * 500], inside[2000:3500]) for i in range(4)]
    assert energy_distance(points, inside[2000:3500]) < 3 * max(usual)


# What is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Box(0, 0), "each lower one below"),
        (lambda: Box(0, np.inf), "finite bounds"),
        (lambda: Box([0, 0], [1, 1, 1]), r"shapes \(2,\) and \(3,\)"),
        (lambda: Box(0, 1, map="logit"), "there are tanh, entropic, log_barrier"),
        (lambda: Region(), "needs a condition"),
        (lambda: Langevin(flat, constraint=Region(equality=heart)), "cannot keep to equalities: use MIED"),
        (lambda: Langevin(flat, constraint=Region(heart), adjust=False), "adjust=True"),
        (lambda: Box(0, 1).coordinates(torch.tensor([[0.5], [2.0]])), "1 of 2 points are not inside the box"),
        (lambda: Simplex().coordinates(torch.tensor([[0.5, 0.6]])), "positive numbers with sum 1"),
        (lambda: MIED(flat, constraint=Simplex()).sample(5, 1, dimension=1), "2 or more numbers"),
        (lambda: MIED(flat, constraint=Region(equality=lambda x: x)).sample(5, 1, dimension=2), "leave no dimension"),
        (
            lambda: MIED(flat, constraint=Box([0, 0], [1, 1])).sample(5, 1, dimension=3),
            "3 by dimension, 2 by the const",
        ),
        (
            lambda: MIED(flat, constraint=Region(lambda x: x.sum())).sample(5, 1, dimension=2),
            r"must give a tensor \(5,\)",
        ),
        (
            lambda: MIED(flat, constraint=Region(lambda x: (x - 9).sqrt())).sample(5, 1, dimension=2),
            "is NaN at the point",
        ),
        (lambda: MIED(flat, constraint=Region(lambda x: x.detach())).sample(5, 1, dimension=2), "does not depend on"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
