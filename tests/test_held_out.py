"""Stimuli held out of training: never trained on, and the parameters with the lowest objective on them are kept."""

import numpy as np
import pytest
import torch
from training_cases import SHAPE, fit

import spikevae as sv
from spikevae.cli.single import _change_over_second_half
from spikevae.ensembles import train_vaes
from spikevae.evaluation.evaluate import evaluate
from spikevae.training import Rows, Stack, Window, train
from spikevae.training.fits import SETTLED
from spikevae.training.held_out import MAX_HELD_OUT, split

OVERFITS = {"latent": "gaussian", "decoder_update": "gradient", "init": "random", "n_latents": 6, "beta": 0.02}
OVERFITS |= {"cycles": 1, "batch_size": 20, "learning_rate": 0.02, "encoder": "mlp", "hidden": (64,)}


@pytest.fixture
def few():
    """(40, 16) noise with little to learn."""
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_parameters_kept_have_the_lowest_objective_on_held_out_stimuli(few):
    """The closed-form free energy of the model that is returned, against what was noted in training."""
    configs = [fit(**OVERFITS, steps=400, validation_fraction=0.5, seed=seed) for seed in range(2)]
    stack = Stack(configs, few, SHAPE)
    train(stack)
    _, held_out = split(few, 0.5)
    for index in range(2):
        result = stack.result(index)
        noted = result.history["held_out"]
        assert len(noted) == len(result.history["step"]) == 40
        assert 0 < int(np.argmin(noted)) < 39 and min(noted) < noted[-1] - 0.3  # it overfits
        objective = result.model(held_out, beta=0.02).total.item()
        assert objective == pytest.approx(min(noted), rel=1e-9)


def test_held_out_stimuli_are_never_trained_on():
    x = torch.arange(60.0)[:, None].expand(60, 16).contiguous()
    stack = Stack([fit(validation_fraction=0.2, batch_size=12, steps=8)], x, SHAPE)
    seen = set()
    for stack.step_number in range(8):  # two passes over 48 stimuli
        seen |= set(stack._batch()[:, 0].tolist())
    _, held_out = split(x, 0.2)
    assert len(held_out) == 12 and len(seen) == 48 and not seen & set(held_out[:, 0].tolist())


def test_which_are_held_out_does_not_depend_on_seeds_and_has_a_limit():
    first, second = (Stack([fit(validation_fraction=0.1, seed=s)], torch.randn(50, 16), SHAPE) for s in (0, 1))
    assert first.n_train == second.n_train == 45
    x = torch.arange(30_000.0)[:, None]
    rest, held_out = split(x, 0.5)
    assert (
        len(held_out) == MAX_HELD_OUT and sorted([*rest[:, 0].tolist(), *held_out[:, 0].tolist()]) == x[:, 0].tolist()
    )
    spread = held_out[:, 0].mean() / 15_000  # 5,000 of 30,000: standard error .0075
    assert abs(float(spread) - 1) < 0.03


