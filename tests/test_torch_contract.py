"""Laws keep the contract of `torch.distributions`: entropy, rsample, expand, Independent, divergences, validation."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import T, seeded
from law_cases import CASES, parameters_of
from scipy import integrate, stats
from torch import distributions as theirs
from torch.distributions import Independent, kl_divergence

from spikevae.distributions import (
    LAWS,
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    GaussianExp,
    GumbelPoisson,
    NegativeBinomial,
    NegativeBinomialFree,
    Poisson,
    RelaxedPoisson,
)


def law_of(name, *shape, dtype=torch.float64, seed=0):
    """A law with random parameters that require gradients."""
    kind = LAWS[name]
    return kind(
        **{key: value.requires_grad_() for key, value in parameters_of(kind, *shape, dtype=dtype, seed=seed).items()}
    )


def entropy_of_counts(pmf):
    return float(-(pmf[pmf > 0] * np.log(pmf[pmf > 0])).sum())


# Entropy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_entropy_is_minus_the_mean_log_probability(name):
    """By enumeration of the reference, or quadrature of its density."""
    law, parameters, reference, _ = CASES[name]
    ours = law(**{key: T(value) for key, value in parameters.items()})
    if ours.is_count:
        expected = entropy_of_counts(reference.pmf(np.arange(2000.0)))
    else:
        mass = float(reference.cdf(0)) if name.startswith("rectified") else 0.0
        density = lambda z: -math.exp(reference.logpdf(z)) * reference.logpdf(z)
        low, middle = (1e-12, 1.0) if ours.has_rate else (-40.0, float(ours.loc))
        ends = (low, 1e-3, middle, 40.0) if ours.has_rate else (low, middle, 40.0)
        with np.errstate(all="ignore"):
            pieces = [integrate.quad(density, a, b, epsabs=1e-12, limit=400)[0] for a, b in pairwise(ends)]
        expected = sum(pieces) - (mass * math.log(mass) if mass else 0.0)
    found = float(ours.entropy())
    assert found == pytest.approx(expected, rel=2e-6 if law is ConwayMaxwellPoisson else 1e-7)
    single = law(**{key: torch.tensor(value, dtype=torch.float32) for key, value in parameters.items()})
    assert float(single.entropy()) == pytest.approx(expected, rel=1e-4) and single.entropy().dtype == torch.float32


@pytest.mark.parametrize("rate", [1e-8, 39.9, 40.1, 1e3, 1e6])
def test_entropy_of_poisson_counts_at_all_rates(rate):
    middle = np.arange(max(0, rate - 40 * rate**0.5 - 40), rate + 40 * rate**0.5 + 40).astype(int)
    expected = entropy_of_counts(stats.poisson(rate).pmf(middle))
    assert float(Poisson(T(math.log(rate))).entropy()) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("mean", "dispersion"),
    [(1e-3, 1e-3), (1e-3, 1e4), (2.0, 1e-3), (2.0, 1.0), (2.0, 1e4), (1e3, 0.3), (1e3, 40.0), (1e3, 1e4)],
)
def test_entropy_of_negative_binomial_counts_at_all_dispersions(mean, dispersion):
    n = np.arange(int(2 * mean + 60 * (1 + mean / dispersion) + 2000))
    expected = entropy_of_counts(stats.nbinom(dispersion, dispersion / (dispersion + mean)).pmf(n))
    law = NegativeBinomial(T(math.log(mean)), T(math.log(dispersion)))
    assert float(law.entropy()) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", LAWS)
def test_entropy_is_differentiable(name):
    law = law_of(name, 3)
    parameters = [getattr(law, key) for key in law.prior_params]
    moved = lambda *values: type(law)(*values, validate_args=False).entropy()
    assert torch.autograd.gradcheck(moved, [p.detach().requires_grad_() for p in parameters], eps=1e-5, atol=1e-5)


def test_entropy_of_a_choice_is_that_of_torch():
    logit = torch.tensor([[0.3, -1.0, 2.0, 0.0]], dtype=torch.float64)
    expected = theirs.OneHotCategorical(logits=logit).entropy()
    torch.testing.assert_close(Independent(Categorical(logit), 1).entropy(), expected)
    assert Categorical(torch.tensor([0.0, -torch.inf]), validate_args=False).entropy().isfinite().all()


def test_entropy_without_counts_is_zero():
    assert float(Poisson(torch.tensor(-200.0)).entropy()) == 0
    assert float(NegativeBinomial(torch.tensor(-200.0), torch.tensor(0.0)).entropy()) == 0


# Samples with gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_rsample_draws_what_sample_draws_and_has_a_gradient(name):
    law = law_of(name, 2, 3)
    code = law.rsample((5,), generator=seeded(0))
    assert code.shape == (5, 2, 3) and code.requires_grad and law.has_rsample
    assert torch.equal(code.detach(), law.sample((5,), generator=seeded(0)))
    code.square().sum().backward()
    assert all(getattr(law, key).grad.isfinite().all() for key in law.prior_params)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.is_count and law.independent])
def test_the_gradient_of_rsample_is_that_of_the_second_moment(name):
    """E z^2 = variance + mean^2, whose gradient autograd knows; 40,000 draws, five standard errors."""
    law = law_of(name)
    parameters = [getattr(law, key) for key in law.prior_params]
    exact = torch.autograd.grad(law.variance + law.mean.square(), parameters)
    rows = [p.detach().expand(40_000).clone().requires_grad_() for p in parameters]
    code = type(law)(*rows, validate_args=False).rsample(generator=seeded(1))
    for found, expected in zip(torch.autograd.grad(code.square().sum(), rows), exact):
        assert float((found.mean() - expected).abs() / (found.std() / 200)) < 5


@pytest.mark.parametrize("name", LAWS)
def test_without_a_generator_the_numbers_are_those_of_torch(name):
    law = law_of(name, 3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = law.rsample((30,)), law.rsample((30,))
        torch.manual_seed(1)
        assert torch.equal(first, law.rsample((30,))) and not torch.equal(first, second)


# Independent, expand, divergences, validation -----------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_the_base_of_independent_and_expands(name):
    law, prior = law_of(name, 2, 3), law_of(name, 2, 3, seed=1)
    joint, joint_prior = Independent(law, 1), Independent(prior, 1)
    code = joint.rsample((4,))
    assert joint.has_rsample and code.shape == (4, 2, 3)
    torch.testing.assert_close(joint.log_prob(code.detach()), law.log_prob(code.detach()).sum(-1))
    torch.testing.assert_close(joint.entropy(), law.entropy().sum(-1))
    torch.testing.assert_close(kl_divergence(joint, joint_prior), kl_divergence(law, prior).sum(-1))
    wide = joint.expand((7, 2))
    assert wide.batch_shape == (7, 2) and wide.rsample().shape == (7, 2, 3)
    torch.testing.assert_close(law.expand((7, 2, 3)).entropy()[5], law.entropy())


def one_hot_codes(n):
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize(
    ("own", "other", "codes"),
    [
        (Binomial(T([0.3])), theirs.Binomial(8, logits=T([-1.0])), T(np.arange(9.0))[:, None]),
        (
            GaussianExp(T([0.3]), T([0.1])),
            theirs.LogNormal(T([0.1]), T([0.8])),
            None,
        ),
        (Categorical(T([0.3, 1.0, -2.0])), theirs.OneHotCategorical(logits=T([0.0, 0.4, 1.0])), one_hot_codes(3)),
    ],
)
def test_divergences_from_the_same_law_of_torch(own, other, codes):
    """Summed over all codes, or integrated over the logarithm of the code."""
    for q, p in ((own, other), (other, own)):
        if codes is None:
            y = T(np.linspace(-20, 20, 100_001))[:, None]
            z, weight = y.exp(), y.exp() * float(y[1] - y[0])
            terms = q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z)) * weight
        else:
            log_q, log_p = (law.log_prob(codes).reshape(len(codes), -1).sum(-1) for law in (q, p))
            terms = log_q.exp() * (log_q - log_p)
        assert float(kl_divergence(q, p).sum()) == pytest.approx(float(terms.sum()), rel=1e-6)


def test_divergences_of_other_sizes_say_what_to_give():
    with pytest.raises(ValueError, match=r"total_count is 7.*give torch.distributions.Binomial\(total_count=8"):
        kl_divergence(Binomial(torch.zeros(2)), theirs.Binomial(7, torch.full((2,), 0.5)))
    with pytest.raises(ValueError, match=r"among 20 units.*among 16 at most"):
        kl_divergence(theirs.OneHotCategorical(torch.ones(20)), Categorical(torch.zeros(20)))


def test_a_rate_of_zero_has_a_divergence():
    silent = kl_divergence(theirs.Poisson(torch.tensor([0.0])), Poisson(torch.tensor([0.7]).log()))
    torch.testing.assert_close(silent, torch.tensor([0.7]))


def test_the_two_negative_binomial_laws_have_divergences_from_each_other():
    q, p = (T([0.3]), T([0.4])), (T([1.0]), T([-0.5]))
    expected = kl_divergence(NegativeBinomialFree(*q), NegativeBinomialFree(*p))
    torch.testing.assert_close(kl_divergence(NegativeBinomial(*q), NegativeBinomialFree(*p)), expected)
    torch.testing.assert_close(kl_divergence(NegativeBinomialFree(*q), NegativeBinomial(*p)), expected)


@pytest.mark.parametrize("name", LAWS)
def test_arguments_and_codes_are_validated_as_by_torch(name):
    kind, n = LAWS[name], len(LAWS[name].prior_params)
    with pytest.raises(ValueError, match=rf"Expected parameter {kind.prior_params[0]}"):
        kind(torch.full((2,), torch.nan), *[torch.zeros(2)] * (n - 1))
    unchecked = kind(torch.full((2,), torch.nan), *[torch.zeros(2)] * (n - 1), validate_args=False)
    assert unchecked.log_prob(torch.ones(2)).shape == (2,)
    law = kind(*[torch.zeros(2)] * n)
    with pytest.raises(ValueError, match="not broadcastable"):
        law.log_prob(torch.zeros(3))
    if law.has_rate:
        with pytest.raises(ValueError, match="within the support"):
            law.log_prob(torch.full((2,), -0.5))


@pytest.mark.parametrize("relaxed", [RelaxedPoisson(torch.zeros(3), 0.5), GumbelPoisson(torch.zeros(3), 0.5)])
def test_relaxed_counts_keep_the_contract_but_for_their_density(relaxed):
    with torch.random.fork_rng():
        assert relaxed.expand((2, 3)).rsample((4,)).shape == (4, 2, 3)
        assert Independent(relaxed, 1).rsample().shape == (3,)
    for call in (lambda: relaxed.log_prob(torch.ones(3)), relaxed.entropy):
        with pytest.raises(NotImplementedError, match="its density is not known: use the log_prob"):
            call()
    with pytest.raises(ValueError, match="Expected parameter log_rate"):
        type(relaxed)(torch.full((3,), torch.nan), 0.5)
    assert type(relaxed)(0.0, 0.5).sample(generator=seeded(0)).shape == ()
