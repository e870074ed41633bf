"""Stimuli as one picture of tiles."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(C, H, W) to show a stimulus as, or None: flat stimuli of a square number of pixels are shown as squares."""
    if len(shape) == 3 and shape[0] in (1, 3):
        return (shape[0], shape[1], shape[2])
    side = math.isqrt(math.prod(shape))
    return (1, side, side) if len(shape) == 1 and side * side == shape[0] and side > 1 else None


def shown_as(shape: tuple[int, ...], given: tuple[int, ...] | None) -> tuple[int, int, int]:
    """(C, H, W) to show a stimulus of this shape as: the shape given, or its own.

    Raises
    ------
    ValueError
        Where it is no image, or the shape given has another number of pixels.
    """
    if given is not None and not (isinstance(given, Sequence) and len(given) in (2, 3)):
        raise ValueError(f"shape is {given!r:.80}; give (H, W), or (C, H, W) with one or three channels")
    wanted = shape if given is None else tuple(given) if len(given) == 3 else (1, *given)
    found = image_shape(wanted)
    if found is None or math.prod(found) != math.prod(shape):
        raise ValueError(
            f"stimuli of shape {shape} are no images"
            + (f" of shape {given}" if given is not None else "")
            + f": give shape=(H, W), or (C, H, W) with one or three channels, of {math.prod(shape)} numbers"
        )
    return found


def mosaic(rows: np.ndarray, shape: tuple[int, int, int], columns: int, limit: float | None) -> np.ndarray:
    """Tile stimuli (n, D) into a picture (height, width) or (height, width, 3) of bytes, a pixel for each of theirs.

    Zero is mid-grey; tiles have a white line between them.

    Parameters
    ----------
    limit
        Value shown white (and its negative black); None scales every tile to its own largest magnitude.
    """
    channels, height, width = shape
    top = np.abs(rows).max(axis=1, keepdims=True) if limit is None else np.full((len(rows), 1), limit)
    scaled = np.nan_to_num(rows / np.where(top > 0, top, 1.0))
    tiles = np.clip(127.5 + 127.5 * scaled, 0, 255).astype(np.uint8).reshape(len(rows), channels, height, width)
    n_rows = -(-len(rows) // columns)
    sheet = np.full((n_rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = 1 + (i // columns) * (height + 1), 1 + (i % columns) * (width + 1)
        sheet[y : y + height, x : x + width] = tile.transpose(1, 2, 0)
    return sheet[..., 0] if channels == 1 else sheet


def full_rows(n: int) -> int:
    """Columns of a mosaic about twice as wide as tall, with a full last row if n has a fitting divisor."""
    wish = min(16.0, math.sqrt(2 * n))
    fitting = [c for c in range(1, 21) if n % c == 0 and 0.6 * wish <= c <= 1.7 * wish]
    return min(fitting, key=lambda c: abs(c - wish)) if fitting else max(1, math.ceil(wish))


def most_used(atoms: np.ndarray, use: np.ndarray | None, most: int) -> np.ndarray:
    """The `most` atoms (K, D) of largest use (K,), largest first; the first ones without a use."""
    order = np.arange(len(atoms)) if use is None else np.argsort(-use, kind="stable")
    return atoms[order[:most]]


def show(ax: Any, sheet: np.ndarray) -> None:
    """A mosaic on axes, without ticks and frame."""
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if sheet.ndim == 2 else {}
    ax.imshow(sheet, interpolation="nearest", **grey)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
