"""What every model shares: a law of the code, a prior, a decoder and the likelihood of pixels."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions import get_law
from ..distributions._law import Law
from ..distributions._random import Generator
from ..networks import build_decoder, dense_macs
from ..objectives import FreeEnergy, bernoulli_distortion, expected_squared_error, gaussian_distortion, squared_error
from .coded import Coded


class LatentModel(nn.Module, ABC):
    """The generative half, ``z_k ~ prior_k``, ``x ~ likelihood(decoder(z))``; how a posterior is found is left open.

    Subclasses are final. They build what they need for inference and call :meth:`_generate`.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    (others)
        As the fields of :class:`spikevae.config.FitConfig` of the same names.
    """

    inference: ClassVar[str]
    """Word in configurations."""
    decoder: nn.Module
    log_noise_variance: Tensor
    layers: list[slice]
    """The units of each layer of codes, the lowest first; most models have one layer."""

    def __init__(self, shape: tuple[int, ...], latent: str, n_latents: int, clamp: float | None) -> None:
        super().__init__()
        self.shape, self.n_latents, self.clamp = tuple(shape), n_latents, clamp
        self.n_features = math.prod(shape)
        self.layers = [slice(0, n_latents)]
        self.law: type[Law] = get_law(latent)

    def _generate(
        self,
        *,
        decoder: str,
        decoder_bias: bool,
        hidden: tuple[int, ...] | None,
        init_scale: float,
        start: float,
        start_spread: float,
        prior: Literal["learned", "closed_form", "fixed"],
        likelihood: Literal["gaussian", "bernoulli"],
        noise_variance: float | Literal["learned"],
        generator: torch.Generator,
        n_inputs: int | None = None,
    ) -> None:
        """Build decoder, prior and noise; the decoder takes `n_inputs` units if not all."""
        self.prior_mode, self.likelihood = prior, likelihood
        self.decoder = build_decoder(
            decoder,
            n_inputs or self.n_latents,
            self.shape,
            bias=decoder_bias,
            hidden=hidden,
            init_scale=init_scale,
            generator=generator,
        )
        values = self.law.initial_prior(self.n_latents, start, start_spread, generator)
        for name, value in values.items():
            if prior == "learned":
                self.register_parameter(f"prior_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"prior_{name}", value)
        if prior == "closed_form":
            self.register_buffer("prior_moments", self.law.from_prior(values).moments().clone())
        log_variance = torch.tensor(math.log(0.5 if noise_variance == "learned" else noise_variance))
        if noise_variance == "learned":
            self.log_noise_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("log_noise_variance", log_variance)

    def prior(self) -> Law:
        """The prior, one law per unit: batch shape (K,)."""
        values = {name: getattr(self, f"prior_{name}") for name in self.law.prior_params}
        if not torch.is_grad_enabled():  # a law caches its moments: in inference mode they must not ask for gradients
            values = {name: value.detach() for name, value in values.items()}
        return self.law.from_prior(values)

    def normalise(self) -> None:
        """Bring trained weights into their standard scale: nothing here, where a unit of the code is one spike."""

    @abstractmethod
    def posterior(self, x: Tensor, *, generator: Generator | None = None) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D). Noise, where inference has any, is from `generator`."""

    def mean_code(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Posterior mean codes (B, K); `generator` is for inference that draws."""
        return self.posterior(x, generator=generator).mean

    def sample_codes(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Hard codes (B, K) of stimuli (B, D), one sample each."""
        return self.posterior(x, generator=generator).sample(generator=generator)

    def coded(self, x: Tensor, *, generator: Generator) -> Coded:
        """Stimuli (B, D) coded by one sample each, and what evaluations need beside it."""
        q = self.posterior(x, generator=generator)
        kl = kl_divergence(q, self.prior())
        code = q.sample(generator=generator)
        distortion = self.expected_distortion(x, q)
        if distortion is None:
            distortion = self.distortion(x, code)
        return Coded(code, q.mean, kl, self.decode(code), self.decode(q.mean), distortion)

    @abstractmethod
    def inference_macs(self) -> int:
        """Multiply-accumulates of finding one posterior, all weights and activations counted."""

    def decoder_macs(self) -> int:
        """Multiply-accumulates from one code to its pixels."""
        return dense_macs(self.decoder, self.n_latents)

    def fan_outs(self) -> list[int]:
        """Synapses that each unit drives directly, K numbers."""
        fan_out = self.decoder.fan_out
        assert isinstance(fan_out, int)
        return [fan_out] * self.n_latents

    def decode(self, code: Tensor) -> Tensor:
        """Mean pixels (B, D) of codes (B, K)."""
        output = self.decoder(code)
        return torch.sigmoid(output) if self.likelihood == "bernoulli" else output

    @property
    def dictionary(self) -> Tensor | None:
        """(K, D) where the decoder is linear, else None."""
        return getattr(self.decoder, "dictionary", None)

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
