"""Sparse codes of a given dictionary by optimisation: LCA, ISTA and FISTA, batched, with checks of optimality.

All three minimise ``1/2 ||x - a Phi||^2 + price sum_k |a_k|`` over the code a (soft; rectified: with a >= 0), where
`price` is the sparsity weight; it is the problem of `sklearn.decomposition.sparse_encode` with ``alpha = price``. The
hard threshold of the LCA finds a stationary point of
``1/2 ||x - a Phi||^2 + price^2 / 2 sum_k 1[a_k != 0] / ||phi_k||^2`` instead. Atoms may have any norm.

An inference has an explicit state, so that one step can be taken at a time and the stimulus may change between steps:
``state = method.init_state(n)``, ``state = method.infer_step(state, frame)``, ``method.codes(state)``. :func:`lca`,
:func:`ista` and :func:`fista` run it until the code of every stimulus fulfils the conditions of optimality to a
tolerance.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .thresholds import THRESHOLDS, SparsityWeight

POWER_METHOD_STEPS = 100
"""Products with the Gram matrix from which its largest eigenvalue is found."""
EIGENVALUE_MARGIN = 1.05
"""The power method approaches the eigenvalue from below: after 100 steps from a random start its relative error is at
most 0.87 ln(n) / 99 on average (Kuczynski & Wozniakowski 1992), 5 % for n = 512."""
STEPS_BETWEEN_CHECKS = 10
"""Steps between checks of optimality; stimuli that are done leave the batch at a check."""


class State(NamedTuple):
    """The state of an inference, one row per stimulus."""

    code: Float[Tensor, "B K"]
    """(B, K)."""
    overlap: Float[Tensor, "B K"]
    """(B, K) ``a Phi Phi^T``: inner products of the reconstruction with the atoms."""
    auxiliary: tuple[Tensor, ...]
    """Auxiliary variables of the method, each (B, K) or (B, 1): the membrane potential (LCA); the last code, its
    overlap and the momentum (FISTA); none (ISTA)."""


class SparseCodes(NamedTuple):
    """Codes, and for each stimulus the steps of its inference and how near to the optimum it ended."""

    codes: Float[Tensor, "B K"]
    """(B, K)."""
    steps: Int64[Tensor, " B"]
    """(B,) steps of inference of each stimulus, int64."""
    violation: Float[Tensor, " B"]
    """(B,) largest violation of the conditions of optimality, divided by the largest drive max_k |phi_k . x|."""
    converged: Bool[Tensor, " B"]
    """(B,) whether `violation` is within the tolerance."""
    messages: Int64[Tensor, " B"]
    """(B,) number of units with a non-zero code, summed over steps, int64: the messages between units if only these
    units send one at each step."""


class SparseInference(ABC):
    """A method that codes stimuli with a given dictionary. Subclasses are final.

    Parameters
    ----------
    dictionary
        (K, D), float32 or float64; atoms of any norm; the code of a zero atom stays zero.
    price
        Sparsity weight: one number, or (K,) one per unit.
    threshold
        A key of :data:`THRESHOLDS`.
    """

    citation: ClassVar[str]

    def __init__(self, dictionary: Float[Tensor, "K D"], price: SparsityWeight, threshold: str) -> None:
        n_units, n_pixels = dictionary.shape
        self.dictionary, self.sparsity_weight, self.threshold = dictionary, price, THRESHOLDS[threshold]
        self.squared_norms = dictionary.square().sum(-1)  # (K,)
        self.gram = dictionary @ dictionary.mT if n_units <= 2 * n_pixels else None
        self.macs_per_step = min(n_units**2, 2 * n_units * n_pixels)
        """Dense multiply-accumulates of one step per stimulus; the drive adds K x D to the first step."""

    def _overlap(self, code: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        if self.gram is not None:
            return code @ self.gram
        return (code @ self.dictionary) @ self.dictionary.mT

    def drive(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """(B, K) inner products of stimuli (B, D) with the atoms."""
        return x @ self.dictionary.mT

    def init_state(self, n: int) -> State:
        """The initial state of `n` stimuli, with codes of zero."""
        code = self.dictionary.new_zeros(n, len(self.dictionary))
        return State(code, code, self._initial_auxiliary(code))

    def infer_step(self, state: State, frame: Float[Tensor, "B D"]) -> State:
        """One step of inference for the stimuli `frame` (B, D)."""
        return self.advance(state, self.drive(frame))

    def codes(self, state: State) -> Float[Tensor, "B K"]:
        """(B, K) codes of a state."""
        return state.code

    def violation(self, state: State, drive: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """(B,) largest violation of the conditions of optimality over units, in the unit of the sparsity weight."""
        return self.threshold.violation(state.code, state.overlap - drive, self.sparsity_weight).amax(-1)

    @abstractmethod
    def _initial_auxiliary(self, zeros: Float[Tensor, "B K"]) -> tuple[Tensor, ...]:
        """Auxiliary variables of the initial state; `zeros` is (B, K)."""

    @abstractmethod
    def advance(self, state: State, drive: Float[Tensor, "B K"]) -> State:
        """One step of inference for a drive (B, K)."""

    @torch.no_grad()
    def solve(self, x: Float[Tensor, "B D"], *, tolerance: float, max_steps: int) -> SparseCodes:
        """Codes of stimuli (B, D), from codes of zero; each stops once its violation is within `tolerance`."""
        drive = self.drive(x)
        scale = drive.abs().amax(-1).clamp_min(torch.finfo(drive.dtype).tiny)
        state, step = self.init_state(len(x)), 0
        rows = torch.arange(len(x), device=x.device)
        messages = torch.zeros_like(rows)
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
                out.converged[ended], out.messages[ended] = solved[done], messages[done]
                out.steps[ended] = step
                keep = ~done
                rows, messages, drive, scale = rows[keep], messages[keep], drive[keep], scale[keep]
                state = State(state.code[keep], state.overlap[keep], tuple(t[keep] for t in state.auxiliary))
            if not len(rows):
                return out
            for _ in range(min(STEPS_BETWEEN_CHECKS, max_steps - step)):
                state = self.advance(state, drive)
                messages += state.code.count_nonzero(-1)
                step += 1


def largest_gram_eigenvalue(dictionary: Float[Tensor, "K D"]) -> Float[Tensor, ""]:
    """Largest eigenvalue of ``Phi Phi^T`` by the power method, times a margin that makes it an upper bound.

    Examples
    --------
    >>> round(float(largest_gram_eigenvalue(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))) / EIGENVALUE_MARGIN, 4)
    9.0
    """
    n = torch.arange(1, len(dictionary) + 1, dtype=dictionary.dtype, device=dictionary.device)
    vector, tiny = torch.cos(n), torch.finfo(dictionary.dtype).tiny  # not orthogonal to the eigenvector by symmetry
    norm = vector.new_zeros(())
    for _ in range(POWER_METHOD_STEPS):
        vector = vector / torch.linalg.vector_norm(vector).clamp_min(tiny)
        vector = (vector @ dictionary) @ dictionary.mT
        norm = torch.linalg.vector_norm(vector)
    return EIGENVALUE_MARGIN * norm


def _reciprocal_or_zero(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 / x, and 0 where x is 0."""
    return torch.where(x > 0, 1.0 / torch.where(x > 0, x, 1.0), 0.0)


