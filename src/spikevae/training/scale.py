"""Whether stimuli are of a size that the noise of the pixels suits: a free energy is in nats only against a noise."""

import warnings

from torch import Tensor

from ..models.config import ModelConfig

LOWEST, HIGHEST = 0.05, 20.0
"""Root mean square of the stimuli over the standard deviation of the noise that is usual; photographs here have 1.4."""


def scale_note(config: ModelConfig, train: Tensor) -> str:
    """What to mend where the stimuli are far larger or smaller than the noise of the pixels, else an empty text.

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
    if not size > 0 or LOWEST <= ratio <= HIGHEST:
        return ""
    follows = "little of them will be coded" if ratio < 1 else "codes will be huge, or training diverge"
    return (
        f"the stimuli have root mean square {size:.3g}, {ratio:.3g} times the standard deviation of the pixel noise: "
        f"{follows}. Scale them to unit variance, or set noise_variance"
    )


def warn_of_scale(config: ModelConfig, train: Tensor) -> None:
    """Warn with :func:`scale_note`, where there is something to mend."""
    note = scale_note(config, train)
    if note:
        warnings.warn(note, stacklevel=3)
