"""Sparse codes against scikit-learn, their own conditions of optimality and hand-worked cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.decomposition import sparse_encode

from spikevae.models.sparse.inference import (
    EIGENVALUE_MARGIN,
    INFERENCES,
    THRESHOLDS,
    fista,
    ista,
    largest_gram_eigenvalue,
    lca,
)

EXACT = {"tolerance": 1e-9, "max_steps": 200_000}
SOLVERS = {"lca": lca, "ista": ista, "fista": fista}
RECTIFIED = {
    "lca": {"threshold": "rectified"},
    "ista": {"nonnegative": True},
    "fista": {"nonnegative": True},
}


def problem(n_units=24, n_pixels=16, n=20, *, seed=0, dtype=torch.float64, unit_norm=False):
    """Random atoms of norms that differ threefold, and stimuli that some of them made."""
    g = torch.Generator().manual_seed(seed)
    dictionary = torch.randn(n_units, n_pixels, generator=g, dtype=torch.float64)
    dictionary /= torch.linalg.vector_norm(dictionary, dim=1, keepdim=True)
    if not unit_norm:
        dictionary *= 0.5 + torch.rand(n_units, 1, generator=g, dtype=torch.float64)
    codes = torch.randn(n, n_units, generator=g, dtype=torch.float64)
    codes *= torch.rand(n, n_units, generator=g, dtype=torch.float64) < 0.2
    x = codes @ dictionary + 0.1 * torch.randn(n, n_pixels, generator=g, dtype=torch.float64)
    return x.to(dtype), dictionary.to(dtype)


def gradient(x, dictionary, codes):
    return (codes @ dictionary - x) @ dictionary.mT


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("price", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("algorithm", ["lasso_lars", "lasso_cd"])
def test_codes_are_those_of_scikit_learn(name, price, algorithm):
    x, dictionary = problem()
    options = {"max_iter": 100_000} if algorithm == "lasso_cd" else {}
    reference = sparse_encode(x.numpy(), dictionary.numpy(), algorithm=algorithm, alpha=price, **options)
    found = SOLVERS[name](x, dictionary, price, **EXACT)
    assert found.converged.all()
    np.testing.assert_allclose(found.codes, reference, atol=1e-4)
    assert 0.2 < (reference != 0).mean() < 0.9 or price == 1.0


@pytest.mark.parametrize("name", SOLVERS)
def test_nonnegative_codes_are_those_of_scikit_learn(name):
    x, dictionary = problem()
    reference = sparse_encode(
        x.numpy(), dictionary.numpy(), algorithm="lasso_cd", alpha=0.2, positive=True, max_iter=100_000
    )
    found = SOLVERS[name](x, dictionary, 0.2, **EXACT, **RECTIFIED[name])
    np.testing.assert_allclose(found.codes, reference, atol=1e-4)
    assert (found.codes >= 0).all() and (found.codes > 0).any()


@pytest.mark.parametrize("name", SOLVERS)
def test_without_a_price_it_is_least_squares(name):
    x, dictionary = problem(8, 16)
    found = SOLVERS[name](x, dictionary, 0.0, **EXACT)
    np.testing.assert_allclose(found.codes, x @ torch.linalg.pinv(dictionary), atol=1e-6)
    found = SOLVERS[name](x, dictionary, 0.0, **EXACT, **RECTIFIED[name])
    reference = np.array([nnls(dictionary.numpy().T, row)[0] for row in x.numpy()])
    np.testing.assert_allclose(found.codes, reference, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_single_precision_and_more_units_than_twice_the_pixels(name):
    """K > 2 D takes the way through the pixels instead of the Gram matrix; float32 to 1e-4 of scikit-learn."""
    x, dictionary = problem(40, 12, dtype=torch.float32)
    reference = sparse_encode(
        x.double().numpy(), dictionary.double().numpy(), algorithm="lasso_cd", alpha=0.5, max_iter=100_000
    )
    found = SOLVERS[name](x, dictionary, 0.5, tolerance=3e-6, max_steps=20_000)
    assert found.codes.dtype == torch.float32
    np.testing.assert_allclose(found.codes, reference, atol=1e-4)


@given(
    seed=st.integers(0, 10_000),
    price=st.floats(0.02, 3.0),
    n_units=st.integers(1, 30),
    n_pixels=st.integers(1, 12),
    kind=st.sampled_from(["soft", "rectified"]),
    name=st.sampled_from(sorted(SOLVERS)),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_conditions_of_optimality(seed, price, n_units, n_pixels, kind, name):
    """Karush-Kuhn-Tucker: the gradient of an active unit is -price * sign, of a silent one within the price.

    A stimulus that says it converged fulfils them to the tolerance, worked out here from the formulas alone.
    """
    x, dictionary = problem(n_units, n_pixels, 4, seed=seed)
    options = RECTIFIED[name] if kind == "rectified" else {}
    found = SOLVERS[name](x, dictionary, price, tolerance=1e-6, max_steps=3000, **options)
    g = gradient(x, dictionary, found.codes)
    slack = 1e-6 * (x @ dictionary.mT).abs().amax(1, keepdim=True) + 1e-12
    active = found.codes != 0
    stationary = torch.where(active, (g + price * found.codes.sign()).abs() <= slack, True)
    silent = -g <= price + slack if kind == "rectified" else g.abs() <= price + slack
    optimal = (stationary & (active | silent)).all(1)
    assert torch.equal(optimal, found.converged)
    assert found.converged.any() or found.steps.max() == 3000


@pytest.mark.parametrize("price", [0.2, 0.5, 1.0])
def test_hard_threshold_fixed_point(price):
    """Active units lie above the threshold and leave a residual orthogonal to their atoms; silent ones see less."""
    x, dictionary = problem(unit_norm=True)
    found = lca(x, dictionary, price, threshold="hard", tolerance=1e-8, max_steps=100_000)
    assert found.converged.all()
    g, active = gradient(x, dictionary, found.codes), found.codes != 0
    assert g[active].abs().max() < 1e-6 and (found.codes[active].abs() > price).all()
    assert (g[~active].abs() <= price + 1e-6).all()
    assert active.any(1).double().mean() > 0.3
    # On its own support the code is the least-squares solution: no shrinkage.
    for row, code in zip(x, found.codes):
        support = code != 0
        best = torch.linalg.lstsq(dictionary[support].mT, row[:, None]).solution[:, 0]
        torch.testing.assert_close(code[support], best, atol=1e-5, rtol=1e-5)


def test_thresholds_by_hand():
    u = torch.tensor([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0])
    expected = {
        "soft": [-2.0, 0.0, 0.0, 0.0, 0.0, 2.0],
        "rectified": [0.0, 0.0, 0.0, 0.0, 0.0, 2.0],
        "hard": [-3.0, 0.0, 0.0, 0.0, 0.0, 3.0],
    }
    assert set(expected) == set(THRESHOLDS)
    for name, values in expected.items():
        assert THRESHOLDS[name].apply(u, 1.0).tolist() == values


@pytest.mark.parametrize("threshold", ["soft", "rectified", "hard"])
def test_the_lca_does_not_care_for_the_norm_of_an_atom(threshold):
    """a_k of atoms c_k phi_k at prices c_k p is a_k / c_k of the atoms phi_k at price p, step for step."""
    x, dictionary = problem(unit_norm=True)
    scale = torch.linspace(0.1, 7.0, len(dictionary), dtype=torch.float64)
    plain = lca(x, dictionary, 0.3, threshold=threshold, max_steps=30)
    scaled = lca(x, dictionary * scale[:, None], 0.3 * scale, threshold=threshold, max_steps=30)
    torch.testing.assert_close(scaled.codes * scale, plain.codes)


def test_a_price_for_each_unit():
    x, dictionary = problem()
    prices = torch.linspace(0.1, 0.8, len(dictionary), dtype=torch.float64)
    reference = sparse_encode(  # a price is a scale of the atom
        x.numpy(), (dictionary / prices[:, None]).numpy(), algorithm="lasso_lars", alpha=1.0
    )
    for solver in SOLVERS.values():
        np.testing.assert_allclose(solver(x, dictionary, prices, **EXACT).codes, reference / prices, atol=1e-4)


def test_published_dynamics_of_the_lca():
    """Unit norms: the potentials follow u' = Phi x - (Phi Phi^T - I) a - u (Rozell et al. 2008), step by step."""
    x, dictionary = problem(unit_norm=True)
    method = INFERENCES["lca-soft"].build(dictionary, 0.3)
    state = method.init_state(len(x))
    u = torch.zeros(len(x), len(dictionary), dtype=torch.float64)
    others = dictionary @ dictionary.mT - torch.eye(len(dictionary), dtype=torch.float64)
    for _ in range(25):
        a = u.sign() * (u.abs() - 0.3).clamp_min(0)
        u = u + method.step_size * (x @ dictionary.mT - a @ others - u)
        state = method.infer_step(state, x)
        torch.testing.assert_close(state.auxiliary[0], u)
    assert method.codes(state).abs().sum() > 0


