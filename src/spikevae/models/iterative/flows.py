r"""Natural-gradient flows of the free energy: what a membrane potential does, one flow for each law of the code.

The free energy of one stimulus as a function of the posterior's parameters theta is

.. math:: F(\theta) = D(m(\theta), v(\theta)) + \beta\,\mathrm{KL}(q_\theta \| q_{ref})

where the expected distortion D depends on the means m and the variances v of the code alone (linear decoder, Gaussian
pixels). With ``push`` :math:`= -\partial D/\partial m` and ``width`` :math:`= \partial D/\partial v`, dividing minus
the gradient of F by the Fisher information of the law leaves, for the counts, no factor that depends on the rate:

================== =========================================== ==================================================
law                drift, minus the natural gradient of D      leak, minus the natural gradient of the divergence
================== =========================================== ==================================================
Poisson            push - width                                -(u - u_ref), u the log rate
Bernoulli          push - width (1 - 2 r)                      -(u - u_ref), u the logit
Gaussian           mean: s^2 push; log s: -s^2 width           mean: -(s / s_ref)^2 (mu - mu_ref);
                                                               log s: (1 - (s / s_ref)^2) / 2
rectified Gaussian the Gaussian's Fisher, moments of max(y, 0) as the Gaussian
================== =========================================== ==================================================

References
----------
Vafaii, Galor and Yates (2025), "Brain-like variational inference", arXiv 2410.19315.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import kl_divergence
from torch.nn.functional import hardtanh, softplus

from ..._batching import BatchedFunction
from ...distributions import Bernoulli, Gaussian, Poisson, RectifiedGaussian
from ...distributions._law import Law
from ...distributions.rectified_gaussian import standard_density_and_mass
from .drive import inner

Params = tuple[Tensor, ...]
"""Parameters of a posterior in the law's order (`Law.prior_params`), each (..., K)."""

FLOOR = -20.0
"""Lowest log firing rate or log odds: 2e-9 spikes, below which silence is silence."""


class Flow(ABC):
    """How the parameters of one law's posterior move; abstract. Everything is elementwise."""

    law: ClassVar[type[Law]]
    is_natural: ClassVar[bool] = False
    """Whether the one parameter is the natural parameter of an exponential family: its mean absorbs the noise."""

    def posterior(self, params: Params) -> Law:
        """The law with these parameters."""
        return self.law(*params, validate_args=False)

    def params(self, law: Law) -> Params:
        """Parameters of a law."""
        return tuple(getattr(law, name) for name in self.law.prior_params)

    @abstractmethod
    def divergence(self, law: Law, params: Params, reference: Params) -> Tensor:
        """(B,) KL in nats, all units together, as cheaply as can be; `law` is that of `params`."""

    def mean_divergence(self, law: Law, params: Params, reference: Params) -> Tensor:
        """Mean of :meth:`divergence` over the stimuli."""
        return self.divergence(law, params, reference).mean()

    @abstractmethod
    def drift(self, params: Params, push: Tensor, width: Tensor) -> Params:
        """Minus the natural gradient of the expected distortion: `push` is minus its slope in the mean of the code,
        `width` its slope in the variance."""

    @abstractmethod
    def sampled_drift(self, params: Params, push: Tensor, width: Tensor, code: Tensor) -> Params:
        """An unbiased estimate of :meth:`drift` from one `code`, `push` being taken there."""

    @abstractmethod
    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        """Minus the natural gradient of the divergence from `reference`, and how fast each parameter leaks: minus the
        derivative of its leak in itself, the same for all parameters, None where it is one."""

    def slopes(
        self,
        params: Params,
        reference: Params,
        push: Tensor,
        width: Tensor,
        beta: Tensor,
        price: Tensor | None,
        code: Tensor | None,
    ) -> tuple[Params, Tensor | None]:
        """Minus the natural gradient of the free energy at these costs, estimated from a `code` if there is one, and
        the decay that :meth:`leak` gives."""
        push = push if price is None else push - price
        drift = self.drift(params, push, width) if code is None else self.sampled_drift(params, push, width, code)
        leak, decay = self.leak(params, reference)
        return tuple(torch.addcmul(d, k, beta) for d, k in zip(drift, leak)), decay

    @abstractmethod
    def fisher(self, params: Params) -> Params:
        """Diagonal Fisher information."""

    @abstractmethod
    def bounded(self, params: Params, clamp: float | None) -> Params:
        """Parameters within the range of the number type, and below `clamp` if given."""


