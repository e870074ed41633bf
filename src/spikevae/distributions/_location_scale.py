"""Base classes of distributions with a location and a scale, and of those based on a Gaussian."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from ._law import Law, softclamp_symmetric, split_blocks
from ._random import Generator


def gaussian_kl(
    loc: Float[Tensor, "*#shape"],
    log_scale: Float[Tensor, "*#shape"],
    prior_loc: Float[Tensor, "*#shape"],
    prior_log_scale: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """KL divergence KL(N(loc, scale^2) || N(prior_loc, prior_scale^2)) in nats, elementwise.

    With d = log scale - log prior_scale it is ((loc - prior_loc)^2 / prior_scale^2 + expm1(2d)) / 2 - d,
    which is accurate near d = 0.

    Examples
    --------
    >>> zero = torch.tensor(0.0)
    >>> gaussian_kl(torch.tensor(1.0), zero, zero, zero)
    tensor(0.5000)
    """
    shift = (loc - prior_loc) * torch.exp(-prior_log_scale)
    ratio = log_scale - prior_log_scale
    return 0.5 * (shift.square() + torch.expm1(2 * ratio)) - ratio


class LocationScale(Law):
    """A distribution of a function of loc + exp(log_scale) * noise; abstract."""

    n_params: ClassVar[int] = 2
    is_count: ClassVar[bool] = False
    prior_params: ClassVar[tuple[str, ...]] = ("loc", "log_scale")
    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "log_scale": constraints.real}

    loc: Tensor
    log_scale: Tensor

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, log_scale, validate_args=validate_args)

    @classmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " {n_units}"]]:
        """Location 0 and scale 1 for every unit, for any requested firing rate."""
        return {key: torch.zeros(n_units, device=generator.device) for key in cls.prior_params}

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., 2K): K locations, then K log-scales, bounded to +-clamp if given."""
        loc, log_scale = split_blocks(raw, cls.n_params)
        if clamp is not None:
            log_scale = softclamp_symmetric(log_scale, clamp)
        return cls(loc, log_scale, validate_args=False)

    @property
    def scale(self) -> Float[Tensor, "*shape"]:
        """Scale of the noise: for a Gaussian its standard deviation."""
        return self.log_scale.exp()

    @abstractmethod
    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes through which gradients flow to the parameters."""

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes without gradient, shape `sample_shape + batch_shape`."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def relaxed(self, *, temperature: float, indicator: str) -> Self:
        """The distribution itself: its samples are differentiable at every temperature."""
        return self


class GaussianBased(LocationScale):
    """A distribution of a function of N(loc, exp(log_scale)^2), with the KL divergence of that Gaussian; abstract."""

    def moments(self) -> Float[Tensor, " n_moments *shape"]:
        """Mean and second moment of the Gaussian, shape (2, *batch_shape)."""
        return torch.stack([self.loc, self.loc.square() + torch.exp(2 * self.log_scale)])

    def statistics(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, " n_moments *shape"]:
        """Values of the Gaussian and their squares, shape (2, *shape)."""
        return torch.stack([value, value.square()])

    @classmethod
    def prior_from_moments(cls, moments: Float[Tensor, " n_moments *shape"]) -> dict[str, Float[Tensor, "*shape"]]:
        """Gaussian of the same mean and second moment, shape (2, K): the closest to the mixture of posteriors."""
        loc, second = moments
        variance = (second - loc.square()).clamp_min(torch.finfo(moments.dtype).tiny)
        return {"loc": loc, "log_scale": 0.5 * variance.log()}
