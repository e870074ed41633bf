"""Thresholding functions of sparse coding, each with its conditions of optimality and its penalty."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

SparsityWeight: TypeAlias = float | Float[Tensor, ""] | Float[Tensor, " K"]
"""One number, or (K,) one per unit."""


def _soft(u: Float[Tensor, "*shape"], weight: SparsityWeight) -> Float[Tensor, "*shape"]:
    return u.sign() * (u.abs() - weight).clamp_min(0.0)


def _soft_violation(
    code: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"], weight: SparsityWeight
) -> Float[Tensor, "*shape"]:
    at_zero = (gradient.abs() - weight).clamp_min(0.0)
    return torch.where(code != 0, (gradient + weight * code.sign()).abs(), at_zero)


def _rectified(u: Float[Tensor, "*shape"], weight: SparsityWeight) -> Float[Tensor, "*shape"]:
    return (u - weight).clamp_min(0.0)


def _rectified_violation(
    code: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"], weight: SparsityWeight
) -> Float[Tensor, "*shape"]:
    derivative = gradient + weight
    return torch.where(code > 0, derivative.abs(), (-derivative).clamp_min(0.0))


def _hard(u: Float[Tensor, "*shape"], weight: SparsityWeight) -> Float[Tensor, "*shape"]:
    return torch.where(u.abs() > weight, u, 0.0)


def _hard_violation(
    code: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"], weight: SparsityWeight
) -> Float[Tensor, "*shape"]:
    return torch.where(code != 0, gradient.abs(), (gradient.abs() - weight).clamp_min(0.0))


class Threshold(NamedTuple):
    """A thresholding function and the problem that it solves."""

    apply: Callable[[Float[Tensor, "*shape"], SparsityWeight], Float[Tensor, "*shape"]]
    """(u, sparsity weight) -> thresholded u."""
    violation: Callable[[Float[Tensor, "*shape"], Float[Tensor, "*shape"], SparsityWeight], Float[Tensor, "*shape"]]
    """(code, gradient of the squared error / 2, sparsity weight) -> violation of the conditions of optimality, of the
    shape of the code."""
    cost: Callable[[Float[Tensor, "*shape"], SparsityWeight], Float[Tensor, "*shape"]]
    """(code of unit-norm atoms, sparsity weight) -> penalty of each entry of the code."""


THRESHOLDS: dict[str, Threshold] = {
    "soft": Threshold(_soft, _soft_violation, lambda a, weight: weight * a.abs()),
    "rectified": Threshold(_rectified, _rectified_violation, lambda a, weight: weight * a),
    "hard": Threshold(_hard, _hard_violation, lambda a, weight: 0.5 * weight**2 * (a != 0)),
}