class LCA(SparseInference):
    """Locally competitive algorithm: leaky integrators with lateral inhibition by the overlap of their atoms.

    ``u' = phi_k . x - sum_(j != k) (phi_k . phi_j) a_j - u_k``, ``a_k = T(u_k) / ||phi_k||^2``. The size
    of an Euler step is one over the largest eigenvalue of the Gram matrix of the normalised atoms, in units of the
    membrane's time constant. With atoms of unit norm this is the published system; with others it is that of the
    normalised atoms.

    References
    ----------
    Rozell, Johnson, Baraniuk & Olshausen, "Sparse coding via thresholding and local competition in neural circuits",
    Neural Computation 20 (2008).
    """

    citation = "Rozell, Johnson, Baraniuk & Olshausen, Neural Computation 20 (2008)"

    def __init__(self, dictionary: Float[Tensor, "K D"], price: SparsityWeight, threshold: str = "soft") -> None:
        super().__init__(dictionary, price, threshold)
        self.reciprocal_squared_norms = _reciprocal_or_zero(self.squared_norms)
        unit_atoms = dictionary * self.reciprocal_squared_norms.sqrt()[:, None]
        self.step_size = _reciprocal_or_zero(largest_gram_eigenvalue(unit_atoms))

    def _initial_auxiliary(self, zeros: Float[Tensor, "B K"]) -> tuple[Tensor, ...]:
        return (zeros,)

    def advance(self, state: State, drive: Float[Tensor, "B K"]) -> State:
        (potential,) = state.auxiliary
        inhibition = state.overlap - self.squared_norms * state.code  # a unit does not inhibit itself
        potential = potential + self.step_size * (drive - inhibition - potential)
        code = self.threshold.apply(potential, self.sparsity_weight) * self.reciprocal_squared_norms
        return State(code, self._overlap(code), (potential,))


class ISTA(SparseInference):
    """Iterative shrinkage: a gradient step on the squared error, then the threshold.

    References
    ----------
    Daubechies, Defrise & De Mol, Comm. Pure Appl. Math. 57 (2004).
    """

    citation = "Daubechies, Defrise & De Mol, Comm. Pure Appl. Math. 57 (2004)"

    def __init__(self, dictionary: Float[Tensor, "K D"], price: SparsityWeight, nonnegative: bool = False) -> None:
        super().__init__(dictionary, price, "rectified" if nonnegative else "soft")
        self.step_size = _reciprocal_or_zero(largest_gram_eigenvalue(dictionary))

    def _initial_auxiliary(self, zeros: Float[Tensor, "B K"]) -> tuple[Tensor, ...]:
        return ()

    def advance(self, state: State, drive: Float[Tensor, "B K"]) -> State:
        point = state.code + self.step_size * (drive - state.overlap)
        code = self.threshold.apply(point, self.step_size * self.sparsity_weight)
        return State(code, self._overlap(code), ())


