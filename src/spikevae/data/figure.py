"""The figure of `spikevae data`: power spectra before and after preparation, and example patches."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..plotting import BLUE, INK, ORANGE, VERMILION, settings
from . import preprocess
from ._config import DataConfig
from ._images import Images
from ._patches import PatchSet
from ._prepare import Recipe, jpeg_factor, prepare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE = "#bbbbbb"
BINS = 32
MAX_IMAGES = 64  # whose spectra are averaged


def decibel(power: np.ndarray) -> np.ndarray:
    """10 log10 of power over its mean across frequencies; NaN stays NaN."""
    return 10 * np.log10(power / np.nanmean(power))


def mean_spectrum(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power of (H, W) images, each scaled to a mean of one, then averaged over images."""
    bins = min(BINS, *(min(image.shape) // 4 for image in images))  # small images have few frequencies
    spectra = [preprocess.power_spectrum(image, bins) for image in images if np.ptp(image) > 0]
    f = np.array([f for f, _ in spectra])
    power = np.array([p / np.nanmean(p) for _, p in spectra])
    filled = np.isfinite(power).any(axis=0)
    return np.nanmean(f[:, filled], axis=0), np.nanmean(power[:, filled], axis=0)


def spectra_figure(config: DataConfig, images: Images, patches: PatchSet) -> "Figure":
    """Power spectra of the images before and after preparation, and a grid of example patches.

    Parameters
    ----------
    config, images, patches
        A configuration whose patches are cut from whole images, `read_images(config)`, `load_config(config)`.

    Raises
    ------
    ValueError
        Where the set is not cut from images.
    """
    from matplotlib.figure import Figure

    recipe = Recipe.resolve(config, images.photographs)
    if recipe.patch is None or images.truth is not None:
        raise ValueError(f"source {config.source!r} is not cut from images: it has no spectra to show")
    count = len(images.names)
    index = np.unique(np.linspace(0, count - 1, min(MAX_IMAGES, count)).astype(int))
    lossy = np.zeros(count, bool) if images.lossy is None else np.asarray(images.lossy, bool)
    factors = [config.downsample or jpeg_factor(bool(images.photographs and lossy[i])) for i in index]
    raw = [preprocess.to_grey(np.asarray(images.images[i], np.float32)) for i in index]
    grey = replace(recipe, colour="grey", zscore="none")

    with settings():
        figure = Figure(figsize=(10, 7.6), layout="constrained")
        ((raw_axes, flat_axes), (after_axes, patch_axes)) = figure.subplots(2, 2)
        _draw_raw(raw_axes, raw)
        _draw_compensated(flat_axes, raw, factors)
        _draw_prepared(after_axes, raw, factors, grey)
        _draw_patches(patch_axes, patches)
        figure.suptitle(f"{config.word}: {len(raw)} image(s) before and after preparation", fontsize=12)
        return figure


def _draw_raw(axes: "Axes", raw: list[np.ndarray]) -> None:
    """Spectra of the unprepared images, and the 1 / f^2 law of natural scenes."""
    for i, image in enumerate(raw):
        axes.plot(*_in_decibel(mean_spectrum([image])), color=PALE, lw=0.7, label=None if i else "each image")
    f, power = mean_spectrum(raw)
    axes.plot(f, decibel(power), color=INK, lw=2, label="mean over images")
    axes.plot(f, decibel(f**-2.0), color=ORANGE, lw=2, ls="--", label="1 / f² law")
    axes.set_xscale("log")
    axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    axes.minorticks_off()
    _finish(axes, "Before: images as they are", "power / mean power (dB)")


def _in_decibel(spectrum: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return spectrum[0], decibel(spectrum[1])


def _draw_compensated(axes: "Axes", raw: list[np.ndarray], factors: list[int]) -> None:
    """Spectra times f^2, at full size and after downsampling: compression noise makes them rise."""
    whole = [x for x, k in zip(raw, factors) if k == 1]
    reduced = [(x, k) for x, k in zip(raw, factors) if k > 1]
    groups = [
        ("used at full size", whole, INK, "-"),
        ("made smaller: before", [x for x, _ in reduced], VERMILION, "--"),
        ("made smaller: after", [preprocess.downsample(x, k) for x, k in reduced], BLUE, "-"),
    ]
    for label, members, colour, style in groups:
        if members:
            f, power = mean_spectrum(members)
            axes.plot(f, decibel(power * f**2), style, color=colour, lw=2, label=f"{label} ({len(members)})")
    _finish(axes, "Before, times f²: flat under the 1 / f² law", "f² power / mean (dB)")


def _draw_prepared(axes: "Axes", raw: list[np.ndarray], factors: list[int], recipe: Recipe) -> None:
    """Spectra after whitening and after all steps, and the expected spectrum of whitened 1 / f^2 images."""
    stages = [("every step", recipe, BLUE, "-")]
    if recipe.whiten and recipe.normalise_contrast:
        stages.insert(0, ("whitened only", replace(recipe, normalise_contrast=False), VERMILION, "--"))
    axes.axhspan(-3, 3, color=PALE, alpha=0.3, lw=0, label="±3 dB")
    for label, stage, colour, style in stages:
        f, power = mean_spectrum([prepare(x, k, stage)[0] for x, k in zip(raw, factors)])
        axes.plot(f, decibel(power), style, color=colour, lw=2, label=label)
    if recipe.whiten and not recipe.published:  # the published response depends on direction
        ideal = (preprocess.whitening_response(f) / f) ** 2
        axes.plot(f, decibel(ideal), ":", color=INK, lw=2, label="exact 1 / f² images, whitened")
    _finish(axes, "After preparation", "power / mean power (dB)")


def _draw_patches(axes: "Axes", patches: PatchSet, side: int = 8) -> None:
    """The first training patches in a square grid, all on one grey scale."""
    count = min(side**2, len(patches.train))
    channels, height, width = patches.shape
    shown = patches.train[:count].reshape(count, channels, height, width)
    centre = float(shown.mean())
    half_range = float(np.quantile(np.abs(shown - centre), 0.995))
    sheet = np.ones((side * (height + 1) - 1, side * (width + 1) - 1, channels))
    for k in range(count):
        top, left = (k // side) * (height + 1), (k % side) * (width + 1)
        sheet[top : top + height, left : left + width] = np.moveaxis(shown[k] - centre, 0, -1) / (2 * half_range) + 0.5
    sheet = np.clip(sheet[..., 0] if channels == 1 else sheet, 0, 1)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"{count} training patches of {height} × {width} pixels", fontsize=10)
    axes.set_xlabel(f"black to white: {centre - half_range:.2g} to {centre + half_range:.2g}")
    axes.set_xticks([])
    axes.set_yticks([])


def _finish(axes: "Axes", title: str, ylabel: str) -> None:
    """Title, axis names with units, grid and legend."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("spatial frequency (cycles per pixel)")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
