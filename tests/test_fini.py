"""Finite-order exact gradients through counts, against enumeration in float64."""

import math

import numpy as np
import pytest
import torch
from helpers import T, seeded
from scipy import stats

from spikevae.distributions import (
    LAWS,
    Bernoulli,
    Binomial,
    Categorical,
    ConwayMaxwellPoisson,
    NegativeBinomial,
    Poisson,
    ZeroInflatedPoisson,
)
from spikevae.distributions._fini import MIN_VARIANCE, binomial_weight, negative_binomial_weights, poisson_weight
from spikevae.gradients import fini_counts, fini_from_moments

# name: law of a vector of parameters, its values at the test, and one more than the largest count enumerated
ENUMERATED = {
    "poisson rare": (Poisson, [math.log(0.02)], 30),
    "poisson": (Poisson, [math.log(3.0)], 80),
    "poisson many": (Poisson, [math.log(40.0)], 250),
    "bernoulli": (Bernoulli, [-0.7], 2),
    "binomial rare": (Binomial, [-3.0], 9),
    "binomial likely": (Binomial, [1.3], 9),
    "negative binomial": (NegativeBinomial, [0.4, 0.9], 400),
    "negative binomial, tight": (NegativeBinomial, [1.2, 6.0], 100),
    "zero-inflated": (ZeroInflatedPoisson, [0.8, -0.4], 60),
    "zero-inflated rare": (ZeroInflatedPoisson, [-2.5, 0.9], 30),
    "conway-maxwell": (ConwayMaxwellPoisson, [1.0, -0.6], 128),
    "conway-maxwell, regular": (ConwayMaxwellPoisson, [0.2, 0.9], 60),
}


def probabilities(law, parameters, size):
    """Counts (size,) and their probabilities, differentiable in the parameters; the law's own, in float64."""
    z = torch.arange(size, dtype=torch.float64)
    return z, law(*parameters).log_prob(z).exp()


def weights(law, parameters, z, degree):
    """Gradient of the count by each parameter, at each of the counts z."""
    rows = [p.detach().expand_as(z).clone().requires_grad_() for p in parameters]
    return torch.autograd.grad(law(*rows).fini(z, degree=degree).sum(), rows)


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("name", ENUMERATED)
def test_exact_for_monomials_up_to_the_degree_and_of_least_norm(name, degree):
    """E w(z) d z^(d - 1) is the derivative of E z^d for d up to the degree, and not for the next one; and w is equal to
    its projection, in the norm of the counts, on polynomials below the degree, found by least squares."""
    law, values, size = ENUMERATED[name]
    if degree > law.fini_degree:
        return
    parameters = [T(v).requires_grad_() for v in values]
    z, p = probabilities(law, parameters, size)
    found = weights(law, parameters, z, degree)
    basis, root = (z / z.max())[:, None] ** torch.arange(degree), p.detach().sqrt()
    for parameter, w in zip(parameters, found):
        errors = []
        for d in range(1, degree + 2):
            (expected,) = torch.autograd.grad((p * z**d).sum(), parameter, retain_graph=True)
            size_of_it = (p * w.abs() * d * z ** (d - 1)).sum().detach()
            errors.append(float(((p * w * d * z ** (d - 1)).sum() - expected).detach().abs() / size_of_it))
        assert max(errors[:degree]) < 1e-10, (degree, errors)
        if size > degree + 1 and law is not Bernoulli:
            assert errors[degree] > 1e-8
        projected = basis @ torch.linalg.lstsq(root[:, None] * basis, (root * w)[:, None], driver="gelsd").solution
        torch.testing.assert_close(root * projected[:, 0], root * w, rtol=1e-6, atol=1e-8 * float((root * w).norm()))


def test_published_variances():
    """Poisson: rate / 4, plus 1 / 72 at degree 3, plus 1 / (96 rate) at degree 4."""
    for rate in (0.05, 1.0, 20.0):
        z = torch.arange(150, dtype=torch.float64)
        p = T(stats.poisson(rate).pmf(z.numpy()))
        for degree, extra in ((2, 0.0), (3, 1 / 72), (4, 1 / 72 + 1 / (96 * rate))):
            w = poisson_weight(z, T(rate).expand_as(z), degree)
            assert float((p * (w - rate).square()).sum()) == pytest.approx(rate / 4 + extra, rel=1e-9)


