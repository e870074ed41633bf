"""Thresholding functions of sparse coding, each with its conditions of optimality and its penalty."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

SparsityWeight: TypeAlias = float | Tensor
"""One number, or (K,) one per unit."""


def _soft(u: Tensor, weight: SparsityWeight) -> Tensor:
    return u.sign() * (u.abs() - weight).clamp_min(0.0)


def _soft_violation(code: Tensor, gradient: Tensor, weight: SparsityWeight) -> Tensor:
    at_zero = (gradient.abs() - weight).clamp_min(0.0)
    return torch.where(code != 0, (gradient + weight * code.sign()).abs(), at_zero)


def _rectified(u: Tensor, weight: SparsityWeight) -> Tensor:
    return (u - weight).clamp_min(0.0)


def _rectified_violation(code: Tensor, gradient: Tensor, weight: SparsityWeight) -> Tensor:
    derivative = gradient + weight
    return torch.where(code > 0, derivative.abs(), (-derivative).clamp_min(0.0))


def _hard(u: Tensor, weight: SparsityWeight) -> Tensor:
    return torch.where(u.abs() > weight, u, 0.0)


def _hard_violation(code: Tensor, gradient: Tensor, weight: SparsityWeight) -> Tensor:
    return torch.where(code != 0, gradient.abs(), (gradient.abs() - weight).clamp_min(0.0))


class Threshold(NamedTuple):
    """A thresholding function and the problem that it solves."""

    apply: Callable[[Tensor, SparsityWeight], Tensor]
    """(u, sparsity weight) -> thresholded u."""
    violation: Callable[[Tensor, Tensor, SparsityWeight], Tensor]
    """(code, gradient of the squared error / 2, sparsity weight) -> violation of the conditions of optimality, of the
    shape of the code."""
    cost: Callable[[Tensor, SparsityWeight], Tensor]
    """(code of unit-norm atoms, sparsity weight) -> penalty of each entry of the code."""


THRESHOLDS: dict[str, Threshold] = {
    "soft": Threshold(_soft, _soft_violation, lambda a, weight: weight * a.abs()),
    "rectified": Threshold(_rectified, _rectified_violation, lambda a, weight: weight * a),
    "hard": Threshold(_hard, _hard_violation, lambda a, weight: 0.5 * weight**2 * (a != 0)),
}
