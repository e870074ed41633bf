"""Fit sizes of a spike and prior firing rates to a dictionary that was learned without counts; its atoms stay fixed."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..models.iterative.config import IterativeConfig
from ..models.iterative.model import IterativeVAE
from ..models.sparse.model import SparseCoding

MAX_ROUNDS, STEPS = 200, 5
"""Largest number of rounds, and steps of inference in each."""
WINDOW, MIN_GAIN = 10, 1e-3
"""Calibration ends when so many rounds lower the free energy by less than this share of it."""
DESCENT_PASSES = 2
"""Passes of coordinate descent over all units in a round."""
MIN_FIRING_RATE = 1e-4
"""Lowest firing rate at the start, that of units which the sparse code never uses."""


@torch.no_grad()
def counts_around(coder: SparseCoding, x: Tensor, *, beta: float, evaluation_steps: int) -> IterativeVAE:
    """The iterative Poisson model whose atoms have the directions of those of a sparse coder.

    A sparse coder's atoms have a direction, but neither a size of one spike nor a prior firing rate. Both are fitted in
    rounds of iterative inference. After each, the prior becomes the optimal one (the mean firing rate), and coordinate
    descent lowers the expected squared error over sizes of zero or more. Each part lowers the free energy at `beta`.
    Initial values come from the coder's codes: their mean where they are active, and how often they are.

    Counts have no sign: where the coder's codes do, each atom gets a partner of the opposite sign, and the model has
    twice the units.

    Parameters
    ----------
    coder
        Its atoms, decoder bias and noise variance are kept.
    x
        (B, D) stimuli for fitting, other than those of the evaluation.
    beta
        Weight of the coding rate.
    evaluation_steps
        Steps of inference of the returned model.
    """
    atoms, size, firing_rate = _read_codes(coder, x)
    bias = coder.decoder.head.bias
    config = IterativeConfig(
        n_latents=len(atoms),
        beta=beta,
        decoder_bias=bias is not None,
        noise_variance=float(torch.exp(coder.log_noise_variance)),
        evaluation_steps=evaluation_steps,
        clamp=None,
    )
    model: Any = IterativeVAE(coder.shape, config, torch.Generator()).to(x)
    if bias is not None:
        model.decoder.head.bias.copy_(bias)
    _set(model, atoms, size, firing_rate)
    pixels = coder.centred(x)
    overlap, drive = atoms @ atoms.mT, pixels @ atoms.mT
    state, energies = model.init_state(len(x)), []
    for _ in range(MAX_ROUNDS):
        for _ in range(STEPS):
            state = model.infer_step(state, x)
        rate = model.codes(state)
        mean = rate.mean(0)
        second = (rate.mT @ rate / len(x) + mean.diag()) * overlap
        size = _descend(size, second, (rate * drive).mean(0))
        _set(model, atoms, size, mean)
        error = size @ second @ size - 2 * size @ (rate * drive).mean(0) + pixels.square().sum(1).mean()
        divergence = kl_divergence(model.law_of(state), model.prior()).sum(1).mean()
        energies.append(float(error * torch.exp(-model.log_noise_variance) / 2 + beta * divergence))
        if len(energies) > WINDOW and energies[-1 - WINDOW] - energies[-1] < MIN_GAIN * abs(energies[-1]):
            break
    found: IterativeVAE = model.eval().requires_grad_(False)
    return found


def _read_codes(coder: SparseCoding, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit-norm atoms (K, D), twice as many where codes are signed, and of each the mean code where it is active (K,)
    and the share of stimuli for which it is (K,)."""
    atoms, norms = coder.unit_atoms()
    code = coder.code(x).code * norms.mT
    if bool((code < 0).any()):
        atoms, code = torch.cat([atoms, -atoms]), torch.cat([code, -code], 1)
    code.clamp_min_(0)
    active = (code > 0).sum(0)
    overall = code.sum() / active.sum().clamp_min(1)
    size = torch.where(active > 0, code.sum(0) / active.clamp_min(1), overall)
    return atoms, size, (active / len(x)).clamp_min(MIN_FIRING_RATE)


def _descend(size: Tensor, second: Tensor, drive: Tensor) -> Tensor:
    """Coordinate descent on size' second size / 2 - drive' size, size >= 0."""
    size = size.clone()
    for _ in range(DESCENT_PASSES):
        for k, curvature in enumerate(second.diagonal().tolist()):
            if curvature > 0:
                size[k] = (size[k] + (drive[k] - second[k] @ size) / curvature).clamp_min(0)
    return size


def _set(model: Any, atoms: Tensor, size: Tensor, rate: Tensor) -> None:
    """Set the model's atoms, scaled by the size of a spike, and its prior firing rates."""
    model.decoder.head.weight.copy_((atoms * size[:, None]).mT)
    moments = rate.unsqueeze(0)
    model.prior_moments.copy_(moments)
    for name, value in model.law.prior_from_moments(moments).items():
        getattr(model, f"prior_{name}").copy_(value)
