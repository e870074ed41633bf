"""Projection onto intersections of half-spaces and hyperplanes, for many points at once."""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_SWEEPS = 200
TOLERANCE = 1e-6
"""Of a violation, in units of the largest distance that a point has moved."""


def project_onto_half_spaces(
    v: Float[Tensor, "n d"], rows: Float[Tensor, "n k d"], bounds: Float[Tensor, "n k"], equalities: int = 0
) -> Float[Tensor, "n d"]:
    r"""The nearest points to v with :math:`a_k \cdot v \le b_k`, by Dykstra's algorithm.

    For half-spaces the correction that Dykstra's algorithm keeps for each set is a multiple of its normal, so that one
    number is enough (Hildreth). Sweeps go on until no constraint is violated. Rows without length are left out. One
    half-space takes one step, and the result is exact.

    Parameters
    ----------
    v
        (n, d) points.
    rows, bounds
        (n, k, d) normals a and (n, k) bounds b of the half-spaces of each point.
    equalities
        So many of the last constraints hold with equality.

    References
    ----------
    Dykstra (1983), Journal of the American Statistical Association 78, 837; Hildreth (1957).

    Examples
    --------
    >>> corner = project_onto_half_spaces(torch.tensor([[2.0, 3.0]]), torch.eye(2)[None], torch.ones(1, 2))
    >>> corner
    tensor([[1., 1.]])
    """
    lengths = torch.linalg.vector_norm(rows, dim=-1)
    usable = lengths > torch.finfo(v.dtype).tiny ** 0.5
    scale = torch.where(usable, lengths, 1.0)
    normals = torch.where(usable.unsqueeze(-1), rows / scale.unsqueeze(-1), 0.0)
    limits = torch.where(usable, bounds / scale, torch.zeros_like(bounds))  # a row of zeros is then never violated
    k = rows.shape[1]
    multipliers, start = torch.zeros_like(bounds), v
    for _ in range(1 if k == 1 else MAX_SWEEPS):
        for j in range(k):
            change = (v * normals[:, j]).sum(-1) - limits[:, j]
            if j < k - equalities:
                change = torch.maximum(change, -multipliers[:, j])
            multipliers[:, j] += change
            v = v - change.unsqueeze(-1) * normals[:, j]
        beyond = torch.einsum("nkd,nd->nk", normals, v) - limits
        slack = torch.where(multipliers > 0, beyond.abs(), beyond.clamp_min(0))  # complementary slackness
        slack[:, k - equalities :] = beyond[:, k - equalities :].abs()
        if float(slack.max()) <= TOLERANCE * max(float((v - start).abs().max()), torch.finfo(v.dtype).tiny):
            break
    return v
