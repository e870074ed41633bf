"""Budgets of spikes and joules: the price that is found keeps to them and is the slope of an independent path."""

import json
import math

import numpy as np
import pytest
import torch

from spikevae.cli import main
from spikevae.config import FitConfig
from spikevae.estimators import SpikeVAE, load_model
from spikevae.evaluation.prices import joules_per_spike
from spikevae.sweep import RunFolder
from spikevae.training import Stack, budget_report, checkpoint, train
from spikevae.training.budgets import BudgetReport, spikes_allowed

D, K = 16, 12


@pytest.fixture(scope="module")
def x():
    """Stimuli of correlated pixels whose total variance is twice that of the pixel noise."""
    g = torch.Generator().manual_seed(0)
    basis = torch.randn(D, D, generator=g) * torch.linspace(2.0, 0.2, D)[:, None]
    x = torch.randn(3000, D, generator=g) @ basis
    return x * (D / x.var(0).sum()).sqrt()


def fit(**given):
    return FitConfig.from_recipe("default", **{"n_latents": K, "steps": 1200, "batch_size": 100, **given})


def trained(configs, x):
    stack = Stack(configs, x, (D,))
    train(stack)
    noise = torch.Generator().manual_seed(0)
    return stack, [budget_report(stack.result(i).model, x, generator=noise) for i in range(len(configs))]


