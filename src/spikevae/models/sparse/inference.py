"""Sparse codes of a given dictionary by optimisation: LCA, ISTA and FISTA, batched, with certificates.

All three look for ``min_a 1/2 ||x - a Phi||^2 + price sum_k |a_k|`` (soft; rectified: with a >= 0), the problem of
`sklearn.decomposition.sparse_encode` with ``alpha = price``. The hard threshold of the LCA finds a stationary point of
``1/2 ||x - a Phi||^2 + price^2 / 2 sum_k 1[a_k != 0] / ||phi_k||^2`` instead. Atoms may have any norm.

An inference has an explicit state, so that one step can be taken at a time and the stimulus may change between steps:
``state = method.init_state(n)``, ``state = method.infer_step(state, frame)``, ``method.codes(state)``. :func:`lca`,
:func:`ista` and :func:`fista` run it until every stimulus' code fulfils the conditions of optimality to a tolerance.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

Price: TypeAlias = float | Tensor

POWER_STEPS = 100
"""Products with the Gram matrix from which its largest eigenvalue is found."""
POWER_MARGIN = 1.05
"""The power method comes from below: after 100 steps from a start like any other it misses at most
0.87 ln(n) / 99 of the eigenvalue on average (Kuczynski & Wozniakowski 1992), 5 % for n = 512."""
CHECK_EVERY = 10
"""Steps between checks of optimality; stimuli that are done leave the batch then."""


def _shrink(u: Tensor, price: Price) -> Tensor:
    return u.sign() * (u.abs() - price).clamp_min(0.0)


def _shrink_violation(code: Tensor, gradient: Tensor, price: Price) -> Tensor:
    silent = (gradient.abs() - price).clamp_min(0.0)
    return torch.where(code != 0, (gradient + price * code.sign()).abs(), silent)


def _rectify(u: Tensor, price: Price) -> Tensor:
    return (u - price).clamp_min(0.0)


def _rectify_violation(code: Tensor, gradient: Tensor, price: Price) -> Tensor:
    pull = gradient + price
    return torch.where(code > 0, pull.abs(), (-pull).clamp_min(0.0))


def _keep(u: Tensor, price: Price) -> Tensor:
    return torch.where(u.abs() > price, u, 0.0)


def _keep_violation(code: Tensor, gradient: Tensor, price: Price) -> Tensor:
    return torch.where(code != 0, gradient.abs(), (gradient.abs() - price).clamp_min(0.0))


class Threshold(NamedTuple):
    """A thresholding function and the problem that it solves."""

    apply: Callable[[Tensor, Price], Tensor]
    """(u, price) -> thresholded u."""
    violation: Callable[[Tensor, Tensor, Price], Tensor]
    """(code, gradient of the squared error / 2, price) -> distance from the conditions of optimality, by unit."""
    cost: Callable[[Tensor, Price], Tensor]
    """(code of unit-norm atoms, price) -> what each entry adds to the objective."""


THRESHOLDS: dict[str, Threshold] = {
    "soft": Threshold(_shrink, _shrink_violation, lambda a, price: price * a.abs()),
    "rectified": Threshold(_rectify, _rectify_violation, lambda a, price: price * a),
    "hard": Threshold(_keep, _keep_violation, lambda a, price: 0.5 * price**2 * (a != 0)),
}


class State(NamedTuple):
    """Where an inference stands, one row a stimulus."""

    code: Tensor
    """(B, K)."""
    overlap: Tensor
    """(B, K) ``a Phi Phi^T``: what the code's own reconstruction drives each unit with."""
    carried: tuple[Tensor, ...]
    """What else the method keeps from step to step, each (B, K) or (B, 1): the membrane potential (LCA); the last code,
    its overlap and the momentum (FISTA); nothing (ISTA)."""


class SparseCodes(NamedTuple):
    """Codes and how they were found."""

    codes: Tensor
    """(B, K)."""
    steps: Tensor
    """(B,) steps until the check that ended each stimulus' inference, int64."""
    violation: Tensor
    """(B,) largest violation of the conditions of optimality, by the stimulus' largest drive max_k |phi_k . x|."""
    converged: Tensor
    """(B,) whether `violation` is within the tolerance."""
    messages: Tensor
    """(B,) units that were not zero, summed over steps: messages sent if only active units send, int64."""


