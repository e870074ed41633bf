"""Preparation of whole images, and the random choice of patches."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from . import preprocess
from ._config import DataConfig
from ._images import Images, check_memory

MAX_KEPT_PIXELS = 128_000_000  # of prepared images in memory (512 MB); further ones are prepared at each use
MIN_CONTRAST = 0.2  # of patches, in standard deviations of the training images

# JPEG's quantisation in 8 x 8 blocks removes the high frequencies of whole blocks, on a grid that whitening makes
# visible. The share of blocks without high-frequency energy, over the same share on a grid shifted by four pixels, is
# 1.63 on 64 photographs of the Berkeley set at full size and 0.98 at half size (1 where there is no grid).
JPEG_FACTOR = 2


@dataclass(frozen=True)
class Recipe:
    """The preparation, with the defaults of the source filled in."""

    patch: int | None
    colour: str | None  # None: the stored channels
    whiten: Literal["published"] | bool
    normalise_contrast: bool
    zscore: str
    crop: int
    min_contrast: float

    @classmethod
    def resolve(cls, config: DataConfig, photographs: bool) -> Self:
        """Fill in the defaults of photographs (patches of filtered images) or of whole, unchanged stimuli."""
        filtered = photographs or config.whiten == "published"
        patch = config.patch if config.patch is not None else (16 if photographs else None)
        whiten = photographs if config.whiten is None else config.whiten
        normalise = filtered if config.normalise_contrast is None else config.normalise_contrast
        crop = config.crop if config.crop is not None else (4 if filtered else 0)
        contrast = 1e-6 if patch is None else MIN_CONTRAST
        contrast = contrast if config.min_contrast is None else config.min_contrast
        zscore = config.zscore or ("image" if whiten == "published" else "train" if photographs else "none")
        colour = config.colour or ("grey" if photographs else None)
        return cls(patch, colour, whiten, normalise, zscore, crop, contrast)

    @property
    def published(self) -> bool:
        """Whether images are prepared as in the authors' program."""
        return self.whiten == "published"

    def asks_for_images(self, factor: int) -> bool:
        """Whether any step needs images instead of rows of features."""
        filtered = bool(self.whiten) or self.normalise_contrast or self.crop > 0 or factor > 1
        return filtered or self.zscore == "image" or self.colour is not None


def prepare(image: np.ndarray, factor: int, recipe: Recipe) -> np.ndarray:
    """All steps for an (H, W) or (H, W, C) image, except the z-score over training images: (C, H', W')."""
    x = np.asarray(image, dtype=np.float32)
    if recipe.colour == "rgb" and x.shape[2:] != (3,):
        raise ValueError(f"has shape {x.shape}, and colour = 'rgb' needs three channels")
    if recipe.colour == "grey":
        x = preprocess.to_grey(x)
    channels = [x] if x.ndim == 2 else list(np.moveaxis(x, -1, 0))
    done = []
    for channel in channels:
        channel = preprocess.downsample(channel, factor)
        if recipe.whiten:
            channel = preprocess.whiten_published(channel) if recipe.published else preprocess.whiten(channel)
        if recipe.normalise_contrast:
            channel = preprocess.normalise_contrast(channel, mirrored=not recipe.published)
        if recipe.published and recipe.zscore == "image":  # with the border, and the unbiased variance
            mean, std = channel.mean(dtype=np.float64), channel.std(dtype=np.float64, ddof=1)
            channel = preprocess.zscore(channel, float(mean), float(std))
        done.append(preprocess.crop_border(channel, recipe.crop))
    y = np.stack(done)
    if recipe.published or recipe.zscore != "image":
        return y
    return preprocess.zscore(y, float(y.mean()), float(y.std()))


def jpeg_factor(lossy: bool) -> int:
    """Default downsampling factor of a photograph."""
    return JPEG_FACTOR if lossy else 1


class PreparedImages:
    """Prepared images by index: up to `MAX_KEPT_PIXELS` are kept, further ones are prepared at each access."""

    def __init__(self, images: Images, recipe: Recipe, downsample: int | None) -> None:
        self.images, self.recipe = images, recipe
        lossy = images.lossy if images.lossy is not None else [False] * len(images.names)
        automatic = [jpeg_factor(bad and images.photographs) for bad in lossy]
        self.factors = automatic if downsample is None else [downsample] * len(automatic)
        self._kept: dict[int, np.ndarray] = {}
        self._pixels = 0

    def __getitem__(self, i: int) -> np.ndarray:
        if i in self._kept:
            return self._kept[i]
        try:
            x = prepare(self.images.images[i], self.factors[i], self.recipe)
        except ValueError as error:
            raise ValueError(f"image {self.images.names[i]}: {error}") from error
        if self._pixels + x.size <= MAX_KEPT_PIXELS:
            self._kept[i] = x
            self._pixels += x.size
        return x

    @property
    def channels(self) -> int:
        """Channels of every prepared image."""
        return len(self[0])

    def moments(self, index: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation over all pixels of the images `index`."""
        count, total, square = 0, 0.0, 0.0
        for i in index:
            x = self[i].astype(np.float64)
            count, total, square = count + x.size, total + x.sum(), square + (x**2).sum()
        mean = total / count
        return float(mean), float(np.sqrt(max(square / count - mean**2, 0.0)))


def draw_patches(
    prepared: PreparedImages, index: np.ndarray, n: int, threshold: float, how: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Cut `n` different patches from the images `index`; every admissible position is equally likely.

    A position is admissible if the patch has a standard deviation of at least `threshold`. `how = "grid"` allows only
    the tiles of a grid without overlap, and returns all of them if there are fewer than `n`.

    Returns
    -------
    patches : (n, C * patch * patch) float32, in random order.
    owner : (n,) int64 index of each patch's image.
    counts : numbers of pixels, positions ("places") and tiles, and how many of these are admissible.
    """
    patch = prepared.recipe.patch
    assert patch is not None
    stride = patch if how == "grid" else 1
    counts = {"pixels": 0, "places": 0, "admissible": 0, "tiles": 0, "admissible_tiles": 0}
    ends = []  # where each image's candidates end in the numbering of all candidates
    for i in index:
        good = preprocess.patch_contrast(prepared[i], patch) >= threshold
        tiles = good[::patch, ::patch]
        counts["pixels"] += prepared[i][0].size
        counts["places"] += good.size
        counts["admissible"] += int(good.sum())
        counts["tiles"] += tiles.size
        counts["admissible_tiles"] += int(tiles.sum())
        ends.append(counts["admissible_tiles" if how == "grid" else "admissible"])
    n = min(n, ends[-1]) if how == "grid" else n
    if not 0 < n <= ends[-1]:
        raise ValueError(
            f"{n:,} patches requested, but {len(index)} image(s) hold {ends[-1]:,} places with a standard "
            f"deviation of at least {threshold:.3g}: ask for fewer, give more images, or lower min_contrast"
        )
    check_memory("patches", n, prepared.channels * patch**2, "ask for fewer or smaller ones")
    chosen = rng.choice(ends[-1], size=n, replace=False)
    which = np.searchsorted(ends, chosen, side="right")
    patches = np.empty((n, prepared.channels * patch**2), dtype=np.float32)
    for k in np.unique(which):
        x, rows = prepared[index[k]], np.flatnonzero(which == k)
        good = preprocess.patch_contrast(x, patch)[::stride, ::stride] >= threshold
        top, left = (axis[chosen[rows] - (ends[k - 1] if k else 0)] * stride for axis in np.nonzero(good))
        patches[rows] = preprocess.cut(x, top, left, patch)
    return patches, index[which].astype(np.int64), counts