CASES = {
    "poisson": {},
    "bernoulli": {"latent": "bernoulli"},
    "negative binomial": {"latent": "negative_binomial"},
    "sampled": {"estimator": "monte_carlo"},
    "iterative": {"inference": "iterative", "inference_steps": 3, "guard": False},
    "hierarchical": {"upper": (4,)},
    "rectified gaussian": {"latent": "rectified_gaussian"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fits_keep_to_their_budgets(x, case):
    """A budget of half the spikes of the free fit binds; one of a million does not and changes nothing.

    The two fits train alone: within a stack, the place of a fit may change the rounding of a matrix product.
    """
    steps = 1200 if case == CASES["iterative"] else 600  # an iterative fit needs the time
    budgets = ({"spike_budget": 1e6}, {})
    (stack, (unbound,)), (without, (none,)) = (trained([fit(**case, **b, steps=steps)], x) for b in budgets)
    assert none is None and not unbound.binds and unbound.met and unbound.shadow_price == 0
    free, same = (one.result(0).model.state_dict() for one in (stack, without))
    torch.testing.assert_close(free, same, rtol=0, atol=0)
    half = unbound.spikes_used / 2
    _, (bound,) = trained([fit(**case, spike_budget=half, budget_per="stimulus")], x)
    assert bound.binds and bound.shadow_price > 0
    gap = bound.spikes_used / half - 1
    assert abs(gap) < 0.05 and bound.met == (abs(gap) <= 0.02)


def test_the_shadow_price_is_the_slope_of_a_path_of_fixed_prices(x):
    """Objectives and spikes of fits at fixed prices around the one found: -d objective / d spikes is the price."""
    _, (found,) = trained([fit(spike_budget=0.25, steps=2000)], x)
    assert found.met
    around = [found.shadow_price * factor for factor in (0.8, 1.25)]
    stack, _ = trained([fit(spike_price=p, steps=2000) for p in around], x)
    points = []
    for index in range(2):
        with torch.no_grad():
            parts = stack.result(index).model(x, 1.0, 0.0, exact=True)
        points.append((float(parts.spikes), float(parts.total)))
    (many, low), (few, high) = points
    assert few < found.spikes_used < many
    assert (high - low) / (many - few) == pytest.approx(found.shadow_price, rel=0.1)


def test_budgets_per_unit_per_stimulus_and_in_joules_are_the_same_spikes(x):
    """Human cortex: 2.4e9 ATP per spike at 60 kJ/mol; prices per joule are in proportion."""
    per_joule = joules_per_spike("high")
    assert per_joule == pytest.approx(2.391e-10, rel=1e-3)
    options = [
        {"spike_budget": 0.25},
        {"spike_budget": 0.25 * K, "budget_per": "stimulus"},
        {"energy_budget": 0.25 * K * per_joule, "energy_level": "high"},
    ]
    assert [spikes_allowed(fit(**o)) for o in options] == pytest.approx([3.0] * 3)
    assert math.isinf(spikes_allowed(fit())) and spikes_allowed(fit(upper=(4,), spike_budget=1.0)) == K + 4
    _, reports = trained([fit(**o, steps=200) for o in options], x)
    assert reports[0].shadow_price == reports[1].shadow_price == pytest.approx(reports[2].shadow_price, rel=0.05)
    assert reports[2].shadow_price_per_joule == pytest.approx(reports[2].shadow_price / per_joule)


def test_a_stopped_fit_with_a_budget_continues_exactly(x, tmp_path):
    configs = [fit(spike_budget=b, steps=120) for b in (0.1, 0.4)]
    whole, _ = trained(configs, x)
    first = Stack(configs, x, (D,))
    train(first, until=37)
    checkpoint.save(first, tmp_path / "c")
    second = Stack(configs, x, (D,))
    train(second, checkpoint_path=tmp_path / "c")
    assert torch.equal(whole.budgets.prices, second.budgets.prices)
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spike_budget": 0.0}, "spike_budget is 0; a budget is positive"),
        ({"energy_budget": -1.0}, "energy_budget is -1; a budget is positive"),
        ({"spike_budget": 1.0, "spike_price": 0.1}, "drop one of the two"),
        ({"spike_budget": 1.0, "energy_budget": 1e-9}, "drop one of them"),
        ({"spike_budget": 1.0, "latent": "gaussian"}, "firing rate, which 'gaussian' lacks: drop it"),
        ({"spike_budget": 1.0, "latent": "sparse"}, "firing rate, which 'sparse' lacks: drop it"),
        ({"energy_budget": 1e-9, "latent": "rectified_gaussian"}, "real-valued: drop it"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fit(**given)


def test_the_estimator_reports_its_budget(x, tmp_path):
    model = SpikeVAE(n_latents=K, spike_budget=0.3, batch_size=100, steps=1500, random_state=0).fit(x)
    assert model.budget_.spikes_allowed == pytest.approx(0.3 * K) and model.budget_.met
    assert model.transform(x).mean() == pytest.approx(0.3, rel=0.03)
    model.save(tmp_path / "m.spikevae")
    again = load_model(tmp_path / "m.spikevae")
    assert again.budget_ == model.budget_ and again.get_params()["spike_budget"] == 0.3
    assert again.model_.price_of_spikes == pytest.approx(model.budget_.shadow_price)
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    again.set_params(spike_budget=None, steps=4).fit(x)
    assert not hasattr(again, "budget_")
    with pytest.warns(UserWarning, match=r"not met within 2 %: train longer"):
        SpikeVAE(n_latents=K, spike_budget=0.01, steps=4, random_state=0).fit(x)
    with pytest.raises(ValueError, match=r"m\.spikevae: its budget is 3"):
        BudgetReport.from_dict(3, "m.spikevae")


def test_budgets_on_the_command_line(tmp_path, capsys):
    data = ["--patch", "4", "--n", "1500"]
    given = [*data, "--n-latents", "8", "--steps", "1500", "--spike-budget", "0.3"]
    assert main(["train", *given, "--out", str(tmp_path / "m.spikevae"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budget"]["spikes_allowed"] == pytest.approx(2.4) and found["budget"]["binds"]
    assert found["budget"]["met"]
    assert found["metrics"]["firing_rate"] == pytest.approx(0.3, rel=0.15)  # other images
    text = '[data]\npatch = 4\nn = 1500\nn_test = 200\n[[blocks]]\nlabel = "a"\n'
    text += 'fit = { latent = "poisson", steps = 400 }\n[blocks.grid]\nn_latents = [8]\nbeta = [1.0]\nseed = [0]\n'
    (tmp_path / "s.toml").write_text(text + "spike_budget = [0.1, 0.3]\n")
    run = ["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "run"), "--set", "jobs=1"][:-2]
    assert main(run) == 0
    rows = sorted(RunFolder(tmp_path / "run").rows(), key=lambda row: row["spike_budget"])
    assert [row["spikes_allowed"] for row in rows] == pytest.approx([0.8, 2.4])
    assert rows[0]["shadow_price"] > rows[1]["shadow_price"] > 0
    assert main(["train", *data, "--spike-budget", "0", "--out", str(tmp_path / "x")]) == 2
    assert "a budget is positive" in capsys.readouterr().err
