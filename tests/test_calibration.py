"""Simulation-based calibration of the samplers: ranks of parameters in their posteriors are uniform (p > 1e-3)."""

import numpy as np
import pytest
import torch
from helpers import T, seeded
from scipy import special, stats

from spikevae.distributions import (
    LAWS,
    Bernoulli,
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    Gaussian,
    GaussianExp,
    GaussianSoftplus,
    Laplace,
    NegativeBinomial,
    NegativeBinomialFree,
    Poisson,
    RectifiedGaussian,
    ZeroInflatedPoisson,
)
from spikevae.distributions.conway_maxwell_poisson import LOG_SHAPE_LIMIT

# Calibration -------------------------------------------------------------------------------------------------


def conway_table(z, log_rate, shape):
    n = np.arange(300.0)
    w = shape[..., None] * (n * log_rate[..., None] - special.gammaln(n + 1))
    return shape * (z * log_rate - special.gammaln(z + 1)) - special.logsumexp(w, -1)


def zip_log(z, log_rate, logit):
    off = special.expit(logit)
    with np.errstate(divide="ignore"):
        return np.log((1 - off) * stats.poisson(np.exp(log_rate)).pmf(z) + off * (z == 0))


def rectified_log(z, loc, log_scale):
    normal = stats.norm(loc, np.exp(log_scale))
    return np.where(z > 0, normal.logpdf(z), normal.logcdf(0))


def nbinom_log(z, log_rate, log_r):
    return stats.nbinom.logpmf(z, np.exp(log_r), special.expit(log_r - log_rate))


def softplus_log(z, loc, log_scale):
    return stats.norm(loc, np.exp(log_scale)).logpdf(z + np.log(-np.expm1(-z))) - np.log(-np.expm1(-z))


CALIBRATED = {  # law: (SciPy's or NumPy's log probability of z given the parameters, their values)
    Poisson: (lambda z, u: stats.poisson.logpmf(z, np.exp(u)), [0.5]),
    NegativeBinomial: (nbinom_log, [0.7, 0.2]),
    NegativeBinomialFree: (nbinom_log, [0.7, 0.2]),
    ZeroInflatedPoisson: (zip_log, [0.9, 0.2]),
    ConwayMaxwellPoisson: (
        lambda z, u, s: conway_table(z, u, np.exp(LOG_SHAPE_LIMIT * np.tanh(s / LOG_SHAPE_LIMIT))),
        [1.2, -0.3],
    ),
    Binomial: (lambda z, u: stats.binom.logpmf(z, 8, special.expit(u)), [-0.5]),
    Bernoulli: (lambda z, u: stats.bernoulli.logpmf(z, special.expit(u)), [-0.5]),
    Categorical: (lambda z, u: np.where(z > 0, special.log_expit(2 * u), special.log_expit(-2 * u)), [0.2]),
    Gaussian: (lambda z, a, s: stats.norm(a, np.exp(s)).logpdf(z), [0.3, -0.2]),
    Laplace: (lambda z, a, s: stats.laplace(a, np.exp(s)).logpdf(z), [0.3, -0.2]),
    RectifiedGaussian: (rectified_log, [0.3, -0.2]),
    GaussianSoftplus: (softplus_log, [0.3, -0.2]),
    GaussianExp: (lambda z, a, s: stats.norm(a, np.exp(s)).logpdf(np.log(z)) - np.log(z), [0.3, -0.2]),
}


def test_every_law_is_calibrated():
    assert set(CALIBRATED) == set(LAWS.values())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("law", CALIBRATED, ids=lambda law: law.name)
def test_samplers_are_calibrated(law, which):
    """Simulation-based calibration: a parameter from its prior, six codes of it, the rank of the parameter in its
    posterior by a likelihood that is not ours: uniform over 600 simulations, p > 1e-3.

    A dispersion, scale or rate that is 20 % off in the sampler moves the ranks to p < 1e-6.
    """
    log_probability, centre = CALIBRATED[law]
    if which >= len(centre):
        return
    n_simulations, n_codes, spread = 600, 6, 0.7
    rng = np.random.default_rng(7)
    theta = centre[which] + spread * rng.standard_normal(n_simulations)
    values = [T(theta if i == which else np.full(n_simulations, c)) for i, c in enumerate(centre)]
    if law is Categorical:
        z = law(torch.stack([values[0], -values[0]], -1)).sample((n_codes,), generator=seeded(11))[..., 0].numpy()
    else:
        z = law(*values).sample((n_codes,), generator=seeded(11)).numpy()
    grid = centre[which] + spread * np.linspace(-5, 5, 161)
    log_posterior = np.tile(-0.5 * ((grid - centre[which]) / spread) ** 2, (n_simulations, 1))
    arguments = [grid if i == which else np.full_like(grid, c) for i, c in enumerate(centre)]
    for codes in z:
        log_posterior = log_posterior + log_probability(codes[:, None], *arguments)
    w = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
    cumulative = np.concatenate([np.zeros((n_simulations, 1)), np.cumsum(0.5 * (w[:, 1:] + w[:, :-1]), 1)], 1)
    ranks = [np.interp(t, grid, c / c[-1]) for t, c in zip(theta, cumulative)]
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3