class _CountFlow(Flow):
    """Laws of one natural parameter u whose mean has the derivative `Fisher`; abstract."""

    is_natural: ClassVar[bool] = True

    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        return (reference[0] - params[0],), None

    @abstractmethod
    def log_partition(self, law: Law) -> Tensor:
        """A(u), whose derivative is the mean."""

    def divergence(self, law: Law, params: Params, reference: Params) -> Tensor:
        """The Bregman divergence of A: m (u - u_ref) - A(u) + A(u_ref)."""
        over = torch.linalg.vecdot(law.mean, params[0] - reference[0])
        return over - self.log_partition(law).sum(-1) + self.log_partition(self.posterior(reference)).sum(-1)

    def mean_divergence(self, law: Law, params: Params, reference: Params) -> Tensor:
        over = inner(law.mean, params[0] - reference[0]) / len(law.mean)
        own, theirs = self.log_partition(law), self.log_partition(self.posterior(reference))
        return over - own.mean(-2).sum() + theirs.mean(-2).sum()

    def fisher(self, params: Params) -> Params:
        return (self.posterior(params).variance,)

    def sampled_drift(self, params: Params, push: Tensor, width: Tensor, code: Tensor) -> Params:
        return self.drift(params, push, width)  # linear in the push, which is linear in the code

    def bounded(self, params: Params, clamp: float | None) -> Params:
        return (hardtanh(params[0], FLOOR, -FLOOR if clamp is None else clamp),)  # a clamp with a cheaper slope


@final
class PoissonFlow(_CountFlow):
    """The membrane potential is the log firing rate."""

    law: ClassVar[type[Law]] = Poisson

    def drift(self, params: Params, push: Tensor, width: Tensor) -> Params:
        return (push - width,)

    def slopes(
        self,
        params: Params,
        reference: Params,
        push: Tensor,
        width: Tensor,
        beta: Tensor,
        price: Tensor | None,
        code: Tensor | None,
    ) -> tuple[Params, Tensor | None]:
        """The same in two passes: all but push and leak is one number a unit where the reference is."""
        still = torch.addcmul(-width, reference[0], beta)
        still = still if price is None else still - price
        return (torch.addcmul(push + still, params[0], -beta),), None

    def log_partition(self, law: Law) -> Tensor:
        return law.mean


@final
class BernoulliFlow(_CountFlow):
    """The membrane potential is the log odds of a spike."""

    law: ClassVar[type[Law]] = Bernoulli

    def drift(self, params: Params, push: Tensor, width: Tensor) -> Params:
        return (torch.addcmul(push, width, torch.tanh(0.5 * params[0])),)  # 1 - 2 r = -tanh(u / 2)

    def log_partition(self, law: Law) -> Tensor:
        assert isinstance(law, Bernoulli)
        return softplus(law.logit)


class _LocationScaleFlow(Flow):
    """Laws made of N(mu, s^2), with parameters mu and log s and the Gaussian's Fisher, 1 / s^2 and 2; abstract."""

    def leak(self, params: Params, reference: Params) -> tuple[Params, Tensor | None]:
        ratio = torch.exp(2 * (params[1] - reference[1]))
        return (ratio * (reference[0] - params[0]), 0.5 - 0.5 * ratio), ratio

    def divergence(self, law: Law, params: Params, reference: Params) -> Tensor:
        return kl_divergence(law, self.posterior(reference)).sum(-1)

    def fisher(self, params: Params) -> Params:
        return torch.exp(-2 * params[1]), torch.full_like(params[1], 2.0)

    def bounded(self, params: Params, clamp: float | None) -> Params:
        limit = -FLOOR if clamp is None else clamp
        return params[0], params[1].clamp(-limit, limit)


