"""Several layers of counts: each layer sets the prior of the next lower one, the lowest is decoded; for one fit."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions._law import Law, softclamp_above
from ..distributions._random import Generator
from ..networks import LinearNetwork, dense_macs
from ..objectives import FreeEnergy
from ._model import CodedBatch, LatentModel
from .codes import get_code
from .config import MAX_NUMBER, MAX_UNITS, EncoderConfig, ModelConfig
from .own import Given
from .pixels import encoder_input

RATE = "log_rate"
"""The parameter of a layer's prior that depends on the layer above."""


class HierarchicalConfig(EncoderConfig):
    """Configuration of :class:`HierarchicalVAE`."""

    replaces_recipe: ClassVar[Mapping[str, Any]] = {"prior": "learned"}

    inference: Literal["hierarchical"] = "hierarchical"
    prior: Literal["learned", "closed_form", "fixed"] = "learned"
    """Learned: the priors of all layers but the highest depend on the layer above."""
    upper: tuple[Annotated[int, Field(le=MAX_UNITS)], ...] = Field((), max_length=8)
    """Units of the layers above the first, from below to above; given without `inference`, it implies
    inference='hierarchical'."""
    free_bits: float = Field(0.0, ge=0, le=MAX_NUMBER)
    """Coding rate of a layer, nats per stimulus, below which the objective does not reduce it further; for warm-up
    see `beta_anneal`."""

    @model_validator(mode="after")
    def _layers_are_consistent(self) -> Self:
        law = get_code(self.latent)
        if not self.upper or min(self.upper) < 1:
            raise ValueError(
                f"inference='hierarchical' needs units above the first layer, given upper={list(self.upper)}; "
                "for example upper=[32]"
            )
        if RATE not in law.prior_params:
            raise ValueError(
                f"layers need a law of counts whose prior has a log firing rate, as poisson and negative_binomial; "
                f"latent is {self.latent!r}"
            )
        if self.prior != "learned":
            raise ValueError(f"layers need prior='learned': theirs depend on the layer above; given {self.prior!r}")
        return self

    @property
    def draws(self) -> bool:
        return True

    @property
    def coupling(self) -> str | None:
        return f"free_bits={self.free_bits:g} is a bound on the mean over a batch" if self.free_bits else None

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        return (self.n_latents, *self.upper)


class Layer(NamedTuple):
    """One layer, given the codes above it."""

    posterior: Law
    prior: Law
    code: Float[Tensor, "B K_l"]
    """(B, K_l) input of the layer below: a sample, integer or relaxed, or the mean."""


