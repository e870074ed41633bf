"""`PatchSet`: training and test stimuli with a record of their origin."""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

NOISE_VARIANCE = 0.5  # of a pixel: the default of fits, with which the squared error is in nats
BLOCK_VALUES = 1 << 24  # numbers per block when moments are computed


@dataclass(frozen=True, repr=False)
class PatchSet:
    """Stimuli split by image into a training and a test set.

    Attributes
    ----------
    train, test
        float32 arrays of shape (n, D) and (m, D); D is the product of `shape`.
    shape
        (C, H, W) of one stimulus, or (D,) if it is not an image.
    train_group, test_group
        int64 arrays of shape (n,) and (m,): index of the image that each stimulus comes from, among all images of the
        source (`info["images"]` has their names).
    train_labels, test_labels
        int64 arrays of shape (n,) and (m,), or None.
    name
        The source as given.
    info
        Licence, citation, every preprocessing step, image names, counts: values that JSON can represent.
    truth
        For a synthetic set: `dictionary` (K, D), `firing_rates` (K,) and `codes`, whose row `train_group[i]` is that of
        training stimulus i; None otherwise.
    """

    train: np.ndarray
    test: np.ndarray
    shape: tuple[int, ...]
    train_group: np.ndarray
    test_group: np.ndarray
    name: str
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        d = int(np.prod(self.shape))
        for part in ("train", "test"):
            x, group = getattr(self, part), getattr(self, f"{part}_group")
            if x.ndim != 2 or x.shape[1] != d:
                raise ValueError(f"PatchSet.{part} has shape {x.shape}; with shape={self.shape} it must be (n, {d})")
            if len(group) != len(x):
                raise ValueError(f"PatchSet.{part}_group has {len(group)} entries for {len(x)} stimuli")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the stimuli, training and test."""
        found = hashlib.sha256(repr((self.train.shape, self.test.shape)).encode())
        for part in (self.train, self.test):
            found.update(np.ascontiguousarray(part, dtype=np.float32).data)
        return found.hexdigest()

    @cached_property
    def variance(self) -> dict[str, dict[str, float]]:
        """For `train` and `test`: `total`, the sum of the variances of all pixels over the stimuli, and `over_noise`.

        `over_noise` is the total over that of the pixel noise, D / 2 for D pixels with the default noise variance 1/2:
        the signal-to-noise ratio of the mean pixel. It sets how much of the stimuli is worth coding.
        """
        totals = {part: total_variance(getattr(self, part)) for part in ("train", "test")}
        noise = NOISE_VARIANCE * self.train.shape[1]
        return {part: {"total": total, "over_noise": total / noise} for part, total in totals.items()}

    def __repr__(self) -> str:
        return f"PatchSet({self.name!r}, train={self.train.shape}, test={self.test.shape}, shape={self.shape})"

    def describe(self) -> str:
        """A description of the set as text: sizes, split, preprocessing, contrast, licence and citation."""
        info, lines = self.info, []
        size = " x ".join(str(s) for s in self.shape)
        lines.append(f"{self.name}: {len(self.train):,} training and {len(self.test):,} test stimuli of {size}")
        for part in ("train", "test"):
            images = info.get(f"{part}_images", [])
            if images:
                lines.append(f"  {part:<5} images ({len(images)}): {shorten(images)}")
        smaller = [f"{name} ({k} x)" for name, k in info.get("downsample", {}).items() if k > 1]
        if smaller:
            lines.append(f"  made smaller first: {shorten(smaller)}")
        for part, v in self.variance.items():
            sum_of = f"variances of {self.train.shape[1]:,} pixels sum to {v['total']:.4g}"
            lines.append(
                f"  variance: {part}: {sum_of}, {v['over_noise']:.3g} times those of pixel noise of variance 1/2"
            )
        for title, key in (("prepared", "steps"), ("contrast", "contrast"), ("overlap", "overlap")):
            lines += [f"  {title}: {text}" for text in info.get(key, [])]
        if info.get("skipped"):
            skipped = [f"{name}: {why}" for name, why in info["skipped"].items()]
            lines.append(f"  left out ({len(skipped)}): {shorten(skipped)}")
        lines += [f"  {key}: {info[key]}" for key in ("note", "licence", "citation") if info.get(key)]
        return "\n".join(lines)


def total_variance(x: np.ndarray) -> float:
    """Sum over columns of the variance over rows of an (n, D) array, computed in float64 by blocks.

    Examples
    --------
    >>> total_variance(np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 4.0]]))  # 2 / 3 + 2
    2.6666666666666665
    """
    if not len(x):
        return math.nan
    mean = x.mean(axis=0, dtype=np.float64)
    rows = max(1, BLOCK_VALUES // max(1, x.shape[1]))
    blocks = (x[i : i + rows] for i in range(0, len(x), rows))
    return float(sum(((block - mean) ** 2).sum() for block in blocks) / len(x))


def shorten(words: list[str], most: int = 8) -> str:
    """The first `most` words, and how many more there are."""
    more = f", and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
