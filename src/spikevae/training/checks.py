"""How much memory a stack of fits needs, and whether this machine has it."""

import math
from pathlib import Path

from ..models.build import build_model
from ..models.config import ModelConfig
from ..models.files import Unfilled, check_sizes
from ..networks import DEFAULT_HIDDEN

LIVE_TENSORS, LIVE_OUTPUTS = 16, 5
SQUARES = 6  # (K, K) arrays in float32 beside the moments while a decoder is solved, measured


def stack_bytes(config: ModelConfig, shape: tuple[int, ...], n_fits: int, *, steps: int | None = None) -> int:
    """Estimated memory of training `n_fits` such fits as one stack, without the data.

    Counts parameters four times (value, gradient, two moments), and per stimulus of the batch the arrays alive at
    the peak of forward and backward: `LIVE_TENSORS` as wide as the widest layer, `LIVE_OUTPUTS` of the pixels.
    """
    with Unfilled():
        model = build_model(config, shape)
    n_parameters = sum(p.numel() for p in model.parameters())
    widest = max(config.n_units, *(config.hidden or (0,)))
    if "conv" in config.networks:
        channels = config.hidden or DEFAULT_HIDDEN["conv"]
        widest = max(config.n_units, channels[0] * math.prod(shape[-2:]))
    solved = config.n_latents * (config.n_latents + math.prod(shape)) if config.solves_decoder else 0
    live = (
        config.batch_size * (steps or config.steps_in_graph) * (LIVE_TENSORS * widest + LIVE_OUTPUTS * math.prod(shape))
    )
    return 4 * n_fits * (4 * n_parameters + solved + live)


def check_memory(config: ModelConfig, shape: tuple[int, ...], n_fits: int, *, n_train: int | None = None) -> None:
    """Refuse fits that cannot be trained as one stack in the memory that this machine has left for them.

    Where the system does not say how much that is, only sizes are refused that no model file may have.

    Parameters
    ----------
    n_train
        Training stimuli, which must be in memory already; they bound a batch.

    Raises
    ------
    ValueError
        With the settings to lower and what they need.
    """
    check_sizes(shape, config)
    free = available_bytes()
    if free is None:
        return
    batch = min(config.batch_size, n_train or config.batch_size)
    need = stack_bytes(config.model_copy(update={"batch_size": batch}), shape, n_fits, steps=config.steps_kept)
    if config.solves_decoder or config.starts_at_limit:
        need += 4 * SQUARES * n_fits * config.n_latents**2
    if need > free:
        raise ValueError(
            f"training needs about {need / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free: lower n_latents "
            f"({config.n_latents}), hidden ({config.hidden}) or batch_size ({config.batch_size})"
        )


def available_bytes(table: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can take without swapping, as Linux estimates it; None elsewhere."""
    try:
        lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
