"""Gabor fits of atoms: orientation, spatial frequency, and fraction of the atom that is a Gabor function."""

import math
from typing import NamedTuple

import numpy as np

from ._arrays import Array, matrix

# Half-amplitude half-width of a Gaussian in standard deviations.
HALF_WIDTH = math.sqrt(2 * math.log(2))

# Images are padded by this factor before the Fourier transform: initial values then lie within a fraction of the width
# of a peak, where least squares converges.
PADDING = 4

# Bounds of the log of envelope widths in pixels: the width of a grating is infinite, that of a single pixel zero.
LOG_SIGMA_MIN, LOG_SIGMA_MAX = math.log(0.1), math.log(100.0)

# A Gabor function has this many free parameters.
N_PARAMETERS = 8


class GaborFits(NamedTuple):
    """Least-squares Gabor functions of K atoms, each field (K,)."""

    r2: np.ndarray
    """Fraction of the sum of squares of the atom that the fit explains; 1 is a perfect Gabor, NaN for an atom of
    zeros."""
    orientation: np.ndarray
    """Direction of the wave vector from the column axis towards rising rows, radians in [0, pi)."""
    frequency: np.ndarray
    """Spatial frequency, cycles per pixel."""
    bandwidth: np.ndarray
    """Full width of the frequency tuning at half amplitude, octaves; infinite where it reaches frequency
    zero."""
    row: np.ndarray
    """Centre, pixels from the first row."""
    column: np.ndarray
    """Centre, pixels from the first column."""
    sigma_along: np.ndarray
    """Standard deviation of the envelope along the wave vector, pixels."""
    sigma_across: np.ndarray
    """Standard deviation of the envelope across the wave vector (along the bars), pixels."""
    phase: np.ndarray
    """Phase of the wave at the centre, radians in (-pi, pi]; 0 is even-symmetric."""


def fit_gabors(dictionary: Array, shape: tuple[int, ...], *, n_starts: int = 3) -> GaborFits:
    r"""Fit a Gabor function to each atom.

    ``g(r, c) = exp(-u^2 / 2 s_u^2 - v^2 / 2 s_v^2) (A cos 2 pi f u + B sin 2 pi f u)``, with u along the
    wave vector and v across it, centred. Levenberg-Marquardt with exact derivatives from `n_starts` peaks of
    the Fourier amplitude of the atom; the best fit is kept.

    Parameters
    ----------
    dictionary
        (K, D) atoms of one channel.
    shape
        (H, W) or (1, H, W) with H*W = D.
    n_starts
        Fourier peaks to start from.

    Raises
    ------
    ValueError
        If the shape has several channels or does not fit the dictionary.

    References
    ----------
    Daugman, J. Opt. Soc. Am. A 2 (1985); Ringach, J. Neurophysiol. 88 (2002) (fits of cortical receptive
    fields); bandwidth as in De Valois, Albrecht & Thorell, Vision Res. 22 (1982).

    Examples
    --------
    >>> r, c = np.mgrid[:12, :12] - 5.5
    >>> atom = np.exp(-(r**2 + c**2) / 18) * np.cos(2 * np.pi * 0.2 * c)
    >>> fit = fit_gabors(atom.reshape(1, -1), (12, 12))
    >>> round(fit.frequency.item(), 4), round(fit.sigma_across.item(), 4)
    (0.2, 3.0)
    """
    atoms = matrix(dictionary, "dictionary")
    if len(shape) == 3 and shape[0] != 1:
        raise ValueError(f"shape {tuple(shape)} has {shape[0]} channels; fit one channel at a time")
    height, width = shape[-2:] if len(shape) in (2, 3) else (0, 0)
    if height * width != atoms.shape[1]:
        raise ValueError(f"shape {tuple(shape)} does not fit {atoms.shape[1]} pixels; give (H, W) or (1, H, W)")
    if atoms.shape[1] < N_PARAMETERS:
        raise ValueError(f"atoms of {atoms.shape[1]} pixels cannot determine the {N_PARAMETERS} Gabor parameters")
    rows = [_fit_one(atom.reshape(height, width), n_starts) for atom in atoms]
    return GaborFits(*np.array(rows, dtype=np.float64).T)


