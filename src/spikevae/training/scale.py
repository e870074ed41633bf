"""Whether the scale of the stimuli suits the noise of the pixels, against which the free energy is measured in nats."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..models.config import ModelConfig

MAX_SCALE_RATIO = 10.0
"""Ratio of the root mean squares of stimuli and of training stimuli beyond which they are taken to be prepared
otherwise: bytes and pixels in [0, 1] differ by 255."""
ROWS_AT_ONCE = 1024
MIN_RATIO, MAX_RATIO = 0.05, 20.0
"""Usual range of the stimuli's root mean square over the noise's standard deviation; photographs here have 1.4."""


def scale_note(config: ModelConfig, train: Tensor) -> str:
    """The warning where stimuli are far larger or smaller than the noise of the pixels, else an empty text.

    Examples
    --------
    >>> import torch
    >>> from spikevae.config import FitConfig
    >>> scale_note(FitConfig.from_recipe(), 255 * torch.ones(10, 4)).split(":")[0]
    'the stimuli have root mean square 255, 361 times the standard deviation of the pixel noise'
    """
    if config.likelihood != "gaussian" or config.noise_variance == "learned":
        return ""
    size = float(train.square().mean().sqrt())
    ratio = size / float(config.noise_variance) ** 0.5
    if not size > 0 or MIN_RATIO <= ratio <= MAX_RATIO:
        return ""
    effect = "little of them will be coded" if ratio < 1 else "codes will be huge, or training will diverge"
    return (
        f"the stimuli have root mean square {size:.3g}, {ratio:.3g} times the standard deviation of the pixel noise: "
        f"{effect}. Scale them to unit variance, or set noise_variance"
    )


def warn_of_scale(config: ModelConfig, train: Tensor) -> None:
    """Warn with the text of :func:`scale_note`, if it is not empty."""
    note = scale_note(config, train)
    if note:
        warnings.warn(note, stacklevel=3)


def root_mean_square(x: NDArray[Any]) -> float:
    """Root mean square of all entries of (n, D) numbers, in float64 and batch by batch."""
    total = sum(
        float(np.square(x[i : i + ROWS_AT_ONCE], dtype=np.float64).sum()) for i in range(0, len(x), ROWS_AT_ONCE)
    )
    return float(np.sqrt(total / max(x.size, 1)))


def warn_of_other_scale(x: NDArray[Any], trained: Any) -> None:
    """Warn where stimuli are far larger or smaller than those of training: they may be prepared otherwise.

    Parameters
    ----------
    x
        (n, D) stimuli.
    trained
        Root mean square of the training stimuli, as files have it; anything but a positive number is not known.
    """
    size = root_mean_square(x)
    known = isinstance(trained, int | float) and trained > 0
    if not known or not size or 1 / MAX_SCALE_RATIO <= size / trained <= MAX_SCALE_RATIO:
        return
    warnings.warn(
        f"X has root mean square {size:.3g}, the training stimuli had {trained:.3g}: prepare X as they were prepared",
        stacklevel=5,
    )