@final
class GaussianFlow(_LocationScaleFlow):
    """Mean and log standard deviation."""

    law: ClassVar[type[Law]] = Gaussian

    def drift(self, params: Params, push: Tensor, width: Tensor) -> Params:
        variance = torch.exp(2 * params[1])
        return variance * push, -variance * width

    def sampled_drift(self, params: Params, push: Tensor, width: Tensor, code: Tensor) -> Params:
        return torch.exp(2 * params[1]) * push, 0.5 * push * (code - params[0])


@final
class RectifiedGaussianFlow(_LocationScaleFlow):
    """Mean and log standard deviation before the rectifier."""

    law: ClassVar[type[Law]] = RectifiedGaussian

    def drift(self, params: Params, push: Tensor, width: Tensor) -> Params:
        """With a = mu / s: dm/dmu = Phi(a), dm/ds = phi(a), dv/dmu = 2 m (1 - Phi(a)), dv/ds = 2 s Phi - 2 m phi.

        m = mu Phi + s phi loses a^2 roundings far below zero, where it is next to nothing beside `push`.
        """
        scale = params[1].exp()
        density, mass = standard_density_and_mass(params[0] / scale)
        mean = torch.addcmul(scale * density, params[0], mass)
        to_loc = push * mass - 2 * width * mean * (1 - mass)
        to_scale = push * density - 2 * width * (scale * mass - mean * density)
        return scale * scale * to_loc, 0.5 * scale * to_scale

    def sampled_drift(self, params: Params, push: Tensor, width: Tensor, code: Tensor) -> Params:
        open_push = torch.where(code > 0, push, 0.0)
        return torch.exp(2 * params[1]) * open_push, 0.5 * open_push * (code - params[0])


FLOWS: dict[str, Flow] = {
    flow.law.name: flow for flow in (PoissonFlow(), GaussianFlow(), RectifiedGaussianFlow(), BernoulliFlow())
}
"""Every flow by the name of its law."""


def get_flow(latent: str) -> Flow:
    """The flow of the law called `latent`; `ValueError` naming those there are if it has none."""
    if latent not in FLOWS:
        raise ValueError(
            f"no natural-gradient flow for latent={latent!r}: inference='iterative' takes {', '.join(FLOWS)}; "
            "use inference='amortised'"
        )
    return FLOWS[latent]


def step(params: Params, slopes: Params, gain: Tensor) -> Params:
    """params + gain * slopes: an Euler step for the step size as gain."""
    return tuple(torch.addcmul(p, s, gain) for p, s in zip(params, slopes))


def exponential_gain(size: Tensor, decay: Tensor) -> Tensor:
    """Gain of a step of the flow with its leak integrated exactly: (1 - exp(-decay size)) / decay.

    It makes an Euler step where there is no leak, and for a step without end one that lands where leak and the drift of
    this moment balance.

    References
    ----------
    Cox and Matthews (2002), J. Comput. Phys. 176: the first-order exponential time-differencing method.
    """
    return size * relative_gain(decay * size)


def relative_gain(x: Tensor) -> Tensor:
    """(1 - exp(-x)) / x for x >= 0, to rounding also near 0.

    Examples
    --------
    >>> relative_gain(torch.tensor([0.0, 1e-6, 1.0, 50.0]))
    tensor([1.0000, 1.0000, 0.6321, 0.0200])
    """
    gain: Tensor = _RelativeGain.apply(x)
    return gain


class _RelativeGain(BatchedFunction):
    """One exponential for the value, and none for the slope (1 - (1 + x) gain) / x."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        series = torch.addcmul(torch.ones_like(x), x, x / 6 - 0.5)
        return torch.where(x < SMALL, series, torch.expm1(-x).div_(-x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, gain = ctx.saved_tensors
        slope = (1 - gain).div_(x).sub_(gain)
        return grad * torch.where(x < SMALL, x / 3 - 0.5, slope)


SMALL = 1e-4
"""Below it three terms of the series of (1 - exp(-x)) / x are exact to 1e-13."""
