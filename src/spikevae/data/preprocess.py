"""The steps from a photograph to whitened, contrast-normalised patches: each is a function of one image.

Images are (H, W) float arrays, one channel at a time; frequencies are in cycles per pixel (0.5 is the Nyquist limit).

References
----------
- Olshausen, Field (1996), Nature 381:607-609, and (1997), Vision Research 37:3311-3325: the whitening filter.
- Jarrett, Kavukcuoglu, Ranzato, LeCun (2009), ICCV: local contrast normalisation.
- Vafaii, Galor, Yates (2024), NeurIPS, Poisson variational autoencoder: both, for natural image patches.
"""

import numpy as np
from scipy import fft, ndimage

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
CUTOFF, ORDER = 0.5, 4.0  # of the whitening filter
CONTRAST_SIZE, CONTRAST_STD = 13, 3.0  # of the Gaussian window, pixels


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luminance 0.299 R + 0.587 G + 0.114 B of an (H, W, 3) image; an (H, W) image is returned as it is."""
    if image.ndim == 2:
        return image
    return image @ np.asarray(GREY_WEIGHTS, dtype=image.dtype)


def downsample(image: np.ndarray, factor: int) -> np.ndarray:
    """Make an (H, W) image `factor` times smaller with a Lanczos filter, which prevents aliasing.

    Rows and columns beyond a multiple of `factor` are removed first, so that pixels stay square.

    Examples
    --------
    >>> downsample(np.ones((9, 8), dtype=np.float32), 2).shape
    (4, 4)
    """
    if factor == 1:
        return image
    from PIL import Image

    height, width = image.shape[0] // factor, image.shape[1] // factor
    if min(height, width) < 1:
        raise ValueError(f"an image of {image.shape[0]} x {image.shape[1]} cannot be made {factor} times smaller")
    whole = np.ascontiguousarray(image[: height * factor, : width * factor], dtype=np.float32)
    return np.asarray(Image.fromarray(whole).resize((width, height), Image.Resampling.LANCZOS))


def whitening_response(frequency: np.ndarray, cutoff: float = CUTOFF, order: float = ORDER) -> np.ndarray:
    """Amplitude response R(f) = f exp(-(f / cutoff)^order) of the whitening filter.

    The factor f compensates the 1/f amplitude spectrum of natural scenes; the exponential removes the corners of the
    Fourier plane, where sampling noise dominates. R is largest at cutoff / order^(1/order), 0.354 cycles per pixel.

    Examples
    --------
    >>> round(float(whitening_response(np.array(0.5))), 4)  # 0.5 / e
    0.1839
    """
    return frequency * np.exp(-((frequency / cutoff) ** order))


def whiten(image: np.ndarray, cutoff: float = CUTOFF, order: float = ORDER) -> np.ndarray:
    """Filter an (H, W) image with `whitening_response`; borders are mirrored.

    The mirrored image is periodic and even, so the filter is a product of cosine-transform coefficients:
    coefficient (i, j) has frequency sqrt((i / 2H)^2 + (j / 2W)^2). A Fourier transform would make the image periodic
    without mirroring; the jumps between opposite borders would become bright frames. The mean is removed, since
    R(0) = 0.

    `whiten_published` is the filter of the authors' program, which is another one.
    """
    height, width = image.shape
    f = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    spectrum = fft.dctn(image.astype(np.float64), type=2, norm="ortho")
    return fft.idctn(spectrum * whitening_response(f, cutoff, order), type=2, norm="ortho").astype(np.float32)


def published_response(height: int, width: int) -> np.ndarray:
    """Amplitude response of the authors' program to the Fourier coefficients (i, j) of an image: (height, width).

    The program (github.com/hadivafaii/PoissonVAE, `utils/imgproc.py`) tabulates R on H x W frequencies from -0.5 to
    0.5, both ends included, with zero in the middle, and multiplies this table with a transform whose zero frequency is
    at the corner. Coefficient (i, j) therefore has R(|(i / (H - 1) - 0.5, j / (W - 1) - 0.5)|): up to rounding, a wave
    of frequencies (u, v) has R(|(0.5 - |u|, 0.5 - |v|)|). The mean is multiplied by R(0.707) = 0.013 and not by zero;
    diagonal waves of 0.25 cycles per pixel in each direction pass best, and a chequerboard not at all.

    Examples
    --------
    >>> round(float(published_response(64, 48)[0, 0]), 4)  # sqrt(1 / 2) exp(-4)
    0.013
    """
    rows, columns = np.linspace(-0.5, 0.5, height), np.linspace(-0.5, 0.5, width)
    return whitening_response(np.hypot(rows[:, None], columns))


def whiten_published(image: np.ndarray) -> np.ndarray:
    """Filter an (H, W) image with `published_response`; the image is periodic, so opposite borders are neighbours.

    The response of the coefficients (i, j) and (-i, -j) differs a little, so the result has an imaginary part, which is
    left out, as in the authors' program.
    """
    spectrum = fft.fft2(image.astype(np.float64)) * published_response(*image.shape)
    return fft.ifft2(spectrum).real.astype(np.float32)


def gaussian_window(size: int = CONTRAST_SIZE, std: float = CONTRAST_STD) -> np.ndarray:
    """One-dimensional Gaussian weights over `size` pixels (odd) that sum to one."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size = {size}: the window needs an odd number of pixels, so that it has a centre")
    x = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (x / std) ** 2)
    return weights / weights.sum()


