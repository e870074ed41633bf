r"""Sequences of frames for iterative inference: static, jittered, rotated stimuli, drifting gratings, moving bars.

Every function returns an iterator that makes one frame (n, D) at a time, so that a sequence may have any length;
``torch.stack(list(frames))`` is the array (frames, n, D). Angles are those of :mod:`spikevae.metrics.dictionary`: the
direction in which luminance changes, from the column axis towards rising rows, in radians. Functions that draw take
a `torch.Generator`.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

Frames = Iterator[Tensor]
"""Frames (n, D), float32, one after another."""
Number = float | Tensor
"""One number for all stimuli, or one per stimulus, (n,)."""


def image_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of stimuli of this shape; D pixels are a square image if D is a square number.

    Raises
    ------
    ValueError
        If stimuli of this shape are not images.

    Examples
    --------
    >>> image_size((144,)), image_size((3, 8, 10))
    ((1, 12, 12), (3, 8, 10))
    """
    if len(shape) == 1 and shape[0] > 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return 1, math.isqrt(shape[0]), math.isqrt(shape[0])
    if len(shape) in (2, 3) and min(shape) > 0:
        return shape[0] if len(shape) == 3 else 1, shape[-2], shape[-1]
    raise ValueError(f"stimuli of shape {shape} are no images: give (H, W), (C, H, W) or a square number of pixels")


def static(x: Any, frames: int) -> Frames:
    """The same stimuli (n, D) again and again.

    Examples
    --------
    >>> torch.stack(list(static(np.ones((2, 4)), 3))).shape
    torch.Size([3, 2, 4])
    """
    _check(frames)
    still = _float(x)
    return (still for _ in range(frames))


def jitter(
    x: Any,
    shape: tuple[int, ...],
    frames: int,
    *,
    patch: int,
    diffusion: float = 0.5,
    harmonic: float = 0.01,
    generator: torch.Generator,
) -> Frames:
    """A random walk of a window over larger stimuli, like the drift of gaze between saccades.

    The window starts at the centre. At each frame its position is reduced by the fraction `harmonic` and changed by a
    Gaussian step; it stays inside the stimulus. Luminance is interpolated bilinearly.

    Parameters
    ----------
    x, shape
        Stimuli (n, D) of shape (H, W) or (C, H, W), larger than the window.
    frames
        Number of frames.
    patch
        Side of the window, pixels.
    diffusion
        Standard deviation of a step along each axis, pixels per frame.
    harmonic
        Fraction of the distance to the centre by which the position is reduced, per frame.

    References
    ----------
    Method and its two constants for 16-pixel windows: Vafaii, Galor and Yates (2025), arXiv 2410.19315.

    Examples
    --------
    >>> walk = jitter(np.ones((2, 64)), (8, 8), 5, patch=4, generator=torch.Generator().manual_seed(0))
    >>> torch.stack(list(walk)).shape
    torch.Size([5, 2, 16])
    """
    images = _images(x, shape, patch)
    _check(frames)
    if not (diffusion >= 0 and 0 <= harmonic <= 1):
        raise ValueError(f"diffusion={diffusion}, harmonic={harmonic}: give diffusion >= 0 and harmonic from 0 to 1")
    max_shift = torch.tensor([(side - patch) / 2 for side in images.shape[-2:]])

    def walk() -> Frames:
        shift = torch.zeros(len(images), 2)
        rows, columns = _coordinates((patch, patch))
        for _ in range(frames):
            yield _sample(images, rows + shift[:, :1, None], columns + shift[:, 1:, None])
            step = diffusion * torch.randn(shift.shape, generator=generator)
            shift = ((1 - harmonic) * shift + step).clamp(-max_shift, max_shift)

    return walk()


