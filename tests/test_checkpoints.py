"""Training that is stopped and resumed, to the bit; checkpoints that do not belong."""

import json

import pytest
import torch
from safetensors.torch import save_file
from training_cases import SHAPE, VARIANTS, fit

from spikevae.training import Interrupted, Stack, checkpoint, loop, train


@pytest.mark.parametrize("stop", [1, 7, 23, 39])
@pytest.mark.parametrize("variant", ["poisson exact", "poisson sampled", "poisson learned prior", "held out"])
def test_resume_is_exact_to_the_bit(stimuli, tmp_path, stop, variant):
    configs = [fit(**VARIANTS[variant], seed=i) for i in range(2)]
    whole = Stack(configs, stimuli, SHAPE, window=5)
    train(whole)
    first = Stack(configs, stimuli, SHAPE, window=5)
    train(first, until=stop)
    checkpoint.save(first, tmp_path / "c.safetensors")
    second = Stack(configs, stimuli, SHAPE, window=5)
    train(second, checkpoint_path=tmp_path / "c.safetensors")
    assert torch.equal(torch.stack(second.windows), torch.stack(whole.windows))
    for name, value in whole.state().items():
        assert torch.equal(second.state()[name], value), name


def test_interrupt_saves_and_continues(stimuli, tmp_path):
    path = tmp_path / "c.safetensors"
    stack = Stack([fit()], stimuli, SHAPE)

    def interrupt(half):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="step 20 of 40"):
        train(stack, checkpoint_path=path, at_half=interrupt)
    again = Stack([fit()], stimuli, SHAPE)
    train(again, checkpoint_path=path)
    whole = Stack([fit()], stimuli, SHAPE)
    train(whole)
    assert torch.equal(again.params["encoder.head.weight"], whole.params["encoder.head.weight"])


def test_a_checkpoint_that_cannot_be_written_ends_no_fit(stimuli, tmp_path, monkeypatch):
    """Training warns and goes on; interrupted, it says that nothing was kept."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "c.safetensors"
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    stack = Stack([fit()], stimuli, SHAPE)
    with pytest.warns(UserWarning, match=r"c\.safetensors cannot be written: .*Training goes on"):
        train(stack, checkpoint_path=path)
    assert stack.finished
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 1e9)

    def interrupt(half):
        raise KeyboardInterrupt

    with pytest.raises(OSError, match=r"c\.safetensors cannot be written"):
        train(Stack([fit()], stimuli, SHAPE), checkpoint_path=path, at_half=interrupt)


def test_checkpoints_of_others_are_refused(stimuli, tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(Stack([fit()], stimuli, SHAPE), path)
    with pytest.raises(ValueError, match="other fits or other data"):
        checkpoint.load(Stack([fit(beta=2.0)], stimuli, SHAPE), path)
    with pytest.raises(ValueError, match="other fits or other data"):
        checkpoint.load(Stack([fit()], stimuli.flip(0), SHAPE), path)
    for other in ({"shape": (1, 2, 8)}, {"window": 3}):
        with pytest.raises(ValueError, match="other fits or other data"):
            checkpoint.load(Stack([fit()], stimuli, **{"shape": SHAPE, **other}), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"c\.safetensors is damaged.*delete it"):
        checkpoint.load(Stack([fit()], stimuli, SHAPE), path)


def test_checkpoints_of_earlier_versions_are_read(stimuli, tmp_path):
    """They said less of the data."""
    path, stack = tmp_path / "c.safetensors", Stack([fit()], stimuli, SHAPE)
    train(stack, until=7)
    said = {"fits": [fit().model_dump(mode="json")], "train": [300, 16], "dtype": "torch.float32"}
    save_file(stack.state(), path, metadata={"format": checkpoint.FORMAT, "fits": json.dumps(said, sort_keys=True)})
    again = Stack([fit()], stimuli, SHAPE)
    checkpoint.load(again, path)
    assert again.step_number == 7


def test_a_state_that_does_not_fit_changes_nothing(stimuli):
    stack = Stack([fit()], stimuli, SHAPE)
    state = Stack([fit(seed=1)], stimuli, SHAPE).state()
    del state["ledger/windows"]
    before = stack.state()
    with pytest.raises(ValueError, match="ledger/windows"):
        stack.load_state(state)
    assert all(torch.equal(value, before[name]) for name, value in stack.state().items())