@final
class HierarchicalVAE(LatentModel):
    r"""Variational autoencoder with two or more layers of spike counts and top-down conditional priors.

    .. math:: z_L \sim \mathrm{law}(b_L),\quad z_l \mid z_{l+1} \sim \mathrm{law}(b_l + W_l z_{l+1}),\quad
        x \mid z_1 \sim \mathrm{likelihood}(\mathrm{decoder}(z_1))

    in log firing rates. The posterior has the same order, from the highest layer to the lowest; each layer adds the
    encoder's residual to its conditional prior: :math:`\log\lambda_l = b_l + W_l z_{l+1} + \delta_l(x)`. Units are
    numbered from the lowest layer up, in codes, laws and tables.

    The coding rate of a layer is exact given the codes above, which are sampled (relaxed in training); with a linear
    decoder and Gaussian pixels so is the distortion. The rest is Monte Carlo with one sample.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; :class:`HierarchicalConfig`. `n_latents` is the size of the lowest layer, `upper` has those above.
    generator
        Source of the initial weights.
    modules
        The user's own networks, by "encoder" and "decoder", where the configuration says "own".

    References
    ----------
    Sonderby et al. 2016 (arXiv 1602.02282), top-down posteriors and warm-up; Kingma et al. 2016 (arXiv 1606.04934),
    free bits; Zhang et al. 2025 (arXiv 2508.05423), layers of negative binomial counts with residual posteriors.

    Examples
    --------
    >>> config = HierarchicalConfig(n_latents=8, upper=(4, 2))
    >>> model = HierarchicalVAE((16,), config, torch.Generator().manual_seed(0))
    >>> model.posterior(torch.ones(3, 16)).mean.shape, [layer.stop - layer.start for layer in model.layers]
    (torch.Size([3, 14]), [8, 4, 2])
    """

    config_class: ClassVar[type[ModelConfig]] = HierarchicalConfig

    def __init__(
        self,
        shape: tuple[int, ...],
        config: HierarchicalConfig,
        generator: torch.Generator,
        modules: Mapping[str, Given] | None = None,
    ) -> None:
        super().__init__(shape, config)
        sizes = config.layer_sizes
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self.n_latents, self.layers = sum(sizes), [slice(end - size, end) for size, end in zip(sizes, ends)]
        self.free_bits = config.free_bits
        self.encoder = self._build_encoder(config, generator, modules)
        self._build_generative_half(generator, modules, n_inputs=config.n_latents)
        self.down = nn.ModuleList(
            LinearNetwork(above, below, False, config.init_scale, generator) for below, above in pairwise(sizes)
        )
        if config.encoder_bias:
            bias = self.encoder.get_parameter("head.bias")
            with torch.no_grad():
                bias.copy_(torch.cat([self.law.initial_raw(size, config.start, residual=True) for size in sizes]))

    def _conditional(self, index: int, above: Tensor | None) -> Law:
        """p(z_l | z_{l+1}): batch shape (B, K_l), or (K_l,) for the highest layer."""
        values = {name: getattr(self, f"prior_{name}")[self.layers[index]] for name in self.law.prior_params}
        if above is not None:
            log_rate = values[RATE] + self.down[index](above)
            values[RATE] = log_rate if self.clamp is None else softclamp_above(log_rate, self.clamp)
            values = {name: value.expand_as(log_rate) for name, value in values.items()}
        return self.law.from_prior(values)

    def _layers_downwards(
        self, x: Tensor, generator: Generator | None, relaxed: tuple[float, str] | None = None
    ) -> Iterator[Layer]:
        """The layers from the highest to the lowest; codes are means without a generator, else samples.

        `relaxed` is the temperature and the indicator of samples in training; the lowest layer then has its mean.
        """
        n, outputs = self.law.n_params, self.encoder(encoder_input(self.likelihood, x))
        above: Tensor | None = None
        for index in reversed(range(len(self.layers))):
            units = self.layers[index]
            prior = self._conditional(index, above)
            q = self.law.from_encoder(outputs[..., n * units.start : n * units.stop], prior, clamp=self.clamp)
            if generator is None or (relaxed and not index):
                above = q.mean
            elif relaxed is None:
                above = q.sample(generator=generator)
            else:
                above = self._draw(q, *relaxed, generator)
            yield Layer(q, prior, above)

    def _joint_posterior(self, layers: list[Layer]) -> Law:
        """The posteriors of all layers, the lowest first, as one law of batch shape (B, K)."""
        laws = [layer.posterior for layer in reversed(layers)]
        names = self.law.prior_params
        return self.law.from_prior({name: torch.cat([getattr(law, name) for law in laws], -1) for name in names})

    def posterior(self, x: Float[Tensor, "B D"], *, generator: Generator | None = None) -> Law:
        """q(z | x), batch shape (B, K); each layer given the sampled codes above, or mean codes without a generator."""
        return self._joint_posterior(list(self._layers_downwards(x, generator)))

    def mean_code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Mean codes (B, K), each layer given the mean codes above; `generator` is not used."""
        return self.posterior(x).mean

    def sample_codes(self, x: Float[Tensor, "B D"], *, generator: Generator) -> Float[Tensor, "B K"]:
        """Codes (B, K), one sample of all layers per stimulus."""
        return torch.cat([layer.code for layer in reversed(list(self._layers_downwards(x, generator)))], -1)

    def weighed_codes(
        self, x: Float[Tensor, "B D"], n: int, *, generator: Generator
    ) -> tuple[Float[Tensor, "n B K"], Float[Tensor, "n B"]]:
        """n codes (n, B, K) of each stimulus, all layers, and log q(z | x) - log p(z) of each, (n, B), nats."""
        layers = list(self._layers_downwards(x.expand(n, *x.shape), generator))
        ratios = [layer.posterior.log_ratio(layer.prior, layer.code).sum(-1) for layer in layers]
        return torch.cat([layer.code for layer in reversed(layers)], -1), torch.stack(ratios).sum(0)

    def code(self, x: Float[Tensor, "B D"], *, generator: Generator) -> CodedBatch:
        """Codes, one sample of all layers, and coding rates of each layer given the codes above."""
        layers = list(self._layers_downwards(x, generator))
        below, mean = layers[-1], self._joint_posterior(layers).mean
        code = torch.cat([layer.code for layer in reversed(layers)], -1)
        kl = torch.cat([kl_divergence(layer.posterior, layer.prior) for layer in reversed(layers)], -1)
        distortion = super().expected_distortion(x, below.posterior)
        if distortion is None:
            distortion = self.distortion(x, code)
        prior_mean = torch.cat([layer.prior.mean.expand_as(layer.code) for layer in reversed(layers)], -1)
        return CodedBatch(code, mean, kl, self.decode(code), self.decode(mean), distortion, prior_mean=prior_mean)

    def generate(self, n: int, *, generator: Generator) -> tuple[Float[Tensor, "{n} K"], Float[Tensor, "{n} D"]]:
        """Codes (n, K) sampled from the prior, the highest layer first, and their mean pixels (n, D)."""
        codes: list[Tensor] = []
        for index in reversed(range(len(self.layers))):
            prior = self._conditional(index, codes[-1] if codes else None)
            codes.append(prior.sample(() if codes else (n,), generator=generator))
        code = torch.cat(codes[::-1], -1)
        return code, self.decode(code)

    def decode(self, code: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch D"]:
        """Mean pixels (B, D) of codes (B, K); they depend on the lowest layer only."""
        return super().decode(code[..., self.layers[0]])

    def distortion(self, x: Float[Tensor, "B D"], code: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
        """(..., B) nats of the stimuli given codes (..., B, K)."""
        return super().distortion(x, code[..., self.layers[0]])

    def expected_distortion(self, x: Float[Tensor, "B D"], q: Law) -> None:
        """None: the expectation over the layers above has no closed form."""

    def inference_macs(self) -> int:
        """Multiply-accumulates of the encoder and of all conditional priors."""
        return dense_macs(self.encoder, self.n_features) + self._down_macs()

    def decoder_macs(self) -> int:
        """Multiply-accumulates of decoding; those of the conditional priors belong to inference."""
        return dense_macs(self.decoder, self.layers[0].stop)

    def fan_outs(self) -> list[int]:
        """Synapses that each unit drives: of the decoder in the lowest layer, else one per unit of the layer below."""
        sizes = [units.stop - units.start for units in self.layers]
        lowest = super().fan_outs()[: sizes[0]]
        return lowest + [below for below, size in pairwise(sizes) for _ in range(size)]

    def _down_macs(self) -> int:
        return sum(dense_macs(net, units.stop - units.start) for net, units in zip(self.down, self.layers[1:]))

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
        """Free energy of a batch, see :meth:`LatentModel.forward`; `exact` applies given the layers above."""
        layers = list(self._layers_downwards(x, generator, (temperature, indicator)))
        below = layers[-1].posterior
        if exact:
            expected = super().expected_distortion(x, below)
            assert expected is not None, "the exact objective needs a linear decoder and Gaussian pixels"
            distortion = expected.mean()
        else:
            distortion = super().distortion(x, self._draw(below, temperature, indicator, generator)).mean()
        rates = [kl_divergence(layer.posterior, layer.prior).sum(-1).mean() for layer in layers]
        kl = torch.stack(rates)
        spikes = torch.stack([layer.posterior.mean.sum(-1).mean() for layer in layers]).sum()
        total = distortion + beta * kl.clamp_min(self.free_bits).sum() + spike_price * spikes
        none = torch.zeros_like(spikes)
        return FreeEnergy(total, distortion, kl.sum(), spikes, none, none, none)