class SparseInference(ABC):
    """A method that codes stimuli with a given dictionary. Subclasses are final.

    Parameters
    ----------
    dictionary
        (K, D), float32 or float64; atoms of any norm, zero atoms stay silent.
    price
        Sparsity price: one number, or (K,) one a unit.
    threshold
        A key of :data:`THRESHOLDS`.
    """

    citation: ClassVar[str]

    def __init__(self, dictionary: Tensor, price: Price, threshold: str) -> None:
        n_units, n_pixels = dictionary.shape
        self.dictionary, self.price, self.threshold = dictionary, price, THRESHOLDS[threshold]
        self.squared_norms = dictionary.square().sum(-1)  # (K,)
        self.gram = dictionary @ dictionary.mT if n_units <= 2 * n_pixels else None
        self.macs_per_step = min(n_units**2, 2 * n_units * n_pixels)
        """Multiply-accumulates of a step on one stimulus, dense; the first step adds K x D for the drive."""

    def _overlap(self, code: Tensor) -> Tensor:
        if self.gram is not None:
            return code @ self.gram
        return (code @ self.dictionary) @ self.dictionary.mT

    def drive(self, x: Tensor) -> Tensor:
        """(B, K) inner products of stimuli (B, D) with the atoms."""
        return x @ self.dictionary.mT

    def init_state(self, n: int) -> State:
        """The silent state of `n` stimuli."""
        code = self.dictionary.new_zeros(n, len(self.dictionary))
        return State(code, code, self._carry(code))

    def infer_step(self, state: State, frame: Tensor) -> State:
        """One step towards the code of the stimuli `frame` (B, D)."""
        return self.advance(state, self.drive(frame))

    def codes(self, state: State) -> Tensor:
        """(B, K) codes of a state."""
        return state.code

    def violation(self, state: State, drive: Tensor) -> Tensor:
        """(B,) largest violation of the conditions of optimality over the units, in the unit of the price."""
        return self.threshold.violation(state.code, state.overlap - drive, self.price).amax(-1)

    @abstractmethod
    def _carry(self, silent: Tensor) -> tuple[Tensor, ...]:
        """What a silent state carries; `silent` is (B, K) zeros."""

    @abstractmethod
    def advance(self, state: State, drive: Tensor) -> State:
        """One step under a drive (B, K)."""

    @torch.no_grad()
    def solve(self, x: Tensor, *, tolerance: float, max_steps: int) -> SparseCodes:
        """Codes of stimuli (B, D) from silence; each stops by itself once its violation is within `tolerance`."""
        drive = self.drive(x)
        scale = drive.abs().amax(-1).clamp_min(torch.finfo(drive.dtype).tiny)
        state, step = self.init_state(len(x)), 0
        rows = torch.arange(len(x), device=x.device)
        sent = torch.zeros_like(rows)
        out = SparseCodes(
            state.code.clone(),
            torch.zeros_like(rows),
            torch.zeros_like(scale),
            torch.zeros_like(rows, dtype=torch.bool),
            torch.zeros_like(rows),
        )
        while True:
            violation = self.violation(state, drive) / scale
            solved = violation <= tolerance
            done = solved | ~violation.isfinite() if step < max_steps else torch.ones_like(solved)
            if bool(done.any()):
                ended = rows[done]
                out.codes[ended], out.violation[ended] = state.code[done], violation[done]
                out.converged[ended], out.messages[ended] = solved[done], sent[done]
                out.steps[ended] = step
                keep = ~done
                rows, sent, drive, scale = rows[keep], sent[keep], drive[keep], scale[keep]
                state = State(state.code[keep], state.overlap[keep], tuple(t[keep] for t in state.carried))
            if not len(rows):
                return out
            for _ in range(min(CHECK_EVERY, max_steps - step)):
                state = self.advance(state, drive)
                sent += state.code.count_nonzero(-1)
                step += 1


def spectral_norm(dictionary: Tensor) -> Tensor:
    """Largest eigenvalue of ``Phi Phi^T`` by the power method, with a margin that makes it an upper bound.

    Examples
    --------
    >>> round(float(spectral_norm(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))) / POWER_MARGIN, 4)
    9.0
    """
    n = torch.arange(1, len(dictionary) + 1, dtype=dictionary.dtype, device=dictionary.device)
    vector, tiny = torch.cos(n), torch.finfo(dictionary.dtype).tiny  # a start without the symmetries of a dictionary
    norm = vector.new_zeros(())
    for _ in range(POWER_STEPS):
        vector = vector / torch.linalg.vector_norm(vector).clamp_min(tiny)
        vector = (vector @ dictionary) @ dictionary.mT
        norm = torch.linalg.vector_norm(vector)
    return POWER_MARGIN * norm


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x > 0, 1.0 / torch.where(x > 0, x, 1.0), 0.0)