class FISTA(SparseInference):
    """Accelerated iterative shrinkage; the momentum restarts where it points uphill.

    References
    ----------
    Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009); O'Donoghue & Candes, Found. Comput. Math. 15 (2015), restarts.
    """

    citation = "Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009), with restarts (O'Donoghue & Candes 2015)"

    def __init__(self, dictionary: Float[Tensor, "K D"], price: SparsityWeight, nonnegative: bool = False) -> None:
        super().__init__(dictionary, price, "rectified" if nonnegative else "soft")
        self.step_size = _reciprocal_or_zero(largest_gram_eigenvalue(dictionary))

    def _initial_auxiliary(self, zeros: Float[Tensor, "B K"]) -> tuple[Tensor, ...]:
        return zeros, zeros, zeros[:, :1]

    def advance(self, state: State, drive: Float[Tensor, "B K"]) -> State:
        last, last_overlap, momentum = state.auxiliary
        next_momentum = 0.5 * (1.0 + (1.0 + 4.0 * momentum.square()).sqrt())
        extrapolation = (momentum - 1.0) / next_momentum
        point = state.code + extrapolation * (state.code - last)
        overlap = state.overlap + extrapolation * (state.overlap - last_overlap)  # of the point: the overlap is linear
        code = self.threshold.apply(point + self.step_size * (drive - overlap), self.step_size * self.sparsity_weight)
        uphill = ((point - code) * (code - state.code)).sum(-1, keepdim=True) > 0
        next_momentum = torch.where(uphill, 1.0, next_momentum)
        return State(code, self._overlap(code), (state.code, state.overlap, next_momentum))


class Method(NamedTuple):
    """An entry of :data:`INFERENCES`."""

    build: Callable[[Float[Tensor, "K D"], SparsityWeight], SparseInference]
    """(dictionary, sparsity weight) -> the inference."""
    label: str
    """Label in tables and figures."""


INFERENCES: dict[str, Method] = {
    "lca-soft": Method(partial(LCA, threshold="soft"), "LCA, soft threshold"),
    "lca-hard": Method(partial(LCA, threshold="hard"), "LCA, hard threshold"),
    "lca-rectified": Method(partial(LCA, threshold="rectified"), "LCA, rectified"),
    "ista": Method(ISTA, "ISTA"),
    "fista": Method(FISTA, "FISTA"),
    "nonnegative": Method(partial(FISTA, nonnegative=True), "FISTA, codes of zero or more"),
}
"""Every inference of sparse codes, by the name that configurations and options use."""


def lca(
    x: Tensor,
    dictionary: Tensor,
    price: SparsityWeight,
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
        Sparsity weight (the threshold): a number, or (K,) one per unit; zero or more.
    threshold
        "soft" and "rectified" (codes >= 0) solve the Lasso; "hard" finds a stationary point of the problem that
        penalises the number of active units.
    tolerance
        A stimulus is done when no condition of optimality is violated by more than this share of its largest drive.
    max_steps
        Largest number of steps per stimulus; `converged` is false where they were not enough.

    Raises
    ------
    ValueError
        For invalid shapes, types or values.

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
    price: SparsityWeight,
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
    price: SparsityWeight,
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


def check_problem(
    x: Tensor, dictionary: Tensor, price: SparsityWeight, tolerance: float, max_steps: int
) -> SparsityWeight:
    """Check a problem, and return its sparsity weight in the dictionary's type.

    Raises
    ------
    ValueError
        For invalid shapes, types or values; the message says what to change.
    """
    if dictionary.ndim != 2 or 0 in dictionary.shape:
        raise ValueError(f"dictionary has shape {tuple(dictionary.shape)}; give a non-empty (K, D) matrix")
    if x.ndim != 2 or x.shape[1] != dictionary.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; with this dictionary it must be (B, {dictionary.shape[1]})")
    if dictionary.dtype not in (torch.float32, torch.float64) or x.dtype != dictionary.dtype:
        raise ValueError(f"x is {x.dtype} and dictionary {dictionary.dtype}; both must be float32 or both float64")
    weights = torch.as_tensor(price).to(dictionary)
    if weights.shape not in ((), (len(dictionary),)) or not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(f"price is {price}; give a finite number of zero or more, or {len(dictionary)} of them")
    if not x.isfinite().all() or not dictionary.isfinite().all():
        raise ValueError("x or dictionary holds NaN or infinite values; drop or fill these rows first")
    if not tolerance > 0 or max_steps < 0:
        raise ValueError(f"tolerance is {tolerance} and max_steps {max_steps}; tolerance > 0 and max_steps >= 0")
    return price if isinstance(price, float | int) else weights
