"""Whether the scale of the stimuli suits the noise of the pixels, against which the free energy is measured in nats."""

import warnings

from torch import Tensor

from ..models.config import ModelConfig

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
