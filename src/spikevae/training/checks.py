"""How much memory a stack of fits needs, and whether this machine has that much."""

import math

from .._machine import available_bytes
from ..models.build import build_model
from ..models.config import ModelConfig
from ..models.files import Unfilled, check_sizes
from ..networks import DEFAULT_HIDDEN

LIVE_TENSORS, LIVE_OUTPUTS = 16, 5  # arrays of one stimulus at the peak: of units, and of pixels
N_SQUARE_ARRAYS = 6  # (K, K) arrays in float32, beside the moments, while the decoder is solved; measured


def stack_bytes(config: ModelConfig, shape: tuple[int, ...], n_fits: int, *, steps: int | None = None) -> int:
    """Estimated bytes for training `n_fits` such fits as one stack, without the data.

    Parameters count four times (value, gradient, two moments), and once more where those with the lowest objective on
    held-out stimuli are kept. Per stimulus of the batch, the peak of forward and
    backward pass has `LIVE_TENSORS` arrays as wide as the widest layer and `LIVE_OUTPUTS` arrays of pixels.
    """
    with Unfilled():
        model = build_model(config, shape)
    n_parameters = sum(p.numel() for p in model.parameters())
    widest = max(config.n_units, *(config.hidden or (0,)))
    if "conv" in config.networks:
        channels = config.hidden or DEFAULT_HIDDEN["conv"]
        widest = max(config.n_units, channels[0] * math.prod(shape[-2:]))
    solved = config.n_latents * (config.n_latents + math.prod(shape)) if config.keeps_moments else 0
    live = (
        config.batch_size
        * config.n_decoded
        * (steps or config.steps_in_graph)
        * (LIVE_TENSORS * widest + LIVE_OUTPUTS * math.prod(shape))
    )
    copies = 5 if config.validation_fraction else 4
    return 4 * n_fits * (copies * n_parameters + solved + live)


def check_memory(config: ModelConfig, shape: tuple[int, ...], n_fits: int, *, n_train: int | None = None) -> None:
    """Refuse fits that cannot be trained as one stack in the free memory of this machine.

    Where the free memory is unknown, only sizes beyond those of any model file are refused.

    Parameters
    ----------
    n_train
        Number of training stimuli, which are in memory already; a batch is never larger.

    Raises
    ------
    ValueError
        With the memory that is needed and the settings to lower.
    """
    check_sizes(shape, config)
    free = available_bytes()
    if free is None:
        return
    need = needed_bytes(config, shape, n_fits, n_train=n_train)
    if need > free:
        raise ValueError(
            f"training needs about {need / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free: lower n_latents "
            f"({config.n_latents}), hidden ({config.hidden}) or batch_size ({config.batch_size})"
        )


def needed_bytes(config: ModelConfig, shape: tuple[int, ...], n_fits: int, *, n_train: int | None = None) -> int:
    """Estimated bytes for training such fits as one stack: `stack_bytes` of the batches that there are, and what the
    solution for the decoder takes."""
    batch = min(config.batch_size, n_train or config.batch_size)
    need = stack_bytes(config.model_copy(update={"batch_size": batch}), shape, n_fits, steps=config.steps_kept)
    if config.solves_decoder or config.starts_at_limit:
        need += 4 * N_SQUARE_ARRAYS * n_fits * config.n_latents**2
    return need
