"""`Diffusion`: a generative model of vectors that learns its schedule from the losses of its training."""

import math
from collections.abc import Iterator
from typing import Any, Self, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import generator
from .._settings import layer_widths, positive, whole_number
from ..estimators._fitting import fit_at_once
from ..estimators._validation import checked_stimuli, drawn_seed
from ..progress import show_progress
from ._columns import means_and_spreads
from .curve import NoiseBins
from .denoiser import Denoiser
from .divergence import discretisation, run
from .schedules import knots_of

SCALINGS = ("columns", "common")
NOISES = ("matched", "frozen")
WINDOWS = 40
"""Entries of the history, at most."""
BINS = 48
"""Bins of the signal-to-noise ratio in which losses are averaged."""
LOWEST_SNR = 1e-3
"""Least signal-to-noise ratio of training."""
MEMORY = 0.15
"""Share of the steps after which a loss counts 1/e in the curve."""

DIVERGED = 2.0
"""Error of the last steps, over that of the linear estimate that the network begins with, of a fit that diverged."""
EVALUATED_ROWS = 4096
"""Rows that the network takes at a time when it is not trained."""


@final
class Diffusion(BaseEstimator):
    r"""A diffusion model of vectors: a denoiser, its loss against noise, and sampling in few steps.

    A network learns to estimate X from :math:`Y = \gamma X + \sqrt{\gamma} Z`, for signal-to-noise ratios
    :math:`\gamma` with equal density of their logarithm. The losses of training, averaged by noise, give the curve
    `curve_` without further computation; a schedule takes K knots from it, and samples follow the chain of
    :func:`spikevae.diffusion.run` from knot to knot.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers of the network.
    scaling : str
        "columns": each column is scaled to variance 1; "common": all columns by one number, to a mean variance of 1.
    snr_max : float
        Highest signal-to-noise ratio of an entry of variance 1: at the last knot, noise has the standard deviation
        1 / sqrt(snr_max).
    learning_rate : float
        Of Adam at the start; it falls to zero as half a cosine.
    n_steps : int
        Steps of Adam.
    batch_size : int
        Rows per step, drawn with replacement.
    device : str
        Torch device for training; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of weights, batches and noise of training, or what it is drawn from.
    verbose : bool
        Show progress.

    Attributes
    ----------
    curve_ : NoiseCurve
        Mean squared error of the denoiser against the signal-to-noise ratio, of scaled X, summed over columns.
    mean_, scale_ : ndarray
        (D,) means of the columns, and what centred columns are divided by.
    history_ : dict
        step, and objective: squared error over that of the best linear estimate for independent columns; means over
        windows of steps.
    n_features_in_ : int
        D.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.

    References
    ----------
    The aim of schedules from losses of training: arXiv 2601.21943. Denoiser and weights: Karras, Aittala, Aila and
    Laine (2022), arXiv 2206.00364.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.choice([-3.0, 5.0], size=(500, 1)) + 0.1 * rng.normal(size=(500, 1))
    >>> fit = Diffusion(hidden=(32, 32), n_steps=300, learning_rate=0.03, random_state=0).fit(x)
    >>> points = fit.sample(200, steps=8, random_state=0)
    >>> bool((abs(abs(points - 1) - 4) < 1).mean() > 0.9)
    True
    >>> bool(fit.discretisation(6, "loss_adaptive") < fit.discretisation(6, "uniform"))
    True
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256, 256),
        scaling: str = "columns",
        snr_max: float = 1000.0,
        learning_rate: float = 0.002,
        n_steps: int = 3000,
        batch_size: int = 256,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.hidden = hidden
        self.scaling = scaling
        self.snr_max = snr_max
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
        self._check_settings()
        x = checked_stimuli(self, X, reset=True).astype(np.float64)
        self.mean_, spread = means_and_spreads(x)
        common = np.full_like(spread, math.sqrt((spread**2).mean()))
        self.scale_ = spread if self.scaling == "columns" else common
        self.seed_, device = drawn_seed(self.random_state), resolve_device(self.device)
        scaled = (x - self.mean_) / self.scale_
        self._denoiser = Denoiser(x.shape[1], self.hidden, generator(self.seed_, "weights")).to(device)
        bins = NoiseBins(LOWEST_SNR, self.snr_max, BINS, max(MEMORY * self.n_steps, 1))
        done = self._descend(torch.tensor(scaled, dtype=torch.float32, device=device), bins)
        self._denoiser.requires_grad_(False).cpu()
        self.curve_ = bins.curve(float(scaled.var(0).sum()))
        return done

    def _check_settings(self) -> None:
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling is {self.scaling!r}; give one of {', '.join(SCALINGS)}")
        layer_widths("hidden", self.hidden, (256, 256))
        whole_number("n_steps", self.n_steps, 1)
        whole_number("batch_size", self.batch_size, 1)
        positive("learning_rate", self.learning_rate)
        positive("snr_max", self.snr_max)
        if self.snr_max < 1:
            raise ValueError(f"snr_max is {self.snr_max:g}; give 1 or more, so that noise ends below the data's spread")

    def _descend(self, x: Float[Tensor, "n D"], bins: NoiseBins) -> int:
        """Follow the gradient with Adam and a learning rate that falls to zero; the number of steps done."""
        adam = torch.optim.Adam(self._denoiser.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.n_steps)
        window, values, linear, done = math.ceil(self.n_steps / WINDOWS), [], [], 0
        self.history_: dict[str, list[float]] = {"step": [], "objective": []}
        with show_progress(type(self).__name__, enabled=self.verbose) as report:
            try:
                for clean, snr, y in self._batches(x):
                    adam.zero_grad()
                    squared = (clean - self._denoiser(y, snr)).square().sum(1)
                    value = ((1 + snr[:, 0]) * squared).mean() / x.shape[1]
                    value.backward()
                    values.append(float(value.detach()))
                    linear.append(((1 + snr) * (clean - y / (1 + snr)).square()).mean().item())
                    if not math.isfinite(values[-1]):
                        raise ValueError(
                            f"the objective is {values[-1]} after {done} steps: lower learning_rate "
                            f"({self.learning_rate:g})"
                        )
                    bins.add(snr[:, 0].cpu().double().numpy(), squared.detach().cpu().double().numpy())
                    adam.step()
                    schedule.step()
                    done += 1
                    if len(values) == window or done == self.n_steps:
                        self.history_["step"].append(float(done))
                        self.history_["objective"].append(sum(values) / len(values))
                        worse = sum(values) / max(sum(linear), len(linear))  # one is what is expected
                        if done == self.n_steps and worse > DIVERGED:
                            raise ValueError(
                                f"the denoiser's error is {worse:.3g} times that of a linear one after {done} steps: "
                                f"lower learning_rate ({self.learning_rate:g})"
                            )
                        values.clear()
                        linear.clear()
                    report(done, self.n_steps, f"objective {value.item():.4g}")
            except KeyboardInterrupt:
                if not done:
                    raise
        return done

    def _batches(self, x: Float[Tensor, "n D"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows (B, D), signal-to-noise ratios (B, 1) spread evenly, and Y (B, D) of each step."""
        size, ratio = self.batch_size, math.log(self.snr_max / LOWEST_SNR)
        for step in range(self.n_steps):
            order, noise = generator(self.seed_, "order", step), generator(self.seed_, "noise", step)
            clean = x[torch.randint(len(x), (size,), generator=order)]
            place = (torch.arange(size)[:, None] + torch.rand(size, 1, generator=noise)) / size
            snr = (LOWEST_SNR * (ratio * place).exp()).to(x)
            z = torch.randn(size, x.shape[1], generator=noise).to(x)
            yield clean, snr, snr * clean + snr.sqrt() * z

    def knots(self, steps: int = 16, schedule: Any = "loss_adaptive", *, noise: str = "matched") -> NDArray[np.float64]:
        """(steps + 1,) signal-to-noise ratios of a schedule, from 0 to `snr_max`.

        Parameters
        ----------
        steps
            K.
        schedule
            Name in `spikevae.diffusion.SCHEDULES`, or a function of a curve and K that returns knots.
        noise
            Of the sampler, as in `sample`: "loss_adaptive" and "optimal" are for its divergence.

        Raises
        ------
        ValueError
            For an unknown schedule or noise, or fewer than one step.
        """
        dimension = self._dimension(noise)
        return knots_of(schedule, self.curve_, steps, dimension)

    def discretisation(self, steps: int = 16, schedule: Any = "loss_adaptive", *, noise: str = "matched") -> float:
        """Divergence that these steps add by the curve, nats: :func:`spikevae.diffusion.discretisation`.

        Errors of the measured curve can make it negative with matched noise.
        """
        knots = self.knots(steps, schedule, noise=noise)
        return discretisation(self.curve_, knots, dimension=self._dimension(noise))

    def _dimension(self, noise: Any) -> int | None:
        """D for matched noise, or None."""
        check_is_fitted(self)
        if noise not in NOISES:
            raise ValueError(f"noise is {noise!r:.80}; give one of {', '.join(NOISES)}")
        return int(self.n_features_in_) if noise == "matched" else None

    @own_scope()
    def denoise(self, Y: Any, snr: Any) -> NDArray[np.float64]:
        """(n, D) estimates of X from X under noise.

        Parameters
        ----------
        Y
            (n, D) X + `scale_` Z / sqrt(snr) with standard normal Z.
        snr
            Signal-to-noise ratio above 0: one number, or (n,).

        Raises
        ------
        ValueError, TypeError
            For numbers that are not finite, or other shapes than in `fit`.
        """
        check_is_fitted(self)
        x = checked_stimuli(self, Y, reset=False).astype(np.float64)
        try:
            ratio = np.asarray(snr, dtype=float)
        except (ValueError, TypeError):
            ratio = np.array(np.nan)
        if ratio.shape not in ((), (len(x),)) or not (np.isfinite(ratio) & (ratio > 0)).all():
            raise ValueError(f"snr is {snr!r:.80}; give one positive number, or one for each of the {len(x)} rows")
        ratio = np.broadcast_to(ratio, len(x))[:, None]
        y = ratio * (x - self.mean_) / self.scale_
        with torch.no_grad():
            found = self._estimates(torch.tensor(y, dtype=torch.float32), torch.tensor(ratio, dtype=torch.float32))
        return self.mean_ + self.scale_ * found.double().numpy()

    @own_scope()
    def sample(
        self,
        n: int = 1,
        *,
        steps: int = 16,
        schedule: Any = "loss_adaptive",
        noise: str = "matched",
        random_state: Any = None,
    ) -> NDArray[np.float64]:
        """(n, D) samples, in the unit of X.

        Parameters
        ----------
        n
            Number of samples.
        steps
            Steps of the sampler; the network is called as often.
        schedule
            Name in `spikevae.diffusion.SCHEDULES`, or a function of a curve and a number of steps that returns knots.
        noise
            Of a step: "matched" to the error of the denoiser by the curve, or "frozen", that of the Wiener process.
        random_state
            Seed of the noise, or what it is drawn from. Equal seeds give equal noise to all schedules.

        Raises
        ------
        ValueError
            For an unknown schedule or noise, and numbers below 1.
        """
        whole_number("n", n, 1)
        knots, d = self.knots(steps, schedule, noise=noise), self.n_features_in_
        variance = None if self._dimension(noise) is None else lambda snr: float(self.curve_(snr)) / d
        draws = generator(drawn_seed(random_state), "noise")
        with torch.no_grad():
            found = run(self._estimates, knots, n, d, generator=draws, variance=variance)
        return self.mean_ + self.scale_ * found.double().numpy()

    def _estimates(self, y: Float[Tensor, "n D"], snr: Float[Tensor, "n 1"]) -> Float[Tensor, "n D"]:
        """Scaled X, in parts, so that the layers of few rows are in memory."""
        parts = zip(y.split(EVALUATED_ROWS), snr.split(EVALUATED_ROWS))
        return torch.cat([self._denoiser(*part) for part in parts])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_denoiser")