class LCA(SparseInference):
    """Locally competitive algorithm: leaky integrators that inhibit each other by the overlap of their atoms.

    ``u' = phi_k . x - sum_(j != k) (phi_k . phi_j) a_j - u_k``, ``a_k = T(u_k) / ||phi_k||^2``; Euler steps of one over
    the largest eigenvalue of the normalised Gram matrix, in units of the membrane's time constant. With unit norms
    this is the published system; with others it is the same system of the normalised atoms.

    References
    ----------
    Rozell, Johnson, Baraniuk & Olshausen, "Sparse coding via thresholding and local competition in neural circuits",
    Neural Computation 20 (2008).
    """

    citation = "Rozell, Johnson, Baraniuk & Olshausen, Neural Computation 20 (2008)"

    def __init__(self, dictionary: Tensor, price: Price, threshold: str = "soft") -> None:
        super().__init__(dictionary, price, threshold)
        self.per_norm = _reciprocal(self.squared_norms)
        self.step = _reciprocal(spectral_norm(dictionary * self.per_norm.sqrt()[:, None]))

    def _carry(self, silent: Tensor) -> tuple[Tensor, ...]:
        return (silent,)

    def advance(self, state: State, drive: Tensor) -> State:
        (potential,) = state.carried
        inhibition = state.overlap - self.squared_norms * state.code  # a unit does not inhibit itself
        potential = potential + self.step * (drive - inhibition - potential)
        code = self.threshold.apply(potential, self.price) * self.per_norm
        return State(code, self._overlap(code), (potential,))


class ISTA(SparseInference):
    """Iterative shrinkage: a gradient step on the squared error, then the threshold.

    References
    ----------
    Daubechies, Defrise & De Mol, Comm. Pure Appl. Math. 57 (2004).
    """

    citation = "Daubechies, Defrise & De Mol, Comm. Pure Appl. Math. 57 (2004)"

    def __init__(self, dictionary: Tensor, price: Price, nonnegative: bool = False) -> None:
        super().__init__(dictionary, price, "rectified" if nonnegative else "soft")
        self.step = _reciprocal(spectral_norm(dictionary))

    def _carry(self, silent: Tensor) -> tuple[Tensor, ...]:
        return ()

    def advance(self, state: State, drive: Tensor) -> State:
        code = self.threshold.apply(state.code + self.step * (drive - state.overlap), self.step * self.price)
        return State(code, self._overlap(code), ())


class FISTA(SparseInference):
    """Accelerated iterative shrinkage; the momentum starts again where it points uphill.

    References
    ----------
    Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009); O'Donoghue & Candes, Found. Comput. Math. 15 (2015), restarts.
    """

    citation = "Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009), with restarts (O'Donoghue & Candes 2015)"

    def __init__(self, dictionary: Tensor, price: Price, nonnegative: bool = False) -> None:
        super().__init__(dictionary, price, "rectified" if nonnegative else "soft")
        self.step = _reciprocal(spectral_norm(dictionary))

    def _carry(self, silent: Tensor) -> tuple[Tensor, ...]:
        return silent, silent, silent[:, :1]

    def advance(self, state: State, drive: Tensor) -> State:
        last, last_overlap, momentum = state.carried
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum.square()).sqrt())
        ahead = (momentum - 1.0) / following
        point = state.code + ahead * (state.code - last)
        overlap = state.overlap + ahead * (state.overlap - last_overlap)  # of the point: the overlap is linear
        code = self.threshold.apply(point + self.step * (drive - overlap), self.step * self.price)
        uphill = ((point - code) * (code - state.code)).sum(-1, keepdim=True) > 0
        following = torch.where(uphill, 1.0, following)
        return State(code, self._overlap(code), (state.code, state.overlap, following))


class Method(NamedTuple):
    """An inference by name."""

    build: Callable[[Tensor, Price], SparseInference]
    """(dictionary, price) -> the inference."""
    label: str
    """Word in tables and figures."""


INFERENCES: dict[str, Method] = {
    "lca-soft": Method(partial(LCA, threshold="soft"), "LCA, soft threshold"),
    "lca-hard": Method(partial(LCA, threshold="hard"), "LCA, hard threshold"),
    "lca-rectified": Method(partial(LCA, threshold="rectified"), "LCA, rectified"),
    "ista": Method(ISTA, "ISTA"),
    "fista": Method(FISTA, "FISTA"),
    "nonnegative": Method(partial(FISTA, nonnegative=True), "FISTA, codes of zero or more"),
}
"""Every inference of sparse codes; what names one anywhere else is a key of this table."""


