"""The compiled pass over Poisson codes against the tensor operations in float64."""

import math
import os
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from helpers import seeded
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from spikevae.distributions import Poisson, _poisson_units
from spikevae.distributions._poisson_units import MIN_COMPILED, Units
from spikevae.distributions._threads import in_shares
from spikevae.training.recorded import CALLS_BEFORE_TRACE, Recorded

pytest.importorskip("numba")
ROWS, UNITS = 517, 37
"""More rows than a block has, not a multiple of it, and units that are not a multiple of a vector."""


def batch(*lead, scale=4.0, seed=0):
    """Outputs of an encoder with some far above the soft bounds, and log-rates of a prior."""
    raw = scale * torch.randn(*lead, ROWS, UNITS, generator=seeded(seed))
    raw[..., 0, 0], raw[..., 1, 0], raw[..., 2, 0] = 50.0, 200.0, -200.0
    return raw, torch.randn(*lead, UNITS, generator=seeded(seed + 1)) - 3


def results(raw, prior, residual, limit, dtype, weights):
    """Outputs, and gradients of a weighted sum of them; weights of None leave an output out."""
    raw, prior = raw.to(dtype).requires_grad_(), prior.to(dtype).requires_grad_()
    outputs = Units.apply(raw, prior, limit, residual)[:4]
    total = sum((out * w.to(dtype)).sum() for out, w in zip(outputs, weights) if w is not None)
    return [*outputs, *torch.autograd.grad(total, (raw, prior), materialize_grads=True)]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("used", ["all", "log rates and divergence", "rates"])
def test_one_pass_has_the_numbers_of_tensor_operations(residual, lead, used):
    raw, prior = batch(*lead)
    weights = [torch.randn(x.shape, generator=seeded(7)) for x in Units.apply(raw, prior, 5.0, residual)[:4]]
    weights = [w if used == "all" or (i in (0, 2)) == used.startswith("log") else None for i, w in enumerate(weights)]
    assert raw.numel() >= MIN_COMPILED and _poisson_units._compiled(raw, 5.0) is not None
    found = results(raw, prior, residual, 5.0, torch.float32, weights)
    exact = results(raw, prior, residual, 5.0, torch.float64, weights)
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32 and a.shape == b.shape
        # Rounding of encoder outputs up to 80, of which a bound of 5 is the difference, and of sums over 517 rows.
        assert torch.allclose(a.double(), b, rtol=2e-5, atol=2e-5 * max(1.0, float(b.detach().abs().median())))


@pytest.mark.parametrize("n_units", [1, 3])
def test_sums_over_many_stimuli_of_few_units_are_exact_to_rounding(n_units):
    """One sum of float32 after another is off by 2e-4 here, where all terms are equal."""
    raw = torch.linspace(-4, -1, n_units).expand(40_000, n_units)
    prior = torch.full((n_units,), -3.0)
    found, exact = (Units.apply(raw.to(t), prior.to(t), 5.0, False) for t in (torch.float32, torch.float64))
    assert _poisson_units._compiled(raw, 5.0) is not None
    assert ((found[3] - exact[3]).abs() / exact[3]).max() < 4e-6
    assert abs(float(found[2] - exact[2])) < 1e-5 * float(exact[3].sum())
    weight = torch.ones(40_000, n_units)
    moved = [
        torch.autograd.grad(Units.apply(raw.to(t), row, 5.0, True)[1], row, weight.to(t))[0]
        for t in (torch.float32, torch.float64)
        for row in [prior.to(t).requires_grad_()]
    ]
    assert ((moved[0] - moved[1]).abs() / moved[1]).max() < 4e-6


@pytest.mark.parametrize("residual", [True, False])
def test_rates_from_tiny_to_large_are_exact_to_rounding(residual):
    log_rate = torch.linspace(math.log(1e-6), math.log(1e4), MIN_COMPILED).view(-1, 8)
    prior = torch.full((8,), -3.0)
    raw = log_rate - prior if residual else log_rate
    found, exact = (Units.apply(raw.to(t), prior.to(t), 12.0, residual) for t in (torch.float32, torch.float64))
    assert ((found[1].double() - exact[1]).abs() / exact[1]).max() < 3e-6  # half an ulp of a log-rate of 14 is 5e-7
    assert (found[0].double() - exact[0]).abs().max() < 3e-6


def test_exponential_and_logarithm_err_by_less_than_two_units_of_the_last_place():
    from spikevae.distributions import _poisson_numba as compiled

    x = np.linspace(-86, 88, 100_001).astype(np.float32)
    found = np.array([compiled.exponential(v) for v in x], np.float64)
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2 * 2.0**-23
    y = np.concatenate([1 + np.geomspace(1e-7, 1, 20_001), np.geomspace(2, 3e38, 20_001)]).astype(np.float32)
    found, exact = np.array([compiled.logarithm(v) for v in y], np.float64), np.log(y.astype(np.float64))
    assert (np.abs(found - exact) <= 2 * 2.0**-23 * np.maximum(exact, 2.0**-23)).all()
    inputs = np.array([np.inf, -np.inf, np.nan, 1e6, -1e6, -95], np.float32)
    limits = [float(compiled.exponential(v)) for v in inputs]
    assert limits[0] == limits[3] == math.inf and limits[1] == limits[4] == 0 and math.isnan(limits[2])
    assert limits[5] == pytest.approx(math.exp(-95), rel=1e-4)  # a subnormal number
    assert compiled.logarithm(np.float32(np.inf)) == np.inf and np.isnan(compiled.logarithm(np.float32(np.nan)))


