"""Steps of inference: a membrane potential moved along its flow, with or without a guard on the free energy.

Pure functions of an explicit state within the rule's bounds. The guard shortens the step of a stimulus until its free
energy does not rise; where a step 2^40 times shorter still raises it, the stimulus stays where it is: at its minimum to
rounding, or where the free energy is too steep for the number type.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..distributions._law import Law
from .drive import LinearDrive, Look
from .flows import Flow, Params, exponential_gain, step

HALVINGS, CUTS = 10, 10
"""Times a step is halved, then cut to an eighth, before its stimulus is left alone."""

SLACK = 8.0
"""Roundings of the number type by which a free energy may seem to rise: it is a sum of large terms."""


class Costs(NamedTuple):
    """What a posterior costs apart from the pixels."""

    beta: Tensor
    """Weight of the divergence from the reference."""
    price: Tensor | None
    """Nats per expected spike; None for laws without a firing rate."""


class Rule(NamedTuple):
    """How a state moves."""

    flow: Flow
    integrator: Literal["euler", "exponential"]
    clamp: float | None


def advance(
    rule: Rule,
    params: Params,
    reference: Params,
    look: Look,
    width: Tensor,
    costs: Costs,
    size: Tensor,
    *,
    sampled: bool,
) -> Params:
    """One step of the flow from `params`, whose mean (or, `sampled`, a draw) is held against the stimuli in `look`.

    Parameters
    ----------
    width
        (K,) self-inhibition: the slope of the distortion in the variance of a code, or what stands for it.
    size
        Step size, a number or one a stimulus (B, 1).
    """
    flow = rule.flow
    push = look.push if costs.price is None else look.push - costs.price
    drift = flow.sampled_drift(params, push, width, look.code) if sampled else flow.drift(params, push, width)
    leak, decay = flow.leak(params, reference)
    slopes = tuple(torch.addcmul(d, k, costs.beta) for d, k in zip(drift, leak))
    if rule.integrator == "exponential":
        size = exponential_gain(size, costs.beta if decay is None else costs.beta * decay)
    return flow.bounded(step(params, slopes, size), rule.clamp)


def free_energy(
    flow: Flow, law: Law, params: Params, reference: Params, drive: LinearDrive, look: Look, costs: Costs
) -> Tensor:
    """(B,) expected distortion + beta * divergence + price * expected spikes, exactly; `look` is at the law's mean."""
    total = drive.expected(look, law.variance) + costs.beta * flow.divergence(law, params, reference)
    return total if costs.price is None else total + costs.price * law.mean.sum(-1)


class Guarded(NamedTuple):
    """A step that does not raise the free energy, and what is known where it ends. Nothing here is differentiated."""

    size: Tensor
    """(B, 1) step sizes: the size asked for, shortened as often as each stimulus needs."""
    push: Tensor
    """(B, K) push on the mean code after the step."""
    energy: Tensor
    """(B,) free energy after the step, from this reference."""


def guard(
    rule: Rule,
    params: Params,
    reference: Params,
    drive: LinearDrive,
    look: Look,
    costs: Costs,
    size: Tensor,
    energy: Tensor | None,
) -> Guarded:
    """Find the step of each stimulus. Under `torch.func.vmap` each lane searches by itself.

    Parameters
    ----------
    energy
        Free energy at `params` from this reference where it is known, else None.
    """
    return Guarded(*_Guard.apply(rule, len(params), *params, *reference, *look[:2], *drive, *costs, size, energy))


class _Guard(torch.autograd.Function):
    """`_search` with a rule for `vmap`, behind which rows can be picked by their values."""

    @staticmethod
    def forward(rule: Rule, n: int, *given: Any) -> Guarded:
        params, reference, look = given[:n], given[n : 2 * n], Look(*given[2 * n : 2 * n + 2])
        drive, costs = LinearDrive(*given[2 * n + 2 : -4]), Costs(*given[-4:-2])
        return _search(rule, params, reference, drive, look, costs, *given[-2:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Guarded) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: Rule, n: int, *given: Any) -> tuple[tuple[Tensor, ...], Any]:
        lanes = []
        for lane in range(info.batch_size):
            own = (g if d is None else g.select(d, lane) for g, d in zip(given, in_dims[2:]))
            lanes.append(_Guard.apply(rule, n, *own))
        if len(lanes) == 1:
            return tuple(found.unsqueeze(0) for found in lanes[0]), (0, 0, 0)
        return tuple(torch.stack(column) for column in zip(*lanes)), (0, 0, 0)


def _search(
    rule: Rule,
    params: Params,
    reference: Params,
    drive: LinearDrive,
    look: Look,
    costs: Costs,
    size: Tensor,
    energy: Tensor | None,
) -> Guarded:
    flow, push = rule.flow, look.push
    before = energy
    if before is None:
        before = free_energy(flow, flow.posterior(params), params, reference, drive, look, costs)
    bound = before + SLACK * torch.finfo(push.dtype).eps * (drive.at_silence.abs() + before.abs())

    def attempt(size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = advance(rule, params, reference, look, drive.width, costs, size, sampled=False)
        law = flow.posterior(moved)
        end = drive.look(law.mean)
        after = free_energy(flow, law, moved, reference, drive, end, costs)
        return end.push, after, ~(after <= bound)  # true for NaN

    pushes, energies, rising = attempt(size)
    sizes = size.expand(len(push), 1)
    if not bool(rising.any()):
        return Guarded(sizes.clone(), pushes, energies)
    sizes, left = sizes.clone(), torch.arange(len(push), device=push.device)
    params = tuple(p.expand_as(push) for p in params)
    reference = tuple(r.expand_as(push) for r in reference)
    look, rest = Look(look.code.expand_as(push), push), before
    for factor in [0.5] * HALVINGS + [0.125] * CUTS:
        kept = rising.nonzero().squeeze(1)
        left, bound, rest, drive = left[kept], bound[kept], rest[kept], drive.rows(kept)
        params, reference = tuple(p[kept] for p in params), tuple(r[kept] for r in reference)
        look, size = Look(look.code[kept], look.push[kept]), factor * size
        sizes[left] = size
        pushes[left], energies[left], rising = attempt(size)
        if not bool(rising.any()):
            return Guarded(sizes, pushes, energies)
    sizes[left[rising]], pushes[left[rising]], energies[left[rising]] = 0.0, look.push[rising], rest[rising]
    return Guarded(sizes, pushes, energies)
