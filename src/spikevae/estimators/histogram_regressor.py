"""`HistogramRegressor`: a number predicted as a histogram, so that each prediction says how sure it is."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softplus

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import generator
from .._settings import layer_widths, positive, whole_number
from ..progress import show_progress
from ._fitting import fit_at_once
from ._histogram import Bins, chosen_bins, entropy_of, quantiles_of, smoothed
from ._regression import build_network, checked_targets
from ._validation import checked_stimuli, drawn_seed

LOSSES = ("histogram", "squared", "gaussian")
LEAST_SCALE = 1e-3
"""Least standard deviation of the Gaussian, in standard deviations of y: data without noise would drive it to zero."""
WINDOWS = 40
"""Entries of the history, at most."""
PREDICTED_ROWS = 4096
"""Rows of X that are predicted at a time."""


class Histogram(NamedTuple):
    """Predictive distributions as histograms over the same bins."""

    edges: Float[np.ndarray, " B1"]
    """(n_bins + 1) ends of the bins, in the unit of y."""
    probabilities: Float[np.ndarray, "n B"]
    """(n, n_bins) probabilities of the bins."""


@final
class HistogramRegressor(RegressorMixin, BaseEstimator):
    r"""Regression by classification: a network predicts a histogram of y, trained on Gaussian-smoothed targets.

    The support of y is divided into B bins of width w with centres :math:`c_i`. A target y becomes the probabilities of
    the bins under a Gaussian of standard deviation :math:`\sigma` around y, cut off at the ends of the support. The
    network gives a softmax p over the bins and minimises the cross-entropy to them (HL-Gauss); it predicts

    .. math:: \hat y = \sum_i p_i c_i, \qquad h = -\sum_i p_i \log p_i + \log w,

    the mean and the differential entropy: the lower, the more confident. The losses "squared" and "gaussian" train the
    same network for comparison; all methods are defined for each loss.

    Parameters
    ----------
    loss : str
        "histogram"; "squared" (squared error: Gaussians with one standard deviation, the root mean square error of the
        training set); "gaussian" (likelihood of Gaussians whose mean and standard deviation depend on x).
    n_bins : int
        B.
    smoothing : float
        sigma in bins.
    support : pair of floats or None
        Lowest and highest y, in its unit; None: the range of y in `fit`, with 4 sigma more on both sides.
    module : torch.nn.Module or None
        Maps (n, D) inputs to (n, H) features, below a linear head; a copy is trained from the weights that it has, in
        evaluation mode (no dropout). None: an MLP of inputs that it standardises.
    hidden : tuple of int
        Widths of the hidden layers of the MLP; not used with a module of your own.
    learning_rate : float
        Of Adam at the start; it falls to zero as half a cosine.
    n_steps : int
        Steps of Adam.
    batch_size : int
        Rows per step, all of them where there are fewer.
    device : str
        Torch device; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of the initial weights and of the order of the batches, or what it is drawn from.
    verbose : bool
        Show progress.

    Attributes
    ----------
    bins_ : tuple
        edges, (n_bins + 1) ends of the bins, and smoothing, sigma, both in the unit of y.
    history_ : dict
        step, and objective: means over windows of steps. Nats per row; of "squared" in variances of y.
    n_features_in_ : int
        D.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.

    Notes
    -----
    Predictions of "histogram" stay between the outermost centres. The smoothing is part of the predictive distribution:
    where y has less noise than sigma, its quantiles are too wide.

    References
    ----------
    Imani and White (2018), arXiv 1806.04613 (histogram loss); Farebrother et al. (2024), arXiv 2403.03950 (smoothing of
    0.75 bins); Ali (2025), arXiv 2512.01160 (energies as classes).

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1, 1, size=(400, 1))
    >>> y = np.sin(3 * x[:, 0]) + np.where(x[:, 0] > 0, 0.3, 0.03) * np.random.default_rng(1).normal(size=400)
    >>> fit = HistogramRegressor(n_steps=200, random_state=0).fit(x, y)
    >>> sure, unsure = fit.predict_entropy([[-0.5], [0.5]])
    >>> fit.predict_quantiles([[0.5]], [0.1, 0.9]).shape, bool(sure < unsure)
    ((1, 2), True)
    """

    def __init__(
        self,
        loss: str = "histogram",
        *,
        n_bins: int = 128,
        smoothing: float = 0.75,
        support: tuple[float, float] | None = None,
        module: nn.Module | None = None,
        hidden: tuple[int, ...] = (64, 64),
        learning_rate: float = 0.003,
        n_steps: int = 2000,
        batch_size: int = 256,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.loss = loss
        self.n_bins = n_bins
        self.smoothing = smoothing
        self.support = support
        self.module = module
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @own_scope()
    def fit(self, X: Any, y: Any) -> Self:
        """Fit; where this fails, an earlier fit stays as it was.

        Parameters
        ----------
        X
            (n, D) numbers.
        y
            (n,) targets, in any unit.

        Raises
        ------
        ValueError, TypeError
            For input or settings that cannot be fitted, targets outside the support, and where the fit diverges.
        KeyboardInterrupt
            On Ctrl-C; the fit so far is kept and can be used.
        """
        fit_at_once(self, lambda fitted: fitted._fit(X, y))
        return self

    def _fit(self, X: Any, y: Any) -> int:
        """Fit, and give the number of steps done."""
        self._check_settings()
        x = checked_stimuli(self, X, reset=True)
        target = checked_targets(y, len(x))
        self.bins_: Bins = chosen_bins(target, self.n_bins, self.smoothing, self.support)
        self.seed_, device = drawn_seed(self.random_state), resolve_device(self.device)
        if self.loss == "histogram":
            self._origin, self._unit = float(self.bins_.edges[0]), self.bins_.width
        else:
            self._origin, self._unit = float(target.mean()), float(target.std()) or 1.0
        n_out = {"histogram": self.n_bins, "squared": 1, "gaussian": 2}[self.loss]
        noise = generator(self.seed_, "weights")
        self._network = build_network(self.module, self.hidden, x, n_out, noise).to(device)
        inputs = self._tensor(x)
        z = torch.tensor((target - self._origin) / self._unit, dtype=inputs.dtype, device=device)
        done = self._descend(inputs, z)
        self._network.requires_grad_(False)
        if self.module is None:
            self._network.double()  # a row's prediction is then that of the row alone, to 1e-12
            inputs = self._tensor(x)
        if self.loss == "squared":
            self._residual = math.sqrt(((self._predicted(inputs) - target) ** 2).mean())
        return done

    def _check_settings(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; give one of {', '.join(LOSSES)}")
        layer_widths("hidden", self.hidden, (64, 64))
        whole_number("n_bins", self.n_bins, 2)
        whole_number("n_steps", self.n_steps, 1)
        whole_number("batch_size", self.batch_size, 1)
        positive("smoothing", self.smoothing)
        positive("learning_rate", self.learning_rate)

    def _descend(self, x: Float[Tensor, "n D"], z: Float[Tensor, " n"]) -> int:
        """Follow the gradient with Adam and a learning rate that falls to zero; the number of steps done."""
        adam = torch.optim.Adam(self._network.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.n_steps)
        window, values, done = math.ceil(self.n_steps / WINDOWS), [], 0
        self.history_: dict[str, list[float]] = {"step": [], "objective": []}
        with show_progress(type(self).__name__, enabled=self.verbose) as report:
            try:
                for rows in self._batches(len(x)):
                    adam.zero_grad()
                    value = self._loss(self._network(x[rows]), z[rows])
                    value.backward()
                    values.append(float(value.detach()))
                    if not math.isfinite(values[-1]):
                        raise ValueError(
                            f"the objective is {values[-1]} after {done} steps: scale X to about unit variance, or "
                            f"lower learning_rate ({self.learning_rate:g})"
                        )
                    adam.step()
                    schedule.step()
                    done += 1
                    if len(values) == window or done == self.n_steps:
                        self.history_["step"].append(float(done))
                        self.history_["objective"].append(sum(values) / len(values))
                        values.clear()
                    report(done, self.n_steps, f"objective {value.item():.4g}")
            except KeyboardInterrupt:
                return done
        return done

    def _batches(self, n: int) -> Iterator[Tensor]:
        """Rows of each step, a new order for each pass over the data."""
        size, order = min(self.batch_size, n), torch.arange(n)
        for step in range(self.n_steps):
            epoch, place = divmod(step, n // size)
            if place == 0 and size < n:
                order = torch.randperm(n, generator=generator(self.seed_, "order", epoch))
            yield order[place * size : (place + 1) * size]

    def _loss(self, out: Float[Tensor, "n out"], z: Float[Tensor, " n"]) -> Tensor:
        """() objective of these targets, in the unit of the network."""
        if self.loss == "histogram":
            return cross_entropy(out, smoothed(z, self.n_bins, self.smoothing))
        if self.loss == "squared":
            return (out[:, 0] - z).square().mean()
        scale = softplus(out[:, 1]) + LEAST_SCALE
        return (0.5 * ((z - out[:, 0]) / scale).square() + scale.log()).mean() + 0.5 * math.log(2 * math.pi)

    def _tensor(self, x: NDArray[Any]) -> Tensor:
        return torch.tensor(x).to(next(self._network.parameters()))

    def _mean(self, out: Float[Tensor, "n out"]) -> Float[Tensor, " n"]:
        """Means in the unit of the network."""
        if self.loss != "histogram":
            return out[:, 0]
        centres = torch.arange(self.n_bins, dtype=out.dtype, device=out.device) + 0.5
        return out.softmax(1) @ centres

    def _predicted(self, x: Float[Tensor, "n D"]) -> NDArray[np.float64]:
        """(n,) means in the unit of y."""
        with torch.no_grad():
            found = torch.cat([self._mean(self._network(part)) for part in x.split(PREDICTED_ROWS)])
        return self._origin + self._unit * found.double().cpu().numpy()

    def _outputs(self, X: Any) -> Tensor:
        """(n, out) outputs of the network."""
        x = self._checked(X)
        with torch.no_grad():
            return torch.cat([self._network(part) for part in x.split(PREDICTED_ROWS)]).double().cpu()

    def _checked(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return self._tensor(checked_stimuli(self, X, reset=False))

    def _moments(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n,) means and standard deviations of the Gaussians, in the unit of y."""
        out = self._outputs(X)
        mean = self._origin + self._unit * out[:, 0].numpy()
        if self.loss == "squared":
            return mean, np.full(len(mean), self._residual)
        return mean, self._unit * (softplus(out[:, 1]) + LEAST_SCALE).numpy()

    @own_scope()
    def predict(self, X: Any) -> NDArray[np.float64]:
        """(n,) means of y, in its unit."""
        return self._predicted(self._checked(X))

    @own_scope()
    def predict_gradient(self, X: Any) -> NDArray[np.float64]:
        """(n, D) derivatives of the mean by the inputs: minus the forces, where y is an energy and X holds positions.

        A module of your own must compute each prediction from its own row alone.
        """
        found = []
        for part in self._checked(X).split(PREDICTED_ROWS):
            part = part.requires_grad_()
            (slope,) = torch.autograd.grad(self._mean(self._network(part)).sum(), part)
            found.append(slope)
        return self._unit * torch.cat(found).double().cpu().numpy()

    @own_scope()
    def predict_distribution(self, X: Any) -> Histogram:
        """Predictive distributions as histograms; Gaussians are cut off at the ends of the support."""
        if self._is_histogram():
            return Histogram(self.bins_.edges, log_softmax(self._outputs(X), 1).exp().numpy())
        mean, scale = self._moments(X)
        mass = np.diff(norm.cdf(self.bins_.edges, mean[:, None], scale[:, None]), axis=1)
        tiny = np.finfo(float).tiny  # of a Gaussian all of whose mass is outside
        return Histogram(self.bins_.edges, mass / np.maximum(mass.sum(1, keepdims=True), tiny))

    @own_scope()
    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        """(n, q) quantiles of y, in its unit, at levels between 0 and 1; of a density constant within each bin.

        Raises
        ------
        ValueError
            For levels that are not between 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(quantiles, dtype=float))
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles are {quantiles!r:.80}; give levels between 0 and 1, as (0.05, 0.95)")
        if self._is_histogram():
            edges, probabilities = self.predict_distribution(X)
            return quantiles_of(probabilities, edges, levels)
        mean, scale = self._moments(X)
        return mean[:, None] + scale[:, None] * norm.ppf(levels)

    @own_scope()
    def predict_entropy(self, X: Any) -> NDArray[np.float64]:
        """(n,) differential entropies of y in its unit, nats (can be negative): the lower, the more confident."""
        if self._is_histogram():
            return entropy_of(self.predict_distribution(X).probabilities, self.bins_.width)
        return np.log(self._moments(X)[1]) + 0.5 * math.log(2 * math.pi * math.e)

    def _is_histogram(self) -> bool:
        check_is_fitted(self)
        return self.loss == "histogram"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")
