"""Maps between states: closed forms of their works, flows against derivatives and symmetries, learned maps."""

import importlib.util
import math

import numpy as np
import pytest
import scipy.special
import torch
from free_energy_cases import Chain, Well
from helpers import SCORE, draw, seeded
from torch import Tensor

from spikevae.free_energy import Difference, LearnedMap, bar, difference, mapped_works, targeted, zwanzig

if importlib.util.find_spec("zuko") is None:  # importing it here would hide what its import does
    pytest.skip("no zuko", allow_module_level=True)

from spikevae.free_energy.flows import CoordinateFlow, Flow, ParticleFlow, splines

BOX = torch.tensor([2.0, 3.0])


class Affine:
    """x -> A x + b."""

    def __init__(self, matrix: np.ndarray, shift: np.ndarray) -> None:
        self.matrix, self.shift = torch.as_tensor(matrix), torch.as_tensor(shift)
        self.log_det = torch.linalg.slogdet(self.matrix)[1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.mT + self.shift, self.log_det.expand(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (y - self.shift) @ torch.linalg.inv(self.matrix).mT, -self.log_det.expand(len(y))


def quadratic(precision: np.ndarray, mean: np.ndarray) -> object:
    k, m = torch.as_tensor(precision), torch.as_tensor(mean)
    return lambda x: 0.5 * ((x - m.to(x)) @ k.to(x) * (x - m.to(x))).sum(-1)


# Works through maps


def test_the_affine_map_makes_every_work_the_difference() -> None:
    """u_A = x'x / 2, u_B = (x - m)' K (x - m) / 2 and x -> K^(-1/2) x + m: log det K / 2 without variance."""
    a = draw(4, 4).numpy()
    precision, mean, rng = a @ a.T + 0.3 * np.eye(4), np.array([1.0, -2.0, 0.5, 3.0]), np.random.default_rng(0)
    values, vectors = np.linalg.eigh(precision)
    u_a, u_b = quadratic(np.eye(4), np.zeros(4)), quadratic(precision, mean)
    x, y = rng.normal(size=(50, 4)), rng.multivariate_normal(mean, np.linalg.inv(precision), 40)
    forward, reverse = mapped_works(u_a, u_b, x, y, map=Affine(vectors / np.sqrt(values) @ vectors.T, mean))
    exact = 0.5 * np.log(values).sum()
    np.testing.assert_allclose(forward, exact, rtol=1e-10)
    np.testing.assert_allclose(reverse, -exact, rtol=1e-10)
    found = bar(forward, reverse)
    assert found.estimate == pytest.approx(exact) and found.standard_error < 1e-6 and found.overlap > 1 - 1e-9
    assert found.lower == pytest.approx(found.upper)


def test_a_poor_map_keeps_the_difference_and_the_bounds() -> None:
    """For any map the difference is the same, and mean works bound it; without map they are u_B - u_A."""
    a, b, exact = Chain(3, 1.0), Chain(3, 1.5), 3 * math.log(1.5)
    u_a, u_b = quadratic(a.precision, np.zeros(3)), quadratic(b.precision, np.zeros(3))
    x, y = a.samples(20_000, 0), b.samples(20_000, 1)
    for matrix in (np.eye(3), np.eye(3) * 0.75, np.array([[0.7, 0.1, 0.0], [0.0, 0.8, 0.0], [0.1, 0.0, 0.9]])):
        forward, reverse = mapped_works(u_a, u_b, x, y, map=Affine(matrix, np.full(3, 0.05)))
        for found in (zwanzig(forward, reverse), bar(forward, reverse)):
            assert abs(found.estimate - exact) < SCORE * found.standard_error < 0.15
            assert found.lower < exact < found.upper and found.flags == ()
    plain = mapped_works(u_a, u_b, x, map=Affine(np.eye(3), np.zeros(3)))[0]
    np.testing.assert_allclose(plain, b.energy(x) - a.energy(x))


WRONG_MAPS = {
    "is not invertible": lambda y: (y.abs(), y.new_zeros(len(y))),
    "log-determinant": lambda y: (y, y.new_full((len(y),), 1.0)),
}


@pytest.mark.parametrize("message", WRONG_MAPS)
def test_maps_that_do_not_lead_back_are_refused(message: str) -> None:
    class Wrong:
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x.new_zeros(len(x))

        def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
            return WRONG_MAPS[message](y)

    u = quadratic(np.eye(2), np.zeros(2))
    with pytest.raises(ValueError, match=message):
        mapped_works(u, u, draw(50, 2), map=Wrong())


def test_a_determinant_that_is_not_that_of_the_derivatives_is_refused() -> None:
    wrong = Affine(np.eye(2) * 2, np.zeros(2))
    wrong.log_det = torch.tensor(0.5)
    u = quadratic(np.eye(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"log-determinant 0\.5 .* derivatives have 1\.38629"):
        mapped_works(u, u, draw(50, 2), map=wrong)


def flat(x: Tensor) -> Tensor:
    return x.new_zeros(len(x))


IDENTITY = Affine(np.eye(2), np.zeros(2))
WRONG = {
    "u_b is nan for 1 of 9 points, first at x = [1.0, 1.0]": lambda: mapped_works(
        flat, lambda x: torch.where(x[:, 0] == 1, math.nan, 0.0), X, map=IDENTITY
    ),
    "u_a is inf for 1 of 9 samples of its own state": lambda: mapped_works(
        lambda x: torch.where(x[:, 0] == 1, math.inf, 0.0), flat, X, map=IDENTITY
    ),
    "u_a gave (9, 2) for points (9, 2); it must give a tensor (9,)": lambda: mapped_works(
        lambda x: x, flat, X, map=IDENTITY
    ),
    "x_a has shape (9,)": lambda: mapped_works(flat, flat, np.zeros(9), map=IDENTITY),
    "x_b has points of shape (3,)": lambda: mapped_works(flat, flat, X, np.zeros((4, 3)), map=IDENTITY),
    "x_a has 1 entries that are not finite": lambda: mapped_works(flat, flat, [[0.0, np.nan]], map=IDENTITY),
    "box is [1.0]; give 2 positive lengths": lambda: LearnedMap(flat, flat, box=[1.0]).fit(X),
    "particles (n, N, D) need box": lambda: LearnedMap(flat, flat).fit(np.zeros((9, 3, 2))),
    "relative=True is for particles": lambda: LearnedMap(flat, flat, box=[1.0, 1.0], relative=True).fit(X),
    "x_a has 4 samples; a map needs 5": lambda: LearnedMap(flat, flat).fit(X[:4]),
    "steps is 0": lambda: LearnedMap(flat, flat, steps=0),
    "hidden is 33; give an even number": lambda: LearnedMap(flat, flat, hidden=33),
    "learning_rate is 0": lambda: LearnedMap(flat, flat, learning_rate=0),
    "the map is not trained": lambda: LearnedMap(flat, flat).works(X),
    "x_a has shape (9, 2); give (n, d) or (n, N, D), 10 or more": lambda: targeted(flat, flat, X),
}
X = np.ones((9, 2)) * np.r_[1.0, np.full(8, 0.5)][:, None]


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_named(message: str) -> None:
    with pytest.raises(ValueError) as error:
        WRONG[message]()
    assert message in str(error.value) and "\n" not in str(error.value)


# Flows


def of_coordinates(d: int, circular: bool) -> Flow:
    centre = torch.full((d,), 0.0 if circular else 0.3, dtype=torch.float64)
    scale = torch.full((d,), 2.0 / (2 * math.pi) if circular else 1.4, dtype=torch.float64)
    return CoordinateFlow(centre, scale, circular=circular, n_layers=3, hidden=8, bins=4)


FLOWS = {  # name: flow, points
    "line": (lambda: of_coordinates(1, False), (6, 1)),
    "lines": (lambda: of_coordinates(3, False), (6, 3)),
    "circle": (lambda: of_coordinates(1, True), (6, 1)),
    "circles": (lambda: of_coordinates(3, True), (6, 3)),
    "particles": (lambda: ParticleFlow(BOX, relative=False, n_layers=4, hidden=8, bins=4), (6, 5, 2)),
    "relative particles": (lambda: ParticleFlow(BOX, relative=True, n_layers=4, hidden=8, bins=4), (6, 5, 2)),
}


@pytest.fixture(params=FLOWS)
def case(request: pytest.FixtureRequest) -> tuple[str, Flow, Tensor]:
    """A flow with random parameters, and points in its box."""
    build, shape = FLOWS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = build().double()
    x = draw(*shape, seed=1)
    if "line" not in request.param:
        box = BOX.double() if "particles" in request.param else torch.full((shape[-1],), 2.0, dtype=torch.float64)
        x = torch.remainder(x, box) - box / 2
    return request.param, flow, x


def shaken(flow: Flow) -> Flow:
    """With parameters far from those at which it is the identity."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=seeded(2), dtype=parameter.dtype)
    return flow


def test_flows_start_as_the_identity(case: tuple[str, Flow, Tensor]) -> None:
    _, flow, x = case
    y, log_det = flow(x)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det))


def test_flows_lead_back_and_have_the_determinant_of_their_derivatives(case: tuple[str, Flow, Tensor]) -> None:
    _, flow, x = case
    shaken(flow)
    y, log_det = flow(x)
    assert (y - x).abs().max() > 0.02
    back, log_det_back = flow.inverse(y)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_det_back, -log_det)
    d = x[0].numel()
    for point, value in zip(x, log_det):
        jacobian = torch.autograd.functional.jacobian(lambda p: flow(p[None])[0][0], point).reshape(d, d)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], value)


def test_flows_on_circles_and_of_particles_have_their_symmetries(case: tuple[str, Flow, Tensor]) -> None:
    name, flow, x = case
    if "line" in name:
        pytest.skip("a line has none")
    shaken(flow)
    box = BOX.double() if "particles" in name else 2.0
    same = lambda a, b: torch.testing.assert_close(
        torch.remainder(a - b + box / 2, box) - box / 2, torch.zeros_like(a), atol=1e-9, rtol=0
    )
    y, log_det = flow(x)
    turned, log_det_turned = flow(x + box)
    same(turned, y)
    torch.testing.assert_close(log_det_turned, log_det)
    if "particles" not in name:
        return
    order = torch.tensor([0, 3, 1, 4, 2]) if name.startswith("relative") else torch.tensor([2, 3, 1, 4, 0])
    permuted, log_det_permuted = flow(x[:, order])
    same(permuted, y[:, order])
    torch.testing.assert_close(log_det_permuted, log_det)
    shift = torch.tensor([0.3, 0.7])
    shifted, log_det_shifted = flow(x + shift)
    if name.startswith("relative"):
        same(shifted, y + shift)
        torch.testing.assert_close(log_det_shifted, log_det)
    else:
        assert (log_det_shifted - log_det).abs().max() > 1e-3


def test_loading_the_library_of_flows_leaves_pytorch_as_it_was() -> None:
    splines()
    distribution = torch.distributions.Distribution
    assert distribution._validate_args and isinstance(distribution.__dict__["arg_constraints"], property)


# Learned maps


def learned_score(found: Difference, exact: float) -> float:
    assert found.lower < exact < found.upper
    return abs(found.estimate - exact) / found.standard_error


def test_learned_maps_of_a_double_well_have_the_difference_of_quadrature() -> None:
    """LFEP and LBAR."""
    a, b, n = Well(1.0, 0.0), Well(6.0, 3.0), 2000
    u = [lambda x, w=w: w.height * (x[:, 0] ** 2 - 1) ** 2 + w.tilt * x[:, 0] for w in (a, b)]
    x, y = a.samples(n, 0), b.samples(n, 1)
    exact = b.free_energy() - a.free_energy()
    options = {"steps": 100, "learning_rate": 0.03, "batch_size": 128, "layers": 1}
    plain = difference(b.energy(x) - a.energy(x), a.energy(y) - b.energy(y))
    lbar = targeted(*u, x[:, None], y[:, None], **options)
    assert lbar.method == "LBAR" and lbar.samples == (n // 2, n // 2)
    assert learned_score(lbar, exact) < SCORE and lbar.overlap > plain.overlap + 0.3
    lfep = targeted(*u, x[:, None], **options)
    assert lfep.method == "LFEP" and lfep.lower == -math.inf
    assert learned_score(lfep, exact) < SCORE and lfep.overlap > 0.8


def test_learned_maps_of_mixtures_differ_by_nothing() -> None:
    """Both halves in turn: all samples count."""
    rng, n = np.random.default_rng(3), 1200
    centres = [np.array([[-1.5, 0.0], [1.5, 0.0]]), np.array([[0.0, -1.5], [0.0, 1.5], [2.0, 0.0]])]
    x = [c[rng.integers(len(c), size=n)] + 0.7 * rng.normal(size=(n, 2)) for c in centres]

    def energy(c: np.ndarray) -> object:
        at = torch.as_tensor(c)
        squared = lambda z: (z[:, None] - at.to(z)).square().sum(-1) / (2 * 0.49)
        return lambda z: -(torch.logsumexp(-squared(z), 1) - math.log(len(c)))

    u = [energy(c) for c in centres]
    found = targeted(*u, *x, crossed=True, steps=60, learning_rate=0.02, batch_size=128, hidden=16, layers=2)
    assert found.samples == (n, n) and learned_score(found, 0.0) < SCORE and found.standard_error < 0.1
    plain = [u[1](torch.tensor(x[0])) - u[0](torch.tensor(x[0])), u[0](torch.tensor(x[1])) - u[1](torch.tensor(x[1]))]
    assert found.standard_error < difference(*plain).standard_error


def test_learned_maps_on_a_circle_have_the_difference_of_bessel_functions() -> None:
    """exp(k cos(angle - mean)) has the integral 2 pi I0(k)."""
    rng, n, kappas, mean = np.random.default_rng(0), 1000, (1.0, 4.0), 2.5
    x = [rng.vonmises(m, k, (n, 1)) for m, k in zip((0.0, mean), kappas)]
    u = [lambda z, m=m, k=k: -k * torch.cos(z[:, 0] - m) for m, k in zip((0.0, mean), kappas)]
    exact = -math.log(scipy.special.i0(kappas[1]) / scipy.special.i0(kappas[0]))
    found = targeted(*u, *x, box=[2 * math.pi], steps=80, learning_rate=0.05, batch_size=128, layers=1)
    assert learned_score(found, exact) < SCORE and found.overlap > 0.8


def test_learned_maps_of_particles_have_the_difference_of_a_product() -> None:
    """Particles that do not interact, each in a field cos(x) + cos(y): the difference is that of one, times N D."""
    rng, n, particles, k = np.random.default_rng(0), 600, 4, 1.0
    x, y = rng.uniform(-math.pi, math.pi, (n, particles, 2)), rng.vonmises(0.0, k, (n, particles, 2))
    exact = -2 * particles * math.log(scipy.special.i0(k))
    settings = {"steps": 60, "hidden": 8, "bins": 4, "layers": 2, "learning_rate": 0.03, "batch_size": 64}
    reflected = [lambda z: -z, lambda z: z.flip(-1)]
    u_b = lambda z: -k * z.cos().sum((1, 2))
    found = targeted(flat, u_b, x, y, box=[2 * math.pi] * 2, symmetries=reflected, **settings)
    assert learned_score(found, exact) < SCORE and found.overlap > 0.8


def test_learned_maps_leave_the_generator_of_pytorch_alone_and_depend_on_their_seed() -> None:
    x, u = np.random.default_rng(0).normal(size=(60, 2)), quadratic(np.diag([2.0, 3.0]), np.ones(2))
    before = torch.get_rng_state()
    works = [
        LearnedMap(quadratic(np.eye(2), np.zeros(2)), u, steps=5, hidden=4, learning_rate=0.05, seed=seed)
        .fit(x)
        .works(x)[0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(works[0], works[1])
    assert np.abs(works[0] - works[2]).max() > 1e-3


def test_a_map_that_is_interrupted_keeps_its_best_state() -> None:
    calls = []

    def stopped(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 60:
            raise KeyboardInterrupt
        return 2 * (x - 3).square().sum(-1)

    x = np.random.default_rng(0).normal(size=(200, 1))
    learned = LearnedMap(lambda x: x.square().sum(-1) / 2, stopped, steps=500, learning_rate=0.05)
    with pytest.raises(KeyboardInterrupt):
        learned.fit(x)
    learned.u_b = lambda x: 2 * (x - 3).square().sum(-1)
    before = zwanzig(2 * (x[:, 0] - 3) ** 2 - x[:, 0] ** 2 / 2)
    assert learned.works(x)[0].mean() < before.upper - 1


def test_states_that_share_nothing_are_flagged_even_with_a_map() -> None:
    """Too few steps to move 60 standard deviations."""
    x = np.random.default_rng(0).normal(size=(2, 100, 1))
    u = [quadratic(np.eye(1), np.full(1, mean)) for mean in (0.0, 60.0)]
    found = targeted(*u, x[0], x[1] + 60, steps=2)
    assert found.overlap < 1e-3 and any("overlap" in flag for flag in found.flags)
