"""The curve of loss against noise of a denoiser, and its estimate from the losses of training."""

import math
from collections.abc import Callable
from typing import Any, Self, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from sklearn.isotonic import IsotonicRegression

from .._arrays import plain
from .._settings import positive, whole_number

LOWEST_SNR = 1e-4
"""First point above 0 of curves that are computed from a function."""
GRID = 256
"""Points above 0 of a curve that is estimated from losses."""


def _numbers(name: str, value: Any) -> NDArray[np.float64]:
    """(n,) finite numbers."""
    try:
        found = np.array(plain(value, name), dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{name} are {value!r:.80}; give (n,) numbers") from None
    if found.ndim != 1:
        raise ValueError(f"{name} has shape {found.shape}; give (n,) numbers")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} has {int((~np.isfinite(found)).sum())} entries that are not finite: leave them out")
    return found


@final
class NoiseCurve:
    r"""Mean squared error of a denoiser as a function of the signal-to-noise ratio: falling, linear between points.

    The channel is :math:`Y_\gamma = \gamma X + W_\gamma` with a Wiener process W: X under Gaussian noise of variance
    :math:`1/\gamma` per entry. The curve of the best denoiser is
    :math:`\mathrm{mmse}(\gamma) = E\|X - E[X | Y_\gamma]\|^2`. Half its integral up to infinity is the entropy of a
    discrete X, in nats.

    Parameters
    ----------
    snr
        (n,) signal-to-noise ratios, rising from 0; in 1 / (unit of X)².
    mmse
        (n,) mean squared errors, summed over the entries of X, that do not rise; in (unit of X)².

    Raises
    ------
    ValueError
        For other shapes, entries that are not finite, and curves that rise, or fall nowhere.

    References
    ----------
    Guo, Shamai and Verdú (2005), IEEE Transactions on Information Theory 51, 1261 (equations 1 and 5).

    Examples
    --------
    >>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)  # standard normal X
    >>> round(float(curve(1.0)), 4), round(curve.information, 3), round(0.5 * math.log(101), 3)
    (0.5, 2.308, 2.308)
    """

    def __init__(self, snr: Any, mmse: Any) -> None:
        self.snr, self.mmse = _numbers("snr", snr), _numbers("mmse", mmse)
        if self.snr.shape != self.mmse.shape or len(self.snr) < 2:
            shapes = f"{self.snr.shape} and {self.mmse.shape}"
            raise ValueError(f"snr and mmse have shapes {shapes}; give two points or more, as many of each")
        if self.snr[0] != 0 or (np.diff(self.snr) <= 0).any():
            raise ValueError("snr must rise from 0: sort the points, and give the variance of X as mmse at 0")
        if (np.diff(self.mmse) > 0).any() or self.mmse[-1] < 0 or self.mmse[0] <= self.mmse[-1]:
            raise ValueError(
                "mmse must fall from the first to the last point, to 0 or above, and rise nowhere: of measured losses, "
                "give NoiseCurve.of_losses"
            )

    @property
    def snr_max(self) -> float:
        """The last signal-to-noise ratio."""
        return float(self.snr[-1])

    @property
    def information(self) -> float:
        """Half the integral of the curve: information between X and Y at the last point, nats."""
        return 0.5 * float(np.trapezoid(self.mmse, self.snr))

    def __call__(self, snr: Any) -> NDArray[np.float64]:
        """Mean squared errors at signal-to-noise ratios of any shape, linear between the points."""
        found: NDArray[np.float64] = np.interp(np.asarray(snr, dtype=float), self.snr, self.mmse)
        return found

    @classmethod
    def of_function(
        cls, function: Callable[[NDArray[np.float64]], Any], snr_max: float, *, n_points: int = 4000
    ) -> Self:
        """The curve of a known function, at 0 and at points with equal ratios.

        Parameters
        ----------
        function
            From (n,) signal-to-noise ratios to (n,) mean squared errors.
        snr_max
            Last point.
        n_points
            Points above 0.
        """
        positive("snr_max", snr_max)
        whole_number("n_points", n_points, 2)
        snr = np.concatenate([[0.0], np.geomspace(min(LOWEST_SNR, snr_max / 2), snr_max, n_points)])
        return cls(snr, function(snr))

    @classmethod
    def of_losses(cls, snr: Any, loss: Any, weight: Any, *, variance: float, snr_max: float) -> Self:
        """The curve of measured losses: a monotone fit, and a smooth curve through the middles of its levels.

        Noise makes measured losses rise here and there; isotonic regression replaces such stretches by their mean.
        Logarithms are interpolated by a monotone cubic, continued as a power law to `snr_max`.

        Parameters
        ----------
        snr
            (n,) signal-to-noise ratios above 0, rising.
        loss
            (n,) mean squared errors there.
        weight
            (n,) numbers of examples that each is a mean of; points with weight 0 are left out.
        variance
            Mean squared error at 0: the variance of X, summed over entries.
        snr_max
            Last point of the curve.
        """
        snr, loss, weight = _numbers("snr", snr), _numbers("loss", loss), _numbers("weight", weight)
        if not len(snr) == len(loss) == len(weight):
            raise ValueError(f"snr, loss and weight have {len(snr)}, {len(loss)} and {len(weight)} entries; give equal")
        seen = weight > 0
        if not seen.any() or (snr[seen] <= 0).any() or (loss[seen] <= 0).any():
            raise ValueError("the curve needs losses above 0 at signal-to-noise ratios above 0: train with more noise")
        place, level = _levels(np.log(snr[seen]), loss[seen], weight[seen], variance)
        if not len(level):
            raise ValueError(
                "the loss is nowhere below the variance of X: the denoiser has learned nothing; take more steps, or a "
                "larger snr_max"
            )
        grid = np.geomspace(min(snr[seen][0], snr_max / 2), snr_max, GRID)
        return cls(np.append(0.0, grid), np.append(variance, _smooth(place, level, variance, grid)))