def test_patience_watches_held_out_stimuli(few):
    given = {**OVERFITS, "steps": 2000, "patience": 5}
    plain = Stack([fit(**given)], few[:20], SHAPE, window=10)
    held = Stack([fit(**given, validation_fraction=0.5)], few, SHAPE, window=10)
    train(plain)
    train(held)
    result = held.result(0)
    assert result.status == SETTLED and result.frozen_at < plain.step_number
    assert result.history["objective"][-1] < result.history["objective"][len(result.history["step"]) // 2]


@pytest.mark.parametrize("given", [{"beta_anneal": 0.5}, {"latent": "poisson", "estimator": "monte_carlo"}], ids=str)
@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_patience_waits_for_the_last_beta_and_temperature(few, given, fraction):
    """Until then a higher objective is that of a higher beta or another temperature."""
    config = fit(**{**OVERFITS, "steps": 400, "patience": 2, "stop_tolerance": 0.5, "beta": 1.0, **given})
    stack = Stack([config.model_copy(update={"validation_fraction": fraction})], few, SHAPE, window=10)
    train(stack)
    result = stack.result(0)
    assert result.status == SETTLED and result.frozen_at == 230  # the first whole window ends at 210


def test_convergence_of_one_fit_is_that_of_what_it_keeps():
    """A fit that overfits in the second half of its steps has converged: more steps would not help it."""
    history = {"objective": [5.0, 4.0, 2.0, 1.0], "held_out": [5.0, 4.0, 6.0, 8.0]}
    assert _change_over_second_half(history, fit(cycles=2)) == 0.0
    del history["held_out"]
    assert _change_over_second_half(history, fit(cycles=2)) == 3.0
    history["held_out"] = [5.0, 4.0, 6.0, 2.0]
    assert _change_over_second_half(history, fit(cycles=2)) == 1.0


def test_sampled_objectives_are_measured_with_the_same_noise(stimuli):
    stack = Stack([fit(estimator="fini", validation_fraction=0.2, seed=s) for s in range(2)], stimuli, SHAPE)
    for _ in range(3):
        stack.step()
    first, second = stack._validate(), stack._validate()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    alone = Stack([fit(estimator="fini", validation_fraction=0.2, seed=1)], stimuli, SHAPE)
    for _ in range(3):
        alone.step()
    torch.testing.assert_close(alone._validate(), first[1:], rtol=1e-5, atol=0)


def test_the_objective_of_held_out_stimuli_does_not_change_while_the_temperature_falls(stimuli):
    """Else windows at different temperatures would be compared."""
    stack = Stack([fit(estimator="monte_carlo", validation_fraction=0.2)], stimuli, SHAPE)
    found = [stack._validate() for stack.step_number in (0, 10, 39)]
    torch.testing.assert_close(torch.cat(found), found[-1].expand(3), rtol=0, atol=0)
    _, held_out = split(stimuli, 0.2)
    model = stack.result(0).model
    draw = torch.Generator()
    mean = [
        model(held_out, temperature=0.05, indicator=stack.config.indicator, generator=draw.manual_seed(s)).total.item()
        for s in range(20)
    ]
    assert found[-1].item() == pytest.approx(np.mean(mean), abs=5 * np.std(mean))


def test_half_the_steps_keep_what_a_fit_of_half_the_steps_would(few):
    """Convergence compares the objective at half the budget with that of the parameters that are kept at the end."""
    stack = Stack([fit(**{**OVERFITS, "cycles": 2}, steps=400, validation_fraction=0.5)], few, SHAPE)
    found = []
    train(stack, at_half=lambda half: found.append((half.result(0, kept=True), half.result(0))))
    _, held_out = split(few, 0.5)
    (kept, present) = ((one.model(held_out, beta=0.02).total.item(), one) for one in found[0])
    assert kept[0] == pytest.approx(min(kept[1].history["held_out"]), rel=1e-9)
    assert present[0] == pytest.approx(present[1].history["held_out"][-1], rel=1e-9) and kept[0] < present[0] - 0.1


def test_held_out_counts_are_checked_as_the_others_are(stimuli):
    counts = stimuli.abs().round()
    _, held_out = split(torch.arange(len(counts))[:, None].float(), 0.2)
    counts[int(held_out[0, 0])] = -1
    with pytest.raises(ValueError, match="needs counts"):
        Stack([fit(likelihood="poisson", validation_fraction=0.2)], counts, SHAPE)


def test_training_is_that_of_the_other_stimuli_alone(stimuli):
    """Until the end, where the parameters kept are taken back."""
    x = stimuli.double()
    rest, _ = split(x, 0.2)
    held, plain = Stack([fit(validation_fraction=0.2)], x, SHAPE), Stack([fit()], rest, SHAPE)
    for _ in range(20):
        held.step()
        plain.step()
    for name, value in plain.params.items():
        torch.testing.assert_close(held.params[name], value, rtol=1e-9, atol=1e-12)


def test_stimuli_read_by_batch(stimuli):
    """From behind a function, as from an array in memory."""
    x = stimuli.numpy()
    rows = Rows(x.__getitem__, len(x), x.shape[1])
    config = fit(validation_fraction=0.2, init="random", decoder="mlp", hidden=(12,))
    stacks = [Stack([config], given, SHAPE) for given in (stimuli, rows)]
    for stack in stacks:
        train(stack)
    first, second = (stack.result(0).history["held_out"] for stack in stacks)
    assert first == pytest.approx(second, rel=1e-5)


def test_estimator_windows_and_files(few, tmp_path):
    X = few.float().numpy()
    given = {key: OVERFITS[key] for key in ("cycles", "decoder_update", "init", "hidden")}
    windows: list[Window] = []
    m = sv.SpikeVAE(
        "gaussian", 6, beta=0.02, steps=400, encoder="mlp", batch_size=20, learning_rate=0.02, options=given,
        validation_fraction=0.5, callbacks=[windows.append], random_state=0,
    ).fit(X)  # fmt: skip
    assert [window.held_out for window in windows] == m.history_["held_out"]
    assert windows[0].means()["held_out"] == windows[0].held_out
    _, held_out = split(torch.from_numpy(X), 0.5)
    assert m.model_(held_out, beta=0.02).total.item() == pytest.approx(min(m.history_["held_out"]), rel=1e-5)
    m.save(tmp_path / "m.spikevae")
    again = sv.load_model(tmp_path / "m.spikevae")
    assert again.validation_fraction == 0.5
    ours, theirs = (evaluate(fitted.model_, held_out, seed=0).metrics.free_energy for fitted in (m, again))
    assert ours == theirs
    m.partial_fit(X)  # all of them
    assert "held_out" not in m.history_


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"validation_fraction": 0.6}, "less than or equal to 0.5"),
        ({"validation_fraction": 0.1, "spike_budget": 0.1}, "set spike_price to the price that was found"),
        ({"validation_fraction": 0.1, "latent": "sparse"}, "leave it out"),
    ],
    ids=str,
)
def test_what_cannot_be_held_out(given, words):
    with pytest.raises(ValueError, match=words):
        fit(**given)


def test_too_few_stimuli_and_ensembles(few):
    with pytest.raises(ValueError, match="leaves none of 1 stimuli"):
        Stack([fit(validation_fraction=0.5)], few[:1], SHAPE)
    estimator = sv.SpikeVAE(n_latents=4, steps=20, validation_fraction=0.5, random_state=0)
    with pytest.raises(ValueError, match="leave validation_fraction out"):
        train_vaes(estimator, few.float().numpy(), 2)
