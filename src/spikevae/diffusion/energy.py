"""`EnergyDiffusion`: a diffusion model whose score is the gradient of an energy that is consistent in time."""

import contextlib
import copy
import math
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import generator
from .._settings import positive, whole_number
from ..estimators._fitting import fit_at_once
from ..estimators._validation import checked_stimuli, drawn_seed
from ..progress import show_progress
from ..samplers._sampler import Interrupted
from ..samplers.langevin import Langevin
from ._columns import means_and_spreads
from ._energy_network import EnergyNetwork
from ._energy_settings import MIXTURE as MIXTURE
from ._energy_settings import SINGLE, checked_plan, checked_times
from ._energy_training import Training
from .fokker_planck import residual
from .process import SMALLEST_TIME, VariancePreserving, reverse_diffusion

EVALUATED_ROWS = 4096
"""Rows that the networks take at a time when they are not trained."""


@final
class EnergyDiffusion(BaseEstimator):
    r"""A diffusion model of vectors with an energy: one network gives samples and a density to simulate.

    Networks :math:`\log q(x, t)` of state and time, up to a constant, are fitted by denoising score matching. A
    regulariser adds the squared residual R of the Fokker-Planck equation, so that the energies at different times
    belong to one process:

    .. math:: \mathbb{E}\, \bigl|\varepsilon + \sqrt{1 - a_t^2}\; \nabla_x \log q(x_t, t)\bigr|^2 / D
              + \lambda\, \mathbb{E}\, R(x_t, t)^2 / D^2 .

    Without it, score matching leaves the energy at small noise almost free where data are rare: the relative weights of
    separate modes are then wrong, although samples of the reverse diffusion are right.

    Parameters
    ----------
    form : str
        How R is found: "strong", with the exact divergence, whose cost grows with D; "weak", as a product of two
        estimates by independent perturbations.
    strength : float
        λ; 0 is plain score matching. The published 0.0005 is for fits about fifty times as long.
    ranges : tuple of pairs
        Ranges of time, from 1 down to 0, each with a network of its own; :data:`MIXTURE` has three. R is added in the
        last, which has two thirds of the steps.
    hidden : tuple of int
        Widths of the swish layers of each network.
    midpoint : float
        Share of each range, from 0 to 1, below which half of the times of the training lie; 0.5 is uniform.
    standardise : bool
        Whether the process acts on columns scaled to mean 0 and variance 1, or on X as it is.
    learning_rate : float
        Of Adam at the start; it falls to zero as half a cosine.
    n_steps : int
        Steps of all networks together.
    batch_size : int
        Rows per step, drawn with replacement.
    device : str
        Torch device; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of the fit, or what it is drawn from.
    verbose : bool
        Show progress.

    Attributes
    ----------
    history_ : dict
        step, score_matching and, where the strength is not 0, residual: means over windows of steps of the denoising
        loss and of R² / D².
    mean_, scale_ : arrays
        (D,) shift and scale from X to states of the process.
    process_ : VariancePreserving
        The process.
    n_features_in_ : int
        D.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.

    References
    ----------
    Plainer et al. (2025), arXiv 2506.17139 (residual, weak form, mixture); Song et al. (2021), arXiv 2011.13456.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(3.0, 0.5, size=(500, 1))
    >>> model = EnergyDiffusion(hidden=(16, 16), n_steps=150, random_state=0).fit(x)
    >>> at, near = model.log_density([[3.0], [4.0]])
    >>> model.sample(100, random_state=0).shape, bool(at > near)
    ((100, 1), True)
    """

    def __init__(
        self,
        form: str = "strong",
        *,
        strength: float = 5e-3,
        ranges: tuple[tuple[float, float], ...] = SINGLE,
        hidden: tuple[int, ...] = (92, 92, 92),
        midpoint: float = 0.2,
        standardise: bool = True,
        learning_rate: float = 0.01,
        n_steps: int = 3000,
        batch_size: int = 256,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.form = form
        self.strength = strength
        self.ranges = ranges
        self.hidden = hidden
        self.midpoint = midpoint
        self.standardise = standardise
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @own_scope()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit; where this fails, an earlier fit stays as it was.

        Parameters
        ----------
        X
            (n, D) numbers, two rows or more; no column constant.
        y
            Not used.

        Raises
        ------
        ValueError, TypeError
            For input or settings that cannot be fitted, and where the fit diverges.
        KeyboardInterrupt
            On Ctrl-C; the fit so far is kept and can be used.
        """
        fit_at_once(self, lambda fitted: fitted._fit(X))
        return self

    def _fit(self, X: Any) -> int:
        """Fit, and give the number of steps done."""
        plan, ranges = checked_plan(self)
        x = checked_stimuli(self, X, reset=True).astype(np.float64)
        mean, spread = means_and_spreads(x)
        self.mean_ = mean if self.standardise else np.zeros_like(mean)
        self.scale_ = spread if self.standardise else np.ones_like(spread)
        self.seed_, device = drawn_seed(self.random_state), resolve_device(self.device)
        self.process_ = VariancePreserving()
        noise = generator(self.seed_, "weights")
        networks = [
            EnergyNetwork(x.shape[1], tuple(self.hidden), limits, noise, self.process_).to(device) for limits in ranges
        ]
        data = torch.tensor((x - self.mean_) / self.scale_, dtype=torch.float32, device=device)
        training = Training(networks, data, plan, self.process_, self.seed_)
        with show_progress(type(self).__name__, enabled=self.verbose) as report, contextlib.suppress(KeyboardInterrupt):
            training.run(report)
        if not training.done:
            raise KeyboardInterrupt
        self.history_ = training.history
        self._networks = [network.double() for network in training.averages]
        return training.done

    def _states(self, X: Any) -> NDArray[np.float64]:
        """(n, D) states of the process."""
        check_is_fitted(self)
        return (checked_stimuli(self, X, reset=False).astype(np.float64) - self.mean_) / self.scale_

    def _evaluated(self, X: Any, t: Any, function: Any) -> NDArray[np.float64]:
        """`function` of network, states and times, on rows of X, by the network of each row's time."""
        x = self._states(X)
        times, found = checked_times(t, len(x)), None
        device = self._networks[0].head.device
        for network in self._networks:
            rows = np.flatnonzero((times <= network.high) & ((times > network.low) | (network.low == 0)))
            for part in np.array_split(rows, math.ceil(len(rows) / EVALUATED_ROWS)) if len(rows) else ():
                with torch.no_grad():
                    values = (
                        function(network, *(torch.tensor(a[part], device=device) for a in (x, times))).cpu().numpy()
                    )
                found = np.empty((len(x), *values.shape[1:])) if found is None else found
                found[part] = values
        assert found is not None
        return found

    @own_scope()
    def log_density(self, X: Any, t: Any = None) -> NDArray[np.float64]:
        """(n,) log densities at time t (by default, of the smallest noise), nats, each up to one constant.

        Without regularisation the constant may differ between times; it always does between ranges.

        Parameters
        ----------
        X
            (n, D) points, in the unit of the data.
        t
            Time from 0 to 1, or (n,) times. The density at t is that of a(t) (x - mean) / scale plus noise, written as
            one of x in the unit of the data.
        """
        return self._evaluated(X, t, lambda network, x, time: network(x, time))

    @own_scope()
    def score_field(self, X: Any, t: Any = None) -> NDArray[np.float64]:
        """(n, D) gradients of the log density by X, at the same points and times; minus the gradient of the energy."""
        found = self._evaluated(X, t, lambda network, x, time: network.gradients(x, time)[0])
        return found / self.scale_

    @own_scope()
    def residual(self, X: Any, t: Any) -> NDArray[np.float64]:
        """(n,) residuals R of the Fokker-Planck equation, exact, nats per unit of time; as `log_density`."""

        def found(network: EnergyNetwork, x: Tensor, time: Tensor) -> Tensor:
            of = network.derivatives(x, time)
            return residual(x, of.score, of.divergence, of.time, self.process_.beta(time))

        return self._evaluated(X, t, found)

    @own_scope()
    def sample(self, n: int, *, n_steps: int = 250, random_state: Any = None) -> NDArray[np.float64]:
        """Independent samples by the reverse diffusion, from noise at time 1.

        Parameters
        ----------
        n
            Number of samples.
        n_steps
            Steps, of which more are at small times.
        random_state
            Seed of the draws, or what it is drawn from.

        Returns
        -------
        (n, D) points, in the unit of the data.
        """
        check_is_fitted(self)
        whole_number("n", n, 1)
        whole_number("n_steps", n_steps, 2)
        networks = self._fast_networks()
        device = networks[0].head.device
        noise = generator(drawn_seed(random_state), "evaluation", device=device)
        times = torch.linspace(1, math.sqrt(SMALLEST_TIME), n_steps + 1, dtype=torch.float64).square()

        def score(x: Tensor, t: Tensor) -> Tensor:
            time = float(t[0])
            network = next(net for net in networks if time > net.low or net.low == 0)
            parts = zip(x.split(EVALUATED_ROWS), t.split(EVALUATED_ROWS))
            return torch.cat([network.gradients(*part)[0] for part in parts])

        start = torch.randn(n, self.n_features_in_, generator=noise, device=device)
        with torch.no_grad():
            found = reverse_diffusion(score, start, times, noise, self.process_)
        return self._points(found.cpu().numpy())

    @own_scope()
    def simulate(
        self,
        n: int,
        n_steps: int = 500,
        *,
        start: Any = None,
        step_size: float = 0.01,
        adjust: bool = True,
        random_state: Any = None,
        verbose: bool = False,
    ) -> NDArray[np.float64]:
        """The last states of n Langevin chains that follow the density at the smallest noise.

        Parameters
        ----------
        n
            Number of chains, 2 or more.
        n_steps
            Steps of each.
        start
            (n, D) points to start from, in the unit of the data; by default samples of the reverse diffusion.
        step_size
            h of :class:`~spikevae.samplers.Langevin`, in states of the process; its first value where `adjust`.
        adjust
            Whether proposals may be rejected, so that chains follow the density exactly for any step.
        random_state
            Seed of the draws, or what it is drawn from.
        verbose
            Show progress.

        Returns
        -------
        (n, D) points, in the unit of the data.

        Raises
        ------
        spikevae.samplers.Interrupted
            On Ctrl-C, with the points so far.
        """
        check_is_fitted(self)
        whole_number("n", n, 2)
        positive("step_size", step_size)
        seed = drawn_seed(random_state)
        first = self._states(self.sample(n, random_state=seed) if start is None else start)
        network = self._fast_networks()[-1]
        begin = torch.tensor(first, dtype=torch.float32, device=network.head.device)
        chains = Langevin(
            lambda x: network(x, torch.full_like(x[:, 0], SMALLEST_TIME)), step_size=step_size, adjust=adjust
        )
        noise = generator(seed, "noise", device=begin.device)
        try:
            found: Tensor = chains.sample(n, n_steps, start=begin, seed=noise, verbose=verbose)
        except Interrupted as stop:
            raise Interrupted(self._points(stop.particles.cpu().numpy()), stop.steps, n_steps) from None
        return self._points(found.cpu().numpy())

    def _points(self, states: NDArray[Any]) -> NDArray[np.float64]:
        """States in the unit of the data."""
        return states.astype(np.float64) * self.scale_ + self.mean_

    def _fast_networks(self) -> list[EnergyNetwork]:
        """The networks in float32, for steps of samplers."""
        return [copy.deepcopy(network).float() for network in self._networks]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_networks")