def _levels(
    place: Float[np.ndarray, " n"], loss: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"], variance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Levels of the monotone fit below the variance, and the mean log signal-to-noise ratio of each."""
    fit = IsotonicRegression(increasing=False).fit(place, np.minimum(loss, variance), weight).predict(place)
    level, inverse = np.unique(-fit, return_inverse=True)
    middle = np.bincount(inverse, weight * place) / np.bincount(inverse, weight)
    return middle[-level < variance], -level[-level < variance]


def _smooth(
    place: Float[np.ndarray, " n"], level: Float[np.ndarray, " n"], variance: float, grid: Float[np.ndarray, " g"]
) -> NDArray[np.float64]:
    """The curve at the points of the grid: linear below the first level, a power law above the last."""
    x, log_level = np.log(grid), np.log(level)
    below = variance + (level[0] - variance) * grid / math.exp(place[0])
    if len(level) == 1:
        return np.where(x < place[0], below, level[0])
    inside = PchipInterpolator(place, log_level)(np.clip(x, place[0], place[-1]))
    slope = (log_level[-1] - log_level[-2]) / (place[-1] - place[-2])
    above = log_level[-1] + slope * np.maximum(x - place[-1], 0)
    found = np.where(x < place[0], below, np.exp(np.where(x > place[-1], above, inside)))
    return np.minimum.accumulate(found)


@final
class NoiseBins:
    """Means of losses in bins of the signal-to-noise ratio, with equal ratios, that forget early training.

    Parameters
    ----------
    low, high
        Lowest and highest signal-to-noise ratio.
    n_bins
        Number of bins.
    memory
        Calls of :meth:`add` after which a loss counts 1/e.
    """

    def __init__(self, low: float, high: float, n_bins: int, memory: float) -> None:
        self.edges = np.geomspace(low, high, n_bins + 1)
        self.keep = math.exp(-1 / memory)
        self.weight, self.total, self.place = (np.zeros(n_bins) for _ in range(3))

    def add(self, snr: Float[np.ndarray, " n"], loss: Float[np.ndarray, " n"]) -> None:
        """Take the losses (n,) of examples at signal-to-noise ratios (n,)."""
        n_bins = len(self.weight)
        bins = np.clip(np.searchsorted(self.edges, snr, side="right") - 1, 0, n_bins - 1)
        for kept, new in ((self.weight, None), (self.total, loss), (self.place, np.log(snr))):
            kept *= self.keep
            kept += np.bincount(bins, new, n_bins)

    def curve(self, variance: float) -> NoiseCurve:
        """The curve of these losses; `variance` is the loss at signal-to-noise ratio 0."""
        seen = self.weight > 0
        weight = self.weight[seen]
        snr, loss = np.exp(self.place[seen] / weight), self.total[seen] / weight
        return NoiseCurve.of_losses(snr, loss, weight, variance=variance, snr_max=float(self.edges[-1]))