@pytest.mark.parametrize("name", INFERENCES)
def test_single_steps_lead_where_solving_leads_and_follow_a_new_stimulus(name):
    x, dictionary = problem(12, 16)
    method = INFERENCES[name].build(dictionary, 0.3)
    state = method.init_state(len(x))
    for _ in range(30):
        state = method.infer_step(state, x)
    found = method.solve(x, tolerance=1e-30, max_steps=30)
    torch.testing.assert_close(method.codes(state), found.codes)
    assert (found.steps == 30).any()  # others are exactly silent from the start
    other = x.flip(0)
    for _ in range(2000):
        state = method.infer_step(state, other)
    assert method.violation(state, method.drive(other)).max() < 1e-6


def test_fista_needs_fewer_steps_than_ista_and_both_fall_as_proved():
    """E(k) - E* <= 2 L |a*|^2 / (k + 1)^2 for FISTA, L |a*|^2 / 2k for ISTA (Beck & Teboulle 2009)."""
    x, dictionary = problem(24, 16, 8, seed=3)
    best = fista(x, dictionary, 0.1, **EXACT).codes

    def energy(a):
        return 0.5 * (x - a @ dictionary).square().sum(1) + 0.1 * a.abs().sum(1)

    bound = float(largest_gram_eigenvalue(dictionary)) * best.square().sum(1)
    for k in (1, 3, 10, 30, 100):
        for solver, limit in ((ista, bound / (2 * k)), (fista, 2 * bound / (k + 1) ** 2)):
            gap = energy(solver(x, dictionary, 0.1, tolerance=1e-30, max_steps=k).codes) - energy(best)
            assert (gap <= limit + 1e-10).all() and (gap > -1e-10).all()
    steps = {name: float(f(x, dictionary, 0.1, **EXACT).steps.double().mean()) for name, f in SOLVERS.items()}
    assert steps["fista"] < 0.5 * steps["ista"]


