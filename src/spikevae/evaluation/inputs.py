"""Stimuli that evaluations are given."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import plain


def checked(x: Any, n_features: int) -> Tensor:
    """Stimuli (m, D) as a tensor; refuses another shape and values that are not finite."""
    stimuli = (
        x if isinstance(x, Tensor) and x.layout == torch.strided else torch.tensor(np.asarray(plain(x, "stimuli")))
    )
    if stimuli.ndim != 2 or stimuli.shape[1] != n_features or not len(stimuli):
        raise ValueError(
            f"stimuli have shape {tuple(stimuli.shape)}; expected (m, {n_features}), with one or more rows"
        )
    if not stimuli.isfinite().all():
        raise ValueError("stimuli contain NaN or infinite values; drop or fill these rows first")
    return stimuli
