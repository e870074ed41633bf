"""Networks of features with a linear head, and checks of targets and settings, for regression."""

import copy
import math
import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from torch import Tensor, nn

from .._arrays import plain
from ..networks import MLP


class Network(nn.Module):
    """Features by a module, and a linear head."""

    def __init__(self, body: nn.Module, width: int, n_out: int, noise: torch.Generator) -> None:
        super().__init__()
        self.body = body
        self.head = nn.utils.skip_init(nn.Linear, width, n_out)
        with torch.no_grad():
            self.head.weight.normal_(0.0, 1 / math.sqrt(width), generator=noise)
            self.head.bias.zero_()

    def forward(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n out"]:
        return self.head(self.body(x))


class Standardised(nn.Module):
    """A module of inputs with mean 0 and variance 1 in every column that is not constant."""

    mean: Tensor
    scale: Tensor

    def __init__(self, module: nn.Module, x: Float[Tensor, "n D"]) -> None:
        super().__init__()
        self.module = module
        scale = x.std(0, correction=0)
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("scale", torch.where(scale > 0, scale, torch.ones_like(scale)))

    def forward(self, x: Float[Tensor, "n D"]) -> Tensor:
        return self.module((x - self.mean) / self.scale)


def build_network(
    module: Any, hidden: tuple[int, ...], x: NDArray[Any], n_out: int, noise: torch.Generator
) -> nn.Module:
    """A network from (n, D) inputs to (n, n_out), with its initial weights, in evaluation mode.

    Parameters
    ----------
    module
        From inputs to features, copied with its weights; None: an MLP of standardised inputs.
    hidden
        Widths of the hidden layers of the MLP.
    x
        (n, D) inputs of the training set.
    n_out
        Outputs of the linear head.
    noise
        Draws initial weights.

    Raises
    ------
    TypeError, ValueError
        For what is no module, or does not give features of these inputs.
    """
    if module is None:
        like = torch.tensor(x, dtype=torch.float32)
        return Standardised(MLP(x.shape[1], n_out, hidden, True, noise), like).eval()
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is {type(module).__name__}; give a torch.nn.Module, or None for an MLP")
    body = copy.deepcopy(module).cpu().eval()
    like = torch.tensor(x[:2], dtype=next((p.dtype for p in body.parameters()), torch.float32))
    return Network(body, features(body, like), n_out, noise).to(like.dtype).eval()


def features(module: nn.Module, x: Float[Tensor, "n D"]) -> int:
    """Number of features that a module gives; `ValueError` where it cannot be run."""
    try:
        with torch.no_grad():
            found: Any = module(x)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"module cannot be run for X of shape (n, {x.shape[1]}): {first}") from error
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"module gave {what} for X of shape {tuple(x.shape)}; it must give (n, H) features")
    return found.shape[1]


def checked_targets(y: Any, n: int) -> NDArray[np.float64]:
    """(n,) finite targets."""
    if y is None:
        raise ValueError("this estimator requires y to be passed, but the target y is None")
    try:
        target = np.asarray(plain(y, "y"))
        target = target if target.dtype.kind in "buif" else target.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"y cannot be read as numbers: {str(error).splitlines()[0]}") from None
    if target.shape == (n, 1):
        text = "A column-vector y was passed when a 1d array was expected: give y.ravel()"
        warnings.warn(text, DataConversionWarning, stacklevel=4)
        target = target[:, 0]
    if target.ndim != 1:
        raise ValueError(f"y has shape {target.shape}; give (n,), one number for each row of X")
    if len(target) != n:
        raise ValueError(f"X has {n} rows, but y has {len(target)}: give one y for each row of X")
    if n == 1:
        raise ValueError("X has 1 sample: give two rows or more")
    bad = np.flatnonzero(~np.isfinite(target))
    if len(bad):
        raise ValueError(
            f"y has NaN or infinity in {len(bad)} of {n} rows, the first of them row {bad[0]}: leave these rows out"
        )
    return target.astype(np.float64)
