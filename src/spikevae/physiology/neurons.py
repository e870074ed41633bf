"""What an experiment needs of a model, and a control that has the same filters and no lateral inhibition."""

from collections.abc import Iterable
from typing import Any, Protocol, Self, final, runtime_checkable

import torch
from torch import Tensor

from ..data.sequences import image_size
from ..distributions import Poisson
from ..distributions._law import Law
from ..distributions._random import Generator
from ..models.codes import CodeKind


@runtime_checkable
class Neurons(Protocol):
    """Units that are shown one frame after another and say after each how much they fire."""

    law: type[CodeKind]
    shape: tuple[int, ...]
    n_latents: int

    def init_state(self, n: int) -> Any:
        """Before the first frame of n streams."""
        ...

    def infer_step(self, state: Any, x: Tensor, *, generator: Generator | None = None) -> Any:
        """The state after one more frame (n, D)."""
        ...

    def codes(self, state: Any) -> Tensor:
        """(n, K) expected spikes of the step that follows."""
        ...

    def law_of(self, state: Any) -> Law:
        """The law of those spikes."""
        ...


def is_neural(model: Any) -> bool:
    """Whether experiments can be done on a model: it infers step by step, has firing rates, and sees images."""
    if not isinstance(model, Neurons) or not model.law.has_rate:
        return False
    try:
        image_size(model.shape)
    except ValueError:
        return False
    return True


def check(model: Any) -> None:
    """Refuse a model that experiments cannot be done on, saying why."""
    if not isinstance(model, Neurons):
        raise ValueError(
            f"{type(model).__name__} finds its codes at once: physiology needs a model that infers step by step; train "
            "one with --set 'inference=\"iterative\"'"
        )
    if not model.law.has_rate:
        raise ValueError("physiology needs a code with firing rates; this one is signed. Train with --latent poisson")
    image_size(model.shape)


def place(model: Neurons) -> Tensor:
    """An empty tensor of the model's type and device."""
    return model.codes(model.init_state(1)).new_empty(0)


@torch.inference_mode()
def mean_response(
    model: Neurons, frames: Iterable[Tensor], *, skip: int, background: float, generator: Generator
) -> Tensor:
    """(n, K) expected spikes per step, mean over the frames after the first `skip`, on the CPU in double.

    Expected spikes given the state, not counts: the same mean without the noise of counting.

    Parameters
    ----------
    frames
        (n, D) each.
    background
        Added to all pixels.
    """
    like, total, state, seen = place(model), torch.zeros(()), None, 0
    for frame in frames:
        state = model.init_state(len(frame)) if state is None else state
        state = model.infer_step(state, frame.to(like) + background, generator=generator)
        seen += 1
        if seen > skip:
            total = total + model.codes(state)
    return (total / (seen - skip)).double().cpu()


@final
class LinearNonlinear:
    r"""Rectified filters, each for itself: ``gain max(0, w_k^T (x - b))`` expected spikes per step, Poisson counts.

    Mean responses to gratings of random phase are convex in the stimulus here, so that a mask cannot lower them: what
    suppression a model shows beyond this control is not made by its filters.

    Parameters
    ----------
    weights
        (K, D) filters.
    shape
        Of a stimulus.
    bias
        (D,) taken off the stimulus; nothing if not given.
    gain
        Expected spikes per unit of drive.

    References
    ----------
    Carandini, Demb, Mante, Tolhurst, Dan, Olshausen, Gallant and Rust (2005), "Do we know what the early visual system
    does?", J. Neurosci. 25.

    Examples
    --------
    >>> cell = LinearNonlinear(torch.tensor([[1.0, -1.0]]), (1, 2))
    >>> cell.codes(cell.infer_step(cell.init_state(1), torch.tensor([[3.0, 1.0]])))
    tensor([[2.]])
    """

    law: type[CodeKind] = Poisson

    def __init__(self, weights: Tensor, shape: tuple[int, ...], bias: Tensor | None = None, gain: float = 1.0) -> None:
        self.weights, self.shape, self.bias, self.gain = weights, shape, bias, gain
        self.n_latents = len(weights)

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """With the dictionary of a model as filters; None if it has none."""
        weights = getattr(model, "dictionary", None)
        if weights is None:
            return None
        bias = getattr(model.decoder.head, "bias", None)
        return cls(weights.detach(), model.shape, None if bias is None else bias.detach())

    def init_state(self, n: int) -> Tensor:
        return self.weights.new_zeros(n, self.n_latents)

    def infer_step(self, state: Tensor, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        centred = x if self.bias is None else x - self.bias
        return self.gain * (centred @ self.weights.mT).clamp_min(0)

    def codes(self, state: Tensor) -> Tensor:
        return state

    def law_of(self, state: Tensor) -> Law:
        return Poisson(state.clamp_min(torch.finfo(state.dtype).tiny).log())
