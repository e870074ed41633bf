"""Every law with parameters, its SciPy reference and points: the table that tests of laws go through."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from helpers import seeded
from scipy import integrate, special, stats

from spikevae.distributions import (
    Bernoulli,
    Binomial,
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


def same(ours, reference, rtol):
    np.testing.assert_allclose(ours.detach().double().numpy(), reference, rtol=rtol, atol=0)


@dataclass
class Rectified:
    """SciPy reference of max(N(loc, scale^2), 0): a mass at zero and a density above it."""

    loc: float
    scale: float

    def __post_init__(self):
        self.before = stats.norm(self.loc, self.scale)

    def logpdf(self, z):
        return np.where(z > 0, self.before.logpdf(z), np.where(z < 0, -np.inf, self.before.logcdf(0)))

    def cdf(self, z):
        return np.where(z < 0, 0.0, self.before.cdf(z))

    def moment(self, order):
        """E z^order. The factor exp(-loc^2 / 2 scale^2) is taken out, so nothing cancels in the tail."""
        a = self.loc / self.scale
        shift = max(a, 0.0)  # peak of the integrand's exponent
        f = lambda u: u**order * math.exp(a * u - u * u / 2 - (a * shift - shift**2 / 2))
        top = shift + (40 if a > -1 else 60 / -a)
        integral = integrate.quad(f, 0, top, points=[shift] if shift else None, epsabs=0, epsrel=1e-12, limit=200)[0]
        factor = math.exp((a * shift - shift**2 / 2) - a * a / 2) / math.sqrt(2 * math.pi)
        return self.scale**order * factor * integral

    def mean(self):
        return self.moment(1)

    def var(self):
        return self.moment(2) - self.moment(1) ** 2


class Enumerated:
    """SciPy-like reference of a law of counts given by its log weights, normalised over 0 to 4999."""

    n = np.arange(5000.0)

    def __init__(self, log_weights):
        w = log_weights(self.n)
        self.p = np.exp(w - special.logsumexp(w))

    def logpmf(self, z):
        return np.log(self.p[np.asarray(z, int)])

    def pmf(self, z):
        return self.p[np.asarray(z, int)]

    def sf(self, z):
        return self.p[int(z) + 1 :].sum()

    def ppf(self, q):
        return np.searchsorted(self.p.cumsum(), q)

    def mean(self):
        return self.p @ self.n

    def var(self):
        return self.p @ (self.n - self.mean()) ** 2


def zero_inflated(rate, off):
    return Enumerated(lambda n: np.log((1 - off) * stats.poisson(rate).pmf(n) + off * (n == 0) + 1e-320))


def conway_maxwell(rate, shape):
    return Enumerated(lambda n: shape * (n * math.log(rate) - special.gammaln(n + 1)))


@dataclass
class Softplus:
    """SciPy reference of log(1 + exp(N(loc, scale^2)))."""

    loc: float
    scale: float

    def __post_init__(self):
        self.before = stats.norm(self.loc, self.scale)

    def logpdf(self, z):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.before.logpdf(np.log(np.expm1(z))) - np.log(-np.expm1(-z))
        return np.where(z > 0, value, -np.inf)

    def cdf(self, z):
        with np.errstate(divide="ignore"):
            return self.before.cdf(np.log(np.expm1(z)))

    def expect(self, f):
        ends = self.loc - 15 * self.scale, self.loc + 15 * self.scale
        density = lambda y: f(np.logaddexp(0, y)) * self.before.pdf(y)
        return integrate.quad(density, *ends, points=[self.loc], epsabs=0, epsrel=1e-12, limit=400)[0]

    def mean(self):
        return self.expect(lambda z: z)

    def var(self):
        mean = self.mean()
        return self.expect(lambda z: (z - mean) ** 2)


COUNTS = np.arange(400.0)

LINE = np.linspace(-6, 9, 61)  # holds zero

LOG_SHAPE = math.log(4) * math.atanh(math.log(0.6) / math.log(4))  # before its bound, of shape 0.6

CASES = {  # name: (law, parameters, SciPy reference, points)
    "poisson 0.001": (Poisson, {"log_rate": math.log(1e-3)}, stats.poisson(1e-3), COUNTS[:20]),
    "poisson 0.05": (Poisson, {"log_rate": math.log(0.05)}, stats.poisson(0.05), COUNTS[:30]),
    "poisson 2": (Poisson, {"log_rate": math.log(2.0)}, stats.poisson(2.0), COUNTS[:60]),
    "poisson 30": (Poisson, {"log_rate": math.log(30.0)}, stats.poisson(30.0), COUNTS),
    "negative binomial 0.05": (
        NegativeBinomial,
        {"log_rate": math.log(0.05), "log_dispersion": math.log(0.3)},
        stats.nbinom(0.3, 0.3 / 0.35),
        COUNTS[:40],
    ),
    "negative binomial 4": (
        NegativeBinomial,
        {"log_rate": math.log(4.0), "log_dispersion": math.log(7.5)},
        stats.nbinom(7.5, 7.5 / 11.5),
        COUNTS[:100],
    ),
    "negative binomial free 2": (
        NegativeBinomialFree,
        {"log_rate": math.log(2.0), "log_dispersion": 0.0},
        stats.nbinom(1.0, 1 / 3),
        COUNTS[:50],
    ),
    "zero-inflated 0.1": (
        ZeroInflatedPoisson,
        {"log_rate": math.log(0.1), "logit_off": special.logit(0.2)},
        zero_inflated(0.1, 0.2),
        COUNTS[:15],
    ),
    "zero-inflated 6": (
        ZeroInflatedPoisson,
        {"log_rate": math.log(6.0), "logit_off": special.logit(0.7)},
        zero_inflated(6.0, 0.7),
        COUNTS[:60],
    ),
    "conway-maxwell irregular": (
        ConwayMaxwellPoisson,
        {"log_rate": math.log(3.0), "log_shape": LOG_SHAPE},
        conway_maxwell(3.0, 0.6),
        COUNTS[:60],
    ),
    "conway-maxwell regular": (
        ConwayMaxwellPoisson,
        {"log_rate": math.log(0.7), "log_shape": -LOG_SHAPE},
        conway_maxwell(0.7, 1 / 0.6),
        COUNTS[:20],
    ),
    "binomial 0.1": (Binomial, {"logit": special.logit(0.1 / 8)}, stats.binom(8, 0.1 / 8), COUNTS[:9]),
    "binomial 5": (Binomial, {"logit": special.logit(5 / 8)}, stats.binom(8, 5 / 8), COUNTS[:9]),
    "laplace": (Laplace, {"loc": 1.3, "log_scale": -0.5}, stats.laplace(1.3, math.exp(-0.5)), LINE + 0.01),
    "gaussian exponential": (
        GaussianExp,
        {"loc": 0.3, "log_scale": -0.7},
        stats.lognorm(math.exp(-0.7), scale=math.exp(0.3)),
        LINE[LINE > 0],
    ),
    "gaussian softplus narrow": (
        GaussianSoftplus,
        {"loc": 1.0, "log_scale": -0.7},
        Softplus(1.0, math.exp(-0.7)),
        LINE[LINE > 0],
    ),
    "gaussian softplus silent": (
        GaussianSoftplus,
        {"loc": -4.0, "log_scale": 0.0},
        Softplus(-4.0, 1.0),
        LINE[LINE > 0],
    ),
    "bernoulli 0.01": (Bernoulli, {"logit": special.logit(0.01)}, stats.bernoulli(0.01), COUNTS[:2]),
    "bernoulli 0.7": (Bernoulli, {"logit": special.logit(0.7)}, stats.bernoulli(0.7), COUNTS[:2]),
    "gaussian standard": (Gaussian, {"loc": 0.0, "log_scale": 0.0}, stats.norm(0, 1), LINE),
    "gaussian narrow": (Gaussian, {"loc": 1.3, "log_scale": -1.5}, stats.norm(1.3, math.exp(-1.5)), LINE),
    "rectified standard": (RectifiedGaussian, {"loc": 0.0, "log_scale": 0.0}, Rectified(0.0, 1.0), LINE),
    "rectified silent": (
        RectifiedGaussian,
        {"loc": -1.5, "log_scale": -0.3},
        Rectified(-1.5, math.exp(-0.3)),
        LINE,
    ),
    "rectified active": (
        RectifiedGaussian,
        {"loc": 2.0, "log_scale": 0.4},
        Rectified(2.0, math.exp(0.4)),
        LINE,
    ),
}


def parameters_of(law, *shape, seed=0, dtype=torch.float64):
    """Random parameters of moderate size."""
    draws = torch.randn(len(law.prior_params), *shape, generator=seeded(seed), dtype=dtype)
    return dict(zip(law.prior_params, 0.7 * draws))
