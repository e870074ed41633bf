"""The interface that experiments need, and a control with the same filters and without lateral inhibition."""

from collections.abc import Iterable
from typing import Any, Protocol, Self, final, runtime_checkable

import torch
from torch import Tensor

from ..data.sequences import image_size
from ..distributions import Poisson
from ..distributions._law import Law
from ..distributions._random import Generator
from ..models._model import LatentModel
from ..models.codes import CodeKind


@runtime_checkable
class Neurons(Protocol):
    """Units with a state, which is updated by each frame and gives their firing rates."""

    law: type[CodeKind]
    shape: tuple[int, ...]
    n_latents: int

    def init_state(self, n: int) -> Any:
        """State before the first frame of n streams."""
        ...

    def infer_step(self, state: Any, x: Tensor, *, generator: Generator | None = None) -> Any:
        """State after one more frame (n, D)."""
        ...

    def codes(self, state: Any) -> Tensor:
        """(n, K) expected spikes of the next step."""
        ...

    def law_of(self, state: Any) -> Law:
        """Law of these spikes."""
        ...


@final
class FrameByFrame:
    """A model whose encoder codes each frame by itself, as neurons whose state is the code of the last frame.

    Parameters
    ----------
    model
        With a posterior, firing rates, and images as stimuli.
    """

    law: type[CodeKind]

    def __init__(self, model: LatentModel) -> None:
        self.model, self.law, self.shape, self.n_latents = model, model.law, model.shape, model.n_latents
        self.dictionary, self.decoder = model.dictionary, model.decoder

    def init_state(self, n: int) -> Law:
        return self.infer_step(None, next(self.model.parameters()).new_zeros(n, self.model.n_features))

    def infer_step(self, state: Law | None, x: Tensor, *, generator: Generator | None = None) -> Law:
        return self.model.posterior(x, generator=generator)

    def codes(self, state: Law) -> Tensor:
        return state.mean

    def law_of(self, state: Law) -> Law:
        return state


def is_neural(model: Any) -> bool:
    """Whether experiments can be done on a model as it is: infers step by step, has firing rates, sees images."""
    if not isinstance(model, Neurons) or not model.law.has_rate:
        return False
    try:
        image_size(model.shape)
    except ValueError:
        return False
    return True


def as_neurons(model: Any) -> Neurons:
    """A model as neurons: one that infers step by step is returned; one with an encoder codes each frame by itself.

    Raises
    ------
    ValueError
        For a model on which experiments cannot be done.
    """
    if not isinstance(model, Neurons) and not isinstance(model, LatentModel):
        raise ValueError(
            f"{type(model).__name__} has no firing rates of a posterior, which physiology needs: it takes models of "
            "counts and rectified codes, amortised or iterative, of images"
        )
    if not model.law.has_rate:
        raise ValueError(
            "physiology needs a code with firing rates, and this one is signed: train with --latent poisson"
        )
    image_size(model.shape)
    return model if isinstance(model, Neurons) else FrameByFrame(model)


def place(model: Neurons) -> Tensor:
    """An empty tensor with the model's dtype and device."""
    return model.codes(model.init_state(1)).new_empty(0)


@torch.inference_mode()
def mean_response(
    model: Neurons, frames: Iterable[Tensor], *, skip: int, background: float, generator: Generator
) -> Tensor:
    """(n, K) expected spikes per step, mean over the frames after the first `skip`, on the CPU in float64.

    Expected spikes given the state have the same mean as counts, without their noise.

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
    r"""Rectified filters without interaction: ``gain max(0, w_k^T (x - b))`` expected spikes per step, Poisson counts.

    Mean responses to gratings of random phase are convex in the stimulus here, so that a mask cannot lower them. Any
    suppression beyond that of this control is not due to a model's filters.

    Parameters
    ----------
    weights
        (K, D) filters.
    shape
        Shape of a stimulus.
    bias
        (D,) subtracted from the stimulus; zero by default.
    gain
        Expected spikes per unit of drive.

    References
    ----------
    Carandini, Demb, Mante, Tolhurst, Dan, Olshausen, Gallant and Rust (2005), "Do we know what the early visual system
    does?", J. Neurosci. 25.

    Examples
    --------
    >>> model = LinearNonlinear(torch.tensor([[1.0, -1.0]]), (1, 2))
    >>> model.codes(model.infer_step(model.init_state(1), torch.tensor([[3.0, 1.0]])))
    tensor([[2.]])
    """

    law: type[CodeKind] = Poisson

    def __init__(self, weights: Tensor, shape: tuple[int, ...], bias: Tensor | None = None, gain: float = 1.0) -> None:
        self.weights, self.shape, self.bias, self.gain = weights, shape, bias, gain
        self.n_latents = len(weights)

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """With a model's dictionary as filters; None if it has no dictionary."""
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