def _fit_one(image: np.ndarray, n_starts: int) -> tuple[float, ...]:
    """The fields of GaborFits for one atom (H, W)."""
    from scipy.optimize import least_squares

    norm = float(np.sqrt((image**2).sum()))
    if not norm > 0 or not math.isfinite(norm):
        return (math.nan,) * len(GaborFits._fields)
    image = image / norm
    r, c = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    fits = [
        least_squares(_residual, start, _jacobian, args=(image, r, c), method="lm", max_nfev=100)
        for start in _starts(image, r, c, n_starts)
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return _describe(best.x, 1.0 - 2.0 * best.cost)


def _describe(p: np.ndarray, r2: float) -> tuple[float, ...]:
    row, column, log_along, log_across, k_row, k_column, a, b = p
    frequency = math.hypot(k_row, k_column)
    along, across = (math.exp(_bounded(v)) for v in (log_along, log_across))
    orientation, phase = math.atan2(k_row, k_column), math.atan2(-b, a)  # a cos + b sin = cos(. + phase)
    if not 0 <= orientation < math.pi:  # the same wave with the opposite wave vector
        orientation, phase = orientation % math.pi, -phase
    half = HALF_WIDTH / (2 * math.pi * along)
    bandwidth = math.log2((frequency + half) / (frequency - half)) if frequency > half else math.inf
    return r2, orientation, frequency, bandwidth, row, column, along, across, phase


def _starts(image: np.ndarray, r: np.ndarray, c: np.ndarray, n_starts: int) -> list[np.ndarray]:
    """Initial parameters at the strongest Fourier peaks, with the envelope from the moments of the energy."""
    energy = image**2
    row, column = (energy * r).sum(), (energy * c).sum()
    size = math.sqrt((energy * ((r - row) ** 2 + (c - column) ** 2)).sum())
    # Energy is the envelope squared: its variance per axis is half the envelope's.
    log_sigma = math.log(max(size, 0.5))
    shape = [PADDING * n for n in image.shape]
    amplitude = np.abs(np.fft.rfft2(image, shape))
    k_row = np.fft.fftfreq(shape[0])[:, None] + np.zeros_like(amplitude)
    k_column = np.fft.rfftfreq(shape[1])[None, :] + np.zeros_like(amplitude)
    amplitude[np.hypot(k_row, k_column) < 0.5 / max(image.shape)] = 0  # less than half a cycle in the image
    starts = []
    for _ in range(n_starts):
        i = np.unravel_index(amplitude.argmax(), amplitude.shape)
        wave = 2 * math.pi * (k_row[i] * (r - row) + k_column[i] * (c - column))
        window = np.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * math.exp(2 * log_sigma)))
        basis = np.stack([window * np.cos(wave), window * np.sin(wave)]).reshape(2, -1)
        a, b = np.linalg.lstsq(basis.T, image.ravel(), rcond=None)[0]
        starts.append(np.array([row, column, log_sigma, log_sigma, k_row[i], k_column[i], a, b]))
        # The next initial value is at another peak, not next to this one.
        near = np.hypot(k_row - k_row[i], k_column - k_column[i])
        mirror = np.hypot(k_row + k_row[i], k_column + k_column[i])
        amplitude[np.minimum(near, mirror) < 1.0 / max(image.shape)] = 0
    return starts


def _bounded(log_sigma: float) -> float:
    return min(max(log_sigma, LOG_SIGMA_MIN), LOG_SIGMA_MAX)


def _parts(p: np.ndarray, r: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    row, column, log_along, log_across, k_row, k_column = p[:6]
    y, x = r - row, c - column
    log_along, log_across = (_bounded(v) for v in (log_along, log_across))
    f = math.hypot(k_row, k_column) + 1e-12  # a wave vector of zero length has no direction
    u, v = (k_column * x + k_row * y) / f, (k_column * y - k_row * x) / f
    window = np.exp(-0.5 * ((u * math.exp(-log_along)) ** 2 + (v * math.exp(-log_across)) ** 2))
    wave = 2 * math.pi * (k_row * y + k_column * x)
    return y, x, u, v, window, window * np.cos(wave), window * np.sin(wave)


def _residual(p: np.ndarray, image: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    *_, cosine, sine = _parts(p, r, c)
    return (p[6] * cosine + p[7] * sine - image).ravel()


def _jacobian(p: np.ndarray, image: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(D, 8) derivatives of the residual."""
    k_row, k_column, a, b = p[4:]
    y, x, u, v, _, cosine, sine = _parts(p, r, c)
    value, slope = a * cosine + b * sine, 2 * math.pi * (b * cosine - a * sine)  # slope: d value / d(cycles)
    f = math.hypot(k_row, k_column) + 1e-12
    in_u, in_v = (math.exp(-2 * _bounded(v)) for v in p[2:4])
    # Turning the wave vector by dk changes u by v * turn and v by -u * turn, turn = (k x dk) / f^2.
    turn = value * u * v * (in_v - in_u) / f**2
    columns = [
        value * (in_u * u * k_row + in_v * v * k_column) / f - slope * k_row,
        value * (in_u * u * k_column - in_v * v * k_row) / f - slope * k_column,
        value * u**2 * in_u,
        value * v**2 * in_v,
        slope * y + turn * k_column,
        slope * x - turn * k_row,
        cosine,
        sine,
    ]
    return np.stack([column.ravel() for column in columns], axis=1)
