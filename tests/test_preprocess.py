"""Each preparation step against a formula or a direct computation, and the spectra that they promise."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import fft, signal

from spikevae.data import DataConfig, preprocess, read_images
from spikevae.data._prepare import Recipe, prepare


@pytest.fixture(scope="module")
def bundled():
    """Grey bundled photographs with the factor each is made smaller by: {name: image}."""
    images = read_images(DataConfig())
    return {
        name: preprocess.downsample(preprocess.to_grey(image), 2 if lossy else 1)
        for name, image, lossy in zip(images.names, images.images, images.lossy)
    }


def pink_noise(side, rng):
    """A random field with amplitude spectrum 1 / f, cut from a larger period so that its borders do not
    match."""
    n = 4 * side
    f = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(n))
    f[0, 0] = np.inf
    field = fft.irfft2(fft.rfft2(rng.standard_normal((n, n))) / f, s=(n, n))
    return field[:side, :side]


def band_decibel(spectra, low, high):
    """Mean of spectra of mean one, in dB around its mean over the band: (frequency, dB) inside the band."""
    f = spectra[0][0]
    power = np.mean([p / np.nanmean(p) for _, p in spectra], axis=0)
    inside = (f >= low) & (f <= high)
    return f[inside], 10 * np.log10(power[inside] / power[inside].mean())


# -------------------------------------------------------------------------------------------------- whitening


def test_response_is_the_stated_formula():
    f = np.array([0.0, 0.25, 0.5, np.sqrt(0.5)])
    expected = [0, 0.25 * np.exp(-1 / 16), 0.5 * np.exp(-1), np.sqrt(0.5) * np.exp(-4)]
    np.testing.assert_allclose(preprocess.whitening_response(f), expected, rtol=1e-12)


def test_whitening_equals_the_fourier_filter_of_the_mirrored_image():
    x = np.random.default_rng(0).normal(size=(24, 37))
    mirrored = np.block([[x, x[:, ::-1]], [x[::-1], x[::-1, ::-1]]])
    f = np.hypot(fft.fftfreq(48)[:, None], fft.fftfreq(74))
    filtered = fft.ifft2(fft.fft2(mirrored) * preprocess.whitening_response(f)).real[:24, :37]
    np.testing.assert_allclose(preprocess.whiten(x), filtered, atol=1e-6)


def test_whitened_pink_noise_has_the_known_spectrum():
    """|1/f|^2 R^2 = exp(-2 (f / 0.5)^4). Twelve fields: each ring averages over 1,000 modes, so 0.15 dB of
    noise."""
    rng = np.random.default_rng(1)
    spectra = [
        preprocess.power_spectrum(preprocess.crop_border(preprocess.whiten(pink_noise(200, rng)), 4), 20)
        for _ in range(12)
    ]
    f, found = spectra[0][0], np.mean([p for _, p in spectra], axis=0)
    inside = f > 0.06
    excess = 10 * np.log10(found[inside] / np.exp(-2 * (f[inside] / 0.5) ** 4))
    assert np.abs(excess - excess.mean()).max() < 0.6


def test_whitened_photographs_are_flat(bundled):
    """From 0.08 to 0.32 cycles per pixel raw photographs fall by 14 dB (a 1 / f^2 law by 12); whitened, they
    stay within 3.5 dB of their mean (-3.1 to 2.2), and after every step within 3 dB (-2.8 to 1.6)."""
    steps = lambda x: preprocess.crop_border(preprocess.normalise_contrast(preprocess.whiten(x)), 4)
    _, raw = band_decibel([preprocess.power_spectrum(x) for x in bundled.values()], 0.08, 0.32)
    _, whitened = band_decibel([preprocess.power_spectrum(preprocess.whiten(x)) for x in bundled.values()], 0.08, 0.32)
    _, done = band_decibel([preprocess.power_spectrum(steps(x)) for x in bundled.values()], 0.08, 0.32)
    assert np.ptp(raw) > 12
    assert np.abs(whitened).max() < 3.5
    assert np.abs(done).max() < 3.0


def test_mirrored_borders_keep_the_frame_dark(bundled):
    """A periodic transform lights up the outermost pixels where opposite borders differ; mirroring does
    not."""
    x = bundled["china.jpg"]
    f = np.hypot(fft.fftfreq(x.shape[0])[:, None], fft.fftfreq(x.shape[1]))
    periodic = fft.ifft2(fft.fft2(x) * preprocess.whitening_response(f)).real

    def frame_over_inside(y):
        inside = y[4:-4, 4:-4]
        frame = (y**2).sum() - (inside**2).sum()
        return frame / (y.size - inside.size) / (inside**2).mean()

    assert frame_over_inside(preprocess.whiten(x)) < 1.5
    assert frame_over_inside(periodic) > 2.5


# ------------------------------------------------------------------------- preparation of the authors' program


def published_steps(x):
    """github.com/hadivafaii/PoissonVAE, utils/imgproc.py, step by step: filter, contrast, z-score, border."""
    height, width = x.shape
    table = np.empty((height, width))
    for i, fi in enumerate(np.linspace(-0.5, 0.5, height)):
        for j, fj in enumerate(np.linspace(-0.5, 0.5, width)):
            f = np.sqrt(fi**2 + fj**2)
            table[i, j] = f * np.exp(-((f / 0.5) ** 4))
    whitened = np.fft.ifft2(np.fft.fft2(x) * table).real
    axis = np.linspace(-1, 1, 13)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / 0.5)
    kernel /= kernel.sum()

    def blur(y):
        padded, out = np.pad(y, 6), np.empty((height, width))
        for i in range(height):
            for j in range(width):
                out[i, j] = (padded[i : i + 13, j : j + 13] * kernel).sum()
        return out

    centred = whitened - blur(whitened)
    deviation = np.sqrt(blur(centred**2))
    divided = centred / np.where(deviation > deviation.mean(), deviation, deviation.mean())
    return ((divided - divided.mean()) / divided.std(ddof=1))[4:-4, 4:-4]


@pytest.mark.parametrize("shape", [(40, 40), (33, 46)])
def test_published_preparation_equals_its_transcription(shape):
    rng = np.random.default_rng(11)
    x = (pink_noise(64, rng)[: shape[0], : shape[1]] * 40 + 120).astype(np.float32)
    recipe = Recipe.resolve(DataConfig(whiten="published"), photographs=True)
    expected = published_steps(x.astype(np.float64))
    np.testing.assert_allclose(prepare(x, 1, recipe)[0], expected, atol=2e-5)
    ours = prepare(x, 1, Recipe.resolve(DataConfig(), photographs=True))[0]
    assert np.abs(ours - expected).max() > 0.5  # another image


def test_published_response_is_shifted_by_half_a_cycle_per_pixel():
    """A wave (u, v) has R(|(0.5 - u, 0.5 - v)|), up to the spacing 1 / (N - 1) in place of 1 / N."""
    n = 64
    i, j = np.mgrid[:n, :n]
    for p, q in ((0, 0), (0, 8), (8, 0), (16, 16), (32, 0), (5, 30)):
        wave = np.cos(2 * np.pi * (p * i + q * j) / n)
        found = (preprocess.whiten_published(wave) * wave).sum() / (wave**2).sum()
        shifted = preprocess.whitening_response(np.hypot(0.5 - p / n, 0.5 - q / n))
        assert found == pytest.approx(shifted, abs=0.02), (p, q)
    chequerboard = (-1.0) ** (i + j)
    assert np.abs(preprocess.whiten_published(chequerboard)).max() < 0.02
    flat = np.full((n, n), 7.0)
    np.testing.assert_allclose(preprocess.whiten_published(flat), 7 * np.sqrt(0.5) * np.exp(-4), rtol=1e-5)
    assert np.abs(preprocess.whiten(flat)).max() < 1e-6  # R(0) = 0
    # the exact value of a wave: the mean of the two entries of the table that belong to (p, q) and (-p, -q)
    wave = np.cos(2 * np.pi * 5 * j / n)
    ends = [np.hypot(0.5, 5 / (n - 1) - 0.5), np.hypot(0.5, (n - 5) / (n - 1) - 0.5)]
    np.testing.assert_allclose(
        preprocess.whiten_published(wave), preprocess.whitening_response(np.array(ends)).mean() * wave, atol=1e-6
    )


def test_published_filter_wraps_around_and_ours_does_not():
    x = np.zeros((48, 48))
    x[:, 0] = 1
    assert np.abs(preprocess.whiten_published(x)[:, -1]).max() > 0.03
    assert np.abs(preprocess.whiten(x)[:, -1]).max() < 0.001


# ------------------------------------------------------------------------------------- contrast normalisation


def test_window_is_the_published_kernel():
    """exp(-r^2 / 0.5) with the half-width counted as 1, over 13 x 13 pixels."""
    r = np.linspace(-1, 1, 13)
    kernel = np.exp(-(r[:, None] ** 2 + r**2) / 0.5)
    w = preprocess.gaussian_window()
    np.testing.assert_allclose(np.outer(w, w), kernel / kernel.sum(), rtol=1e-12)


def test_contrast_normalisation_equals_direct_convolution():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 41)) * np.linspace(0.1, 3, 41) + 5
    w = preprocess.gaussian_window()
    blur = lambda y: signal.convolve2d(np.pad(y, 6, mode="symmetric"), np.outer(w, w), mode="valid")
    centred = x - blur(x)
    deviation = np.sqrt(blur(centred**2))
    expected = centred / np.maximum(deviation, deviation.mean())
    np.testing.assert_allclose(preprocess.normalise_contrast(x), expected, atol=1e-6)


def test_contrast_normalisation_ignores_scale_and_offset_and_survives_flat_images():
    x = np.random.default_rng(3).normal(size=(40, 40))
    y = preprocess.normalise_contrast(x)
    np.testing.assert_allclose(preprocess.normalise_contrast(7 * x - 20), y, atol=1e-5)
    for flat in (np.zeros((20, 20)), np.full((20, 20), 0.3), np.full((20, 20), 1e6)):
        assert not preprocess.normalise_contrast(flat).any()


def test_flat_regions_are_not_amplified():
    """Noise a hundred times weaker than the rest stays at least twenty times weaker."""
    x = np.random.default_rng(4).normal(size=(80, 160))
    x[:, 80:] *= 0.01
    y = preprocess.normalise_contrast(x)
    assert y[:, 100:].std() < 0.05 * y[:, :60].std()


def test_window_needs_a_centre():
    with pytest.raises(ValueError, match="odd"):
        preprocess.gaussian_window(12)


# --------------------------------------------------------------------------------------------- smaller images


def test_downsampling_keeps_low_and_removes_aliasing_frequencies():
    x = np.arange(240)
    low = np.tile(np.cos(2 * np.pi * 0.04 * x), (240, 1))
    high = np.tile(np.cos(2 * np.pi * 0.42 * x), (240, 1))  # would fold to 0.16 of the smaller image's pixels
    inner = lambda y: preprocess.crop_border(preprocess.downsample(y, 2), 8)
    assert inner(low).std() == pytest.approx(low.std(), rel=0.02)
    assert inner(high).std() < 0.05 * high.std()
    assert inner(np.full((240, 240), 0.7)) == pytest.approx(0.7, abs=1e-6)
    assert preprocess.downsample(low, 1) is low
    assert preprocess.downsample(np.zeros((101, 99)), 2).shape == (50, 49)
    with pytest.raises(ValueError, match="3 x 3 cannot be made 4 times smaller"):
        preprocess.downsample(np.zeros((3, 3)), 4)


def jpeg_grid(x, side):
    """Share of side x side blocks on the JPEG grid with little high-frequency energy, over that of a shifted
    grid."""

    def energy(y):
        h, w = y.shape[0] // side * side, y.shape[1] // side * side
        blocks = y[:h, :w].reshape(h // side, side, w // side, side).swapaxes(1, 2)
        order = np.add.outer(np.arange(side), np.arange(side)) >= side
        return (fft.dctn(blocks, axes=(2, 3), norm="ortho")[..., order] ** 2).mean(-1)

    shifted = energy(x[side // 2 :, side // 2 :])
    return (energy(x) < np.quantile(shifted, 0.25)).mean() / 0.25


def test_half_size_removes_the_jpeg_grid(bundled):
    """The reason for the factor 2: an image without a grid has 1; the same image saved as JPEG does not."""
    x = bundled["motorcycle_left.png"]
    buffer = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    compressed = np.asarray(Image.open(buffer), dtype=np.float32) / 255
    assert jpeg_grid(x, 8) == pytest.approx(1, abs=0.1)
    assert jpeg_grid(compressed, 8) > 1.5
    assert jpeg_grid(preprocess.downsample(compressed, 2), 4) == pytest.approx(1, abs=0.1)


def test_bundled_photographs_used_at_full_size_bear_no_jpeg_grid(bundled):
    images = read_images(DataConfig())
    for name, image, lossy in zip(images.names, images.images, images.lossy):
        grey = preprocess.to_grey(image)
        assert (jpeg_grid(grey, 8) > 1.15) == lossy, name
        assert jpeg_grid(bundled[name], 4 if lossy else 8) < 1.1, name


def test_real_jpeg_photographs_lose_the_grid(shared_data):
    """64 photographs of the Berkeley set: 1.63 at full size, 0.98 at half size (both plus or minus 0.05)."""
    images = read_images(DataConfig(source=f"folder:{shared_data / 'natural'}"))
    grey = [preprocess.to_grey(x) for x in images.images]
    assert np.mean([jpeg_grid(x, 8) for x in grey]) > 1.5
    assert np.mean([jpeg_grid(preprocess.downsample(x, 2), 4) for x in grey]) == pytest.approx(1, abs=0.1)


# ------------------------------------------------------------------------------------------------ small steps


def test_grey_is_luma():
    rgb = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]], dtype=np.float64)
    np.testing.assert_allclose(preprocess.to_grey(rgb), [[0.299, 0.587], [0.114, 1.0]])
    grey = np.zeros((2, 2))
    assert preprocess.to_grey(grey) is grey


def test_zscore_and_crop():
    x = np.random.default_rng(5).normal(3, 2, size=(20, 30)).astype(np.float32)
    z = preprocess.zscore(x, float(x.mean()), float(x.std()))
    assert z.mean() == pytest.approx(0, abs=1e-5) and z.std() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(preprocess.crop_border(x, 4), x[4:-4, 4:-4])
    assert preprocess.crop_border(x, 0).shape == x.shape
    with pytest.raises(ValueError, match="no contrast"):
        preprocess.zscore(x, 0.0, 0.0)
    with pytest.raises(ValueError, match="nothing left"):
        preprocess.crop_border(x, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_contrast_and_cut_equal_slices(channels):
    x = np.random.default_rng(6).normal(100, 1, size=(channels, 15, 20)).astype(np.float32)
    contrast = preprocess.patch_contrast(x, 6)
    assert contrast.shape == (10, 15)
    top, left = np.array([0, 9, 4]), np.array([0, 14, 7])
    patches = preprocess.cut(x, top, left, 6)
    for row, i, j in zip(patches, top, left):
        window = x[:, i : i + 6, j : j + 6]
        np.testing.assert_array_equal(row, window.ravel())
        assert contrast[i, j] == pytest.approx(window.astype(np.float64).std(), rel=1e-6)


def test_contrast_of_a_flat_patch_is_zero():
    x = np.random.default_rng(7).normal(size=(1, 40, 40)).astype(np.float32)
    x[0, 10:30, 10:30] = 0.123
    assert preprocess.patch_contrast(x, 8)[12, 12] < 1e-6


def test_power_spectrum_of_white_noise_is_its_variance():
    """The Hann window ties neighbouring modes, so a ring has 1 to 8 % of noise; ten fields have 0.3 to 2.5
    %."""
    rng = np.random.default_rng(8)
    spectra = [preprocess.power_spectrum(rng.normal(5, 3, size=(300, 200)), 10) for _ in range(10)]
    f, p = spectra[0][0], np.mean([p for _, p in spectra], axis=0)
    assert p[1:] == pytest.approx(np.full(9, 9.0), rel=0.1)
    assert p[1:].mean() == pytest.approx(9, rel=0.02)
    assert np.all(np.diff(f) > 0) and f[-1] < 0.5


def test_power_spectrum_finds_a_wave():
    y, x = np.mgrid[:128, :128]
    f, p = preprocess.power_spectrum(np.cos(2 * np.pi * (0.12 * x + 0.16 * y)), 25)
    assert f[np.nanargmax(p)] == pytest.approx(0.2, abs=0.02)
