"""A law of the latent code composed with an encoder, a decoder and a prior. Written for one fit."""

from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from ..distributions._law import Law
from ..distributions._random import Generator
from ..networks import build_encoder, dense_macs
from ..objectives import FreeEnergy, gaussian_distortion, mean_squared_error
from ._model import LatentModel


@final
class AmortisedVAE(LatentModel):
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

    inference: ClassVar[str] = "amortised"

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
        super().__init__(shape, latent, n_latents, clamp)
        self.encoder = build_encoder(
            encoder,
            self.shape,
            self.law.n_params * n_latents,
            bias=encoder_bias,
            hidden=hidden,
            init_scale=init_scale,
            generator=generator,
        )
        self._generate(
            decoder=decoder,
            decoder_bias=decoder_bias,
            hidden=hidden,
            init_scale=init_scale,
            start=start,
            start_spread=start_spread,
            prior=prior,
            likelihood=likelihood,
            noise_variance=noise_variance,
            generator=generator,
        )
        if encoder_bias:
            bias = self.encoder.get_parameter("head.bias")
            with torch.no_grad():
                bias.copy_(self.law.initial_raw(n_latents, start, residual=prior != "closed_form"))

    def posterior(self, x: Tensor, *, generator: Generator | None = None) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D); nothing is drawn from `generator`."""
        prior = None if self.prior_mode == "closed_form" else self.prior()
        return self.law.from_encoder(self.encoder(x), prior, clamp=self.clamp)

    def inference_macs(self) -> int:
        """Multiply-accumulates of the encoder."""
        return dense_macs(self.encoder, self.n_features)

    def _mean_distortion(self, x: Tensor, code: Tensor, variance: Tensor | None = None) -> Tensor:
        """() mean distortion of a code (B, K), or of independent codes of this mean and this mean variance (K,)."""
        if self.dictionary is None or self.likelihood != "gaussian":
            assert variance is None, "the configuration allows exact only where there is a closed form"
            return self.distortion(x, code).mean()
        error = mean_squared_error(x, code, self.dictionary, getattr(self.decoder.get_submodule("head"), "bias", None))
        if variance is not None:
            error = error + variance @ self.dictionary.square().sum(-1)
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
        """Free energy of a batch; see :meth:`LatentModel.forward`."""
        coded = self.law.encode(
            self.encoder(x), self.prior(), residual=self.prior_mode != "closed_form", clamp=self.clamp
        )
        q = coded.posterior
        if exact:
            distortion = self._mean_distortion(x, q.mean, coded.variance)
        else:
            relaxed = q.relaxed(temperature=temperature, indicator=indicator)
            assert generator is not None, "a Monte Carlo objective needs a generator"
            distortion = self._mean_distortion(x, relaxed.rsample(generator=generator))
        spikes = coded.mean.sum(-1) if self.law.has_rate else torch.zeros_like(coded.kl)
        total = distortion + beta * coded.kl + spike_price * spikes
        moments = torch.zeros_like(coded.kl)
        if self.prior_mode == "closed_form":
            moments = q.moments().detach().mean(-2) if coded.moments is None else coded.moments
        return FreeEnergy(total, distortion, coded.kl, spikes, moments, q.mean.detach(), coded.variance.detach())
