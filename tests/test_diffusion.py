"""The diffusion estimator: its curve, denoiser and samples against closed forms; conventions and bad input."""

import math
import signal

import numpy as np
import pytest
import torch
from diffusion_cases import points_curve
from helpers import draw
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import spikevae as sv
from spikevae.diffusion import SCHEDULES, Denoiser, Diffusion, discretisation, optimal, uniform
from spikevae.diffusion.diffusion import EVALUATED_ROWS

SMALL = {"hidden": (16,), "n_steps": 5, "batch_size": 32, "random_state": 0}


@pytest.fixture(scope="module")
def of_points() -> Diffusion:
    """Fitted to 3 and 7, with equal probability."""
    x = np.random.default_rng(0).permutation(np.repeat([3.0, 7.0], 500))[:, None]
    return Diffusion(hidden=(64, 64), n_steps=1200, learning_rate=0.01, snr_max=100, random_state=0).fit(x)


@pytest.fixture(scope="module")
def of_gaussians() -> Diffusion:
    """Fitted to Gaussians of variances 9, 1 and 0.25, scaled together."""
    x = np.random.default_rng(0).normal(size=(4000, 3)) * [3, 1, 0.5] + [0, 10, -1]
    return Diffusion(hidden=(64,), scaling="common", n_steps=1200, learning_rate=0.01, snr_max=100, random_state=0).fit(
        x
    )


def test_curve_of_two_points_is_the_least_error(of_points: Diffusion) -> None:
    exact = points_curve([-1, 1], [0.5, 0.5], 100)
    at = np.array([0.05, 0.2, 0.5, 1, 2, 3, 5])
    np.testing.assert_allclose(of_points.curve_(at), exact(at), atol=0.03)
    assert of_points.curve_.information == pytest.approx(math.log(2), abs=0.06)
    assert of_points.mean_ == [5] and of_points.scale_ == [2]
    # Schedules from the measured curve are about as good, for the exact one, as the best.
    for steps in (8, 16):
        best = discretisation(exact, optimal(exact, steps))
        assert discretisation(exact, of_points.knots(steps, "optimal", noise="frozen")) < 1.4 * best
    assert discretisation(exact, of_points.knots(16, "loss_adaptive", noise="frozen")) < 1.7 * best
    assert discretisation(exact, of_points.knots(16, "uniform")) > 10 * best


def test_denoiser_of_two_points_is_the_posterior_mean(of_points: Diffusion) -> None:
    y = np.linspace(-1.5, 1.5, 13)
    for snr in (0.5, 2.0, 5.0):
        found = of_points.denoise(5 + 2 * y[:, None], snr)[:, 0]
        weight = np.exp(-0.5 * snr * (np.abs(y) - 1).clip(0) ** 2)  # far values are rare
        np.testing.assert_allclose(weight * (found - 5) / 2, weight * np.tanh(snr * y), atol=0.15)


def test_curve_of_gaussians_is_the_least_error(of_gaussians: Diffusion) -> None:
    variances = np.array([9, 1, 0.25])
    scaled = variances / variances.mean()
    np.testing.assert_allclose(of_gaussians.scale_, math.sqrt(variances.mean()), rtol=0.05)
    at = np.geomspace(0.01, 90, 30)
    exact = (scaled / (1 + scaled * at[:, None])).sum(1)
    np.testing.assert_allclose(of_gaussians.curve_(at), exact, rtol=0.08)


def test_samples_follow_the_data(of_points: Diffusion, of_gaussians: Diffusion) -> None:
    points = of_points.sample(2000, steps=16, random_state=0)
    assert (np.abs(np.abs(points - 5) - 2) < 0.3).mean() > 0.95
    assert (points > 5).mean() == pytest.approx(0.5, abs=0.06)
    normal = of_gaussians.sample(4000, steps=64, random_state=0)
    np.testing.assert_allclose(normal.mean(0), [0, 10, -1], atol=0.2)
    np.testing.assert_allclose(normal.std(0), [3, 1, 0.5], rtol=0.1)
    few = of_gaussians.sample(4000, steps=2, schedule="uniform", noise="frozen", random_state=0)
    assert few.std(0)[0] < 2.6  # held for long, the first estimates draw all samples to the mean
    few = of_gaussians.sample(4000, steps=2, schedule="uniform", random_state=0)
    assert np.sqrt((few.std(0) ** 2).sum()) == pytest.approx(np.sqrt(10.25), rel=0.1)


