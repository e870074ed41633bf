"""What a message-passing network reads of a backbone: neighbours, and distances between their atoms."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

N, CA, C, O, CB = range(5)
PAIRS = (
    *((CA, CA), (N, N), (C, C), (O, O), (CB, CB)),
    *((CA, N), (CA, C), (CA, O), (CA, CB), (N, C), (N, O), (N, CB), (CB, C), (CB, O), (O, C)),
    *((N, CA), (C, CA), (O, CA), (CB, CA), (C, N), (O, N), (CB, N), (C, CB), (O, CB), (C, O)),
)
"""Atoms of a residue and of its neighbour, in the order in which the published weights expect their distances."""
CENTRES = 16
"""Gaussian functions of a distance, with centres from `NEAR` to `FAR`, in Angstrom."""
NEAR, FAR = 2.0, 22.0
TINY = 1e-6
"""Added to squared distances, in square Angstrom, as in training."""
SPAN = 32
"""Differences of places along a chain are cut off here; neighbours in another chain have a number of their own."""
ALONG = 2 * SPAN + 2
"""Numbers of differences of places."""
ROWS = 256
"""Residues at once."""


def with_beta(backbone: Float[Tensor, "L 4 3"]) -> Float[Tensor, "L 5 3"]:
    """The backbone and the place where the beta carbon of an ideal residue would be."""
    n, ca, c = backbone[:, N], backbone[:, CA], backbone[:, C]
    b, d = ca - n, c - ca
    normal = torch.linalg.cross(b, d)
    beta = ca - 0.58273431 * normal + 0.56802827 * b - 0.54067466 * d
    return torch.cat([backbone, beta[:, None]], 1)


def nearest(ca: Float[Tensor, "L 3"], complete: Bool[Tensor, " L"], count: int) -> Int[Tensor, "L K"]:
    """The `count` residues with the nearest alpha carbons, itself first; residues without backbone come last."""
    found = []
    for rows in chunks(len(ca), ROWS):
        away = torch.cdist(ca[rows], ca, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(away.masked_fill(~complete, torch.inf).topk(min(count, len(ca)), largest=False).indices)
    return torch.cat(found)


def edge_inputs(
    atoms: Float[Tensor, "L 5 3"], neighbours: Int[Tensor, "R K"], rows: slice, dtype: torch.dtype
) -> Float[Tensor, "R K 400"]:
    """Gaussian functions of the 25 distances between atoms of some residues and of their neighbours."""
    first, second = (torch.tensor(index) for index in zip(*PAIRS))
    apart = atoms[rows][:, None, first] - atoms[neighbours][:, :, second]  # (R, K, 25, 3)
    distance = apart.square().sum(-1).add(TINY).sqrt().to(dtype)
    centres = torch.linspace(NEAR, FAR, CENTRES, dtype=torch.float64, device=atoms.device).to(dtype)
    scaled = (distance[..., None] - centres) / ((FAR - NEAR) / CENTRES)
    return scaled.square_().neg_().exp_().flatten(2)


def along_chain(
    places: Int[Tensor, " L"], chains: Int[Tensor, " L"], neighbours: Int[Tensor, "R K"], rows: slice
) -> Float[Tensor, "R K 66"]:
    """Difference of places along the chain, one-hot; the last entry stands for another chain."""
    apart = (places[rows, None] - places[neighbours] + SPAN).clamp(0, 2 * SPAN)
    same = chains[rows, None] == chains[neighbours]
    return F.one_hot(apart.where(same, ALONG - 1), ALONG).double()


def chunks(length: int, size: int) -> Iterator[slice]:
    """Consecutive parts of a dimension."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
