"""From whole images to a `PatchSet`: split by image, prepare, cut patches, record the steps."""

import hashlib
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from . import preprocess
from ._config import DataConfig
from ._images import Images, check_memory
from ._patches import BLOCK_VALUES, PatchSet
from ._prepare import PreparedImages, Recipe, draw_patches, prepare

N_PATCHES = 40_000  # training patches of photographs by default
TEST_FRACTION = 0.2  # of the images, where a source has no split of its own
MAX_NAMES = 10_000  # largest number of image names in the record


def build(config: DataConfig, images: Images) -> PatchSet:
    """Prepare `images` as `config` describes and return training and test set."""
    recipe = Recipe.resolve(config, images.photographs)
    if images.truth is not None:  # synthetic stimuli are made at the size of a patch
        recipe = replace(recipe, patch=None)
    is_test = split(images, config.test_fraction)
    rows = isinstance(images.images, np.ndarray) and images.images.ndim == 2
    if rows and (recipe.patch is not None or recipe.asks_for_images(config.downsample or 1)):
        raise ValueError(
            f"source {config.source!r} holds rows of {images.images[0].size} features: patch, colour, "
            "downsample, whiten, normalise_contrast, crop and zscore = 'image' need images"
        )
    make = _whole if recipe.patch is None else _cut
    parts, info = make(config, recipe, images, is_test)
    for part in ("train", "test"):
        group = parts[f"{part}_group"]
        parts[f"{part}_labels"] = None if images.labels is None else np.asarray(images.labels, np.int64)[group]
        names = [name for name, held_out in zip(images.names, is_test) if held_out == (part == "test")]
        info[f"{part}_images"] = names if images.photographs and len(names) <= MAX_NAMES else []
        info[f"n_{part}_images"] = len(names)
    return PatchSet(name=config.source, info=_record(config, recipe, images) | info, truth=images.truth, **parts)


def split(images: Images, test_fraction: float | None) -> np.ndarray:
    """Which whole images are held out: (number of images,) bool.

    The source's own split if it has one and `test_fraction` is None. Otherwise the images whose names have the lowest
    SHA-256 digests: this depends on the names only, not on a seed or on the order of files.
    """
    if test_fraction is None and images.own_test is not None:
        return np.asarray(images.own_test, dtype=bool)
    count = len(images.names)
    if count < 2:
        raise ValueError(f"{count} image(s) cannot be split into training and test images: give at least two")
    digests = [hashlib.sha256(str(name).encode(errors="surrogateescape")).digest() for name in images.names]
    n_test = min(max(round(count * (test_fraction or TEST_FRACTION)), 1), count - 1)
    is_test = np.zeros(count, dtype=bool)
    is_test[sorted(range(count), key=digests.__getitem__)[:n_test]] = True
    return is_test


