"""Ensembles and Gaussian posteriors of any module: against closed forms, and what they refuse."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import draw
from scipy.optimize import brentq
from scipy.stats import norm, poisson
from sklearn.base import clone
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, OneHotCategorical, kl_divergence

from spikevae.ensembles import Ensemble, GaussianPosterior, Interrupted

BOTH = (Ensemble, GaussianPosterior)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(n, 1))
    return x, np.sin(3 * x[:, 0]) + 0.1 * rng.normal(size=n)


def line() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_gaussian_posterior_of_a_line_is_exact(beta: float) -> None:
    """One weight: the posterior is Gaussian, with the likelihood to the power beta."""
    x, y = data(20)
    s, prior = 0.8, 0.5
    precision = beta * (x**2).sum() / s**2 + 1 / prior**2
    settings = {"noise_scale": s, "prior_scale": prior, "beta": beta, "random_state": 0}
    fit = GaussianPosterior(line(), 20, n_steps=400, learning_rate=0.04, **settings).fit(x, y)
    assert fit.means_["weight"].item() == pytest.approx(beta * (x[:, 0] @ y) / s**2 / precision, rel=0.03)
    assert fit.scales_["weight"].item() == pytest.approx(precision**-0.5, rel=0.03)


def test_map_of_a_line_is_exact() -> None:
    x, y = data(20)
    s, prior, beta = 0.8, 0.5, 0.25
    precision = beta * (x**2).sum() / s**2 + 1 / prior**2
    settings = {"noise_scale": s, "prior_scale": prior, "beta": beta, "random_state": 0}
    for n_members in (1, 3):
        fit = Ensemble(line(), n_members, n_steps=400, learning_rate=0.05, **settings).fit(x, y)
        expected = beta * (x[:, 0] @ y) / s**2 / precision
        for k in range(n_members):
            assert fit.member(k).weight.item() == pytest.approx(expected, rel=1e-3)


def test_robust_location_solves_its_estimating_equation() -> None:
    """sum p(y_i)^(1 - t) (y_i - theta) = 0: outliers at 20 do not move it, but do move the mean."""
    y = np.concatenate([np.random.default_rng(0).normal(size=40), np.full(5, 20.0)])
    x = np.ones((45, 1))
    settings = {"prior_scale": math.inf, "learning_rate": 0.05, "n_steps": 300, "random_state": 0}
    robust = Ensemble(line(), 1, objective="pac_m", robustness=0.5, **settings).fit(x, y).member(0).weight.item()
    expected = brentq(lambda theta: (norm.pdf(y, theta) ** 0.5 * (y - theta)).sum(), -1, 2)
    assert robust == pytest.approx(expected, abs=1e-3)
    plain = Ensemble(line(), 1, **{**settings, "n_steps": 600}).fit(x, y).member(0).weight.item()
    assert plain == pytest.approx(y.mean(), abs=1e-2) and y.mean() > robust + 1


def test_divergence_from_the_prior() -> None:
    fit = GaussianPosterior(line(), prior_scale=0.7)
    mean, log_scale = draw(4, 3), draw(4, 3, seed=1)
    expected = kl_divergence(Normal(mean, log_scale.exp()), Normal(0.0, 0.7)).sum()
    torch.testing.assert_close(fit._penalty({"mean.w": mean, "log_scale.w": log_scale}), expected)


def test_one_draw_of_pac_m_is_the_free_energy_to_the_bit() -> None:
    x, y = data()
    plain = GaussianPosterior(net(), n_steps=30, random_state=0).fit(x, y)
    robust = clone(plain).set_params(objective="pac_m").fit(x, y)
    assert plain.history_ == robust.history_
    np.testing.assert_array_equal(plain.predict(x), robust.predict(x))
    alone = Ensemble(net(), 1, n_steps=30, random_state=0).fit(x, y)
    for objective in ("pac_m", "pac2", "pac2_tight", "repulsion"):
        assert clone(alone).set_params(objective=objective).fit(x, y).history_ == alone.history_


def test_members_of_a_plain_ensemble_are_as_if_alone() -> None:
    x, y = data()
    alone = Ensemble(net(), 1, n_steps=40, batch_size=16, random_state=3).fit(x, y)
    three = Ensemble(net(), 3, n_steps=40, batch_size=16, random_state=3).fit(x, y)
    np.testing.assert_allclose(three.predict_members(x)[0], alone.predict(x), atol=1e-4)
    assert np.ptp(three.predict_members(x), axis=0).mean() > 0.05


def test_history_has_the_objective() -> None:
    """One step from known parameters, by NumPy."""
    x, y = data(10)
    start = Ensemble(line(), 2, n_steps=1, learning_rate=1e-30, random_state=0, beta=2.0, prior_scale=0.7).fit(x, y)
    weights = np.array([start.member(k).weight.item() for k in range(2)])
    log_p = norm.logpdf(y, np.outer(weights, x[:, 0])).mean()
    penalty = 0.5 * (weights**2 / 0.7**2).mean() / (2.0 * 10)
    assert start.history_ == {"step": [1.0], "objective": [pytest.approx(penalty - log_p, rel=1e-5)]}


@pytest.mark.parametrize("kind", BOTH)
def test_predictions_are_of_the_mixture(kind) -> None:
    x, y = data()
    fit = kind(net(), n_members=3, noise_scale=0.3, n_steps=20, random_state=0).fit(x, y)
    means = fit.predict_members(x)
    mean, std = fit.predict(x, return_std=True)
    np.testing.assert_allclose(mean, means.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(0.3**2 + means.var(0)), rtol=1e-5)
    expected = np.log(norm.pdf(y, means, 0.3).mean(0))
    np.testing.assert_allclose(fit.log_prob(x, y), expected, rtol=1e-3, atol=1e-4)
    assert fit.score(x, y) == pytest.approx(expected.mean(), rel=1e-3)
    module = fit.member(1)
    np.testing.assert_allclose(module(torch.tensor(x).float()).detach()[:, 0], means[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError, match="member 3 of 3: give -3 to 2"):
        fit.member(3)


def test_likelihoods_of_counts_classes_and_vectors() -> None:
    x, _ = data()
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, size=(60, 2))
    fit = Ensemble(nn.Linear(1, 2), 2, likelihood="poisson", n_steps=300, learning_rate=0.05, random_state=0)
    rates = fit.fit(x, counts).predict_members(x)
    np.testing.assert_allclose(
        fit.log_prob(x, counts), np.log(np.exp(poisson.logpmf(counts, rates).sum(-1)).mean(0)), rtol=1e-3
    )
    assert fit.predict(x).shape == (60, 2) and abs(fit.predict(x).mean() - counts.mean()) < 0.3
    classes = rng.integers(3, size=60)
    one_hot = np.eye(3)[classes]
    chosen = Ensemble(
        nn.Linear(1, 3), 2, likelihood=lambda out: OneHotCategorical(logits=out), n_steps=5, random_state=0
    )
    np.testing.assert_allclose(chosen.fit(x, one_hot).predict(x).sum(-1), 1, rtol=1e-5)
    labels = clone(chosen).set_params(likelihood=lambda out: Categorical(logits=out)).fit(x, classes)
    np.testing.assert_allclose(labels.log_prob(x, classes), chosen.log_prob(x, one_hot), rtol=1e-5)
    heteroscedastic = Ensemble(
        nn.Linear(1, 2), 2, likelihood=lambda out: Normal(out[..., 0], out[..., 1].exp()), n_steps=5, random_state=0
    )
    assert heteroscedastic.fit(x, classes).predict(x).shape == (60,)
    ones = Ensemble(nn.Linear(1, 1), 2, likelihood="bernoulli", n_steps=5, random_state=0).fit(x, classes > 0)
    assert ((ones.predict(x) > 0) & (ones.predict(x) < 1)).all()


@pytest.mark.parametrize("kind", BOTH)
def test_seeds_decide_and_the_random_state_of_torch_stays(kind) -> None:
    x, y = data()
    state = torch.get_rng_state()
    fits = [kind(net, n_steps=5, batch_size=16, random_state=seed).fit(x, y).predict(x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():
        np.testing.assert_array_equal(
            kind(net, n_steps=5, batch_size=16, random_state=0).fit(torch.tensor(x), torch.tensor(y)).predict(x),
            fits[0],
        )


@pytest.mark.parametrize("kind", BOTH)
def test_frozen_parameters_and_buffers_stay(kind) -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.tensor([[1.0, 2.0]]))
            self.head, self.shift = nn.Linear(2, 1), nn.Linear(1, 1)
            self.shift.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.sin(x @ self.frequencies)) + self.shift(x)

    module = Features()
    before = copy.deepcopy(module)
    fit = kind(lambda: copy.deepcopy(module), n_members=2, n_steps=5, random_state=0).fit(*data())
    for name in ("frequencies", "shift.weight", "shift.bias"):
        assert torch.equal(fit.member(1).state_dict()[name], before.state_dict()[name])
    assert not torch.equal(fit.member(1).head.weight, before.head.weight)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), before.state_dict().values()))


def test_modules_that_cannot_be_members() -> None:
    x, y = data()

    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight if self.weight.sum() > 0 else x

    cases: list[tuple[object, type[Exception], str]] = [
        (3, TypeError, "module is 3; give a torch.nn.Module, or a function"),
        (nn.Linear, TypeError, "give a torch.nn.Module, or a function"),
        (lambda: 3, TypeError, "module gave int"),
        (nn.Tanh(), ValueError, "has no parameter to fit"),
        (nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4)), ValueError, "running statistics in '1'.*use LayerNorm"),
        (Raw(), ValueError, "'Raw' has parameters but no reset_parameters.*module=lambda"),
        (Raw, TypeError, "give a torch.nn.Module, or a function"),
        (lambda: Raw(), ValueError, "cannot be run for X of shape .* over stacked parameters: vmap: It looks like"),
        (nn.Linear(3, 1), ValueError, r"cannot be run for X of shape \(60, 1\).*"),
        (nn.Linear(1, 2), ValueError, r"rows of shape \(2,\), but rows of y have shape \(\)"),
        (nn.Sequential(nn.Linear(1, 2), nn.Flatten(0)), ValueError, r"module gave \(120,\) for X"),
    ]
    for module, error, message in cases:
        with pytest.raises(error, match=message) as raised:
            Ensemble(module, 2, n_steps=1).fit(x, y)
        assert "\n" not in str(raised.value)
    Ensemble(nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)), 2, n_steps=1).fit(x, y)  # outputs (n,) are as good
    sizes = iter((2, 3))
    with pytest.raises(ValueError, match="members of different shapes"):
        Ensemble(lambda: nn.Linear(1, next(sizes)), 2, n_steps=1).fit(x, y)


def test_settings_out_of_range() -> None:
    x, y = data()
    for kind, settings, message in (
        (Ensemble, {"n_members": 0}, "n_members is 0; give a whole number, 1 or more"),
        (Ensemble, {"n_steps": 1.5}, r"n_steps is 1\.5"),
        (Ensemble, {"batch_size": True}, "batch_size is True"),
        (Ensemble, {"beta": 0}, "beta is 0; give a positive number"),
        (Ensemble, {"learning_rate": math.inf}, "learning_rate is inf; give a finite number"),
        (Ensemble, {"objective": "elbo"}, "objective is 'elbo'; give one of average"),
        (Ensemble, {"robustness": 0.9}, "robustness is 0.9, but objective 'average' has none"),
        (Ensemble, {"likelihood": "cauchy"}, "likelihood is 'cauchy'; give one of gaussian, poisson, bernoulli"),
        (Ensemble, {"likelihood": "poisson", "noise_scale": 2.0}, "only likelihood 'gaussian' has one"),
        (Ensemble, {"noise_scale": -1.0}, "noise_scale is -1.0; give a positive number"),
        (Ensemble, {"device": "tpu"}, "tpu"),
        (Ensemble, {"random_state": -1}, "random_state is -1"),
        (Ensemble, {"likelihood": lambda out: out}, "likelihood gave Tensor"),
        (GaussianPosterior, {"prior_scale": math.inf}, "prior_scale is inf; give a finite number"),
        (GaussianPosterior, {"objective": "repulsion"}, "compares draws, and n_samples is 1: give 2 or more"),
    ):
        with pytest.raises((ValueError, TypeError), match=message) as raised:
            kind(net(), **{"n_steps": 1, **settings}).fit(x, y)
        assert "\n" not in str(raised.value)


def test_data_that_cannot_be_fitted() -> None:
    x, y = data()
    bad = x.copy()
    bad[7] = np.nan
    for inputs, targets, settings, message in (
        (x[:, 0], y, {}, r"X has shape \(60,\); give \(n, d\), as X.reshape\(-1, 1\)"),
        (bad, y, {}, "X has NaN or infinity in 1 of 60 rows, the first of them row 7"),
        (x, y[:9], {}, "X has 60 rows, but y has 9"),
        (x[:0], y[:0], {}, "give one or more rows"),
        (x, ["a"] * 60, {}, "y has type"),
        (x, y - 10, {"likelihood": "poisson"}, r"y has values that Poisson cannot have, such as -\d"),
        (x, y * 1e30, {}, "the objective is inf at the start: scale X and y .*lower learning_rate"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            Ensemble(net(), n_steps=1, **settings).fit(inputs, targets)
        assert "\n" not in str(raised.value)
    fit = Ensemble(net(), n_steps=1, random_state=0).fit(x, y)
    with pytest.raises(ValueError, match=r"rows of X have shape \(2,\), but those of the fit had \(1,\)"):
        fit.predict(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"rows of y have shape \(1,\), but those of the fit had \(\)"):
        fit.log_prob(x, y[:, None])
    with pytest.raises(ValueError, match="is not fitted"):
        Ensemble(net()).predict(x)
    with pytest.raises(AttributeError, match="is not fitted"):
        GaussianPosterior(net()).means_  # noqa: B018


def test_a_failed_fit_leaves_the_earlier_one() -> None:
    x, y = data()
    fit = Ensemble(net(), 2, n_steps=5, random_state=0).fit(x, y)
    before = fit.predict(x)
    with pytest.raises(ValueError, match="scale X and y"):
        fit.fit(x, y * 1e30)
    np.testing.assert_array_equal(fit.predict(x), before)


def test_interrupts_keep_the_fit_so_far() -> None:
    x, y = data()
    calls = 0

    def stopping(out: Tensor) -> Normal:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return Normal(out, 1.0)

    fit = Ensemble(net(), 2, likelihood=stopping, n_steps=20, random_state=0)
    with pytest.raises(Interrupted, match="stopped after 5 of 20 steps; the fit so far is kept"):
        fit.fit(x, y)
    assert fit.predict(x).shape == (60,)


def test_progress_and_history(capsys) -> None:
    x, y = data()
    fit = Ensemble(net(), 2, n_steps=90, verbose=True, random_state=0).fit(x, y)
    assert "100%" in capsys.readouterr().err
    assert fit.history_["step"][-1] == 90 and len(fit.history_["step"]) == 30
    assert fit.history_["objective"][-1] < fit.history_["objective"][0]
