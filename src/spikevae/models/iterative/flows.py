r"""Natural-gradient flows of the free energy in a posterior's parameters (membrane potentials), one flow for each law.

The free energy of one stimulus as a function of the posterior's parameters theta is

.. math:: F(\theta) = D(m(\theta), v(\theta)) + \beta\,\mathrm{KL}(q_\theta \| q_{ref})

where the expected distortion D depends only on the means m and the variances v of the code (linear decoder, Gaussian
pixels). With the drive :math:`g = -\partial D/\partial m` and the self-inhibition :math:`h = \partial D/\partial v`,
minus the gradient of F divided by the Fisher information of the law has, for counts, no factor that depends on the
firing rate:

================== =========================================== ==================================================
law                drift, minus the natural gradient of D      leak, minus the natural gradient of the divergence
================== =========================================== ==================================================
Poisson            g - h                                       -(u - u_ref), u the log firing rate
Bernoulli          g - h (1 - 2 r)                             -(u - u_ref), u the log odds, r the firing rate
Gaussian           mean: s^2 g; log s: -s^2 h                  mean: -(s / s_ref)^2 (mu - mu_ref);
                                                               log s: (1 - (s / s_ref)^2) / 2
rectified Gaussian Gaussian's Fisher, moments of max(y, 0)     as the Gaussian
================== =========================================== ==================================================

References
----------
Vafaii, Galor and Yates (2025), "Brain-like variational inference", arXiv 2410.19315.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import kl_divergence
from torch.nn.functional import hardtanh, softplus

from ..._batching import BatchedFunction
from ...distributions import Bernoulli, Gaussian, Poisson, RectifiedGaussian
from ...distributions._law import Law
from ...distributions.rectified_gaussian import standard_density_and_mass
from .drive import inner_product

Params: TypeAlias = tuple[Float[Tensor, "... K"], ...]
"""Parameters of a posterior in the law's order (`Law.prior_params`), each (..., K)."""

MIN_LOG_RATE = -20.0
"""Lowest log firing rate or log odds of a state: 2e-9 spikes per unit."""


class Flow(ABC):
    """Natural-gradient flow of the parameters of one law's posterior; abstract. Everything is elementwise."""

    law: ClassVar[type[Law]]
    is_natural: ClassVar[bool] = False
    """Whether the law has one parameter, the natural parameter of an exponential family."""

    def posterior(self, params: Params) -> Law:
        """The law with these parameters."""
        return self.law(*params, validate_args=False)

    def params(self, law: Law) -> Params:
        """Parameters of a law."""
        return tuple(getattr(law, name) for name in self.law.prior_params)

    @abstractmethod
    def divergence(self, law: Law, params: Params, reference: Params) -> Float[Tensor, " B"]:
        """(B,) KL divergence summed over units, nats; `law` is that of `params`."""

    def mean_divergence(self, law: Law, params: Params, reference: Params) -> Float[Tensor, ""]:
        """Mean of :meth:`divergence` over the stimuli."""
        return self.divergence(law, params, reference).mean()

    @abstractmethod
    def drift(self, params: Params, drive: Float[Tensor, "B K"], self_inhibition: Float[Tensor, "..."]) -> Params:
        """Minus the natural gradient of the expected distortion, from minus its derivative with respect to the mean of
        the code, `drive`, and its derivative with respect to the variance, `self_inhibition`."""

    @abstractmethod
    def sampled_drift(
        self,
        params: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        code: Float[Tensor, "B K"],
    ) -> Params:
        """An unbiased estimate of :meth:`drift` from one sampled `code` and the drive at this code."""

    @abstractmethod
    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        """Minus the natural gradient of the divergence from `reference`, and its decay rate: minus the derivative of a
        parameter's leak with respect to the parameter, the same for all parameters; None where it is one."""

    def direction(
        self,
        params: Params,
        reference: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        beta: Float[Tensor, ""],
        spike_price: Float[Tensor, ""] | None,
        code: Float[Tensor, "#B K"] | None,
    ) -> tuple[Params, Tensor | None]:
        """Minus the natural gradient of the free energy with these weights, estimated from a sampled `code` if there
        is one, and the decay rate of :meth:`leak`."""
        drive = drive if spike_price is None else drive - spike_price
        if code is None:
            drift = self.drift(params, drive, self_inhibition)
        else:
            drift = self.sampled_drift(params, drive, self_inhibition, code)
        leak, decay = self.leak(params, reference)
        return tuple(torch.addcmul(d, k, beta) for d, k in zip(drift, leak)), decay

    @abstractmethod
    def fisher(self, params: Params) -> Params:
        """Diagonal Fisher information."""

    @abstractmethod
    def bounded(self, params: Params, clamp: float | None) -> Params:
        """Parameters within the bounds of a state: :data:`MIN_LOG_RATE`, and `clamp` if given."""