def lca(
    x: Tensor,
    dictionary: Tensor,
    price: Price,
    *,
    threshold: Literal["soft", "hard", "rectified"] = "soft",
    tolerance: float = 1e-4,
    max_steps: int = 1000,
) -> SparseCodes:
    """Codes by the locally competitive algorithm, see :class:`LCA`.

    Parameters
    ----------
    x
        (B, D) stimuli, of the dictionary's type (float32 or float64).
    dictionary
        (K, D).
    price
        Sparsity price (the threshold): a number, or (K,) one a unit; zero or more.
    threshold
        "soft" and "rectified" (codes >= 0) solve the Lasso, "hard" finds a stationary point of the count of units.
    tolerance
        A stimulus is done when no condition of optimality is violated by more than this share of its largest drive.
    max_steps
        Steps after which a stimulus is left as it is, its `converged` false.

    Raises
    ------
    ValueError
        For shapes, types or values that do not fit.

    Examples
    --------
    >>> found = lca(torch.tensor([[3.0, 0.5]]), torch.eye(2), 1.0)
    >>> found.codes.round(decimals=3), found.converged
    (tensor([[2., 0.]]), tensor([True]))
    """
    if threshold not in THRESHOLDS:
        raise ValueError(f"threshold is {threshold!r}; use one of {', '.join(THRESHOLDS)}")
    price = check_problem(x, dictionary, price, tolerance, max_steps)
    return LCA(dictionary, price, threshold).solve(x, tolerance=tolerance, max_steps=max_steps)


def ista(
    x: Tensor,
    dictionary: Tensor,
    price: Price,
    *,
    nonnegative: bool = False,
    tolerance: float = 1e-4,
    max_steps: int = 1000,
) -> SparseCodes:
    """Codes by iterative shrinkage, see :class:`ISTA`; arguments as of :func:`lca`."""
    price = check_problem(x, dictionary, price, tolerance, max_steps)
    return ISTA(dictionary, price, nonnegative).solve(x, tolerance=tolerance, max_steps=max_steps)


def fista(
    x: Tensor,
    dictionary: Tensor,
    price: Price,
    *,
    nonnegative: bool = False,
    tolerance: float = 1e-4,
    max_steps: int = 1000,
) -> SparseCodes:
    """Codes by accelerated iterative shrinkage, see :class:`FISTA`; arguments as of :func:`lca`.

    Examples
    --------
    >>> x = torch.tensor([[3.0, -2.0]])
    >>> fista(x, torch.eye(2), 1.0).codes.round(decimals=3), fista(x, torch.eye(2), 1.0, nonnegative=True).codes
    (tensor([[ 2., -1.]]), tensor([[2., 0.]]))
    """
    price = check_problem(x, dictionary, price, tolerance, max_steps)
    return FISTA(dictionary, price, nonnegative).solve(x, tolerance=tolerance, max_steps=max_steps)


def check_problem(x: Tensor, dictionary: Tensor, price: Price, tolerance: float, max_steps: int) -> Price:
    """The price in the dictionary's type; refuse a problem that cannot be solved as it stands, naming what to mend."""
    if dictionary.ndim != 2 or 0 in dictionary.shape:
        raise ValueError(f"dictionary has shape {tuple(dictionary.shape)}; give a non-empty (K, D) matrix")
    if x.ndim != 2 or x.shape[1] != dictionary.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; with this dictionary it must be (B, {dictionary.shape[1]})")
    if dictionary.dtype not in (torch.float32, torch.float64) or x.dtype != dictionary.dtype:
        raise ValueError(f"x is {x.dtype} and dictionary {dictionary.dtype}; both must be float32 or both float64")
    prices = torch.as_tensor(price).to(dictionary)
    if prices.shape not in ((), (len(dictionary),)) or not (prices.isfinite() & (prices >= 0)).all():
        raise ValueError(f"price is {price}; give a finite number of zero or more, or {len(dictionary)} of them")
    if not x.isfinite().all() or not dictionary.isfinite().all():
        raise ValueError("x or dictionary holds NaN or infinite values; drop or fill these rows first")
    if not tolerance > 0 or max_steps < 0:
        raise ValueError(f"tolerance is {tolerance} and max_steps {max_steps}; tolerance > 0 and max_steps >= 0")
    return price if isinstance(price, float | int) else prices
