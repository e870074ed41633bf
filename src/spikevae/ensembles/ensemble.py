"""`Ensemble`: several members of one architecture, trained together by a lower bound of their mixture."""

from typing import Any, final

import torch
from torch import Tensor, nn

from .._settings import positive, whole_number
from ._estimator import ParameterPosterior
from ._modules import Tensors, build_module, free_and_fixed, stacked


@final
class Ensemble(ParameterPosterior):
    r"""Members (particles) of one architecture that train together on shared batches.

    With log-likelihoods :math:`a_{ik} = \log p(y_i | x_i, \theta_k)` of K members, minimises

    .. math:: -\frac{1}{n} \sum_i \mathrm{bound}(a_{i1}, \ldots, a_{iK})
        - \frac{1}{\beta n} \frac{1}{K} \sum_k \log p(\theta_k), \qquad p(\theta) = N(0, s^2).

    s is `prior_scale`, and the bound one of :mod:`spikevae.ensembles.bounds`. With "average" members do not interact: a
    plain ensemble, and for K = 1 the MAP estimate. The others let members differ where that makes data more probable
    under the mixture.

    Parameters
    ----------
    module : torch.nn.Module or function
        The architecture: a module, whose parameters are drawn anew for each member by `reset_parameters` of its parts,
        or a function that builds one, called once for each member. It runs in evaluation mode (no dropout).
    n_members : int
        K.
    objective : str
        "average", "pac_m" (all members are the m draws), "pac2", "pac2_tight" or "repulsion".
    robustness : float
        t of "pac_m": 1 the logarithm; below, data that are improbable under all members have little weight.
    likelihood : str or function
        "gaussian", "poisson" (outputs are log rates), "bernoulli" (logits), or a function from outputs, with any
        leading dimensions, to a `torch.distributions.Distribution` of y.
    noise_scale : float
        Standard deviation of the Gaussian noise, in the unit of y.
    prior_scale : float
        Standard deviation of every parameter under the prior; infinity: no prior.
    beta : float
        Weight of the data against the prior, which is divided by beta n.
    learning_rate : float
        Of Adam at the start; it falls to zero as half a cosine.
    n_steps : int
        Steps of Adam.
    batch_size : int
        Rows per step, all of them where there are fewer.
    device : str
        Torch device for training; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of the initial weights and of the order of the batches, or what it is drawn from.
    verbose : bool
        Show progress.

    Attributes
    ----------
    history_ : dict
        step, and objective, nats per row: means over windows of steps.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.

    References
    ----------
    Masegosa (2020), arXiv 1912.08335; Futami et al. (2021), arXiv 2106.05010; Lakshminarayanan, Pritzel and Blundell
    (2017), arXiv 1612.01474, plain ensembles.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    >>> settings = {"noise_scale": 0.1, "learning_rate": 0.05, "n_steps": 400}
    >>> fit = Ensemble(net, 3, **settings, random_state=0).fit(x, np.sin(3 * x[:, 0]))
    >>> mean, std = fit.predict(x, return_std=True)
    >>> mean.shape, bool(abs(mean - np.sin(3 * x[:, 0])).max() < 0.2)
    ((50,), True)
    """

    def __init__(
        self,
        module: Any,
        n_members: int = 5,
        *,
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
        whole_number("n_members", self.n_members, 1)
        positive("prior_scale", self.prior_scale, finite=False)

    def _start(self, seed: int) -> tuple[nn.Module, Tensors, Tensors]:
        modules = [build_module(self.module, seed, i) for i in range(self.n_members)]
        parts = [free_and_fixed(module) for module in modules]
        return modules[0], stacked([free for free, _ in parts]), stacked([fixed for _, fixed in parts])

    def _step_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        return {**free, **fixed}

    def _final_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        return {**free, **fixed}

    def _penalty(self, free: Tensors) -> Tensor:
        squares = torch.stack([value.square().sum() for value in free.values()]).sum()
        return squares / (2 * self.prior_scale**2 * self.n_members)
