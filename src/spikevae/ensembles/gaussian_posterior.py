"""`GaussianPosterior`: independent Gaussians over the parameters of a module."""

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from .._settings import positive, whole_number
from ._estimator import ParameterPosterior
from ._modules import Tensors, build_module, free_and_fixed

START_SCALE = 0.05
"""First standard deviation of every parameter, at most that of the prior."""
MEAN, LOG_SCALE = "mean.", "log_scale."


@final
class GaussianPosterior(ParameterPosterior):
    r"""A posterior over the parameters of a module, an independent Gaussian for each (mean field).

    Minimises

    .. math:: -\frac{1}{n} \sum_i E_{\theta_1 \ldots \theta_m \sim q}\, \mathrm{bound}(a_{i1}, \ldots, a_{im})
        + \frac{1}{\beta n} \mathrm{KL}(q \| p), \qquad a_{ij} = \log p(y_i | x_i, \theta_j),

    with m joint draws, the same for all data of a step, and the prior N(0, prior_scale²). With "average" it is the free
    energy divided by n, for any m; with "pac_m" the bound is the logarithm of the mean likelihood of the draws, which
    fits the predictive distribution rather than its members, and is the same as "average" at m = 1.

    Parameters
    ----------
    module : torch.nn.Module or function
        The architecture, as of :class:`Ensemble`; the means start at its initial parameters.
    n_samples : int
        m, draws per step. "pac2", "pac2_tight" and "repulsion" need two or more.
    n_members : int
        Draws from the posterior for predictions, made once.
    objective, robustness, likelihood, noise_scale
        As of :class:`Ensemble`.
    prior_scale : float
        Standard deviation of every parameter under the prior.
    beta : float
        Weight of the data against the prior: KL is divided by beta n. (The bound for m draws of arXiv 2203.01859 has
        m / beta in the place of 1 / beta.)
    learning_rate, n_steps, batch_size, device, random_state, verbose
        As of :class:`Ensemble`; `random_state` is also of the draws.

    Attributes
    ----------
    history_ : dict
        step, and objective, nats per row: means over windows of steps.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.

    References
    ----------
    Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), arXiv 1505.05424; Morningstar, Alemi and Dillon (2022),
    arXiv 2010.09629, "pac_m".

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> y = 2 * x[:, 0] + np.random.default_rng(0).normal(size=100)
    >>> fit = GaussianPosterior(nn.Linear(1, 1), n_samples=4, n_steps=500, random_state=0).fit(x, y)
    >>> fit.means_["weight"].shape, bool(fit.scales_["weight"] < 0.3)
    ((1, 1), True)
    """

    def __init__(
        self,
        module: Any,
        n_samples: int = 1,
        *,
        n_members: int = 100,
        objective: str = "average",
        robustness: float = 1.0,
        likelihood: Any = "gaussian",
        noise_scale: float = 1.0,
        prior_scale: float = 1.0,
        beta: float = 1.0,
        learning_rate: float = 0.01,
        n_steps: int = 2000,
        batch_size: int = 256,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.module = module
        self.n_samples = n_samples
        self.n_members = n_members
        self.objective = objective
        self.robustness = robustness
        self.likelihood = likelihood
        self.noise_scale = noise_scale
        self.prior_scale = prior_scale
        self.beta = beta
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _check(self) -> None:
        whole_number("n_samples", self.n_samples, 1)
        whole_number("n_members", self.n_members, 1)
        positive("prior_scale", self.prior_scale)
        if self.n_samples == 1 and self.objective in ("pac2", "pac2_tight", "repulsion"):
            raise ValueError(f"objective {self.objective!r} compares draws, and n_samples is 1: give 2 or more")

    def _start(self, seed: int) -> tuple[nn.Module, Tensors, Tensors]:
        module = build_module(self.module, seed, 0)
        free, fixed = free_and_fixed(module)
        scale = math.log(min(START_SCALE, self.prior_scale))
        means = {MEAN + name: value.clone() for name, value in free.items()}
        return module, {**means, **{LOG_SCALE + n: torch.full_like(v, scale) for n, v in free.items()}}, fixed

    def _draw(self, free: Tensors, fixed: Tensors, n: int, noise: torch.Generator) -> Tensors:
        """n draws of all parameters."""
        drawn = {}
        for name, mean in free.items():
            if name.startswith(MEAN):
                name = name.removeprefix(MEAN)
                normal = torch.randn(n, *mean.shape, dtype=mean.dtype, device=mean.device, generator=noise)
                drawn[name] = mean + free[LOG_SCALE + name].exp() * normal
        return {**drawn, **{name: value.expand(n, *value.shape) for name, value in fixed.items()}}

    def _step_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        return self._draw(free, fixed, self.n_samples, noise)

    def _final_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        return self._draw(free, fixed, self.n_members, noise)

    def _penalty(self, free: Tensors) -> Tensor:
        total: list[Tensor] = []
        for name, mean in free.items():
            if name.startswith(MEAN):
                log_ratio = free[LOG_SCALE + name.removeprefix(MEAN)] - math.log(self.prior_scale)
                squares = (2 * log_ratio).exp() + (mean / self.prior_scale).square()
                total.append((0.5 * (squares - 1) - log_ratio).sum())
        return torch.stack(total).sum()

    @property
    def means_(self) -> dict[str, Any]:
        """Posterior means by the name of the parameter, numpy."""
        return self._posterior(MEAN, lambda value: value)

    @property
    def scales_(self) -> dict[str, Any]:
        """Posterior standard deviations by the name of the parameter, numpy."""
        return self._posterior(LOG_SCALE, torch.exp)

    def _posterior(self, prefix: str, function: Any) -> dict[str, Any]:
        if not hasattr(self, "_free"):
            raise AttributeError("this GaussianPosterior is not fitted: call fit first")
        found = {name.removeprefix(prefix): value for name, value in self._free.items() if name.startswith(prefix)}
        return {name: function(value).cpu().numpy() for name, value in found.items()}
