"""A truncated Newton method in a trust region: bounds of thousands of variables, to the last thousandth of a nat."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Apply = Callable[[Vector], Vector]

MAX_PRODUCTS = 60
"""Most products of the Hessian with a vector within one step."""
ENOUGH = 0.5
"""A step is long enough when one more product would raise its gain by less than this over the number of products:
Nash & Sofer, Operations Research Letters 9 (1990)."""
RELATIVE_STEP = 1e-6
"""Root mean square step of the finite difference that gives such a product, in units of the preconditioner."""
LARGEST_STEP = 1e-4
"""Largest entry of that step: the variables are logarithms of rates."""
SMALLEST_RADIUS = 1e-9
ROUNDING = 1e-13
"""Gain relative to the objective below which it is rounding."""


class Objective(Protocol):
    """A function to maximise."""

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """The value, minus infinity or NaN where it overflows, and the gradient."""
        ...

    def preconditioner(self, x: Vector) -> Apply:
        """The product of an approximate inverse of minus the Hessian at x with a vector; positive definite."""
        ...


@dataclass(frozen=True)
class Maximum:
    """Where the method stopped.

    Attributes
    ----------
    x, value
        The variables and the objective there.
    gradient_norm
        Root of the gradient's squared norm in the inverse of the preconditioner: half its square is about the gain in
        nats that is left.
    iterations
        Newton steps.
    converged
        Whether the quadratic model promised less than the tolerance.
    """

    x: Vector
    value: float
    gradient_norm: float
    iterations: int
    converged: bool


class _Step(NamedTuple):
    step: Vector
    gain: float
    at_radius: bool
    norm: float


def maximise(
    objective: Objective,
    x: Vector,
    *,
    tolerance: float,
    max_iter: int,
    report: Callable[[int, float], None] | None = None,
    correct: Apply | None = None,
) -> Maximum:
    """Climb from x until a Newton step promises a gain below `tolerance`, in the unit of the objective.

    Each step solves the Newton equations by preconditioned conjugate gradients, to the accuracy that the gradient
    warrants and within a trust region (Steihaug, SIAM J. Numer. Anal. 20, 1983); products with the Hessian are finite
    differences of gradients.

    Parameters
    ----------
    report
        Called with the number of steps and the objective after each.
    correct
        Gives variables near its argument that may be better: it corrects a step that was too long.

    Raises
    ------
    FloatingPointError
        Where the objective is not finite at the start.
    """
    value, gradient = objective.value_and_gradient(x)
    if not np.isfinite(value):
        raise FloatingPointError("the objective is not finite at the start")
    radius = math.sqrt(x.size)
    norm = math.inf
    for iteration in range(max_iter + 1):
        apply = objective.preconditioner(x)
        norm = math.sqrt(max(float(gradient @ apply(gradient)), 0.0))
        if norm == 0.0 or iteration == max_iter:
            break
        moved = False
        while radius > SMALLEST_RADIUS:
            found = _newton_step(objective, x, gradient, apply, radius, norm)
            if not found.at_radius and found.gain < max(tolerance, ROUNDING * abs(value)):
                return Maximum(x, value, norm, iteration, True)
            trial = x + found.step
            new_value, new_gradient = objective.value_and_gradient(trial)
            if correct is not None and np.isfinite(new_value):
                other = correct(trial)
                other_value, other_gradient = objective.value_and_gradient(other)
                if np.isfinite(other_value) and other_value > new_value:
                    trial, new_value, new_gradient = other, other_value, other_gradient
            finite = np.isfinite(new_value) and np.isfinite(new_gradient).all()
            ratio = (new_value - value) / found.gain if finite and found.gain > 0 else -1.0
            if ratio < 0.25:
                radius = 0.25 * min(radius, found.norm)
            elif ratio > 0.75 and found.at_radius:
                radius *= 2.0
            if ratio > 1e-3:
                x, value, gradient, moved = trial, new_value, new_gradient, True
                break
        if not moved:
            break
        if report is not None:
            report(iteration + 1, value)
    return Maximum(x, value, norm, iteration, norm == 0.0 or 0.5 * norm**2 < 1e-2 * tolerance)


def _newton_step(
    objective: Objective, x: Vector, gradient: Vector, apply: Apply, radius: float, gradient_norm: float
) -> _Step:
    """The step within the radius that conjugate gradients find, and the gain that the quadratic model promises."""
    accuracy = min(0.1, math.sqrt(gradient_norm / math.sqrt(x.size)))
    step, product = np.zeros_like(x), np.zeros_like(x)  # the step, and minus the Hessian times the step
    residual = gradient.copy()
    z = apply(residual)
    direction = z.copy()
    rz = first = float(residual @ z)
    squared, cross, length = 0.0, 0.0, float(rz)  # of step and direction, in the norm of the preconditioner

    def ended(at_radius: bool) -> _Step:
        return _Step(step, float(gradient @ step - 0.5 * (step @ product)), at_radius, math.sqrt(max(squared, 0.0)))

    gain = 0.0  # of the model
    for product_number in range(MAX_PRODUCTS):
        h = min(RELATIVE_STEP * np.sqrt(x.size / length), LARGEST_STEP / np.abs(direction).max())
        curved = (gradient - objective.value_and_gradient(x + h * direction)[1]) / h
        curvature = float(direction @ curved)
        length_of_step = rz / curvature if curvature > 0 else np.inf
        reached = float(squared + 2 * length_of_step * cross + length_of_step**2 * length)
        if not reached < radius**2:
            t = (np.sqrt(cross**2 + length * (radius**2 - squared)) - cross) / length
            step, product = step + t * direction, product + t * curved
            squared = radius**2
            return ended(True)
        step, product, squared = step + length_of_step * direction, product + length_of_step * curved, reached
        residual = residual - length_of_step * curved
        z = apply(residual)
        new_rz = float(residual @ z)
        gained = float(0.5 * length_of_step * rz)  # by this product alone
        gain += gained
        if new_rz <= accuracy**2 * first or (product_number + 1) * gained < ENOUGH * gain:
            break
        ratio, rz = new_rz / rz, new_rz
        cross = ratio * (cross + length_of_step * length)
        length = new_rz + ratio**2 * length
        direction = z + ratio * direction
    return ended(False)