def rotate(
    x: Any,
    shape: tuple[int, ...],
    frames: int,
    *,
    patch: int | None = None,
    degrees: float = 8.0,
    generator: torch.Generator | None = None,
) -> Frames:
    """Stimuli that rotate about their centre, bilinearly interpolated; pixels outside them are zero.

    Parameters
    ----------
    x, shape
        Stimuli (n, D) of shape (H, W) or (C, H, W).
    frames
        Number of frames.
    patch
        Side of the window that is cut out of the rotated stimulus, pixels; if not given, whole stimuli, which must be
        square. A window inside their inscribed circle has no empty corners.
    degrees
        Rotation per frame, from the column axis towards rising rows.
    generator
        Draws one initial angle per stimulus, uniform over the circle; if not given, the first frame is not rotated.

    References
    ----------
    Method and its 8 degrees: Vafaii, Galor and Yates (2025), arXiv 2410.19315.

    Examples
    --------
    >>> quarter = list(rotate([[1.0, 2.0, 3.0, 4.0]], (2, 2), 2, degrees=90.0))[1]
    >>> (quarter + 0).round().tolist()
    [[3.0, 1.0, 4.0, 2.0]]
    """
    _, height, width = image_size(shape)
    if patch is None and height != width:
        raise ValueError(f"stimuli of {height} x {width} pixels are not square; give patch")
    if not math.isfinite(degrees):
        raise ValueError(f"degrees={degrees}: give a finite rotation")
    images = _images(x, shape, height if patch is None else patch)
    _check(frames)

    def turn() -> Frames:
        rows, columns = _coordinates((height, width) if patch is None else (patch, patch))
        initial = torch.zeros(len(images), 1, 1)
        if generator is not None:
            initial = 2 * math.pi * torch.rand(initial.shape, generator=generator)
        for frame in range(frames):
            angle = initial + math.radians(frame * degrees)
            cos, sin = angle.cos(), angle.sin()
            yield _sample(images, cos * rows - sin * columns, sin * rows + cos * columns)

    return turn()


def grating(
    shape: tuple[int, ...],
    frames: int,
    *,
    orientation: Number,
    spatial_frequency: Number,
    temporal_frequency: Number = 1 / 32,
    contrast: Number = 1.0,
    phase: Number = 0.0,
) -> Frames:
    r"""Drifting sinusoidal gratings, ``contrast cos(2 pi (f u - w t) + phase)``, u along the wave vector, centred.

    Parameters
    ----------
    shape
        (H, W) or (C, H, W); all channels show the same.
    frames
        Number of frames.
    orientation
        Direction of the wave vector, in which the grating drifts, radians.
    spatial_frequency
        f, cycles per pixel.
    temporal_frequency
        w, cycles per frame.
    contrast
        Amplitude in the units of the pixels (standard deviations, if stimuli have standard deviation one).
    phase
        Phase at the centre of the first frame, radians.

    Examples
    --------
    >>> frames = grating((1, 8, 8), 4, orientation=torch.tensor([0.0, 1.57]), spatial_frequency=0.125)
    >>> torch.stack(list(frames)).shape
    torch.Size([4, 2, 64])
    """
    _check(frames)
    channels, rows, columns = _pixels(shape)
    angle, f, w, c, start = _columns(
        orientation=orientation,
        spatial_frequency=spatial_frequency,
        temporal_frequency=temporal_frequency,
        contrast=contrast,
        phase=phase,
    )
    along = angle.cos() * columns + angle.sin() * rows  # (n, H W), double: phases stay exact over long streams
    wave = 2 * math.pi * f * along + start
    even, odd = (c * wave.cos()).float(), (c * wave.sin()).float()

    def drift() -> Frames:
        for frame in range(frames):
            advance = 2 * math.pi * torch.remainder(w * frame, 1.0)
            yield _repeat_channels(even * advance.cos().float() + odd * advance.sin().float(), channels)

    return drift()