def test_steps_and_schedules(of_points: Diffusion) -> None:
    for name in SCHEDULES:
        assert of_points.knots(5, name).shape == (6,)
        for noise, d in (("matched", 1), ("frozen", None)):
            knots = of_points.knots(5, name, noise=noise)
            expected = discretisation(of_points.curve_, knots, dimension=d)
            assert of_points.discretisation(5, name, noise=noise) == expected
            assert expected >= of_points.discretisation(5, "optimal", noise=noise) - 1e-9
    np.testing.assert_array_equal(of_points.knots(3, uniform), of_points.knots(3, "uniform"))
    a, b = (of_points.sample(4, steps=3, schedule=name, random_state=1) for name in ("uniform", uniform))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, of_points.sample(4, steps=3, schedule="uniform", random_state=2))


def test_the_network_is_called_once_a_step(of_points: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    before = Denoiser.residual
    monkeypatch.setattr(Denoiser, "residual", lambda self, y, snr: calls.append(len(y)) or before(self, y, snr))
    of_points.sample(3, steps=6)
    assert calls == [3] * 6


def test_the_denoiser_of_no_signal_is_the_mean_and_of_much_signal_the_signal() -> None:
    net = Denoiser(2, (8,), torch.Generator().manual_seed(0))
    y = torch.tensor([[0.0, 0.0], [1e8, -2e8]])
    found = net(y, torch.tensor([[0.0], [1e8]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [1.0, -2.0]]), atol=1e-3, rtol=0)


def test_input_and_target_of_the_network_have_variance_one() -> None:
    """For X of variance 1, at every noise: 100,000 draws of ±1."""
    x, z = draw(100_000, 1).sign(), draw(100_000, 1, seed=1)
    for ratio in (0.01, 1.0, 50.0):
        snr = torch.full_like(x, ratio)
        y = snr * x + snr.sqrt() * z
        net = Denoiser(1, (4,), torch.Generator().manual_seed(0)).double()
        seen: list[torch.Tensor] = []
        net.network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0][:, 0]))
        found = net(y, snr)
        target = (x - y / (1 + snr)) / ((found - y / (1 + snr)) / net.residual(y, snr))
        assert seen[0].var().item() == pytest.approx(1, abs=0.02)
        assert target.var().item() == pytest.approx(1, abs=0.02)


