"""Quality of reconstructions of stimuli from codes."""

import numpy as np

from ._arrays import Array, same_shape


def mse(x: Array, y: Array) -> float:
    """Squared error summed over a stimulus' pixels, mean over stimuli: ``mean_i sum_d (x_id - y_id)^2``.

    Unit: squared pixel units per stimulus. Lower is better. At pixel noise of variance one half this is the
    distortion in nats.

    Parameters
    ----------
    x, y
        (m, D) stimuli and their reconstructions.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2405.14473, whose ``mse`` is this sum and not a mean over pixels.

    Examples
    --------
    >>> mse([[1.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    2.5
    """
    x, y = same_shape(x, y, ("x", "y"))
    return float(((x - y) ** 2).sum(1).mean())


def sums_of_squares(x: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
    """Residual and total sums of squares of each stimulus, (m,) and (m,); the total is about its own mean."""
    x, y = same_shape(x, y, ("x", "y"))
    return ((x - y) ** 2).sum(1), ((x - x.mean(1, keepdims=True)) ** 2).sum(1)


def r2_of_sums(residual: np.ndarray, total: np.ndarray) -> float:
    """Mean over stimuli of ``1 - residual / total``; those without contrast (total 0) are left out."""
    seen = total > 0
    return float((1.0 - residual[seen] / total[seen]).mean()) if seen.any() else float("nan")


def r2_pooled_of_sums(residual: np.ndarray, total: np.ndarray) -> float:
    """``1 - sum residual / sum total`` over all stimuli; NaN where no stimulus has contrast."""
    return float(1.0 - residual.sum() / total.sum()) if total.sum() > 0 else float("nan")


def r2(x: Array, y: Array) -> float:
    """Fraction of the variance over the pixels of a stimulus that is explained, mean over stimuli.

    ``mean_i [1 - sum_d (x_id - y_id)^2 / sum_d (x_id - mean_d x_id)^2]``. Dimensionless; 1 is perfect, 0 is
    that of a constant at the mean of the stimulus, without lower bound. Higher is better. Stimuli without contrast are
    left out.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2405.14473 (per-sample R2 over pixels).

    Examples
    --------
    >>> r2([[0.0, 2.0], [0.0, 4.0]], [[0.0, 2.0], [2.0, 2.0]])
    0.5
    """
    return r2_of_sums(*sums_of_squares(x, y))


def r2_pooled(x: Array, y: Array) -> float:
    """Fraction of the pixel variance of all stimuli together that is explained.

    ``1 - sum_id (x_id - y_id)^2 / sum_id (x_id - mean_d x_id)^2``: a mean over stimuli weighted by contrast.
    Dimensionless, higher is better.

    Examples
    --------
    >>> r2_pooled([[0.0, 2.0], [0.0, 4.0]], [[0.0, 2.0], [2.0, 2.0]])
    0.19999999999999996
    """
    return r2_pooled_of_sums(*sums_of_squares(x, y))
