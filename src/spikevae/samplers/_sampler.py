"""What all samplers share: start points, checks of the density, progress, and clean ends."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._arrays import plain
from .._scope import own_scope
from .._seeds import checked_seed
from ..progress import show_progress
from ._constraint import Constraint, Everywhere

LogDensity = Callable[[Tensor], Tensor]
"""From points (n, d) to log densities (n,), up to a constant, differentiable by PyTorch, each of its own point."""


class Interrupted(KeyboardInterrupt):
    """Sampling was stopped; the particles so far are kept.

    Attributes
    ----------
    particles
        (n, d) after the last complete step, as `sample` would have returned them.
    steps
        Complete steps.
    """

    def __init__(self, particles: Any, steps: int, n_steps: int) -> None:
        super().__init__(f"stopped after {steps} of {n_steps} steps; .particles has their result, usable as start=")
        self.particles, self.steps = particles, steps


class Sampler(ABC):
    """Moves particles until they follow a density; abstract.

    Parameters
    ----------
    log_density
        From points (n, d) to log densities (n,), up to a constant, by differentiable operations of PyTorch; each value
        depends on its own point alone.
    constraint
        Where points may be: :class:`Box`, :class:`Simplex` or :class:`Region`; None: everywhere.
    """

    name: ClassVar[str]

    def __init__(self, log_density: LogDensity, *, constraint: Constraint | None = None) -> None:
        if not callable(log_density):
            raise TypeError(f"log_density is {type(log_density).__name__}; give a function of points (n, d)")
        if constraint is not None and not isinstance(constraint, Constraint):
            what = type(constraint).__name__
            raise TypeError(f"constraint is {what}; give Box, Simplex or Region of spikevae.samplers")
        self.log_density = log_density
        self.constraint: Constraint = Everywhere() if constraint is None else constraint

    @abstractmethod
    def _positions(
        self, z: Float[Tensor, "n m"], n_steps: int, dimension: int, generator: torch.Generator
    ) -> Iterator[Float[Tensor, "n m"]]:
        """Coordinates of the particles after each step; `dimension` is that of the set."""

    def sample(
        self,
        n_particles: int,
        n_steps: int = 2000,
        *,
        dimension: int | None = None,
        start: Any = None,
        seed: int | torch.Generator = 0,
        verbose: bool = False,
    ) -> Any:
        """Move particles for a number of steps.

        Parameters
        ----------
        n_particles
            n, 2 or more.
        n_steps
            Steps of every particle.
        dimension
            d, numbers of a point; not needed where `start` or the constraint has it.
        start
            (n, d) points to start from, numpy or torch, on whose device and in whose type all is computed; by default
            drawn by the constraint, in float32 on the CPU.
        seed
            Seed of all draws, or the generator to draw from.
        verbose
            Show progress.

        Returns
        -------
        (n, d) points, a tensor where `start` is one, else a numpy array.

        Raises
        ------
        ValueError
            Where the density, its gradient or the start are not usable; with the step and the first point.
        Interrupted
            On Ctrl-C, with the particles so far.

        Warns
        -----
        RuntimeWarning
            Where particles are outside the constraint at the end.
        """
        for name, value, least in (("n_particles", n_particles, 2), ("n_steps", n_steps, 1)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}; give a whole number, {least} or more")
        with own_scope():
            x = _start_points(start, n_particles)
            generator = _generator(seed, "cpu" if x is None else x.device)
            z, d = self._start(x, int(n_particles), dimension, generator)
            z = self._moved(
                z, int(n_steps), self.constraint.intrinsic(d), generator, verbose, isinstance(start, Tensor)
            )
            found = self.constraint.points(self.constraint.finished(z)).detach()
            n_out = int(self.constraint.outside(found).sum())
        if n_out:
            warnings.warn(
                f"{n_out} of {n_particles} particles are outside the constraint: give start points inside it, or more "
                "steps",
                RuntimeWarning,
                stacklevel=2,
            )
        return found if isinstance(start, Tensor) else found.cpu().numpy()

    def _start(self, x: Tensor | None, n: int, dimension: int | None, generator: torch.Generator) -> tuple[Tensor, int]:
        """Coordinates of the first particles, and d."""
        known = {
            "dimension": dimension,
            "start": None if x is None else x.shape[1],
            "the constraint": self.constraint.dimension(),
        }
        stated = {name: d for name, d in known.items() if d is not None}
        if not stated:
            raise ValueError("the dimension of the points is not known: give dimension=d, or start points (n, d)")
        if len(set(stated.values())) > 1:
            raise ValueError("dimensions differ: " + ", ".join(f"{d} by {name}" for name, d in stated.items()))
        d = next(iter(stated.values()))
        if isinstance(d, bool) or not isinstance(d, int | np.integer) or d < 1:
            raise ValueError(f"dimension is {d!r}; give a whole number, 1 or more")
        if x is not None:
            return self.constraint.coordinates(x), int(d)
        return self.constraint.start(n, int(d), torch.zeros(0, device=generator.device), generator), int(d)

    def _moved(
        self, z: Tensor, n_steps: int, dimension: int, generator: torch.Generator, verbose: bool, as_tensor: bool
    ) -> Tensor:
        """Coordinates after the last step."""
        done = 0
        with show_progress(self.name, enabled=verbose) as report:
            try:
                for moved in self._positions(z, n_steps, dimension, generator):
                    z, done = moved, done + 1
                    report(done, n_steps, f"{len(z)} particles")
            except KeyboardInterrupt:
                found = self.constraint.points(z).detach()
                raise Interrupted(found if as_tensor else found.cpu().numpy(), done, n_steps) from None
        return z

    def _log_densities(self, x: Float[Tensor, "n d"], step: int) -> Float[Tensor, " n"]:
        """The user's function at points, checked: finite or minus infinity."""
        found = self.log_density(x)
        if not isinstance(found, Tensor) or found.shape != x.shape[:1]:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"log_density gave {what} for points {tuple(x.shape)}; it must give a tensor ({len(x)},)")
        wrong = found.isnan() | (found == torch.inf)
        if wrong.any():
            raise ValueError(
                _where("log_density is", found, wrong, x, step)
                + ": give a log density that is defined everywhere, keep points where it is by constraint=, or take a "
                "smaller step"
            )
        return found.to(x)

    def _target(self, z: Float[Tensor, "n m"], step: int) -> tuple[Float[Tensor, " n"], Float[Tensor, "n m"]]:
        """Log densities in the coordinates, with the volume of the map, and their gradients."""
        z = z.detach().requires_grad_()
        x = self.constraint.points(z)
        value = self._log_densities(x, step) + self.constraint.log_volume(z)
        return value.detach(), gradient_of(value, z)

    def _check_positive(self, value: Tensor, gradient: Tensor, x: Tensor, step: int) -> None:
        """`ValueError` where a density is zero or its gradient not finite: there is no direction to move in."""
        zero = value == -torch.inf
        if zero.any():
            raise ValueError(
                _where("log_density is", value, zero, x, step)
                + f": {self.name} needs a density above zero; give start points where it is, or constraint="
            )
        wrong = ~gradient.isfinite().all(-1)
        if wrong.any():
            raise ValueError(
                _where("the gradient of log_density is", gradient[:, 0], wrong, x, step, gradient)
                + ": make it finite there, for example with torch.where on the arguments of roots and logarithms"
            )


