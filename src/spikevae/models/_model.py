"""What every model shares: a law of the code, a prior, a decoder and the likelihood of pixels."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions import get_law
from ..distributions._law import Law
from ..distributions._random import Generator
from ..networks import build_decoder, build_encoder, dense_macs
from ..objectives import FreeEnergy, bernoulli_distortion, expected_squared_error, gaussian_distortion, squared_error
from .codes import CodeKind
from .config import EncoderConfig, ModelConfig


class CodedBatch(NamedTuple):
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


class Model(nn.Module, ABC):
    """What every model can do: code stimuli, decode codes, and state what that costs.

    Subclasses are final. Nothing outside a model asks which class it is.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; an instance of `config_class`.
    """

    config_class: ClassVar[type[ModelConfig]]
    """Class of its configuration, whose `inference` is the model's name in configurations and files."""
    has_posterior: ClassVar[bool]
    """Whether codes are drawn from a posterior, so that there are a prior and a coding rate."""
    config: ModelConfig
    law: type[CodeKind]
    decoder: nn.Module
    log_noise_variance: Tensor
    layers: list[slice]
    """The units of each layer of codes, the lowest first; most models have one layer."""

    def __init__(self, shape: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        self.shape, self.config, self.n_latents = tuple(shape), config, config.n_latents
        self.n_features = math.prod(shape)
        self.layers = [slice(0, config.n_latents)]

    @abstractmethod
    def code(self, x: Tensor, *, generator: Generator) -> CodedBatch:
        """Stimuli (B, D) coded, by one sample each where there is a posterior, and what evaluations need beside it."""

    def mean_code(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Mean codes (B, K); `generator` is for inference that draws."""
        return self.code(x, generator=generator).mean

    def sample_codes(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Hard codes (B, K) of stimuli (B, D), one each."""
        return self.code(x, generator=generator).code

    def decode(self, code: Tensor) -> Tensor:
        """Mean pixels (B, D) of codes (B, K)."""
        return self.decoder(code)

    @property
    def dictionary(self) -> Tensor | None:
        """(K, D) where the decoder is linear, else None."""
        return getattr(self.decoder, "dictionary", None)

    @property
    def label(self) -> str:
        """Short description: the law of the code, and the inference where it is not amortised."""
        return self.law.name

    def prior_firing_rates(self) -> Tensor | None:
        """(K,) prior mean spikes per unit per stimulus, or None where there are none."""
        return None

    def inference_macs(self) -> int | None:
        """Multiply-accumulates of finding one code, dense; None where they depend on the stimulus."""
        return None

    def decoder_macs(self) -> int:
        """Multiply-accumulates from one code to its pixels."""
        return dense_macs(self.decoder, self.n_latents)

    def fan_outs(self) -> list[int]:
        """Synapses that each unit drives directly, K numbers."""
        fan_out = self.decoder.fan_out
        assert isinstance(fan_out, int)
        return [fan_out] * self.n_latents


class LatentModel(Model):
    """The generative half, ``z_k ~ prior_k``, ``x ~ likelihood(decoder(z))``; how a posterior is found is left open.

    Subclasses are final. They build what they need for inference and call :meth:`_build_generative_half`.
    """

    has_posterior: ClassVar[bool] = True
    law: type[Law]

    def __init__(self, shape: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__(shape, config)
        self.clamp, self.prior_mode, self.likelihood = config.clamp, config.prior, config.likelihood
        self.law = get_law(config.latent)

    def _build_encoder(self, config: EncoderConfig, generator: torch.Generator) -> nn.Module:
        """The encoder for all units of all layers."""
        return build_encoder(
            config.encoder,
            self.shape,
            self.law.n_params * self.n_latents,
            bias=config.encoder_bias,
            hidden=config.hidden,
            init_scale=config.init_scale,
            generator=generator,
        )

    def _build_generative_half(self, generator: torch.Generator, n_inputs: int | None = None) -> None:
        """Build decoder, prior and noise; the decoder takes `n_inputs` units if not all."""
        config = self.config
        self.decoder = build_decoder(
            config.decoder,
            n_inputs or self.n_latents,
            self.shape,
            bias=config.decoder_bias,
            hidden=config.hidden,
            init_scale=config.init_scale,
            generator=generator,
        )
        values = self.law.initial_prior(self.n_latents, config.start, config.start_spread, generator)
        for name, value in values.items():
            if config.prior == "learned":
                self.register_parameter(f"prior_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"prior_{name}", value)
        if config.prior == "closed_form":
            self.register_buffer("prior_moments", self.law.from_prior(values).moments().clone())
        if config.noise_variance == "learned":
            self.log_noise_variance = nn.Parameter(torch.tensor(math.log(0.5)))
        else:
            self.register_buffer("log_noise_variance", torch.tensor(math.log(config.noise_variance)))

    def prior(self) -> Law:
        """The prior, one law per unit: batch shape (K,)."""
        values = {name: getattr(self, f"prior_{name}") for name in self.law.prior_params}
        if not torch.is_grad_enabled():  # a law caches its moments: in inference mode they must not ask for gradients
            values = {name: value.detach() for name, value in values.items()}
        return self.law.from_prior(values)

    @abstractmethod
    def posterior(self, x: Tensor, *, generator: Generator | None = None) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D). Noise, where inference has any, is from `generator`."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        beta: Tensor | float,
        spike_price: Tensor | float,
        *,
        exact: bool,
        temperature: float = 0.05,
        indicator: str = "cubic",
        generator: Generator | None = None,
    ) -> FreeEnergy:
        """Free energy of a batch, differentiable in all parameters.

        Parameters
        ----------
        x
            (B, D) stimuli.
        beta, spike_price
            Weights of the coding rate and of an expected spike.
        exact
            Expected distortion in closed form; otherwise from one relaxed sample at `temperature` with `indicator`,
            drawn from `generator`.
        """

    def mean_code(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Posterior mean codes (B, K); `generator` is for inference that draws."""
        return self.posterior(x, generator=generator).mean

    def sample_codes(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Hard codes (B, K) of stimuli (B, D), one sample each."""
        return self.posterior(x, generator=generator).sample(generator=generator)

    def code(self, x: Tensor, *, generator: Generator) -> CodedBatch:
        """Stimuli (B, D) coded by one sample each, and what evaluations need beside it."""
        q = self.posterior(x, generator=generator)
        kl = kl_divergence(q, self.prior())
        code = q.sample(generator=generator)
        distortion = self.expected_distortion(x, q)
        if distortion is None:
            distortion = self.distortion(x, code)
        return CodedBatch(code, q.mean, kl, self.decode(code), self.decode(q.mean), distortion)

    @property
    def label(self) -> str:
        inference = self.config.inference
        return self.law.name if inference == "amortised" else f"{inference} {self.law.name}"

    def prior_firing_rates(self) -> Tensor | None:
        return self.prior().mean if self.law.has_rate else None

    @abstractmethod
    def inference_macs(self) -> int:
        """Multiply-accumulates of finding one posterior, all weights and activations counted."""

    def decode(self, code: Tensor) -> Tensor:
        """Mean pixels (B, D) of codes (B, K)."""
        output = self.decoder(code)
        return torch.sigmoid(output) if self.likelihood == "bernoulli" else output

    def distortion(self, x: Tensor, code: Tensor) -> Tensor:
        """(B,) nats of the stimuli given codes (B, K): minus log-likelihood, constants dropped."""
        output = self.decoder(code)
        if self.likelihood == "bernoulli":
            return bernoulli_distortion(x, output)
        return gaussian_distortion(squared_error(x, output), self.n_features, self.log_noise_variance)

    def expected_distortion(self, x: Tensor, q: Law) -> Tensor | None:
        """(B,) exact expectation of :meth:`distortion` under q, or None where it has no closed form."""
        if self.likelihood != "gaussian" or self.dictionary is None:
            return None
        error = expected_squared_error(x, self.decoder(q.mean), q.variance, self.dictionary)
        return gaussian_distortion(error, self.n_features, self.log_noise_variance)