class _CountFlow(Flow):
    """Laws of one natural parameter u whose mean has the derivative `Fisher`; abstract."""

    is_natural: ClassVar[bool] = True

    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        return (reference[0] - params[0],), None

    @abstractmethod
    def log_partition(self, law: Law) -> Float[Tensor, "... K"]:
        """A(u), whose derivative is the mean."""

    def divergence(self, law: Law, params: Params, reference: Params) -> Float[Tensor, " B"]:
        """The Bregman divergence of A: m (u - u_ref) - A(u) + A(u_ref)."""
        product = torch.linalg.vecdot(law.mean, params[0] - reference[0])
        return product - self.log_partition(law).sum(-1) + self.log_partition(self.posterior(reference)).sum(-1)

    def mean_divergence(self, law: Law, params: Params, reference: Params) -> Float[Tensor, ""]:
        product = inner_product(law.mean, params[0] - reference[0]) / len(law.mean)
        of_law, of_reference = self.log_partition(law), self.log_partition(self.posterior(reference))
        return product - of_law.mean(-2).sum() + of_reference.mean(-2).sum()

    def fisher(self, params: Params) -> Params:
        return (self.posterior(params).variance,)

    def sampled_drift(
        self,
        params: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        code: Float[Tensor, "B K"],
    ) -> Params:
        return self.drift(params, drive, self_inhibition)  # linear in the drive, which is linear in the code

    def bounded(self, params: Params, clamp: float | None) -> Params:
        return (
            hardtanh(params[0], MIN_LOG_RATE, -MIN_LOG_RATE if clamp is None else clamp),
        )  # clamp with a faster derivative


@final
class PoissonFlow(_CountFlow):
    """The membrane potential is the log firing rate."""

    law: ClassVar[type[Law]] = Poisson

    def drift(self, params: Params, drive: Float[Tensor, "B K"], self_inhibition: Float[Tensor, "..."]) -> Params:
        return (drive - self_inhibition,)

    def direction(
        self,
        params: Params,
        reference: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        beta: Float[Tensor, ""],
        spike_price: Float[Tensor, ""] | None,
        code: Float[Tensor, "#B K"] | None,
    ) -> tuple[Params, Tensor | None]:
        """The same in fewer operations on (B, K): with the prior as reference, `constant` has one value per unit."""
        constant = torch.addcmul(-self_inhibition, reference[0], beta)
        constant = constant if spike_price is None else constant - spike_price
        return (torch.addcmul(drive + constant, params[0], -beta),), None

    def log_partition(self, law: Law) -> Float[Tensor, "... K"]:
        return law.mean


@final
class BernoulliFlow(_CountFlow):
    """The membrane potential is the log odds of a spike."""

    law: ClassVar[type[Law]] = Bernoulli

    def drift(self, params: Params, drive: Float[Tensor, "B K"], self_inhibition: Float[Tensor, "..."]) -> Params:
        return (torch.addcmul(drive, self_inhibition, torch.tanh(0.5 * params[0])),)  # 1 - 2 r = -tanh(u / 2)

    def log_partition(self, law: Law) -> Float[Tensor, "... K"]:
        assert isinstance(law, Bernoulli)
        return softplus(law.logit)


class _LocationScaleFlow(Flow):
    """Laws made of N(mu, s^2), with parameters mu and log s and the Gaussian's Fisher, 1 / s^2 and 2; abstract."""

    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        ratio = torch.exp(2 * (params[1] - reference[1]))
        return (ratio * (reference[0] - params[0]), 0.5 - 0.5 * ratio), ratio

    def divergence(self, law: Law, params: Params, reference: Params) -> Float[Tensor, " B"]:
        return kl_divergence(law, self.posterior(reference)).sum(-1)

    def fisher(self, params: Params) -> Params:
        return torch.exp(-2 * params[1]), torch.full_like(params[1], 2.0)

    def bounded(self, params: Params, clamp: float | None) -> Params:
        limit = -MIN_LOG_RATE if clamp is None else clamp
        return params[0], params[1].clamp(-limit, limit)


