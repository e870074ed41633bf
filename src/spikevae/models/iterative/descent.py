"""Steps of inference along the natural gradient of the free energy, with or without a backtracking line search.

Pure functions of an explicit state. The line search shortens the step of each stimulus until its free energy does not
rise. Where a step 2^40 times shorter still raises it, the step is zero: the state is at its minimum up to rounding, or
the free energy is too steep for the number type.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...distributions._law import Law
from .drive import LinearLikelihood, Point
from .flows import Flow, Params, euler_step, exponential_gain

MAX_STEP_HALVINGS = 10
"""Largest number of times that a step is halved."""
MAX_STEP_CUTS = 10
"""Largest number of times that a step is divided by eight after these halvings; then it becomes zero."""

ROUNDING_TOLERANCE = 8.0
"""A rise of the free energy up to this many roundings (the number type's eps times the magnitudes of the free energy
and of the distortion of a code of zeros, its largest term) counts as none."""


class Costs(NamedTuple):
    """Weights of the terms of the free energy other than the distortion."""

    beta: Float[Tensor, ""]
    """Weight of the KL divergence from the reference."""
    spike_price: Float[Tensor, ""] | None
    """Nats per expected spike; None for laws without a firing rate."""


class UpdateRule(NamedTuple):
    """How a step changes the parameters of a posterior."""

    flow: Flow
    integrator: Literal["euler", "exponential"]
    clamp: float | None


class Direction(NamedTuple):
    """Direction of a step: minus the natural gradient of the free energy."""

    values: Params
    """(B, K) for each parameter."""
    decay: Float[Tensor, "... K"] | None
    """Decay rate of the leak of each parameter, in units of beta; None where it is one."""


def descent_direction(
    rule: UpdateRule,
    params: Params,
    reference: Params,
    point: Point,
    self_inhibition: Float[Tensor, "..."],
    costs: Costs,
    *,
    sampled: bool,
) -> Direction:
    """Minus the natural gradient of the free energy at `params`.

    Parameters
    ----------
    point
        The likelihood at the mean code, or at a sampled code if `sampled`.
    self_inhibition
        (K,) derivative of the distortion with respect to the variance of a code, or the value used in its place.
    """
    code = point.code if sampled else None
    return Direction(*rule.flow.direction(params, reference, point.drive, self_inhibition, *costs, code))


def take_step(
    rule: UpdateRule, params: Params, direction: Direction, beta: Float[Tensor, ""], size: Float[Tensor, "..."]
) -> Params:
    """The parameters after one step; `size` is one number, or (B, 1) one per stimulus."""
    if rule.integrator == "exponential":
        size = exponential_gain(size, beta if direction.decay is None else beta * direction.decay)
    return rule.flow.bounded(euler_step(params, direction.values, size), rule.clamp)


def free_energy(
    flow: Flow, law: Law, params: Params, reference: Params, likelihood: LinearLikelihood, point: Point, costs: Costs
) -> Float[Tensor, " B"]:
    """(B,) expected distortion + beta * KL divergence + spike price * expected spikes; `point` is at the mean code."""
    total = likelihood.expected(point, law.variance) + costs.beta * flow.divergence(law, params, reference)
    return total if costs.spike_price is None else total + costs.spike_price * law.mean.sum(-1)


class LineSearchResult(NamedTuple):
    """Step sizes that do not raise the free energy, its value and the drive after these steps; without gradients."""

    size: Float[Tensor, "B 1"]
    """(B, 1) step size of each stimulus."""
    drive: Float[Tensor, "B K"]
    """(B, K) drive at the mean code after the step."""
    energy: Float[Tensor, " B"]
    """(B,) free energy after the step, from the same reference."""


def line_search(
    rule: UpdateRule,
    params: Params,
    reference: Params,
    likelihood: LinearLikelihood,
    point: Point,
    direction: Direction,
    costs: Costs,
    size: Float[Tensor, ""],
    energy: Float[Tensor, " B"] | None,
) -> LineSearchResult:
    """Find the step size of each stimulus by backtracking from `size`.

    Under `torch.func.vmap` each entry of the mapped dimension has a search of its own.

    Parameters
    ----------
    point, direction
        At the state that the step starts from.
    energy
        (B,) free energy at `params` from this reference if it is known.
    """
    flat = (*params, *reference, *direction.values, direction.decay, *point[:2], *likelihood, *costs, size, energy)
    return LineSearchResult(*_LineSearch.apply(rule, len(params), *flat))


class _LineSearch(torch.autograd.Function):
    """`_backtrack` with a rule for `vmap`, because it selects rows by their values."""

    @staticmethod
    def forward(rule: UpdateRule, n: int, *given: Any) -> LineSearchResult:
        return _backtrack(rule, _StepStart.of(n, given), given[-2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: LineSearchResult) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], rule: UpdateRule, n: int, *given: Any
    ) -> tuple[tuple[Tensor, ...], Any]:
        def full_step(*own: Any) -> tuple[Tensor, Tensor, Tensor]:
            return _try_step(rule, _StepStart.of(n, own), own[-2])

        drives, energies, rising = torch.func.vmap(full_step, in_dims[2:])(*given)
        size, dim = given[-2], in_dims[-2]
        size = size if dim is None else size.movedim(dim, 0).reshape(info.batch_size, -1, 1)
        sizes = size.expand(*energies.shape, 1).clone()
        for index in rising.flatten(1).any(1).nonzero().flatten().tolist():  # all others take the full step
            own = (g if d is None else g.select(d, index) for g, d in zip(given, in_dims[2:]))
            sizes[index], drives[index], energies[index] = _LineSearch.apply(rule, n, *own)
        return (sizes, drives, energies), (0, 0, 0)


class _StepStart(NamedTuple):
    """The state that a step starts from, and all that the free energy depends on."""

    params: Params
    reference: Params
    direction: Direction
    point: Point
    likelihood: LinearLikelihood
    costs: Costs
    energy: Float[Tensor, " B"] | None
    """(B,) free energy of this state if it is known."""

    @classmethod
    def of(cls, n: int, given: tuple[Any, ...]) -> "_StepStart":
        """From the flat arguments of `_LineSearch`, n of them parameters."""
        params, reference, values, rest = given[:n], given[n : 2 * n], given[2 * n : 3 * n], given[3 * n :]
        point, likelihood, costs = Point(*rest[1:3]), LinearLikelihood(*rest[3:-4]), Costs(*rest[-4:-2])
        return cls(params, reference, Direction(values, rest[0]), point, likelihood, costs, rest[-1])

    def energies(self, flow: Flow) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """(B,) free energy, and the largest computed value that counts as no rise."""
        before = self.energy
        if before is None:
            law = flow.posterior(self.params)
            before = free_energy(flow, law, self.params, self.reference, self.likelihood, self.point, self.costs)
        eps = torch.finfo(before.dtype).eps
        return before, before + ROUNDING_TOLERANCE * eps * (self.likelihood.distortion_at_zero.abs() + before.abs())

    def select(self, kept: Int64[Tensor, " n"]) -> "_StepStart":
        """The same for some of the stimuli."""
        like = self.point.drive

        def some(part: Params) -> Params:
            return tuple(p.expand_as(like)[kept] for p in part)

        decay = self.direction.decay
        return _StepStart(
            some(self.params),
            some(self.reference),
            Direction(some(self.direction.values), None if decay is None else decay.expand_as(like)[kept]),
            Point(*some(self.point[:2])),
            self.likelihood.select(kept),
            self.costs,
            None if self.energy is None else self.energy[kept],
        )


def _try_step(
    rule: UpdateRule, start: _StepStart, size: Tensor, limit: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K) drive and (B,) free energy after a step of this size, and (B,) whether that is above `limit`."""
    flow, costs = rule.flow, start.costs
    moved = take_step(rule, start.params, start.direction, costs.beta, size)
    law = flow.posterior(moved)
    end = start.likelihood.at(law.mean)
    after = free_energy(flow, law, moved, start.reference, start.likelihood, end, costs)
    limit = start.energies(flow)[1] if limit is None else limit
    return end.drive, after, ~(after <= limit)  # true also for NaN


def _backtrack(rule: UpdateRule, start: _StepStart, size: Tensor) -> LineSearchResult:
    """Shorten the step of each stimulus whose free energy would rise; not for use inside `vmap`."""
    before, limit = start.energies(rule.flow)
    drives, energies, rising = _try_step(rule, start, size, limit)
    sizes, rows = size.expand(len(drives), 1).clone(), torch.arange(len(drives), device=drives.device)
    for factor in [0.5] * MAX_STEP_HALVINGS + [0.125] * MAX_STEP_CUTS:
        if not bool(rising.any()):
            return LineSearchResult(sizes, drives, energies)
        kept = rising.nonzero().squeeze(1)
        rows, limit, before, start, size = rows[kept], limit[kept], before[kept], start.select(kept), factor * size
        sizes[rows] = size
        drives[rows], energies[rows], rising = _try_step(rule, start, size, limit)
    failed = rows[rising]
    sizes[failed], drives[failed], energies[failed] = 0.0, start.point.drive[rising], before[rising]
    return LineSearchResult(sizes, drives, energies)