def test_degree_two_is_the_trapezoid_of_the_finite_difference():
    """rate E [f'(z) + f'(z + 1)] / 2 = E w(z) f'(z), for any f; shifted by one spike, rate P(z) = (z + 1) P(z + 1)."""
    rate, z = 2.3, torch.arange(120, dtype=torch.float64)
    p, slope = T(stats.poisson(rate).pmf(z.numpy())), lambda z: torch.cos(0.7 * z) + 0.1 * z
    ours = (p * poisson_weight(z, T(rate).expand_as(z), 2) * slope(z)).sum()
    assert float(ours) == pytest.approx(float((p * rate * 0.5 * (slope(z) + slope(z + 1))).sum()), rel=1e-12)


def test_degree_four_falls_back_where_counts_hardly_vary():
    rates = T([0.9 * MIN_VARIANCE, 1.1 * MIN_VARIANCE])
    three, four = (poisson_weight(torch.ones(2, dtype=torch.float64), rates, degree) for degree in (3, 4))
    assert three[0] == four[0] and three[1] != four[1]
    law = ZeroInflatedPoisson(rates.log(), T([-30.0, -30.0]))  # the general weights do the same
    parameters = [law.log_rate, law.logit_off]
    torch.testing.assert_close(weights(ZeroInflatedPoisson, parameters, torch.ones_like(rates), 4)[0], four)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_float32_from_rare_to_many(degree):
    """Weights in float32 are those in float64, within 1e-5 of their root mean square over the counts."""
    for rate in (1e-6, 1e-4, 2e-2, 0.3, 0.9, 1.1, 5.0, 100.0, 1e4):
        law = stats.poisson(rate)
        z = torch.unique(T(np.append(law.ppf(np.linspace(1e-3, 1 - 1e-3, 41)), [0, 1, 2, 3])))
        p = T(law.pmf(z.numpy()))
        log_rate = T(math.log(rate)).float().double().expand_as(z)
        r = torch.zeros_like(z) + math.log(3.0)
        narrow = [x.float() for x in (z, log_rate, r)]
        pairs = [(poisson_weight(z, log_rate.exp(), degree), poisson_weight(narrow[0], narrow[1].exp(), degree))]
        pairs += zip(negative_binomial_weights(z, log_rate, r, degree), negative_binomial_weights(*narrow, degree))
        if rate <= 5:
            slots = z[z <= 8]
            logit = torch.logit(log_rate.exp() / 8)[: len(slots)]
            for x, counts in ((logit, slots), (-logit, 8 - slots)):
                single = binomial_weight(counts.float(), x.float(), 8, degree)
                pairs.append((binomial_weight(counts, x.float().double(), 8, degree), single))
        for exact, single in pairs:
            assert single.isfinite().all()
            error = ((single.double() - exact).square() @ p[: len(exact)]).sqrt()
            assert error < 1e-5 * (exact.square() @ p[: len(exact)]).sqrt(), (rate, degree)


def test_categorical_is_exact_for_quadratic_functions():
    logit = T([0.3, -0.8, 1.1, 0.0]).requires_grad_()
    matrix = torch.randn(4, 4, generator=seeded(), dtype=torch.float64)
    f = lambda z: ((z @ matrix) * z).sum(-1) + z @ matrix[0]
    codes = torch.eye(4, dtype=torch.float64)
    p = Categorical(logit).mean
    (expected,) = torch.autograd.grad((p * f(codes)).sum(), logit)
    rows = logit.detach().expand(4, -1).clone().requires_grad_()
    (each,) = torch.autograd.grad(f(Categorical(rows).fini(codes)).sum(), rows)
    torch.testing.assert_close(p.detach() @ each, expected)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.is_count])
def test_counts_keep_their_values_and_take_batch_dimensions(name):
    """Samples in front, and a batch dimension of vmap; two thousand draws have the mean's gradient."""
    law = LAWS[name]
    parameters = [torch.full((3, 16), 0.2 + 0.1 * i, requires_grad=True) for i in range(len(law.prior_params))]
    q = law(*parameters)
    z = q.sample((2000,), generator=seeded())
    for degree in range(2, law.fini_degree + 1):
        ours = q.fini(z, degree=degree)
        assert torch.equal(ours, z) and ours.dtype == z.dtype
        found = torch.autograd.grad(ours.sum() / 2000, parameters, retain_graph=True)
        expected = torch.autograd.grad(q.mean.sum(), parameters, allow_unused=True, retain_graph=True)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a.mean(), torch.zeros(()) if b is None else b.mean(), rtol=0.03, atol=0.03)
    one = lambda z, *p: law(*p, validate_args=False).fini(z, degree=law.fini_degree)
    batched = torch.func.vmap(one)(z[:3, 0], *parameters)
    torch.testing.assert_close(batched, z[:3, 0])
    found = torch.autograd.grad(batched.sum(), parameters)
    single = torch.autograd.grad(one(z[0, 0], *(p[0] for p in parameters)).sum(), parameters)
    for a, b in zip(found, single):
        torch.testing.assert_close(a[0], b[0])


