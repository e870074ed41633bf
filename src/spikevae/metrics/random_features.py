"""What a linear read-out of random mixtures of the units learns, predicted from the spectrum of the code."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from .readout import LearningCurve, ReadoutSpectrum, check_curve


def random_feature_curve(
    spectrum: ReadoutSpectrum, n_stimuli: Sequence[int], n_features: int, *, ridge: float
) -> LearningCurve:
    """Predict the error of a read-out that sees random mixtures of the units, as a downstream population may.

    The features are x F, with the entries of F (K, N) independent Gaussian numbers of variance 1 / K; the error is the
    mean over F. With few features a read-out stops learning early; more stimuli than features can then make it worse
    before they make it better.

    Parameters
    ----------
    spectrum
        Of the code and the targets.
    n_stimuli
        Numbers of training stimuli, 3 or more each.
    n_features
        N, the number of random features.
    ridge
        The ridge on the weights of the features, above zero.

    Raises
    ------
    ValueError
        For fewer than three stimuli, no features or a ridge that is not above zero.

    References
    ----------
    Atanasov, Zavatone-Veth & Pehlevan, arXiv:2405.00592 (linear random features).

    Examples
    --------
    >>> code = ReadoutSpectrum(np.ones(50), np.full(50, 0.02), noise=0.1)
    >>> random_feature_curve(code, [200], n_features=25, ridge=1e-3).error.round(2)
    array([0.69])
    """
    check_curve(n_stimuli, ridge)
    if n_features < 1 or ridge == 0:
        raise ValueError(f"n_features={n_features} must be 1 or more, and ridge={ridge:g} above zero")
    numbers = np.array(n_stimuli, dtype=int)
    errors = np.array([_feature_errors(spectrum, int(n), n_features, ridge) for n in numbers])
    return LearningCurve(numbers, np.full(len(numbers), ridge), errors[:, 0], errors[:, 1])


def _feature_errors(spectrum: ReadoutSpectrum, n: int, n_features: int, ridge: float) -> tuple[float, float]:
    """Error on new stimuli and on the training stimuli; means of the eigenvalues, as in the paper."""
    values, units, independent = spectrum.eigenvalues, len(spectrum.eigenvalues), n - 1
    ridge = ridge * n / independent
    ratio, width = units / independent, n_features / units

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        df1 = (values / (values + kappa)).mean()
        if ratio * df1 >= 1 or df1 >= width:
            return -ridge
        return float(kappa * (1 - ratio * df1) * (width - df1) - ridge)

    top = 10 * (ridge / width + values.max() * (1 + ratio) * (1 + 1 / width))
    kappa = float(np.exp(brentq(excess, np.log(1e-14 * top), np.log(top), xtol=1e-13, rtol=1e-13)))
    shares = values / (values + kappa)
    df1, df2 = shares.mean(), (shares**2).mean()
    inner = kappa * (width - df1)  # the ridge on features that the noise of the stimuli leaves
    slope = 1 / (1 + (df1 - df2) / (width - df1))
    gamma = ratio * df1 * (1 - (df1 - df2) / df1 * slope)
    bias = (spectrum.power * (1 - shares) ** 2).sum()
    unlearned = (spectrum.power * (1 - shares)).sum()
    error = (bias * slope + unlearned * (1 - slope) + spectrum.noise) / (1 - gamma)
    return error * (1 + 1 / n), error * (ridge / inner) ** 2 * independent / n
