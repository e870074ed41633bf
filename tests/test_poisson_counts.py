"""Poisson counts from the compiled tables."""

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy import stats

from spikevae.distributions._random import poisson_counts


@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.9, 1.99, 2.01, 7.3, 100.5, 5000.0, 9000.0])
def test_counts_drawn_fast_are_poisson(rate):
    """Chi-square against SciPy's distribution, where rates change from one way of drawing to another."""
    n, law = 100_000, stats.poisson(np.float32(rate))
    z = poisson_counts(torch.full((n,), rate), seeded(1)).numpy()
    low, high = int(law.ppf(100 / n)), int(law.isf(100 / n)) + 1
    seen = np.bincount(np.clip(z.astype(int), low, high) - low, minlength=high - low + 1)
    p = np.array([law.cdf(low), *law.pmf(np.arange(low + 1, high)), law.sf(high - 1)])
    assert (z == z.round()).all() and stats.chisquare(seen, n * p).pvalue > 1e-4


def test_counts_of_impossible_rates_stay_what_they_are():
    z = poisson_counts(torch.tensor([[np.nan, np.inf, 0.0, 1e20]]), seeded())
    assert z.isnan()[0, 0] and z[0, 1:].tolist() == [np.inf, 0.0, torch.tensor(1e20).item()]
