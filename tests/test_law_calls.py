"""Laws as PyTorch's own distributions are called; optional libraries that fail; parameters that are not finite."""

import sys
import types

import pytest
import torch
from helpers import seeded
from torch import distributions as theirs
from torch.distributions import Independent, kl_divergence

from spikevae.distributions import (
    LAWS,
    Bernoulli,
    ConwayMaxwellPoisson,
    Gaussian,
    Laplace,
    NegativeBinomial,
    Poisson,
    _arrivals_cpu,
    _random,
    arrivals,
    relaxed_counts,
)


def prior_of(law, n_units=2):
    kind = LAWS[law]
    return kind.from_prior(kind.initial_prior(n_units, 0.0, 0.0, seeded(0)))


@pytest.mark.parametrize("law", LAWS)
def test_whole_numbers_are_parameters(law):
    kind = LAWS[law]
    if not kind.independent:
        pytest.skip("one choice among units, in another shape")
    whole = kind(*(torch.ones(2, dtype=torch.int64) for _ in kind.prior_params))
    real = kind(*(torch.ones(2) for _ in kind.prior_params))
    torch.testing.assert_close(whole.mean, real.mean)
    torch.testing.assert_close(whole.log_prob(torch.ones(2, dtype=torch.int64)), real.log_prob(torch.ones(2)))
    assert kind(*(1 for _ in kind.prior_params)).mean.dtype == torch.float32


@pytest.mark.parametrize("law", LAWS)
def test_functions_of_torch_can_sample(law):
    """They call sample(shape); the numbers are then those of PyTorch's own generator."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = Independent(prior_of(law), 1).sample((3,))
        torch.manual_seed(1)
        again = prior_of(law).sample((3,))
    assert first.shape == (3, 2) and torch.equal(first, again)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (Poisson(torch.tensor([0.3])), theirs.Poisson(torch.tensor([2.0]))),
        (Bernoulli(torch.tensor([0.3])), theirs.Bernoulli(torch.tensor([0.2]))),
        (Gaussian(torch.tensor([0.3]), torch.tensor([0.1])), theirs.Normal(torch.tensor([1.0]), torch.tensor([2.0]))),
        (Laplace(torch.tensor([0.3]), torch.tensor([0.1])), theirs.Laplace(torch.tensor([1.0]), torch.tensor([2.0]))),
        (
            NegativeBinomial(torch.tensor([0.3]), torch.tensor([0.4])),
            theirs.NegativeBinomial(torch.tensor([1.5]), torch.tensor([0.6])),
        ),
    ],
)
def test_divergences_from_laws_of_torch(own, other):
    """By their own log probabilities, summed over counts or integrated."""
    z = torch.arange(400.0) if own.is_count else torch.linspace(-80, 80, 400_001, dtype=torch.float64)
    z = z[:2] if isinstance(own, Bernoulli) else z
    step = 1.0 if own.is_count else float(z[1] - z[0])
    q, p = own.log_prob(z).double(), other.log_prob(z).double()
    assert float(kl_divergence(own, other)) == pytest.approx(float((q.exp() * (q - p)).sum() * step), rel=1e-3)
    assert float(kl_divergence(other, own)) == pytest.approx(float((p.exp() * (p - q)).sum() * step), rel=1e-3)


@pytest.mark.parametrize("law", LAWS)
def test_laws_compute_where_their_parameters_are(law):
    """Not on the default device."""
    q = prior_of(law)
    torch.set_default_device("meta")
    try:
        code = q.sample((4,), generator=seeded(0))
        relaxed = q.relaxed(temperature=0.5, indicator="cubic").rsample((4,), generator=seeded(0))
        assert all(x.device.type == "cpu" for x in (code, relaxed, q.mean, q.variance, q.log_prob(code)))
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("law", LAWS)
def test_draws_of_parameters_that_are_not_numbers_end(law):
    kind = LAWS[law]
    n = torch.full((2,), torch.nan)
    for place in range(len(kind.prior_params)):
        parameters = [n if i == place else torch.zeros(2) for i in range(len(kind.prior_params))]
        code = kind(*parameters, validate_args=False).sample((2,), generator=seeded(0))
        assert code.shape == (2, 2)


def test_counts_of_a_shape_that_is_no_number_are_none():
    q = ConwayMaxwellPoisson(torch.zeros(2), torch.tensor([torch.nan, 0.0]), validate_args=False)
    assert q.sample(generator=seeded(0)).isnan().tolist() == [True, False]


class FailingLoader:
    """Numba where its cache cannot be written: importing the compiled module raises."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "spikevae.distributions._arrivals_numba":
            raise self.error


DRAWS = {
    "relaxed counts": (
        arrivals,
        arrivals.cpu_sampler,
        lambda g: relaxed_counts(torch.zeros(5), temperature=0.5, generator=g),
    ),
    "integer counts": (_random, _random._compiled, lambda g: _random.poisson_counts(torch.ones(5), g)),
}
"""For each kind of count the module that looks for the compiler, the function that remembers it, and a draw."""


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("error", [RuntimeError("cannot cache function"), OSError("read-only"), ImportError("NumPy")])
def test_a_compiler_that_fails_to_load_is_left_out_with_one_warning(monkeypatch, kind, error):
    module, found, draws = DRAWS[kind]
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.delitem(sys.modules, "spikevae.distributions._arrivals_numba", raising=False)
    monkeypatch.delattr("spikevae.distributions._arrivals_numba", raising=False)
    monkeypatch.setattr(sys, "meta_path", [FailingLoader(error), *sys.meta_path])
    found.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=rf"Numba is installed but fails \({error}") as said:
            for _ in range(2):
                z = draws(seeded(0))
        assert len(said) == 1 and z.shape == (5,) and z.isfinite().all() and found() in (_arrivals_cpu, None)
    finally:
        found.cache_clear()


def test_a_compiler_that_fails_at_the_first_draw_is_left_out(monkeypatch):
    def fails(*_):
        raise OSError("no space left on device")

    module = types.ModuleType("spikevae.distributions._arrivals_numba")
    module.soft_counts = fails
    monkeypatch.setattr(arrivals, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("spikevae.distributions._arrivals_numba", module, raising=False)
    arrivals.cpu_sampler.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="no space left"):
            assert relaxed_counts(torch.zeros(5), temperature=0.5, generator=seeded(0)).isfinite().all()
    finally:
        arrivals.cpu_sampler.cache_clear()


def test_without_the_compiler_there_is_no_warning(monkeypatch):
    monkeypatch.setattr(arrivals, "find_spec", lambda name: None)
    arrivals.cpu_sampler.cache_clear()
    try:
        assert arrivals.cpu_sampler() is _arrivals_cpu
    finally:
        arrivals.cpu_sampler.cache_clear()
