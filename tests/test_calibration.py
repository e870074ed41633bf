"""Simulation-based calibration of the samplers: ranks of parameters in their posteriors are uniform (p > 1e-3)."""

import numpy as np
import pytest
import torch
from helpers import T, seeded
from scipy import stats

from spikevae.distributions import LAWS, Categorical

CENTRE = (0.5, -0.2)
"""Mean of the prior of the first and of the second parameter of a distribution."""


def log_probability(law, z, values):
    """Log probability of codes (..., 1) given the values of the parameters, (points,) each: (..., points)."""
    if law is Categorical:  # two units, one of which is active
        return law(torch.stack([values[0], -values[0]], -1)).log_prob(torch.stack([z, 1 - z], -1)).sum(-1)
    return law(*values).log_prob(z)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_samplers_are_calibrated(law, which):
    """Simulation-based calibration: a parameter from its prior, six codes of it, the rank of the parameter in its
    posterior by `log_prob`, which tests/test_laws.py compares with SciPy: uniform over 600 simulations, p > 1e-3.

    A dispersion, scale or rate that is 20 % off in the sampler moves the ranks to p < 1e-6.
    """
    if which >= len(law.prior_params):
        return
    centre = CENTRE[: len(law.prior_params)]
    n_simulations, n_codes, spread = 600, 6, 0.7
    rng = np.random.default_rng(7)
    theta = centre[which] + spread * rng.standard_normal(n_simulations)
    values = [T(theta if i == which else np.full(n_simulations, c)) for i, c in enumerate(centre)]
    if law is Categorical:
        z = law(torch.stack([values[0], -values[0]], -1)).sample((n_codes,), generator=seeded(11))[..., 0]
    else:
        z = law(*values).sample((n_codes,), generator=seeded(11))
    grid = centre[which] + spread * np.linspace(-5, 5, 161)
    log_posterior = np.tile(-0.5 * ((grid - centre[which]) / spread) ** 2, (n_simulations, 1))
    arguments = [T(grid if i == which else np.full_like(grid, c)) for i, c in enumerate(centre)]
    for codes in z:
        log_posterior = log_posterior + log_probability(law, codes[:, None], arguments).numpy()
    w = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
    cumulative = np.concatenate([np.zeros((n_simulations, 1)), np.cumsum(0.5 * (w[:, 1:] + w[:, :-1]), 1)], 1)
    ranks = [np.interp(t, grid, c / c[-1]) for t, c in zip(theta, cumulative)]
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3