def normalise_contrast(
    image: np.ndarray, size: int = CONTRAST_SIZE, std: float = CONTRAST_STD, mirrored: bool = True
) -> np.ndarray:
    """Subtract the local mean and divide by the local deviation, but at least by its mean over the image.

    With a Gaussian window w: v = x - w * x, s = sqrt(w * v^2), y = v / max(s, mean(s)). Flat regions therefore keep a
    lower contrast than the rest. Borders are mirrored, or, as in the authors' program, zeros surround the image and v.
    With mirrored borders a constant image becomes zero.

    The published "kernel size 13, sigma 0.5" counts the window's half-width as 1 and writes the weights as
    exp(-r^2 / sigma): with r in units of 6 pixels that is a Gaussian of standard deviation 6 sqrt(0.5 / 2) =
    3 pixels, cut off at 6, which is the default here. (Read as half a pixel it would subtract 62 % of each
    pixel from itself.)

    Examples
    --------
    >>> float(np.abs(normalise_contrast(np.full((32, 32), 0.7))).max())
    0.0
    """
    weights = gaussian_window(size, std)
    mode = "reflect" if mirrored else "constant"  # of zeros

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.correlate1d(ndimage.correlate1d(x, weights, axis=0, mode=mode), weights, axis=1, mode=mode)

    x = image.astype(np.float64)
    centred = x - blur(x)
    deviation = np.sqrt(blur(centred**2))
    floor = deviation.mean()
    if floor <= 1e-9 * max(1.0, float(np.abs(x).max())):  # rounding, not contrast
        return np.zeros(image.shape, dtype=np.float32)
    return (centred / np.maximum(deviation, floor)).astype(np.float32)


def zscore(image: np.ndarray, mean: float, std: float) -> np.ndarray:
    """(x - mean) / std."""
    if not std > 0:
        raise ValueError(f"std = {std}: the images have no contrast at all, so a z-score is undefined")
    centred = image - np.float32(mean)
    centred /= np.float32(std)
    return centred


def crop_border(image: np.ndarray, width: int) -> np.ndarray:
    """Remove `width` pixels at each border."""
    if min(image.shape) <= 2 * width:
        height, length = image.shape
        raise ValueError(f"an image of {height} x {length} has nothing left without {width} pixels at each side")
    return image[width : image.shape[0] - width, width : image.shape[1] - width]


def patch_contrast(image: np.ndarray, patch: int) -> np.ndarray:
    """Standard deviation of every patch x patch window of a (C, H, W) image, over all its channels.

    Returns an (H - patch + 1, W - patch + 1) array; entry (i, j) belongs to the window whose upper left pixel
    is (i, j). Computed from running sums, in time that does not grow with `patch`.
    """
    x = image.astype(np.float64)
    x -= x.mean()  # for an accurate difference of the moments below
    mean = _window_sum(x, patch) / (len(x) * patch**2)
    square = _window_sum(x**2, patch) / (len(x) * patch**2)
    return np.sqrt(np.maximum(square - mean**2, 0.0))


def _window_sum(x: np.ndarray, patch: int) -> np.ndarray:
    """Sum over channels and every patch x patch window of a (C, H, W) array."""
    total = np.pad(x.sum(0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return total[patch:, patch:] - total[:-patch, patch:] - total[patch:, :-patch] + total[:-patch, :-patch]


def cut(image: np.ndarray, top: np.ndarray, left: np.ndarray, patch: int) -> np.ndarray:
    """Patches of a (C, H, W) image with the given upper left pixels: (n, C * patch * patch)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch, patch), axis=(1, 2))
    return windows[:, top, left].swapaxes(0, 1).reshape(len(top), -1)


def power_spectrum(image: np.ndarray, bins: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power spectrum of an (H, W) image.

    P(f) = mean over |k| in the bin of |FFT(w (x - mean))|^2 / sum(w^2), with a Hann window w on each axis
    (without it the jump between opposite borders leaks a 1/f^2 tail into every frequency). White noise of
    variance v has P = v.

    Returns
    -------
    frequency : (bins,) mean frequency of each ring, cycles per pixel, up to 0.5.
    power : (bins,) mean power of each ring; NaN where a small image has no frequency in it.
    """
    height, width = image.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    x = image.astype(np.float64)
    x = (x - (window * x).sum() / window.sum()) * window
    power = np.abs(fft.fft2(x)) ** 2 / (window**2).sum()
    f = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width))
    # frequencies within the window's main lobe around zero (2 / size) are left out: removing the mean changed them
    keep = (f >= 2 / min(height, width)) & (f <= 0.5)
    ring = np.minimum((f[keep] * 2 * bins).astype(int), bins - 1)
    count = np.bincount(ring, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = np.bincount(ring, f[keep], minlength=bins) / count
        mean = np.bincount(ring, power[keep], minlength=bins) / count
    return frequency, mean
