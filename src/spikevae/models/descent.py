"""Steps of inference: a membrane potential moved along its flow, with or without a guard on the free energy.

Pure functions of an explicit state. The guard halves the step of a stimulus until its free energy does not rise; where
twenty halvings do not suffice the stimulus stays where it is, at its minimum to rounding.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .drive import LinearDrive, Look
from .flows import Flow, Params, euler, exponential

HALVINGS = 20
"""Times a step is halved before its stimulus is left alone."""

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
    slopes = tuple(torch.addcmul(d, k, costs.beta) for d, k in zip(drift, flow.leak(params, reference)))
    if rule.integrator == "euler":
        moved = euler(params, slopes, size)
    else:
        moved = exponential(params, slopes, size, tuple(costs.beta * d for d in flow.decay(params, reference)))
    return flow.bounded(moved, rule.clamp)


def free_energy(flow: Flow, params: Params, reference: Params, drive: LinearDrive, look: Look, costs: Costs) -> Tensor:
    """(B,) expected distortion + beta * divergence + price * expected spikes, exactly; `look` is at the mean."""
    law = flow.posterior(params)
    total = drive.expected(look, law.variance) + costs.beta * flow.divergence(params, reference).sum(-1)
    return total if costs.price is None else total + costs.price * law.mean.sum(-1)


def guarded_size(
    rule: Rule, params: Params, reference: Params, drive: LinearDrive, look: Look, costs: Costs, size: Tensor
) -> Tensor:
    """(B, 1) step sizes, `size` halved as often as each stimulus needs for its free energy not to rise.

    Nothing is differentiated. Under `torch.func.vmap` each lane searches by itself.
    """
    found: Tensor = _Guard.apply(rule, len(params), *params, *reference, look.push, *drive, *costs, size)
    return found


class _Guard(torch.autograd.Function):
    """`_search` with a rule for `vmap`, behind which rows can be picked by their values."""

    @staticmethod
    def forward(rule: Rule, n: int, *given: Any) -> Tensor:
        params, reference, push = given[:n], given[n : 2 * n], given[2 * n]
        drive = LinearDrive(*given[2 * n + 1 : 2 * n + 7])
        return _search(rule, params, reference, drive, push, Costs(*given[2 * n + 7 : 2 * n + 9]), given[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: Rule, n: int, *given: Any) -> tuple[Tensor, int]:
        lanes = []
        for lane in range(info.batch_size):
            own = (g if d is None else g.select(d, lane) for g, d in zip(given, in_dims[2:]))
            lanes.append(_Guard.apply(rule, n, *own))
        return torch.stack(lanes), 0


def _search(
    rule: Rule, params: Params, reference: Params, drive: LinearDrive, push: Tensor, costs: Costs, size: Tensor
) -> Tensor:
    flow, n_rows = rule.flow, len(push)
    params = tuple(p.expand_as(push) for p in params)
    reference = tuple(r.expand_as(push) for r in reference)
    look = Look(flow.posterior(params).mean, push)
    before = free_energy(flow, params, reference, drive, look, costs)
    bound = before + SLACK * torch.finfo(push.dtype).eps * (drive.at_silence.abs() + before.abs())
    sizes, trial = size.expand(n_rows, 1).clone(), size
    left = torch.arange(n_rows, device=push.device)
    for _ in range(HALVINGS + 1):
        moved = advance(rule, params, reference, look, drive.width, costs, trial, sampled=False)
        after = free_energy(flow, moved, reference, drive, drive.look(flow.posterior(moved).mean), costs)
        rising = ~(after <= bound)  # true for NaN
        if not bool(rising.any()):
            return sizes
        kept = rising.nonzero().squeeze(1)
        left, bound, drive = left[kept], bound[kept], drive.rows(kept)
        params, reference = tuple(p[kept] for p in params), tuple(r[kept] for r in reference)
        look = Look(look.code[kept], look.push[kept])
        trial = 0.5 * trial
        sizes[left] = trial
    sizes[left] = 0.0
    return sizes
