"""A law of the latent code composed with an encoder, a decoder and a prior. Written for one fit."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions import get_law
from ..distributions._law import Law
from ..distributions._random import Generator
from ..networks import build_decoder, build_encoder
from ..objectives import FreeEnergy, bernoulli_distortion, expected_squared_error, gaussian_distortion, squared_error


class AmortisedVAE(nn.Module):
    """Variational autoencoder whose posterior comes from an encoder network.

    The generative model is ``z_k ~ prior_k``, ``x ~ likelihood(decoder(z))``; the posterior factorises over units,
    ``q(z | x) = prod_k law(z_k; encoder(x))``. For the Poisson law with a learned or fixed prior the encoder gives
    the residual ``delta`` of the log firing rate: ``log lambda = log lambda_0 + delta(x)``; with a closed-form prior
    it gives the log firing rate itself.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    latent, n_latents
        Name of the law and number of units K.
    start, start_spread
        Log firing rate at which units start, and the half-width of its uniform spread over the prior.
    generator
        Source of the initial weights.
    (others)
        As the fields of :class:`spikevae.config.FitConfig` of the same names.

    References
    ----------
    Vafaii, Galor & Yates 2024, "Poisson variational autoencoder", arXiv 2405.14473.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent: str,
        n_latents: int,
        generator: torch.Generator,
        start: float = 0.5,
        start_spread: float = 0.0,
        encoder: str = "linear",
        encoder_bias: bool = True,
        decoder: str = "linear",
        decoder_bias: bool = False,
        hidden: tuple[int, ...] | None = None,
        init_scale: float = 0.05,
        clamp: float | None = None,
        prior: Literal["learned", "closed_form", "fixed"] = "closed_form",
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        noise_variance: float | Literal["learned"] = 0.5,
    ):
        super().__init__()
        self.shape, self.n_latents, self.clamp = tuple(shape), n_latents, clamp
        self.n_features = math.prod(shape)
        self.law: type[Law] = get_law(latent)
        self.prior_mode, self.likelihood = prior, likelihood
        self.encoder = build_encoder(
            encoder,
            self.shape,
            self.law.n_params * n_latents,
            bias=encoder_bias,
            hidden=hidden,
            init_scale=init_scale,
            generator=generator,
        )
        self.decoder = build_decoder(
            decoder,
            n_latents,
            self.shape,
            bias=decoder_bias,
            hidden=hidden,
            init_scale=init_scale,
            generator=generator,
        )
        if encoder_bias:
            bias = self.encoder.get_parameter("head.bias")
            with torch.no_grad():
                bias.copy_(self.law.initial_raw(n_latents, start, residual=prior != "closed_form"))
        values = self.law.initial_prior(n_latents, start, start_spread, generator)
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
        return self.law.from_prior({name: getattr(self, f"prior_{name}") for name in self.law.prior_params})

    def posterior(self, x: Tensor) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D)."""
        prior = None if self.prior_mode == "closed_form" else self.prior()
        return self.law.from_encoder(self.encoder(x), prior, clamp=self.clamp)

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
        if self.likelihood != "gaussian" or self.dictionary is None or not self.law.independent:
            return None
        error = expected_squared_error(x, self.decoder(q.mean), q.variance, self.dictionary)
        return gaussian_distortion(error, self.n_features, self.log_noise_variance)

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
        q = self.posterior(x)
        kl = kl_divergence(q, self.prior()).sum(-1).mean()
        if exact:
            expected = self.expected_distortion(x, q)
            assert expected is not None, "the configuration allows exact only where there is a closed form"
            distortion = expected.mean()
        else:
            relaxed = q.relaxed(temperature=temperature, indicator=indicator)
            assert generator is not None, "a Monte Carlo objective needs a generator"
            distortion = self.distortion(x, relaxed.rsample(generator=generator)).mean()
        spikes = q.mean.sum(-1).mean() if self.law.has_rate else torch.zeros_like(kl)
        total = distortion + beta * kl + spike_price * spikes
        follows = self.prior_mode == "closed_form"
        moments = q.moments().detach().mean(-2) if follows else torch.zeros_like(kl)
        return FreeEnergy(total, distortion, kl, spikes, moments)
