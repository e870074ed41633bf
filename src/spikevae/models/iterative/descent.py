"""Steps of inference: a membrane potential moved along its flow, with or without a guard on the free energy.

Pure functions of an explicit state within the rule's bounds. The guard shortens the step of a stimulus until its free
energy does not rise; where a step 2^40 times shorter still raises it, the stimulus stays where it is: at its minimum to
rounding, or where the free energy is too steep for the number type.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...distributions._law import Law
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


class Slopes(NamedTuple):
    """Where each parameter is driven from a state, whatever the length of the step."""

    values: Params
    """Minus the natural gradient of the free energy, (B, K) each."""
    decay: Tensor | None
    """How fast parameters leak, in units of beta; None for one."""


def slopes(
    rule: Rule, params: Params, reference: Params, look: Look, width: Tensor, costs: Costs, *, sampled: bool
) -> Slopes:
    """The flow at `params`, whose mean (or, `sampled`, a draw) is held against the stimuli in `look`.

    Parameters
    ----------
    width
        (K,) self-inhibition: the slope of the distortion in the variance of a code, or what stands for it.
    """
    code = look.code if sampled else None
    return Slopes(*rule.flow.slopes(params, reference, look.push, width, *costs, code))


def stride(rule: Rule, params: Params, along: Slopes, beta: Tensor, size: Tensor) -> Params:
    """One step from `params`; its size is a number, or one a stimulus (B, 1)."""
    if rule.integrator == "exponential":
        size = exponential_gain(size, beta if along.decay is None else beta * along.decay)
    return rule.flow.bounded(step(params, along.values, size), rule.clamp)


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
    along: Slopes,
    costs: Costs,
    size: Tensor,
    energy: Tensor | None,
) -> Guarded:
    """Find the step of each stimulus. Under `torch.func.vmap` each lane searches by itself.

    Parameters
    ----------
    look, along
        Of the state that the step starts from.
    energy
        Free energy at `params` from this reference where it is known, else None.
    """
    flat = (*params, *reference, *along.values, along.decay, *look[:2], *drive, *costs, size, energy)
    return Guarded(*_Guard.apply(rule, len(params), *flat))


class _Guard(torch.autograd.Function):
    """`_search` with a rule for `vmap`, behind which rows can be picked by their values."""

    @staticmethod
    def forward(rule: Rule, n: int, *given: Any) -> Guarded:
        return _search(rule, _Move.of(n, given), given[-2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Guarded) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], rule: Rule, n: int, *given: Any) -> tuple[tuple[Tensor, ...], Any]:
        def whole(*own: Any) -> tuple[Tensor, Tensor, Tensor]:
            return _attempt(rule, _Move.of(n, own), own[-2])

        pushes, energies, rising = torch.func.vmap(whole, in_dims[2:])(*given)
        size, along = given[-2], in_dims[-2]
        size = size if along is None else size.movedim(along, 0).reshape(info.batch_size, -1, 1)
        sizes = size.expand(*energies.shape, 1).clone()
        for lane in rising.flatten(1).any(1).nonzero().flatten().tolist():  # the others' whole step is a descent
            own = (g if d is None else g.select(d, lane) for g, d in zip(given, in_dims[2:]))
            sizes[lane], pushes[lane], energies[lane] = _Guard.apply(rule, n, *own)
        return (sizes, pushes, energies), (0, 0, 0)


class _Move(NamedTuple):
    """What a step starts from."""

    params: Params
    reference: Params
    along: Slopes
    look: Look
    drive: LinearDrive
    costs: Costs
    energy: Tensor | None
    """(B,) free energy there, where it is known."""

    @classmethod
    def of(cls, n: int, given: tuple[Any, ...]) -> "_Move":
        """From the flat arguments of `_Guard`, n of them parameters."""
        params, reference, values, rest = given[:n], given[n : 2 * n], given[2 * n : 3 * n], given[3 * n :]
        look, drive, costs = Look(*rest[1:3]), LinearDrive(*rest[3:-4]), Costs(*rest[-4:-2])
        return cls(params, reference, Slopes(values, rest[0]), look, drive, costs, rest[-1])

    def bound(self, flow: Flow) -> tuple[Tensor, Tensor]:
        """(B,) the free energy, and what it may seem to be after a step that does not raise it."""
        before = self.energy
        if before is None:
            law = flow.posterior(self.params)
            before = free_energy(flow, law, self.params, self.reference, self.drive, self.look, self.costs)
        eps = torch.finfo(before.dtype).eps
        return before, before + SLACK * eps * (self.drive.at_silence.abs() + before.abs())

    def rows(self, kept: Tensor) -> "_Move":
        """The same for some of the stimuli."""
        like = self.look.push

        def some(part: Params) -> Params:
            return tuple(p.expand_as(like)[kept] for p in part)

        decay = self.along.decay
        return _Move(
            some(self.params),
            some(self.reference),
            Slopes(some(self.along.values), None if decay is None else decay.expand_as(like)[kept]),
            Look(*some(self.look[:2])),
            self.drive.rows(kept),
            self.costs,
            None if self.energy is None else self.energy[kept],
        )


def _attempt(rule: Rule, move: _Move, size: Tensor, bound: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Push and free energy after a step of this size, and whether it rose above `bound`, for each stimulus."""
    flow, costs = rule.flow, move.costs
    moved = stride(rule, move.params, move.along, costs.beta, size)
    law = flow.posterior(moved)
    end = move.drive.look(law.mean)
    after = free_energy(flow, law, moved, move.reference, move.drive, end, costs)
    bound = move.bound(flow)[1] if bound is None else bound
    return end.push, after, ~(after <= bound)  # true for NaN


def _search(rule: Rule, move: _Move, size: Tensor) -> Guarded:
    """Shorten the step of each stimulus that would rise. Rows are picked by their values: one lane at a time."""
    before, bound = move.bound(rule.flow)
    pushes, energies, rising = _attempt(rule, move, size, bound)
    sizes, left, rest = size.expand(len(pushes), 1).clone(), torch.arange(len(pushes), device=pushes.device), before
    for factor in [0.5] * HALVINGS + [0.125] * CUTS:
        if not bool(rising.any()):
            return Guarded(sizes, pushes, energies)
        kept = rising.nonzero().squeeze(1)
        left, bound, rest, move, size = left[kept], bound[kept], rest[kept], move.rows(kept), factor * size
        sizes[left] = size
        pushes[left], energies[left], rising = _attempt(rule, move, size, bound)
    sizes[left[rising]], pushes[left[rising]], energies[left[rising]] = 0.0, move.look.push[rising], rest[rising]
    return Guarded(sizes, pushes, energies)