def _cut(
    config: DataConfig, recipe: Recipe, images: Images, is_test: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Patches of prepared images, and facts about them for the record."""
    prepared = PreparedImages(images, recipe, config.downsample)
    mean, std = prepared.moments(np.flatnonzero(~is_test))
    if not std > 0:
        raise ValueError(f"source {config.source!r}: the training images are constant, so no patch has contrast")
    threshold = recipe.min_contrast * std  # in the units of the prepared images, before the z-score
    n = config.n or N_PATCHES
    parts: dict[str, Any] = {"shape": (prepared.channels, recipe.patch, recipe.patch)}
    info: dict[str, Any] = {"pixel_mean": mean, "pixel_std": std, "contrast": [], "overlap": []}
    for k, (part, size) in enumerate({"train": n, "test": config.n_test or max(1, n // 4)}.items()):
        index = np.flatnonzero(is_test == (part == "test"))
        rng = np.random.default_rng([config.seed, k])
        x, parts[f"{part}_group"], counts = draw_patches(prepared, index, size, threshold, config.patches, rng)
        parts[part] = preprocess.zscore(x, mean, std) if recipe.zscore == "train" else x
        info[f"{part}_counts"] = counts
        info["contrast"].append(
            f"{part}: {counts['admissible']:,} of {counts['places']:,} places have a standard deviation of "
            f"at least {recipe.min_contrast:g} times that of the training images; the others are never drawn"
        )
        info["overlap"].append(
            f"{part}: {len(x):,} patches from {counts['pixels']:,} pixels, which hold {counts['tiles']:,} "
            f"patches that do not overlap ({counts['admissible_tiles']:,} with contrast)"
        )
    if images.photographs:
        info["downsample"] = dict(zip(images.names, prepared.factors))
    return parts, info


def _whole(
    config: DataConfig, recipe: Recipe, images: Images, is_test: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every image as one stimulus, and facts about them for the record."""
    raw = np.asarray(images.images)
    check_memory(f"source {config.source!r}", len(raw), raw[0].size, "keep fewer of them, or cut patches")
    factor = config.downsample or 1
    if recipe.asks_for_images(factor):
        shape = prepare(raw[0], factor, recipe).shape
        x = np.empty((len(raw), math.prod(shape)), dtype=np.float32)
        for i, image in enumerate(raw):
            x[i] = prepare(image, factor, recipe).ravel()
    else:
        raw = np.moveaxis(raw, -1, 1) if raw.ndim == 4 else raw[:, None] if raw.ndim == 3 else raw
        shape = raw.shape[1:]
        x = np.ascontiguousarray(raw, dtype=np.float32).reshape(len(raw), -1)
    _, overall = _moments(x, ~is_test)
    contrast = np.concatenate([x[rows].std(axis=1) for rows in _blocks(np.arange(len(x)), x.shape[1])])
    kept = contrast >= max(recipe.min_contrast * overall, np.finfo(np.float32).tiny)
    if not (~is_test & kept).any():
        raise ValueError(f"source {config.source!r}: no training stimulus has contrast")
    mean, std = _moments(x, ~is_test & kept)
    parts: dict[str, Any] = {"shape": shape}
    info: dict[str, Any] = {"pixel_mean": mean, "pixel_std": std, "contrast": []}
    synthetic = images.truth is not None  # exactly n and n_test were drawn
    sizes = {"train": None if synthetic else config.n, "test": None if synthetic else config.n_test}
    for k, (part, size) in enumerate(sizes.items()):
        mine = is_test == (part == "test")
        index = np.flatnonzero(mine & kept)
        if not 0 < (size or 1) <= len(index):
            raise ValueError(f"{size or 1:,} {part} stimuli requested, but source {config.source!r} has {len(index):,}")
        if size is not None:
            index = np.random.default_rng([config.seed, k]).choice(index, size=size, replace=False)
        parts[part] = x[index]
        for rows in _blocks(np.arange(len(index)), x.shape[1]) if recipe.zscore == "train" else []:
            parts[part][rows] = preprocess.zscore(parts[part][rows], mean, std)
        parts[f"{part}_group"] = index.astype(np.int64)
        info[f"{part}_counts"] = {"stimuli": int(mine.sum()), "admissible": int((mine & kept).sum())}
        if not kept[mine].all():
            info["contrast"].append(f"{part}: {int((mine & ~kept).sum()):,} stimuli without contrast are left out")
    return parts, info


def _blocks(index: np.ndarray, values: int) -> list[np.ndarray]:
    """`index` in blocks of at most about `BLOCK_VALUES` numbers, `values` per row."""
    return np.array_split(index, max(1, math.ceil(len(index) * values / BLOCK_VALUES)))


def _moments(x: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of all numbers in the rows that `rows` marks, computed in float64 by blocks."""
    blocks = _blocks(np.flatnonzero(rows), x.shape[1])
    count = int(rows.sum()) * x.shape[1]
    mean = sum(x[block].sum(dtype=np.float64) for block in blocks) / count
    square = sum(((x[block].astype(np.float64) - mean) ** 2).sum() for block in blocks)
    return float(mean), math.sqrt(square / count)


def _record(config: DataConfig, recipe: Recipe, images: Images) -> dict[str, Any]:
    """Facts about source and preparation for the record: values of built-in types only."""
    steps = []
    formula = f"R(f) = f exp(-(f / {preprocess.CUTOFF})^{preprocess.ORDER:g})"
    if recipe.published:
        steps.append(f"whitened as in the authors' program, {formula} at frequencies shifted by 0.5, periodic borders")
    elif recipe.whiten:
        steps.append(f"whitened, {formula}, mirrored borders")
    if recipe.normalise_contrast:
        size, std = preprocess.CONTRAST_SIZE, preprocess.CONTRAST_STD
        window = f"Gaussian window of {size} pixels, standard deviation {std:g} pixels"
        steps.append(f"local contrast normalised, {window}{', zeros around the image' if recipe.published else ''}")
    last = [f"border of {recipe.crop} pixels left out"] if recipe.crop else []
    if recipe.zscore == "train":
        last.append("z-score over all training images")
    elif recipe.zscore == "image":  # the published z-score comes before the border is left out
        last.insert(0 if recipe.published else len(last), "z-score over each image")
    steps += last
    return {
        "source": config.source,
        "config": config.model_dump(mode="json"),
        "recipe": asdict(recipe),
        "steps": steps or ["pixels as they are"],
        "images": list(images.names) if len(images.names) <= MAX_NAMES else [],
        "skipped": dict(images.skipped),
        "licence": images.licence,
        "citation": images.citation,
        "note": images.note,
    }