@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (40, 40)])
def test_largest_gram_eigenvalue_is_an_upper_bound(shape):
    for seed in range(10):
        dictionary = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        exact = torch.linalg.matrix_norm(dictionary, 2).square()
        assert exact <= largest_gram_eigenvalue(dictionary) <= EIGENVALUE_MARGIN * exact * (1 + 1e-12)


@pytest.mark.parametrize("name", INFERENCES)
def test_edge_cases(name):
    method = INFERENCES[name].build
    x, dictionary = problem()
    dictionary[3] = 0.0
    found = method(dictionary, 0.3).solve(x, tolerance=1e-4, max_steps=5000)
    assert (found.codes[:, 3] == 0).all() and found.converged.all()
    silent = method(dictionary, 1e3).solve(x, tolerance=1e-4, max_steps=100)
    assert (silent.codes == 0).all() and silent.converged.all() and (silent.steps == 0).all()
    dark = method(dictionary, 0.3).solve(torch.zeros_like(x), tolerance=1e-4, max_steps=100)
    assert (dark.codes == 0).all() and dark.converged.all()
    assert method(dictionary, 0.3).solve(x[:0], tolerance=1e-4, max_steps=100).codes.shape == (0, 24)
    empty = method(torch.zeros_like(dictionary), 0.3).solve(x, tolerance=1e-4, max_steps=100)
    assert (empty.codes == 0).all() and empty.converged.all()


def test_each_stimulus_stops_by_itself():
    """A stimulus' code, steps and messages do not depend on which others share its batch."""
    x, dictionary = problem(n=30)
    together = lca(x, dictionary, 0.2, tolerance=1e-5, max_steps=5000)
    assert together.steps.unique().numel() > 3
    for i in (0, 7, 29):
        alone = lca(x[i : i + 1], dictionary, 0.2, tolerance=1e-5, max_steps=5000)
        torch.testing.assert_close(alone.codes[0], together.codes[i], atol=1e-12, rtol=0)
        assert alone.steps[0] == together.steps[i] and alone.messages[0] == together.messages[i]


def test_messages_and_operations_are_counted():
    x, dictionary = problem(24, 16)
    method = INFERENCES["ista"].build(dictionary, 0.3)
    state, sent = method.init_state(len(x)), torch.zeros(len(x))
    for _ in range(20):
        state = method.infer_step(state, x)
        sent += (state.code != 0).sum(1)
    found = method.solve(x, tolerance=1e-30, max_steps=20)
    assert torch.equal(found.messages.float(), sent)
    assert method.macs_per_step == 24 * 24
    assert INFERENCES["ista"].build(torch.ones(24, 5), 0.3).macs_per_step == 2 * 24 * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": -0.1}, "zero or more"),
        ({"price": float("nan")}, "zero or more"),
        ({"price": torch.ones(3)}, "24 of them"),
        ({"x": torch.zeros(3, 5, dtype=torch.float64)}, r"\(B, 16\)"),
        ({"x": torch.zeros(3, 16)}, "float32"),
        ({"x": torch.full((3, 16), torch.inf, dtype=torch.float64)}, "infinite"),
        ({"dictionary": torch.zeros(0, 16, dtype=torch.float64)}, "non-empty"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": -1}, "max_steps"),
    ],
)
def test_bad_problems_are_refused_in_words(change, message):
    x, dictionary = problem()
    arguments = {"x": x, "dictionary": dictionary, "price": 0.3} | change
    for solver in SOLVERS.values():
        with pytest.raises(ValueError, match=message):
            solver(**arguments)
    with pytest.raises(ValueError, match="soft, rectified, hard"):
        lca(x, dictionary, 0.3, threshold="firm")
