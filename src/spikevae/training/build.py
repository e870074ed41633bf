"""The kind of stack that trains each kind of model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._scope import own_scope
from ..models.config import ModelConfig
from ..models.own import Given
from ..progress import OnPhase, silent
from .dictionary import DictionaryStack
from .fits import FitStack
from .rows import Rows
from .stack import Stack

STACKS: dict[str, type[FitStack]] = {"gradients": Stack, "dictionary": DictionaryStack}
"""Classes of stacks by the `trainer` of a configuration."""


@own_scope()
def build_stack(
    configs: Sequence[ModelConfig],
    train: Tensor | Rows,
    shape: tuple[int, ...],
    *,
    device: torch.device | str = "cpu",
    window: int | None = None,
    modules: Mapping[str, Given] | None = None,
    on_phase: OnPhase = silent,
) -> FitStack:
    """Fits that start, with the kind of training that their configurations name.

    Parameters
    ----------
    configs
        Fits whose `stack_key` agree.
    train
        (n, D) stimuli, float32 or float64, or :class:`Rows` that are read by batch.
    shape
        Stimulus shape: (D,), or (C, H, W) for convolutions.
    window
        Steps over which the history is averaged; None: a fortieth of all steps, at most 50.
    modules
        The user's own networks where configurations say "own", as for :func:`spikevae.models.build_model`: fits of one
        stack have copies of a module, and makers are called once per fit, seeded by its `seed`.
    on_phase
        Called with what is done next, where it may take over two seconds.
    """
    own: dict[str, Any] = {"modules": modules} if modules else {}
    return STACKS[configs[0].trainer](configs, train, shape, device=device, window=window, on_phase=on_phase, **own)
