"""A step of a stack as one CUDA graph: launched at once, with nothing left for the host to do in between.

A step is some hundred small operations. A GPU is done with each sooner than the host can launch the next, unless all of
them are captured once and launched together from then on. What changes from step to step (batch, beta, spike prices,
limit of the gradient norm, number of the step) is copied to buffers that the graph reads. Random numbers are those of
the plain step: the graph takes the state that its generators have when it is launched.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Largest difference between a captured step and the plain one, as a share of the largest number of a tensor."""


class StepInputs(NamedTuple):
    """What a step takes beside the state of the fits."""

    x: Tensor
    """(F, B, D) batches, or (B, D) where all fits share one."""
    beta: Tensor
    """(F,)."""
    price: Tensor
    """(F,) nats per spike."""
    seeds: Tensor | None
    """(F,) seeds of the noise, on the CPU; None: the generators are seeded already."""
    limit: Tensor | float
    """Of the gradient norm."""
    step: Tensor | int
    """Number of steps before this one."""


Outputs = tuple[Tensor, Tensor]
Step = Callable[[StepInputs], Outputs]


class Captured:
    """`function`, captured by a CUDA graph and replayed if that gives the same numbers; else as it is, with a warning.

    Parameters
    ----------
    function
        Changes tensors in place on one GPU, without the host reading any. Inputs keep their shapes.
    changed
        Gives the tensors that it changes: the same tensors at every call from the first capture on.
    generators
        Give its random numbers, seeded by the inputs.
    """

    def __init__(
        self,
        function: Step,
        changed: Callable[[], Sequence[Tensor]],
        generators: Callable[[], Sequence[torch.Generator]],
    ) -> None:
        self._function, self._changed, self._generators = function, changed, generators
        self._replay: Callable[[], None] | None = None
        self._static: StepInputs | None = None
        self._outputs: Outputs | None = None
        self.reason: str | None = None
        """Why steps are not captured, once that was tried in vain."""

    @property
    def is_captured(self) -> bool:
        """Whether calls replay the graph."""
        return self._replay is not None

    def forget(self) -> None:
        """Drop the graph: its tensors or generators have been replaced, or inputs have other shapes."""
        self._replay = self._static = self._outputs = None

    def __call__(self, inputs: StepInputs, *, can_start: bool) -> Outputs:
        """Do a step; `can_start`: capture it if it is not yet."""
        if self._replay is None and can_start and self.reason is None:
            self._try(inputs)
        return self._function(inputs) if self._replay is None else self._launch(inputs)

    def _launch(self, inputs: StepInputs) -> Outputs:
        assert self._replay is not None and self._static is not None and self._outputs is not None
        for own, given in zip(self._static, inputs):
            if isinstance(own, Tensor) and given is not None:
                own.copy_(given) if isinstance(given, Tensor) else own.fill_(given)
        self._seed(inputs)
        self._replay()
        return self._outputs

    def _seed(self, inputs: StepInputs) -> None:
        if inputs.seeds is not None:
            for one, seed in zip(self._generators(), inputs.seeds.tolist()):
                one.manual_seed(seed)

    def _try(self, inputs: StepInputs) -> None:
        """Capture a step and compare it with the plain one; both are undone."""
        before = [tensor.clone() for tensor in self._changed()]
        try:
            self._function(inputs)
            expected = [tensor.clone() for tensor in self._changed()]
            self._restore(before)
            self._static = _static(inputs)
            self._seed(inputs)
            self._replay, self._outputs = self._capture(self._static, before)
            self._launch(inputs)
            self.reason = _difference(expected, self._changed())
        except Exception as error:
            self.reason = " ".join(str(error).split())[:300] or type(error).__name__
        self._restore(before)
        if self.reason is not None:
            self.forget()
            warnings.warn(
                f"training steps are not captured as a CUDA graph ({self.reason}): each operation is launched by "
                "itself, with the same results in more time",
                RuntimeWarning,
                stacklevel=4,
            )

    def _restore(self, before: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._changed(), before, strict=True):
            tensor.copy_(value)

    def _capture(self, static: StepInputs, before: Sequence[Tensor]) -> tuple[Callable[[], None], Outputs]:
        """A function that replays the step on the static inputs, and its outputs."""
        device = static.x.device
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # libraries allocate their workspaces for this stream now
            self._function(static)
            self._restore(before)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        for one in self._generators():
            graph.register_generator_state(one)
        current = torch.cuda.current_stream(device)
        try:
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                outputs = self._function(static)
        except BaseException:  # PyTorch leaves the stream, and older versions the generators, as in a capture
            torch.cuda.set_stream(current)
            for one in (*self._generators(), torch.cuda.default_generators[current.device_index]):
                _renew(one)
            raise
        return graph.replay, outputs


def _renew(generator: torch.Generator) -> None:
    """Give a generator of a GPU another state with the same seed and place, of which no capture knows."""
    fresh = torch.Generator(generator.device)
    fresh.set_state(generator.get_state())
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


def _static(inputs: StepInputs) -> StepInputs:
    """Buffers for the inputs on the device of the batch; the generators are seeded from outside."""
    like = inputs.x
    return StepInputs(
        x=like.clone(),
        beta=inputs.beta.clone(),
        price=inputs.price.clone(),
        seeds=None,
        limit=torch.full((), float(inputs.limit), dtype=like.dtype, device=like.device),
        step=torch.full((), int(inputs.step), dtype=torch.int64, device=like.device),
    )


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> str | None:
    """What differs by more than rounding; None if nothing does."""
    for a, b in zip(expected, found, strict=True):
        a, b = a.double().nan_to_num(), b.double().nan_to_num()
        allowed = TOLERANCE * float(a.abs().max()) if a.numel() else 0.0
        if a.numel() and float((a - b).abs().max()) > allowed:
            return f"a captured step differs from the plain one by {float((a - b).abs().max()):.2g} of {allowed:.2g}"
    return None