def test_results_depend_on_the_seed_alone() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert sv.diffusion.Diffusion is Diffusion
    a, b, c = (Diffusion(**{**SMALL, "random_state": seed}).fit(x).sample(5, random_state=0) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    before = torch.get_rng_state()
    fit = clone(Diffusion(**SMALL)).fit(torch.tensor(x))
    assert fit.sample(2, random_state=np.random.default_rng(0)).shape == (2, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_may_exceed_the_rows_and_the_unit_does_not_matter() -> None:
    x = np.random.default_rng(0).normal(size=(7, 2))
    a = Diffusion(**{**SMALL, "batch_size": 64}).fit(x)
    b = Diffusion(**{**SMALL, "batch_size": 64}).fit(1e6 * x + 5e6)
    np.testing.assert_allclose(b.sample(5, random_state=0), 1e6 * a.sample(5, random_state=0) + 5e6, rtol=1e-4)
    np.testing.assert_allclose(a.curve_.mmse, b.curve_.mmse, rtol=1e-4)


def test_an_interrupted_fit_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls, before = np.random.default_rng(0).normal(size=(50, 2)), [], Denoiser.forward

    def stops(self, y, snr):
        calls.append(None)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return before(self, y, snr)

    monkeypatch.setattr(Denoiser, "forward", stops)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit = Diffusion(**{**SMALL, "n_steps": 50})
        with pytest.raises(KeyboardInterrupt, match="stopped after 4 of 50 steps; the fit so far is kept"):
            fit.fit(x)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert fit.sample(3).shape == (3, 2) and np.isfinite(fit.discretisation(4))


def test_what_is_not_fitted_says_so() -> None:
    for act in (lambda fit: fit.sample(2), lambda fit: fit.knots(4), lambda fit: fit.discretisation(4)):
        with pytest.raises(NotFittedError, match="This Diffusion instance is not fitted yet"):
            act(Diffusion())


def test_many_rows_go_through_the_network_in_parts(of_points: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, before = [], Denoiser.residual
    monkeypatch.setattr(Denoiser, "residual", lambda self, y, snr: sizes.append(len(y)) or before(self, y, snr))
    many = of_points.sample(10_000, steps=2, random_state=0)
    assert max(sizes) <= EVALUATED_ROWS and sum(sizes) == 2 * 10_000
    ratio = np.linspace(1, 50, len(many))
    found = of_points.denoise(many, ratio)
    np.testing.assert_allclose(found[9000:9003], of_points.denoise(many[9000:9003], ratio[9000:9003]), rtol=1e-5)
    assert max(sizes) <= EVALUATED_ROWS


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fit = Diffusion(**SMALL, verbose=True).fit(np.random.default_rng(0).normal(size=(20, 2)))
    assert "Diffusion" in capsys.readouterr().err
    assert fit.history_["step"] == [1, 2, 3, 4, 5]


@parametrize_with_checks([Diffusion(**SMALL)])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


NORMAL = np.random.default_rng(0).normal(size=(20, 3))


@pytest.mark.parametrize(
    ("settings", "X", "message"),
    [
        ({}, np.where(np.arange(60).reshape(20, 3) == 7, np.nan, NORMAL), "X has NaN or infinity in 1 of 20 rows"),
        ({}, NORMAL * [1, 0, 0] + 0.1, "X has 2 constant columns, the first of them column 1: leave them out"),
        ({}, np.c_[NORMAL, np.full(20, 0.1)], "X has 1 constant column, the first of them column 3: leave them out"),
        ({}, 1e200 * NORMAL, "column 0 of X has numbers of up to .*e.200, whose squares are no numbers: give X in ano"),
        ({}, 1e-200 * NORMAL, "column 0 of X has numbers of up to .*e-200, whose squares are no numbers: give X in a"),
        ({}, NORMAL[:1], "X has 1 sample: give two rows or more"),
        ({}, np.arange(300.0), r"got 1D array instead: Reshape your data"),
        ({}, NORMAL[0], "X cannot be read as|Expected 2D array"),
        ({"hidden": 8}, NORMAL, r"hidden is 8; give the widths of one or more layers, as \(256, 256\)"),
        ({"hidden": (0,)}, NORMAL, "hidden is 0; give a whole number, 1 or more"),
        ({"scaling": "none"}, NORMAL, "scaling is 'none'; give one of columns, common"),
        ({"snr_max": 0.5}, NORMAL, "snr_max is 0.5; give 1 or more"),
        ({"snr_max": math.inf}, NORMAL, "snr_max is inf; give a finite number"),
        ({"n_steps": 0}, NORMAL, "n_steps is 0; give a whole number, 1 or more"),
        ({"batch_size": 1.5}, NORMAL, "batch_size is 1.5; give a whole number, 1 or more"),
        ({"learning_rate": 0}, NORMAL, "learning_rate is 0; give a positive number"),
        ({"learning_rate": 1e30, "n_steps": 20}, NORMAL, "the objective is (nan|inf) after .* lower learning_rate"),
        (
            {"learning_rate": 10.0, "n_steps": 40},
            NORMAL,
            r"the denoiser's error is .* times that of a linear one after 40 steps: lower learning_rate \(10\)",
        ),
        ({"random_state": -1}, NORMAL, "random_state is -1; give 0 to"),
    ],
)
def test_bad_input(settings: dict, X, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Diffusion(**{**SMALL, **settings}).fit(X)
    assert len(str(caught.value).splitlines()) == 1


def test_bad_input_to_a_fitted_one() -> None:
    fit = Diffusion(**SMALL).fit(NORMAL)
    for settings, message in (
        ({"steps": 0}, "steps is 0; give a whole number, 1 or more"),
        ({"steps": 2.0}, "steps is 2.0; give a whole number, 1 or more"),
        ({"n": 0}, "n is 0; give a whole number, 1 or more"),
        ({"noise": "none"}, "noise is 'none'; give one of matched, frozen"),
        ({"schedule": "linear"}, "schedule is 'linear'; give one of uniform, log_snr, cosine, edm, loss_adaptive, opt"),
        ({"schedule": lambda curve, steps: [0, 2, 1]}, "knots must be two or more and rise from 0"),
        ({"schedule": lambda curve, steps: ["a", "b"]}, r"knots are \['a', 'b'\]; give \(n,\) numbers"),
        ({"schedule": lambda curve, steps: [0, 2e3]}, "knots end at 2000, beyond the curve, which ends at 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            fit.sample(**settings)
    for snr in (0, "a", [1, 2]):
        with pytest.raises(ValueError, match=r"snr is .*; give one positive number, or one for each of the 20 rows"):
            fit.denoise(NORMAL, snr)
    before = fit.sample(2, random_state=0)
    with pytest.raises(ValueError, match="X has 1 sample"):
        fit.fit(NORMAL[:1])
    np.testing.assert_array_equal(fit.sample(2, random_state=0), before)
