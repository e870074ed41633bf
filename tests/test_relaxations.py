"""Relaxed samples of every law: their means, gradients and limits."""

import math

import numpy as np
import pytest
import torch
from helpers import SCORE, T, seeded
from scipy import stats

from spikevae.distributions import (
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    GumbelPoisson,
    NegativeBinomial,
    Poisson,
    ZeroInflatedPoisson,
)
from spikevae.distributions.relaxations import soft_threshold

# Relaxed samples ---------------------------------------------------------------------------------------------

RELAXED = {
    "negative binomial": (NegativeBinomial, [0.4, 0.3], "cubic"),
    "negative binomial, sigmoid": (NegativeBinomial, [0.4, 0.3], "sigmoid"),
    "negative binomial, gumbel": (NegativeBinomial, [0.4, 0.3], "gumbel"),
    "poisson, gumbel": (Poisson, [0.4], "gumbel"),
    "zero-inflated": (ZeroInflatedPoisson, [0.8, -0.6], "cubic"),
    "zero-inflated, sigmoid": (ZeroInflatedPoisson, [0.8, 0.6], "sigmoid"),
    "binomial, rare": (Binomial, [-1.5], "cubic"),
    "binomial, likely": (Binomial, [1.0], "quintic"),
    "conway-maxwell": (ConwayMaxwellPoisson, [1.0, -0.6], "cubic"),
    "conway-maxwell, regular": (ConwayMaxwellPoisson, [0.2, 0.9], "linear"),
    "conway-maxwell, large": (ConwayMaxwellPoisson, [5.0, -0.3], "cubic"),
    "categorical": (Categorical, [0.3], "cubic"),
}


@pytest.mark.parametrize("case", RELAXED)
def test_relaxed_means_and_their_gradients(case):
    """Mean and pathwise gradient of the mean, within 4.5 standard errors of the closed form.

    At temperature 0.5 where the relaxation keeps the mean; at 0.05 with 1 % more for those that do in the limit only.
    """
    law, parameters, indicator = RELAXED[case]
    keeps = indicator not in ("sigmoid", "gumbel") and law is not Categorical
    temperature, slack, n = (0.5, 0.0, 60_000) if keeps else (0.05, 0.01, 60_000)
    leaves = [T(np.full((n, 1), v)).requires_grad_() for v in parameters]
    inputs = [torch.cat([v, -v], -1) for v in leaves] if law is Categorical else leaves
    z = law(*inputs).relaxed(temperature=temperature, indicator=indicator).rsample(generator=seeded(0))[:, :1]
    gradients = torch.autograd.grad(z.sum(), leaves)
    exact = [T([v]).requires_grad_() for v in parameters]
    mean = law(*[torch.cat([v, -v]) for v in exact] if law is Categorical else exact).mean[:1]
    assert abs(z.mean() - mean) < SCORE * z.std() / math.sqrt(n) + slack * mean
    for ours, truth in zip(gradients, torch.autograd.grad(mean.sum(), exact, allow_unused=True)):
        truth = torch.zeros(1, dtype=torch.float64) if truth is None else truth
        assert abs(ours.mean() - truth) < SCORE * ours.std() / math.sqrt(n) + slack * (1 + abs(truth))


@pytest.mark.parametrize("case", RELAXED)
def test_relaxed_counts_tend_to_counts(case):
    """At temperature 0.002 nearly all are within 0.01 of an integer, and their variance is that of the counts."""
    law, parameters, indicator = RELAXED[case]
    if "large" in case:
        return  # a Gaussian of that mean and variance
    n = 20_000
    q = law(*(T(np.full((n, 1), v)) for v in parameters))
    if law is Categorical:
        q = law(T([[0.3, -0.3]]).expand(n, 2))
    z = q.relaxed(temperature=0.002, indicator=indicator).rsample(generator=seeded(1))[:, 0]
    assert ((z - z.round()).abs() > 0.01).double().mean() < 0.03
    hard = q.sample(generator=seeded(2))[:, 0]
    spread = ((hard - hard.mean()) ** 2).std() / math.sqrt(n)
    assert abs(z.var() - q.variance[0, 0]) < SCORE * spread + 0.01


def test_gumbel_counts_are_poisson():
    """Chi-square of rounded counts at a low temperature."""
    z = GumbelPoisson(T([0.7]).expand(20_000), 0.001).rsample(generator=seeded(0)).round()
    seen = np.bincount(z.int().numpy(), minlength=8)[:8]
    p = stats.poisson(math.exp(0.7)).pmf(np.arange(8))
    assert stats.chisquare(np.append(seen, 20_000 - seen.sum()), 20_000 * np.append(p, 1 - p.sum())).pvalue > 1e-3


@pytest.mark.parametrize("indicator", ["sigmoid", "linear", "cubic", "quintic", "cosine"])
@pytest.mark.parametrize("p", [0.0, 1e-6, 0.03, 0.5, 0.8, 1.0])
def test_soft_thresholds_keep_the_probability(p, indicator):
    """Over a fine grid of u: the mean is p and the mean slope 1, at temperatures up to 1 and beyond."""
    width = min(p, 1 - p) or 1e-3
    u = T(np.concatenate([p + 2 * width * (np.arange(200_000) + 0.5) / 100_000 - 2 * width]))
    for temperature in (0.1, 1.0, 3.0):
        probability = T(p).requires_grad_()
        b = soft_threshold(probability, u, temperature=temperature, indicator=indicator)
        assert ((b >= 0) & (b <= 1)).all()
        if 0 < p < 1:
            (slope,) = torch.autograd.grad(b.sum(), probability)
            step = 4 * width / 200_000
            assert (b.sum() * step).item() == pytest.approx(2 * width, rel=1e-4)
            assert (slope * step).item() == pytest.approx(1, rel=1e-3)


def test_relaxations_refuse_what_they_cannot_draw_with():
    for law in (NegativeBinomial, ZeroInflatedPoisson, Binomial, ConwayMaxwellPoisson, Categorical):
        q = law(*(torch.zeros(2) for _ in law.prior_params))
        with pytest.raises(ValueError, match="temperature is 0"):
            q.relaxed(temperature=0.0, indicator="cubic").rsample(generator=seeded(0))
        if law is not Categorical:  # where no indicator is used
            with pytest.raises(ValueError, match="unknown indicator 'cubical'"):
                q.relaxed(temperature=0.1, indicator="cubical")


def test_the_sigmoid_is_too_soft_for_slots():
    """What the relaxed binomial says of itself, at temperature 1; 400,000 draws see 2 % of mean and slope."""
    for logit, ratio in ((-6.0, 1.32), (0.0, 1.0)):
        x = torch.full((400_000,), logit, requires_grad=True)
        z = Binomial(x).relaxed(temperature=1.0, indicator="sigmoid").rsample(generator=seeded(0))
        (slope,) = torch.autograd.grad(z.sum(), x)
        law = Binomial(torch.tensor(logit))
        assert float(z.detach().mean() / law.mean) == pytest.approx(ratio, rel=0.03)
        if logit == 0:
            assert float(slope.mean() / law.variance) == pytest.approx(0.46, rel=0.05)
