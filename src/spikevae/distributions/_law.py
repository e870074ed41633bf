"""What every distribution of the code must define."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.nn import functional as F

from ._fini import check_degree, from_factorial_moments, from_two_moments
from ._random import Generator

NO_CLOSED_FORM = "the optimal prior has no closed form; use prior='learned' or prior='fixed'"


class Reparametrised(Protocol):
    """An object that draws codes with a pathwise gradient."""

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Codes of shape `sample_shape + batch_shape` through which gradients flow to the parameters."""
        ...


class Coded(NamedTuple):
    """A batch of posteriors and the averages over stimuli that the free energy needs."""

    posterior: Any
    """The posterior, batch shape (B, K)."""
    kl: Float[Tensor, ""]
    """() KL divergence from the prior, nats per stimulus, summed over units."""
    mean: Float[Tensor, " K"]
    """(K,) mean over stimuli of the code's mean."""
    variance: Float[Tensor, " K"]
    """(K,) mean over stimuli of the code's variance."""
    moments: Float[Tensor, "n_moments K"] | None = None
    """(n_moments, K) mean over stimuli of :meth:`Law.moments` if it is known already, without gradient."""


class Law(Distribution, ABC):
    """Distribution of the code of one unit given a stimulus (posterior) or without one (prior), independent over units.

    A subclass defines how many numbers an encoder gives per unit, how the distribution is built from them, its moments,
    how it is sampled, and how its prior is initialised and fitted. Its Kullback-Leibler divergence is registered with
    `torch.distributions.kl_divergence`. Parameters are tensors of one shape, the batch shape, whose last dimension is
    the unit. Subclasses are final.

    Parameters
    ----------
    validate_args
        As in `torch.distributions`. The class methods build distributions without validation, which reads values and
        so cannot run inside `torch.func.vmap`.
    """

    has_rsample: ClassVar[bool] = True  # type: ignore[misc]
    name: ClassVar[str]
    """Name in configurations."""
    label: ClassVar[str]
    """Name in figures."""
    n_params: ClassVar[int]
    """Encoder outputs per unit."""
    is_count: ClassVar[bool]
    """Whether codes are non-negative integers."""
    has_rate: ClassVar[bool]
    """Whether codes are non-negative, so that a firing rate is defined."""
    prior_params: ClassVar[tuple[str, ...]]
    """Constructor arguments, in order: the parameters of a learned prior."""
    independent: ClassVar[bool] = True
    """Whether the units of a code are independent given the stimulus, which the exact expected distortion requires."""
    closed_form_prior: ClassVar[bool] = True
    """Whether the optimal prior follows from :meth:`moments`."""
    takes_gumbel: ClassVar[bool] = False
    """Whether relaxed counts may be a relaxed choice among a few counts (indicator "gumbel")."""
    fini_degree: ClassVar[int] = 0
    """Largest degree of :meth:`fini`; 0 for real-valued codes."""
    has_linear_ratio: ClassVar[bool] = False
    """Whether :meth:`log_ratio` is a linear function of counts, so that it has a derivative by them."""
    formula: ClassVar[str]
    """The probability or density in one line."""
    mean_formula: ClassVar[str]
    """Mean of the code."""
    variance_formula: ClassVar[str]
    """Variance of the code."""
    fano_formula: ClassVar[str]
    """Variance over mean of the code."""
    divergence: ClassVar[str]
    """How the KL divergence from the prior is computed."""
    citation: ClassVar[str]
    """Where the distribution was proposed or used for codes."""

    def __init__(self, *parameters: Num[Tensor, "*#shape"] | int | float, validate_args: bool | None) -> None:
        for key, value in zip(self.prior_params, torch.broadcast_tensors(*map(floating, parameters))):
            setattr(self, key, value)
        super().__init__(getattr(self, self.prior_params[0]).shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to `batch_shape`."""
        parameters = {key: getattr(self, key).expand(batch_shape) for key in self.prior_params}
        expanded = type(self)(**parameters, validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    def _checked(self, value: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes as floats; `ValueError` if arguments are validated and a code is outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        return value if value.is_floating_point() else value.to(getattr(self, self.prior_params[0]).dtype)

    @classmethod
    def from_prior(cls, params: dict[str, Float[Tensor, "*shape"]]) -> Self:
        """Build the prior of K units from its parameters, each of shape (K,).

        Raises
        ------
        ValueError
            If a parameter is missing or unknown.
        """
        if set(params) != set(cls.prior_params):
            raise ValueError(f"{cls.label} prior takes {cls.prior_params}, got {tuple(sorted(params))}")
        return cls(**params, validate_args=False)

    @classmethod
    @abstractmethod
    def initial_prior(
        cls, n_units: int, log_rate: float, spread: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " {n_units}"]]:
        """Draw the initial parameters of the prior, each of shape (n_units,)."""

    @classmethod
    @abstractmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Build the posterior from encoder outputs of shape (..., n_params * K), n_params blocks of K."""

    @classmethod
    def encode(
        cls, raw: Float[Tensor, "B outputs"], prior: Self, *, residual: bool, clamp: float | None = None
    ) -> Coded:
        """Build the posterior of a batch together with its averages.

        A subclass may override this if one pass gives all of them; values are those of :meth:`from_encoder`,
        `kl_divergence`, `mean` and `variance`.

        Parameters
        ----------
        raw
            (B, n_params * K) encoder outputs.
        prior
            Of batch shape (K,).
        residual
            Whether `raw` is relative to the prior.
        clamp
            As in :meth:`from_encoder`.
        """
        q = cls.from_encoder(raw, prior if residual else None, clamp=clamp)
        return Coded(q, kl_divergence(q, prior).sum(-1).mean(-1), q.mean.mean(-2), q.variance.mean(-2))

    @classmethod
    @abstractmethod
    def initial_raw(cls, n_units: int, log_rate: float, residual: bool) -> Float[Tensor, " {cls.n_params*n_units}"]:
        """Encoder bias, shape (n_params * n_units,), at which every unit's firing rate is exp(log_rate)."""

    @classmethod
    def signal_gain(cls, log_rate: float) -> float | None:
        """Encoder output that moves the mean by one standard deviation of the code, for small signals.

        None (the default) where a signal of s standard deviations does not have a KL divergence of s^2 / 2 nats in that
        limit, or where small signals are not the usual ones.
        """
        return None

    @classmethod
    def silent_share(cls) -> float:
        """Fraction of zeros of a code without information: that of the standard prior."""
        prior = cls.from_prior(cls.initial_prior(1, 0.0, 0.0, torch.Generator()))
        return float(prior.zero_probability)

    def moments(self) -> Float[Tensor, " n_moments *shape"]:
        """Statistics, shape (n_moments, *batch_shape), whose mean over stimuli determines the optimal prior.

        Raises
        ------
        NotImplementedError
            Where the optimal prior has no closed form.
        """
        raise NotImplementedError(f"{self.label}: {NO_CLOSED_FORM}")

    @classmethod
    def prior_from_moments(cls, moments: Float[Tensor, " n_moments *shape"]) -> dict[str, Float[Tensor, "*shape"]]:
        """Prior parameters that minimise the mean KL divergence of posteriors with these mean moments.

        Raises
        ------
        NotImplementedError
            Where the optimal prior has no closed form.
        """
        raise NotImplementedError(f"{cls.label}: {NO_CLOSED_FORM}")

    def statistics(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, " n_moments *shape"]:
        """Statistics of a variable of :meth:`underlying`, whose mean is :meth:`moments`.

        Raises
        ------
        NotImplementedError
            Where the optimal prior has no closed form.
        """
        raise NotImplementedError(f"{self.label}: {NO_CLOSED_FORM}")

    def underlying(self) -> "Law":
        """Distribution of the variable that :meth:`code_of` turns into a code: this one, unless codes are functions."""
        return self

    @staticmethod
    def code_of(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes from values of the variable of :meth:`underlying`."""
        return value

    def detached(self) -> Self:
        """The same distribution, without gradient."""
        return type(self).from_prior({key: getattr(self, key).detach() for key in self.prior_params})

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Entropy in nats, shape batch_shape: minus the mean of :meth:`log_prob`, differentiable.

        Raises
        ------
        NotImplementedError
            For a distribution that has neither a closed form nor a sum; the message has the estimate from samples.
        """
        raise NotImplementedError(
            f"{self.label}: the entropy has no closed form here; estimate it by -law.log_prob(law.sample((n,))).mean(0)"
        )

    def log_ratio(self, prior: Self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log of the probability (or density) of codes over that under `prior`, nats per unit.

        Differentiable in the parameters of both, and in real-valued codes.
        """
        return self.log_prob(value) - prior.log_prob(value)

    @property
    @abstractmethod
    def zero_probability(self) -> Float[Tensor, "*shape"]:
        """Probability that the code is exactly zero, shape batch_shape."""

    @abstractmethod
    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Draw codes of shape `sample_shape + batch_shape`, without gradient.

        Without a generator, as where a function of PyTorch calls this, the numbers come from PyTorch's own one.
        """

    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Draw codes of shape `sample_shape + batch_shape`, with a gradient by the parameters.

        Counts are integers as those of :meth:`sample`, with the gradient of :meth:`fini` at degree 2, as in fits: its
        mean is the gradient of E f for quadratic functions f of the counts, and close to it for smooth ones. Relaxed
        counts, which are not integers, are ``relaxed(temperature=0.5, indicator="cubic").rsample()``. Real-valued codes
        have the exact pathwise gradient.
        """
        return self.fini(self.sample(sample_shape, generator=generator))

    def fini(self, counts: Float[Tensor, "*shape"], *, degree: int = 2) -> Float[Tensor, "*shape"]:
        """Counts of this distribution with a gradient by its parameters that is exact for polynomials of the counts.

        The values are the counts themselves. For a function f of them, the backward pass gives w(z) f'(z) at the counts
        z, whose mean is the gradient of E f if f is a polynomial up to `degree` in each unit's count; of all weights
        with this property w has the least mean square. A subclass overrides this if it knows w in closed form.

        Parameters
        ----------
        counts
            Counts drawn from this distribution, shape `sample_shape + batch_shape`.
        degree
            2, 3 or 4, at most `fini_degree`.

        Raises
        ------
        ValueError
            If there are no weights of this degree.
        """
        check_degree(degree, self.fini_degree, self.label)
        if degree == 2:
            return from_two_moments(counts, self.mean, self.variance)
        wide = type(self).from_prior({key: getattr(self, key).double() for key in self.prior_params})
        moments = [wide.factorial_moment(order) for order in range(1, 2 * degree - 1)]
        return from_factorial_moments(counts, moments, degree)

    def factorial_moment(self, order: int) -> Float[Tensor, "*shape"]:
        """E z (z - 1) ... (z - order + 1), shape batch_shape, differentiable; of counts without weights of their own.

        Raises
        ------
        NotImplementedError
            For other distributions.
        """
        raise NotImplementedError(f"{self.label}: factorial moments are not needed")

    @abstractmethod
    def relaxed(self, *, temperature: float, indicator: str) -> Reparametrised:
        """Return the differentiable approximation of this distribution from which training draws."""


def floating(parameter: Tensor | float) -> Tensor:
    """A parameter as a floating-point tensor: whole numbers, and numbers that are no tensors, get the default type."""
    if isinstance(parameter, Tensor) and parameter.is_floating_point():
        return parameter
    return torch.as_tensor(parameter, dtype=torch.get_default_dtype())


def softclamp_above(x: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """Smooth upper bound: `limit - softplus(limit - x)`, equal to x far below the limit.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473: bound of log-rates in the published experiments.

    Examples
    --------
    >>> softclamp_above(torch.tensor([-5.0, 100.0]), 5.0)
    tensor([-5.0000,  5.0000])
    """
    return limit - F.softplus(limit - x)


def softclamp_symmetric(x: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """Smooth two-sided bound: `limit * tanh(x / limit)`, equal to x near zero.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473: bound of log-scales in the published experiments.

    Examples
    --------
    >>> softclamp_symmetric(torch.tensor([0.0, -100.0]), 5.0)
    tensor([ 0., -5.])
    """
    return limit * torch.tanh(x / limit)


def split_blocks(raw: Float[Tensor, "*batch outputs"], n_params: int) -> tuple[Float[Tensor, "*batch K"], ...]:
    """Split encoder outputs (..., n_params * K) into n_params tensors (..., K).

    Raises
    ------
    ValueError
        If the last axis is not a multiple of `n_params`.
    """
    if raw.shape[-1] % n_params:
        raise ValueError(
            f"encoder gives {raw.shape[-1]} outputs, expected a multiple of {n_params}: this distribution takes "
            f"{n_params} numbers per unit"
        )
    return raw.chunk(n_params, dim=-1)