PYTORCH = torch.distributions


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_counts_of_pytorchs_distributions(degree):
    """The same gradients as those of this package, by the parameters that PyTorch's have."""
    log_rate, z = T([0.2, -1.0]).requires_grad_(), T([3.0, 0.0])
    cases = [
        (PYTORCH.Poisson(log_rate.exp()), Poisson(log_rate)),
        (PYTORCH.Binomial(8, logits=log_rate), Binomial(log_rate)),
        (PYTORCH.Binomial(8, probs=torch.sigmoid(log_rate)), Binomial(log_rate)),
        (PYTORCH.NegativeBinomial(T(2.0), logits=log_rate - math.log(2)), NegativeBinomial(log_rate, T(math.log(2.0)))),
    ]
    for theirs, ours in cases:
        found, expected = (
            torch.autograd.grad(fini_counts(z, law, degree).sum(), log_rate)[0] for law in (theirs, ours)
        )
        torch.testing.assert_close(found, expected)
    if degree == 2:  # others by mean and variance
        geometric = fini_counts(z, PYTORCH.Geometric(logits=-log_rate)).sum()
        twin = fini_counts(z, NegativeBinomial(log_rate, T(0.0))).sum()
        torch.testing.assert_close(*(torch.autograd.grad(x, log_rate)[0] for x in (geometric, twin)))


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_beta_binomial_by_its_moments(degree):
    """Exact for monomials, by enumeration with SciPy's probabilities and a central difference."""
    n, shapes = 7, T([0.3, 0.9])
    z, leaf = torch.arange(n + 1, dtype=torch.float64), shapes.clone().requires_grad_()
    rows = leaf.expand(n + 1, 2)

    def moment(k):
        a, b = rows.exp().unbind(-1)
        return torch.stack([(n - j) * (a + j) / (a + b + j) for j in range(k)]).prod(0)

    found = fini_from_moments(z, moment, degree)
    w = torch.stack([torch.autograd.grad(found[i], leaf, retain_graph=True)[0] for i in range(n + 1)])
    pmf = lambda at: T(stats.betabinom(n, *np.exp(at.numpy())).pmf(z.numpy()))
    for k in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[k] = 1e-5
        for d in range(1, degree + 1):
            expected = (pmf(shapes + step) - pmf(shapes - step)) @ z**d / 2e-5
            assert float(pmf(shapes) @ (w[:, k] * d * z ** (d - 1))) == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Poisson(torch.zeros(1)).fini(torch.ones(1), degree=5), "degree is 5: weights have degree 2, 3 or 4"),
        (lambda: Bernoulli(torch.zeros(1)).fini(torch.ones(1), degree=3), "use degree=2"),
        (lambda: LAWS["gaussian"](torch.zeros(1), torch.zeros(1)).fini(torch.ones(1)), "pathwise gradient"),
        (lambda: fini_counts(T([0.5]), Poisson(T([0.0]))), r"0\.5, which is no count"),
        (lambda: fini_counts(T([-1.0]), Poisson(T([0.0]))), "non-negative integers"),
        (lambda: fini_counts(T([math.nan]), Poisson(T([0.0]))), "no count"),
        (lambda: fini_counts(T([1.0]), PYTORCH.Bernoulli(T([0.5])), 3), "use degree=2"),
        (lambda: fini_counts(T([1.0]), PYTORCH.Binomial(2, T([0.5])), 4), "use degree=3"),
        (lambda: fini_counts(T([1.0]), PYTORCH.Geometric(T([0.5])), 3), "use fini_from_moments"),
        (lambda: fini_from_moments(T([1.0]), lambda k: T([1.0]), 1), "degree is 1"),
    ],
)
def test_errors_say_what_to_use(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
