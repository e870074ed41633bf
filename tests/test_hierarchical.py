"""Layers of counts: the free energy by enumeration, exact zeros, free bits, stacks, files and the command line."""

import json
import math

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy import stats

from spikevae.cli import main
from spikevae.config import FitConfig
from spikevae.evaluation.evaluate import evaluate
from spikevae.models import HierarchicalConfig, HierarchicalVAE, load_model
from spikevae.training import Stack, train

COUNTS = np.arange(2000)


def tiny(latent="poisson", **given):
    """One unit above one unit, one pixel, all weights set by hand; float64."""
    model = HierarchicalVAE(
        (1,), HierarchicalConfig(latent=latent, n_latents=1, upper=(1,), clamp=None, start=0.0, **given), seeded()
    ).double()
    values = {
        "encoder.head.weight": [[0.3], [-0.4]],
        "encoder.head.bias": [0.2, -0.1],
        "decoder.head.weight": [[0.7]],
        "down.0.head.weight": [[0.1]],
        "prior_log_rate": [-0.3, 0.4],
    }
    model.load_state_dict({**model.state_dict(), **{k: torch.tensor(v).double() for k, v in values.items()}})
    return model


X = 0.8


def log_law(latent, log_rate):
    """SciPy's log-probabilities of COUNTS; the dispersion of negative binomials is 1."""
    rate = math.exp(log_rate)
    return stats.poisson(rate).logpmf(COUNTS) if latent == "poisson" else stats.nbinom(1, 1 / (1 + rate)).logpmf(COUNTS)


def enumerated(latent):
    """Distortion, the two coding rates and minus the log evidence (both constants as the model drops them)."""
    top_prior, top = log_law(latent, 0.4), log_law(latent, 0.4 - 0.4 * X - 0.1)
    kl_top = (np.exp(top) * (top - top_prior)).sum()
    kl_low = distortion = evidence = 0.0
    for n, q2, p2 in zip(range(80), np.exp(top), np.exp(top_prior)):
        prior, q = log_law(latent, -0.3 + 0.1 * n), log_law(latent, -0.3 + 0.1 * n + 0.3 * X + 0.2)
        kl_low += q2 * (np.exp(q) * (q - prior)).sum()
        distortion += q2 * (np.exp(q) * (X - 0.7 * COUNTS) ** 2).sum()
        evidence += p2 * (np.exp(prior) * np.exp(-((X - 0.7 * COUNTS) ** 2))).sum()
    return distortion, kl_low, kl_top, -math.log(evidence)


