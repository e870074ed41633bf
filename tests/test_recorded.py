"""Steps recorded as traced graphs, and steps that stay on their device."""

import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_cases import SHAPE, VARIANTS, fit

from spikevae.distributions import LAWS
from spikevae.training import Stack, checkpoint, recorded, train

ITERATIVE = {
    f"iterative {latent}{', guarded' if guard else ''}": {"latent": latent, "inference": "iterative", "guard": guard}
    for latent in ("poisson", "gaussian", "rectified_gaussian", "bernoulli")
    for guard in (False, True)
    if not guard or latent in ("poisson", "gaussian")
}

OTHERS = {
    "hierarchical": {"upper": (4,)},
    "hierarchical, fini": {"upper": (4,), "estimator": "fini"},
    "natural gradient": {"inference": "iterative", "guard": False, "learning": "natural_gradient", "optimizer": "sgd"},
    "sampled iterative": {"inference": "iterative", "dynamics": "sampled", "inference_steps": 3},
    "iterative, mlp": {"inference": "iterative", "decoder": "mlp", "hidden": (12,), "inference_steps": 3},
    "gumbel": {"estimator": "monte_carlo", "indicator": "gumbel"},
    "sigmoid": {"estimator": "monte_carlo", "indicator": "sigmoid"},
    "bernoulli pixels": {"decoder": "mlp", "likelihood": "bernoulli", "hidden": (12,)},
}

CASES = {**VARIANTS, **ITERATIVE, **OTHERS}

NOT_RECORDED = {"law conway_maxwell_poisson", "law gaussian_softplus", "iterative rectified_gaussian"} | {
    name for name in ITERATIVE if "guarded" in name
}

"""They ask for values on the way: how many terms a series needs, whether a guard holds."""


FAST = ("poisson exact", "poisson sampled", "gaussian", "iterative poisson", "iterative poisson, guarded")
SAME = ("law poisson", "law gaussian")  # as the variants of these names
RECORDED = [
    *(pytest.param(name, 3, marks=() if name in FAST else pytest.mark.slow) for name in CASES if name not in SAME),
    ("poisson exact", 1),
    pytest.param("poisson sampled", 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("variant", "n_fits"), RECORDED)
def test_recorded_steps_are_the_same_to_the_bit(stimuli, variant, n_fits, monkeypatch):
    configs = [fit(**CASES[variant], beta=b) for b in (0.1, 1.0, 4.0)[:n_fits]]
    states = []
    for after in (3, 1000):
        monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", after)
        monkeypatch.setattr(recorded, "MIN_CALLS_LEFT", 0)
        stack = Stack(configs, stimuli, SHAPE, window=5)
        train(stack, until=30 if configs[0].draws else 12)  # temperatures fall for 20 steps
        states.append(stack.state())
        if after == 3:
            assert stack.is_recorded == (variant not in NOT_RECORDED)
    for name, value in states[0].items():
        assert torch.equal(value.nan_to_num(), states[1][name].nan_to_num()), name


@pytest.mark.parametrize("stop", [2, 3, 4, 5, 17])
def test_resume_across_the_start_of_recording_is_exact(stimuli, tmp_path, stop, monkeypatch):
    """A recording is made at step 3, checked at step 4, and run from step 5 on."""
    monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", 3)
    monkeypatch.setattr(recorded, "MIN_CALLS_LEFT", 0)
    whole = Stack([fit()], stimuli, SHAPE)
    train(whole)
    first, second = (Stack([fit()], stimuli, SHAPE) for _ in range(2))
    train(first, until=stop)
    checkpoint.save(first, tmp_path / "c.safetensors")
    train(second, checkpoint_path=tmp_path / "c.safetensors")
    assert whole.is_recorded and second.is_recorded
    for name, value in whole.state().items():
        assert torch.equal(second.state()[name], value), name


def test_what_is_nearly_done_is_not_recorded(stimuli, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", 3)
    monkeypatch.setattr(recorded, "MIN_CALLS_LEFT", 20)
    first, second = (Stack([fit()], stimuli, SHAPE) for _ in range(2))
    train(first, until=20)
    checkpoint.save(first, tmp_path / "c.safetensors")
    train(second, checkpoint_path=tmp_path / "c.safetensors")
    assert first.is_recorded and not second.is_recorded


def test_recordings_in_threads_leave_torch_as_it_was(stimuli, monkeypatch):
    monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", 3)
    monkeypatch.setattr(recorded, "MIN_CALLS_LEFT", 0)
    before = torch.nn.Module.__call__, torch.nn.Module.__getattr__
    stacks = [Stack([fit(seed=i, encoder="mlp")], stimuli, SHAPE) for i in range(6)]
    threads = [threading.Thread(target=train, args=(stack,)) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (torch.nn.Module.__call__, torch.nn.Module.__getattr__) == before
    assert all(stack.is_recorded for stack in stacks)


def test_what_depends_on_more_than_its_arguments_is_not_recorded(monkeypatch):
    monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", 1)
    hidden = iter(range(100))
    function = recorded.Recorded(lambda x: {"y": x * next(hidden)}, 1000)
    assert [float(function(torch.ones(1))["y"]) for _ in range(3)] == [0, 2, 3]  # the recording took 1
    assert not function.is_recorded
    branching = recorded.Recorded(lambda x: x if x.sum() > 0 else -x, 1000)
    assert [float(branching(torch.tensor([x]))) for x in (1.0, -2.0, 3.0)] == [1, 2, 3]
    assert not branching.is_recorded


class NoHostReads(TorchDispatchMode):
    """Fails where the host reads a value from a tensor, which on a GPU would wait for everything before it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host read a tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", ["poisson exact", "poisson learned prior", "gaussian"])
def test_no_host_read_within_a_step(stimuli, variant, monkeypatch):
    """As a GPU would run it: work on diverged fits is done without asking whether there are any."""
    settings = {**VARIANTS[variant], "optimizer": "adam"}
    stack = Stack([fit(**settings, seed=seed) for seed in (0, 1)], stimuli, SHAPE, window=1000)
    monkeypatch.setattr(Stack, "_any_or_gpu", lambda self, which: True)
    with NoHostReads():
        for _ in range(12):  # over a solution of the decoder
            stack.step()
    assert stack.step_number == 12


@pytest.mark.parametrize("n_fits", [1, 2])
@pytest.mark.parametrize("variant", ["poisson exact", "learned noise", *(f"law {name}" for name in LAWS)])
def test_a_step_keeps_to_its_device(stimuli, variant, n_fits):
    """On the device of tensors without values any other device's tensor, and any host read, is an error."""
    settings = {**VARIANTS[variant], "init": "random", "optimizer": "adamax"}  # fused Adam has no kernel there
    if variant in NOT_RECORDED or fit(**settings).draws:
        pytest.skip("reads values, or draws with a generator, which that device lacks")
    stack = Stack([fit(**settings, seed=seed) for seed in range(n_fits)], stimuli, SHAPE, device="meta", window=1000)
    for _ in range(12):
        stack.step()
    assert stack.step_number == 12 and all(p.device.type == "meta" for p in stack.params.values())


def test_relaxed_counts_are_seen_to_read_on_a_cpu(stimuli):
    """There the number of arrivals is asked for; so the test above would notice."""
    stack = Stack([fit(estimator="monte_carlo")], stimuli, SHAPE)
    with pytest.raises(AssertionError, match="the host read"), NoHostReads():
        stack.step()