@final
class GaussianFlow(_LocationScaleFlow):
    """Mean and log standard deviation."""

    law: ClassVar[type[Law]] = Gaussian

    def drift(self, params: Params, drive: Float[Tensor, "B K"], self_inhibition: Float[Tensor, "..."]) -> Params:
        variance = torch.exp(2 * params[1])
        return variance * drive, -variance * self_inhibition

    def sampled_drift(
        self,
        params: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        code: Float[Tensor, "B K"],
    ) -> Params:
        return torch.exp(2 * params[1]) * drive, 0.5 * drive * (code - params[0])


@final
class RectifiedGaussianFlow(_LocationScaleFlow):
    """Mean and log standard deviation before the rectifier."""

    law: ClassVar[type[Law]] = RectifiedGaussian

    def drift(self, params: Params, drive: Float[Tensor, "B K"], self_inhibition: Float[Tensor, "..."]) -> Params:
        """With a = mu / s: dm/dmu = Phi(a), dm/ds = phi(a), dv/dmu = 2 m (1 - Phi(a)), dv/ds = 2 s Phi - 2 m phi.

        m = mu Phi + s phi has a relative error of a^2 roundings far below zero, where its terms are negligible.
        """
        scale = params[1].exp()
        density, mass = standard_density_and_mass(params[0] / scale)
        mean = torch.addcmul(scale * density, params[0], mass)
        to_loc = drive * mass - 2 * self_inhibition * mean * (1 - mass)
        to_scale = drive * density - 2 * self_inhibition * (scale * mass - mean * density)
        return scale * scale * to_loc, 0.5 * scale * to_scale

    def sampled_drift(
        self,
        params: Params,
        drive: Float[Tensor, "B K"],
        self_inhibition: Float[Tensor, "..."],
        code: Float[Tensor, "B K"],
    ) -> Params:
        masked_drive = torch.where(code > 0, drive, 0.0)
        return torch.exp(2 * params[1]) * masked_drive, 0.5 * masked_drive * (code - params[0])


FLOWS: dict[str, Flow] = {
    flow.law.name: flow for flow in (PoissonFlow(), GaussianFlow(), RectifiedGaussianFlow(), BernoulliFlow())
}
"""Every flow, by the name of its law."""


def get_flow(latent: str) -> Flow:
    """The flow of the law called `latent`; a `ValueError` with the names of all flows if it has none."""
    if latent not in FLOWS:
        raise ValueError(
            f"no natural-gradient flow for latent={latent!r}: inference='iterative' takes {', '.join(FLOWS)}; "
            "use inference='amortised'"
        )
    return FLOWS[latent]


def euler_step(params: Params, direction: Params, gain: Float[Tensor, "..."]) -> Params:
    """params + gain * direction: an Euler step if the gain is the step size."""
    return tuple(torch.addcmul(p, s, gain) for p, s in zip(params, direction))


def exponential_gain(size: Float[Tensor, "*#shape"], decay: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Gain of a step of the flow with its leak integrated exactly: (1 - exp(-decay size)) / decay.

    Without leak it is an Euler step; an infinite step ends where the leak balances the present drift.

    References
    ----------
    Cox and Matthews (2002), J. Comput. Phys. 176: the first-order exponential time-differencing method.
    """
    return size * relative_gain(decay * size)


def relative_gain(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(1 - exp(-x)) / x for x >= 0, exact to rounding also near 0.

    Examples
    --------
    >>> relative_gain(torch.tensor([0.0, 1e-6, 1.0, 50.0]))
    tensor([1.0000, 1.0000, 0.6321, 0.0200])
    """
    gain: Tensor = _RelativeGain.apply(x)
    return gain


class _RelativeGain(BatchedFunction):
    """The derivative is (1 - (1 + x) gain) / x, which needs no exponential."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        series = torch.addcmul(torch.ones_like(x), x, x / 6 - 0.5)
        return torch.where(x < MAX_SERIES_ARGUMENT, series, torch.expm1(-x).div_(-x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, gain = ctx.saved_tensors
        derivative = (1 - gain).div_(x).sub_(gain)
        return grad * torch.where(x < MAX_SERIES_ARGUMENT, x / 3 - 0.5, derivative)


MAX_SERIES_ARGUMENT = 1e-4
"""Three terms of the series of (1 - exp(-x)) / x are exact to 1e-13 for x up to this."""