@pytest.mark.parametrize("latent", ["poisson", "negative_binomial"])
def test_free_energy_by_enumeration(latent):
    """40,000 descents: the mean is right to five standard errors, which a factor on any term leaves far behind."""
    distortion, kl_low, kl_top, evidence = enumerated(latent)
    assert distortion + kl_low + kl_top > evidence  # a bound
    model = tiny(latent)
    with torch.no_grad():
        coded = model.code(torch.full((40_000, 1), X).double(), generator=seeded())
    for found, expected in ((coded.distortion, distortion), (coded.kl[:, 0], kl_low)):
        error = float(found.std()) / 200
        assert float(found.mean()) == pytest.approx(expected, abs=5 * error)
        assert error < 0.03 * expected
    torch.testing.assert_close(coded.kl[:, 1], torch.full((40_000,), kl_top).double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_training_objective_tends_to_the_evaluated_one(exact):
    """Nearly hard counts above: the objective of a batch is that of evaluations, priced."""
    distortion, kl_low, kl_top, _ = enumerated("poisson")
    model = tiny()
    x = torch.full((40_000, 1), X).double()
    with torch.no_grad():
        parts = model(x, 2.0, 0.5, exact=exact, temperature=1e-3, generator=seeded())
    assert float(parts.distortion) == pytest.approx(distortion, rel=0.03)
    assert float(parts.kl) == pytest.approx(kl_low + kl_top, rel=0.02)
    assert float(parts.total) == pytest.approx(float(parts.distortion + 2 * parts.kl + 0.5 * parts.spikes), rel=1e-9)


def test_a_silent_encoder_costs_nothing():
    model = HierarchicalVAE(
        (9,), HierarchicalConfig(latent="poisson", n_latents=5, upper=(4, 3), start=0.5, clamp=None), seeded()
    )
    for p in model.encoder.parameters():
        torch.nn.init.zeros_(p)
    coded = model.code(torch.randn(50, 9, generator=seeded(1)), generator=seeded(2))
    assert float(coded.kl.detach().abs().max()) < 1e-6
    assert coded.code.shape == (50, 12)


def test_generated_codes_have_the_enumerated_mean():
    expected = sum(p * math.exp(-0.3 + 0.1 * n) for n, p in enumerate(stats.poisson(math.exp(0.4)).pmf(range(80))))
    with torch.no_grad():
        code, pixels = tiny().generate(40_000, generator=seeded(3))
    assert float(code[:, 1].mean()) == pytest.approx(math.exp(0.4), abs=5 * math.exp(0.2) / 200)
    assert float(code[:, 0].mean()) == pytest.approx(expected, abs=5 * float(code[:, 0].std()) / 200)
    torch.testing.assert_close(pixels, 0.7 * code[:, :1])


def test_free_bits_free_a_layer_that_codes_less():
    model = tiny(free_bits=10.0)
    x = torch.full((20, 1), X).double()
    parts = model(x, 1.0, 0.0, exact=True, generator=seeded())
    assert (parts.total - parts.distortion).item() == pytest.approx(20.0)  # two layers
    assert parts.kl.item() < 10
    parts.total.backward()
    assert model.encoder.head.weight.grad is not None


def test_free_bits_are_of_each_layer():
    """The lowest layer codes less than is free, the one above more: only the first is lifted.

    A residual r on a Poisson prior of rate m costs m (exp(r) (r - 1) + 1) nats.
    """

    def nats(mean, residual):
        return mean * (math.exp(residual) * (residual - 1) + 1)

    x = -1.0
    high = nats(math.exp(0.4), -0.4 * x - 0.1)
    above = math.exp(0.4 - 0.4 * x - 0.1)
    low = nats(math.exp(-0.3 + above * math.expm1(0.1)), 0.3 * x + 0.2)
    free = 0.05
    assert low < 0.1 * free and high > 1.5 * free
    parts = tiny(free_bits=free)(torch.full((20_000, 1), x).double(), 1.0, 0.0, exact=True, generator=seeded())
    assert parts.kl.item() == pytest.approx(low + high, abs=1e-4)
    assert (parts.total - parts.distortion).item() == pytest.approx(free + high, abs=1e-7)


def test_every_parameter_learns():
    model = HierarchicalVAE(
        (9,), HierarchicalConfig(latent="negative_binomial", n_latents=5, upper=(4, 3), start=0.5, clamp=None), seeded()
    )
    parts = model(torch.randn(50, 9, generator=seeded(1)), 1.0, 0.0, exact=True, generator=seeded(2))
    parts.total.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and float(p.grad.abs().sum()) > 0, name


def test_evaluation_accounts_for_each_layer():
    model = HierarchicalVAE(
        (9,), HierarchicalConfig(latent="poisson", n_latents=5, upper=(4, 3), start=0.5, clamp=None), seeded()
    )
    found = evaluate(model, torch.randn(400, 9, generator=seeded(1)), beta=2.0)
    metrics = found.metrics
    assert [row["units"] for row in found.layers] == [5, 4, 3]
    assert sum(row["kl"] for row in found.layers) == pytest.approx(metrics.kl)
    assert sum(row["spikes"] for row in found.layers) == pytest.approx(metrics.spikes)
    assert found.objective == pytest.approx(metrics.distortion + 2 * metrics.kl)
    # a spike of the lowest layer drives 9 pixels, one above drives the 5 or 4 units below it
    events = sum(row["spikes"] * n for row, n in zip(found.layers, (9, 5, 4)))
    assert metrics.synops_events == pytest.approx(events, rel=0.1)
    assert metrics.encoder_macs == 9 * 12 + 4 * 5 + 3 * 4
    assert metrics.decoder_macs == 5 * 9


@pytest.mark.parametrize(
    "variant", [{}, {"latent": "negative_binomial"}, {"encoder": "mlp", "decoder": "mlp", "hidden": (12,)}]
)
def test_a_stack_is_its_fits(variant):
    x = torch.randn(200, 16, generator=seeded(5)).double()
    configs = [
        FitConfig.from_recipe("default", n_latents=6, upper=(4,), steps=30, batch_size=50, beta=b, seed=s, **variant)
        for b, s in ((0.3, 0), (2.0, 1))
    ]
    together = Stack(configs, x, (16,), window=5)
    train(together)
    for index, config in enumerate(configs):
        alone = Stack([config], x, (16,), window=5)
        train(alone)
        for name, value in alone.result(0).model.state_dict().items():
            torch.testing.assert_close(
                together.result(index).model.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name
            )


def test_settings_that_do_not_go_together():
    fit = lambda **given: FitConfig.from_recipe("default", n_latents=6, **given)
    assert (fit(upper=(4,)).inference, fit(upper=(4,)).prior, fit(upper=(4,)).n_units) == (
        "hierarchical",
        "learned",
        10,
    )
    for given, message in (
        ({"inference": "hierarchical"}, "upper="),
        ({"upper": (0,)}, "upper="),
        ({"upper": (4,), "latent": "gaussian"}, "log firing rate"),
        ({"upper": (4,), "prior": "closed_form"}, "prior='learned'"),
        ({"free_bits": 1.0}, "free_bits need"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**given)


def test_command_line(tmp_path, capsys):
    model = tmp_path / "m.spikevae"
    main(["train", "--data", "synthetic", "--n-latents", "8", "--steps", "20", "--set", "upper=[4]", "--set",
          "free_bits=0.1", "--out", str(model), "--json"])  # fmt: skip
    capsys.readouterr()
    main(["evaluate", str(model), "--json"])
    assert [row["units"] for row in json.loads(capsys.readouterr().out)["layers"]] == [8, 4]
    main(["evaluate", str(model)])
    assert "layer  units" in capsys.readouterr().out
    loaded, _ = load_model(model)
    assert isinstance(loaded, HierarchicalVAE) and loaded.free_bits == 0.1