def gradient_of(value: Tensor, at: Tensor) -> Tensor:
    """Gradient of the sum of values; zero where they do not depend on `at`."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(value.sum(), at, allow_unused=True, retain_graph=True)
    return torch.zeros_like(at) if found is None else found


def _where(what: str, value: Tensor, wrong: Tensor, x: Tensor, step: int, shown: Tensor | None = None) -> str:
    """Start of a message: what it is, where and when."""
    first = int(wrong.nonzero()[0, 0])
    number = (value if shown is None else shown)[first].tolist()
    when = "at the start" if step == 0 else f"after {step} steps"
    point = [float(f"{one:.6g}") for one in x[first].tolist()]
    return f"{what} {number} {when} for {int(wrong.sum())} of {len(x)} particles, first at x = {point}"


def _start_points(start: Any, n: int) -> Tensor | None:
    """Start points as a floating-point tensor, or None where there are none."""
    if start is None:
        return None
    x = start.detach().clone() if isinstance(start, Tensor) else torch.tensor(np.asarray(plain(start, "start")))
    if not x.is_floating_point():
        x = x.float()
    if x.ndim != 2 or len(x) != n or not x.shape[1]:
        raise ValueError(f"start has shape {tuple(x.shape)}; give ({n}, d), one point per particle")
    if not x.isfinite().all():
        raise ValueError(f"start has {int((~x.isfinite()).sum())} entries that are not finite")
    return x


def _generator(seed: int | torch.Generator, device: torch.device | str) -> torch.Generator:
    """The generator given, or a new one."""
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed is {seed!r}; give a whole number, or a torch.Generator")
    return torch.Generator(device=device).manual_seed(checked_seed(int(seed)))