def bar(
    shape: tuple[int, ...],
    frames: int,
    *,
    orientation: Number,
    width: Number,
    speed: Number,
    contrast: Number = 1.0,
) -> Frames:
    """Bright bars, longer than the stimulus, that sweep over it and pass its centre in the middle of the sequence.

    Parameters
    ----------
    shape
        (H, W) or (C, H, W); all channels show the same.
    frames
        Number of frames.
    orientation
        Direction of motion, across the bar, radians: a grating with this `orientation` is parallel to the bar.
    width
        Width of the bar, pixels. Pixels that it covers in part have a part of its luminance.
    speed
        Pixels per frame.
    contrast
        Luminance of the bar in the units of the pixels; the background is zero.

    Examples
    --------
    >>> frames = bar((1, 4), 3, orientation=0.0, width=1.0, speed=1.0)
    >>> [frame.tolist() for frame in frames]
    [[[0.5, 0.5, 0.0, 0.0]], [[0.0, 0.5, 0.5, 0.0]], [[0.0, 0.0, 0.5, 0.5]]]
    """
    _check(frames)
    channels, rows, columns = _pixels(shape)
    angle, widths, speeds, luminance = _columns(orientation=orientation, width=width, speed=speed, contrast=contrast)
    if not (widths > 0).all():
        raise ValueError(f"width={width}: give a positive width")
    along = angle.cos() * columns + angle.sin() * rows

    def sweep() -> Frames:
        for frame in range(frames):
            position = speeds * (frame - (frames - 1) / 2)
            covered = (0.5 * (widths + 1) - (along - position).abs()).clamp_min(0).minimum(widths.clamp_max(1.0))
            yield _repeat_channels((luminance * covered).float(), channels)

    return sweep()


def _check(frames: int) -> None:
    if frames < 1:
        raise ValueError(f"frames={frames}: a sequence has one frame or more")


def _float(x: Any) -> Tensor:
    return x.float() if isinstance(x, Tensor) else torch.tensor(np.asarray(x), dtype=torch.float32)


def _images(x: Any, shape: tuple[int, ...], patch: int) -> Tensor:
    """Stimuli as (n, C, H, W), checked to be as large as the window."""
    channels, height, width = image_size(shape)
    flat = _float(x)
    if flat.ndim != 2 or flat.shape[1] != channels * height * width:
        raise ValueError(f"stimuli have shape {tuple(flat.shape)}; with shape={shape} give (n, {math.prod(shape)})")
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch={patch}: a window of 1 to {min(height, width)} pixels fits stimuli of shape {shape}")
    return flat.reshape(-1, channels, height, width)


def _coordinates(sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row (H, 1) and column (1, W) coordinates of pixels, from the centre."""
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in sides)
    return rows[:, None], columns[None, :]


def _sample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, D) luminance at coordinates from the centre, (n, H, W) after broadcasting; zero outside."""
    rows, columns = torch.broadcast_tensors(rows, columns)
    # grid_sample counts from -1 to 1 between the centres of the outermost pixels, columns first.
    height, width = (max(side - 1, 1) / 2 for side in images.shape[-2:])
    grid = torch.stack([columns / width, rows / height], -1).expand(len(images), -1, -1, -1)
    return torch.nn.functional.grid_sample(images, grid, align_corners=True).flatten(1)


def _pixels(shape: tuple[int, ...]) -> tuple[int, Tensor, Tensor]:
    """Channels; row and column of each pixel from the centre, (1, H W), double."""
    channels, height, width = image_size(shape)
    rows, columns = torch.broadcast_tensors(*_coordinates((height, width)))
    return channels, rows.reshape(1, -1).double(), columns.reshape(1, -1).double()


def _columns(**numbers: Number) -> list[Tensor]:
    """Numbers as (n, 1) columns of one length.

    Raises
    ------
    ValueError
        With the name of what is not finite or not (n,).
    """
    columns = {name: torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1) for name, value in numbers.items()}
    n = max(len(column) for column in columns.values())
    for name, column in columns.items():
        if len(column) not in (1, n) or not column.isfinite().all():
            raise ValueError(f"{name} has {len(column)} values for {n} stimuli; give one or {n} finite numbers")
    return [column.expand(n, 1) for column in columns.values()]


def _repeat_channels(grey: Tensor, channels: int) -> Tensor:
    return grey if channels == 1 else grey.repeat(1, channels)
