"""The error of a read-out on new stimuli, estimated from its training stimuli alone."""

import numpy as np
from scipy.optimize import brentq

from ._arrays import Array, matrix
from .readout import targets_of


def generalisation_error(
    codes: Array, targets: Array, *, ridge: float, correlation: Array | None = None
) -> tuple[float, float]:
    """Estimate the error of ridge regression on new stimuli from its training stimuli alone.

    Generalised cross-validation, training error / (1 - df)² with df the degrees of freedom of the fit per stimulus. It
    takes the stimuli for independent. Frames of a film are not: for rows with the correlations `correlation` (R, n x n)
    the estimate is training error / mean eigenvalue of R (1 + b R)⁻², where b solves tr b R (1 + b R)⁻¹ / n = df.

    Parameters
    ----------
    codes
        (n, K) codes.
    targets
        (n,) or (n, T) targets.
    ridge
        The ridge, above zero, in units of the variance of the code.
    correlation
        (n, n) correlation of the rows, ones on its diagonal; noise of the targets is correlated as the codes are. The
        estimate is for new stimuli that are independent of these.

    Returns
    -------
    The estimate and the training error, summed over targets.

    Raises
    ------
    ValueError
        Where rows do not match, the ridge is not above zero, or `correlation` is no correlation matrix.

    References
    ----------
    Golub, Heath & Wahba 1979; correlated stimuli: Atanasov, Zavatone-Veth & Pehlevan, arXiv:2408.04607.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(50, 40))
    >>> estimate, training = generalisation_error(x, x[:, 0], ridge=0.1)
    >>> bool(training < estimate)
    True
    """
    x = matrix(codes, "codes")
    y = targets_of(x, targets)
    if not 0 < ridge < np.inf:
        raise ValueError(f"ridge={ridge:g} must be above zero")
    x, y, n = x - x.mean(0), y - y.mean(0), len(x)
    kernel, axes = np.linalg.eigh(x @ x.T / n)
    kernel = np.maximum(kernel, 0.0)
    shrunk = ridge / (kernel + ridge)
    training = float(((shrunk[:, None] * (axes.T @ y)) ** 2).sum() / n)
    df = float((kernel / (kernel + ridge)).sum() / n)
    if correlation is None:
        return training / (1 - df - 1 / n) ** 2, training
    rows, spread = _correlation(correlation, n)

    def excess(log_b: float) -> float:
        scaled = np.exp(log_b) * rows
        return float((scaled / (1 + scaled)).sum() / n - df)

    b = np.exp(brentq(excess, -60.0, 60.0, xtol=1e-12))
    return training * (1 + spread) / float((rows / (1 + b * rows) ** 2).sum() / n), training


def _correlation(correlation: Array, n: int) -> tuple[np.ndarray, float]:
    """Eigenvalues of the correlation of n rows from which their mean is subtracted, and the variance of that mean."""
    rows = matrix(correlation, "correlation")
    if rows.shape != (n, n) or not np.allclose(rows, rows.T) or not np.allclose(np.diag(rows), 1.0):
        raise ValueError(
            f"correlation has shape {rows.shape}; give a symmetric ({n}, {n}) matrix with ones on its diagonal"
        )
    values = np.linalg.eigvalsh(rows)
    if values[0] < -1e-8 * values[-1]:
        raise ValueError(f"correlation has the eigenvalue {values[0]:.3g}; a correlation matrix has none below zero")
    centred = rows - rows.mean(0)
    return np.maximum(np.linalg.eigvalsh(centred - centred.mean(1, keepdims=True)), 0.0), float(rows.mean())
