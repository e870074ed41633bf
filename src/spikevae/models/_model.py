"""Base classes of models: a law of the code, a prior, a decoder and the likelihood of pixels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions import get_law
from ..distributions._law import Law
from ..distributions._random import Generator, default_generator
from ..networks import build_decoder, build_encoder, dense_macs
from ..objectives import FreeEnergy, expected_squared_error, gaussian_distortion
from .codes import CodeKind
from .config import EncoderConfig, ModelConfig
from .own import OWN, Given, build_own
from .pixels import mean_pixels, pixel_distortion


class CodedBatch(NamedTuple):
    """A batch of stimuli, coded and decoded."""

    code: Float[Tensor, "B K"]
    """(B, K) codes, sampled where there is a posterior."""
    mean: Float[Tensor, "B K"]
    """(B, K) mean codes; equal to `code` where codes are deterministic."""
    kl: Float[Tensor, "B K"] | None
    """(B, K) KL divergence from prior to posterior, nats; None without a posterior."""
    pixels: Float[Tensor, "B D"]
    """(B, D) decoded codes."""
    pixels_of_mean: Float[Tensor, "B D"]
    """(B, D) decoded mean codes."""
    distortion: Float[Tensor, " B"]
    """(B,) nats."""
    penalty: Float[Tensor, " B"] | None = None
    """(B,) rest of the objective, nats; None where it is beta * kl + spike_price * spikes."""
    macs: Num[Tensor, " B"] | None = None
    """(B,) multiply-accumulates of inference; None where they are `Model.inference_macs`."""
    facts: dict[str, Shaped[Tensor, " B"]] | None = None
    """(B,) each: further results of inference, by name."""
    prior_mean: Float[Tensor, "B K"] | None = None
    """(B, K) prior mean codes if each stimulus has its own prior; None with one prior for all, or none."""


class Model(nn.Module, ABC):
    """A model: it codes stimuli, decodes codes and counts the operations of both; abstract.

    Subclasses are final. Code outside a model does not depend on its class.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; an instance of `config_class`.
    """

    config_class: ClassVar[type[ModelConfig]]
    """Class of its configuration; its `inference` is the model's name in configurations and files."""
    has_posterior: ClassVar[bool]
    """Whether codes are drawn from a posterior, so that there are a prior and a coding rate."""
    config: ModelConfig
    law: type[CodeKind]
    decoder: nn.Module
    log_noise_variance: Float[Tensor, ""]
    layers: list[slice]
    """Units of each layer of the code, the lowest first; most models have one layer."""

    def __init__(self, shape: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        self.shape, self.config, self.n_latents = tuple(shape), config, config.n_latents
        self.n_features = math.prod(shape)
        self.layers = [slice(0, config.n_latents)]

    @abstractmethod
    def code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> CodedBatch:
        """Codes of stimuli (B, D), one sample each if there is a posterior, and what else evaluations need."""

    def mean_code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Mean codes (B, K) of stimuli (B, D); only inference that samples uses `generator`."""
        return self.code(x, generator=generator).mean

    def sample_codes(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Codes (B, K) of stimuli (B, D), one sample each if there is a posterior."""
        return self.code(x, generator=generator).code

    def decode(self, code: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch D"]:
        """Mean pixels (B, D) of codes (B, K)."""
        return self.decoder(code)

    @property
    def dictionary(self) -> Float[Tensor, "K D"] | None:
        """(K, D), or None if the decoder is not linear."""
        return getattr(self.decoder, "dictionary", None)

    @property
    def label(self) -> str:
        """Short description: the law of the code, and the inference if it is not amortised."""
        return self.law.name

    def prior_firing_rates(self) -> Float[Tensor, " K"] | None:
        """(K,) prior mean spikes per unit per stimulus, or None without a firing rate."""
        return None

    @property
    def price_of_spikes(self) -> float:
        """Spike price of the objective, nats per spike: that of the configuration, or the one found for a budget."""
        return 0.0

    def inference_macs(self) -> int | None:
        """Dense multiply-accumulates of inference per stimulus; None if they depend on the stimulus."""
        return None

    def decoder_macs(self) -> int:
        """Multiply-accumulates of decoding one code."""
        return dense_macs(self.decoder, self.n_latents)

    def fan_outs(self) -> list[int]:
        """Number of synapses that each unit drives directly, K numbers."""
        fan_out = self.decoder.fan_out
        assert isinstance(fan_out, int)
        return [fan_out] * self.n_latents


class LatentModel(Model):
    """A generative model, ``z_k ~ prior_k``, ``x ~ likelihood(decoder(z))``; abstract: subclasses add inference.

    Subclasses are final. They build their inference and call :meth:`_build_generative_half`.
    """

    has_posterior: ClassVar[bool] = True
    law: type[Law]
    spike_price: Float[Tensor, ""]

    def __init__(self, shape: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__(shape, config)
        self.clamp, self.prior_mode, self.likelihood = config.clamp, config.prior, config.likelihood
        self.law, self.degree_of_counts = get_law(config.latent), config.degree_of_counts

    def _build_encoder(
        self, config: EncoderConfig, generator: torch.Generator, modules: Mapping[str, Given] | None
    ) -> nn.Module:
        """The encoder for all units of all layers: of the configured kind, or the user's own."""
        if config.encoder == OWN:
            n_outputs = self.law.n_params * self.n_latents
            bias = config.encoder_bias
            return build_own("encoder", modules, self.n_features, n_outputs, bias=bias, generator=generator)
        return build_encoder(
            config.encoder,
            self.shape,
            self.law.n_params * self.n_latents,
            bias=config.encoder_bias,
            hidden=config.hidden,
            init_scale=config.init_scale,
            generator=generator,
        )

    def _build_decoder(
        self, n_inputs: int, generator: torch.Generator, modules: Mapping[str, Given] | None
    ) -> nn.Module:
        config = self.config
        if config.decoder == OWN:
            return build_own("decoder", modules, n_inputs, self.n_features, bias=False, generator=generator)
        return build_decoder(
            config.decoder,
            n_inputs,
            self.shape,
            bias=config.decoder_bias,
            hidden=config.hidden,
            init_scale=config.init_scale,
            generator=generator,
        )

    def _build_generative_half(
        self, generator: torch.Generator, modules: Mapping[str, Given] | None, n_inputs: int | None = None
    ) -> None:
        """Build decoder, prior and noise; the decoder has `n_inputs` inputs, all units if not given."""
        config = self.config
        self.decoder = self._build_decoder(n_inputs or self.n_latents, generator, modules)
        self.register_buffer("spike_price", torch.tensor(float(config.spike_price)))
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
        if config.likelihood == "negative_binomial":
            self.log_dispersion = nn.Parameter(torch.zeros(self.n_features))

    @property
    def price_of_spikes(self) -> float:
        """Spike price of the objective, nats per spike: that of the configuration, or the one found for a budget."""
        return float(self.spike_price)

    def prior(self) -> Law:
        """The prior, one law per unit: batch shape (K,)."""
        values = {name: getattr(self, f"prior_{name}") for name in self.law.prior_params}
        if not torch.is_grad_enabled():  # a law keeps its moments, which must not require gradients
            values = {name: value.detach() for name, value in values.items()}
        return self.law.from_prior(values)

    @abstractmethod
    def posterior(self, x: Float[Tensor, "B D"], *, generator: Generator | None = None) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D). Inference that samples uses `generator`."""

    def forward(
        self,
        x: Float[Tensor, "..."],
        beta: Float[Tensor, ""] | float | None = None,
        spike_price: Float[Tensor, ""] | float | None = None,
        *,
        exact: bool | None = None,
        temperature: float | None = None,
        indicator: str | None = None,
        generator: Generator | None = None,
    ) -> FreeEnergy:
        """Free energy of a batch, differentiable in all parameters: ``model(x).total.backward()`` in your own loop.

        Everything but the stimuli is that of the configuration where it is not given. A prior in closed form is not a
        parameter: it stays what it is.

        Parameters
        ----------
        x
            (B, D) stimuli.
        beta, spike_price
            Weights of the coding rate and of an expected spike.
        exact
            Whether the expected distortion is in closed form; else it is that of one sample, drawn from `generator`:
            integer counts with `estimator` "fini", else relaxed ones at `temperature` with `indicator`.
        generator
            None: PyTorch's own generator of the device, as in `torch.distributions`.

        Raises
        ------
        ValueError
            For stimuli of another shape.
        """
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this model takes stimuli (B, {self.n_features}): images as x.flatten(1)"
            )
        config = self.config
        return self._free_energy(
            x,
            config.beta if beta is None else beta,
            self.spike_price if spike_price is None else spike_price,
            exact=config.exact if exact is None else exact,
            temperature=config.temperature if temperature is None else temperature,
            indicator=config.indicator if indicator is None else indicator,
            generator=default_generator(x.device) if generator is None else generator,
        )

    @abstractmethod
    def _free_energy(
        self,
        x: Float[Tensor, "B D"],
        beta: Float[Tensor, ""] | float,
        spike_price: Float[Tensor, ""] | float,
        *,
        exact: bool,
        temperature: float,
        indicator: str,
        generator: Generator,
    ) -> FreeEnergy:
        """Free energy of a batch; see :meth:`forward`."""

    def _draw(self, q: Law, temperature: float, indicator: str, generator: Generator) -> Float[Tensor, "*shape"]:
        """One sample per element of q through which gradients flow: integer counts, or a relaxed sample."""
        if self.degree_of_counts is not None:
            return q.fini(q.sample(generator=generator), degree=self.degree_of_counts)
        return q.relaxed(temperature=temperature, indicator=indicator).rsample(generator=generator)

    def mean_code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Posterior mean codes (B, K) of stimuli (B, D); only inference that samples uses `generator`."""
        return self.posterior(x, generator=generator).mean

    def sample_codes(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Codes (B, K) of stimuli (B, D), one sample each."""
        return self.posterior(x, generator=generator).sample(generator=generator)

    def weighed_codes(
        self, x: Float[Tensor, "B D"], n: int, *, generator: Generator
    ) -> tuple[Float[Tensor, "n B K"], Float[Tensor, "n B"]]:
        """n codes (n, B, K) of each stimulus, and log q(z | x) - log p(z) of each, (n, B), nats."""
        q = self.posterior(x, generator=generator)
        code = q.sample((n,), generator=generator)
        return code, q.log_ratio(self.prior(), code).sum(-1)

    def code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> CodedBatch:
        """Codes of stimuli (B, D), one sample each, and what else evaluations need."""
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

    def prior_firing_rates(self) -> Float[Tensor, " K"] | None:
        return self.prior().mean if self.law.has_rate else None

    @abstractmethod
    def inference_macs(self) -> int:
        """Dense multiply-accumulates of inference per stimulus."""

    def decode(self, code: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch D"]:
        """Mean pixels (B, D) of codes (B, K)."""
        return mean_pixels(self.likelihood, self.decoder(code))

    def distortion(self, x: Float[Tensor, "B D"], code: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
        """(..., B) nats of the stimuli given codes (..., B, K): minus log-likelihood (:mod:`.pixels`)."""
        return pixel_distortion(self.likelihood, x, self.decoder(code), self.pixel_noise)

    @property
    def pixel_noise(self) -> Float[Tensor, "*noise"]:
        """() log variance of Gaussian pixels, or (D,) log dispersion of negative binomial counts."""
        return self.log_dispersion if self.likelihood == "negative_binomial" else self.log_noise_variance

    def expected_distortion(self, x: Float[Tensor, "B D"], q: Law) -> Float[Tensor, " B"] | None:
        """(B,) exact expectation of :meth:`distortion` under q, or None without a closed form."""
        if self.likelihood != "gaussian" or self.dictionary is None:
            return None
        error = expected_squared_error(x, self.decoder(q.mean), q.variance, self.dictionary)
        return gaussian_distortion(error, self.n_features, self.log_noise_variance)
