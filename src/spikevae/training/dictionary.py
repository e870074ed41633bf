"""Dictionary learning: sparse codes of mini-batches, and the dictionary that suits all codes seen so far."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._seeds import generator
from ..models.sparse.inference import SparseInference
from ..models.sparse.model import SparseCoding

FORGETTING = 4.0
"""Batch s of t counts (s / t)^FORGETTING: early codes were of a poor dictionary (Mairal et al. 2010, section 3.4.2)."""
INITIAL_NOISE = 0.1
"""Atoms start at random stimuli, turned by noise of this share so that no two are equal."""
UNUSED = 1e-3
"""An atom whose mean squared code is below this share of the average atom's starts again at a stimulus."""


class DictionaryLearning:
    """Online dictionary learning of a :class:`~spikevae.models.sparse.model.SparseCoding` model, in place.

    Minimises ``1/2 ||x - z Phi||^2 + cost(z)`` over codes and unit-norm atoms. After each batch, every atom in turn is
    set to the minimiser of the squared error over all codes seen, the others held fixed: block-coordinate descent on
    ``A = sum z^T z`` and ``B = sum z^T x``, which need no learning rate.

    Parameters
    ----------
    model
        Float32 or float64, on the device of the data.
    train
        (n, D) stimuli.
    batch_size
        Stimuli a step (the whole set where that is smaller).
    seed
        Of the starting atoms, the order of the stimuli and new starts: equal seeds give equal dictionaries.

    References
    ----------
    Mairal, Bach, Ponce & Sapiro, "Online learning for matrix factorization and sparse coding", JMLR 11 (2010).
    """

    def __init__(self, model: SparseCoding, train: Tensor, *, batch_size: int, seed: int) -> None:
        if len(train) == 0:
            raise ValueError("no training stimuli: the training set is empty")
        self.model, self.train, self.seed = model, train, seed
        self.batch_size = min(batch_size, len(train))
        self.batches_per_epoch = len(train) // self.batch_size
        self.step_number = 0
        noise = generator(seed, "weights")
        atoms = self._starts(model.n_latents, noise)
        self.atoms = atoms  # (K, D)
        self.codes_codes = atoms.new_zeros(model.n_latents, model.n_latents)
        self.codes_stimuli = torch.zeros_like(atoms)

    def _starts(self, n: int, noise: torch.Generator) -> Tensor:
        """Unit-norm atoms (n, D) at random stimuli."""
        picked = torch.randint(len(self.train), (n,), generator=noise).to(self.train.device)
        turn = torch.randn(n, self.model.n_features, generator=noise, dtype=self.train.dtype).to(self.train.device)
        return unit(unit(self.train[picked]) + INITIAL_NOISE * unit(turn))

    def _batch(self) -> Tensor:
        epoch, place = divmod(self.step_number, self.batches_per_epoch)
        if place == 0:
            order = generator(self.seed, "order", epoch)
            self.order = torch.randperm(len(self.train), generator=order).to(self.train.device)
        return self.train[self.order[place * self.batch_size : (place + 1) * self.batch_size]]

    @torch.no_grad()
    def step(self) -> dict[str, float]:
        """One batch; its mean objective, distortion and cost (nats per stimulus), active units and share converged."""
        model, x = self.model, self._batch()
        method = model.build_inference(self.atoms, model.sparsity_price)
        found = method.solve(x, tolerance=model.tolerance, max_steps=model.max_steps)
        z, self.step_number = found.codes, self.step_number + 1
        error, cost = self._objective(method, x, z)
        kept = (1.0 - 1.0 / self.step_number) ** FORGETTING
        self.codes_codes = kept * self.codes_codes + z.mT @ z / len(x)
        self.codes_stimuli = kept * self.codes_stimuli + z.mT @ x / len(x)
        self._update_atoms()
        self._restart_unused()
        per_variance = float(torch.exp(-model.log_noise_variance))
        return {
            "objective": (error + cost) * per_variance,
            "distortion": error * per_variance,
            "penalty": cost * per_variance,
            "active": float(z.count_nonzero()) / len(x),
            "converged": float(found.converged.float().mean()),
        }

    def _objective(self, method: SparseInference, x: Tensor, z: Tensor) -> tuple[float, float]:
        error = 0.5 * (x - z @ self.atoms).square().sum(-1).mean()
        return float(error), float(method.threshold.cost(z, self.model.sparsity_price).sum(-1).mean())

    def _update_atoms(self) -> None:
        atoms, use = self.atoms, self.codes_codes.diagonal().tolist()
        for k, weight in enumerate(use):
            if weight > 0:
                pull = self.codes_stimuli[k] - self.codes_codes[k] @ atoms
                moved = atoms[k] + pull / weight
                norm = torch.linalg.vector_norm(moved)
                atoms[k] = torch.where(norm > 0, moved / norm, atoms[k])

    def _restart_unused(self) -> None:
        """Atoms that no stimulus uses start again, once an epoch has shown that none does."""
        if self.step_number % self.batches_per_epoch:
            return
        use = self.codes_codes.diagonal()
        unused = (use <= UNUSED * use.mean()).nonzero()[:, 0]
        if len(unused):
            noise = generator(self.seed, "noise", self.step_number)
            self.atoms[unused] = self._starts(len(unused), noise)
            self.codes_codes[unused], self.codes_codes[:, unused] = 0.0, 0.0
            self.codes_stimuli[unused] = 0.0

    @torch.no_grad()
    def run(self, steps: int, on_step: Callable[[int], None] | None = None) -> dict[str, list[float]]:
        """Learn for `steps` batches; the means of :meth:`step` over windows, and the step at which each ends."""
        window = max(1, min(50, steps // 40))
        history: dict[str, list[float]] = {"step": []}
        sums: dict[str, float] = {}
        for number in range(1, steps + 1):
            for name, value in self.step().items():
                sums[name] = sums.get(name, 0.0) + value / window
            if number % window == 0:
                history["step"].append(float(number))
                for name, value in sums.items():
                    history.setdefault(name, []).append(value)
                sums = {}
            if on_step is not None:
                on_step(number)
        self.model.decoder.head.weight.copy_(self.atoms.mT)
        return history


def unit(rows: Tensor) -> Tensor:
    """Rows at norm one; a zero row stays zero."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)
