"""Newton's method for two parameters per unit, all units at once, with numerical derivatives."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

DIFFERENCE_STEP = 3e-4
"""Step of numerical derivatives, in units of the (logarithmic) parameters."""
MAX_ITERATIONS = 100
N_STEP_SIZES = 16
"""Step lengths 1, 1/2, 1/4, ... that the line search tries."""
MAX_LAST_MOVE = 1e-7
"""The iteration ends when no parameter moves by more than this."""
MIN_GAIN = 1e-9
"""Smallest gain in log likelihood, in nats, for which a step or a second parameter is accepted."""

LogLikelihood = Callable[[Tensor], Tensor]


def _derivatives(f: LogLikelihood, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value (U,), gradient (U, 2) and Hessian (U, 2, 2) by central differences."""
    moves = DIFFERENCE_STEP * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]], dtype=u.dtype)
    here, right, left, up, down, both, neither = (f(u + move) for move in moves)
    gradient = torch.stack([right - left, up - down], -1) / (2 * DIFFERENCE_STEP)
    xx, yy = right + left - 2 * here, up + down - 2 * here
    xy = 0.5 * (both + neither - right - left - up - down + 2 * here)
    hessian = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2) / DIFFERENCE_STEP**2
    return here, gradient, hessian


def maximise(f: LogLikelihood, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maximise the log likelihood of each unit by Newton's method with a line search.

    Each step takes the best of `N_STEP_SIZES` step lengths, from the whole Newton step to 2^-15 of it. Eigenvalues of
    the Hessian are replaced with their absolute values, so that every step is a direction of ascent.

    Parameters
    ----------
    f
        Log likelihoods (U,) of parameters (U, 2).
    u
        (U, 2) initial parameters.

    Returns
    -------
    u, value, hessian
        (U, 2) parameters, (U,) log likelihoods and (U, 2, 2) Hessians at the maximum.
    """
    lengths = 0.5 ** torch.arange(N_STEP_SIZES, dtype=u.dtype)
    for _ in range(MAX_ITERATIONS):
        here, gradient, hessian = _derivatives(f, u)
        size, axes = torch.linalg.eigh(-hessian)
        size = size.abs().clamp_min(1e-6 * size.abs().amax(-1, keepdim=True)).clamp_min(1e-12)
        step = (axes @ ((axes.mT @ gradient[..., None]) / size[..., None])).squeeze(-1)
        step = step / (step.abs().amax(-1, keepdim=True) / 2).clamp_min(1.0)  # same direction, shorter
        tried = torch.stack([f(u + s * step) for s in lengths]).nan_to_num(nan=-math.inf)
        best, place = tried.max(0)
        moved = torch.where((best > here + MIN_GAIN)[:, None], lengths[place][:, None] * step, 0.0)
        u = u + moved
        if float(moved.abs().max()) < MAX_LAST_MOVE:
            break
    here, _, hessian = _derivatives(f, u)
    return u, here, hessian


def standard_errors(natural: Callable[[Tensor], Tensor], u: Tensor, hessian: Tensor) -> Tensor:
    """Standard errors (U, Q) of functions of the parameters by the delta method.

    They are NaN where the observed information is not positive definite.
    """
    columns = []
    for axis in range(2):
        move = DIFFERENCE_STEP * torch.eye(2, dtype=u.dtype)[axis]
        columns.append((natural(u + move) - natural(u - move)) / (2 * DIFFERENCE_STEP))
    slope = torch.stack(columns, -1)
    positive = torch.linalg.eigvalsh(-hessian)[:, 0] > 0
    information = torch.where(positive[:, None, None], -hessian, torch.eye(2, dtype=u.dtype))
    variance = (slope @ torch.linalg.inv(information) * slope).sum(-1)
    return torch.where(positive[:, None], variance.clamp_min(0).sqrt(), math.nan)
