"""Ways to draw arrivals: at large rates, compiled or with NumPy, from tables."""

import math
import sys

import numpy as np
import pytest
import torch
from helpers import SCORE, seeded, value_and_slope
from scipy import stats

from spikevae import distributions
from spikevae.distributions import _arrivals_cpu, arrivals, relaxed_counts


@pytest.mark.parametrize("tau", [0.2, 1.0])
@pytest.mark.parametrize("indicator", ["cubic", "sigmoid"])
def test_gaussian_sums_have_the_distribution_of_their_arrivals(monkeypatch, indicator, tau):
    """Gaussian sums against the arrivals themselves, about 1000 in the window of each of 2000 elements."""
    start, stop = arrivals.window(tau, arrivals.INDICATORS[indicator])
    log_rate = torch.full((2000,), math.log(1000 / (stop - start)), dtype=torch.float64)
    settings = {"temperature": tau, "indicator": indicator}
    monkeypatch.setattr(arrivals, "MAX_WINDOW_ARRIVALS", math.inf)
    monkeypatch.setattr(arrivals, "cpu_sampler", lambda: _arrivals_cpu)  # the compiled one has a maximum
    exact = value_and_slope(log_rate, generator=seeded(0), **settings)
    monkeypatch.setattr(arrivals, "MAX_WINDOW_ARRIVALS", 10.0)
    ours = value_and_slope(log_rate, generator=seeded(1), **settings)
    for a, b in zip(ours, exact):
        assert stats.ks_2samp(a, b).pvalue > 1e-4
    # Fisher's transform of a correlation has standard deviation 1 / sqrt(n)
    dependence = [math.atanh(np.corrcoef(*pair)[0, 1]) for pair in (ours, exact)]
    assert abs(dependence[0] - dependence[1]) < SCORE * math.sqrt(2 / 2000)


@pytest.mark.parametrize("expected", [5.0, 480.0])
def test_compiled_draws_have_the_law_of_those_in_numpy(monkeypatch, expected):
    """Expected arrivals before the window below and above MAX_EARLY_ARRIVALS; 480 is just below MAX_WINDOW_ARRIVALS."""
    pytest.importorskip("numba")
    from spikevae.distributions import _arrivals_numba

    start, stop = arrivals.window(0.3, arrivals.INDICATORS["cubic"])
    log_rate, drawn = torch.full((20_000,), math.log(expected / (stop - start)), dtype=torch.float64), []
    for seed, sampler in enumerate((_arrivals_numba, _arrivals_cpu)):
        monkeypatch.setattr(arrivals, "cpu_sampler", lambda sampler=sampler: sampler)
        drawn.append(value_and_slope(log_rate, temperature=0.3, indicator="cubic", generator=seeded(seed)))
    for a, b in zip(*drawn):
        assert stats.ks_2samp(a.round(5), b.round(5)).pvalue > 1e-4


def test_tables_of_powers_are_poisson():
    """What a column gives, added up over columns, is the probability of each count."""
    pytest.importorskip("numba")
    from spikevae.distributions import _arrivals_numba

    first, shift, share, alias = _arrivals_numba.alias_tables()
    for power, start in enumerate(first):
        n_columns = 1 << (64 - int(shift[power]))
        column, kept = np.arange(n_columns), share[start : start + n_columns] / 2**32
        law = np.zeros(alias[start - 1] + n_columns + 1)
        np.add.at(law, alias[start - 1] + column, kept / n_columns)
        np.add.at(law, alias[start : start + n_columns], (1 - kept) / n_columns)
        truth = stats.poisson.pmf(np.arange(len(law)), 2.0**power)
        assert np.abs(law - truth).sum() < 1e-9 and abs(truth.sum() - 1) < 1e-11


@pytest.mark.parametrize("mean", [2.5, 7.3, 63.99, 64.0, 300.5, 5000.2, 20_000.0])
def test_early_counts_are_poisson(mean):
    """Chi-square over some 40 equally likely intervals; 100,000 draws show an error of half a percent at mean 2.5."""
    pytest.importorskip("numba")
    from spikevae.distributions import _arrivals_numba as sampler

    z, log_rate = np.zeros(100_000), np.full(100_000, math.log(mean / 0.9))
    states = np.random.default_rng(1).integers(0, 2**63, (-(-len(z) // sampler.BLOCK), 4)).astype(np.uint64)
    sampler._early(log_rate, z, sampler.BLOCK, states, 0.0, 0.9, sampler.alias_tables())
    edges = np.unique(stats.poisson.ppf(np.linspace(0.001, 0.999, 40), mean))
    expected = np.diff([0, *stats.poisson.cdf(edges, mean), 1]) * len(z)
    seen = np.histogram(z, [-np.inf, *(edges + 0.5), np.inf])[0]
    assert stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(expected) - 1) > 1e-4


def test_draws_with_numpy_where_numba_does_not_load(monkeypatch):
    """It refuses to be imported beside a newer NumPy."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "spikevae.distributions._arrivals_numba", raising=False)
    monkeypatch.delattr(distributions, "_arrivals_numba", raising=False)
    arrivals.cpu_sampler.cache_clear()
    try:
        assert arrivals.cpu_sampler() is _arrivals_cpu
        assert relaxed_counts(torch.zeros(5), temperature=0.5, generator=seeded(0)).shape == (5,)
    finally:
        arrivals.cpu_sampler.cache_clear()
