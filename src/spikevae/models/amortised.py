"""A law of the latent code composed with an encoder, a decoder and a prior. Written for one fit."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributions import kl_divergence

from ..distributions._law import Law
from ..distributions._random import Generator
from ..importance import Estimator, check_estimator, importance_weighted
from ..networks import dense_macs
from ..objectives import FreeEnergy, gaussian_distortion, mean_squared_error
from ..robust import check_sample_estimator, multi_sample, sample_estimator
from ._model import LatentModel
from .codes import CODES, get_code
from .config import EncoderConfig, ModelConfig
from .own import Given
from .pixels import encoder_input

MAX_IMPORTANCE = 10_000
"""Bound of the number of samples per stimulus."""
STEPS_FROM_LIMIT = 2000
"""Default number of optimiser steps of a fit that starts at the limit of small signals."""
MAX_SOLVED_UNITS = 4096
"""Units up to which `decoder_update` "auto" solves the decoder by least squares: the time is cubic in the units, the
memory quadratic."""
OPTIONS_OF_LIMIT = ("init", "latent", "encoder", "decoder", "encoder_bias", "decoder_bias", "likelihood")


class AmortisedConfig(EncoderConfig):
    """Configuration of :class:`AmortisedVAE`."""

    inference: Literal["amortised"] = "amortised"
    n_importance: int = Field(1, ge=1, le=MAX_IMPORTANCE)
    """Samples of the code per stimulus of an importance-weighted bound, which the fit then minimises in place of the
    free energy; at 1 the two are the same."""
    objective: Literal["free_energy", "pac_m"] = "free_energy"
    """What a fit minimises. pac_m: the free energy with the distortion of `n_samples` samples of the code together, and
    robust to outliers with `robustness` below 1; with both at 1 it is the free energy."""
    n_samples: int = Field(1, ge=1, le=MAX_IMPORTANCE)
    """Samples m of the code per stimulus of objective pac_m."""
    robustness: float = Field(1.0, gt=0, le=1)
    """Order t of the logarithm of objective pac_m: a stimulus whose free energy is u nats above the median of the batch
    has the weight exp(-(1 - t) u)."""

    @classmethod
    def defaults_for(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        defaults = super().defaults_for(given)
        if not cls._starts_at_limit(given):
            return defaults
        return {**dict.fromkeys(defaults, STEPS_FROM_LIMIT), "start": -5.0, "bias_lr_factor": 5.0}

    @classmethod
    def _starts_at_limit(cls, given: Mapping[str, Any]) -> bool:
        """Whether a fit with these options, the others at their defaults, starts at the limit of small signals."""
        value = {name: given.get(name, cls.model_fields[name].default) for name in OPTIONS_OF_LIMIT}
        linear = (value["encoder"], value["decoder"], value["likelihood"]) == ("linear", "linear", "gaussian")
        law = CODES.get(value["latent"]) if isinstance(value["latent"], str) else None
        return bool(
            value["init"] != "random"
            and linear
            and value["encoder_bias"]
            and not value["decoder_bias"]
            and law is not None
            and law.signal_gain(0.0) is not None
        )

    @model_validator(mode="after")
    def _closed_form_prior_has_a_bias(self) -> Self:
        if self.prior == "closed_form" and not self.encoder_bias:
            raise ValueError(
                "prior='closed_form' needs encoder_bias=True: with an encoder without bias it raises the "
                "firing rates. Set encoder_bias=True or prior='learned'"
            )
        return self

    @model_validator(mode="after")
    def _importance_weighted_bound_exists(self) -> Self:
        if self.n_importance == 1:
            return self
        law = get_code(self.latent)
        if self.beta == 0:
            raise ValueError("n_importance needs beta > 0: weights of samples are powers of the likelihood, 1 / beta")
        if self.estimator == "exact":
            raise ValueError("estimator='exact' has no importance-weighted bound: use estimator='auto'")
        if self.estimator == "monte_carlo" and law.is_count:
            raise ValueError(
                "estimator='monte_carlo' draws relaxed counts, which have no importance weights; with n_importance use "
                "estimator='auto', 'score_function' or 'fini'"
            )
        if self.estimator != "auto" and (law.is_count or self.estimator == "score_function"):
            check_estimator(self.importance_estimator, law, self.n_importance)
        return self

    @model_validator(mode="after")
    def _samples_fit_the_objective(self) -> Self:
        if not self.multi_sample:
            return self
        name, value = ("n_samples", self.n_samples) if self.n_samples > 1 else ("robustness", self.robustness)
        if self.objective != "pac_m":
            raise ValueError(
                f"{name}={value} is of objective='pac_m', given objective={self.objective!r}: set it, or drop {name}"
            )
        if self.n_importance > 1:
            raise ValueError(
                f"n_importance={self.n_importance} and objective='pac_m' with {name}={value} are two objectives: drop "
                "one of them"
            )
        if self.estimator == "exact":
            raise ValueError(
                f"estimator='exact' is of one sample and robustness 1, given {name}={value}: use estimator='auto'"
            )
        check_sample_estimator(self.sample_estimator, get_code(self.latent), self.n_samples)
        return self

    @property
    def multi_sample(self) -> bool:
        """Whether the distortion of the objective is another one than that of the free energy."""
        return self.n_samples > 1 or self.robustness < 1

    @property
    def sample_estimator(self) -> Estimator:
        """How gradients of objective pac_m pass through the codes."""
        if self.estimator in ("score_function", "fini"):
            return self.estimator
        return (
            "pathwise" if self.estimator == "monte_carlo" else sample_estimator(get_code(self.latent), self.n_samples)
        )

    @property
    def importance_estimator(self) -> Estimator:
        """How gradients of an importance-weighted bound pass through the codes."""
        if self.estimator in ("score_function", "fini"):
            return self.estimator
        return "score_function" if get_code(self.latent).is_count else "pathwise"

    @property
    def exact(self) -> bool:
        return super().exact and self.n_importance == 1 and not self.multi_sample

    @property
    def relaxes_counts(self) -> bool:
        if self.multi_sample:
            return self.sample_estimator == "pathwise" and get_code(self.latent).is_count
        return super().relaxes_counts and self.n_importance == 1

    @property
    def degree_of_counts(self) -> int | None:
        if self.multi_sample:
            return self.fini_degree if self.sample_estimator == "fini" else None
        return super().degree_of_counts if self.n_importance == 1 or self.estimator == "fini" else None

    @property
    def n_decoded(self) -> int:
        return self.n_importance * self.n_samples

    @property
    def coupling(self) -> str | None:
        if self.robustness < 1:
            return f"robustness={self.robustness:g} compares the stimuli of a batch with their median"
        return None

    @property
    def starts_at_limit(self) -> bool:
        return self._starts_at_limit({name: getattr(self, name) for name in OPTIONS_OF_LIMIT})

    @property
    def solves_decoder(self) -> bool:
        wanted = self.decoder_update == "least_squares" or self.n_latents <= MAX_SOLVED_UNITS
        return wanted and self.decoder_update != "gradient" and self.exact and not self.decoder_bias


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
    config
        Every option; :class:`AmortisedConfig`.
    generator
        Source of the initial weights.
    modules
        The user's own networks, by "encoder" and "decoder", where the configuration says "own".

    References
    ----------
    Vafaii, Galor & Yates 2024, "Poisson variational autoencoder", arXiv 2405.14473.
    """

    config_class: ClassVar[type[ModelConfig]] = AmortisedConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        config: AmortisedConfig,
        generator: torch.Generator,
        modules: Mapping[str, Given] | None = None,
    ) -> None:
        super().__init__(shape, config)
        self.n_importance, self.importance_estimator = config.n_importance, config.importance_estimator
        self.multi_sample, self.sample_estimator = config.multi_sample, config.sample_estimator
        self.n_samples, self.robustness = config.n_samples, config.robustness
        self.encoder = self._build_encoder(config, generator, modules)
        self._build_generative_half(generator, modules)
        if config.encoder_bias:
            bias = self.encoder.get_parameter("head.bias")
            with torch.no_grad():
                residual = config.prior != "closed_form"
                bias.copy_(self.law.initial_raw(config.n_latents, config.start, residual=residual))

    def posterior(self, x: Float[Tensor, "B D"], *, generator: Generator | None = None) -> Law:
        """q(z | x): batch shape (B, K) for stimuli (B, D); `generator` is not used."""
        prior = None if self.prior_mode == "closed_form" else self.prior()
        return self.law.from_encoder(self.encoder(encoder_input(self.likelihood, x)), prior, clamp=self.clamp)

    def inference_macs(self) -> int:
        """Multiply-accumulates of the encoder."""
        return dense_macs(self.encoder, self.n_features)

    def _mean_distortion(
        self, x: Float[Tensor, "B D"], code: Float[Tensor, "B K"], variance: Float[Tensor, " K"] | None = None
    ) -> Float[Tensor, ""]:
        """() mean distortion of codes (B, K), or, given their mean variance (K,), of codes with these means."""
        if self.dictionary is None or self.likelihood != "gaussian":
            assert variance is None, "the exact objective needs a linear decoder and Gaussian pixels"
            return self.distortion(x, code).mean()
        error = mean_squared_error(x, code, self.dictionary, getattr(self.decoder.get_submodule("head"), "bias", None))
        if variance is not None:
            error = error + variance @ self.dictionary.square().sum(-1)
        return gaussian_distortion(error, self.n_features, self.log_noise_variance)

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
        """Free energy of a batch; see :meth:`LatentModel.forward`."""
        if self.multi_sample and not exact:
            return self._multi_sample(x, beta, spike_price, temperature, indicator, generator)
        outputs = self.encoder(encoder_input(self.likelihood, x))
        coded = self.law.encode(outputs, self.prior(), residual=self.prior_mode != "closed_form", clamp=self.clamp)
        q = coded.posterior
        spikes = coded.mean.sum(-1) if self.law.has_rate else torch.zeros_like(coded.kl)
        if self.n_importance > 1 and not exact:
            return self._importance_weighted(x, q, coded.kl, spikes, beta, spike_price, generator)
        if exact:
            distortion = self._mean_distortion(x, q.mean, coded.variance)
        else:
            distortion = self._mean_distortion(x, self._draw(q, temperature, indicator, generator))
        total = distortion + beta * coded.kl + spike_price * spikes
        moments = torch.zeros_like(coded.kl)
        if self.prior_mode == "closed_form":
            moments = q.moments().detach().mean(-2) if coded.moments is None else coded.moments
        return FreeEnergy(total, distortion, coded.kl, spikes, moments, q.mean.detach(), coded.variance.detach())

    def _multi_sample(
        self,
        x: Tensor,
        beta: Tensor | float,
        spike_price: Tensor | float,
        temperature: float,
        indicator: str,
        generator: Generator | None,
    ) -> FreeEnergy:
        """Objective "pac_m" of a batch.

        Distortion, coding rate and spikes are means over all stimuli, and the distortion is that of single samples.
        Statistics of a closed-form prior are means by the weights of the stimuli, for which the prior is optimal.
        """
        assert generator is not None, "samples need a generator"
        q, prior = self.posterior(x), self.prior()
        kl = kl_divergence(q, prior).sum(-1)
        spikes = q.mean.sum(-1) if self.law.has_rate else torch.zeros_like(kl)
        found = multi_sample(
            lambda code: self.distortion(x, code),
            q,
            samples=self.n_samples,
            robustness=self.robustness,
            cost=beta * kl + spike_price * spikes,
            estimator=self.sample_estimator,
            degree=self.degree_of_counts or 2,
            temperature=temperature,
            indicator=indicator,
            generator=generator,
        )
        moments = torch.zeros_like(kl[0])
        if self.prior_mode == "closed_form":
            share = found.weight / found.weight.mean()
            moments = (q.moments().detach() * share.unsqueeze(-1)).mean(-2)
        return FreeEnergy(
            found.value.mean(),
            found.distortion.mean(),
            kl.mean(),
            spikes.mean(),
            moments,
            q.mean.detach(),
            q.variance.detach().mean(-2),
        )

    def _importance_weighted(
        self,
        x: Tensor,
        q: Law,
        kl: Tensor,
        spikes: Tensor,
        beta: Tensor | float,
        spike_price: Tensor | float,
        generator: Generator,
    ) -> FreeEnergy:
        """Minus the importance-weighted bound of a batch, plus the price of the spikes of q.

        Distortion and coding rate are those of single samples: their sum is larger than the bound. Statistics of a
        closed-form prior are means of the samples by their weights, for which the prior is optimal.
        """
        found = importance_weighted(
            lambda code: self.distortion(x, code),
            q,
            self.prior(),
            samples=self.n_importance,
            beta=beta,
            estimator=self.importance_estimator,
            degree=self.degree_of_counts or 2,
            generator=generator,
        )
        moments = torch.zeros_like(kl)
        if self.prior_mode == "closed_form":
            moments = (q.statistics(found.code) * found.weight.unsqueeze(-1)).sum(-3).mean(-2)
        total = found.value.mean() + spike_price * spikes
        return FreeEnergy(
            total, found.distortion.mean(), kl, spikes, moments, q.mean.detach(), q.variance.detach().mean(-2)
        )