def test_impossible_outputs_stay_visible():
    """A fit whose encoder gives NaN must be seen to diverge."""
    raw, prior = batch()
    raw[3, 2] = math.nan
    log_rate, rate, kl, mean, _ = Units.apply(raw, prior, 5.0, True)
    assert log_rate[3, 2].isnan() and rate[3, 2].isnan() and kl.isnan()
    assert mean.isnan().nonzero().tolist() == [[2]] and rate.isnan().sum() == 1


def test_numbers_do_not_depend_on_threads():
    raw, prior = batch(2)
    weights = [torch.randn(x.shape, generator=seeded(7)) for x in Units.apply(raw, prior, 5.0, True)[:4]]
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            found.append(results(raw, prior, True, 5.0, torch.float32, weights))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def objective(raw, prior):
    coded = Poisson.encode(raw, Poisson(prior, validate_args=False), residual=True, clamp=5.0)
    return coded.kl + (coded.posterior.log_rate * 0.01).sum() + coded.mean.sum()


def by_autograd(raw, prior):
    """As in a stack of fits."""
    with torch.enable_grad():
        raw, prior = raw.detach().requires_grad_(), prior.detach().requires_grad_()
        return torch.autograd.grad(torch.func.vmap(objective)(raw, prior).sum(), (raw, prior))


def by_functions(raw, prior):
    return torch.func.vmap(torch.func.grad(objective, (0, 1)))(raw, prior)


@pytest.mark.parametrize("gradients", [by_autograd, by_functions])
def test_one_pass_within_vmap_and_traced(gradients):
    raw, prior = batch(3)
    weights = [torch.tensor(0.01), None, torch.tensor(1.0), torch.tensor(1.0)]
    expected = [results(*fit, True, 5.0, torch.float64, weights)[-2:] for fit in zip(raw, prior)]
    recorded = Recorded(gradients, 10_000)
    for _ in range(CALLS_BEFORE_TRACE + 2):
        found = recorded(raw, prior)
        for a, *b in zip(found, *expected):
            assert torch.allclose(a.double(), torch.stack(b), rtol=2e-5, atol=1e-4)
    assert recorded.is_recorded


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_the_first_call_may_be_traced(mode):
    """The compiled functions are tried out, and graphs hold the operation and not its numbers."""
    raw, prior = batch()
    _poisson_units._compiled_units.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        graph = make_fx(lambda *x: Units.apply(*x, 5.0, True)[:4], tracing_mode=mode)(raw, prior)
    assert _poisson_units._compiled(raw, 5.0) is not None
    other, expected = graph(raw / 2, prior + 1), Units.apply(raw / 2, prior + 1, 5.0, True)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=2e-5) for a, b in zip(other, expected))


def test_shapes_without_numbers():
    with FakeTensorMode() as mode:
        found = Units.apply(*map(mode.from_tensor, batch(2)), 5.0, True)
    assert [tuple(x.shape) for x in found[:4]] == [(2, ROWS, UNITS), (2, ROWS, UNITS), (2,), (2, UNITS)]


def test_without_the_compiler_there_are_tensor_operations(monkeypatch):
    raw, prior = batch()
    compiled = Units.apply(raw, prior, 5.0, True)
    monkeypatch.setattr(_poisson_units, "find_spec", lambda name: None)
    _poisson_units._compiled_units.cache_clear()
    try:
        assert _poisson_units._compiled(raw, 5.0) is None
        plain = Units.apply(raw, prior, 5.0, True)
    finally:
        _poisson_units._compiled_units.cache_clear()
    assert all(torch.allclose(a, b, rtol=1e-5, atol=2e-5) for a, b in zip(compiled, plain))


def test_a_compiler_that_fails_is_left_out_with_one_warning(monkeypatch):
    raw, prior = batch()
    monkeypatch.setattr("spikevae.distributions._poisson_numba.units", lambda *_, **__: 1 / 0)
    _poisson_units._compiled_units.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="Numba is installed but fails") as said:
            assert all(Units.apply(raw, prior, 5.0, True)[0].isfinite().all() for _ in range(2))
        assert len(said) == 1
    finally:
        _poisson_units._compiled_units.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_shares_after_a_fork():
    """Threads of the parent process do not exist in the child, which needs its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert in_shares(lambda first, last: last - first, 7) == [3, 4]
        child = os.fork()
        if child == 0:
            os._exit(0 if in_shares(lambda first, last: last - first, 7) == [3, 4] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)


def test_few_threads_stay_whatever_the_number_of_parts():
    def waits(first, last):
        time.sleep(0.002)  # so that each part needs a thread of its own
        return last - first

    before = torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        others = threading.active_count()
        assert [sum(in_shares(waits, n)) for n in range(2, 12)] == [*range(2, 12)]
        assert threading.active_count() - others <= 6
    finally:
        torch.set_num_threads(before)


def test_errors_of_other_threads_are_raised():
    def fails(first, last):
        if first:
            raise ValueError("share")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="share"):
            in_shares(fails, 4)
    finally:
        torch.set_num_threads(before)
