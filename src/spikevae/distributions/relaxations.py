"""Differentiable stand-ins for laws whose codes are integers."""

from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ._random import Generator
from .arrivals import check_temperature, get_indicator, relaxed_counts, window, window_integrals


@final
class RelaxedPoisson(Distribution):
    r"""Poisson count whose time window has a soft end: the sum of s((1 - t) / temperature) over arrivals t.

    .. math:: z = \sum_m s\big((1 - t_m)/\tau\big), \qquad
        \mathbb E z = \lambda \int_0^\infty s\,dt, \quad \operatorname{Var} z = \lambda \int_0^\infty s^2\,dt

    (Campbell's theorem). For temperatures up to 1 the mean is the firing rate for every indicator of compact
    support, and the variance per unit rate is 1 - tau/3 (linear), 1 - 9 tau/35 (cubic), 1 - 50 tau/231
    (quintic), 1 - tau/4 (cosine); for the sigmoid they are tau log(1 + e^(1/tau)) and
    tau [softplus(1/tau) - sigmoid(1/tau)].

    Parameters
    ----------
    log_rate
        Log of the firing rate lambda, any shape.
    temperature
        Softness tau of the window's end, > 0.
    indicator
        Softened step s, a key of `spikevae.distributions.INDICATORS`.

    Raises
    ------
    ValueError
        If the temperature is not positive or the indicator unknown.

    References
    ----------
    Vafaii, Galor and Yates (2024), arXiv 2405.14473.

    Examples
    --------
    >>> z = RelaxedPoisson(torch.zeros(2), temperature=0.7, indicator="cubic")
    >>> z.mean, z.variance
    (tensor([1., 1.]), tensor([0.8200, 0.8200]))
    >>> z.rsample((5,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"log_rate": constraints.real}
    support: ClassVar[Any] = constraints.nonnegative
    has_rsample: ClassVar[bool] = True  # type: ignore[misc]

    def __init__(self, log_rate: Tensor, temperature: float, indicator: str = "cubic") -> None:
        self.log_rate = log_rate
        self.temperature = check_temperature(temperature)
        self.indicator = get_indicator(indicator)
        super().__init__(log_rate.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean of the relaxed count."""
        start, _ = window(self.temperature, self.indicator)
        return self.log_rate.exp() * (start + window_integrals(self.temperature, self.indicator.name)[0])

    @property
    def variance(self) -> Tensor:
        """Variance of the relaxed count."""
        start, _ = window(self.temperature, self.indicator)
        return self.log_rate.exp() * (start + window_integrals(self.temperature, self.indicator.name)[1])

    def rsample(self, sample_shape: Any = (), *, generator: Generator) -> Tensor:  # type: ignore[override]
        """Relaxed counts of shape `sample_shape + batch_shape`, differentiable in `log_rate`."""
        log_rate = self.log_rate.expand(self._extended_shape(sample_shape))
        return relaxed_counts(
            log_rate, temperature=self.temperature, indicator=self.indicator.name, generator=generator
        )

    def sample(self, sample_shape: Any = (), *, generator: Generator) -> Tensor:  # type: ignore[override]
        """Relaxed counts without gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)
