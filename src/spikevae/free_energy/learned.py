"""Learned free energy perturbation: maps that are trained to take one state to the other, LFEP and LBAR."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import plain
from .._scope import own_scope
from .._seeds import checked_seed
from ..progress import show_progress
from .bar import bar
from .flows import CoordinateFlow, Flow, ParticleFlow, splines
from .maps import Energy, as_box, as_samples, mapped_works, phi_forward, phi_reverse
from .result import Difference
from .zwanzig import zwanzig

CHECKS = 20
"""How often a map in training is compared on samples that it is not trained on."""
VALIDATION = 0.2
"""Share of the samples that a map is not trained on, which choose among its states in training."""
CAP = 100.0
"""Works that are this far above the median count by the logarithm of the rest in training."""


class LearnedMap:
    r"""A coupling flow that is trained to take A to B.

    With samples of both states it minimises the mean of :math:`\Phi_F` plus that of :math:`\Phi_R` (LBAR), which is the
    sum of two divergences; with samples of A alone the mean of :math:`\Phi_F` (LFEP), one divergence plus the
    difference. It starts as the identity. Of its states in training, it keeps the one that is best for a fifth of the
    samples, on which it is not trained: with few samples that may be the identity.

    Parameters
    ----------
    u_a, u_b
        Reduced energies: from points (n, d), or particles (n, N, D), to (n,), by differentiable operations of PyTorch.
    box
        (d,) or (D,) lengths of periodic coordinates; needed for particles.
    relative
        Of particles: map places relative to the first one, so that the map commutes with shifts of all.
    symmetries
        Functions of points, such as reflections, that change neither energies nor volumes: in training, batches are
        those of one of them at random, or as they are.
    layers
        Of the flow; each moves half of the coordinates, or one coordinate of all particles.
    hidden
        Width of its networks.
    bins
        Of its splines.
    steps
        Of Adam.
    batch_size
        Samples of each state per step.
    learning_rate
        At the start; it falls to zero along a cosine.
    seed
        Of weights, batches and split.

    References
    ----------
    Wirnsberger et al. (2020), Journal of Chemical Physics 153, 144112 (arXiv 2002.04913).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> narrow = LearnedMap(
    ...     lambda x: x.square().sum(-1) / 2, lambda x: 2 * (x - 3).square().sum(-1), steps=60,
    ...     learning_rate=0.05, layers=2,
    ... )
    >>> works, _ = narrow.fit(rng.normal(size=(500, 2))).works(rng.normal(size=(500, 2)))
    >>> bool(abs(zwanzig(works).estimate - np.log(4)) < 0.1), zwanzig(works).overlap > 0.7
    (True, True)
    """

    def __init__(
        self,
        u_a: Energy,
        u_b: Energy,
        *,
        box: Any = None,
        relative: bool = False,
        symmetries: Sequence[Callable[[Tensor], Tensor]] = (),
        layers: int = 4,
        hidden: int = 64,
        bins: int = 8,
        steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> None:
        for name, u in (("u_a", u_a), ("u_b", u_b)):
            if not callable(u):
                raise TypeError(f"{name} is {type(u).__name__}; give a function from points to energies")
        sizes = {"layers": layers, "hidden": hidden, "bins": bins, "steps": steps, "batch_size": batch_size}
        for name, value in sizes.items():
            least = 2 if name in ("bins", "hidden") else 1
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}; give a whole number, {least} or more")
        if hidden % 2:
            raise ValueError(f"hidden is {hidden}; give an even number")
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate is {learning_rate!r}; give a number above 0")
        self.u_a, self.u_b, self.box, self.relative = u_a, u_b, box, relative
        self.symmetries: list[Callable[[Tensor], Tensor]] = [lambda x: x, *symmetries]
        self.layers, self.hidden, self.bins = layers, hidden, bins
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.seed = checked_seed(seed)
        self.flow_: Flow | None = None

    @own_scope()
    def fit(self, x_a: Any, x_b: Any = None, *, verbose: bool = False) -> Self:
        """Train on samples of A, and of B if given; Ctrl-C leaves the best map so far in `flow_`.

        Parameters
        ----------
        x_a, x_b
            (n, d) or (n, N, D) samples, numpy or torch; five or more.
        verbose
            Show progress.

        Raises
        ------
        ValueError
            For samples of another shape, too few of them, or energies that are NaN.
        """
        a = as_samples(x_a, "x_a")
        states = [a] if x_b is None else [a, as_samples(x_b, "x_b", like=a)]
        for name, x in zip(("x_a", "x_b"), states):
            if len(x) < 5:
                raise ValueError(f"{name} has {len(x)} samples; a map needs 5 or more to be trained")
        generator = torch.Generator().manual_seed(self.seed)
        flow = self._built(torch.cat(states))
        training, held_out = [], []
        for x in states:
            order = torch.randperm(len(x), generator=generator)
            n_out = max(1, round(VALIDATION * len(x)))
            held_out.append(x[order[:n_out]].float())
            training.append(x[order[n_out:]].float())
        with show_progress("map", enabled=verbose) as report:
            try:
                self._train(flow, training, held_out, generator, report)
            finally:
                self.flow_ = flow.double().requires_grad_(False)
        return self

    def _built(self, x: Tensor) -> Flow:
        """An untrained flow for points like these."""
        splines()
        box = as_box(self.box, x)
        shared = {"n_layers": self.layers, "hidden": self.hidden, "bins": self.bins}
        with torch.random.fork_rng(devices=[]):  # networks of PyTorch take their first weights from its own generator
            torch.manual_seed(self.seed)
            if x.ndim == 3:
                if box is None or x.shape[2] < 2 or x.shape[1] < 2:
                    raise ValueError(
                        "particles (n, N, D) need box, and two or more particles in two or more dimensions"
                    )
                return ParticleFlow(box, relative=self.relative, **shared)
            if self.relative:
                raise ValueError("relative=True is for particles (n, N, D), and points are (n, d)")
            if box is not None:
                scale = box / (2 * torch.pi)
                return CoordinateFlow(torch.zeros_like(scale), scale, circular=True, **shared)
            scale = x.std(0).clamp_min(1e-6)
            return CoordinateFlow(x.mean(0), scale, circular=False, **shared)

    def _phis(self, flow: Flow, states: list[Tensor]) -> list[Tensor]:
        found = [phi_forward(self.u_a, self.u_b, flow, states[0])]
        return found + [phi_reverse(self.u_a, self.u_b, flow, x) for x in states[1:]]

    def _train(
        self, flow: Flow, training: list[Tensor], held_out: list[Tensor], generator: torch.Generator, report: Any
    ) -> None:
        """Adam on batches; the flow ends in its best state."""
        with torch.no_grad():
            caps = [phi.median() + CAP for phi in self._phis(flow, held_out)]
        best, kept = self._loss(flow, held_out, caps), copy.deepcopy(flow.state_dict())
        optimiser = torch.optim.Adam(flow.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        every = max(1, self.steps // CHECKS)
        try:
            for step in range(1, self.steps + 1):
                turn = self.symmetries[int(torch.randint(len(self.symmetries), (), generator=generator))]
                batch = [turn(x[torch.randint(len(x), (self.batch_size,), generator=generator)]) for x in training]
                loss = sum(capped(phi, cap).mean() for phi, cap in zip(self._phis(flow, batch), caps))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[union-attr]
                size = torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
                if size.isfinite():
                    optimiser.step()
                schedule.step()
                if step % every == 0 or step == self.steps:
                    value = self._loss(flow, held_out, caps)
                    if value < best:
                        best, kept = value, copy.deepcopy(flow.state_dict())
                report(step, self.steps, f"loss {best:.4g}")
        finally:
            flow.load_state_dict(kept)

    @torch.no_grad()
    def _loss(self, flow: Flow, states: list[Tensor], caps: list[Tensor]) -> float:
        return float(sum(capped(phi, cap).mean() for phi, cap in zip(self._phis(flow, states), caps)))

    def works(self, x_a: Any, x_b: Any = None) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Works through the map, as :func:`mapped_works`; of samples that it was not trained on.

        Raises
        ------
        ValueError
            Before :meth:`fit`.
        """
        if self.flow_ is None:
            raise ValueError("the map is not trained: call fit(x_a, x_b) first")
        return mapped_works(self.u_a, self.u_b, x_a, x_b, map=self.flow_, box=self.box)


