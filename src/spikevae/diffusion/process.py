"""The variance-preserving process: how noise covers data in time, and how samples are drawn back from noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._settings import positive

SMALLEST_TIME = 1e-5
"""Time of the smallest noise: there, a density differs from that of the data by less than networks resolve."""

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
"""From states (n, D) and times (n,) to gradients (n, D) of the log density by the state."""


@dataclass(frozen=True)
class VariancePreserving:
    r"""The process :math:`dx = -\tfrac{1}{2} \beta(t)\, x\, dt + \sqrt{\beta(t)}\, dW`.

    Time t goes from 0 (data) to 1 (noise), and :math:`\beta(t)` rises linearly. Given the data :math:`x_0`, the state
    at time t is Gaussian with mean :math:`a(t)\, x_0` and variance :math:`1 - a(t)^2` in each dimension, with
    :math:`\log a(t) = -\tfrac{1}{2} \int_0^t \beta`.

    Parameters
    ----------
    beta_start
        :math:`\beta(0)`, per unit of time.
    beta_end
        :math:`\beta(1)`.

    Raises
    ------
    ValueError
        Where a rate is not positive.

    References
    ----------
    Song et al. (2021), arXiv 2011.13456, equation 11 and appendix C.

    Examples
    --------
    >>> process, t = VariancePreserving(), torch.tensor([0.0, 0.1, 1.0])
    >>> [round(v, 3) for v in process.variance(t).tolist()]
    [0.0, 0.104, 1.0]
    """

    beta_start: float = 0.1
    beta_end: float = 20.0

    def __post_init__(self) -> None:
        for name in ("beta_start", "beta_end"):
            positive(name, getattr(self, name))

    def beta(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Rate of the noise, which is also the squared diffusion coefficient g², per unit of time."""
        return self.beta_start + (self.beta_end - self.beta_start) * t

    def log_mean_coefficient(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """log a(t)."""
        return -0.5 * self.beta_start * t - 0.25 * (self.beta_end - self.beta_start) * t.square()

    def mean_coefficient(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """a(t): what is left of the data."""
        return self.log_mean_coefficient(t).exp()

    def variance(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """1 - a(t)², in each dimension; accurate near t = 0."""
        return -torch.expm1(2 * self.log_mean_coefficient(t))


def reverse_diffusion(
    score: ScoreFunction,
    start: Float[Tensor, "n D"],
    times: Float[Tensor, " steps"],
    generator: torch.Generator,
    process: VariancePreserving | None = None,
) -> Float[Tensor, "n D"]:
    r"""Samples at the last time, from noise at the first, by steps of the reversed process.

    A step from t to s < t draws from the Gaussian distribution of :math:`x_s` given :math:`x_t` and data at
    :math:`\hat x_0 = (x_t + (1 - a_t^2)\, \nabla \log p_t(x_t)) / a_t`, the expected data; the last step gives
    its mean.

    Parameters
    ----------
    score
        Gradient of the log density by the state.
    start
        (n, D) draws of a standard normal.
    times
        Falling times, of one step less than their number.
    generator
        Draws the noise.
    process
        The process; by default with the usual rates.

    Raises
    ------
    ValueError
        Where times do not fall, or a state is no longer finite.

    References
    ----------
    Ho et al. (2020), arXiv 2006.11239, equations 6 and 7.

    Examples
    --------
    >>> noise, times = torch.Generator().manual_seed(0), torch.linspace(1, 1e-5, 100)
    >>> start = torch.randn(4000, 1, generator=noise)
    >>> x = reverse_diffusion(lambda x, t: -x, start, times, noise)  # the data are a standard normal too
    >>> round(x.std().item(), 1)
    1.0
    """
    process = VariancePreserving() if process is None else process
    if len(times) < 2 or not (times[1:] < times[:-1]).all():
        raise ValueError("times do not fall; give two or more, as torch.linspace(1, 1e-5, 250)")
    exact = times.double()
    log_mean, variance = process.log_mean_coefficient(exact), process.variance(exact)
    x = start
    for step in range(len(times) - 1):
        a, a_next = log_mean[step].exp().item(), log_mean[step + 1].exp().item()
        v, v_next = variance[step].item(), variance[step + 1].item()
        between = -math.expm1(2 * (log_mean[step] - log_mean[step + 1]).item())  # variance of x_t given x_s
        data = (x + v * score(x, times[step].expand(len(x)).to(x))) / a
        x = (a / a_next * v_next / v) * x + (a_next * between / v) * data
        if step < len(times) - 2:
            x = x + math.sqrt(between * v_next / v) * torch.randn(
                x.shape, dtype=x.dtype, device=x.device, generator=generator
            )
    if not x.isfinite().all():
        wrong = int((~x.isfinite().all(-1)).sum())
        raise ValueError(f"{wrong} of {len(x)} samples are not finite: give more steps, or train for longer")
    return x
