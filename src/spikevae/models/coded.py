"""What a model makes of a batch of stimuli, and the models that find codes without a posterior."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from ..networks import LinearNetwork, dense_macs


class CodeKind(Protocol):
    """What has to be known of a code to account for it; every law of the code says it."""

    is_count: ClassVar[bool]
    """Whether codes are non-negative integers."""
    has_rate: ClassVar[bool]
    """Whether codes are non-negative with a unit of their own, so that a firing rate is defined."""


class Coded(NamedTuple):
    """A batch of stimuli, coded and decoded."""

    code: Tensor
    """(B, K) hard codes."""
    mean: Tensor
    """(B, K) mean codes; the same where codes are deterministic."""
    kl: Tensor | None
    """(B, K) nats from prior to posterior; None without a posterior."""
    pixels: Tensor
    """(B, D) decoded codes."""
    pixels_of_mean: Tensor
    """(B, D) decoded mean codes."""
    distortion: Tensor
    """(B,) nats."""
    penalty: Tensor | None = None
    """(B,) nats that the model's own objective adds to the distortion; None: beta * kl + spike_price * spikes."""
    macs: Tensor | None = None
    """(B,) multiply-accumulates spent on finding the code; None: those of the dense encoder."""
    facts: dict[str, Tensor] | None = None
    """(B,) each: what else there is to know of how a stimulus was coded."""
    prior_mean: Tensor | None = None
    """(B, K) prior mean codes where each stimulus has its own prior; None: one prior for all, or none."""


class Coder(nn.Module, ABC):
    """A model with a linear decoder whose codes are found without a posterior."""

    law: type[CodeKind]
    shape: tuple[int, ...]
    n_latents: int
    n_features: int
    decoder: LinearNetwork

    @abstractmethod
    def coded(self, x: Tensor) -> Coded:
        """Codes of stimuli (B, D) and what they decode to."""

    def sample_codes(self, x: Tensor, *, generator: object = None) -> Tensor:
        """Codes (B, K) of stimuli (B, D); there is no chance in them, and `generator` has no use."""
        return self.coded(x).code

    def decoder_macs(self) -> int:
        """Multiply-accumulates from one code to its pixels."""
        return dense_macs(self.decoder, self.n_latents)

    def fan_outs(self) -> list[int]:
        """Synapses that each unit drives directly, K numbers."""
        return [self.decoder.fan_out] * self.n_latents
