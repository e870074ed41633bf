"""Steps as one CUDA graph. On a CPU the graph's place is taken by calling the step again on the graph's buffers."""

import pytest
import torch
from training_cases import SHAPE, VARIANTS, fit

from spikevae.training import Stack, captured, recorded, train

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CASES = {
    **{name: VARIANTS[name] for name in ("poisson exact", "poisson sampled", "poisson fini", "mlp", "learned noise")},
    "price found": {"spike_budget": 0.1, "budget_per": "unit"},
    "stops early": {"patience": 2, "stop_tolerance": 0.5},
    "bernoulli": {"latent": "bernoulli"},
    "negative binomial": {"latent": "negative_binomial"},
}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Steps are captured as soon as they are all alike."""
    monkeypatch.setattr(recorded, "CALLS_BEFORE_TRACE", 2)
    monkeypatch.setattr(recorded, "MIN_CALLS_LEFT", 0)
    monkeypatch.setattr("spikevae.training.decoder.AVERAGED_STEPS", 5)


def on_buffers(self, static, before):
    """In place of a graph: the step on the same buffers, with its outputs in the same place at every call."""
    outputs = tuple(output.clone() for output in self._function(static))
    self._restore(before)

    def replay():
        for own, new in zip(outputs, self._function(static)):
            own.copy_(new)

    return replay, outputs


def stacks(variant, stimuli, n_fits, device="cpu"):
    configs = [fit(**CASES[variant], beta=beta, seed=seed) for seed, beta in enumerate((0.5, 2.0)[:n_fits])]
    plain, own = (Stack(configs, stimuli, SHAPE, window=8, device=device) for _ in range(2))
    plain.capture = None
    own.capture = captured.Captured(own._advance, own._changed, own._generators)
    return plain, own


def assert_equal(own, plain, rtol=1e-4, atol=1e-4):
    """To rounding, which depends on the place of the batch in memory."""
    for name, value in plain.state().items():
        torch.testing.assert_close(own.state()[name], value, rtol=rtol, atol=atol, equal_nan=True, msg=name)


@pytest.mark.parametrize("n_fits", [1, 2])
@pytest.mark.parametrize("variant", CASES)
def test_a_step_on_the_buffers_of_a_graph_is_the_plain_step(stimuli, variant, n_fits, monkeypatch):
    monkeypatch.setattr(captured.Captured, "_capture", on_buffers)
    plain, own = stacks(variant, stimuli, n_fits)
    for stack in (plain, own):
        train(stack)
    assert own.capture.is_captured and own.capture.reason is None
    assert_equal(own, plain)


@pytest.mark.parametrize("fault", ["refused", "wrong"])
def test_a_step_that_cannot_be_captured_is_done_as_it_is(stimuli, fault, monkeypatch):
    def capture(self, static, before):
        if fault == "refused":
            self._function(static)  # it has changed the fits when it fails
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        outputs = self._function(static)
        self._restore(before)
        return lambda: None, outputs  # a replay that does nothing

    monkeypatch.setattr(captured.Captured, "_capture", capture)
    plain, own = stacks("poisson sampled", stimuli, 2)
    train(plain)
    expected = "operation not permitted" if fault == "refused" else "differs from the plain one"
    with pytest.warns(RuntimeWarning, match=f"not captured as a CUDA graph .*{expected}") as warned:
        train(own)
    assert len(warned) == 1 and not own.capture.is_captured
    assert_equal(own, plain)


def test_a_checkpoint_that_is_loaded_drops_the_graph(stimuli, monkeypatch):
    """Loading replaces the tensors whose places a graph knows."""
    monkeypatch.setattr(captured.Captured, "_capture", on_buffers)
    plain, own = stacks("poisson exact", stimuli, 2)
    train(own, until=20)
    state = {name: value.clone() for name, value in own.state().items()}
    train(own, until=30)
    own.load_state(state)
    assert not own.capture.is_captured
    train(own)
    train(plain)
    assert_equal(own, plain)


def test_other_generators_or_sizes_of_batches_drop_the_graph(stimuli, monkeypatch):
    """A graph draws from the generators, and copies batches of the size, that it was captured with."""
    monkeypatch.setattr(captured.Captured, "_capture", on_buffers)
    plain, own = stacks("poisson fini", stimuli, 2)
    for stack in (plain, own):
        train(stack, until=20)
        assert stack is plain or stack.capture.is_captured
        stack.join(None)  # as at the end of a training by several processes: with generators anew
    assert not own.capture.is_captured
    for stack in (plain, own):
        train(stack, until=30)
    assert own.capture.is_captured
    for stack in (plain, own):
        stack.one_pass(stimuli[:70])  # batches of 35
    assert_equal(own, plain)


def test_without_a_gpu_nothing_is_captured(stimuli):
    assert Stack([fit()], stimuli, SHAPE).capture is None


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("n_fits", [1, 2])
@pytest.mark.parametrize("variant", CASES)
def test_captured_steps_are_plain_steps_on_a_gpu(stimuli, variant, n_fits):
    plain, own = stacks(variant, stimuli, n_fits, "cuda")
    for stack in (plain, own):
        train(stack)
    assert own.capture.is_captured, own.capture.reason
    assert_equal(own, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@needs_cuda
def test_after_a_capture_that_fails_stream_and_generators_are_as_before(stimuli):
    plain, own = stacks("poisson sampled", stimuli, 2, "cuda")

    def reads(inputs):
        found = own._advance(inputs)
        found[0].sum().item()  # the host waits, which no capture can
        return found

    own.capture = captured.Captured(reads, own._changed, own._generators)
    stream = torch.cuda.current_stream()
    with pytest.warns(RuntimeWarning, match="not captured as a CUDA graph"):
        train(own)
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device="cuda").isfinite().all()
    train(plain)
    assert_equal(own, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("variant", ["poisson exact", "poisson sampled", "poisson fini", "price found"])
def test_the_host_never_waits_within_a_step(stimuli, variant):
    """PyTorch raises an error where the host would wait for the GPU, in plain and in captured steps of three epochs."""
    plain, own = stacks(variant, stimuli, 2, "cuda")
    for stack in (plain, own):
        stack.window = 10_000
        train(stack, until=12)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(15):
                stack.step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    assert own.capture.is_captured and plain.capture is None
