"""Coded directions spread over units: opponent pairs and independent components."""

import math

import pytest
import torch

from spikevae.config import FitConfig
from spikevae.training import Stack, train
from spikevae.training.spread import independent_components, overcomplete_components, spread_over_units


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def heavy_tailed(n, k, seed=0):
    """Independent signals of unit variance, products of two normal variables (kurtosis 9)."""
    g = seeded(seed)
    return torch.randn(n, k, generator=g) * torch.randn(n, k, generator=g)


@pytest.mark.parametrize(
    ("n_units", "k", "pairs"), [(1, 1, 0), (2, 1, 1), (7, 6, 0), (8, 5, 2), (12, 6, 6), (31, 6, 15)]
)
def test_units_in_excess_of_directions_make_pairs(n_units, k, pairs):
    weights = spread_over_units(torch.randn(50, k, generator=seeded()), n_units, seeded(1))
    assert weights.shape == (n_units, k)
    torch.testing.assert_close(weights.mT @ weights, torch.eye(k, dtype=torch.float64))
    assert (weights[:pairs] == -weights[pairs : 2 * pairs]).all()
    if n_units > 1:
        torch.testing.assert_close(weights.sum(0), torch.zeros(k, dtype=torch.float64))


def test_independent_components_are_found():
    """Sixteen heavy-tailed signals mixed by a rotation: each row meets one of them, up to sign and order."""
    k = 16
    signals = heavy_tailed(8000, k)
    mixing = torch.linalg.qr(torch.randn(k, k, generator=seeded(2))).Q
    start = torch.linalg.qr(torch.randn(k, k, generator=seeded(3))).Q.double()
    met = (independent_components(signals @ mixing.mT, start) @ mixing.double()).abs()
    torch.testing.assert_close(met.max(1).values, torch.ones(k, dtype=torch.float64), rtol=0, atol=0.05)
    assert len(set(met.argmax(1).tolist())) == k
    assert (start @ mixing.double()).abs().max(1).values.mean() < 0.7


@pytest.mark.parametrize("rows", [16, 24, 64])
def test_more_rows_than_components_have_other_directions(rows):
    """Columns stay orthonormal, each component has its row, and no two rows are nearly parallel."""
    normal = torch.randn(rows, 16, generator=seeded(3), dtype=torch.float64)
    found = overcomplete_components(heavy_tailed(8000, 16), torch.linalg.qr(normal).Q)
    torch.testing.assert_close(found.mT @ found, torch.eye(16, dtype=torch.float64))
    unit = torch.nn.functional.normalize(found, dim=1)
    assert len(set(unit[:16].abs().argmax(1).tolist())) == 16
    assert unit[:16].abs().max(1).values.mean() > 0.9
    cosine = (unit @ unit.mT).abs() - torch.eye(rows, dtype=torch.float64)
    assert cosine.max() < 0.9


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_stimuli_leave_the_rotation_as_it_is(n):
    start = torch.linalg.qr(torch.randn(6, 6, generator=seeded(), dtype=torch.float64)).Q
    torch.testing.assert_close(independent_components(torch.randn(n, 6, generator=seeded(1)), start), start)


def test_constant_and_huge_signals_give_finite_weights():
    signals = torch.randn(100, 4, generator=seeded()) * torch.tensor([1e18, 1.0, 1e-18, 0.0])
    assert torch.isfinite(spread_over_units(signals, 8, seeded())).all()


def test_trained_codes_keep_their_pairs_and_reach_a_lower_objective_than_from_random_weights():
    """Each pair has nearly opposite weights after training, which moves them freely."""
    x = heavy_tailed(4000, 8) @ torch.linalg.qr(torch.randn(8, 8, generator=seeded(5))).Q * math.sqrt(3.0)
    found = {}
    for init, start in (("linear_limit", -5.0), ("random", 0.0)):
        config = FitConfig.from_recipe("default", n_latents=16, steps=400, init=init, start=start)
        stack = Stack([config], x, (8,))
        train(stack)
        model = stack.result(0).model
        with torch.no_grad():
            parts = model(x, 1.0, 0.0, exact=True)
        found[init] = float(parts.total)
        if init == "linear_limit":
            weight = model.encoder.get_parameter("head.weight").detach()
            cosine = torch.nn.functional.cosine_similarity(weight[:8], weight[8:], dim=1)
    assert cosine.max() < -0.9
    assert found["linear_limit"] < found["random"]


def test_finished_fits_have_the_decoder_and_prior_that_are_optimal_on_the_training_set():
    """More stimuli were drawn than three training sets hold, so that all of them are used."""
    x = heavy_tailed(600, 6)
    stack = Stack([FitConfig.from_recipe("default", n_latents=12, steps=20, beta=b) for b in (0.5, 2.0)], x, (6,))
    train(stack)
    for i, beta in enumerate((0.5, 2.0)):
        model = stack.result(i).model.double()
        for p in model.parameters():
            p.requires_grad_(False)
        dictionary = model.decoder.get_parameter("head.weight").requires_grad_()
        model(x.double(), beta, 0.0, exact=True).total.backward()
        assert dictionary.grad.abs().max() < 1e-3
        torch.testing.assert_close(
            model.prior_log_rate.exp(), model.posterior(x.double()).mean.mean(0), rtol=1e-4, atol=0
        )
