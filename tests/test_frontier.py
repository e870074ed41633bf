"""The path along the spike price: its points are those of fits at fixed prices, its knee is by hand, it continues."""

import itertools
import json
import math

import pytest
import torch

import spikevae as sv
from spikevae.cli import main
from spikevae.config import FitConfig
from spikevae.evaluation import evaluate
from spikevae.frontier import Frontier, Point, result
from spikevae.frontier.path import price_at
from spikevae.training import Interrupted, Stack, checkpoint, train

D, K = 16, 8


@pytest.fixture(scope="module")
def x():
    """Stimuli of correlated pixels whose total variance is twice that of the pixel noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2500, D, generator=g) @ (torch.randn(D, D, generator=g) * torch.linspace(2.0, 0.2, D)[:, None])
    return x * (D / x.var(0).sum()).sqrt()


def fits(betas=(0.5, 1.0), **given):
    given = {"n_latents": K, "steps": 400, "batch_size": 100} | given
    return [FitConfig.from_recipe("default", **given, beta=b) for b in betas]


def traced(configs, x, **options):
    return Frontier.trace(configs, x[:2000], x[2000:], (D,), **{"n_prices": 5, **options})


CASES = {
    "poisson": {},
    "bernoulli": {"latent": "bernoulli"},
    "binomial": {"latent": "binomial"},
    "negative binomial": {"latent": "negative_binomial"},
    "conway-maxwell-poisson": {"latent": "conway_maxwell_poisson", "steps": 80},
    "iterative": {"inference": "iterative", "inference_steps": 3, "guard": False, "steps": 600},
    "hierarchical": {"upper": (3,)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_spikes_fall_along_the_path(x, case):
    path = traced(fits((1.0,), **case), x).of(1.0)
    assert [p.spike_price for p in path] == pytest.approx([price_at(i, 5) for i in range(5)])
    spikes = [p.spikes for p in path]
    assert all(few < many for many, few in itertools.pairwise(spikes[1:])) and spikes[-1] < 0.3 * spikes[0]
    assert all(math.isfinite(p.objective) and not p.diverged and p.joules > 0 for p in path)


def test_a_point_is_the_fit_at_its_price(x):
    """The path starts each price at the last one; a long fit of its own at that price ends at an equal objective."""
    path = traced(fits((1.0,), steps=1200), x)
    point = path.of(1.0)[3]
    stack = Stack([fits((1.0,), steps=2000, spike_price=point.spike_price)[0]], x[:2000], (D,))
    train(stack)
    m = evaluate(stack.result(0).model, x[2000:]).metrics
    own = m.distortion + m.kl + point.spike_price * m.spikes
    assert point.objective + point.spike_price * point.spikes == pytest.approx(own, rel=0.02)
    assert point.joules == pytest.approx(point.spikes * 7.1e8 * 50e3 / 6.02214076e23)


def test_a_path_costs_at_most_four_fits(x, monkeypatch):
    steps = []
    monkeypatch.setattr(result, "train", lambda stack, **_: steps.append(stack.n_steps))
    traced(fits((1.0,)), x, n_prices=12)
    assert len(steps) == 12 and steps[0] == 400 and sum(steps) <= 4 * 400


def test_the_knee_by_hand():
    """Spikes 100, 50, 20, 10 at objectives 100, 101, 104, 120: savings .5, .8, .9 for 1, 4, 20 percent."""
    blank = dict.fromkeys(("free_energy", "bits", "r2", "fraction_zeros", "firing_rate", "joules"), 0.0)
    values = zip((0.0, 0.1, 0.2, 0.4), (100.0, 101.0, 104.0, 120.0), (100.0, 50.0, 20.0, 10.0))
    points = [Point(beta=1.0, spike_price=p, objective=f, spikes=s, diverged=False, **blank) for p, f, s in values]
    knee = Frontier("Poisson", tuple(points)).knee(1.0)
    assert knee.point.spike_price == 0.2 and (knee.saved, knee.lost) == pytest.approx((0.8, 0.04))
    assert knee.saved_per_percent == pytest.approx(0.2)
    assert Frontier("Poisson", tuple(points[:1] * 3)).knee(1.0) is None


def test_an_interrupted_path_continues(x, tmp_path, monkeypatch):
    whole = traced(fits(steps=60), x)
    calls = []

    def stopping(stack, **options):
        calls.append(stack)
        if len(calls) == 4:  # as on Ctrl-C, in the middle of a price
            train(stack, until=7)
            checkpoint.save(stack, options["checkpoint_path"])
            raise Interrupted("stopped")
        train(stack, **options)

    monkeypatch.setattr(result, "train", stopping)
    with pytest.raises(Interrupted):
        traced(fits(steps=60), x, folder=tmp_path)
    with pytest.raises(ValueError, match="another path"):
        traced(fits(steps=62), x, folder=tmp_path)
    again = traced(fits(steps=60), x, folder=tmp_path)
    assert len(calls) == 6 and again == whole and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent": "gaussian"}, "firing rate, which 'gaussian' lacks"),
        ({"latent": "sparse"}, "firing rate, which 'sparse' lacks"),
        ({"spike_price": 0.1}, "drop spike_price"),
        ({"spike_budget": 0.1}, "drop spike_price, spike_budget"),
    ],
)
def test_fits_without_a_frontier_are_refused(x, given, message):
    with pytest.raises(ValueError, match=message):
        traced(fits(**given), x)


def test_the_verb_writes_table_and_figure(tmp_path, capsys):
    assert sv.Frontier is Frontier
    given = ["frontier", "--patch", "4", "--n", "800", "--n-latents", "4", "--steps", "40", "--prices", "4"]
    assert main([*given, "--beta", "0.5", "--beta", "1", "--out", str(tmp_path / "f"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["points"]) == 8
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        "frontier.csv",
        "frontier.json",
        "frontier.png",
        "frontier.svg",
    ]
    assert (tmp_path / "f" / "frontier.csv").read_text().startswith('"beta","spike_price","objective"')
    assert main([*given, "--latent", "laplace", "--out", str(tmp_path / "g")]) == 2
    assert "which 'laplace' lacks" in capsys.readouterr().err