def capped(phi: Tensor, cap: Tensor) -> Tensor:
    """Works, above the cap by the logarithm of the rest: particles at one place have an energy of millions."""
    above = (phi - cap).clamp_min(0)
    return torch.where(above > 0, cap + torch.log1p(above), phi)


def targeted(
    u_a: Energy, u_b: Energy, x_a: Any, x_b: Any = None, *, crossed: bool = False, verbose: bool = False, **options: Any
) -> Difference:
    """Train a map on one half of the samples, and estimate the difference on the other: LBAR, or LFEP without x_b.

    A map that has seen the samples makes their works, and so the estimate, too low: it is fitted to their noise.

    Parameters
    ----------
    u_a, u_b
        As of :class:`LearnedMap`.
    x_a, x_b
        Samples (n, d) or (n, N, D) of A, and of B, independent of each other.
    crossed
        Train a second map on the other half, and average both estimates: twice the time, and all samples count.
    verbose
        Show progress.
    options
        Of :class:`LearnedMap`.

    Raises
    ------
    ValueError
        For samples of another shape, too few of them, or energies that are NaN.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(2, 600, 1))
    >>> found = targeted(
    ...     lambda x: x[:, 0] ** 2 / 2, lambda x: 2 * (x[:, 0] - 3) ** 2, x[0], x[1] / 2 + 3, steps=60,
    ...     learning_rate=0.05, layers=1,
    ... )
    >>> found.method, abs(found.estimate - np.log(2)) < 4 * found.standard_error < 0.1
    ('LBAR', True)
    """
    samples = [np.asarray(plain(x, name)) for name, x in (("x_a", x_a), ("x_b", x_b)) if x is not None]
    rng = np.random.default_rng([checked_seed(options.get("seed", 0)), 1])
    halves: list[list[NDArray[Any]]] = [[], []]
    for name, x in zip(("x_a", "x_b"), samples):
        if x.ndim < 2 or len(x) < 10:
            raise ValueError(f"{name} has shape {x.shape}; give (n, d) or (n, N, D), 10 or more samples")
        order = rng.permutation(len(x))
        halves[0].append(x[order[: len(x) // 2]])
        halves[1].append(x[order[len(x) // 2 :]])
    found = []
    for train, rest in (halves, halves[::-1])[: 2 if crossed else 1]:
        learned = LearnedMap(u_a, u_b, **options).fit(*train, verbose=verbose)
        forward, reverse = learned.works(*rest)
        found.append(zwanzig(forward, name="LFEP") if reverse is None else bar(forward, reverse, name="LBAR"))
    return found[0] if len(found) == 1 else averaged(*found)


def averaged(first: Difference, second: Difference) -> Difference:
    """Of two estimates from different samples."""
    mean = lambda name: (getattr(first, name) + getattr(second, name)) / 2
    return Difference(
        mean("estimate"),
        float(np.hypot(first.standard_error, second.standard_error)) / 2,
        mean("lower"),
        mean("upper"),
        mean("overlap"),
        first.method,
        tuple(a + b for a, b in zip(first.samples, second.samples)),
        tuple(dict.fromkeys(first.flags + second.flags)),
    )
